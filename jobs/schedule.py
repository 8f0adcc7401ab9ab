"""Clips to tasks: Ray started or joined, a task a clip, a bounded number in flight, results as they come.

What happens when something fails:
    the clip itself          fit_task turns it into the clip's result; it is not tried again
    its process or node      Ray starts the task again, MAX_RESTARTS times; it goes on from its checkpoint
    memory, of GPU or host   once more with `low_memory`, from its checkpoint
    the driver               the same command goes on; `lease.Lease` keeps a second driver out
"""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.corpus import UsageError, Work, one_line
from jobs.storage import IN_RAY_JOB, ClipFolder, Store, TakenOver
from model.config import TrainConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jobs.board import Board
    from jobs.results import Result
    from jobs.tracking import Corpus

# Read when ray is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray would start a task that took too much memory again and again, as it was.
os.environ.setdefault("RAY_task_oom_retries", "0")
# At "0", as it is by default on Windows and macOS, everything a Ray started here opens is for this machine alone; else
# it would listen on every interface, and run what anyone sends it.
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
if "RAY_ADDRESS" not in os.environ:
    os.environ.setdefault(LOOPBACK_ONLY, "0")

ROOT = Path(__file__).resolve().parent.parent
SPARE_TASKS = 2  # submitted beyond what runs at once, so that a free slot never waits for a clip to be read
POLL_S = 1.0
MAX_RESTARTS = 5  # of a task whose process or node died; it goes on from its checkpoint
OWN_PROCESS = {"max_calls": 1}  # a process a clip, so that one clip's memory or crash is never another's
OUT_OF_MEMORY = "out of memory"  # the status of a result that is none: the clip may be tried again


@dataclass(frozen=True)
class Job:
    """What a task needs beside the frames."""

    clip_id: str
    source: str
    config: TrainConfig
    store: Store  # of the experiment
    corpus: Corpus
    num_samples: int
    warning: str = ""  # for warnings.txt, told with the clip's result
    tags: Mapping[str, str] = field(default_factory=dict)  # more of its run's tags in MLflow

    def leaner(self, result: Result) -> Job:
        """The same with `low_memory`, after a result that is OUT_OF_MEMORY."""
        warning = f"{OUT_OF_MEMORY} ({result.reason}); went on from its checkpoint with low_memory"
        return replace(self, config=replace(self.config, low_memory=True), warning=warning)


def fit_task(job: Job, frames_thwc: NDArray[Any], standings: Any) -> Result:
    """The body of a Ray task: `fit_job`, which tells the driver how far it is."""
    from jobs.board import Standing

    iterations = job.config.iterations

    def report(progress: Any) -> None:
        loss, speed = progress.metrics["rec_loss"], progress.metrics["sec_per_iter"]
        n, done = progress.scale, progress.iteration
        text = f"scale {n}/{len(iterations) - 1}  {done}/{iterations[n]}  rec_loss {loss:.4f}  {speed:.3f} s/it"
        standings.put.remote(job.clip_id, Standing(sum(iterations[:n]) + done, text))

    return fit_job(job, frames_thwc, report)


def fit_job(
    job: Job,
    frames_thwc: NDArray[Any],
    report: Callable[[Any], None] = lambda progress: None,
    scored: Callable[[int, Mapping[str, float]], None] = lambda scale, scores: None,
) -> Result:
    """`fit_clip` in the clip's folder and with its run in MLflow; whatever goes wrong becomes the clip's result."""
    import torch

    from jobs import forwarding
    from jobs.fit_clip import Clip, fit_clip
    from jobs.results import Result
    from model.memory import keep_freed_memory

    if not job.config.low_memory:
        keep_freed_memory()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # set by Ray to the task's CPUs
    try:
        with ClipFolder(job.store, job.clip_id) as folder:

            def check_and_report(progress: Any) -> None:
                folder.check()
                report(progress)

            with forwarding.forwarding(job.corpus, job.clip_id, folder.path):
                try:
                    _warn_once(folder.path / "warnings.txt", job.warning)
                    clip = Clip(job.clip_id, job.source, frames_thwc, job.tags)
                    return fit_clip(
                        clip,
                        job.config,
                        folder.path,
                        num_samples=job.num_samples,
                        report=check_and_report,
                        scored=scored,
                    )
                except TakenOver:
                    raise
                except Exception as error:  # the boundary where a failure becomes data: this clip's, and only its
                    reason = f"{type(error).__name__}: {one_line(error)}"
                    if _is_out_of_memory(error) and not job.config.low_memory:
                        return Result(job.clip_id, OUT_OF_MEMORY, reason)
                    return _failed(job, folder.path, reason, traceback.format_exc())
    except TakenOver as error:  # nothing may be written: the folder is another's
        return Result(job.clip_id, "failed", one_line(error))
    except Exception as error:  # its storage, before or after training
        return _failed(job, None, f"{type(error).__name__}: {one_line(error)}")


def _is_out_of_memory(error: BaseException) -> bool:
    """torch has a type for a GPU's memory only; its allocator on a CPU raises a plain RuntimeError."""
    import torch

    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _warn_once(path: Path, line: str) -> None:
    from model.files import append

    if line and not (path.exists() and line in path.read_text().splitlines()):
        append(path, line)


def _failed(job: Job, folder: Path | None, reason: str, details: str = "") -> Result:
    """Write a failure into the clip's folder, from where it goes to MLflow; what cannot be written is in the table.

    Args:
        folder: the clip's on this machine; None outside the clip's task.
    """
    from jobs.results import Result, write_result

    result = Result(job.clip_id, "failed", reason)
    local = folder or job.store.path / job.clip_id
    try:
        local.mkdir(parents=True, exist_ok=True)
        if details:
            (local / "error.txt").write_text(details)
        write_result(local, result)
        if folder is None:
            job.store.push(job.clip_id)
    except OSError as error:  # the disk itself may be what failed
        result = replace(result, reason=f"{reason} (and its folder did not take the failure: {one_line(error)})")
    return result


# -- the loop


@dataclass(frozen=True)
class Slots:
    """What a task asks Ray for, and how many tasks run at once."""

    options: dict[str, Any]
    count: int


def run(
    todo: Iterable[Work],
    job_of: Callable[[Work], Job],
    slots: Slots,
    board: Board,
    fit: Callable[[Job, NDArray[Any], Any], Result] = fit_task,
) -> Iterator[Result]:
    """Fit every clip in a Ray task of its own; yields results in the order in which clips end.

    What is held for a clip is held while it is in flight: the memory of this process does not grow with the corpus.
    Ray must have been started.
    """
    import ray
    from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

    from jobs.board import Standings
    from jobs.results import Result
    from pipeline import shards

    standings: Any = Standings.remote()  # type: ignore[attr-defined]
    task: Any = ray.remote(max_retries=MAX_RESTARTS, **slots.options)(fit)
    waiting = iter(todo)
    flying: dict[Any, tuple[Job, Any]] = {}  # by the result to come: its job, and its frames in Ray's object store
    exhausted, told = False, 0.0
    while True:
        while not exhausted and len(flying) < slots.count + SPARE_TASKS:
            work = next(waiting, None)
            if work is None:
                exhausted = True
                break
            job = job_of(work)
            assert work.entry is not None  # only a dry run has none
            try:
                frames = ray.put(shards.read_clip(work.entry).frames_thwc)
            except shards.ShardError as error:
                yield _ended(board, _failed(job, None, str(error)))
                continue
            flying[task.remote(job, frames, standings)] = job, frames
        if not flying:
            return
        ready, _ = ray.wait(list(flying), num_returns=len(flying), timeout=0)
        if not ready:
            ready, _ = ray.wait(list(flying), timeout=POLL_S)
        if time.monotonic() - told > POLL_S:
            told = time.monotonic()
            with contextlib.suppress(RayError):  # only the display: the actor's node may be gone, it starts again
                board.update(ray.get(standings.get.remote()), [job.clip_id for job, _ in flying.values()])
        for reference in ready:
            job, frames = flying.pop(reference)
            try:
                result = ray.get(reference)
            except RayTaskError as error:  # what goes wrong with the clip is in its result; this is not that
                result = _failed(job, None, f"its task could not run: {one_line(error)}")
            except OutOfMemoryError as error:  # Ray ended the process before the machine ran out
                result = Result(job.clip_id, OUT_OF_MEMORY, one_line(error))
            except RayError as error:
                result = _failed(job, None, f"its process died {MAX_RESTARTS + 1} times: {one_line(error)}")
            if result.status == OUT_OF_MEMORY:
                if not job.config.low_memory:
                    leaner = job.leaner(result)
                    flying[task.remote(leaner, frames, standings)] = leaner, frames
                    continue
                result = _failed(job, None, f"{OUT_OF_MEMORY}, also with low_memory: {result.reason}")
            standings.forget.remote(job.clip_id)
            yield _ended(board, result)


def _ended(board: Board, result: Result) -> Result:
    board.finished(result.clip_id, f"failed: {result.reason}" if result.reason else "done")
    return result


# -- Ray


@contextlib.contextmanager
def ray_session() -> Iterator[None]:
    """Join the cluster RAY_ADDRESS names (ray job submit sets it), else start Ray on this machine."""
    import logging

    import ray

    address = os.environ.get("RAY_ADDRESS")
    runtime_env = None
    if address is None:
        # Workers of a Ray started here inherit the environment: they import this project from where it lies.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    elif IN_RAY_JOB not in os.environ:
        # Joined from outside a job: its nodes get this folder, as `ray job submit --working-dir` would give it.
        runtime_env = {"working_dir": str(ROOT)}
    ray.init(
        runtime_env=runtime_env,
        address=address or "local",
        include_dashboard=None if address else False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


def resources(gpus_per_clip: float, cpus_per_clip: int | None, clips: int) -> Slots:
    """Slots in the cluster that is there. Raises UsageError for what no node has.

    Ray would let a task wait for ever for a GPU that does not exist.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus, cpus = ([node.get(name, 0) for node in nodes] for name in ("GPU", "CPU"))
    if max(gpus) > 0:
        share = gpus_per_clip
        if share <= 0 or share > max(gpus) or (share > 1 and share % 1):
            most = f"at most {max(gpus):g}, the most a node has"
            raise UsageError(f"--gpus-per-clip {share:g}: above 0, {most}, and whole above 1")
        return Slots(OWN_PROCESS | {"num_gpus": share, "num_cpus": 1}, max(1, int(sum(gpu // share for gpu in gpus))))
    cores = cpus_per_clip or cpu_share(int(max(cpus)), clips)
    if cores < 1 or cores > max(cpus):
        raise UsageError(f"--cpus-per-clip {cores}: at least 1, at most {max(cpus):g}, the most a node has")
    return Slots(OWN_PROCESS | {"num_cpus": cores}, max(1, int(sum(cpu // cores for cpu in cpus))))


def cpu_share(cores: int, clips: int) -> int:
    return max(1, cores // max(1, clips))

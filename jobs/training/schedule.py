"""Clips to tasks: Ray started or joined, a task a clip, a bounded number in flight, results as they come.

A task is one process on one slot, or, of a video that several workers train together, jobs/together.py on as many.
Such a video is only submitted when that many slots are free, and nothing overtakes it meanwhile: its workers start
together and neither wait for clips nor starve behind them.

What happens when something fails:
    the clip itself          fit_task turns it into the clip's result; it is not tried again
    its process or node      Ray starts the task again, MAX_RESTARTS times; it goes on from its checkpoint
    memory, of GPU or host   again from its checkpoint with half the micro-batch, and at last with `low_memory`
    the driver               the same command goes on; `lease.Lease` keeps a second driver out
"""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.clip_folder import ClipFolder
from infra.errors import TakenOver, one_line
from infra.ray_cluster import LOOPBACK_ONLY, SPARE_TASKS, Slots
from infra.store import Store
from jobs.experiment.corpus import Work
from model.config import TrainConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from infra.tracking.runs import Corpus
    from jobs.experiment.result import OutOfMemory, Result
    from jobs.training.progress import Board

# Read when ray is imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray would start a task that took too much memory again and again, as it was.
os.environ.setdefault("RAY_task_oom_retries", "0")
if "RAY_ADDRESS" not in os.environ:
    os.environ.setdefault(LOOPBACK_ONLY, "0")

POLL_S = 1.0
MAX_RESTARTS = 5  # of a task whose process or node died; it goes on from its checkpoint
SLOT = ("num_cpus", "num_gpus")


@dataclass(frozen=True)
class Job:
    """What a task needs beside the frames."""

    clip_id: str
    source: str
    config: TrainConfig
    store: Store  # of the experiment
    corpus: Corpus
    num_samples: int
    workers: int = 1  # that train it together
    slot: Mapping[str, float] = field(default_factory=dict)  # what each of several takes: num_cpus, num_gpus
    warning: str = ""  # for warnings.txt, told with the clip's result
    tags: Mapping[str, str] = field(default_factory=dict)  # more of its run's tags in MLflow

    def leaner(self, result: OutOfMemory) -> Job | None:
        """The same with half the micro-batch or, where that was one sample, with `low_memory`; None beyond that."""
        if result.micro_batch > 1:
            half = result.micro_batch // 2
            config, told = replace(self.config, micro_batch=half), f"micro_batch={half}"
        elif not self.config.low_memory:
            config, told = replace(self.config, low_memory=True), "low_memory"
        else:
            return None
        warning = f"{result.status} ({result.reason}); went on from its checkpoint with {told}"
        return replace(self, config=config, warning=warning)


def fit_task(job: Job, chunks: Sequence[Any], standings: Any) -> Result:
    """The body of a Ray task: `fit_job`, which tells the driver how far it is.

    Args: chunks: references to the frames in Ray's object store.
    """
    import ray

    if job.workers > 1:
        from jobs.training.ray_workers import fit_together

        return fit_together(job, chunks, standings)
    return fit_job(job, ray.get(chunks), reporting(job, standings))


def reporting(job: Job, standings: Any) -> Callable[[Any], None]:
    """What tells the driver how far a training is."""
    from jobs.training.progress import Standing

    iterations = job.config.iterations

    def report(progress: Any) -> None:
        loss, speed = progress.metrics["rec_loss"], progress.metrics["sec_per_iter"]
        n, done = progress.scale, progress.iteration
        text = f"scale {n}/{len(iterations) - 1}  {done}/{iterations[n]}  rec_loss {loss:.4f}  {speed:.3f} s/it"
        standings.put.remote(job.clip_id, Standing(sum(iterations[:n]) + done, text))

    return report


def fit_job(
    job: Job,
    chunks: Sequence[NDArray[Any]],
    report: Callable[[Any], None] = lambda progress: None,
    scored: Callable[[int, Mapping[str, float]], None] = lambda scale, scores: None,
) -> Result:
    """`fit_clip` in the clip's folder and with its run in MLflow; whatever goes wrong becomes the clip's result.

    Args: chunks: uint8 (13, H, W, 3) each.

    Raises PeerLost if other workers train the clip too and one of them is gone.
    """
    from infra.tracking import forward as forwarding
    from jobs.training.fit_clip import Clip, fit_clip
    from model.training.workers import PeerLost

    settle(job.config)
    try:
        with ClipFolder(job.store, job.clip_id) as folder:

            def check_and_report(progress: Any) -> None:
                folder.check()
                report(progress)

            with forwarding.forwarding(job.corpus, job.clip_id, folder.path):
                try:
                    _warn_once(folder.path / "warnings.txt", job.warning)
                    clip = Clip(job.clip_id, job.source, chunks, job.tags)
                    return fit_clip(
                        clip,
                        job.config,
                        folder.path,
                        num_samples=job.num_samples,
                        report=check_and_report,
                        scored=scored,
                    )
                except (TakenOver, PeerLost):
                    raise
                except Exception as error:  # the boundary where a failure becomes data: this clip's, and only its
                    result = failure(job, error)
                    if result.status == "failed":
                        keep_failure(job, folder.path, result, traceback.format_exc())
                    return result
    except TakenOver as error:  # nothing may be written: the folder is another's
        return replace(failure(job, error), reason=one_line(error))
    except PeerLost:
        raise
    except Exception as error:  # its storage, before or after training
        return keep_failure(job, None, failure(job, error))


def settle(config: TrainConfig) -> None:
    """Make this process the one of a clip: its threads, and its part of the GPU."""
    import ray
    import torch

    from model.device import keep_freed_memory

    if not config.low_memory:
        keep_freed_memory()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # set by Ray to the task's CPUs
    share = ray.get_runtime_context().get_assigned_resources().get("GPU", 1) if ray.is_initialized() else 1
    if torch.cuda.is_available() and share < 1:  # else the first clip there would take what the others need
        torch.cuda.set_per_process_memory_fraction(share)


def failure(job: Job, error: Exception) -> Result:
    """What an error of a clip's training means: its result, or that it may be tried again with less memory."""
    from jobs.experiment.result import OutOfMemory, Result
    from model.training import memory

    reason = f"{type(error).__name__}: {one_line(error)}"
    if isinstance(error, memory.OutOfMemory):
        told = OutOfMemory(job.clip_id, reason=reason, micro_batch=error.micro_batch)
    elif memory.is_out_of_memory(error):  # beside the training: in its samples or scores
        told = OutOfMemory(job.clip_id, reason=reason)
    else:
        return Result(job.clip_id, "failed", reason)
    if job.leaner(told):
        return told
    return Result(job.clip_id, "failed", reason)


def _warn_once(path: Path, line: str) -> None:
    from infra.files import append

    if line and not (path.exists() and line in path.read_text().splitlines()):
        append(path, line)


def keep_failure(job: Job, folder: Path | None, result: Result, details: str = "") -> Result:
    """Write a failure into the clip's folder, from where it goes to MLflow; what cannot be written is in the table.

    Args:
        folder: the clip's on this machine; None outside the clip's task.
    """
    from jobs.experiment.result import write_result

    local = folder or job.store.path / job.clip_id
    try:
        local.mkdir(parents=True, exist_ok=True)
        if details:
            (local / "error.txt").write_text(details)
        write_result(local, result)
        if folder is None:
            job.store.push(job.clip_id)
    except OSError as error:  # the disk itself may be what failed
        result = replace(result, reason=f"{result.reason} (and its folder did not take the failure: {one_line(error)})")
    return result


# -- the loop


def run(
    todo: Iterable[Work],
    job_of: Callable[[Work], Job],
    slots: Slots,
    board: Board,
    fit: Callable[[Job, Sequence[Any], Any], Result] = fit_task,
) -> Iterator[Result]:
    """Fit every clip in a Ray task of its own; yields results in the order in which clips end.

    What is held for a clip is held while it is in flight: the memory of this process does not grow with the corpus.
    Ray must have been started.
    """
    import ray
    from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

    from jobs.experiment.result import OutOfMemory, Result
    from jobs.training.progress import Standings
    from pipeline import shards

    standings: Any = Standings.remote()  # type: ignore[attr-defined]
    task: Any = ray.remote(max_retries=MAX_RESTARTS, **slots.options)(fit)
    coordinator = task.options(num_cpus=0, num_gpus=0)  # its workers take the slots
    waiting = iter(todo)
    flying: dict[Any, tuple[Job, Any]] = {}  # by the result to come: its job, and its chunks in Ray's object store

    def submit(job: Job, chunks: Sequence[Any]) -> None:
        job = replace(job, slot={name: slots.options[name] for name in SLOT if name in slots.options})
        flying[(coordinator if job.workers > 1 else task).remote(job, chunks, standings)] = job, chunks

    def has_room(job: Job) -> bool:
        workers = [job.workers, *(other.workers for other, _ in flying.values())]
        return sum(workers) <= slots.count + (SPARE_TASKS if max(workers) == 1 else 0)

    def failed(job: Job, reason: str) -> Result:
        return keep_failure(job, None, Result(job.clip_id, "failed", reason))

    following, told = next(waiting, None), 0.0
    while True:
        while following is not None and has_room(job := job_of(following)):
            work, following = following, next(waiting, None)
            try:
                chunks = [ray.put(shards.read_clip(entry).frames_thwc) for entry in work.entries]
            except shards.ShardError as error:
                yield _ended(board, failed(job, str(error)))
                continue
            submit(job, chunks)
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
            job, chunks = flying.pop(reference)
            try:
                result = ray.get(reference)
            except RayTaskError as error:  # what goes wrong with the clip is in its result; this is not that
                result = failed(job, f"its task could not run: {one_line(error)}")
            except OutOfMemoryError as error:  # Ray ended the process before the machine ran out
                least = len(chunks) == 1 or job.config.micro_batch == 1  # how many there were is not known here
                result = OutOfMemory(job.clip_id, reason=one_line(error), micro_batch=1 if least else 2)
            except RayError as error:
                result = failed(job, f"its process died {MAX_RESTARTS + 1} times: {one_line(error)}")
            if isinstance(result, OutOfMemory):
                if leaner := job.leaner(result):
                    submit(leaner, chunks)
                    continue
                result = failed(job, f"{result.status}, also with low_memory: {result.reason}")
            standings.forget.remote(job.clip_id)
            yield _ended(board, result)


def _ended(board: Board, result: Result) -> Result:
    board.finished(result.clip_id, f"failed: {result.reason}" if result.reason else "done")
    return result


# -- Ray

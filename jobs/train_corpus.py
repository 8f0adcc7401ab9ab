"""START HERE. A corpus of videos in; one trained generator a clip out, each in its own Ray task.

    python jobs/train_corpus.py --corpus demo --preset demo
    python jobs/train_corpus.py --corpus my_videos/ --preset small --set iters_per_scale=2000
    ray job submit --working-dir . -- python jobs/train_corpus.py --corpus /nfs/clips --preset paper --storage /nfs/runs

Running the same command again finishes what is missing. Exit code: 0 all clips done; 1 some failed, the table names
them and why; 2 bad arguments or nothing to do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jobs.corpus import Corpora, UsageError, Work, find, ladder, one_line, peek  # noqa: E402
from jobs.presets import PRESETS  # noqa: E402
from model.config import ConfigError, TrainConfig  # noqa: E402
from model.files import StorageError  # noqa: E402
from pipeline.header import shown  # noqa: E402

# torch, ray, mlflow and ffmpeg take seconds to import: only when there is work, so that --help answers at once.
if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

    from jobs.results import Result
    from jobs.tracking import Corpus

DONE, SOME_FAILED, NOTHING_TO_DO = 0, 1, 2
SPARE_TASKS = 2  # submitted beyond what runs at once, so that a free slot never waits for a clip to be read
POLL_S = 1.0
IN_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set in what `ray job submit` runs
MAX_RESTARTS = 5  # of a task whose process or node died; it goes on from its checkpoint


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train_corpus.py", description=__doc__, formatter_class=_HelpFormatter)
    add = parser.add_argument
    add("--corpus", required=True, help="shards, a video file, a folder of videos, a CSV manifest, their URI, or demo")
    add("--preset", choices=sorted(PRESETS), default="small", help="a complete configuration (jobs/presets.py)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting; may be repeated")
    add("--storage", help="folder for everything that is made; a path all nodes share (default: runs)")
    add("--experiment", help="name of this corpus in storage and MLflow (default: corpus and preset)")
    add("--tracking-uri", help="MLflow (default: $MLFLOW_TRACKING_URI, else a sqlite file in the storage folder)")
    add("--gpus-per-clip", type=float, default=1.0, help="GPUs a clip, where the cluster has any")
    add("--cpus-per-clip", type=int, help="CPU cores a clip, where it has no GPU (default: cores / clips, at least 1)")
    add("--n", type=int, default=10, help="samples a clip that are scored and kept, at least 2")
    resume = parser.add_mutually_exclusive_group()
    resume.add_argument("--resume", action="store_true", help="finish what is missing (the default)")
    resume.add_argument("--fresh", action="store_true", help="forget these clips' earlier work and start again")
    add("--dry-run", action="store_true", help="print clips, ladder, resources and iterations; do nothing")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    from rich.console import Console

    console = Console(soft_wrap=not sys.stdout.isatty())
    try:
        return run(args, console)
    except (UsageError, ConfigError, StorageError) as error:
        console.print(f"error: {shown(str(error))}", style="red", markup=False, highlight=False, soft_wrap=True)
        return NOTHING_TO_DO
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last checkpoints", highlight=False)
        return 130


def run(args: argparse.Namespace, console: Console) -> int:
    config = PRESETS[args.preset]().with_overrides(args.set)
    if args.n < 2:
        raise UsageError(f"--n {args.n}: at least 2 samples are needed to measure diversity")
    storage = _storage(args.storage)
    experiment = args.experiment or _experiment_name(args.corpus, args.preset)
    if not re.fullmatch(r"\w[\w.-]*", experiment):
        raise UsageError(f"--experiment {experiment}: letters, digits, '_', '-' and '.' only; it names a folder")
    base = storage / experiment

    # -- 1. what there is to do
    if args.dry_run:
        with tempfile.TemporaryDirectory() as nowhere:
            corpora = peek(args.corpus, config, Path(nowhere))
            _tell_unused(console, corpora)
            _print_plan(console, corpora, config, base, args)
            return DONE if corpora.works else NOTHING_TO_DO
    _check_writable(base)
    with console.status("reading the corpus"):
        corpora = find(args.corpus, base, config)
    _tell_unused(console, corpora)
    if not corpora.works:
        for _, reason in corpora.failures:
            console.print(reason, markup=False, highlight=False, soft_wrap=True)
        raise UsageError(f"{args.corpus}: no clip that can be trained")

    # -- 2. one experiment holds models of one configuration
    from jobs.results import Submission, write_json, write_submission

    discarded = {work.clip_id for work in corpora.works} if args.fresh else set()
    _check_definition(base, config, discarded)
    corpus = _open_tracking(args, console, storage, experiment, corpora, discarded)
    for clip_id in discarded & {folder.name for folder in base.iterdir()}:
        shutil.rmtree(base / clip_id)
    write_json(base / "experiment.json", config.to_dict())
    clip_ids = [work.clip_id for work in corpora.works]
    write_submission(base, Submission(args.corpus, args.preset, clip_ids, corpora.failures))

    # -- 3. train what is missing
    results = _train_all(args, console, corpora, config, base, corpus)

    # -- 4. totals
    failed = len(corpora.failures) + sum(result.status != "done" for result in results)
    return SOME_FAILED if failed else DONE


# -- what there is to do


def _tell_unused(console: Console, corpora: Corpora) -> None:
    for source, frames in corpora.dropped.items():
        if frames:
            text = f"{Path(source).name}: {frames} frames beside the clip are not used"
            console.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_plan(console: Console, corpora: Corpora, config: TrainConfig, base: Path, args: argparse.Namespace) -> None:
    from jobs.results import read_result

    console.print(f"{len(corpora.works)} clips, preset {args.preset}, into {base}", markup=False, soft_wrap=True)
    results = {work.clip_id: read_result(base / work.clip_id) for work in corpora.works}
    todo = [clip_id for clip_id, result in results.items() if result is None or result.status != "done"]
    for work in corpora.works:
        sizes = " ".join(f"{s.frames}×{s.height}×{s.width}" for s in ladder(config, work.height, work.width))
        state = "to train" if work.clip_id in todo else "done"
        console.print(f"{work.clip_id}  {work.height}×{work.width} px  {state}", markup=False, highlight=False)
        console.print(f"    ladder T×H×W: {sizes}", markup=False, highlight=False, soft_wrap=True)
        if config.max_size > (work.height if config.ladder_side == "height" else work.width):
            console.print("    the source is smaller than the finest scale, which will be enlarged", highlight=False)
    for _, reason in corpora.failures:
        console.print(f"not usable: {reason}", markup=False, highlight=False, soft_wrap=True)
    iterations = config.iterations
    console.print(f"iterations a clip: {' + '.join(map(str, iterations))} = {sum(iterations)}", highlight=False)
    console.print(f"iterations in all: at most {sum(iterations) * len(todo)}, for {len(todo)} clips", highlight=False)
    console.print(
        f"resources a clip: {args.gpus_per_clip} GPU where the cluster has GPUs, else "
        f"{args.cpus_per_clip or _cpu_share(os.cpu_count() or 1, len(todo))} CPU cores",
        highlight=False,
    )


def _check_definition(base: Path, config: TrainConfig, discarded: Collection[str]) -> None:
    """Raises UsageError if `base` keeps models of another definition: two never share a name."""
    path = base / "experiment.json"
    if not path.exists():
        return
    kept = [folder.name for folder in base.iterdir() if folder.is_dir() and folder.name[0] != "."]
    kept = sorted(set(kept) - set(discarded))
    before, now = json.loads(path.read_text()), config.definition()
    changed = [f"{name} was {before.get(name)}, is now {now[name]}" for name in now if before.get(name) != now[name]]
    if kept and changed:
        mend = f"use --experiment NAME, or delete {kept[0]} …" if discarded else "use --experiment NAME or --fresh"
        raise UsageError(f"{base}: holds models with other settings ({'; '.join(changed)}); {mend}")


def _open_tracking(
    args: argparse.Namespace,
    console: Console,
    storage: Path,
    experiment: str,
    corpora: Corpora,
    discarded: Collection[str],
) -> Corpus:
    """The corpus run in MLflow. A clip that has no folder has no earlier work, so an old run of it is forgotten too."""
    from jobs import tracking

    uri = tracking.uri_of(args.tracking_uri, storage)
    base = storage / experiment
    base.mkdir(parents=True, exist_ok=True)
    new = [w.clip_id for w in corpora.works if w.clip_id in discarded or not (base / w.clip_id).exists()]
    try:
        with console.status("opening MLflow"):
            corpus = tracking.open_corpus(uri, experiment, storage, {"corpus": args.corpus, "preset": args.preset})
            tracking.forget_clips(corpus, new)
    except ConnectionError as error:
        raise UsageError(str(error)) from error
    return corpus


# -- training


def _train_all(
    args: argparse.Namespace,
    console: Console,
    corpora: Corpora,
    config: TrainConfig,
    base: Path,
    corpus: Corpus,
) -> list[Result]:
    """Train every clip that is not done, a bounded number at a time; print the table; return all results.

    What MLflow did not take during an outage it is given now; if it is still away, a warning names the command.
    """
    from jobs import upload
    from jobs.results import read_result

    found = {work.clip_id: read_result(base / work.clip_id) for work in corpora.works}
    results = {clip_id: result for clip_id, result in found.items() if result and result.status == "done"}
    todo = [work for work in corpora.works if work.clip_id not in results]
    if todo:
        for result in _run_tasks(args, console, todo, len(results), config, base, corpus):
            results[result.clip_id] = result

    ordered = [results[work.clip_id] for work in corpora.works]
    with console.status("completing MLflow"):
        folders = [base / result.clip_id for result in ordered if (base / result.clip_id / "result.json").exists()]
        missing = upload.forward(corpus, folders)
        page, more = upload.close(corpus, base, ordered, corpora.failures, missing)
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    if corpus.uri.startswith("sqlite"):
        text = f"MLflow: mlflow server --host 127.0.0.1 --backend-store-uri {corpus.uri}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if missing or more:
        reason = next(iter((missing | more).values()))
        what = " and ".join([f"{len(missing)} clips"] * bool(missing) + list(more))
        text = f"warning: {what} not in MLflow ({reason}); this sends the rest, once it answers:"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        text = upload.command(base.parent, base.name, corpus.uri)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    return ordered


def _run_tasks(
    args: argparse.Namespace,
    console: Console,
    todo: Sequence[Work],
    already_done: int,
    config: TrainConfig,
    base: Path,
    corpus: Corpus,
) -> list[Result]:
    import ray
    from ray.exceptions import RayError, RayTaskError

    from jobs.board import Board, Standings
    from pipeline import shards

    with console.status("starting Ray"):
        _start_ray()
    try:
        options, slots = _resources(args, len(todo))
        standings = Standings.remote()  # type: ignore[attr-defined]
        # max_calls: a process a clip, so that one clip's memory or crash is never another's.
        task: Any = ray.remote(max_calls=1, max_retries=MAX_RESTARTS, **options)(fit_task)  # type: ignore[call-overload]
        waiting = list(reversed(todo))
        flying: dict[Any, Job] = {}
        results: list[Result] = []
        with Board(console, already_done + len(todo), already_done, sum(config.iterations)) as board:
            while waiting or flying:
                while waiting and len(flying) < slots + SPARE_TASKS:
                    work = waiting.pop()
                    job = Job(work.clip_id, work.source, config, base / work.clip_id, corpus, args.n)
                    assert work.entry is not None  # only a dry run has none
                    try:
                        frames = shards.read_clip(work.entry).frames_thwc
                    except shards.ShardError as error:
                        results.append(_failed(job, str(error)))
                        board.finished(work.clip_id, f"failed: {error}")
                        continue
                    flying[task.remote(job, frames, standings)] = job
                if not flying:
                    break  # the last ones failed before they could start
                ready, _ = ray.wait(list(flying), timeout=POLL_S)
                with contextlib.suppress(RayError):  # only the display: the actor's node may be gone, it starts again
                    board.update(ray.get(standings.get.remote()), [job.clip_id for job in flying.values()])
                for reference in ready:
                    job = flying.pop(reference)
                    try:
                        result = ray.get(reference)
                    except RayTaskError as error:  # what goes wrong with the clip is in its result; this is not that
                        result = _failed(job, f"its task could not run: {one_line(error)}")
                    except RayError as error:
                        result = _failed(job, f"its process died {MAX_RESTARTS + 1} times: {one_line(error)}")
                    results.append(result)
                    board.finished(job.clip_id, f"failed: {result.reason}" if result.reason else "done")
        return results
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Job:
    """What a task needs beside the frames."""

    clip_id: str
    source: str
    config: TrainConfig
    folder: Path
    corpus: Corpus
    num_samples: int


def fit_task(job: Job, frames_thwc: NDArray[Any], standings: Any) -> Result:
    """The body of a Ray task: `fit_clip`, with whatever goes wrong turned into the clip's result."""
    import torch

    from jobs import forwarding
    from jobs.board import Standing
    from jobs.fit_clip import Clip, fit_clip
    from model.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # set by Ray to the task's CPUs
    iterations = job.config.iterations

    def report(progress: Any) -> None:
        loss, speed = progress.metrics["rec_loss"], progress.metrics["sec_per_iter"]
        n, done = progress.scale, progress.iteration
        text = f"scale {n}/{len(iterations) - 1}  {done}/{iterations[n]}  rec_loss {loss:.4f}  {speed:.3f} s/it"
        standings.put.remote(job.clip_id, Standing(sum(iterations[:n]) + done, text))

    with forwarding.forwarding(job.corpus, job.clip_id, job.folder):
        try:
            clip = Clip(job.clip_id, job.source, frames_thwc)
            return fit_clip(clip, job.config, job.folder, num_samples=job.num_samples, report=report)
        except Exception as error:  # the boundary where a failure becomes data: this clip's, and only this clip's
            return _failed(job, f"{type(error).__name__}: {one_line(error)}", traceback.format_exc())


def _failed(job: Job, reason: str, details: str = "") -> Result:
    """Write a failure into the clip's folder, from where it goes to MLflow; what cannot be written is in the table."""
    from jobs.results import Result, write_result

    result = Result(job.clip_id, "failed", reason)
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        if details:
            (job.folder / "error.txt").write_text(details)
        write_result(job.folder, result)
    except OSError as error:  # the disk itself may be what failed
        result = replace(result, reason=f"{reason} (and its folder did not take the failure: {one_line(error)})")
    return result


def _start_ray() -> None:
    """Join the cluster RAY_ADDRESS names (ray job submit sets it), else start Ray on this machine."""
    import logging

    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
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


def _resources(args: argparse.Namespace, clips: int) -> tuple[dict[str, float], int]:
    """What a task asks Ray for, and how many tasks run at once. Raises UsageError for what no node has.

    Ray would let a task wait for ever for a GPU that does not exist.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus, cpus = ([node.get(name, 0) for node in nodes] for name in ("GPU", "CPU"))
    if max(gpus) > 0:
        share = args.gpus_per_clip
        if share <= 0 or share > max(gpus) or (share > 1 and share % 1):
            most = f"at most {max(gpus):g}, the most a node has"
            raise UsageError(f"--gpus-per-clip {share:g}: above 0, {most}, and whole above 1")
        return {"num_gpus": share, "num_cpus": 1}, max(1, int(sum(gpu // share for gpu in gpus)))
    share = args.cpus_per_clip or _cpu_share(int(max(cpus)), clips)
    if share < 1 or share > max(cpus):
        raise UsageError(f"--cpus-per-clip {share}: at least 1, at most {max(cpus):g}, the most a node has")
    return {"num_cpus": share}, max(1, int(sum(cpu // share for cpu in cpus)))


def _cpu_share(cores: int, clips: int) -> int:
    return max(1, cores // max(1, clips))


# -- names


def _storage(given: str | None) -> Path:
    in_ray_job = IN_RAY_JOB in os.environ
    if given is None:
        # A Ray job's working folder is a copy that is thrown away.
        return Path.home() / "hp-vae-gan-runs" if in_ray_job else Path("runs").resolve()
    if "://" in given:
        raise UsageError(f"--storage {given}: object stores are not supported; give a path that all nodes share")
    if in_ray_job and not os.path.isabs(given):
        raise UsageError(f"--storage {given}: a Ray job's folder is thrown away; give an absolute path")
    return Path(given).resolve()


def _check_writable(base: Path) -> None:
    """Raises UsageError if the experiment's folder cannot be written, or made. Leaves nothing behind."""
    try:
        folder = next(folder for folder in (base, *base.parents) if folder.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        cause = f"nothing can be written there ({error.strerror})"
        raise UsageError(f"--storage: {base}: {cause}; make it writable, or give another folder") from error


def _experiment_name(corpus: str, preset: str) -> str:
    stem = Path(corpus.rstrip("/")).stem or "corpus"
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in stem)
    return name if name == preset else f"{name}-{preset}"


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description as written, and every default."""


if __name__ == "__main__":
    sys.exit(main())

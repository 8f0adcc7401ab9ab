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
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from infra.errors import UsageError, one_line  # noqa: E402
from infra.lease import Lease  # noqa: E402
from infra.store import EVALUATION, Store, default_folder  # noqa: E402
from jobs.command_line import exit_code  # noqa: E402
from jobs.experiment.corpus import Corpora, Work, find, peek  # noqa: E402
from jobs.training import schedule  # noqa: E402
from model.config import TrainConfig  # noqa: E402
from model.presets import ABLATIONS, PRESETS  # noqa: E402
from model.pyramid import ladder  # noqa: E402

# torch, ray, mlflow and ffmpeg take seconds to import: only when there is work, so that --help answers at once.
if TYPE_CHECKING:
    from rich.console import Console

    from infra.tracking.runs import Corpus
    from jobs.experiment.result import Result, Submission

DONE, SOME_FAILED, NOTHING_TO_DO = 0, 1, 2


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train_corpus.py", description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--corpus", required=True, help="shards, a video file, a folder of videos, a CSV manifest, their URI, or demo")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--preset", choices=sorted(PRESETS), default="small", help="a configuration (jobs/presets.py)")
    start.add_argument("--config", metavar="FILE", help="one as JSON: an experiment.json, or best.json of jobs/tune.py")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting; may be repeated")
    add("--ablation", choices=sorted(ABLATIONS), help="one of the paper's alternatives, applied last")
    add("--storage", help="where everything goes that is made: a path all nodes share, or s3://, gs:// (default: runs)")
    add("--experiment", help="name of this corpus in storage and MLflow (default: corpus, preset, ablation)")
    add("--tracking-uri", help="MLflow (default: $MLFLOW_TRACKING_URI, else a sqlite file in the storage folder)")
    add("--long", action="store_true", help="train each video whole: one model on all its chunks, losses summed")
    add("--stride", type=int, help="with --long, frames from one chunk's start to the next (default: 13, no overlap)")
    add("--workers-per-video", type=int, default=1, help="with --long: as many train a video together, each as a clip")
    add("--gpus-per-clip", type=float, default=1.0, help="GPUs a clip, where the cluster has any; 0.25: four on one")
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
    told = "stopped; the same command goes on from the last checkpoints"
    return exit_code(lambda: run(args, console), console, stopped=told)


def check(argv: Sequence[str]) -> None:
    """Raises what `main` would tell of these arguments before it reads the corpus. Changes nothing."""
    from infra.tracking import runs as tracking

    args = parse(argv)
    config, base = _settled(args)
    base.check_writable()
    _check_definition(base, config, _clip_folders(base.names()), ())
    uri = tracking.uri_of(args.tracking_uri, base.parent.tracking_folder)
    try:
        tracking.find_corpus(uri, base.name)
    except tracking.ERRORS as error:
        raise UsageError(str(tracking.unusable(uri, error))) from error


def _settled(args: argparse.Namespace) -> tuple[TrainConfig, Store]:
    """The configuration and the experiment's folder. Raises UsageError, ConfigError."""
    config = _read_config(args.config) if args.config else PRESETS[args.preset]()
    if args.config:
        args.preset = Path(args.config).stem
    config = config.with_overrides(args.set)
    if args.ablation:
        config = ABLATIONS[args.ablation](config)
    config = _chunked(args, config)
    if args.n < 2:
        raise UsageError(f"--n {args.n}: at least 2 samples are needed to measure diversity")
    experiment = args.experiment or "-".join(filter(None, [experiment_name(args.corpus, args.preset), args.ablation]))
    return config, open_experiment(args.storage, experiment)


def run(args: argparse.Namespace, console: Console) -> int:
    config, base = _settled(args)
    if args.dry_run:
        with tempfile.TemporaryDirectory() as nowhere:
            corpora = peek(args.corpus, config, Path(nowhere))
            _tell_unused(console, corpora)
            _print_plan(console, corpora, config, base, args)
            return DONE if corpora.works else NOTHING_TO_DO
    base.check_writable()
    with Lease(base, lambda line: console.print(line, markup=False, highlight=False)) as lease:
        return _train(args, console, config, base, lease)


def _train(args: argparse.Namespace, console: Console, config: TrainConfig, base: Store, lease: Lease) -> int:
    # -- 1. what there is to do
    names = base.names()
    if not args.fresh:  # before anything is decoded for it
        _check_definition(base, config, _clip_folders(names), ())
    corpora = read_corpus(console, args.corpus, base, config)

    # -- 2. one experiment holds models of one configuration
    from jobs.experiment.result import Submission, write_submission

    clip_ids = [work.clip_id for work in corpora.works]
    folders = _clip_folders(names, clip_ids)
    discarded = set(clip_ids) & folders if args.fresh else set()
    _check_definition(base, config, folders - discarded, discarded)
    submission = Submission(args.corpus, args.preset, clip_ids, corpora.failures)
    corpus = _open_tracking(args, console, base, submission, folders - discarded)
    for name in discarded | ({EVALUATION} if args.fresh else set()):
        base.remove(name)
    base.write_json("experiment.json", config.to_dict())
    write_submission(base, submission)

    # -- 3. train what is missing
    def job_of(work: Work) -> schedule.Job:
        lease.check()
        workers = args.workers_per_video if work.chunks > 1 else 1  # a short clip is one process's
        return schedule.Job(work.clip_id, work.source, config, base, corpus, args.n, workers)

    unwritten = _train_missing(args, console, corpora.works, config, base, job_of)

    # -- 4. totals, and what MLflow did not take during an outage
    return SOME_FAILED if _tell_results(console, base, corpus, submission, unwritten) else DONE


# -- what there is to do


def _read_config(path: str) -> TrainConfig:
    """Raises UsageError."""
    import fsspec

    try:
        with fsspec.open(path, "rb") as file:  # a path or a URI
            return TrainConfig.from_dict(json.loads(file.read()))
    except (OSError, ValueError, TypeError, AttributeError, ImportError) as error:
        mend = "give a file such as an experiment.json"
        raise UsageError(f"--config {path}: cannot be read ({one_line(error)}); {mend}") from error


def _chunked(args: argparse.Namespace, config: TrainConfig) -> TrainConfig:
    """The config with the stride between the chunks of a video, if there are to be any. Raises UsageError."""
    if args.workers_per_video < 1 or (args.stride is not None and args.stride < 1):
        raise UsageError("--workers-per-video and --stride must be 1 or more")
    if args.long:
        config = replace(config, stride=args.stride or config.stride or config.num_frames)
    elif args.stride is not None or (args.workers_per_video > 1 and config.stride is None):
        raise UsageError("--workers-per-video and --stride are for long videos; add --long")
    if args.workers_per_video > 1 and args.gpus_per_clip < 1:
        raise UsageError(f"--gpus-per-clip {args.gpus_per_clip:g}: each of several workers needs a whole GPU; give 1")
    return config


def read_corpus(console: Console, given: str, base: Store, *configs: TrainConfig) -> Corpora:
    """The clips of --corpus, decoded into the experiment's .shards for what `corpus.find` takes as `configs`.

    Raises UsageError, and if there are none.
    """
    with console.status("reading the corpus"):
        base.pull(".shards")
        corpora = find(given, base.path, *configs)
        base.push(".shards")
    _tell_unused(console, corpora)
    if not corpora.works:
        for _, reason in corpora.failures:
            console.print(reason, markup=False, highlight=False, soft_wrap=True)
        raise UsageError(f"{given}: no clip that can be trained")
    return corpora


def _tell_unused(console: Console, corpora: Corpora) -> None:
    for source, frames in corpora.dropped.items():
        if frames:
            text = f"{Path(source).name}: {frames} frames beside the clip are not used"
            console.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_plan(console: Console, corpora: Corpora, config: TrainConfig, base: Store, args: argparse.Namespace) -> None:
    from jobs.experiment.result import read_results

    console.print(f"{len(corpora.works)} clips, preset {args.preset}, into {base.uri}", markup=False, soft_wrap=True)
    results = read_results(base, [work.clip_id for work in corpora.works])
    done = {clip_id for clip_id, result in results.items() if result.status == "done"}
    todo = [work.clip_id for work in corpora.works if work.clip_id not in done]
    for work in corpora.works:
        sizes = " ".join(f"{s.frames}×{s.height}×{s.width}" for s in ladder(config, work.height, work.width))
        state = "to train" if work.clip_id in todo else "done"
        chunks = f"  {work.chunks} chunks" if work.chunks > 1 else ""
        text = f"{work.clip_id}  {work.height}×{work.width} px{chunks}  {state}"
        console.print(text, markup=False, highlight=False)
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
        f"{args.cpus_per_clip or schedule.cpu_share(os.cpu_count() or 1, len(todo))} CPU cores",
        highlight=False,
    )


def _clip_folders(names: Collection[str], clip_ids: Collection[str] = ()) -> set[str]:
    """Of the experiment's own folders every name has a dot, but for EVALUATION, which may be a clip of that id."""
    return {name for name in names if "." not in name} - ({EVALUATION} - set(clip_ids))


def _check_definition(base: Store, config: TrainConfig, kept: Collection[str], discarded: Collection[str]) -> None:
    """Raises UsageError if `base` keeps models of another definition: two never share a name."""
    from jobs.experiment.result import read_config

    found = read_config(base)
    if found is None:
        return
    before, now = found.definition(), config.definition()
    changed = [f"{name} was {before.get(name)}, is now {now[name]}" for name in now if before.get(name) != now[name]]
    if kept and changed:
        mend = f"use --experiment NAME, or delete {min(kept)} …" if discarded else "use --experiment NAME or --fresh"
        raise UsageError(f"{base.uri}: holds models with other settings ({'; '.join(changed)}); {mend}")


def _open_tracking(
    args: argparse.Namespace, console: Console, base: Store, submission: Submission, kept: Collection[str]
) -> Corpus:
    """The corpus run in MLflow. A clip that has no folder has no earlier work, so an old run of it is forgotten too."""
    from infra.tracking import runs as tracking

    tags = {"corpus": submission.corpus, "preset": submission.preset}
    try:
        with console.status("opening MLflow"):
            corpus = tracking.open_experiment(base, args.tracking_uri, tags)
            tracking.forget_clips(corpus, [clip_id for clip_id in submission.clip_ids if clip_id not in kept])
    except ConnectionError as error:
        raise UsageError(str(error)) from error
    return corpus


# -- training


def _train_missing(
    args: argparse.Namespace,
    console: Console,
    works: Sequence[Work],
    config: TrainConfig,
    base: Store,
    job_of: Callable[[Work], schedule.Job],
) -> dict[str, Result]:
    """Train every clip that is not done, so many at a time. Returns the results that the store did not take."""
    from jobs.experiment.result import read_results

    found = read_results(base, (work.clip_id for work in works))
    todo = [work for work in works if work.clip_id not in found or found[work.clip_id].status != "done"]
    if not todo:
        return {}
    from jobs.training.progress import Board

    unwritten = {}
    with contextlib.ExitStack() as stack:
        with console.status("starting Ray"):
            stack.enter_context(schedule.ray_session())
            together = args.workers_per_video
            processes = sum(together if work.chunks > 1 else 1 for work in todo)
            slots = schedule.resources(args.gpus_per_clip, args.cpus_per_clip, processes)
            if any(work.chunks > 1 for work in todo) and together > slots.count:
                raise UsageError(f"--workers-per-video {together}: the cluster has room for {slots.count}; take fewer")
        todo.sort(key=lambda work: -work.chunks)  # longest first, so that none is left to run alone at the end
        board = stack.enter_context(Board(console, len(works), len(works) - len(todo), sum(config.iterations)))
        for result in schedule.run(todo, job_of, slots, board):
            if result.status != "done" and read_results(base, [result.clip_id]).get(result.clip_id) != result:
                unwritten[result.clip_id] = result
    return unwritten


def _tell_results(
    console: Console, base: Store, corpus: Corpus, submission: Submission, unwritten: Mapping[str, Result]
) -> bool:
    """Print the table; give MLflow what it has not, or name the command that will. Returns whether anything failed."""
    from jobs import upload
    from jobs.experiment.result import summarise

    with console.status("completing MLflow"):
        missing = upload.forward(corpus, base, submission.clip_ids)
        summary = summarise(base, submission, upload.links(corpus, base), unwritten)
        missing |= upload.close(corpus, summary, missing)
    console.print(summary.page(), markup=False, highlight=False, soft_wrap=True)
    if corpus.uri.startswith("sqlite"):
        text = f"MLflow: mlflow server --host 127.0.0.1 --backend-store-uri {corpus.uri}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if missing:
        clips = len(missing.keys() - {upload.TOTALS})
        what = " and ".join([f"{clips} clips"] * bool(clips) + [upload.TOTALS] * (upload.TOTALS in missing))
        reason = next(iter(missing.values()))
        text = f"warning: {what} not in MLflow ({reason}); this sends the rest, once it answers:"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        text = upload.command(base.parent.uri, base.name, corpus.uri)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    return summary.failed > 0


# -- names


def open_experiment(storage: str | None, name: str) -> Store:
    """Its folder. Raises UsageError for a storage that cannot be used, and for a name that is none of a folder."""
    store = Store(str(default_folder())) if storage is None else Store.open(storage)
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(f"--experiment {name}: letters, digits, '_', '-' and '.' only; it names a folder")
    return store.below(name)


def experiment_name(corpus: str, preset: str) -> str:
    stem = Path(corpus.rstrip("/")).stem or "corpus"
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in stem)
    return name if name == preset else f"{name}-{preset}"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description as written, and every default."""


if __name__ == "__main__":
    sys.exit(main())

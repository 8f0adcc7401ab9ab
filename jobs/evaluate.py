"""How good the samples of trained clips are: figures and pictures of each, and the table of a corpus.

    python jobs/evaluate.py runs/demo                                       # an experiment: all its clips
    python jobs/evaluate.py runs/demo/bikes-…/checkpoint.pt --n 10 --nn 1   # one clip
    python jobs/evaluate.py --samples other_method/ --real clip.mp4         # videos that something else made
    ray job submit --working-dir . -- python jobs/evaluate.py /nfs/runs/demo

Writes evaluation/ in what was given, or --out: results.csv, .json and .md, and of each clip diversity.png (where its
samples differ) and nnf_00.png … (where in the clip their patches come from). An experiment's figures go to MLflow too,
to the runs of its clips, or of a sweep's trials, and of a corpus. Each argument has a table of its own, and each
combination of a sweep.

Searching nearest neighbours takes one core 10 s a sample of 13×54×96, and 16 times as long for twice the height and
width. So it is done of the first samples only (--nn); by default of two, and of none if one would take more than two
minutes. Exit code: 0 all scored; 1 something was not, and why; 2 bad arguments or nothing to score.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import StorageError, UsageError, one_line, printable
from infra.store import EVALUATION, Store
from jobs.command_line import exit_code
from jobs.experiment.corpus import frames_of
from jobs.training import schedule

# torch, ray and mlflow take seconds to import: only when there is work, so that --help answers at once.
if TYPE_CHECKING:
    from rich.console import Console

    from jobs.evaluation.clip import Work
    from jobs.evaluation.table import Row
    from model.metrics.features import VideoFeatures
    from pipeline.shards import ShardEntry

ALL_SCORED, SOME_FAILED = 0, 1


@dataclass(frozen=True)
class Group:
    """What one argument names. base: the experiment, if there is one; whole: all its clips."""

    name: str
    out: Store
    works: Sequence[Work]
    base: Store | None
    whole: bool


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    given = "folder of train_corpus.py or tune.py, checkpoint.pt, or a URI"
    add("given", nargs="*", metavar="EXPERIMENT|CHECKPOINT", help=given)
    add("--n", type=int, default=50, help="samples of each clip (default: 50)")
    add("--seed", type=int, default=1, help="of the samples; 1 gives those train_corpus.py scored (default: 1)")
    add("--features", default="lite0", help="lite0, c3d:FILE or inception:FILE: README, Features by file (lite0)")
    add("--nn", type=int, help="how many samples are searched for nearest neighbours (default: 2 or none, see above)")
    add("--samples", metavar="DIR", help="score the videos in this folder, all of them, against --real")
    add("--real", metavar="CLIP", help="the real video, of --samples or of a checkpoint: its first frames at 24 FPS")
    add("--out", help="folder or URI for what is made (default: evaluation/ in what is given)")
    add("--keep", action="store_true", help="keep the samples too, as mp4")
    add("--tracking-uri", help="MLflow (default: $MLFLOW_TRACKING_URI, else the sqlite file beside the experiment)")
    add("--gpus-per-clip", type=float, default=1.0, help="GPUs a clip, where the cluster has any (default: 1)")
    add("--cpus-per-clip", type=int, help="CPU cores a clip, where it has no GPU (default: cores / clips)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    from rich.console import Console

    from model.metrics.weight_files import FeaturesError

    console = Console(soft_wrap=True, highlight=False, markup=False)
    return exit_code(lambda: run(args, console), console, FeaturesError, stopped="stopped; the tables are not written")


def run(args: argparse.Namespace, console: Console) -> int:
    if args.n < 1 or args.seed < 0 or (args.nn is not None and args.nn < 0):
        raise UsageError("--n must be 1 or more, --seed and --nn 0 or more")
    if bool(args.given) == bool(args.samples) or (args.samples and not args.real):
        raise UsageError("give experiments or checkpoints, or --samples DIR --real CLIP")
    from infra.tracking.runs import uri_of
    from model.metrics.option import from_option

    features = from_option(args.features)
    if args.samples:
        return _folder(args, features, console)
    groups: list[Group] = []
    failed = False
    for given in args.given:
        try:
            groups += look(given, args)
        except (UsageError, StorageError) as error:
            console.print(f"failed  {printable(str(error))}", style="red")
            failed = True
    if not any(group.works for group in groups):
        raise UsageError("nothing to evaluate")
    if len({group.out for group in groups}) < len(groups):
        raise UsageError("two arguments would share a folder of results; give them one by one, each with its --out")

    settings = {"n": args.n, "seed": args.seed, "features": features.name}
    for group, rows in zip(groups, score_all(args, groups, features, console), strict=True):
        tables = _tell(console, group.name, group.out, settings, rows)
        if group.base:
            uri = uri_of(args.tracking_uri, group.base.parent.tracking_folder)
            _track(console, uri, group, rows, tables)
        failed |= any(row.complaints for row in rows)
    return SOME_FAILED if failed else ALL_SCORED


def _folder(args: argparse.Namespace, features: VideoFeatures, console: Console) -> int:
    """--samples: one clip's worth of videos, scored in this process."""
    from jobs.evaluation.clip import Wanted, score_folder

    folder = Path(args.samples)
    out = Store.open(args.out, "--out") if args.out else Store.open(args.samples, "--samples").below(EVALUATION)
    row = score_folder(folder, args.real, features, Wanted(out, args.n, args.seed, args.nn, args.keep))
    _tell(console, row.clip_id, out, {"features": features.name}, [row])
    return SOME_FAILED if row.complaints else ALL_SCORED


# -- what there is to evaluate


@dataclass(frozen=True)
class Experiment:
    """What lies in a folder of train_corpus.py or tune.py. parts: the models, each with its clip; those of a sweep by
    combination."""

    corpus: str
    stride: int | None
    parts: Mapping[str, Mapping[str, str]]


def read_experiment(base: Store) -> Experiment | None:
    """None for a folder that is neither's. Raises UsageError for a damaged file."""
    from jobs.experiment.result import read_config, read_submission
    from jobs.tuning import axes as sweep

    if base.read(["submission.json"]):
        config, submission = read_config(base), read_submission(base)
        clips = {clip_id: clip_id for clip_id in submission.clip_ids}
        return Experiment(submission.corpus, config.stride if config else None, {"": clips})
    defined = sweep.definition(base)
    if defined is None:
        return None
    parts: dict[str, dict[str, str]] = {}
    for name, (clip, _) in sweep.begun(base).items():
        parts.setdefault(name.removeprefix(f"{clip}--"), {})[name] = clip
    return Experiment(defined["corpus"], defined["config"].get("stride"), parts)


def look(given: str, args: argparse.Namespace) -> list[Group]:
    """What an argument names: one group, of a sweep one a combination. Raises UsageError, StorageError."""
    from jobs.evaluation.clip import Work
    from jobs.experiment.result import read_results

    store = Store.open(given, "EXPERIMENT")
    folder = store.parent if store.name.endswith(".pt") else store
    out = Store.open(args.out, "--out") if args.out else folder.below(EVALUATION)
    out = out.below(folder.name) if args.out and len(args.given) > 1 else out
    if folder is not store and store.name not in folder.names():
        raise UsageError(f"{given}: no such file; give a checkpoint.pt, or an experiment's folder")
    out.check_writable()

    base, experiment = store, read_experiment(store)
    if experiment is None:
        base, experiment = folder.parent, read_experiment(folder.parent)
    frames: Mapping[str, tuple[ShardEntry, ...]] = {}
    if experiment and not args.real:
        base.pull(".shards")
        frames = frames_of(base.path, experiment.corpus, experiment.stride)

    if experiment and base is store:
        if args.real:
            raise UsageError(f"{given}: --real is for a checkpoint; an experiment has the frames of its clips")
        groups = []
        for part, models in experiment.parts.items():
            results, works = read_results(base, models), []
            for model, clip in models.items():
                status, reason = results[model].status if model in results else "", ""
                if status == "stopped":  # by ASHA: it was meant to
                    continue
                if status != "done":
                    reason = "is not trained to its end; train it again"
                elif clip not in frames:
                    reason = "no frames of it are in .shards or the corpus; give its checkpoint.pt and --real CLIP"
                works.append(Work(model, f"{base.uri}/{model}/checkpoint.pt", frames.get(clip, ()), reason=reason))
            place = out.below(part) if part else out
            if works or not part:
                groups.append(Group(" ".join(filter(None, [store.name, part])), place, works, base, whole=not part))
        return groups

    if folder is store and "netG.pth" not in store.names():  # which a folder of the authors' code holds
        mend = "give the folder of one, or the file"
        raise UsageError(f"{given}: no experiment of train_corpus.py or tune.py, and no checkpoint; {mend}")
    models = {name: clip for part in experiment.parts.values() for name, clip in part.items()} if experiment else {}
    chunks = frames.get(models.get(folder.name, folder.name), ())
    if not args.real and not chunks:
        raise UsageError(f"{given}: no experiment around it has the frames of its clip; give --real CLIP")
    real = os.path.abspath(args.real) if args.real else None
    return [Group(folder.name, out, [Work(folder.name, store.uri, chunks, real)], None if real else base, whole=False)]


# -- scoring


def score_all(
    args: argparse.Namespace, groups: Sequence[Group], features: VideoFeatures, console: Console
) -> list[list[Row]]:
    """The rows of each group, in the order of its clips: a Ray task a clip, as many at once as there is room for."""
    import ray
    from ray.exceptions import RayError

    from jobs.evaluation.clip import Wanted, score_clip
    from jobs.evaluation.table import Row
    from model.metrics.scores import chunks_to_score
    from pipeline import shards

    todo = [(group, work) for group in groups for work in group.works]
    rows = {(group.out, work.clip_id): Row(work.clip_id, complaints=[work.reason]) for group, work in todo}
    waiting = iter([(group, work) for group, work in todo if not work.reason])
    flying: dict[Any, tuple[Group, Work]] = {}
    with schedule.ray_session(), console.status("scoring") as status:
        slots = schedule.resources(args.gpus_per_clip, args.cpus_per_clip, len(todo))
        task = ray.remote(max_retries=1, **slots.options)(score_clip)
        network = ray.put(features)
        while True:
            while len(flying) < slots.count + schedule.SPARE_TASKS and (following := next(waiting, None)):
                group, work = following
                wanted = Wanted(group.out, args.n, args.seed, args.nn, args.keep)
                try:
                    chunks = [shards.read_clip(entry).frames_thwc for entry in chunks_to_score(work.entries)]
                except shards.ShardError as error:
                    rows[group.out, work.clip_id] = Row(work.clip_id, complaints=[one_line(error)])
                    continue
                flying[task.remote(work, chunks, network, wanted)] = following
            if not flying:
                break
            status.update(f"scoring {next(iter(flying.values()))[1].clip_id}")
            for reference in ray.wait(list(flying))[0]:
                group, work = flying.pop(reference)
                try:
                    rows[group.out, work.clip_id] = ray.get(reference)
                except RayError as error:
                    rows[group.out, work.clip_id] = Row(work.clip_id, complaints=[f"its task died: {one_line(error)}"])
    return [[rows[group.out, work.clip_id] for work in group.works] for group in groups]


# -- what is told, and where


def _tell(
    console: Console, name: str, out: Store, settings: Mapping[str, Any], rows: Sequence[Row]
) -> Mapping[str, bytes]:
    """Print one of the tables and write all into `out`. Returns them by name. Raises StorageError."""
    from jobs.evaluation.table import tables

    made = tables(name, settings, rows)
    console.print(made["results.md"].decode())
    for file, content in made.items():
        out.write(file, content)
    console.print(f"in {printable(out.uri)}")
    return made


def _track(console: Console, uri: str, group: Group, rows: Sequence[Row], tables: Mapping[str, bytes]) -> None:
    """Add figures and files to the runs in MLflow that are there; a warning names those that are not."""
    from infra.tracking import forward as forwarding
    from infra.tracking import runs as tracking
    from jobs.evaluation.table import metrics, metrics_of_corpus

    assert group.base is not None
    scored = [row for row in rows if row.figures]
    try:
        corpus = tracking.find_corpus(uri, group.base.name)
        runs = forwarding.runs_of(corpus, group.base, [row.clip_id for row in scored]) if corpus else {}
        if missing := [row.clip_id for row in scored if row.clip_id not in runs]:
            console.print(f"warning: MLflow ({uri}) has no run of {', '.join(missing)}")
        for row in scored:
            if corpus and row.clip_id in runs:
                files = group.out.read(f"{row.clip_id}/{name}" for name in row.files)
                pictures = {name.rpartition("/")[2]: content for name, content in files.items()}
                tracking.log_evaluation(corpus, runs[row.clip_id], metrics(row), pictures)
        if corpus and group.whole:
            tracking.log_evaluation(corpus, corpus.run_id, metrics_of_corpus(rows), tables)
    except tracking.ERRORS as error:
        console.print(f"warning: not all is in MLflow ({uri}): {one_line(error)}; run this again when it answers")


if __name__ == "__main__":
    sys.exit(main())

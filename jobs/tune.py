"""Settings against results, as in the paper's Fig. 5: every combination of values trained on every clip, by Ray Tune.

    python jobs/tune.py --corpus demo --preset demo --sweep vae_levels=1,2,3
    python jobs/tune.py --corpus my_videos/ --sweep lr=1e-4..1e-2 --trials 20 --asha
    python jobs/tune.py --corpus demo --preset demo --ablations

A trial is a clip with one combination: what train_corpus.py does with a clip, on a GPU of its own, in a child run in
MLflow. --sweep takes values, KEY=1,2,3 (KEY=1,2;3,4 where a value is a list), or a range, KEY=LOW..HIGH, from which
Optuna draws. Ends with a table, sweep.csv, sweep.png and best.json, which train_corpus.py --config takes.
Exit code: 0 all trials done; 1 some failed, the table names them and why; 2 bad arguments or nothing to do.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import UsageError, one_line
from infra.lease import Lease
from infra.store import Store
from jobs import train_corpus
from jobs.command_line import exit_code
from jobs.experiment.corpus import Corpora
from jobs.training import schedule
from jobs.tuning import axes as sweep
from model.config import TrainConfig
from model.presets import ABLATIONS, PRESETS

if TYPE_CHECKING:
    from rich.console import Console

    from infra.tracking.runs import Corpus

DONE, SOME_FAILED = 0, 1
DRAWS = 20
LADDER = {"ladder_side", "min_size", "max_size", "scale_factor", "num_scales", "frame_rates"}
CUT = {"num_frames", "stride"}  # settings that say how videos are cut into clips, which is done once


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tune.py", description=__doc__, formatter_class=train_corpus.HelpFormatter)
    add = parser.add_argument
    add("--corpus", required=True, help="as train_corpus.py takes it")
    add("--preset", choices=sorted(PRESETS), default="small", help="a configuration (jobs/presets.py)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting; may be repeated")
    add("--sweep", action="append", default=[], metavar="KEY=VALUES", help="values or a range; may be repeated")
    add("--ablations", action="store_true", help="the method and every alternative of the paper: an axis of the sweep")
    add(
        "--trials", type=int, help=f"combinations that Optuna draws, each for all clips (default with a range: {DRAWS})"
    )
    add(
        "--asha", action="store_true", help="stop trials that a finished scale shows among the worse half of their clip"
    )
    best = "what ASHA, Optuna and best.json go by: the lowest svfid_lite0, the highest of the others"
    add("--metric", choices=sorted(sweep.MODES), default="svfid_lite0", help=best)
    add("--restore", action="store_true", help="go on with a sweep that was stopped, and try what failed again")
    add("--storage", help="where everything goes that is made: a path all nodes share, or s3://, gs:// (default: runs)")
    add("--experiment", help="name of this sweep in storage and MLflow (default: corpus, preset and settings)")
    add("--tracking-uri", help="MLflow (default: $MLFLOW_TRACKING_URI, else a sqlite file in the storage folder)")
    add("--gpus-per-clip", type=float, default=1.0, help="GPUs a trial, where the cluster has any")
    add(
        "--cpus-per-clip", type=int, help="CPU cores a trial, where it has no GPU (default: cores / trials, at least 1)"
    )
    add("--n", type=int, default=10, help="samples a trial that are scored and kept, at least 2")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    from rich.console import Console

    console = Console(soft_wrap=True, markup=False, highlight=False)
    told = "stopped; the same command goes on from the last checkpoints, with --restore once a trial has begun"
    return exit_code(lambda: run(args, console), console, stopped=told)


def run(args: argparse.Namespace, console: Console) -> int:
    config = PRESETS[args.preset]().with_overrides(args.set)
    given = [*args.sweep, *([f"{sweep.ABLATION}={','.join([sweep.METHOD, *ABLATIONS])}"] if args.ablations else [])]
    axes = sweep.read_axes(given, config)
    draws = _draws(args.trials, axes)
    combinations = sweep.combinations(config, axes)
    if args.n < 2:
        raise UsageError(f"--n {args.n}: at least 2 samples are needed to measure diversity")
    if cut := [axis.key for axis in axes if axis.key in CUT]:
        raise UsageError(f"--sweep {cut[0]}: all trials have the same clips; --set it, and make a sweep of each value")
    if args.asha and (ladder := [axis.key for axis in axes if axis.key in LADDER]):
        raise UsageError(f"--asha: {ladder[0]} changes what a scale is, so scales do not compare; leave out --asha")
    keys = [axis.key for axis in axes]
    name = args.experiment or "-".join([train_corpus.experiment_name(args.corpus, args.preset), *keys])
    base = train_corpus.open_experiment(args.storage, name)
    _check_restore(base, args.restore)
    base.check_writable()
    with Lease(base, console.print):
        # -- 1. what there is to do
        configs = [sweep.configured(config, values) for values in combinations]
        corpora = train_corpus.read_corpus(console, args.corpus, base, *configs)
        clip_ids = [work.clip_id for work in corpora.works]
        listed = {sweep.trial_name(clip, values): (clip, values) for values in combinations for clip in clip_ids}
        definition = {"config": config.to_dict(), "sweep": given, "n": args.n, "corpus": args.corpus, "clips": clip_ids}
        _check_definition(base, definition)
        if args.restore:
            _forget(base, {"failed"} if args.asha else {"failed", "stopped"})
        corpus = _open_tracking(args, base, given)
        asked = Asked(config, axes, {} if draws else listed, draws, corpora, base, corpus, definition)

        # -- 2. the trials
        what = f"{draws} combinations from Optuna" if draws else f"{len(combinations)} combinations"
        console.print(f"{what} × {len(clip_ids)} clips, into {base.uri}")
        drawn = _train(args, asked)

        # -- 3. what came of it
        trials = asked.listed or {**sweep.begun(base), **drawn}  # one that failed early is not among those begun
        return SOME_FAILED if _tell(args, console, asked, trials) else DONE


@dataclass(frozen=True)
class Asked:
    """A sweep, and where it goes."""

    config: TrainConfig
    axes: tuple[sweep.Axis, ...]
    listed: sweep.Trials  # none where Optuna draws them
    draws: int
    corpora: Corpora
    base: Store
    corpus: Corpus
    definition: Mapping[str, Any]


# -- what there is to do


def _draws(trials: int | None, axes: Sequence[sweep.Axis]) -> int:
    """How many combinations Optuna draws: 0 for a sweep without a range."""
    if all(axis.ends is None for axis in axes):
        if trials is not None:
            raise UsageError(f"--trials {trials}: counts draws from a range, and the sweep has none; leave it out")
        return 0
    if trials is not None and trials < 1:
        raise UsageError(f"--trials {trials}: at least 1")
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("--sweep: a range needs Optuna; pip install '.[tune]', or list the values")
    return trials or DRAWS


def _check_restore(base: Store, restore: bool) -> None:
    names = base.names()
    if restore and sweep.DEFINITION not in names:
        raise UsageError(f"--restore: {base.uri} holds no sweep; leave it out, or give the sweep's --storage and name")
    if not restore and sweep.DEFINITION in names:
        raise UsageError(f"{base.uri}: holds a sweep; --restore goes on with it, --experiment NAME makes another")
    if sweep.DEFINITION not in names and "experiment.json" in names:
        raise UsageError(f"{base.uri}: holds models of train_corpus.py; use --experiment NAME")


def _check_definition(base: Store, definition: Mapping[str, Any]) -> None:
    """Raises UsageError if what defines the sweep that is there is another; it may have had fewer clips."""
    before = sweep.definition(base) or definition
    if changed := [name for name in ("config", "sweep", "n") if before[name] != definition[name]]:
        was = f"its {' and '.join(changed)} differ from those given"
        raise UsageError(f"--restore: {base.uri}: {was}; give the same command, or use --experiment NAME")
    if gone := [clip for clip in before["clips"] if clip not in definition["clips"]]:
        mend = "bring it back, or use --experiment NAME"
        raise UsageError(f"--restore: {base.uri}: {gone[0]} is not in the corpus now; {mend}")


def _forget(base: Store, ends: Collection[str]) -> None:
    """The results of trials that ended so: they go on."""
    from jobs.experiment.result import read_results

    for name, result in read_results(base, [name for name in base.names() if "." not in name]).items():
        if result.status in ends:
            base.remove(f"{name}/result.json")


def _open_tracking(args: argparse.Namespace, base: Store, given: Sequence[str]) -> Corpus:
    from infra.tracking import runs as tracking

    tags = {"corpus": args.corpus, "preset": args.preset, "sweep": " ".join(given)}
    try:
        return tracking.open_experiment(base, args.tracking_uri, tags)
    except ConnectionError as error:
        raise UsageError(str(error)) from error


# -- the trials


def _train(args: argparse.Namespace, asked: Asked) -> sweep.Trials:
    """Run what has no result, and what ASHA and Optuna must hear of again. The definition is kept before it starts.

    Returns the trials that Optuna drew.
    """
    from jobs.experiment.result import read_results

    listed, base = asked.listed, asked.base
    if not args.asha:
        ended = read_results(base, listed)
        listed = {name: trial for name, trial in listed.items() if name not in ended}
    if not listed and not asked.draws:
        return {}
    begun = sweep.begun(base) if asked.draws else {}
    earlier = list({tuple(values.items()): values for _, values in begun.values()}.values())
    from jobs.tuning import trials

    with schedule.ray_session():
        count = len(listed) or len(asked.corpora.works) * asked.draws
        slots = schedule.resources(args.gpus_per_clip, args.cpus_per_clip, count)
        clips = trials.put(asked.corpora.works)
        plan = trials.Plan(asked.config, asked.axes, base, asked.corpus, args.n, args.metric, clips)
        base.write_json(sweep.DEFINITION, asked.definition)
        base.remove(trials.STATE)
        try:
            draws = max(asked.draws, len(earlier)) if asked.draws else 0
            return trials.run(plan, listed, draws, earlier, slots, args.asha)
        finally:
            with contextlib.suppress(OSError):
                base.remove(trials.STATE)


# -- what came of it


def _tell(args: argparse.Namespace, console: Console, asked: Asked, trials: sweep.Trials) -> bool:
    """Print table and failures, leave the files in the store and in MLflow. Returns whether anything failed."""
    from infra.tracking import runs as tracking
    from jobs import upload
    from jobs.experiment.result import read_results
    from jobs.tuning import plot as plots

    axes, base, corpus, corpora = asked.axes, asked.base, asked.corpus, asked.corpora
    keys = [axis.key for axis in axes]
    results = read_results(base, trials)
    found = sweep.lines(trials, results)
    page = sweep.table(found, keys) + sweep.remarks(trials, results)
    page += "".join(f"failed  {reason}\n" for _, reason in corpora.failures)
    files = {"sweep.csv": sweep.to_csv(trials, results, keys)}
    if chosen := sweep.best(found, args.metric):
        files["sweep.png"] = plots.figure(found, axes, f"{base.name}: mean and standard deviation over the clips")
        settings = sweep.configured(asked.config, chosen.values).to_dict()
        files["best.json"] = json.dumps(settings, indent=2).encode() + b"\n"
        words = " ".join(f"{key}={value}" for key, value in chosen.values.items())
        page += f"best by {args.metric}: {words}, done on {len(chosen.done)} of {chosen.tried} clips; "
        page += f"train with --config {base.uri}/best.json\n"
    for name, content in files.items():
        base.write(name, content)
    console.print(page, end="")

    missing = upload.forward(corpus, base, list(trials))
    ends = [results[name].status if name in results else "failed" for name in trials]
    totals = {f"trials_{end}": float(ends.count(end)) for end in ("done", "stopped", "failed")}
    bad = bool(totals["trials_failed"] or corpora.failures)
    try:
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in files]
            for path in paths:
                path.write_bytes(files[path.name])
            tracking.close_corpus(corpus, failed=bad, metrics=totals, table=page, files=paths)
    except tracking.ERRORS as error:
        missing[upload.TOTALS] = one_line(error)
    if missing:
        reason = next(iter(missing.values()))
        console.print(
            f"warning: {len(missing)} not in MLflow ({reason}); the same command with --restore sends the rest"
        )
    if chosen:
        console.print(f"plot: {base.uri}/sweep.png")
    console.print(f"MLflow: {corpus.link(corpus.run_id)}")
    return bad


if __name__ == "__main__":
    sys.exit(main())

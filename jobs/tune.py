"""Settings against results, as in the paper's Fig. 5: every combination of values trained on every clip, by Ray Tune.

    python jobs/tune.py --corpus demo --preset demo --sweep vae_levels=1,2,3
    python jobs/tune.py --corpus my_videos/ --sweep lr=1e-4..1e-2 --trials 20 --asha
    python jobs/tune.py --corpus demo --preset demo --ablations
    python jobs/tune.py --corpus demo --preset demo --sweep vae_levels=1,2,3 --rivals singan,consingan   # Fig. 5

A trial is a clip with one combination: what train_corpus.py does with a clip, on a GPU of its own, in a child run in
MLflow. --sweep takes values, KEY=1,2,3 (KEY=1,2;3,4 where a value is a list), or a range, KEY=LOW..HIGH, from which
Optuna draws. Ends with a table, sweep.csv, sweep.png and best.json, which train_corpus.py --config takes.
Exit code: 0 all trials done; 1 some failed, the table names them and why; 2 bad arguments or nothing to do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.ray_cluster import check_cluster
from jobs import command_line
from jobs.command_line import DONE, RIVALS, SOME_FAILED
from jobs.experiment.result import SIFID, SVFID
from jobs.tuning.request import DRAWS, MODES, SweepRequest


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("tune.py", __doc__)
    add = parser.add_argument
    command_line.add_corpus(parser, "as train_corpus.py takes it")
    command_line.add_preset(parser)
    command_line.add_set(parser)
    command_line.add_method(parser)
    add("--sweep", action="append", default=[], metavar="KEY=VALUES", help="values or a range; may be repeated")
    add("--ablations", action="store_true", help="the method and every alternative of the paper: an axis of the sweep")
    rivals = f"methods beside the sweep, a straight line each in the plot: some of {', '.join(RIVALS)}"
    add("--rivals", metavar="METHODS", help=rivals)
    trials = f"combinations that Optuna draws, each for all clips (default with a range: {DRAWS})"
    add("--trials", type=int, help=trials)
    asha = "stop trials that a finished scale shows among the worse half of their clip"
    add("--asha", action="store_true", help=asha)
    metric = (
        "what ASHA, Optuna and best.json go by: the lowest svfid or sifid, the highest of the others "
        f"(default: {SVFID}, of images {SIFID}); the diversity of a finished trial is of --n samples"
    )
    add("--metric", choices=sorted(MODES), help=metric)
    features = "score the samples with these too: c3d:FILE, or inception:FILE for images (model/README.md)"
    add("--features", type=command_line.features, default="lite0", help=features)
    add("--restore", action="store_true", help="go on with a sweep that was stopped, and try what failed again")
    command_line.add_storage(parser, "name of this sweep in storage and MLflow (default: corpus, preset and settings)")
    command_line.add_share(parser, of="trial")
    command_line.add_decode_tasks(parser)
    add("--n", type=int, default=10, help="samples to score and keep for each trial, at least 2")
    add("--dry-run", action="store_true", help="make the run's checks, print clips, trials and iterations; do nothing")
    return command_line.with_start(parser.parse(argv))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    console = command_line.console()

    def run() -> int:
        command_line.print_storage(args.storage, console)
        request = SweepRequest.from_args(args)
        check_cluster()
        from jobs.tuning import sweep  # imports torch, Ray and MLflow, which --help must not wait for

        if args.dry_run:
            return SOME_FAILED if sweep.preview(request, console) else DONE
        return SOME_FAILED if sweep.run(request, console) else DONE

    stopped = "stopped; the same command goes on from the last checkpoints, with --restore once a trial has begun"
    return command_line.exit_code(run, console, stopped=stopped)


if __name__ == "__main__":
    sys.exit(main())

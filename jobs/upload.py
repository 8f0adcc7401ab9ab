"""Bring to MLflow what an experiment's folders hold and MLflow does not, as after an outage of its server.

    python jobs/upload.py --storage runs --experiment demo --tracking-uri http://mlflow:5000

`train_corpus.py` prints the command when it is needed; not while it runs. Sending again stores nothing twice.
Exit code: 0 everything is in MLflow; 1 something is not, and why; 2 bad arguments, or no answer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs import command_line
from jobs.command_line import DONE, SOME_FAILED
from jobs.experiment.experiment import Experiment


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("upload.py", __doc__)
    add = parser.add_argument
    storage = "what train_corpus.py filled: a path or a URI (default: where it puts them, runs or ~/hp-vae-gan-runs)"
    add("--storage", type=command_line.path, help=storage)
    add("--experiment", required=True, help="name of the corpus in it")
    command_line.add_tracking_uri(parser)
    add("--all", action="store_true", help="send also what was sent already")
    return parser.parse(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    console = command_line.console()

    def run() -> int:
        from jobs.experiment import runs  # imports MLflow, which --help must not wait for
        from jobs.experiment.summary import summarise

        experiment = Experiment.open(args.storage, args.experiment)
        submission = experiment.submission()
        tags = {"corpus": submission.corpus, "preset": submission.preset}
        with experiment.driver(console.print):
            parent = runs.open_parent_run(experiment, args.tracking_uri, tags)
            missing = runs.forward_missing(parent, experiment, submission.clip_ids, again=args.all)
            summary = summarise(experiment, submission, runs.run_ids(parent, experiment))
            missing |= runs.close(parent, experiment, submission, summary, missing)
        for what, why in missing.items():
            console.print(f"not in MLflow: {what}: {why}")
        clips = len(submission.clip_ids)
        console.print(f"{clips - len(missing.keys() - {runs.TOTALS})} of {clips} clips are in MLflow")
        return SOME_FAILED if missing else DONE

    return command_line.exit_code(run, console, stopped="stopped; the same command sends the rest")


if __name__ == "__main__":
    sys.exit(main())

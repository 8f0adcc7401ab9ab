"""A user study, as the paper's Table 3: which method's samples look real, and which look different from each other.

    python jobs/study.py make runs/demo runs/demo-singan --out study/   # blind pages of both
    python jobs/study.py serve study/                                             # http://127.0.0.1:8000
    python jobs/study.py report study/                                            # mean opinion scores

A page shows an original and five samples of one method, and asks for realism and diversity, 1 to 5. Exit code: 0 done;
1 a clip was left out that not every method finished; 2 bad arguments, or nobody has finished yet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import UsageError
from jobs import command_line
from jobs.command_line import DONE, SOME_FAILED


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("study.py", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="make|serve|report")

    text = "experiments → a folder with everything that the pages show"
    add = commands.add_parser("make", help=text, description=text).add_argument
    given = "folder of train_corpus.py, one method each; of tune.py with --rivals, or its evaluation/study/; or a URI"
    add("given", nargs="+", type=command_line.path, metavar="EXPERIMENT", help=given)
    add("--out", type=command_line.local_path, required=True, metavar="FOLDER", help="new folder for the study")
    add("--questions", type=int, help="of each participant, without attention checks (default: one a clip)")
    checks = "attention checks of each participant (default: one in ten questions, at least one)"
    add("--checks", type=int, help=checks)
    add("--seed", type=int, default=0, help="of the order of the questions, and of the names of the files")

    text = "the pages, until Ctrl-C"
    add = commands.add_parser("serve", help=text, description=text).add_argument
    add("folder", type=command_line.local_path, metavar="FOLDER", help="that make wrote")
    add("--host", default="127.0.0.1", help="to listen on; 0.0.0.0: whoever reaches this machine can take part")
    add("--port", type=int, default=8000, help="to listen on")

    text = "scores, beside the paper's, and all answers as CSV"
    reporting = commands.add_parser("report", help=text, description=text)
    add = reporting.add_argument
    add("folder", type=command_line.local_path, metavar="FOLDER", help="that make wrote")
    add("--csv", type=command_line.local_path, metavar="FILE", help="for the answers (default: FOLDER/answers.csv)")
    storage = "where the experiments are, for MLflow (default: where they were when the study was made)"
    add("--storage", type=command_line.path, help=storage)
    command_line.add_tracking_uri(reporting)
    return parser.parse(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    console = command_line.console()

    def run() -> int:
        match args.command:  # each imports what the others and --help must not wait for: Flask, scipy, MLflow
            case "make":
                from jobs.user_study.make import MakeRequest, make

                if args.seed < 0:
                    raise UsageError(f"--seed {args.seed}: 0 or more")
                request = MakeRequest(
                    given=args.given, out=args.out, questions=args.questions, checks=args.checks, seed=args.seed
                )
                return SOME_FAILED if make(request, console) else DONE
            case "serve":
                from jobs.user_study.server import serve

                serve(args.folder, args.host, args.port, console)
            case "report":
                from jobs.user_study.publish import publish

                csv = args.csv or args.folder / "answers.csv"
                publish(args.folder, csv, args.tracking_uri, args.storage, console)
        return DONE

    stopped = "stopped; every answer that was sent is kept" if args.command == "serve" else "stopped"
    return command_line.exit_code(run, console, stopped=stopped)


if __name__ == "__main__":
    sys.exit(main())

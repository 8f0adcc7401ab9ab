"""Bring to MLflow what an experiment's folders hold and MLflow does not, as after an outage of its server.

    python jobs/upload.py --storage runs --experiment demo --tracking-uri http://mlflow:5000

`train_corpus.py` prints the command when it is needed; not while it runs. Sending again stores nothing twice.
Exit code: 0 everything is in MLflow; 1 something is not, and why; 2 bad arguments, or no answer.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if TYPE_CHECKING:
    from jobs.results import Result
    from jobs.tracking import Corpus

ALL_THERE, SOME_MISSING, BAD_ARGUMENTS = 0, 1, 2
NO_ANSWER = "it does not answer"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="upload.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--storage", default="runs", help="folder that train_corpus.py filled (default: runs)")
    parser.add_argument("--experiment", required=True, help="name of the corpus in it")
    parser.add_argument(
        "--tracking-uri", help="MLflow (default: $MLFLOW_TRACKING_URI, else the sqlite file in the storage folder)"
    )
    parser.add_argument("--all", action="store_true", help="send also what was sent already")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    from jobs import tracking
    from jobs.results import read_result, read_submission

    storage = Path(args.storage).resolve()
    base = storage / args.experiment
    try:
        submission = read_submission(base)
        tags = {"corpus": submission.corpus, "preset": submission.preset}
        uri = tracking.uri_of(args.tracking_uri, storage)
        corpus = tracking.open_corpus(uri, args.experiment, storage, tags)
    except FileNotFoundError:
        print(f"error: {base}: holds no experiment of train_corpus.py; give its --storage and --experiment")
        return BAD_ARGUMENTS
    except ConnectionError as error:
        print(f"error: {error}")
        return BAD_ARGUMENTS

    folders = sorted(path.parent for path in base.glob("*/result.json"))
    missing = forward(corpus, folders, again=args.all)
    found = (read_result(base / clip_id) for clip_id in submission.clip_ids)
    results = [result for result in found if result is not None]
    _, more = close(corpus, base, results, submission.failures, missing)
    for what, why in (missing | more).items():
        print(f"not in MLflow: {what}: {why}")
    print(f"{len(folders) - len(missing)} of {len(folders)} clips are in MLflow")
    return SOME_MISSING if missing or more else ALL_THERE


def forward(corpus: Corpus, folders: Sequence[Path], *, again: bool = False) -> dict[str, str]:
    """Send the clips that have a result and are not in MLflow, or all again. Returns clip_id → why of those missing."""
    from jobs import forwarding

    missing: dict[str, str] = {}
    away = False
    for folder in folders:
        if forwarding.run_of(corpus, folder) is not None and not again:
            continue
        if away:
            missing[folder.name] = NO_ANSWER
            continue
        with forwarding.forwarding(corpus, folder.name, folder) as forwarder:
            pass
        if forwarding.run_of(corpus, folder) is None:
            missing[folder.name] = forwarder.error or NO_ANSWER
            away = not forwarder.answered
    return missing


def close(
    corpus: Corpus,
    base: Path,
    results: Sequence[Result],
    failures: Sequence[tuple[str, str]],
    missing: dict[str, str],
) -> tuple[str, dict[str, str]]:
    """Send the totals and the table. Returns the table, and "the totals" → why if MLflow did not take them."""
    from jobs import forwarding, tracking
    from jobs.results import page, totals

    runs = {result.clip_id: forwarding.run_of(corpus, base / result.clip_id) for result in results}
    table = page(results, failures, {clip_id: corpus.link(run_id) for clip_id, run_id in runs.items() if run_id})
    if NO_ANSWER in missing.values():
        return table, {"the totals": NO_ANSWER}
    metrics = totals(results, len(failures))
    try:
        tracking.close_corpus(corpus, failed=metrics["clips_failed"] > 0, metrics=metrics, table=table)
    except tracking.ERRORS as error:
        return table, {"the totals": tracking.one_line(error)}
    return table, {}


def command(storage: Path, experiment: str, uri: str) -> str:
    """The command line of this job, for a shell."""
    options = ["--storage", str(storage), "--experiment", experiment, "--tracking-uri", uri]
    return shlex.join(["python", "jobs/upload.py", *options])


if __name__ == "__main__":
    sys.exit(main())

"""Bring to MLflow what an experiment's folders hold and MLflow does not, as after an outage of its server.

    python jobs/upload.py --storage runs --experiment demo --tracking-uri http://mlflow:5000

`train_corpus.py` prints the command when it is needed; not while it runs. Sending again stores nothing twice.
Exit code: 0 everything is in MLflow; 1 something is not, and why; 2 bad arguments, or no answer.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import StorageError

if TYPE_CHECKING:
    from infra.store import Store
    from infra.tracking.runs import Corpus
    from jobs.experiment.result import Summary

ALL_THERE, SOME_MISSING, BAD_ARGUMENTS = 0, 1, 2
NO_ANSWER = "it does not answer"
TOTALS = "the totals"
BULK = 1000  # clips whose markers are read at once


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="upload.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--storage", default="runs", help="what train_corpus.py filled: a path or a URI (default: runs)"
    )
    parser.add_argument("--experiment", required=True, help="name of the corpus in it")
    parser.add_argument(
        "--tracking-uri", help="MLflow (default: $MLFLOW_TRACKING_URI, else the sqlite file in the storage folder)"
    )
    parser.add_argument("--all", action="store_true", help="send also what was sent already")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    from infra.errors import UsageError
    from infra.lease import Lease
    from infra.store import Store
    from infra.tracking import runs as tracking
    from jobs.experiment.result import read_submission, summarise

    try:
        base = Store.open(args.storage).below(args.experiment)
        submission = read_submission(base)
        tags = {"corpus": submission.corpus, "preset": submission.preset}
        with Lease(base):
            corpus = tracking.open_experiment(base, args.tracking_uri, tags)
            missing = forward(corpus, base, submission.clip_ids, again=args.all)
            summary = summarise(base, submission, links(corpus, base))
            missing |= close(corpus, summary, missing)
    except (UsageError, ConnectionError, StorageError) as error:
        print(f"error: {error}")
        return BAD_ARGUMENTS
    for what, why in missing.items():
        print(f"not in MLflow: {what}: {why}")
    print(
        f"{len(submission.clip_ids) - len(missing.keys() - {TOTALS})} of {len(submission.clip_ids)} clips are in MLflow"
    )
    return SOME_MISSING if missing else ALL_THERE


def forward(corpus: Corpus, base: Store, clip_ids: Sequence[str], *, again: bool = False) -> dict[str, str]:
    """Send the clips that have a result and are not in MLflow, or all again. Returns clip_id → why of those missing."""
    from infra.clip_folder import ClipFolder
    from infra.tracking import forward as forwarding
    from jobs.experiment.result import read_results

    missing: dict[str, str] = {}
    away = False
    for start in range(0, len(clip_ids), BULK):
        some = clip_ids[start : start + BULK]
        there = set() if again else set(forwarding.runs_of(corpus, base, some))
        for clip_id in read_results(base, [clip_id for clip_id in some if clip_id not in there]):
            if away:
                missing[clip_id] = NO_ANSWER
                continue
            with ClipFolder(base, clip_id) as folder:
                with forwarding.forwarding(corpus, clip_id, folder.path) as forwarder:
                    pass
                sent = forwarding.run_of(corpus, folder.path)
            if sent is None:
                missing[clip_id] = forwarder.error or NO_ANSWER
                away = not forwarder.answered
    return missing


def links(corpus: Corpus, base: Store) -> Callable[[Sequence[str]], Mapping[str, str]]:
    """A function: clip ids → the pages of their runs; a clip that is not in MLflow has none."""
    from infra.tracking import forward as forwarding

    return lambda clip_ids: {
        clip_id: corpus.link(run_id) for clip_id, run_id in forwarding.runs_of(corpus, base, clip_ids).items()
    }


def close(corpus: Corpus, summary: Summary, missing: Mapping[str, str]) -> dict[str, str]:
    """Send the totals and the table. Returns "the totals" → why if MLflow did not take them."""
    from infra.tracking import runs as tracking

    if NO_ANSWER in missing.values():
        return {TOTALS: NO_ANSWER}
    try:
        failed = summary.failed > 0
        tracking.close_corpus(corpus, failed=failed, metrics=summary.metrics(), table=summary.page())
    except tracking.ERRORS as error:
        return {TOTALS: tracking.one_line(error)}
    return {}


def command(storage: str, experiment: str, uri: str) -> str:
    """The command line of this job, for a shell."""
    options = ["--storage", storage, "--experiment", experiment, "--tracking-uri", uri]
    return shlex.join(["python", "jobs/upload.py", *options])


if __name__ == "__main__":
    sys.exit(main())

"""jobs/train_corpus.py with a pause before each iteration: a test has time to stop it, and no core is busy meanwhile.

Iterations are the same, so what was stopped here and what was never stopped may be compared.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from jobs import train_corpus
from jobs.experiment.result import Result
from jobs.training import schedule
from jobs.training.task import ClipTask, fit_task

PAUSE_S = 0.15


def slow_task(task: ClipTask, chunks: Sequence[Any]) -> Result:
    """The body of a clip's task, in a process of its own."""
    from model.training import loop

    iterate = loop.iterate

    def later(*arguments: Any) -> Any:
        time.sleep(PAUSE_S)
        return iterate(*arguments)

    loop.iterate = later  # type: ignore[assignment]
    return fit_task(task, chunks)


if __name__ == "__main__":
    run = schedule.run
    schedule.run = lambda *arguments: run(*arguments, slow_task)
    sys.exit(train_corpus.main())

"""infra/errors.py: what is written of numbers, and of errors."""

from __future__ import annotations

import pytest

from infra.errors import Refusal, StorageError, UsageError, counted, reason
from model.checkpoint import CheckpointError
from pipeline.video import VideoError


@pytest.mark.parametrize(
    ("number", "noun", "written"),
    [
        (0, "clip", "0 clips"),
        (1, "clip", "1 clip"),
        (2, "new row", "2 new rows"),
        (20000, "frame", "20,000 frames"),
        (1, "process", "1 process"),
        (2, "process", "2 processes"),
        (0, "box", "0 boxes"),
        (3, "patch", "3 patches"),
    ],
)
def test_a_number_of_things(number: int, noun: str, written: str) -> None:
    assert counted(number, noun) == written


@pytest.mark.parametrize(
    ("error", "written"),
    [
        (Refusal("a.mp4: is too dark; give another clip"), "a.mp4: is too dark; give another clip"),
        (VideoError("a.mp4: is damaged; copy it again"), "a.mp4: is damaged; copy it again"),
        (CheckpointError("c.pt: of another clip; use --fresh"), "c.pt: of another clip; use --fresh"),
        (UsageError("--n 1: at least 2"), "--n 1: at least 2"),
        (
            StorageError("f", OSError(28, "No space left")),
            "f: cannot be written (No space left); make room on its disk",
        ),
        (ValueError("could not\nbroadcast"), "ValueError: could not broadcast"),
        (KeyError("x"), "KeyError: 'x'"),
        (OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error"),
    ],
)
def test_the_reason_of_a_failure_has_a_class_only_where_the_project_does_not_word_it(
    error: Exception, written: str
) -> None:
    assert reason(error).removesuffix(", then run the same command again") == written

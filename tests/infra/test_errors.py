"""infra/errors.py: what is written of numbers."""

from __future__ import annotations

import pytest

from infra.errors import counted


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

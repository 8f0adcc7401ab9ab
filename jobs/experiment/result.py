"""The result of a clip: a line of the table, `result.json` in the clip's folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra import clip_folder
from infra.files import write_json

# Columns of the results table that are fields of a Result, with their format.
FIGURES = {
    "minutes": ".1f",
    "svfid_lite0": ".1f",
    "svfid_lite0_blur": ".1f",
    "diversity": ".2f",
    "nn_distance": ".3f",
    "nnfdiv": ".2f",
    "coherence": ".2f",
}
OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Result:
    """How the training of a clip ended; `result.json` holds these fields."""

    clip_id: str
    status: str  # "done" or "failed"; of a sweep also "stopped", by ASHA
    reason: str = ""  # why it failed or was stopped, one line
    minutes: float = 0.0  # of training, over all the processes that took part
    svfid_lite0: float | None = None
    svfid_lite0_blur: float | None = None
    diversity: float | None = None
    nn_distance: float | None = None
    nnfdiv: float | None = None  # of the first sample; None of a large clip, whose search would take too long
    coherence: float | None = None
    warning: str = ""  # what warnings.txt holds

    @classmethod
    def from_json(cls, content: bytes | str) -> Result:
        """Raises ValueError, TypeError or AttributeError for what is no result."""
        values: Mapping[str, Any] = json.loads(content)
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True)
class OutOfMemoryResult(Result):
    """In place of a result: memory did not suffice, and the clip may be tried again with less at once."""

    status: str = OUT_OF_MEMORY
    micro_batch: int = 1  # examples that were in memory at once


def write_result(folder: Path, result: Result) -> None:
    """Into a clip's folder on this machine. Raises StorageError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / clip_folder.TRACKED).unlink(missing_ok=True)  # this one is not in MLflow yet
    write_json(folder / clip_folder.RESULT, asdict(result))

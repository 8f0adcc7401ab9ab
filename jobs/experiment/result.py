"""The result of a clip: a line of the table, `result.json` in the clip's folder.

Diversity depends on how many samples it is of, so its name says it: `diversity_n10`. Results from before that have a
plain `diversity`, and keep it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra import clip_folder
from infra.files import write_json
from model.metrics.names import diversity_name, diversity_samples

# Columns of the results table that are fields of a Result, with their format.
FIGURES = {
    "minutes": ".1f",
    "svfid_lite0": ".1f",
    "svfid_lite0_blur": ".1f",
    "sifid_lite0_frames": ".1f",
    "sifid_lite0_frames_blur": ".1f",
    "diversity": ".2f",
    "nn_distance": ".3f",
    "nnfdiv": ".2f",
    "coherence": ".2f",
}
# Where a terminal is too narrow for all, they are left out in this order.
DROPPED_FIRST = ("minutes", "coherence", "nnfdiv", "nn_distance", "svfid_lite0_blur", "sifid_lite0_frames_blur")
SVFID, SIFID = "svfid_lite0", "sifid_lite0_frames"  # of the features that are always there
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
    diversity_n: int | None = None  # how many samples `diversity` is of; None of a result from before it was kept
    sifid_lite0_frames: float | None = None  # of an image, in place of svfid
    sifid_lite0_frames_blur: float | None = None
    # svfid and sifid of other features, where they were asked for
    others: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a file or table has them: diversity and its number of samples as one."""
        name = diversity_name(self.diversity_n) if self.diversity_n else "diversity"
        fields = {name if key == "diversity" else key: value for key, value in asdict(self).items()}
        del fields["diversity_n"]
        return fields | fields.pop("others")

    @classmethod
    def from_json(cls, content: bytes | str) -> Result:
        """Inverse of `to_dict`. Raises ValueError, TypeError or AttributeError for what is no result."""
        values: dict[str, Any] = dict(json.loads(content).items())
        for name in [name for name in values if diversity_samples(name)]:
            values |= {"diversity": values.pop(name), "diversity_n": diversity_samples(name)}
        known = {field.name for field in dataclasses.fields(cls)} - {"others"}
        others = {name: value for name, value in values.items() if is_realism(name) and name not in known}
        return cls(**{name: value for name, value in values.items() if name in known}, others=others)

    @property
    def realism(self) -> str:
        """The name of the score that says how near samples are to the clip: svfid of a video, sifid of an image."""
        return SIFID if self.sifid_lite0_frames is not None else SVFID


@dataclass(frozen=True)
class OutOfMemoryResult(Result):
    """In place of a result: memory did not suffice, and the clip may be tried again with less at once."""

    status: str = OUT_OF_MEMORY
    micro_batch: int = 1  # examples that were in memory at once


def write_result(folder: Path, result: Result) -> None:
    """Into a clip's folder on this machine. Raises StorageError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / clip_folder.TRACKED).unlink(missing_ok=True)  # this one is not in MLflow yet
    write_json(folder / clip_folder.RESULT, result.to_dict())


def columns(figures: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of a table of `Result.to_dict`.

    In place of diversity there is one for each number of samples it is of; of svfid and sifid there are those that a
    row has, or svfid where none has any.
    """
    there = {name for row in rows for name, value in row.items() if value is not None}
    shown = {name for name in there if is_realism(name)} or {SVFID, f"{SVFID}_blur"}
    figures = [name for name in figures if not is_realism(name) or name in shown]
    diversities = sorted((name for name in there if is_diversity(name)), key=diversity_samples) or ["diversity"]
    return [column for name in figures for column in (diversities if name == "diversity" else [name])]


def is_realism(name: str) -> bool:
    """Whether a figure is a Fréchet distance to the clip, of whatever features; or that of the blurred clip."""
    return name.startswith(("svfid_", "sifid_"))


def is_diversity(name: str) -> bool:
    """Of whatever number of samples."""
    return name == "diversity" or diversity_samples(name) > 0


def spec_of(column: str) -> str:
    """The format of a column of figures."""
    if is_realism(column) and column not in FIGURES:
        return ".4g"
    return FIGURES["diversity" if is_diversity(column) else column]

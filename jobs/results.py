"""The result of a clip, what the driver found in a corpus, and what they add up to: the table and the totals."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model.files import replacing

PAGE_COLUMNS = 240

# Columns of the results table that are fields of a Result, with their format.
FIGURES = {
    "minutes": ".1f",
    "svfid_lite0": ".1f",
    "svfid_lite0_blur": ".1f",
    "diversity": ".2f",
    "nn_distance": ".3f",
}


@dataclass(frozen=True)
class Result:
    """The line of a clip in the final table; `result.json` holds these fields."""

    clip_id: str
    status: str  # "done" or "failed"
    reason: str = ""  # why it failed, one line
    minutes: float = 0.0  # of training, over all the processes that took part
    svfid_lite0: float | None = None
    svfid_lite0_blur: float | None = None
    diversity: float | None = None
    nn_distance: float | None = None
    warning: str = ""  # what warnings.txt holds


@dataclass(frozen=True)
class Submission:
    """What the last submission of an experiment found; `submission.json` holds these fields."""

    corpus: str
    preset: str
    clip_ids: Sequence[str]
    failures: Sequence[tuple[str, str]]  # (source, one line): what is no clip, and why


def read_result(folder: Path) -> Result | None:
    """The result a clip's folder holds, None if it has none yet."""
    try:
        values = json.loads((folder / "result.json").read_text())
    except FileNotFoundError:
        return None
    known = {field.name for field in dataclasses.fields(Result)}
    return Result(**{name: value for name, value in values.items() if name in known})


def write_result(folder: Path, result: Result) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tracked.json").unlink(missing_ok=True)  # this one is not in MLflow yet
    write_json(folder / "result.json", asdict(result))


def read_submission(base: Path) -> Submission:
    """Raises FileNotFoundError for a folder that is no experiment's."""
    return Submission(**json.loads((base / "submission.json").read_text()))


def write_submission(base: Path, submission: Submission) -> None:
    write_json(base / "submission.json", asdict(submission))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Atomic: a reader sees the old file or the whole new one. Raises StorageError if it cannot be written."""
    with replacing(path) as file:
        file.write(json.dumps(value, indent=2).encode() + b"\n")


def page(results: Sequence[Result], failures: Sequence[tuple[str, str]], links: Mapping[str, str]) -> str:
    """The results table, and below it a line for every failure with its reason and for every warning.

    Args:
        failures: (source, one line) of what is no clip.
        links: clip_id → the page of its run; a clip that is not in MLflow has none.
    """
    rows = [{**vars(result), "link": links.get(result.clip_id, "")} for result in results]
    rows += [{"clip_id": Path(source).name, "status": "failed"} for source, _ in failures]
    reasons = [f"{result.clip_id}: {result.reason}" for result in results if result.status != "done"]
    reasons += [reason for _, reason in failures]
    lines = [f"failed  {reason}\n" for reason in reasons]
    lines += [f"warning  {result.clip_id}: {line}\n" for result in results for line in result.warning.splitlines()]
    return results_table(rows) + "".join(lines)


def totals(results: Sequence[Result], failed_sources: int) -> Mapping[str, float]:
    """clips_done, clips_failed, and the mean of every figure over the finished clips."""
    done = [result for result in results if result.status == "done"]
    metrics = {"clips_done": float(len(done)), "clips_failed": float(len(results) - len(done) + failed_sources)}
    for name in FIGURES:
        values = [value for result in done if (value := getattr(result, name)) is not None]
        if values:
            metrics[f"{name}_mean"] = sum(values) / len(values)
    return metrics


def results_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The final table as text, wide enough for whole links: clip, status, its figures, run.

    A row may lack the figures: a clip that failed has none.
    """
    table = Table(title="results", title_justify="left")
    table.add_column("clip")
    table.add_column("status")
    for name in FIGURES:
        table.add_column(name, justify="right")
    table.add_column("run")
    for row in rows:
        figures = [(row.get(name), spec) for name, spec in FIGURES.items()]
        cells = ["" if value is None else format(value, spec) for value, spec in figures]
        table.add_row(escape(row["clip_id"]), row["status"], *cells, row.get("link", ""))
    text = io.StringIO()
    Console(file=text, width=PAGE_COLUMNS).print(table)
    return text.getvalue()

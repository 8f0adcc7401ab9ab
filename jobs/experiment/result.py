"""The result of a clip, what the driver found in a corpus, and what they add up to: the table and the totals."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.errors import StorageError, UsageError, one_line
from infra.files import write_json
from infra.store import Store
from model.config import TrainConfig

PAGE_COLUMNS = 240
BULK = 1000  # clips whose results are read at once
SHOWN_ROWS = 200  # of the table; ten times as many lines below it

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
    status: str  # "done" or "failed"; of a sweep also "stopped", by ASHA
    reason: str = ""  # why it failed or was stopped, one line
    minutes: float = 0.0  # of training, over all the processes that took part
    svfid_lite0: float | None = None
    svfid_lite0_blur: float | None = None
    diversity: float | None = None
    nn_distance: float | None = None
    warning: str = ""  # what warnings.txt holds


OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class OutOfMemory(Result):
    """In place of a result: memory did not suffice, and the clip may be tried again with less at once."""

    status: str = OUT_OF_MEMORY
    micro_batch: int = 1  # samples that were in memory at once


def read_config(base: Store) -> TrainConfig | None:
    """The settings of an experiment's models; None if it has none yet. Raises UsageError if they cannot be read."""
    name = "experiment.json"
    try:
        found = base.read([name]).get(name)
        return TrainConfig.from_dict(json.loads(found)) if found else None
    except (ValueError, TypeError, AttributeError) as error:  # ConfigError is a ValueError
        mend = "delete it, or use --experiment NAME"
        raise UsageError(f"{base.uri}/{name}: cannot be read ({one_line(error)}); {mend}") from error


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
    return _result(values)


def _result(values: Mapping[str, Any]) -> Result:
    known = {field.name for field in dataclasses.fields(Result)}
    return Result(**{name: value for name, value in values.items() if name in known})


def write_result(folder: Path, result: Result) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tracked.json").unlink(missing_ok=True)  # this one is not in MLflow yet
    write_json(folder / "result.json", asdict(result))


def read_results(store: Store, clip_ids: Iterable[str]) -> dict[str, Result]:
    """The results that clips of an experiment have, by clip id; read in bulk.

    Raises UsageError for a file that this program did not write.
    """
    names = {f"{clip_id}/result.json": clip_id for clip_id in clip_ids}
    results = {}
    for name, content in store.read(names).items():
        try:
            results[names[name]] = _result(json.loads(content))
        except (ValueError, TypeError, AttributeError) as error:
            mend = "delete it, and the clip goes on from its checkpoint"
            raise UsageError(f"{store.uri}/{name}: cannot be read ({one_line(error)}); {mend}") from error
    return results


def read_submission(store: Store) -> Submission:
    """Raises UsageError for a folder that is no experiment's."""
    try:
        return Submission(**json.loads(store.read(["submission.json"])["submission.json"]))
    except (KeyError, ValueError, TypeError) as error:
        mend = "give the --storage and --experiment of train_corpus.py"
        raise UsageError(f"{store.uri}: holds no experiment of train_corpus.py; {mend}") from error


def write_submission(store: Store, submission: Submission) -> None:
    store.write_json("submission.json", asdict(submission))


class Summary:
    """What many results add up to. It holds the sums, a line of results.csv each, and the rows that are shown."""

    def __init__(self) -> None:
        self.failed = 0
        self._done = 0
        self._values = dict.fromkeys(FIGURES, (0, 0.0))  # how many, their sum
        self._rows: list[Mapping[str, Any]] = []
        self._lines: list[str] = []
        self._csv = io.StringIO()
        self._writer = csv.DictWriter(self._csv, [field.name for field in dataclasses.fields(Result)])
        self._writer.writeheader()

    def add(self, result: Result, link: str) -> None:
        """link: the page of its run; "" for a clip that is not in MLflow."""
        self._writer.writerow(asdict(result))
        if result.status == "done":
            self._done += 1
            for name, (count, total) in self._values.items():
                if (value := getattr(result, name)) is not None:
                    self._values[name] = count + 1, total + value
        else:
            self.failed += 1
            self._lines.append(f"failed  {result.clip_id}: {result.reason}\n")
        self._lines += [f"warning  {result.clip_id}: {line}\n" for line in result.warning.splitlines()]
        if len(self._rows) < SHOWN_ROWS:
            self._rows.append({**vars(result), "link": link})

    def add_failure(self, source: str, reason: str) -> None:
        """What is no clip, and why in one line."""
        self.failed += 1
        self._writer.writerow({"clip_id": Path(source).name, "status": "failed", "reason": reason})
        self._lines.append(f"failed  {reason}\n")
        if len(self._rows) < SHOWN_ROWS:
            self._rows.append({"clip_id": Path(source).name, "status": "failed"})

    def page(self) -> str:
        """The results table, and below it a line for every failure with its reason and for every warning.

        Of very many clips the first rows and lines; results.csv has all.
        """
        text = results_table(self._rows) + "".join(self._lines[: 10 * SHOWN_ROWS])
        if self._done + self.failed > len(self._rows) or len(self._lines) > 10 * SHOWN_ROWS:
            text += f"{self._done} done, {self.failed} failed in all; every one is in results.csv\n"
        return text

    def csv(self) -> bytes:
        return self._csv.getvalue().encode()

    def metrics(self) -> Mapping[str, float]:
        """clips_done, clips_failed, and the mean of every figure over the finished clips."""
        means = {f"{name}_mean": total / count for name, (count, total) in self._values.items() if count}
        return {"clips_done": float(self._done), "clips_failed": float(self.failed), **means}


def summarise(
    base: Store,
    submission: Submission,
    links: Callable[[Sequence[str]], Mapping[str, str]],
    unwritten: Mapping[str, Result] | None = None,
) -> Summary:
    """What is in the store of a submission, as one; leaves results.csv there.

    Args:
        links: clip ids → the pages of their runs, of those that have one.
        unwritten: results by clip id that the store did not take.
    """
    summary = Summary()
    for start in range(0, len(submission.clip_ids), BULK):
        some = submission.clip_ids[start : start + BULK]
        results, pages = read_results(base, some) | dict(unwritten or {}), links(some)
        for clip_id in some:
            if clip_id in results:
                summary.add(results[clip_id], pages.get(clip_id, ""))
    for source, reason in submission.failures:
        summary.add_failure(source, reason)
    with contextlib.suppress(StorageError):  # the table comes all the same
        base.write("results.csv", summary.csv())
    return summary


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

"""What the results of an experiment add up to: the table, results.csv, and the totals."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.errors import StorageError
from jobs.experiment.experiment import Experiment, Submission
from jobs.experiment.result import DROPPED_FIRST, FIGURES, Result, columns, spec_of
from jobs.reports.table import PAGE_COLUMNS, TextTable

RESULTS_CSV = "results.csv"
BULK = 1000  # clips whose results are read at once
SHOWN_ROWS = 200  # of the table; ten times as many lines below it


class Summary:
    """What many results add up to. It holds the sums, a record of results.csv each, and the rows of the table.

    Attributes:
        failed, done: how many. done_clips: the ids of the first ones that are done.
    """

    def __init__(self) -> None:
        self.failed = 0
        self.done = 0
        self._values: dict[str, tuple[int, float]] = {}  # how many, their sum
        self.done_clips: list[str] = []  # the first ones
        self._rows: list[Mapping[str, Any]] = []
        self._lines: list[str] = []
        self._records: list[Mapping[str, Any]] = []

    def add(self, result: Result, run_id: str) -> None:
        """run_id: in MLflow; "" for a clip that is not there."""
        record = result.to_dict()
        self._records.append(record)
        if result.status == "done":
            self.done += 1
            self.done_clips += [result.clip_id] if self.done <= SHOWN_ROWS else []
            for name in columns(FIGURES, [record]):
                if (value := record[name]) is not None:
                    count, total = self._values.get(name, (0, 0.0))
                    self._values[name] = count + 1, total + value
        else:
            self.failed += 1
            self._lines.append(f"failed  {result.clip_id}: {result.reason}\n")
        self._lines += [f"warning  {result.clip_id}: {line}\n" for line in result.warning.splitlines()]
        if len(self._rows) < SHOWN_ROWS:
            self._rows.append({**record, "run_id": run_id})

    def add_failure(self, source: str, reason: str) -> None:
        """A source that is no clip, and why in one line."""
        self.failed += 1
        self._records.append({"clip_id": Path(source).name, "status": "failed", "reason": reason})
        self._lines.append(f"failed  {reason}\n")
        if len(self._rows) < SHOWN_ROWS:
            self._rows.append({"clip_id": Path(source).name, "status": "failed"})

    def table(self) -> TextTable:
        """Of the first clips."""
        return results_table(self._rows)

    @property
    def runs(self) -> Mapping[str, str]:
        """Clip id → its run in MLflow, of the clips in the table that are there."""
        return {row["clip_id"]: row["run_id"] for row in self._rows if row.get("run_id")}

    def lines(self) -> str:
        """A line for every failure with its reason and for every warning; of very many the first ones."""
        text = "".join(self._lines[: 10 * SHOWN_ROWS])
        if self.done + self.failed > len(self._rows) or len(self._lines) > 10 * SHOWN_ROWS:
            text += f"{self.done} done, {self.failed} failed in all; every one is in results.csv\n"
        return text

    def page(self, link: Callable[[str], str] = str) -> str:
        """Table, lines, and the page of each run, as a file holds them. link: a run → its page."""
        links = "".join(f"{clip_id}  {link(run_id)}\n" for clip_id, run_id in self.runs.items())
        return self.table().text(PAGE_COLUMNS) + self.lines() + links

    def csv(self) -> bytes:
        """The content of results.csv: a line a clip."""
        text, fields = io.StringIO(), columns(Result("", "").to_dict(), self._records)
        writer = csv.DictWriter(text, fields, extrasaction="ignore")  # the diversity, null, of a clip that failed
        writer.writeheader()
        writer.writerows(self._records)
        return text.getvalue().encode()

    def metrics(self) -> Mapping[str, float]:
        """The mean of every figure over the finished clips, scores first, and clips_done and clips_failed: MLflow lists
        them in this order."""
        means = {
            f"{'train' if name == 'minutes' else 'score'}/{name}_mean": total / count
            for name, (count, total) in self._values.items()
        }
        scores = {name: value for name, value in means.items() if name.startswith("score/")}
        return {**scores, "clips_done": float(self.done), "clips_failed": float(self.failed), **means}


def summarise(
    experiment: Experiment,
    submission: Submission,
    run_ids: Callable[[Sequence[str]], Mapping[str, str]],
    unwritten: Mapping[str, Result] | None = None,
) -> Summary:
    """The results of a submission; leaves results.csv in the experiment's folder.

    Args:
        run_ids: clip ids → their runs in MLflow, of those that have one.
        unwritten: results by clip id that the store did not take.
    """
    summary = Summary()
    for start in range(0, len(submission.clip_ids), BULK):
        some = submission.clip_ids[start : start + BULK]
        results, found = experiment.results(some) | dict(unwritten or {}), run_ids(some)
        for clip_id in some:
            if clip_id in results:
                summary.add(results[clip_id], found.get(clip_id, ""))
    for source, reason in submission.failures:
        summary.add_failure(source, reason)
    with contextlib.suppress(StorageError):  # the table comes all the same
        experiment.write(RESULTS_CSV, summary.csv())
    return summary


def results_table(rows: Sequence[Mapping[str, Any]]) -> TextTable:
    """The final table: clip, status, its figures. A clip that failed has no figures."""
    cells, figures = [], columns(FIGURES, rows)
    for row in rows:
        values = [(row.get(name), spec_of(name)) for name in figures]
        cells.append(
            [row["clip_id"], row["status"], *("" if value is None else format(value, spec) for value, spec in values)]
        )
    heads = ["clip", "status", *figures]
    return TextTable("results", heads, cells, numbers=figures, dropped_first=columns(DROPPED_FIRST, rows))

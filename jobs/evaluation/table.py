"""The scores of clips, a row a clip and one of the corpus: as CSV, JSON, Markdown, and figures for MLflow."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console

from infra.errors import counted, printable
from jobs.reports.table import TextTable, markdown_table
from model.metrics.scores import Score

DIGITS = {"svfid": 1, "sifid": 4, "diversity": 2}  # by the first word of a figure; others have 3
# Where a terminal is too narrow for all, columns that end like this are left out, in this order.
DROPPED_FIRST = ("samples", "coherence", "nnfdiv", "nn_distance", "_blur")


@dataclass(frozen=True)
class ScoredClip:
    """A clip. files: names of what was written into its folder. complaints: one line each. method: of a rival."""

    clip_id: str
    scores: Mapping[str, Score] = field(default_factory=dict)
    complaints: Sequence[str] = ()
    files: Sequence[str] = ()
    method: str = ""

    @property
    def name(self) -> str:
        """Of its row."""
        return f"{self.clip_id} ({self.method})" if self.method else self.clip_id

    @property
    def samples(self) -> int:
        """How many were scored."""
        return max((score.samples for score in self.scores.values()), default=0)


def of_corpus(rows: Sequence[ScoredClip]) -> dict[str, Score]:
    """Each score over the clips: its values are the clips' means."""
    means: dict[str, list[float]] = {}
    for row in rows:
        for name, score in row.scores.items():
            means.setdefault(name, []).append(score.mean)
    return {name: Score(values=tuple(values), samples=0) for name, values in means.items()}


def by_method(rows: Sequence[ScoredClip]) -> dict[str, list[ScoredClip]]:
    """The rows of the models, "", and of each rival."""
    methods: dict[str, list[ScoredClip]] = {}
    for row in rows:
        methods.setdefault(row.method, []).append(row)
    return methods


def tables(name: str, settings: Mapping[str, Any], rows: Sequence[ScoredClip]) -> dict[str, bytes]:
    """results.csv, results.json and results.md by name. settings: n, seed and features."""
    return {
        "results.csv": _csv(rows).encode(errors="backslashreplace"),
        "results.json": json.dumps(_record(name, settings, rows), indent=2).encode() + b"\n",
        "results.md": markdown(name, settings, rows).encode(errors="backslashreplace"),
    }


def markdown(name: str, settings: Mapping[str, Any], rows: Sequence[ScoredClip]) -> str:
    """The page of an evaluation: its settings, the table, and the notes on it."""
    text = [f"# {name}", "", _settings_line(settings), "", *markdown_table(_cells(rows), numbers=True), ""]
    return "\n".join([*text, *_notes(rows)]) + "\n"


def print_scores(console: Console, name: str, settings: Mapping[str, Any], rows: Sequence[ScoredClip]) -> None:
    """The same for a terminal, in which the table is as wide as there is room for."""
    heads, *cells = [[printable(cell) for cell in row] for row in _cells(rows)]
    dropped_first = [head for ending in DROPPED_FIRST for head in heads if head.endswith(ending)]
    console.print(f"{printable(name)}: {_settings_line(settings)}", soft_wrap=True)
    TextTable("", heads, cells, numbers=heads[1:], dropped_first=dropped_first).print(console)
    for line in _notes(rows):
        console.print(printable(line), soft_wrap=True)


def _settings_line(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _cells(rows: Sequence[ScoredClip]) -> list[list[str]]:
    """The heads, a row a clip, and one a method of the means over its clips."""
    corpus = of_corpus(rows)
    cells = [["clip", "samples", *corpus]]
    cells += [
        [row.name, str(row.samples), *(_cell(column, row.scores.get(column)) for column in corpus)] for row in rows
    ]
    for method, some in by_method(rows).items():
        if len(some) > 1:
            scored, means = sum(bool(row.scores) for row in some), of_corpus(some)
            label = f"mean of {counted(scored, 'clip')}" + (f" ({method})" if method else "")
            cells.append([label, "", *(_cell(column, means.get(column)) for column in corpus)])
    return cells


def _notes(rows: Sequence[ScoredClip]) -> list[str]:
    """How to read the table, and a line for each complaint."""
    lines = ["± is the standard deviation: of a clip over its samples, of the mean over the clips."]
    if searched := {row.scores["nn_distance"].samples for row in rows if "nn_distance" in row.scores}:
        counts = " or ".join(map(str, sorted(searched)))
        lines.append(f"nn_distance, nnfdiv and coherence are of the first samples only (--nn): {counts} a clip.")
    elif of_corpus(rows):
        lines.append("nn_distance, nnfdiv and coherence are of no sample (--nn).")
    if complaints := [f"- {row.name}: {complaint}" for row in rows for complaint in row.complaints]:
        lines += ["", "What could not be scored:", "", *complaints]
    return lines


def _cell(name: str, score: Score | None) -> str:
    if score is None:
        return ""
    digits = DIGITS.get(name.split("_")[0], 3)
    return f"{score.mean:.{digits}f}" + ("" if score.std is None else f" ± {score.std:.{digits}f}")


def _csv(rows: Sequence[ScoredClip]) -> str:
    """A line a clip; the last ones, of the corpus, one a method, have means and standard deviations over the clips."""
    corpus = of_corpus(rows)
    text = io.StringIO()
    columns = [column for name in corpus for column in (name, f"{name}_std")]
    writer = csv.DictWriter(text, ["clip_id", "samples", *columns, "nn_samples", "complaints"])
    writer.writeheader()
    means = [
        ScoredClip("corpus", of_corpus(some), method=method)
        for method, some in by_method(rows).items()
        if len(some) > 1
    ]
    for row in [*rows, *means]:
        searched = row.scores["nn_distance"].samples if "nn_distance" in row.scores else 0
        own = {"clip_id": row.name, "complaints": "; ".join(row.complaints)}
        counts = {"samples": row.samples or "", "nn_samples": searched or ""}
        writer.writerow(own | counts | _flat(row.scores))
    return text.getvalue()


def _flat(scores: Mapping[str, Score]) -> dict[str, float]:
    means = {name: score.mean for name, score in scores.items()}
    return means | {f"{name}_std": score.std for name, score in scores.items() if score.std is not None}


def _record(name: str, settings: Mapping[str, Any], rows: Sequence[ScoredClip]) -> dict[str, Any]:
    clips = [
        {
            "clip_id": row.clip_id,
            **({"method": row.method} if row.method else {}),
            "complaints": list(row.complaints),
            "figures": {
                name: {"mean": score.mean, "std": score.std, "samples": score.samples, "values": score.values}
                for name, score in row.scores.items()
            },
        }
        for row in rows
    ]
    corpora = {
        method: {name: {"mean": f.mean, "std": f.std, "clips": len(f.values)} for name, f in of_corpus(some).items()}
        for method, some in by_method(rows).items()
    }
    rivals = {method: corpus for method, corpus in corpora.items() if method}
    record = {"name": name, **settings, "clips": clips, "corpus": corpora.get("", {})}
    return record | ({"rivals": rivals} if rivals else {})


def metrics(row: ScoredClip) -> dict[str, float]:
    """For a clip's run: eval/n50_svfid_lite0, eval/diversity_n50 …, after n how many samples a score is of; without it,
    of the clip.
    """
    named: dict[str, float] = {}
    for name, score in row.scores.items():
        has_number = not score.samples or name.endswith(f"_n{score.samples}")
        prefix = "" if has_number else f"n{score.samples}_"
        named |= {f"eval/{prefix}{key}": value for key, value in _flat({name: score}).items()}
    return named


def metrics_of_corpus(rows: Sequence[ScoredClip]) -> dict[str, float]:
    """For the parent run: mean and standard deviation over the clips of what each clip's run has."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in metrics(row).items():
            if not name.endswith("_std"):
                values.setdefault(name, []).append(value)
    means = {f"{name}_mean": float(np.mean(some)) for name, some in values.items()}
    return means | {f"{name}_std": float(np.std(some)) for name, some in values.items()}

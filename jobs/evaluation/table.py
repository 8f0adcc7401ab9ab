"""What jobs/evaluate.py found, a row a clip and one of the corpus: as CSV, JSON, Markdown, and figures for MLflow."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.metrics.scores import Score

DIGITS = {"svfid": 1, "sifid": 4, "diversity": 2}  # by the first word of a figure; others have 3


@dataclass(frozen=True)
class Row:
    """A clip. files: names of what was written into its folder. complaints: one line each."""

    clip_id: str
    figures: Mapping[str, Score] = field(default_factory=dict)
    complaints: Sequence[str] = ()
    files: Sequence[str] = ()

    @property
    def samples(self) -> int:
        return max((figure.samples for figure in self.figures.values()), default=0)


def of_corpus(rows: Sequence[Row]) -> dict[str, Score]:
    """Each figure over the clips: its values are the clips' means."""
    means: dict[str, list[float]] = {}
    for row in rows:
        for name, figure in row.figures.items():
            means.setdefault(name, []).append(figure.mean)
    return {name: Score(values=tuple(values), samples=0) for name, values in means.items()}


def tables(name: str, settings: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, bytes]:
    """results.csv, results.json and results.md by name. settings: n, seed and features."""
    return {
        "results.csv": _csv(rows).encode(),
        "results.json": json.dumps(_record(name, settings, rows), indent=2).encode() + b"\n",
        "results.md": markdown(name, settings, rows).encode(),
    }


def markdown(name: str, settings: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """A table that is as readable in a terminal, a line on how to read it, and one for each complaint."""
    corpus = of_corpus(rows)
    lines = [["clip", "samples", *corpus]]
    lines += [
        [
            _escaped(row.clip_id),
            str(row.samples),
            *(_cell(figure, row.figures.get(figure)) for figure in corpus),
        ]
        for row in rows
    ]
    if len(rows) > 1:
        scored = sum(bool(row.figures) for row in rows)
        lines.append(
            [f"mean of {scored} clip{'s' * (scored != 1)}", "", *(_cell(figure, corpus[figure]) for figure in corpus)]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [f"# {name}", "", f"{', '.join(f'{key} {value}' for key, value in settings.items())}", ""]
    for number, cells in enumerate(lines):
        first, *others = (
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        text.append(f"| {' | '.join([first, *others])} |")
        if number == 0:
            text.append(f"|{'|'.join('-' * (w + 1) + (':' if i else '-') for i, w in enumerate(widths))}|")
    text += ["", "± is the standard deviation: of a clip over its samples, of the mean over the clips."]
    if searched := {row.figures["nn_distance"].samples for row in rows if "nn_distance" in row.figures}:
        counts = " or ".join(map(str, sorted(searched)))
        text.append(f"nn_distance and nnfdiv are of the first samples only (--nn): {counts} a clip.")
    elif corpus:
        text.append("nn_distance and nnfdiv are of no sample (--nn).")
    if complaints := [f"- {row.clip_id}: {complaint}" for row in rows for complaint in row.complaints]:
        text += ["", "What could not be scored:", "", *complaints]
    return "\n".join(text) + "\n"


def _escaped(text: str) -> str:
    """For a cell of Markdown."""
    return text.replace("|", "\\|")


def _cell(name: str, figure: Score | None) -> str:
    if figure is None:
        return ""
    digits = DIGITS.get(name.split("_")[0], 3)
    return f"{figure.mean:.{digits}f}" + ("" if figure.std is None else f" ± {figure.std:.{digits}f}")


def _csv(rows: Sequence[Row]) -> str:
    """A line a clip; the last one, of the corpus, has the means and standard deviations over the clips."""
    corpus = of_corpus(rows)
    text = io.StringIO()
    columns = [column for name in corpus for column in (name, f"{name}_std")]
    writer = csv.DictWriter(text, ["clip_id", "samples", *columns, "nn_samples", "complaints"])
    writer.writeheader()
    for row in [*rows, Row("corpus", corpus)] if len(rows) > 1 else rows:
        searched = row.figures["nn_distance"].samples if "nn_distance" in row.figures else 0
        own = {"clip_id": row.clip_id, "complaints": "; ".join(row.complaints)}
        counts = {"samples": row.samples or "", "nn_samples": searched or ""}
        writer.writerow(own | counts | _flat(row.figures))
    return text.getvalue()


def _flat(figures: Mapping[str, Score]) -> dict[str, float]:
    means = {name: figure.mean for name, figure in figures.items()}
    return means | {f"{name}_std": figure.std for name, figure in figures.items() if figure.std is not None}


def _record(name: str, settings: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    clips = [
        {
            "clip_id": row.clip_id,
            "complaints": list(row.complaints),
            "figures": {
                name: {"mean": figure.mean, "std": figure.std, "samples": figure.samples, "values": figure.values}
                for name, figure in row.figures.items()
            },
        }
        for row in rows
    ]
    corpus = {name: {"mean": f.mean, "std": f.std, "clips": len(f.values)} for name, f in of_corpus(rows).items()}
    return {"name": name, **settings, "clips": clips, "corpus": corpus}


def metrics(row: Row) -> dict[str, float]:
    """For a clip's run: eval_n50_svfid_lite0 …, after n how many samples a figure is of; without it, of the clip."""
    named: dict[str, float] = {}
    for name, figure in row.figures.items():
        prefix = f"eval_n{figure.samples}" if figure.samples else "eval"
        named |= {f"{prefix}_{key}": value for key, value in _flat({name: figure}).items()}
    return named


def metrics_of_corpus(rows: Sequence[Row]) -> dict[str, float]:
    """For the parent run: mean and standard deviation over the clips of what each clip's run has."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in metrics(row).items():
            if not name.endswith("_std"):
                values.setdefault(name, []).append(value)
    means = {f"{name}_mean": float(np.mean(some)) for name, some in values.items()}
    return means | {f"{name}_std": float(np.std(some)) for name, some in values.items()}

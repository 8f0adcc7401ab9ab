"""Tables 1 and 2 of the paper (§4.1); the paper's figures stand beside those measured only where nothing differs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infra.errors import counted
from infra.files import replacing
from jobs.comparison.neighbours import ComparedSample
from jobs.reports.paper import differences, is_papers_features
from jobs.reports.table import csv_table, markdown_table
from model.config import TrainConfig
from model.metrics.fid import fid

# Table 1 (1st and 2nd nearest neighbour) and Table 2 (FID): baseline, ours.
PAPER = {
    "MoCoGAN": {"nn1": (19.0, 6.1), "nn2": (19.1, 15.3), "fid": (42.0, 22.1)},
    "TGAN": {"nn1": (20.0, 8.7), "nn2": (20.6, 21.0), "fid": (28.3, 16.1)},
    "TGAN-v2": {"nn1": (25.4, 8.9), "nn2": (25.5, 20.6), "fid": (29.2, 17.2)},
}
TRIALS, DRAWN = 50, 50  # A.3: trials, features a trial


@dataclass(frozen=True)
class Table:
    """columns: their heads; the first column holds the rows' names."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]

    def markdown(self) -> str:
        """With one digit after the point, as in the paper."""
        cells = [self.columns, *([c if isinstance(c, str) else f"{c:.1f}" for c in row] for row in self.rows)]
        return "\n".join([self.title, "", *markdown_table(cells), ""])

    def csv(self) -> bytes:
        """With all digits."""
        return csv_table([self.columns, *self.rows])


def not_the_papers(name: str, features: str, config: TrainConfig) -> str:
    """Why figures do not compare with the paper's, in words; "" where they do.

    Args: name: of the other method; features: name of the feature network; config: of our models.
    """
    reasons = [] if is_papers_features(features) else [f"features {features} (paper: C3D of Sports-1M and UCF-101)"]
    if settings := differences(config):
        reasons.append(settings)
    if _in_paper(name) is None:
        reasons.append(f"--name {name} is none of its methods ({', '.join(PAPER)})")
    return "; ".join(reasons)


def table_of_svfid(name: str, features: str, count: int, means: Mapping[str, float], *, papers: bool) -> Table:
    """Table 1.

    Args: means: SVFID by baseline_nn1, ours_nn1, baseline_nn2, ours_nn2; papers: whether the paper's stand beside.
    """
    title = f"Table 1. Mean SVFID of {counted(count, 'sample')} to their 1st and 2nd nearest neighbour; lower is closer"
    measured = {f"svfid_{features} {nn}": (means[f"baseline_{nn}"], means[f"ours_{nn}"]) for nn in ("nn1", "nn2")}
    return _table(title, name, measured, ("nn1", "nn2") if papers else ())


def table_of_fid(name: str, features: str, count: int, fids: Mapping[str, float], *, papers: bool) -> Table:
    """Table 2. fids: by baseline, ours; papers: whether the paper's stand beside."""
    title = f"Table 2. FID of the {counted(count, 'sample')} to the test set; lower is closer"
    return _table(title, name, {f"fid_{features}": (fids["baseline"], fids["ours"])}, ("fid",) if papers else ())


def _table(title: str, name: str, measured: Mapping[str, tuple[float, float]], kinds: tuple[str, ...]) -> Table:
    """The columns measured, and the paper's of some kinds."""
    in_paper = _in_paper(name)
    columns = {**measured, **{f"in the paper: {kind}": in_paper[kind] for kind in kinds if in_paper}}
    baseline, ours = zip(*columns.values())
    return Table(title, ("", *columns), ((name, *baseline), ("ours", *ours)))


def _in_paper(name: str) -> Mapping[str, tuple[float, float]] | None:
    """The paper's figures of the method of that name, None where it has none."""
    return next((figures for paper, figures in PAPER.items() if _plain(paper) == _plain(name)), None)


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What both tables are computed from.

    Attributes:
        name: of the other method.
        features: name of the feature network.
        rows: two or more.
        test_set: (m, D) vectors.
        seed: of the FID.
        not_the_papers: why these figures do not compare with the paper's; "": they stand beside them.
        notes: lines below the tables.
        failures: what could not be compared, for the JSON file.
    """

    name: str
    features: str
    rows: Sequence[ComparedSample]
    test_set: np.ndarray
    seed: int
    not_the_papers: str
    notes: Sequence[str]
    failures: Sequence[str]

    def write(self, stem: Path) -> str:
        """Both tables and the notes, as files that begin with `stem`: .md, .json, _table1.csv and _table2.csv.

        Returns: the page in .md. Raises StorageError.
        """
        rows, test_set = self.rows, self.test_set
        means = {key: float(np.mean([row.scores[key] for row in rows])) for key in rows[0].scores}
        a_trial = min(DRAWN, len(rows), *test_set.shape)
        sets = {"baseline": [row.baseline for row in rows], "ours": [row.ours for row in rows]}
        fids = {
            who: fid(np.stack(vectors), test_set, trials=TRIALS, drawn=a_trial, seed=self.seed).mean
            for who, vectors in sets.items()
        }
        dims = test_set.shape[1]
        notes = [
            *self.notes,
            f"FID: {len(test_set):,} clips, {TRIALS} trials of {a_trial} of {dims} features (50 of 512 in A.3).",
            f"No figure of the paper stands beside these: {self.not_the_papers}."
            if self.not_the_papers
            else "In the paper: of 50 samples of its own, so of other neighbours.",
        ]
        papers = not self.not_the_papers
        tables = (
            table_of_svfid(self.name, self.features, len(rows), means, papers=papers),
            table_of_fid(self.name, self.features, len(rows), fids, papers=papers),
        )
        page = "\n".join([*(table.markdown() for table in tables), *(f"- {note}" for note in notes), ""])
        report = {"name": self.name, "features": self.features, "seed": self.seed, "svfid": means, "fid": fids}
        report |= {"paper": _in_paper(self.name) if papers else None, "not_the_papers": self.not_the_papers}
        report |= {"notes": notes, "failures": self.failures}
        report |= {"samples": [row.report() for row in rows]}
        contents = {
            ".md": page.encode(errors="backslashreplace"),
            ".json": json.dumps(report, indent=2).encode() + b"\n",
        }
        contents |= {f"_table{number}.csv": table.csv() for number, table in enumerate(tables, start=1)}
        for suffix, content in contents.items():
            with replacing(Path(f"{stem}{suffix}")) as file:
                file.write(content)
        return page

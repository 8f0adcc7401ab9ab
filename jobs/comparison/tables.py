"""What Tables 1 and 2 of the paper compare (§4.1), and the tables, with the paper's figures beside those measured."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infra.files import replacing
from jobs.comparison.vectors import EmbeddedClip
from model.metrics.features import VideoFeatures
from model.metrics.fid import fid
from model.metrics.svfid import RealClip, svfid

# Table 1 (1st and 2nd nearest neighbour) and Table 2 (FID): baseline, ours.
PAPER = {
    "MoCoGAN": {"nn1": (19.0, 6.1), "nn2": (19.1, 15.3), "fid": (42.0, 22.1)},
    "TGAN": {"nn1": (20.0, 8.7), "nn2": (20.6, 21.0), "fid": (28.3, 16.1)},
    "TGAN-v2": {"nn1": (25.4, 8.9), "nn2": (25.5, 20.6), "fid": (29.2, 17.2)},
}
TRIALS, DRAWN = 50, 50  # A.3: trials, features a trial
UCF_NAME = re.compile(r"v_(\w+_g\d+)_c\d+")


def source_of(path: str) -> str:
    """What the clips of one source video share: UCF-101's class and group, else the path itself."""
    named = UCF_NAME.fullmatch(Path(path).stem)
    return named[1] if named else path


def nearest_two(samples: np.ndarray, clips: np.ndarray, sources: Sequence[str]) -> list[tuple[int, int]]:
    """For each sample the nearest clip, and the nearest one of another source, by Euclidean distance (paper §4.1).

    The paper does not say in what space; here it is the one of the FID, vectors of `fid.embeddings`.

    Args: samples: (n, D); clips: (m, D), of `sources`, at least two different ones.
    Returns two indices into `clips` a sample.
    """
    number_of = {source: number for number, source in enumerate(dict.fromkeys(sources))}
    source = np.array([number_of[name] for name in sources])
    pairs = []
    for sample in samples:
        distances = np.linalg.norm(clips - sample, axis=1)
        first = int(distances.argmin())
        pairs.append((first, int(np.where(source == source[first], np.inf, distances).argmin())))
    return pairs


@dataclass(frozen=True, eq=False)
class Row:
    """A sample of the baseline, and ours beside it."""

    sample: str  # path
    nn1: EmbeddedClip
    nn2: EmbeddedClip
    number: int  # of our sample among the model's: they count from 0 on for samples that share nn1
    scores: Mapping[str, float]  # SVFID: baseline_nn1, ours_nn1, baseline_nn2, ours_nn2
    baseline: np.ndarray  # vector (D,) of the baseline's sample
    ours: np.ndarray  # of ours

    def report(self) -> Mapping[str, Any]:
        """As it stands in the JSON file; starts are frames at 24 FPS."""
        pair = {"nn1": self.nn1, "nn2": self.nn2}
        clips = {name: {"path": clip.path, "start": clip.start} for name, clip in pair.items()}
        return {"sample": self.sample, **clips, "model": self.nn1.clip_id, "number": self.number, **self.scores}


def svfids(
    videos: Mapping[str, np.ndarray], reals: Mapping[str, np.ndarray], features: VideoFeatures
) -> Mapping[str, float]:
    """SVFID of every video to every real clip, by "{video}_{clip}"; all float32 (3, T, H, W) in [-1, 1]."""
    clips = {name: RealClip([real], features) for name, real in reals.items()}
    return {f"{who}_{name}": svfid(clip, [made]).mean for name, clip in clips.items() for who, made in videos.items()}


# -- tables


@dataclass(frozen=True)
class Table:
    """columns: their heads; the first column holds the rows' names."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]

    def markdown(self) -> str:
        """With one digit after the point, as in the paper."""
        cells = [self.columns, *([c if isinstance(c, str) else f"{c:.1f}" for c in row] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        head, *body = ("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |" for row in cells)
        rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
        return "\n".join([self.title, "", head, rule, *body, ""])

    def csv(self) -> bytes:
        """With all digits."""
        text = io.StringIO()
        csv.writer(text).writerows([self.columns, *self.rows])
        return text.getvalue().encode()


def table_of_svfid(name: str, features: str, count: int, means: Mapping[str, float]) -> Table:
    """Table 1. means: SVFID by baseline_nn1, ours_nn1, baseline_nn2, ours_nn2."""
    title = f"Table 1. Mean SVFID of {count} samples to their 1st and 2nd nearest neighbour; lower is closer"
    measured = {f"svfid_{features} {nn}": (means[f"baseline_{nn}"], means[f"ours_{nn}"]) for nn in ("nn1", "nn2")}
    return _table(title, name, measured, ("nn1", "nn2"))


def table_of_fid(name: str, features: str, count: int, fids: Mapping[str, float]) -> Table:
    """Table 2. fids: by baseline, ours."""
    title = f"Table 2. FID of the {count} samples to the test set; lower is closer"
    return _table(title, name, {f"fid_{features}": (fids["baseline"], fids["ours"])}, ("fid",))


def _table(title: str, name: str, measured: Mapping[str, tuple[float, float]], kinds: tuple[str, ...]) -> Table:
    """The columns measured, and the paper's: of the method called `name`, or of all where it has none of that name."""
    known = [paper for paper in PAPER if _plain(paper) == _plain(name)] or list(PAPER)
    papers = {f"paper's {paper} {kind}": PAPER[paper][kind] for paper in known for kind in kinds}
    columns = {**measured, **papers}
    baseline, ours = zip(*columns.values())
    return Table(title, ("", *columns), ((name, *baseline), ("ours", *ours)))


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def write_tables(
    stem: Path,
    name: str,
    features: str,
    rows: Sequence[Row],
    test_set: np.ndarray,
    seed: int,
    notes: Sequence[str],
    failures: Sequence[str],
) -> str:
    """Both tables and the notes below them, as files that begin with `stem`: .md, .json, _table1.csv and _table2.csv.

    Args:
        name: of the baseline.
        rows: two or more.
        test_set: (m, D) vectors.
        seed: of the FID.

    Returns: the page in .md. Raises StorageError.
    """
    means = {key: float(np.mean([row.scores[key] for row in rows])) for key in rows[0].scores}
    a_trial = min(DRAWN, len(rows), *test_set.shape)
    sets = {"baseline": [row.baseline for row in rows], "ours": [row.ours for row in rows]}
    fids = {
        who: fid(np.stack(vectors), test_set, trials=TRIALS, drawn=a_trial, seed=seed).mean
        for who, vectors in sets.items()
    }
    notes = [
        *notes,
        f"FID: {len(test_set)} clips, {TRIALS} trials of {a_trial} of {test_set.shape[1]} features (50 of 512 in A.3).",
        "The paper's figures are of its C3D features and its samples: figures of others do not compare with them.",
    ]
    tables = table_of_svfid(name, features, len(rows), means), table_of_fid(name, features, len(rows), fids)
    page = "\n".join([*(table.markdown() for table in tables), *(f"- {note}" for note in notes), ""])
    report = {"name": name, "features": features, "seed": seed, "svfid": means, "fid": fids, "paper": PAPER}
    report |= {"notes": notes, "failures": failures, "samples": [row.report() for row in rows]}
    contents = {".md": page.encode(), ".json": json.dumps(report, indent=2).encode() + b"\n"}
    contents |= {f"_table{number}.csv": table.csv() for number, table in enumerate(tables, start=1)}
    for suffix, content in contents.items():
        with replacing(Path(f"{stem}{suffix}")) as file:
            file.write(content)
    return page

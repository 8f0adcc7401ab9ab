"""What MLflow's pages say of an experiment, of the run of a corpus and of that of a clip: Markdown, and names."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from infra import clip_folder
from infra.errors import counted, printable

NOTE = "mlflow.note.content"  # the tag that MLflow shows as a description
NOTE_BYTES = 5000  # of a tag, which every store takes
KIND, TRAINING = "mlflow.experimentKind", "custom_model_development"


# A view of the table of runs that MLflow's pages keep in a tag of the experiment, under a key that an address names.
VIEW, VIEW_KEY = "mlflow.sharedViewState.clips", "clips"
FIRST_SCORES = ("score/svfid_lite0", "score/svfid_lite0_blur", "score/diversity_n10", "score/nn_distance")


def table_of_clips(scores: Sequence[str]) -> str:
    """The view: a row a clip, with these metrics as columns, by the first of which the rows are sorted.

    Sorted by time, MLflow would fold all rows into that of the corpus.
    """
    metrics = [f"metrics.`{name}`" for name in scores]
    return json.dumps(
        {
            "searchFilter": "tags.role != 'corpus'",
            "orderByKey": metrics[0],
            "orderByAsc": True,
            "selectedColumns": [*metrics, "tags.`status`", "tags.`failure`"],
        }
    )


def picture(run_id: str, path: str) -> str:
    """The address of a run's artifact as MLflow's server gives it, from the pages of the server."""
    return f"get-artifact?path={quote(path)}&run_uuid={run_id}"


def of_clip(run_id: str, about: Mapping[str, Any], scores: Mapping[str, float], *, has_sheet: bool) -> str:
    """Of a clip's run.

    Args:
        about: its config.json.
        scores: the final ones, by name; none of a clip that is not done.
    """
    frames, height, width = about["clip_size_thw"]
    what = "1 image" if frames == 1 else counted(about.get("chunks", 1) * frames, "frame")
    words = " · ".join(f"{name} **{value:.4g}**" for name, value in scores.items())
    lines = [f"**{_text(about.get('title', about['clip_id']))}**: {what} of {height}×{width} px (H×W). {words}", ""]
    if has_sheet:
        sheet = picture(run_id, f"{clip_folder.SAMPLES}/{clip_folder.SHEET}")
        lines += [f"![real, reconstruction, samples]({sheet})", ""]
    where = "Samples are in `samples/` of the artifacts; the checkpoint is the logged model."
    lines.append(f"Source: {_code(about['source'])}. {where}")
    return cut("\n".join(lines))


def of_corpus(run_id: str, about: Mapping[str, str], links: Mapping[str, str], picture_name: str) -> str:
    """Of the run of a corpus or a sweep, and of the experiment.

    Args:
        about: corpus, preset, command …, in words.
        links: text → address.
        picture_name: of an artifact of the run; "" for none.
    """
    lines = [f"- {name}: {_code(value)}" for name, value in about.items() if value]
    lines += [f"- [{text}]({address})" for text, address in links.items()]
    if picture_name:
        lines += ["", f"![{picture_name}]({picture(run_id, picture_name)})"]
    return cut("\n".join(lines))


def cut(text: str) -> str:
    """A tag's text, no longer than stores take, cut between lines."""
    lines: Sequence[str] = text.splitlines()
    while len("\n".join(lines).encode()) > NOTE_BYTES:
        lines = [*lines[:-2], "…"] if len(lines) > 2 else [lines[0][: NOTE_BYTES // 8]]
    return "\n".join(lines)


def _code(text: str) -> str:
    """A code span of any text, which stays as it is: its fence is longer than the backticks in it."""
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text[:1] in ("`", " ") or text[-1:] in ("`", " ") else ""
    return f"{fence}{space}{text}{space}{fence}"


def _text(text: str) -> str:
    """Any text, as in bold: nothing in it is Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]~|])", r"\\\1", html.escape(printable(text).strip(), quote=False))

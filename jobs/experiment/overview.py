"""What an experiment looks like at a glance: corpus.png in its folder, which MLflow's pages show too."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from infra import clip_folder
from infra.errors import StorageError
from jobs.experiment.experiment import Experiment
from jobs.reports.pictures import png_bytes, stacked

CORPUS_PICTURE = "corpus.png"
SHOWN_CLIPS = 8


def corpus_picture(experiment: Experiment, clip_ids: Sequence[str], done: int) -> bytes | None:
    """The sheets of the first clips below each other, as PNG, left in the experiment's folder; None where none has one.

    Args: clip_ids: the first clips that are done. done: how many there are.
    """
    names = {f"{clip_id}/{clip_folder.SAMPLES}/{clip_folder.SHEET}": clip_id for clip_id in clip_ids[:SHOWN_CLIPS]}
    sheets: dict[str, np.ndarray] = {}
    for name, content in experiment.store.read(names).items():
        # Whatever Pillow says of a damaged file, the others are shown.
        with contextlib.suppress(Exception), Image.open(io.BytesIO(content)) as picture:
            sheets[names[name]] = np.asarray(picture.convert("RGB"))
    if not sheets:
        return None
    more = done - len(sheets)
    picture = png_bytes(stacked(sheets, f"and {more} more" if more else ""))
    with contextlib.suppress(StorageError):
        experiment.write(CORPUS_PICTURE, picture)
    return picture

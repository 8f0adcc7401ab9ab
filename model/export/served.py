"""A packed model at work: `predict({"seed": 0, "n": 2})` → videos, the same as those of `sample.py`.

A model that leaves this project is a folder of data and a copy of the code that it needs, this file among it
(`packed.py`). MLflow calls `_load_pyfunc`; nothing here needs MLflow.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model import checkpoint
from model.device import best_device
from model.pyramid import ScaleSize, to_frames, training_pyramids
from model.sampling.sampler import NetworkSampler, Sampler, check_sample, is_finished, sampler_of, whole_videos

CHECKPOINT, CLIP, ABOUT = "checkpoint.pt", "clip.npy", "about.json"  # in the folder of data
MOST = 1000  # samples of one request


class Served:
    """A model and, where its videos are made of the clip's patches too, its clip."""

    def __init__(self, folder: Path) -> None:
        saved = checkpoint.load(folder / CHECKPOINT)
        about = json.loads((folder / ABOUT).read_text())
        self._dims, self._device = saved.config.dims, best_device()
        stack = saved.stack()
        stack = stack.to(self._device) if stack else None
        self._finished = is_finished(saved.config, stack)
        self._sampler: Sampler
        if self._finished:
            sizes = [ScaleSize(*size) for size in saved.sizes]
            clip = training_pyramids(list(np.load(folder / CLIP, allow_pickle=False)), saved.config, sizes)
            self._sampler = sampler_of(saved.config, stack, clip, self._device)
        else:
            assert stack is not None
            self._sampler = NetworkSampler(stack, latent_frames=about["latent_frames"])

    def predict(self, model_input: Any, params: Any = None) -> np.ndarray:
        """Samples 0 … n - 1 of each row's seed, one row after the other.

        Args: model_input: a row, or a table of rows: seed from 0, which is the default; n, 1 by default; size, such as
            13x96x170, of images 96x170, by default the clip's. A table without rows is one row of defaults.

        Returns uint8 (N, T, H, W, 3) RGB, of images (N, H, W, 3). Raises ValueError, one line, for what cannot be.
        """
        made = [video for row in _rows(model_input) for video in self._samples(row)]
        if len({video.shape for video in made}) != 1:
            raise ValueError("rows of different sizes are different arrays; ask for one size at a time")
        return np.stack(made)

    def _samples(self, row: Mapping[str, Any]) -> Iterable[np.ndarray]:
        seed, n = _whole(row, "seed", 0, 2**63 - 1), _whole(row, "n", 1, MOST)
        sizes = self._sampler.ladder_to(self._size(row.get("size")))
        check_sample(self._sampler, sizes, self._device)
        for made in whole_videos(self._sampler, sizes, seed, range(n)):
            video = to_frames(made[0].numpy())
            yield video[0] if self._dims == 2 else video

    def _size(self, text: Any) -> ScaleSize:
        if _is_missing(text):
            return self._sampler.size
        found = re.fullmatch("(?:([0-9]{1,18})[x×])?([0-9]{1,18})[x×]([0-9]{1,18})", str(text))
        if not found or (found[1] is None and self._dims == 3):
            raise ValueError(f"size={text}: write 13x96x170 (frames, height, width), of images 96x170")
        return ScaleSize(int(found[1] or 1), int(found[2]), int(found[3]))


def _rows(given: Any) -> list[Mapping[str, Any]]:
    """Of a table of pandas, of one row, or of several. Raises ValueError for what is none of them."""
    if hasattr(given, "to_dict") and not isinstance(given, Mapping):
        given = given.to_dict("records") or [{}]  # of {} MLflow makes a table without rows
    rows = [given] if isinstance(given, Mapping) else given
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError('give {"seed": 0, "n": 2}, or a table with these columns')
    return rows


def _whole(row: Mapping[str, Any], name: str, default: int, most: int) -> int:
    """A number of a row: `default`, which is the least that it may be, where it has none."""
    value = row.get(name)
    if _is_missing(value):
        return default
    if not isinstance(value, int | float | np.integer | np.floating) or value != int(value):
        raise ValueError(f"{name}={value}: a whole number")
    if not default <= value <= most:
        raise ValueError(f"{name}={value}: from {default} to {most}")
    return int(value)


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _load_pyfunc(path: str) -> Served:
    """What MLflow calls. path: of the folder of data."""
    return Served(Path(path))

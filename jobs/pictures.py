"""The picture a person looks at first: real | reconstruction | samples, as rows of frames."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

TILE_HEIGHT = 96  # px at least; smaller frames are enlarged by whole pixels so that what was computed is seen
HEADER = 14  # px of the line of labels
SHOWN_SAMPLES = 4


def to_frames(video_cthw: np.ndarray) -> np.ndarray:
    """float (3, T, H, W) in [-1, 1] → uint8 (T, H, W, 3) in [0, 255], rounded; values outside are clipped."""
    scaled = (np.clip(video_cthw, -1, 1) + 1) * 127.5
    return np.ascontiguousarray(np.rint(scaled).astype(np.uint8).transpose(1, 2, 3, 0))


def sheet(real: np.ndarray, reconstruction: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """One picture of a scale: columns real, reconstruction, samples; rows first, middle and last frame.

    Args: real, reconstruction: float (3, T, H, W) in [-1, 1]; samples: (N, 3, T, H, W), the first four are shown.
    Returns uint8 (H', W', 3).
    """
    videos = [real, reconstruction, *samples[:SHOWN_SAMPLES]]
    labels = ["real", "reconstruction", *(f"sample {i}" for i in range(len(videos) - 2))]
    _, frames, height, width = real.shape
    zoom = max(1, -(-TILE_HEIGHT // height))
    columns = []
    for video in videos:
        shown = to_frames(video)[[0, frames // 2, frames - 1]]
        columns.append(np.concatenate([np.pad(frame, ((1, 1), (1, 1), (0, 0))) for frame in shown]))
    picture = np.concatenate(columns, axis=1).repeat(zoom, axis=0).repeat(zoom, axis=1)
    page = Image.new("RGB", (picture.shape[1], picture.shape[0] + HEADER))
    page.paste(Image.fromarray(picture), (0, HEADER))
    draw = ImageDraw.Draw(page)
    for column, label in enumerate(labels):
        draw.text((column * (width + 2) * zoom + 3, 1), label, fill=(255, 255, 255))
    return np.asarray(page)

"""Folders of videos, and whole videos: samples that another program wrote, and what they are held against."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from infra.errors import UsageError
from jobs.experiment.corpus import FPS
from model.pyramid import to_video
from pipeline import image, video
from pipeline.sources import Failure, Video, expand

# By their names without suffix: what lies beside the samples of a trained clip, and of jobs/sample.py.
NO_SAMPLE = re.compile(
    r"real|reconstruction|side_by_side|diversity|(sheet|compare)(_(.+_)?seed\d+.*)?|(scale|plain|nnf)_.*"
)


def list_videos(folder: str) -> tuple[list[Video], list[str]]:
    """The videos of a folder, sorted, with absolute paths; and what is none of them, a line each.

    Raises UsageError for what is no folder or holds no video.
    """
    if not os.path.isdir(folder):
        raise UsageError(f"{folder}: no such folder; give a folder of videos")
    found = list(expand(os.path.abspath(folder)))
    videos = [item for item in found if isinstance(item, Video)]
    failures = [item.reason for item in found if isinstance(item, Failure)]
    if not videos:
        raise UsageError("; ".join(failures[:1]) or f"{folder}: holds no video")
    return videos, failures


def list_samples(videos: Sequence[Video]) -> list[Video]:
    """Those that are samples: one of files that differ in their ending only, as the .mp4 and .gif of jobs/sample.py.

    What lies beside the samples of a trained clip, such as `real`, is none; nor are sheets and comparisons.
    """
    by_stem: dict[str, Video] = {}
    for found in sorted(videos, key=lambda found: (found.path.lower().endswith(".gif"), found.path)):
        path = Path(found.path)
        if path.is_dir():  # of frames
            by_stem[found.path] = found
        elif not NO_SAMPLE.fullmatch(path.stem):
            by_stem.setdefault(str(path.with_suffix("")), found)
    return sorted(by_stem.values(), key=lambda found: found.path)


def list_images(folder: Path) -> list[str]:
    """The images in a folder and those below, sorted; without what lies beside the samples of a trained clip."""
    return sorted(
        str(path) for path in folder.rglob("*") if image.is_image(path) and not NO_SAMPLE.fullmatch(path.stem)
    )


def read_whole(path: str, max_height: int | None = None) -> np.ndarray:
    """All frames of a video at its own mean speed, float32 (3, T, H, W) in [-1, 1]. Raises VideoError.

    Args: max_height: px; a higher video is shrunk to it.
    """
    return to_video(video.decode(path, fps=video.probe(path).fps or FPS, max_height=max_height))

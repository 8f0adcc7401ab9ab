"""Experiments without a training: the files that jobs/README.md lists under "What lies in storage", written by hand.

The samples are the demo clips, moved about: they look like what people see, and each file is another one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model.presets import PRESETS
from pipeline import video
from pipeline.sources import demo_sources

FRAMES, HEIGHT, WIDTH = 13, 54, 96


@cache
def demo_frames(which: int) -> np.ndarray:
    """uint8 (13, 54, 96, 3): of one of the demo clips, or of a part of one."""
    sources = demo_sources()
    start = which // len(sources) * FRAMES
    frames = video.decode(sources[which % len(sources)], start_frame=start, num_frames=FRAMES, max_height=4 * HEIGHT)
    return np.stack([np.asarray(Image.fromarray(frame).resize((WIDTH, HEIGHT))) for frame in frames])


@cache
def encoded(which: int, shift: int, folder: Path) -> bytes:
    """An mp4 of the clip, moved to the side by `shift` px. folder: for its file."""
    path = folder / f"{which}-{shift}.mp4"
    video.encode(np.roll(demo_frames(which), shift, axis=2), path)
    return path.read_bytes()


def distinct(mp4: bytes, number: int) -> bytes:
    """The same video in a file of its own: players pass over a box that is free."""
    return mp4 + b"\x00\x00\x00\x10free" + number.to_bytes(8, "big")


def write_experiment(folder: Path, clip_ids: Sequence[str], **submission: Any) -> Path:
    """experiment.json and submission.json. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.json").write_text(json.dumps(PRESETS["demo"]().to_dict()))
    told = {"corpus": "demo", "preset": "demo", "clip_ids": list(clip_ids), "failures": []} | submission
    (folder / "submission.json").write_text(json.dumps(told))
    return folder


def write_config(clip: Path, *, source: str = "clip.mp4", size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """config.json of a clip's folder."""
    clip.mkdir(parents=True, exist_ok=True)
    config = {
        "clip_id": clip.name,
        "source": source,
        "sizes_thw": [[4, 15, 27], [FRAMES, *size]],
        "config": PRESETS["demo"]().to_dict(),
        "precision_used": "float32",
        "device": "cpu",
    }
    (clip / "config.json").write_text(json.dumps(config))


def write_result(clip: Path, status: str = "done", reason: str = "", **figures: float | str) -> None:
    """result.json and, where it is done, metrics.json."""
    clip.mkdir(parents=True, exist_ok=True)
    result = {"clip_id": clip.name, "status": status, "reason": reason, **figures}
    (clip / "result.json").write_text(json.dumps(result))
    if status == "done":
        metrics = {name: value for name, value in figures.items() if name not in ("minutes", "warning")}
        (clip / "metrics.json").write_text(json.dumps(metrics | {"num_samples": 10, "seed": 1}))


def write_videos(clip: Path, real: bytes, samples: Sequence[bytes], plain: Sequence[bytes] = ()) -> None:
    """The folder samples/ of a clip of a video. Its reconstruction is the clip."""
    folder = clip / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "real.mp4").write_bytes(real)
    (folder / "real.gif").write_bytes(b"never shown")
    (folder / "reconstruction.mp4").write_bytes(distinct(real, 0))
    for kind, files in (("sample", samples), ("plain", plain)):
        for place, content in enumerate(files):
            (folder / f"{kind}_{place:02d}.mp4").write_bytes(content)


def write_picture(path: Path, height: int = 400, width: int = 700, seed: int = 0) -> None:
    """A PNG of noise in large pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (height // 10, width // 10, 3), np.uint8)
    Image.fromarray(noise.repeat(10, axis=0).repeat(10, axis=1)).save(path)


def write_corpus(folder: Path, clips: int, samples: int, scratch: Path, *, seed: int = 0) -> Path:
    """An experiment whose clips are all done: no two files are alike. Returns its folder."""
    random = np.random.default_rng(seed)
    clip_ids = [f"{('bikes', 'bunny', 'carphone')[i % 3]}-{i:03d}-000000" for i in range(clips)]
    write_experiment(folder, clip_ids)
    for number, clip_id in enumerate(clip_ids):
        clip, which = folder / clip_id, number % 3
        write_config(clip, source=f"{clip_id}.mp4")
        videos = [
            distinct(encoded(which, 16 * (place % 2) + 16, scratch), random.integers(1 << 60).item())
            for place in range(samples + 4)
        ]
        write_videos(clip, distinct(encoded(which, 0, scratch), number), videos[:samples], videos[samples:])
        for name, height in (("diversity", 400), ("nnf_00", 300)):
            write_picture(clip / "samples" / f"{name}.png", height, seed=random.integers(1 << 30).item())
        figures = {
            "svfid_lite0": 40 + 120 * random.random(),
            "svfid_lite0_blur": 300 + 200 * random.random(),
            "diversity_n10": random.random(),
            "nn_distance": 0.05 * random.random(),
            "nnfdiv": random.random() / 2,
            "coherence": random.random(),
        }
        write_result(clip, minutes=0.3 + random.random(), **figures)
    shutil.rmtree(folder / "gallery.media", ignore_errors=True)
    return folder

"""One clip's samples from a checkpoint, or from a folder of videos, to a row of the table and pictures in the store."""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from infra.errors import UsageError, one_line, printable
from infra.store import Store
from jobs import sample as sampling
from jobs.evaluation.table import Row
from jobs.experiment.corpus import FPS, max_height, samples_of
from jobs.reports.pictures import field_sheet, spread_sheet
from model import pyramid
from model.device import best_device
from model.metrics.features import VideoFeatures
from model.metrics.scores import measure, nn_seconds
from model.metrics.svfid import RealClip
from model.patches.search import PATCH
from model.pyramid import to_frames
from model.sampling.sample import frames_per_second, sample
from pipeline import sources, video

if TYPE_CHECKING:
    from pipeline.shards import ShardEntry

NN_SAMPLES, NN_PATIENCE_S = 2, 120.0
SHOWN = 3  # samples in diversity.png


@dataclass(frozen=True)
class Wanted:
    """What is to be made of a clip's samples."""

    out: Store  # a folder a clip in it
    n: int
    seed: int
    nn: int | None  # samples whose nearest neighbours are searched; None: NN_SAMPLES if that is soon done
    keep: bool


@dataclass(frozen=True)
class Work:
    """A clip to score. Its frames are those of `entries`, one a chunk, or the first ones of the video `real`."""

    clip_id: str
    checkpoint: str  # path or URI
    entries: tuple[ShardEntry, ...] = ()
    real: str | None = None
    reason: str = ""  # why it cannot be scored


def score_clip(work: Work, chunks: Sequence[np.ndarray], features: VideoFeatures, wanted: Wanted) -> Row:
    """The body of a Ray task; whatever goes wrong becomes the row's complaint.

    Args: chunks: of `work.entries`, uint8 (T, H, W, 3) each; none to read `work.real`.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # set by Ray to the task's CPUs
    try:
        stack, _ = sampling.load(work.checkpoint, Console(quiet=True))
        if not chunks:
            count, height = stack.config.num_frames, max_height(stack.config)
            chunks = [video.decode(str(work.real), num_frames=count, fps=FPS, max_height=height)]
        scale = stack.num_scales - 1
        stack = stack.to(best_device())
        size = pyramid.ScaleSize(*stack.sizes[scale])
        real = RealClip([pyramid.build(frames, [size])[0] for frames in chunks], features)

        def make(index: int) -> Tensor:
            return sample(stack, 1, wanted.seed, first=index)[0]

        samples = [(f"sample_{index:02d}", partial(make, index)) for index in range(wanted.n)]
        row = _row(work.clip_id, samples, real, wanted, frames_per_second(stack, scale, FPS))
        if row.figures or not row.complaints:
            return row
        return replace(row, complaints=[f"none of {wanted.n} samples can be scored: {row.complaints[0]}"])
    except Exception as error:  # the boundary where a failure becomes data: this clip's, and only its
        told = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
        return Row(work.clip_id, complaints=[told + one_line(error)])


def score_folder(folder: Path, real: str, features: VideoFeatures, wanted: Wanted) -> Row:
    """Score the samples in a folder against the first frames of a real video, which is resized to their size.

    Raises UsageError for a folder without videos, a real video that cannot be used, and an output folder that cannot
    be written.
    """
    if not folder.is_dir():
        raise UsageError(f"--samples {folder}: not a folder; give one with a video for each sample")
    wanted.out.check_writable()
    found = [f for f in sources.expand(str(folder)) if not _is_below(getattr(f, "path", ""), wanted.out)]
    complaints = [f.reason for f in found if isinstance(f, sources.Failure)]
    paths = [f.path for f in samples_of([f for f in found if isinstance(f, sources.Video)])]
    if not paths:
        raise UsageError(f"--samples {complaints[0] if complaints else f'{folder}: holds no video; give another'}")
    by_size: dict[tuple[int, ...], list[str]] = {}  # a header may promise frames that a torn file has not
    for path in paths:
        try:
            by_size.setdefault(tuple(_read(path).shape[1:]), []).append(path)
        except video.VideoError as error:
            complaints.append(one_line(error))
    if not by_size:
        return Row(printable(folder.resolve().name), complaints=complaints)
    size = pyramid.ScaleSize(*max(by_size, key=lambda size: (len(by_size[size]), size)))
    readable = {path for same in by_size.values() for path in same}
    try:
        frames = video.decode(real, num_frames=size.frames, fps=FPS)
    except video.VideoError as error:
        raise UsageError(f"--real {one_line(error)}") from error
    try:
        clip = RealClip(pyramid.build(frames, [size]), features)
    except ValueError as error:  # by their size: the real one's is that of the samples
        told = f"samples of {size.frames}×{size.height}×{size.width} (T×H×W) cannot be scored ({one_line(error)})"
        raise UsageError(f"--samples {folder}: {told}; give longer or larger ones, or other --features") from error
    samples = [(printable(path), partial(_read, path)) for path in paths if path in readable]
    row = _row(folder.resolve().name, samples, clip, wanted, FPS)
    return replace(row, complaints=[*complaints, *row.complaints])


def _read(path: str) -> Tensor:
    """The whole video at its own mean speed, float32 (3, T, H, W) in [-1, 1]. Raises VideoError."""
    return torch.from_numpy(pyramid.to_video(video.decode(path, fps=video.probe(path).fps or FPS)))


def _row(
    name: str, samples: Sequence[tuple[str, Callable[[], Tensor]]], real: RealClip, wanted: Wanted, fps: float
) -> Row:
    """Score the samples and draw them."""
    files: dict[str, bytes] = {}

    def keep(index: int, made: Tensor) -> None:
        if not wanted.keep:
            return
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / f"sample_{index:02d}.mp4"
            video.encode(to_frames(made.numpy()), path, fps=fps)
            wanted.out.write(f"{name}/{path.name}", path.read_bytes())

    nn = wanted.nn
    if nn is None:
        soon = len(real.chunks) * nn_seconds(*real.video.shape[1:]) <= NN_PATIENCE_S
        nn = NN_SAMPLES if soon and min(real.video.shape[1:]) >= PATCH else 0
    measured = measure(samples, real, nn=nn, shown=SHOWN, each=keep)
    for index, (made, chunk, field) in enumerate(measured.fields):
        files[f"nnf_{index:02d}.png"] = _png(field_sheet(made.numpy(), np.asarray(chunk), field))
    if measured.spread is not None:
        first = [made.numpy() for made in measured.shown]
        files["diversity.png"] = _png(spread_sheet(first, np.asarray(real.video), measured.spread))
    for stale in {f for f in wanted.out.names(name) if re.fullmatch(r"nnf_\d+\.png", f)} - files.keys():
        wanted.out.remove(f"{name}/{stale}")
    for file, content in files.items():
        wanted.out.write(f"{name}/{file}", content)
    return Row(printable(name), measured.figures, measured.complaints, tuple(files))


def _png(picture: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()


def _is_below(path: str, out: Store) -> bool:
    return out.is_local and Path(path).resolve().is_relative_to(out.path)

"""One clip's samples from a checkpoint, or from a folder of videos, to its scores and pictures in the store."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from infra.errors import Refusal, UsageError, counted, one_line, printable, reason
from infra.store import Store
from jobs.evaluation import kept_scores
from jobs.evaluation.sample_folder import list_images, list_samples, read_whole
from jobs.evaluation.table import ScoredClip
from jobs.experiment.corpus import FPS
from jobs.experiment.models import frames_of_folder, frames_of_real
from jobs.reports.pictures import field_sheet, png_bytes, spread_sheet
from model.config import Method, Precision
from model.device import best_device, use_assigned_threads
from model.loading import load
from model.metrics.features import VideoFeatures
from model.metrics.option import features_for
from model.metrics.scores import measure, nn_seconds
from model.metrics.svfid import RealClip
from model.patches.field import fits
from model.patches.search import patch_sides
from model.pyramid import ScaleSize, build, to_frames, to_video
from model.sampling.sample import frames_per_second
from model.sampling.sampler import random_videos
from pipeline import image, sources, video
from pipeline.shards import ShardEntry

NN_SAMPLES, NN_PATIENCE_S = 2, 120.0
NOWHERE = Store("")
PICTURED = 3  # samples in diversity.png


@dataclass(frozen=True)
class ScoringOptions:
    """How a clip's samples are scored, and what is kept of them."""

    out: Store  # a folder a clip in it
    num_samples: int
    seed: int
    nn: int | None  # samples whose nearest neighbours are searched; None: NN_SAMPLES if that is soon done
    precision: Precision | None  # None: as in the training
    latent_frames: int | None  # of z; None: as in the training
    keep: bool


@dataclass(frozen=True)
class ScoringTask:
    """A clip to score. Its frames are those of `chunks`, or the first ones of the video `real`."""

    clip_id: str
    checkpoint: str  # path or URI
    chunks: tuple[ShardEntry, ...] = ()
    real: str | None = None
    all_chunks: bool = False  # whether its videos are made of all chunks, and not only scored against some
    method: Method | None = None  # in place of the checkpoint's own
    reason: str = ""  # why it cannot be scored

    @property
    def row(self) -> str:
        """The name of its row, and of its folder of pictures."""
        return f"{self.clip_id}--{self.method}" if self.method else self.clip_id

    def unscored(self, complaint: str) -> ScoredClip:
        """Its row where it could not be scored, and why in one line."""
        return ScoredClip(self.clip_id, method=self.method or "", complaints=[complaint])


def score_clip(
    task: ScoringTask, chunks: Sequence[np.ndarray], features: VideoFeatures, options: ScoringOptions
) -> ScoredClip:
    """The body of a Ray task; whatever goes wrong becomes the row's complaint. What was scored before is read.

    Args: chunks: of `task.chunks`, uint8 (T, H, W, 3) each; none to read `task.real`.
    """
    use_assigned_threads()
    try:
        loaded = load(task.checkpoint, precision=options.precision, latent_frames=options.latent_frames)
        if task.method:
            loaded = loaded.rival(task.method)
        config = loaded.config
        if not chunks:
            chunks = frames_of_real(str(task.real), config)
        elif loaded.needs_clip and not task.method and loaded.name != task.clip_id:
            raise Refusal(f"{task.checkpoint}: is of the clip {loaded.name}; give the folder of that clip, or --real")
        digest = kept_scores.made_of(loaded, chunks, f"{features.name} {replace(options, out=NOWHERE)}")
        if not options.keep and (kept := kept_scores.read(options.out, task.row, digest)):
            return kept
        sampler = loaded.sampler(chunks, best_device())
        real = loaded.real_clip(chunks, features)

        def make(index: int) -> Tensor:
            return random_videos(sampler, 1, options.seed, first=index)[0]

        samples = [(f"sample_{index:02d}", partial(make, index)) for index in range(options.num_samples)]
        row = _score(task.row, samples, real, options, frames_per_second(config, sampler.size.frames))
        row = replace(row, clip_id=printable(task.clip_id), method=task.method or "")
        if row.scores or not row.complaints:
            kept_scores.write(options.out, task.row, digest, row)
            return row
        return replace(
            row, complaints=[f"none of {counted(options.num_samples, 'sample')} can be scored: {row.complaints[0]}"]
        )
    except Exception as error:  # the boundary where a failure becomes data: this clip's, and only its
        return task.unscored(reason(error))


def score_folder(folder: Path, real: str, features: VideoFeatures, options: ScoringOptions) -> ScoredClip:
    """Score the samples in a folder against the first frames of a real video, or of a trained clip by its folder, which
    are resized to their size; against an image, the images in the folder.

    Raises UsageError for a folder without samples, a real video that cannot be used, and an output folder that cannot
    be written.
    """
    of_folder = frames_of_folder(real)
    of_image = image.is_image(real) if of_folder is None else len(of_folder[0]) == 1
    of = "image" if of_image else "video"
    if not folder.is_dir():
        raise UsageError(
            f"--samples {folder}: not a folder; give one with {'an' if of_image else 'a'} {of} for each sample"
        )
    options.out.check_writable()
    complaints: list[str] = []
    if of_image:
        paths, read = [path for path in list_images(folder) if not _is_below(path, options.out)], _read_image
    else:
        found = [f for f in sources.expand(str(folder)) if not _is_below(getattr(f, "path", ""), options.out)]
        complaints = [f.reason for f in found if isinstance(f, sources.Failure)]
        paths, read = [f.path for f in list_samples([f for f in found if isinstance(f, sources.Video)])], _read
    if not paths:
        raise UsageError(f"--samples {complaints[0] if complaints else f'{folder}: holds no {of}; give another'}")
    by_size: dict[tuple[int, ...], list[str]] = {}  # a header may promise frames that a torn file has not
    for path in paths:
        try:
            by_size.setdefault(tuple(read(path).shape[1:]), []).append(path)
        except video.VideoError as error:
            complaints.append(one_line(error))
    if not by_size:
        return ScoredClip(printable(folder.resolve().name), complaints=complaints)
    size = ScaleSize(*max(by_size, key=lambda size: (len(by_size[size]), size)))
    readable = {path for same in by_size.values() for path in same}
    try:
        frames = _first_frames(real, size.frames, of_image) if of_folder is None else of_folder[0][: size.frames]
    except video.VideoError as error:
        raise UsageError(f"--real {one_line(error)}") from error
    try:
        clip = RealClip(build(frames, [size]), features_for(2 if of_image else 3, features))
    except ValueError as error:  # by their size: the real one's is that of the samples
        cause = f"samples of {size} (T×H×W) cannot be scored ({one_line(error)})"
        raise UsageError(f"--samples {folder}: {cause}; give longer or larger ones, or other --features") from error
    samples = [(printable(path), partial(read, path)) for path in paths if path in readable]
    row = _score(folder.resolve().name, samples, clip, options, FPS)
    return replace(row, complaints=[*complaints, *row.complaints])


def _read(path: str) -> Tensor:
    """A whole sample. Raises VideoError."""
    return torch.from_numpy(read_whole(path))


def _read_image(path: str) -> Tensor:
    """A sample that is an image. Raises VideoError."""
    return torch.from_numpy(to_video(image.read(path, None)))


def _score(
    name: str, samples: Sequence[tuple[str, Callable[[], Tensor]]], real: RealClip, options: ScoringOptions, fps: float
) -> ScoredClip:
    """Score the samples and draw them."""
    files: dict[str, bytes] = {}

    def keep(index: int, each: Tensor) -> None:
        if not options.keep:
            return
        frames = to_frames(each.numpy())
        if len(frames) == 1:
            options.out.write(f"{name}/sample_{index:02d}.png", png_bytes(frames[0]))
            return
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / f"sample_{index:02d}.mp4"
            video.encode(frames, path, fps=fps)
            options.out.write(f"{name}/{path.name}", path.read_bytes())

    _, frames, height, width = real.video.shape
    nn = searched(options.nn, len(real.chunks), ScaleSize(frames, height, width))
    measured = measure(samples, real, nn=nn, pictured=PICTURED, each=keep)
    for index, (each, chunk, field) in enumerate(measured.fields):
        files[f"nnf_{index:02d}.png"] = png_bytes(field_sheet(each.numpy(), np.asarray(chunk), field))
    if measured.spread is not None:
        first = [each.numpy() for each in measured.pictured]
        files["diversity.png"] = png_bytes(spread_sheet(first, np.asarray(real.video), measured.spread))
    for stale in {f for f in options.out.names(name) if re.fullmatch(r"nnf_\d+\.png", f)} - files.keys():
        options.out.remove(f"{name}/{stale}")
    for file, content in files.items():
        options.out.write(f"{name}/{file}", content)
    return ScoredClip(printable(name), measured.scores, measured.complaints, tuple(files))


def searched(asked: int | None, chunks: int, size: ScaleSize) -> int:
    """How many samples are searched for nearest neighbours. asked: None for as many as are soon done."""
    if asked is not None:
        return asked
    soon = chunks * nn_seconds(*size) <= NN_PATIENCE_S
    return NN_SAMPLES if soon and fits(size, patch_sides(size)) else 0


def _first_frames(real: str, count: int, of_image: bool) -> np.ndarray:
    """Of --real: an image, or so many frames of a video from where it says. Raises VideoError."""
    if of_image:
        return image.read(real, None)
    path, start_s = sources.split_start(real)
    return video.decode(path, start_frame=round((start_s or 0) * FPS), num_frames=count, fps=FPS)


def _is_below(path: str, out: Store) -> bool:
    return out.is_local and Path(path).resolve().is_relative_to(out.path)

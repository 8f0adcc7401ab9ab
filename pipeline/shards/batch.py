"""Clips into shards, batch by batch: one process decodes a batch, which shares no video and no shard with another.

`in_turn` decodes batches in this process. Others may run `write_batch` in processes of theirs, in any order: the
shards are the same, to the byte.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from infra.errors import printable
from pipeline import image, video
from pipeline.clips import ClipPlan, Failure
from pipeline.shards.shard_file import ShardFile

T = TypeVar("T")
MANY = 3  # clips of one video that cannot be decoded, reported one by one


@dataclass(frozen=True)
class Written:
    """What was written this time."""

    shards: tuple[Path, ...]  # the new ones
    clip_ids: tuple[str, ...]  # the clips in them
    failures: tuple[Failure, ...]
    skipped: int = 0  # clips that finished shards held already
    changed: frozenset[str] = frozenset()  # ids that they hold of another file


@dataclass(frozen=True)
class Batch:
    """Whole videos, or images, that one process decodes into shards of their own. Travels to tasks.

    Attributes:
        numbers: of its shards, ascending, as many as it needs if every clip can be decoded.
        settings: that the sidecars keep: max_height of videos, max_image_height of images, in px.
    """

    clips: tuple[ClipPlan, ...]
    folder: Path
    numbers: tuple[int, ...]
    clips_per_shard: int
    settings: Mapping[str, int]


OnClip = Callable[[str], None]  # called with the id of each clip that is written or failed
Decode = Callable[[Sequence[Batch], OnClip], Iterable[Written]]  # what became of each batch, in their order


def in_turn(batches: Sequence[Batch], on_clip: OnClip) -> Iterator[Written]:
    """Decode one batch after the other in this process."""
    return (write_batch(batch, on_clip) for batch in batches)


def write_batch(batch: Batch, on_clip: OnClip = lambda clip_id: None) -> Written:
    """Decode a batch into its shards, one clip in memory at a time and one pass over each video.

    A clip that cannot be decoded is a Failure and the others go on. Shards of the same numbers are replaced. Raises:
    ShardError where they cannot be written, OSError for a source that is gone; finished shards stay, and no half one.
    """
    (max_height,) = batch.settings.values()
    decoded = _images(batch.clips, max_height) if batch.clips[0].is_image else _videos(batch.clips, max_height)
    numbers = iter(batch.numbers)
    shards: list[Path] = []
    clip_ids: list[str] = []
    failures: list[Failure] = []
    damaged: list[tuple[str, video.Damaged]] = []
    shard: ShardFile | None = None
    try:
        for clip, frames in _ahead(decoded):
            if isinstance(frames, video.Damaged):
                damaged.append((clip.source, frames))
            elif isinstance(frames, video.VideoError):
                failures.append(Failure(clip.source, str(frames)))
            else:
                shard = shard or ShardFile(batch.folder, next(numbers), batch.settings)
                shard.add(clip, frames)
                clip_ids.append(clip.clip_id)
                if len(shard.clips) == batch.clips_per_shard:
                    shards.append(shard.finish())
                    shard = None
            on_clip(clip.clip_id)
        if shard:
            shards.append(shard.finish())
    finally:
        if shard:
            shard.discard()
    return Written(tuple(shards), tuple(clip_ids), (*_first_of_many(failures), *_damages(damaged)))


def _first_of_many(failures: Sequence[Failure]) -> Iterator[Failure]:
    """Each reason once. Of a video with more than MANY, the first and a line on the others."""
    for source, group in groupby(failures, lambda failure: failure.source):
        of_video = list(group)
        if len(reasons := dict.fromkeys(of_video)) <= MANY:
            yield from reasons
        else:
            yield of_video[0]
            yield Failure(source, f"{printable(source)}: nor can {len(of_video) - 1} later clips of it be decoded")


def _damages(found: Sequence[tuple[str, video.Damaged]]) -> Iterator[Failure]:
    """One failure for each damaged part of a video, however many clips it costs."""
    part: list[video.Damaged] = []
    for place, (source, clip) in enumerate(found):
        part.append(clip)
        following = found[place + 1] if place + 1 < len(found) else None
        if following is None or following[0] != source or following[1].start_s > clip.end_s:
            start_s, end_s = part[0].start_s, max(each.end_s for each in part)
            yield Failure(source, str(video.damage(source, start_s, end_s, len(part))))
            part = []


def _videos(clips: Sequence[ClipPlan], max_height: int) -> Iterator[tuple[ClipPlan, "np.ndarray | video.VideoError"]]:
    for (source, num_frames, fps), group in groupby(
        clips, lambda c: (c.source, c.num_frames, None if c.as_is else c.fps)
    ):
        batch = sorted(group, key=lambda clip: clip.start_frame)
        starts = [clip.start_frame for clip in batch]
        decoded = _decoded(source, starts, num_frames=num_frames, fps=fps, max_height=max_height)
        yield from zip(batch, decoded, strict=True)


def _decoded(source: str, starts: Sequence[int], **how: Any) -> Iterator["np.ndarray | video.VideoError"]:
    """The clips that begin at `starts`. In a folder, a frame that is of no use costs only the clips that it is in."""
    while starts:
        for frames in video.decode_each(source, starts, **how):
            starts = starts[1:]
            yield frames
            if isinstance(frames, video.VideoError) and os.path.isdir(source):
                break  # and begin anew behind it


def _images(clips: Sequence[ClipPlan], max_height: int) -> Iterator[tuple[ClipPlan, "np.ndarray | video.VideoError"]]:
    for clip in clips:
        try:
            yield clip, image.read(clip.source, max_height)
        except video.VideoError as error:
            yield clip, error


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same; each is made by another thread while the one before is used: ffmpeg decodes while a clip is written."""
    end: Any = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item

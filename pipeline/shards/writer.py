"""Clips in webdataset tars: 000000.tar with {clip_id}.frames.npy and {clip_id}.json; a sidecar 000000.json.

A shard is finished when its sidecar is there, which is written last; whatever else lies in the folder does
not count. Written here with webdataset, and readable by it; read by pipeline/shards/reader.py.
"""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from infra.errors import cannot_write, printable
from infra.files import commit, sha256_of
from pipeline import image, video
from pipeline.clips import ClipPlan, Failure
from pipeline.shards.reader import ShardError, sidecars

T = TypeVar("T")
MANY = 3  # clips of one video that cannot be decoded, reported one by one
_CUT_KEYS = ("num_frames", "fps", "start_frame", "as_is", "source_bytes")  # what an id stands for in a folder of shards


@dataclass(frozen=True)
class Written:
    """What `write` did this time."""

    shards: tuple[Path, ...]  # the new ones
    clip_ids: tuple[str, ...]  # the clips in them
    failures: tuple[Failure, ...]
    skipped: int  # clips that finished shards held already


def _ignore(_clip_id: str) -> None:
    pass


def write(
    clips: Sequence[ClipPlan],
    out_dir: str | os.PathLike[str],
    *,
    max_height: int = 256,
    max_image_height: int = 256,
    clips_per_shard: int = 64,
    on_clip: Callable[[str], None] = _ignore,
) -> Written:
    """Decode clips into shards in `out_dir`, one clip in memory at a time and one pass over each video.

    Clips that finished shards hold are left as they are; new ones go to new shard numbers, so running the
    same command again does what is missing. Images go to shards of their own.

    Args:
        max_height: px; higher videos are shrunk to it.
        max_image_height: px; higher images are shrunk to it.
        on_clip: called with each clip's id when it is written, failed, or found to be there.

    A clip that cannot be decoded is a Failure and the others go on. Raises: ShardError when the folder holds
    a damaged shard or shards made with other settings, or cannot be written: finished shards are then as they
    were, and no half one is left; ValueError for numbers out of range; OSError for a source that is gone.
    """
    if min(max_height, max_image_height, clips_per_shard) < 1:
        given = f"{max_height}, {max_image_height}, {clips_per_shard}"
        raise ValueError(f"max_height, max_image_height and clips_per_shard must be positive, got {given}")
    out_dir = Path(out_dir)
    with shard_errors(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
    finished = sidecars(out_dir)
    of_videos, of_images = {"max_height": max_height}, {"max_image_height": max_image_height}
    missing = _missing(clips, finished, (of_videos, of_images))
    wanted = set(missing)
    for clip in clips:
        if clip not in wanted:
            on_clip(clip.clip_id)
    number = 1 + max((int(path.stem) for path in finished), default=-1)
    shards: list[Path] = []
    clip_ids: list[str] = []
    failures: list[Failure] = []
    damaged: list[tuple[str, video.Damaged]] = []
    for settings, decoded in (
        (of_videos, _decoded([clip for clip in missing if not clip.is_image], max_height)),
        (of_images, _images([clip for clip in missing if clip.is_image], max_image_height)),
    ):
        shard = _ShardFile(out_dir, number + len(shards), settings)
        try:
            for clip, frames in _ahead(decoded):
                if isinstance(frames, video.Damaged):
                    damaged.append((clip.source, frames))
                elif isinstance(frames, video.VideoError):
                    failures.append(Failure(clip.source, str(frames)))
                else:
                    shard.add(clip, frames)
                    clip_ids.append(clip.clip_id)
                on_clip(clip.clip_id)
                if len(shard.clips) == clips_per_shard:
                    shards.append(shard.finish())
                    shard = _ShardFile(out_dir, number + len(shards), settings)
            if shard.clips:
                shards.append(shard.finish())
        finally:
            shard.discard()
    failures = [*_first_of_many(failures), *_damages(damaged)]
    return Written(tuple(shards), tuple(clip_ids), tuple(failures), len(clips) - len(missing))


def _first_of_many(failures: Sequence[Failure]) -> Iterator[Failure]:
    """Of a video with more than MANY clips that cannot be decoded, the first and a line on the others."""
    for source, group in groupby(failures, lambda failure: failure.source):
        of_video = list(group)
        if len(of_video) <= MANY:
            yield from of_video
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


def _missing(
    clips: Sequence[ClipPlan], finished: Mapping[Path, Mapping[str, Any]], settings: Sequence[Mapping[str, Any]]
) -> list[ClipPlan]:
    there: dict[str, tuple[Any, ...]] = {}
    for path, content in finished.items():
        made_with = content.get("settings")
        if made_with not in settings:
            same_kind = [each for each in settings if isinstance(made_with, dict) and made_with.keys() == each.keys()]
            raise ShardError(
                f"{printable(path)}: was made with {made_with}, not {(same_kind or settings)[0]}; "
                f"give the same settings or another --out"
            )
        there |= {clip["clip_id"]: tuple(clip.get(key) for key in _CUT_KEYS) for clip in content["clips"]}
    for clip in clips:
        now = (clip.num_frames, clip.fps, clip.start_frame, clip.as_is or None, _source_bytes(clip.source))
        if there.get(clip.clip_id, now) != now:
            changes = zip(_CUT_KEYS, there[clip.clip_id], now)
            changed = ", ".join(f"{key} {old} is now {new}" for key, old, new in changes if old != new)
            raise ShardError(f"{clip.clip_id}: is there, cut otherwise ({changed}); use another name or folder for it")
    return [clip for clip in clips if clip.clip_id not in there]


def _source_bytes(source: str) -> int:
    """Size of a video, to notice that another one has taken its name; of a folder of frames, the sum."""
    files = video.frame_files(source) if os.path.isdir(source) else [Path(source)]
    return sum(file.stat().st_size for file in files if os.path.isfile(file))


def _decoded(clips: Sequence[ClipPlan], max_height: int) -> Iterator[tuple[ClipPlan, "np.ndarray | video.VideoError"]]:
    for (source, num_frames, fps), group in groupby(
        clips, lambda c: (c.source, c.num_frames, None if c.as_is else c.fps)
    ):
        batch = sorted(group, key=lambda clip: clip.start_frame)
        starts = [clip.start_frame for clip in batch]
        decoded = video.decode_each(source, starts, num_frames=num_frames, fps=fps, max_height=max_height)
        yield from zip(batch, decoded, strict=True)


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


@contextlib.contextmanager
def shard_errors(path: Path) -> Iterator[None]:
    """Turns the OSError of writing `path` into a ShardError. The body does nothing else with the disk."""
    try:
        yield
    except OSError as error:
        raise ShardError(cannot_write(path, error)) from error


class _ShardFile:
    """A shard being written: under hidden names until `finish` gives it and then its sidecar their own."""

    def __init__(self, folder: Path, number: int, settings: Mapping[str, Any]) -> None:
        self.tar = folder / f"{number:06d}.tar"
        self.sidecar = self.tar.with_suffix(".json")
        self.settings = dict(settings)
        self.clips: list[dict[str, Any]] = []
        # A killed run's leftovers are overwritten.
        self._temporaries = [path.with_name(f".{path.name}.tmp") for path in (self.tar, self.sidecar)]
        self._writer: Any = None
        self._file: Any = None

    def add(self, clip: ClipPlan, frames_thwc: np.ndarray) -> None:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(frames_thwc))
        npy = b"".join([header.getvalue(), np.ascontiguousarray(frames_thwc).data])  # what np.save writes, in one copy
        meta = {
            "clip_id": clip.clip_id,
            "source": Path(clip.source).name,
            "source_bytes": _source_bytes(clip.source),
            "start_frame": clip.start_frame,
            "num_frames": clip.num_frames,
            "fps": clip.fps,
            "height": frames_thwc.shape[1],
            "width": frames_thwc.shape[2],
            "sha256": hashlib.sha256(npy).hexdigest(),
        } | ({"as_is": True} if clip.as_is else {})
        sample = {"__key__": clip.clip_id, "frames.npy": npy, "json": json.dumps(meta).encode()}
        with shard_errors(self.tar):
            if self._writer is None:
                self._open()
            self._writer.write(sample)
        self.clips.append(meta)

    def _open(self) -> None:
        import webdataset

        self._file = open(self._temporaries[0], "wb", buffering=1 << 20)  # noqa: SIM115  closed by finish or discard
        self._writer = webdataset.TarWriter(self._file, mtime=0.0)  # equal clips make equal bytes

    def finish(self) -> Path:
        tar, sidecar = self._temporaries
        with shard_errors(self.tar):
            self._writer.close()
            self._file.close()
            content = {
                "shard": self.tar.name,
                "bytes": tar.stat().st_size,
                "sha256": sha256_of(tar),
                "settings": self.settings,
                "num_clips": len(self.clips),
                "num_frames": sum(clip["num_frames"] for clip in self.clips),
                "clips": self.clips,
            }
            with open(sidecar, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
            commit(tar, self.tar)
            commit(sidecar, self.sidecar)
        return self.tar

    def discard(self) -> None:
        if self._writer is None:
            return
        for half_written in (self._writer, self._file):
            with contextlib.suppress(OSError):  # what could not be written cannot be flushed either
                half_written.close()
        for temporary in self._temporaries:
            with contextlib.suppress(OSError):  # there only if something was raised, which says more
                temporary.unlink(missing_ok=True)

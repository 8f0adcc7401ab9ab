"""Clips in webdataset tars: 000000.tar with {clip_id}.frames.npy and {clip_id}.json; a sidecar 000000.json.

A shard is finished when its sidecar is there, which is written last; whatever else lies in the folder does
not count. Written with webdataset, and readable by it; read here with tarfile, since webdataset's address
parser runs "pipe:" commands and its decoders unpickle. Nothing that is read can run code.
"""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import video
from pipeline.clips import ClipPlan, Failure

_SIDECAR = re.compile(r"\d{6}\.json")
_CLIP_KEYS = {"clip_id", "source", "start_frame", "num_frames", "fps", "height", "width", "sha256"}
_MEMBER = re.compile(r"([a-z0-9_-]{1,80})\.(frames\.npy|json)")


_CUT_KEYS = ("num_frames", "fps", "start_frame", "source_bytes")  # what an id stands for in a folder of shards


class ShardError(ValueError):
    """A shard or a shard folder cannot be used. One line: "<file>: <cause>; <mend>"."""


@dataclass(frozen=True)
class Written:
    """What `write` did this time."""

    shards: tuple[Path, ...]  # the new ones
    clip_ids: tuple[str, ...]  # the clips in them
    failures: tuple[Failure, ...]
    skipped: int  # clips that finished shards held already


@dataclass(frozen=True)
class ShardEntry:
    """Where a clip lies."""

    clip_id: str
    shard: str  # path of the tar
    source: str  # name of the video it was cut from
    height: int  # px
    width: int  # px
    num_frames: int
    fps: float


@dataclass(frozen=True)
class Clip:
    clip_id: str
    frames_thwc: np.ndarray  # (T, H, W, 3) uint8 RGB, C-contiguous
    meta: dict[str, Any]  # clip_id, source, start_frame, num_frames, fps, height (px), width (px), sha256


def _ignore(_clip_id: str) -> None:
    pass


def write(
    clips: Sequence[ClipPlan],
    out_dir: str | os.PathLike[str],
    *,
    max_height: int = 256,
    clips_per_shard: int = 64,
    on_clip: Callable[[str], None] = _ignore,
) -> Written:
    """Decode clips into shards in `out_dir`, one clip in memory at a time and one pass over each video.

    Clips that finished shards hold are left as they are; new ones go to new shard numbers, so running the
    same command again does what is missing.

    Args:
        max_height: px; higher videos are shrunk to it.
        on_clip: called with each clip's id when it is written, failed, or found to be there.

    A clip that cannot be decoded is a Failure and the others go on. Raises: ShardError when the folder holds
    a damaged shard, or shards made with other settings; ValueError for numbers out of range; OSError.
    """
    if max_height < 1 or clips_per_shard < 1:
        raise ValueError(f"max_height and clips_per_shard must be positive, got {max_height}, {clips_per_shard}")
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    sidecars = _sidecars(out_dir)
    missing = _missing(clips, sidecars, {"max_height": max_height})
    wanted = set(missing)
    for clip in clips:
        if clip not in wanted:
            on_clip(clip.clip_id)
    number = 1 + max((int(path.stem) for path in sidecars), default=-1)
    shards: list[Path] = []
    clip_ids: list[str] = []
    failures: list[Failure] = []
    shard = _ShardFile(out_dir, number, {"max_height": max_height})
    try:
        for clip, frames in _decoded(missing, max_height):
            if isinstance(frames, video.VideoError):
                failures.append(Failure(clip.source, str(frames)))
            else:
                shard.add(clip, frames)
                clip_ids.append(clip.clip_id)
            on_clip(clip.clip_id)
            if len(shard.clips) == clips_per_shard:
                shards.append(shard.finish())
                shard = _ShardFile(out_dir, number + len(shards), {"max_height": max_height})
        if shard.clips:
            shards.append(shard.finish())
    finally:
        shard.discard()
    return Written(tuple(shards), tuple(clip_ids), tuple(failures), len(clips) - len(missing))


def is_corpus(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a folder with at least one finished shard."""
    return Path(path).is_dir() and any(_finished(Path(path)))


def index(path: str | os.PathLike[str]) -> tuple[ShardEntry, ...]:
    """Every clip of a shard folder, from its sidecars alone. Raises: ShardError for a damaged shard."""
    return tuple(
        ShardEntry(
            clip_id=clip["clip_id"],
            shard=str(sidecar.with_suffix(".tar")),
            source=clip["source"],
            height=clip["height"],
            width=clip["width"],
            num_frames=clip["num_frames"],
            fps=clip["fps"],
        )
        for sidecar, content in _sidecars(Path(path)).items()
        for clip in content["clips"]
    )


def read(path: str | os.PathLike[str]) -> Iterator[Clip]:
    """All clips of a shard folder, one in memory at a time. Raises: ShardError."""
    return (read_clip(entry) for entry in index(path))


def read_clip(entry: ShardEntry) -> Clip:
    """One clip, checked: names, type, shape and checksum. Raises: ShardError naming the shard."""
    try:
        with tarfile.open(entry.shard, "r:") as tar:
            meta_bytes, frames_bytes = _members(tar, entry)
        meta = json.loads(meta_bytes)
        shape = (meta["num_frames"], meta["height"], meta["width"], 3)
        if meta["clip_id"] != entry.clip_id or any(type(size) is not int or size < 1 for size in shape):
            raise ValueError("its json does not describe the clip")
        if hashlib.sha256(frames_bytes).hexdigest() != meta["sha256"]:
            raise ValueError("its frames are not those that were written (sha256)")
        frames = np.load(io.BytesIO(frames_bytes), allow_pickle=False)
        if frames.dtype != np.uint8 or frames.shape != shape:
            raise ValueError(f"its frames are {frames.dtype} {frames.shape}, not uint8 {shape}")
    except (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, tarfile.TarError) as error:
        cause = f"clip {entry.clip_id} cannot be read ({type(error).__name__}: {error})"
        raise _shard_error(entry.shard, cause) from error
    return Clip(entry.clip_id, np.ascontiguousarray(frames), meta)


def _members(tar: tarfile.TarFile, entry: ShardEntry) -> tuple[bytes, bytes]:
    found: dict[str, bytes] = {}
    for member in tar:
        match = _MEMBER.fullmatch(member.name)
        if not match or not member.isfile():
            raise ValueError(f"it holds {member.name!r}, which is no clip's")
        if match[1] == entry.clip_id:
            file = tar.extractfile(member)
            content = file.read() if file else b""
            if len(content) != member.size or match[2] in found:
                raise ValueError(f"{member.name} is cut off or there twice")
            found[match[2]] = content
    if len(found) < 2:
        raise ValueError(f"it holds {sorted(found) or 'nothing'} of it")
    return found["json"], found["frames.npy"]


def _shard_error(path: str | os.PathLike[str], cause: str) -> ShardError:
    mend = "delete this shard's .tar and .json and run make_shards again"
    return ShardError(f"{video.shown(path)}: {video.shown(cause)}; {mend}")


def _finished(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if _SIDECAR.fullmatch(path.name))


def _sidecars(folder: Path) -> dict[Path, Mapping[str, Any]]:
    """Finished shards in order: path of the sidecar -> its content, its tar's size compared."""
    contents: dict[Path, Mapping[str, Any]] = {}
    for path in sorted(_finished(folder)):
        tar = path.with_suffix(".tar")
        try:
            content = json.loads(path.read_bytes())
            ids = [clip["clip_id"] for clip in content["clips"] if clip.keys() >= _CLIP_KEYS]
            expected, there = content["bytes"], tar.stat().st_size
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _shard_error(tar, f"the shard or its sidecar cannot be read ({error})") from error
        if expected != there:
            raise _shard_error(tar, f"has {there} bytes, its sidecar says {expected}")
        if len(ids) < len(content["clips"]) or not all(
            isinstance(clip_id, str) and _MEMBER.fullmatch(f"{clip_id}.json") for clip_id in ids
        ):
            raise _shard_error(tar, "its sidecar does not describe its clips")
        contents[path] = content
    return contents


def _missing(
    clips: Sequence[ClipPlan], sidecars: Mapping[Path, Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[ClipPlan]:
    there: dict[str, tuple[Any, ...]] = {}
    for path, content in sidecars.items():
        if content.get("settings") != settings:
            raise ShardError(
                f"{video.shown(path)}: was made with {content.get('settings')}, not {settings}; "
                f"give the same settings or another --out"
            )
        there |= {clip["clip_id"]: tuple(clip.get(key) for key in _CUT_KEYS) for clip in content["clips"]}
    for clip in clips:
        now = (clip.num_frames, clip.fps, clip.start_frame, _source_bytes(clip.source))
        if there.get(clip.clip_id, now) != now:
            changes = zip(_CUT_KEYS, there[clip.clip_id], now)
            changed = ", ".join(f"{key} {old} is now {new}" for key, old, new in changes if old != new)
            raise ShardError(f"{clip.clip_id}: is there, cut otherwise ({changed}); use another name or folder for it")
    return [clip for clip in clips if clip.clip_id not in there]


def _source_bytes(source: str) -> int:
    """Size of a video, to notice that another one has taken its name; of a folder of frames, the sum."""
    path = Path(source)
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _decoded(clips: Sequence[ClipPlan], max_height: int) -> Iterator[tuple[ClipPlan, "np.ndarray | video.VideoError"]]:
    for (source, num_frames, fps), group in groupby(clips, lambda c: (c.source, c.num_frames, c.fps)):
        batch = sorted(group, key=lambda clip: clip.start_frame)
        starts = [clip.start_frame for clip in batch]
        decoded = video.decode_each(source, starts, num_frames=num_frames, fps=fps, max_height=max_height)
        yield from zip(batch, decoded, strict=True)


class _ShardFile:
    """A shard being written: under a hidden name until `finish` gives it its own, and then its sidecar."""

    def __init__(self, folder: Path, number: int, settings: Mapping[str, Any]) -> None:
        self.tar = folder / f"{number:06d}.tar"
        self.settings = dict(settings)
        self.clips: list[dict[str, Any]] = []
        self._temporary = folder / f".{self.tar.name}.tmp"  # a killed run's leftover is overwritten
        self._writer: Any = None
        self._file: Any = None

    def add(self, clip: ClipPlan, frames_thwc: np.ndarray) -> None:
        import webdataset

        if self._writer is None:
            self._file = open(self._temporary, "wb")  # noqa: SIM115  closed by finish or discard
            self._writer = webdataset.TarWriter(self._file, mtime=0.0)  # equal clips make equal bytes
        npy = io.BytesIO()
        np.save(npy, frames_thwc, allow_pickle=False)
        meta = {
            "clip_id": clip.clip_id,
            "source": Path(clip.source).name,
            "source_bytes": _source_bytes(clip.source),
            "start_frame": clip.start_frame,
            "num_frames": clip.num_frames,
            "fps": clip.fps,
            "height": frames_thwc.shape[1],
            "width": frames_thwc.shape[2],
            "sha256": hashlib.sha256(npy.getbuffer()).hexdigest(),
        }
        sample = {"__key__": clip.clip_id, "frames.npy": npy.getvalue(), "json": json.dumps(meta).encode()}
        self._writer.write(sample)
        self.clips.append(meta)

    def finish(self) -> Path:
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        content = {
            "shard": self.tar.name,
            "bytes": self._temporary.stat().st_size,
            "sha256": _sha256(self._temporary),
            "settings": self.settings,
            "num_clips": len(self.clips),
            "num_frames": sum(clip["num_frames"] for clip in self.clips),
            "clips": self.clips,
        }
        os.replace(self._temporary, self.tar)
        sidecar = self.tar.with_suffix(".json")
        temporary = sidecar.with_name(f".{sidecar.name}.tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, sidecar)
        return self.tar

    def discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._temporary.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

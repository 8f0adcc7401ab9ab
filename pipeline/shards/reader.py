"""Reads shards as if a stranger had made them: small limits first, one plain shape of file, nothing executed.

webdataset's address parser runs "pipe:" commands and its decoders unpickle, numpy and tarfile take memory as a header
tells them to. So a shard is read here block by block: plain members with a clip's name, of the size that the sidecar
announced, with exactly the header that np.save writes for it.
"""

import hashlib
import json
import math
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from infra.errors import printable
from pipeline.video import MAX_CLIP_BYTES
from pipeline.video.info import MAX_SIDE_PX

MAX_SIDECAR_BYTES = 16 << 20  # a clip has about 400
MAX_META_BYTES = 1 << 16
_BLOCK = 512  # bytes; everything in a tar begins at a multiple of it
_SIDECAR = re.compile(r"\d{6}\.json")
_MEMBER = re.compile(r"([a-z0-9_-]{1,80})\.(frames\.npy|json)")
_PAX = re.compile(rb"\d+ mtime=[\d.]+\n")  # the only extended header that webdataset writes
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '\|u1', 'fortran_order': False, 'shape': \(([\d, ]+)\), \} *\n", re.S
)


class ShardError(ValueError):
    """A shard or a shard folder cannot be used. One line: "<file>: <cause>; <mend>"."""


@dataclass(frozen=True)
class ShardEntry:
    """Where a clip lies."""

    clip_id: str
    shard: str  # path of the tar
    source: str  # name of the video or image that it was cut from; `prepare` gives its path
    height: int  # px
    width: int  # px
    num_frames: int
    fps: float
    start_frame: int  # in the video, counted at `fps`

    @property
    def is_image(self) -> bool:
        """Whether it is an image: a clip of one frame, whose `fps` means nothing."""
        return self.num_frames == 1


@dataclass(frozen=True)
class StoredClip:
    """A clip as it was read from a shard."""

    clip_id: str
    frames_thwc: np.ndarray  # (T, H, W, 3) uint8 RGB, C-contiguous
    meta: dict[str, Any]  # clip_id, source, start_frame, num_frames, fps, height (px), width (px), sha256


def is_corpus(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a folder with at least one finished shard."""
    return os.path.isdir(path) and any(_finished(Path(path)))


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
            start_frame=clip["start_frame"],
        )
        for sidecar, content in sidecars(Path(path)).items()
        for clip in content["clips"]
    )


def read(path: str | os.PathLike[str]) -> Iterator[StoredClip]:
    """All clips of a shard folder, one in memory at a time. Raises: ShardError."""
    return (read_clip(entry) for entry in index(path))


def sidecars(folder: Path) -> dict[Path, Mapping[str, Any]]:
    """Finished shards in order: path of the sidecar -> its content, its tar's size compared. Raises: ShardError."""
    contents: dict[Path, Mapping[str, Any]] = {}
    owners: dict[str, Path] = {}  # by clip id
    for path in sorted(_finished(folder)):
        tar = path.with_suffix(".tar")
        try:
            content = _json(_read_small(path))
            clips, expected, there = content["clips"], content["bytes"], os.stat(tar).st_size
            described = isinstance(clips, list) and all(_describes_a_clip(clip) for clip in clips)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _shard_error(tar, f"the shard or its sidecar cannot be read ({error})") from error
        if expected != there:
            raise _shard_error(tar, f"has {there} bytes, its sidecar says {str(expected)[:40]}")
        if not described:
            raise _shard_error(tar, "its sidecar does not describe its clips")
        for clip in clips:
            if clip["clip_id"] in owners:
                raise _shard_error(tar, f"clip {clip['clip_id']} is there already in {owners[clip['clip_id']].name}")
            owners[clip["clip_id"]] = tar
        contents[path] = content
    return contents


def read_clip(entry: ShardEntry) -> StoredClip:
    """One clip, checked: names, type, shape and checksum. Raises: ShardError naming the shard."""
    shape = (entry.num_frames, entry.height, entry.width, 3)
    try:
        if not os.path.isfile(entry.shard):
            raise ValueError("there is no such file")
        with open(entry.shard, "rb") as file:
            found = _members(file, entry, {"json": MAX_META_BYTES, "frames.npy": math.prod(shape) + 2 * _BLOCK})
        meta, npy = _json(found["json"]), found["frames.npy"]
        if any(meta[name] != getattr(entry, name) for name in ("clip_id", "num_frames", "height", "width")):
            raise ValueError("its json does not describe the clip")
        if hashlib.sha256(npy).hexdigest() != meta["sha256"]:
            raise ValueError("its frames are not those that were written (sha256)")
        header = _NPY.match(npy[: 2 * _BLOCK])
        if not header or header[1] != b"%d, %d, %d, 3" % shape[:3]:
            raise ValueError(f"its frames are not uint8 {shape} as np.save writes them")
        frames = np.frombuffer(npy, np.uint8, offset=header.end())
        if frames.size != math.prod(shape):
            raise ValueError(f"its frames have {frames.size} bytes, not those of uint8 {shape}")
    except (OSError, ValueError, KeyError, TypeError, tarfile.TarError) as error:
        cause = f"clip {entry.clip_id} cannot be read ({type(error).__name__}: {error})"
        raise _shard_error(entry.shard, cause) from error
    return StoredClip(entry.clip_id, frames.reshape(shape), meta)


def _members(file: BinaryIO, entry: ShardEntry, limits: Mapping[str, int]) -> dict[str, bytearray]:
    """The clip's two members. Every member of the tar is looked at, and none but the clip's is read."""
    found: dict[str, bytearray] = {}
    file_bytes = os.fstat(file.fileno()).st_size
    while (block := file.read(_BLOCK)).strip(b"\0"):
        member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        padding = -member.size % _BLOCK
        if not 0 <= member.size <= file_bytes - file.tell():
            raise ValueError(f"{member.name[:100]!r} is cut off")
        if member.type == tarfile.XHDTYPE and member.size <= _BLOCK:
            if not _PAX.fullmatch(file.read(member.size)):
                raise ValueError("it holds an extended header of another program")
            file.seek(padding, os.SEEK_CUR)
            continue
        match = _MEMBER.fullmatch(member.name)
        if not match or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise ValueError(f"it holds {member.name[:100]!r}, which is no clip's")
        if match[1] != entry.clip_id:
            file.seek(member.size + padding, os.SEEK_CUR)
            continue
        if match[2] in found:
            raise ValueError(f"{member.name} is there twice")
        if member.size > limits[match[2]]:
            raise ValueError(f"{member.name} has {member.size} bytes, {limits[match[2]]} are the most")
        found[match[2]] = bytearray(member.size)
        if file.readinto(found[match[2]]) < member.size:  # type: ignore[attr-defined]
            raise ValueError(f"{member.name} is cut off")
        file.seek(padding, os.SEEK_CUR)
    if len(found) < 2:
        raise ValueError(f"it holds {sorted(found) or 'nothing'} of it")
    return found


def _describes_a_clip(clip: Any) -> bool:
    """Whether a sidecar's entry has every field, each of its type and within what one clip may be."""
    counts = [clip[name] for name in ("num_frames", "height", "width", "start_frame")]
    if any(type(count) is not int or not 0 <= count < 1 << 31 for count in counts):
        return False
    num_frames, height, width, _ = counts
    return (
        isinstance(clip["clip_id"], str)
        and _MEMBER.fullmatch(f"{clip['clip_id']}.json") is not None
        and isinstance(clip["source"], str)
        and isinstance(clip["sha256"], str)
        and type(clip["fps"]) in (int, float)
        and 0 < clip["fps"] < 1e6
        and min(num_frames, height, width) > 0
        and max(height, width) <= MAX_SIDE_PX
        and num_frames * height * width * 3 <= MAX_CLIP_BYTES
    )


def _finished(folder: Path) -> Iterator[Path]:
    """Sidecars, by their names and their shards. Other programs name annotations of numbered frames so, too."""
    return (path for path in folder.iterdir() if _SIDECAR.fullmatch(path.name) and _is_ours(path))


def _is_ours(path: Path) -> bool:
    if os.path.lexists(path.with_suffix(".tar")):
        return True
    try:
        return b'"shard"' in _read_small(path)[:64]
    except (OSError, ValueError):
        return False


def _read_small(path: Path) -> bytes:
    if not path.is_file():  # opening a pipe would wait for its other end
        raise ValueError("the sidecar is not a regular file")
    with open(path, "rb") as file:
        content = file.read(MAX_SIDECAR_BYTES + 1)
    if len(content) > MAX_SIDECAR_BYTES:
        raise ValueError(f"the sidecar has more than {MAX_SIDECAR_BYTES} bytes")
    return content


def _json(text: bytes | bytearray) -> dict[str, Any]:
    """A JSON object without repeated names or numbers that are none. Raises: ValueError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name is there twice in its json")
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise ValueError(f"its json holds {constant}")

    try:
        content = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except RecursionError:
        raise ValueError("its json is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("its json is no object")
    return content


def _shard_error(path: str | os.PathLike[str], cause: str) -> ShardError:
    mend = "delete this shard's .tar and .json and run make_shards again"
    return ShardError(f"{printable(path)}: {printable(cause)}; {mend}")

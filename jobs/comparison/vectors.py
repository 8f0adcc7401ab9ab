"""Videos as clips with one vector each: decoded once, read from a file from then on."""

from __future__ import annotations

import functools
import multiprocessing
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infra.errors import UsageError, one_line, printable
from infra.files import replacing
from model.metrics.features import VideoFeatures
from model.metrics.fid import embeddings
from model.metrics.option import from_option
from model.pyramid import to_video
from pipeline import clips, video
from pipeline.clips import ClipSpec
from pipeline.sources import Video

SAVE_S = 60.0  # a process that is killed loses so much
Vectors = tuple[np.ndarray, np.ndarray]  # of one video: starts (k,) int64, vectors (k, D) float32, k >= 1


@dataclass(frozen=True, eq=False)
class EmbeddedClip:
    """A clip that starts at frame `start`, counted at 24 FPS, of the video `path`. vector: (D,) float32."""

    path: str
    start: int
    clip_id: str
    vector: np.ndarray


def read_clip(path: str, start: int, spec: ClipSpec) -> np.ndarray:
    """The clip that starts at frame `start`, float32 (3, T, H, W) in [-1, 1]. Raises VideoError."""
    count, height = spec.num_frames, spec.max_height
    return to_video(video.decode(path, start_frame=start, num_frames=count, fps=spec.fps, max_height=height))


@dataclass(frozen=True)
class VectorCache:
    """Where the vectors of videos are kept, and how they are computed.

    Attributes:
        path: .npz, one a choice of features and spec.
        features: `--features`; for `model.metrics.option.from_option`.
        spec: which clips of a video there are; with a stride.
        workers: processes that decode.
    """

    path: Path
    features: str
    spec: ClipSpec
    workers: int


def clip_vectors(
    videos: Sequence[Video],
    cache: VectorCache,
    *,
    warn: Callable[[str], None] = lambda line: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[EmbeddedClip], list[str]]:
    """The vectors of all clips of the videos; A.3's mean over locations (`fid.embeddings`).

    One clip of frames is in memory at a time in each of the processes; the vectors of all clips are.

    Args:
        cache: vectors are taken from it and added to it. A video is known by its path, size and time of change; one
            with a failure is tried again each time.
        warn: called with one line, if the cache is damaged; that costs no more than decoding again.
        advance: called with how many videos are decoded, of how many.

    Returns: the clips, in the order of the videos; and a line for each video that cannot be read, to its end or at all.
    Raises: UsageError when a process is killed; StorageError.
    """
    failures: list[str] = []
    known = _read(cache.path, warn)
    keys = {item.path: _key(item.path) for item in videos}
    missing = [item.path for item in videos if keys[item.path] not in known]
    found = {path: known[key] for path, key in keys.items() if key in known}
    saved_at = time.monotonic()
    try:
        for number, (path, each) in enumerate(zip(missing, _compute(missing, cache)), start=1):
            if each.reason:
                failures.append(each.reason)
            else:
                known[keys[path]] = each.starts, each.vectors
            if len(each.starts):
                found[path] = each.starts, each.vectors
            advance(number, len(missing))
            if time.monotonic() > saved_at + SAVE_S:
                _write(cache.path, known)
                saved_at = time.monotonic()
    finally:
        if missing:
            _write(cache.path, known)
    embedded = [(item, *found[item.path]) for item in videos if item.path in found]
    return [
        EmbeddedClip(item.path, int(start), f"{item.clip_id}-{start:06d}", vector)
        for item, starts, vectors in embedded
        for start, vector in zip(starts, vectors)
    ], failures


# -- in processes of their own


@dataclass(frozen=True, eq=False)
class _VideoVectors:
    starts: np.ndarray
    vectors: np.ndarray
    reason: str  # one line: why clips are missing; "" if none is


def _compute(paths: Sequence[str], cache: VectorCache) -> Iterator[_VideoVectors]:
    """The vectors of each path, in their order."""
    if not paths:
        return
    # A copy of a process that has used torch's threads may hang; a server that only imports is copied at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(min(cache.workers, len(paths)), context, initializer=_load, initargs=(cache.features,))
    try:
        yield from pool.map(functools.partial(_embed, cache.spec), paths)
    except BrokenProcessPool as error:
        mend = "give fewer --workers, and run the same command again: it goes on from here"
        raise UsageError(f"a process that decodes videos was killed; {mend}") from error
    finally:
        pool.shutdown(cancel_futures=True)


_features: VideoFeatures  # of such a process


def _load(option: str) -> None:
    global _features
    _features = from_option(option)


def _embed(spec: ClipSpec, path: str) -> _VideoVectors:
    """The clips of a video up to the first one that cannot be decoded."""
    planned = clips.plan([path], spec)
    starts: list[int] = []
    vectors: list[np.ndarray] = []
    reason = "".join(failure.reason for failure in planned.failures)
    wanted = [clip.start_frame for clip in planned.clips]
    decoded = video.decode_each(path, wanted, num_frames=spec.num_frames, fps=spec.fps, max_height=spec.max_height)
    for start, frames in zip(wanted, decoded):
        if isinstance(frames, video.VideoError):
            reason = f"{frames} ({len(starts)} of its {len(wanted)} clips are used)"
            break
        starts.append(start)
        vectors.append(embeddings([to_video(frames)], _features)[0].astype(np.float32))
    return _VideoVectors(np.array(starts, np.int64), np.array(vectors), printable(reason))


# -- the file


def _key(path: str) -> str:
    """Path, size and time of change of a video, or of the frames of one."""
    try:
        files = [entry.stat() for entry in os.scandir(path)] if os.path.isdir(path) else [os.stat(path)]
    except OSError:  # decoding it will say why
        return path
    return f"{path}|{sum(file.st_size for file in files)}|{max(file.st_mtime_ns for file in files)}"


def _read(cache: Path, warn: Callable[[str], None]) -> dict[str, Vectors]:
    """Vectors by key."""
    try:
        with np.load(cache, allow_pickle=False) as file:
            keys, counts, starts, vectors = (file[name] for name in ("keys", "counts", "starts", "vectors"))
        if not len(keys) == len(counts) or not len(starts) == len(vectors) == counts.sum():
            raise ValueError("its arrays do not belong together")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        warn(f"{cache}: cannot be read ({one_line(error)}); its videos are decoded again")
        return {}
    ends = np.cumsum(counts)[:-1]
    return dict(zip(keys.tolist(), zip(np.split(starts, ends), np.split(vectors, ends))))


def _write(cache: Path, known: Mapping[str, Vectors]) -> None:
    if not known:
        return
    starts, vectors = zip(*known.values())
    with replacing(cache) as file:
        np.savez(
            file,
            keys=np.array(list(known)),
            counts=np.array([len(some) for some in starts]),
            starts=np.concatenate(starts),
            vectors=np.concatenate(vectors),
        )

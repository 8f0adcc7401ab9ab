"""One shard being written: NNNNNN.tar with webdataset, then its sidecar NNNNNN.json, which says that it is finished."""

import contextlib
import functools
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import cannot_write
from infra.files import commit, remove_leftovers, sha256_of, temporary_beside
from pipeline import video
from pipeline.clips import ClipPlan
from pipeline.shards.reader import ShardError


def source_bytes(source: str) -> int:
    """Size of a video, to notice that another one has taken its name; of a folder of frames, the sum."""
    files = video.frame_files(source) if os.path.isdir(source) else [Path(source)]
    return sum(file.stat().st_size for file in files if os.path.isfile(file))


@contextlib.contextmanager
def shard_errors(path: Path) -> Iterator[None]:
    """Turns the OSError of writing `path` into a ShardError. The body does nothing else with the disk."""
    try:
        yield
    except OSError as error:
        raise ShardError(cannot_write(path, error)) from error


class ShardFile:
    """A shard being written: under hidden names until `finish` gives it and then its sidecar their own."""

    def __init__(self, folder: Path, number: int, settings: Mapping[str, Any]) -> None:
        self.tar = folder / f"{number:06d}.tar"
        self.sidecar = self.tar.with_suffix(".json")
        self.settings = dict(settings)
        self.clips: list[dict[str, Any]] = []
        self._names = contextlib.ExitStack()  # of files in the making
        self._temporaries = [self._names.enter_context(temporary_beside(path)) for path in (self.tar, self.sidecar)]
        self._writer: Any = None
        self._file: Any = None
        self._size_of = functools.cache(source_bytes)

    def add(self, clip: ClipPlan, frames_thwc: np.ndarray) -> None:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(frames_thwc))
        npy = b"".join([header.getvalue(), np.ascontiguousarray(frames_thwc).data])  # what np.save writes, in one copy
        meta = {
            "clip_id": clip.clip_id,
            "source": Path(clip.source).name,
            "source_bytes": self._size_of(clip.source),
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

        for path in (self.tar, self.sidecar):
            remove_leftovers(path)
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
        self._names.close()

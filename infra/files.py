"""Files that are whole whatever happens to their writer: a kill, a full disk, a power cut.

>>> with replacing(folder / "result.json") as file:  # the old content or the new one, never half of it
...     file.write(b"{}")
>>> append(folder / "metrics.jsonl", "one line")  # only the last line can be torn, and then has no line end
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from infra.errors import StorageError

MAX_NAME_BYTES = 255  # of a file's or folder's name, on most file systems


@contextlib.contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[BinaryIO]:
    """A new file that takes the name `path` once the body has ended and its bytes are on the disk.

    One writer of `path` at a time: what an earlier one left unfinished is removed.

    Args:
        keep: what `path` held until then gets this name, in the same folder. Between the two renames `path` is not
            there; whoever reads it then finds it whole under `keep`.

    Raises StorageError if it cannot be written; what `path` and `keep` held is then still held by one of them.
    """
    try:
        remove_leftovers(path)
        with temporary_beside(path) as temporary:
            with open(temporary, "xb") as file:
                yield file
            commit(temporary, path, keep)
    except StorageError:  # of what the body copies from
        raise
    except OSError as error:
        raise StorageError(path, error) from error


@contextlib.contextmanager
def temporary_beside(path: Path, ending: str = "tmp") -> Iterator[Path]:
    """A name for a file that is to become `path`, in its folder and hidden; `commit` makes it `path`.

    It is of nobody else: process ids come again, and another machine has the same ones. What is still there when the
    body ends is removed.
    """
    temporary = path.with_name(f".{_short(path.name)}.{uuid.uuid4().hex}.{ending}")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):  # there only if something was raised, which says more
            temporary.unlink(missing_ok=True)


def _short(name: str) -> str:
    """The name, or what stands for one so long that a longer one made of it would not fit a disk's 255 bytes."""
    raw = os.fsencode(name)
    return name if len(raw) <= 200 else hashlib.sha1(raw, usedforsecurity=False).hexdigest()


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed left of their attempts to write `path`."""
    for leftover in path.parent.glob(f".{glob.escape(_short(path.name))}.*.tmp"):
        leftover.unlink(missing_ok=True)


def commit(temporary: Path, path: Path, keep: Path | None = None) -> None:
    """Give a file that is written its name `path`, once its bytes are on the disk. keep: as of `replacing`."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    if keep is not None and path.exists():
        os.replace(path, keep)
    os.replace(temporary, path)
    sync_folder(path.parent)


def append(path: Path, line: str) -> None:
    """Add a line to a log; it is on the disk when this returns. Raises StorageError if it cannot be."""
    try:
        with open(path, "ab") as file:
            file.write(line.encode(errors="backslashreplace") + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(path, error) from error


def sync_folder(folder: Path) -> None:
    """Wait until renames in `folder` are on the disk, where the file system can say so."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no such call
            raise
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Atomic: a reader sees the old file or the whole new one. Raises StorageError if it cannot be written."""
    with replacing(path) as file:
        file.write(json.dumps(value, indent=2).encode() + b"\n")

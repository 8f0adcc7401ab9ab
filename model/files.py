"""Files that are whole whatever happens to their writer: a kill, a full disk, a power cut.

>>> with replacing(folder / "result.json") as file:  # the old content or the new one, never half of it
...     file.write(b"{}")
>>> append(folder / "metrics.jsonl", "one line")  # only the last line can be torn, and then has no line end
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


class StorageError(OSError):
    """A file that cannot be written; the message is one line: file, cause, mend."""

    def __init__(self, path: Path | str, error: OSError) -> None:
        mend = "see to its disk"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            mend = "make room on its disk"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            mend = "make its folder writable"
        cause = error.strerror or str(error)
        super().__init__(f"{path}: cannot be written ({cause}); {mend}, then run the same command again")


@contextlib.contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[BinaryIO]:
    """A new file that takes the name `path` once the body has ended and its bytes are on the disk.

    Args:
        keep: what `path` held until then gets this name, in the same folder. Between the two renames `path` is not
            there; whoever reads it then finds it whole under `keep`.

    Raises StorageError if it cannot be written; what `path` and `keep` held is then still held by one of them.
    """
    # Hidden, and of nobody else: process ids come again, and another machine has the same ones.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # of a process that was killed here
            leftover.unlink(missing_ok=True)
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # there only if something was raised, which says more
            temporary.unlink(missing_ok=True)


def append(path: Path, line: str) -> None:
    """Add a line to a log; it is on the disk when this returns. Raises StorageError if it cannot be."""
    try:
        with open(path, "ab") as file:
            file.write(line.encode() + b"\n")
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

"""What the project raises on purpose. A message is one line that names the file, the cause and the mend."""

from __future__ import annotations

import errno
import os
from pathlib import Path

LINE_CHARS = 500  # of an error in a table, a tag or a log


class UsageError(Exception):
    """Arguments that cannot work; the message is one line. A command prints it and exits with code 2."""


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


class TakenOver(RuntimeError):
    """Another process trains this clip now: this one must write nothing more."""


def one_line(error: BaseException) -> str:
    """An error's message as one line of at most LINE_CHARS characters, for a table or a tag."""
    return " ".join(str(error).split())[:LINE_CHARS]


def printable(path: str | os.PathLike[str]) -> str:
    """The path, or any text, fit for one line of a terminal: control and undecodable characters are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fspath(path))


def cannot_write(path: str | os.PathLike[str], error: OSError) -> str:
    """The one line for a file of ours that its disk does not take."""
    cause = f"cannot be written ({error.strerror or error})"
    return f"{printable(path)}: {cause}; make room there, or make it writable, then run the same command again"

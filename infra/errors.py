"""What the project raises on purpose. A message is one line that names the file, the cause and the mend."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

_ROOMS = ("infra", "jobs", "model", "pipeline")
LINE_CHARS = 500  # of an error in a table, a tag or a log
# What a URI holds before its host. It is there if an @ or a : that begins no port stands before the first / ? or #; it
# ends at the last @ that no seconds follow, as those of clip.mp4@2.5: a password may hold @ / # and quotes. And
# parameters that are passwords, keys or signatures by their names.
_USER = re.compile(r"(?<=://)(?=[^\s/?#]*@|[^\s/?#@:]*:(?!\d+(?:[/?#'\"),;]|\s|$)))\S*@(?!\d+(?:\.\d+)?s?(?![\w.:/-]))")
_PARAMETER = re.compile(
    r"(?<=[?&;])([^=&;\s?#'\"]*(?:passw|pwd|secret|token|key|sig|cred|auth)[^=&;\s'\"]*=)"
    r"(?!\*{3}[:),.]*(?:[&;\s#'\"]|$))[^&;\s#'\"]+",  # not what is masked already, and the mark behind it
    re.IGNORECASE,
)


class UsageError(Exception):
    """Arguments that cannot work; the message is one line. A command prints it and exits with code 2."""


class Refusal(ValueError):
    """What a clip, its size or its settings do not allow; the message is one line: what, cause, mend."""


class StorageError(OSError):
    """A file that cannot be written, or a store that cannot be used; the message is one line: file, cause, mend."""

    def __init__(
        self, path: Path | str, error: OSError, what: str = "cannot be written", mend: str = "see to its disk"
    ) -> None:
        """mend: where the error's number does not say what it is."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            mend = "make room on its disk"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            mend = "make its folder writable"
        cause = error.strerror or str(error)
        super().__init__(f"{path}: {what} ({cause}); {mend}, then run the same command again")


class TakenOver(RuntimeError):
    """Another process trains this clip now: this one must write nothing more."""


def without_secrets(text: str) -> str:
    """The text with user and password of every URI in it as ***, and its parameters that are a password or key too.

    Every error, path and URI that is shown or stored comes through here: `one_line`, `printable` and the `uri` of a
    store call it.
    """
    return _PARAMETER.sub(r"\1***", _USER.sub("***@", text))


def user_part(uri: str) -> str:
    """What of a URI is before the @ of its host, as `without_secrets` takes it; "" if nothing is."""
    found = _USER.search(uri)
    return found[0].removesuffix("@") if found else ""


def one_line(error: BaseException | str) -> str:
    """An error's message as one printable line of at most LINE_CHARS characters, for a table or a tag."""
    return printable(" ".join(str(error).split()))[:LINE_CHARS]


def is_ours(error: BaseException) -> bool:
    """Whether the project itself words the error, as those of the classes that it defines."""
    return type(error).__module__.partition(".")[0] in _ROOMS


def reason(error: BaseException) -> str:
    """Why something failed, as one line: ours as it is, that of a library or a bug with its class before it."""
    return one_line(error) if is_ours(error) else f"{type(error).__name__}: {one_line(error)}"


def printable(path: str | os.PathLike[str]) -> str:
    """The path, URI, or any text, fit for one line of a terminal or a file: control and undecodable characters are
    escaped, and it holds no password."""
    text = without_secrets(os.fspath(path))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, noun: str) -> str:
    """ "1 clip", "2 clips", "20,000 clips", "2 processes": a number of things whose plural ends in s."""
    return f"{number:,} {noun}" + ("" if number == 1 else "es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Whether a path is text, as MLflow and Ray need it: a file system's names may be any bytes."""
    return os.fspath(path).isascii() or os.fspath(path).encode(errors="replace").decode() == os.fspath(path)


def cannot_write(path: str | os.PathLike[str], error: OSError) -> str:
    """The one line for a file of ours that its disk does not take."""
    cause = f"cannot be written ({error.strerror or error})"
    return f"{printable(path)}: {cause}; make room there, or make it writable, then run the same command again"

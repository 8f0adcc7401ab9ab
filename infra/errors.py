"""What the project raises on purpose. A message is one line that names the file, the cause and the mend."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

_ROOMS = ("infra", "jobs", "model", "pipeline")
LINE_CHARS = 500  # of an error in a table, a tag or a log
# What is no end of user and password: the @ of a time, as in clip.mp4@2.5.
_AT = r"@(?!\d+(?:\.\d+)?s?(?![\w.:/-]))"
# What a URI holds before its host, and rather too much than a part of a password. With a : that begins no port, up to
# the last @ of the line, or of what stands before the next URI: a password may hold @ / # spaces and quotes. Else up to
# the last @ of the word, if one stands before the first / ? or #. One or three slashes are a mistyped URI, but for a
# sqlite file. Without slashes, a host has to follow.
_USER = re.compile(
    r"(?:(?<=://)|(?<=:///)(?<!lite:///)(?<!file:///)|(?<=\w:/)|(?<=^//)|(?<=[\s'\"(=,]//))(?!\*{3}@)"
    rf"(?:(?=[^\s/?#@:]*:(?!\d+\b(?!\S*{_AT}))\S)(?:\S|[^\S\n](?!\S*://))*{_AT}|(?=[^\s/?#]*@)\S*{_AT})"
    rf"|(?<![^\s'\"(=,])[\w.%+~-]{{1,99}}:(?!//)[^\s/]{{1,999}}{_AT}(?=[\w.-]+(?:[:/?#'\"),;]|\s|$))"
)
_PARAMETER = re.compile(r"(?<=[?&;#])([^=&;\s?#'\"]+=)((?:[^&\s'\"]|['\"](?![\s,;:.)\]}>]|$))+)")
_MASKED = re.compile(r"\*{3}[^\w&]*")  # and the mark of the sentence behind it
_NAME = re.compile(r"([^=&;?#]+)=")  # of a parameter, and of those that its value holds
_SECRET_NAME = re.compile("pass|pwd|pw|secret|token|key|sig|cred|auth|jwt|bearer|cookie|session|otp", re.IGNORECASE)
_QUOTED = re.compile(r"(?<!\S)\S*%(?:25)*3[AD]\S*", re.IGNORECASE)  # words with a : or = of a URI inside another
_QUOTE = re.compile(r"%(2[1-9A-F]|[3-7][0-9A-F])", re.IGNORECASE)  # of a character that is seen


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

    Quoted ones (%3A for a colon) are read as well. Every error, path and URI that is shown or stored comes through
    here: `one_line`, `printable` and the `uri` of a store call it.
    """
    return _QUOTED.sub(_quoted, _masked(text))


def _masked(text: str) -> str:
    return _PARAMETER.sub(_parameter, _USER.sub("***@", text))


def _parameter(found: re.Match[str]) -> str:
    """A parameter, whose value is masked if its name is a secret's, or if the value holds a secret itself."""
    if _MASKED.fullmatch(found[2]):
        return found[0]
    shown = (found[0], *_unquoted(found[0]))
    is_secret = any(_USER.search(text) or any(map(_SECRET_NAME.search, _NAME.findall(text))) for text in shown)
    return f"{found[1]}***" if is_secret else found[0]


def _quoted(found: re.Match[str]) -> str:
    """A word as it is, or unquoted and masked if that shows a secret."""
    return next((shown for plain in _unquoted(found[0]) if (shown := _masked(plain)) != plain), found[0])


def _unquoted(text: str) -> Iterator[str]:
    """The text with one level of quotes less, two and so on. Those of spaces, which would end a word, stay."""
    while (plain := _QUOTE.sub(lambda found: chr(int(found[1], 16)), text)) != text:
        yield plain
        text = plain


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

"""The name of an experiment, which is that of its folder and of the experiment in MLflow."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from urllib.parse import quote

from infra.errors import UsageError, printable, without_secrets
from infra.files import MAX_NAME_BYTES

ARTIFACTS = "mlartifacts"  # beside MLflow's sqlite file, mlflow.db, in the folder of all experiments
NAME_CHARS = 60  # of a corpus's name, as a URI writes it: MLflow's databases keep 200 of a whole path


def check_name(option: str, name: str) -> None:
    """Raises UsageError for a name that is none of a folder. option: what gave it."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(f"{option} {printable(name)}: letters, digits, '_', '-' and '.' only; it names a folder")
    if name == "Default" or name.startswith((ARTIFACTS, "mlflow.db")):
        raise UsageError(f"{option} {name}: is a name of MLflow's; give another")
    if len(name.encode()) > MAX_NAME_BYTES:
        cause = f"{len(name.encode())} bytes, a folder's name has at most {MAX_NAME_BYTES}"
        raise UsageError(f"{option} {name[:20]}…: {cause}; give a shorter one")


def experiment_name(corpus: str, preset: str) -> str:
    """The name of an experiment where none is given: the corpus and the preset.

    The corpus's is the last part of its path or URI, so that it keeps its experiment where it is moved to. Two of other
    names never share one, also where a file system or a database does not tell small letters from capitals.
    """
    shown = without_secrets(corpus)
    name = _own_name(shown.rpartition("/")[2] or shown) if "://" in shown else _own_name(_last_part(corpus))
    preset = _own_name(preset)
    return name if name == preset else f"{name}-{preset}"


def _last_part(path: str) -> str:
    """Of "." and of "clips/" too."""
    return os.path.basename(os.path.abspath(path))


def _own_name(text: str) -> str:
    """`text` itself if every system takes it for a folder's name, else what can be kept of it and a hash."""
    text = unicodedata.normalize("NFC", text)  # macOS and Linux may spell the same accent with other code points
    kept = re.sub(r"[^\w.-]+", "_", text.split("?")[0]).strip("._-")
    short = kept
    while len(quote(short)) > NAME_CHARS:
        short = short[:-1]
    if short and short == text == text.casefold():
        return text
    digest = hashlib.sha1(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()[:6]
    return f"{short or 'corpus'}-{digest}"

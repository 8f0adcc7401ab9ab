"""Copies of what a URI names, on this machine: s3://, gs:// and every other scheme that fsspec knows."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from infra.errors import UsageError, cannot_write, one_line, printable, user_part
from infra.files import MAX_NAME_BYTES, commit, temporary_beside

LEFTOVER_S = 3600.0  # a file that is being copied changes more often
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
PIP_NAMES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}


def fetch(source: str, cache_dir: Path, only: Collection[str] | None = None) -> str:
    """Copy what a URI (s3://, gs://, memory://, file://) names to `cache_dir`; a plain path returns as it is.

    A file or a folder keeps its own name, so its clip ids are those it has anywhere. Files that are already
    there with the right size are not copied again; a file appears under its name only when complete. A
    manifest is copied without the videos it names: give the folder that holds them.

    Args: only: local paths, as an earlier call made them, of the files and folders to copy; None: all.

    Returns: the local path. Raises: ValueError for an unknown scheme, a missing package (with the command
    that installs it), a URI that names nothing, names that would leave `cache_dir`, or a `cache_dir` that has no
    room; OSError for what the other side does not give. Each is one line.
    """
    scheme, separator, _ = source.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return source
    try:
        return _fetch(source, scheme, cache_dir, only)
    except ValueError:
        raise
    except Exception as error:  # each file system has errors of its own
        raise OSError(f"{printable(source)}: cannot be fetched ({one_line(error)}); check the URI") from error


def _fetch(source: str, scheme: str, cache_dir: Path, only: Collection[str] | None) -> str:
    files, root = _remote(source, scheme)
    name = (urlsplit(root).path if scheme in ("http", "https") else root).rstrip("/").rpartition("/")[2]
    target = (
        Path(cache_dir) / hashlib.sha1(source.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()[:8]
    )
    inside = {info["name"]: info["name"][len(root.rstrip("/")) :].lstrip("/") for info in files}
    for part in [name, *inside.values()]:
        if not name or leaves_folder(part):
            raise ValueError(f"{printable(source)}: holds the unsafe name {printable(part)!r}; rename it")
    _remove_leftovers(target)
    for info in files:
        copy = target / _fitting(name) / _fitting(inside[info["name"]])
        if only is None or not {str(copy), *map(str, copy.parents)}.isdisjoint(only):
            _copy(info, copy)
    return str(target / _fitting(name))


def _fitting(path: str) -> str:
    """A relative path whose parts fit a disk's 255 bytes, which an object store's names may not."""
    parts = []
    for part in path.split("/"):
        raw = os.fsencode(part)
        if len(raw) > MAX_NAME_BYTES:
            suffix = PurePosixPath(part).suffix[:16]
            digest = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
            part = raw[: MAX_NAME_BYTES - 120].decode("utf-8", "ignore") + f"-{digest[:12]}{suffix}"
        parts.append(part)
    return "/".join(parts)


def refuse_credentials(uri: str) -> None:
    """Raises UsageError for a user or password before a bucket: nothing would use it."""
    variables = {"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "gs": "GOOGLE_APPLICATION_CREDENTIALS"}
    scheme = uri.partition("://")[0]
    name = {"s3a": "s3", "gcs": "gs"}.get(scheme.lower(), scheme.lower())
    if name in variables and user_part(uri):
        raise UsageError(f"{printable(uri)}: takes no key in the URI; leave it out, and set {variables[name]}")


def leaves_folder(name: str) -> bool:
    """Whether a file of this relative name could be written outside the folder that it is meant for."""
    return ".." in PurePosixPath(name).parts or "\\" in name or "\0" in name


def _remote(source: str, scheme: str) -> tuple[list[dict[str, Any]], str]:
    """Every file that the URI names, with its filesystem under "fs", and the path that the URI stands for."""
    import fsspec

    source_name = printable(source)
    try:
        refuse_credentials(source)
        filesystem, root = fsspec.core.url_to_fs(source)
    except UsageError as error:
        raise ValueError(str(error)) from error
    except ImportError as error:
        package = PIP_NAMES.get(scheme.lower())
        mend = f"pip install {package}" if package else one_line(error)
        raise ValueError(f"{source_name}: {scheme}:// needs another package; {mend}") from error
    except ValueError as error:
        raise ValueError(
            f"{source_name}: cannot be fetched ({one_line(error)}); copy it here and give its path"
        ) from error
    found = filesystem.find(root, detail=True)
    infos = [info or filesystem.info(path) for path, info in found.items()]  # of a single file http tells nothing
    files = [info for info in infos if info["type"] == "file"]
    if not files:
        raise ValueError(f"{source_name}: names no file; check the URI")
    return [info | {"fs": filesystem} for info in files], str(root)


def _copy(info: Mapping[str, Any], target: Path) -> None:
    if target.is_file() and target.stat().st_size == info["size"]:
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(target, "part") as temporary:
            info["fs"].get_file(info["name"], str(temporary))
            commit(temporary, target)
    except OSError as error:
        if error.errno not in DISK_ERRORS:  # of the other side
            raise
        raise ValueError(cannot_write(target, error)) from error


def _remove_leftovers(folder: Path) -> None:
    """What killed processes left half copied. A copy that goes on elsewhere is younger, and stays."""
    for copy in folder.rglob(".*.part"):
        with contextlib.suppress(OSError):  # somebody else may have been faster
            if time.time() - copy.stat().st_mtime > LEFTOVER_S:
                copy.unlink()

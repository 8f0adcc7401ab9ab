"""Where an experiment's files are: a folder, a path that machines share, or an object store (s3://, gs://, …).

store = Store("s3://bucket/runs").below("demo")
store.write("experiment.json", content)  # atomic, on a path and in an object store alike
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from infra.errors import StorageError, TakenOver, UsageError, is_utf8, one_line, printable, user_part, without_secrets
from infra.files import replacing
from infra.remote import leaves_folder, refuse_credentials

IN_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set in what `ray job submit` runs
ROOM_BYTES = 2 << 20  # that a folder must have to begin with: MLflow's empty store alone takes about 1 MB


def in_ray_job() -> bool:
    """Whether this is a process that `ray job submit` started: its working folder is a copy that is thrown away."""
    return IN_RAY_JOB in os.environ


def default_folder() -> Path:
    """Storage where none is given: runs/, of a Ray job ~/hp-vae-gan-runs."""
    return Path.home() / "hp-vae-gan-runs" if in_ray_job() else Path("runs").resolve()


@dataclass(frozen=True)
class Store:
    """A folder of files, local or remote; travels to tasks. Names are relative paths with '/'.

    Attributes:
        location: an absolute path, or scheme://… with the password that it may hold: for what opens it.
    """

    location: str = field(repr=False)

    @classmethod
    def open(cls, given: str | None, option: str) -> Store:
        """The store that an option of a command line names. option: its name, for the line of an error.

        Raises UsageError for a scheme that cannot be used here, a store that does not answer, or a relative path in a
        Ray job.
        """
        if given is None:
            return cls(str(default_folder()))
        named = f"{option} {printable(given)}"
        mistyped = r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/).*|[A-Za-z0-9+.-]+://[/\s]*"
        if re.fullmatch(mistyped, given, re.DOTALL) or ("://" not in given and user_part(given)):
            raise UsageError(f"{named}: is neither a path nor a URI; write s3://BUCKET/FOLDER, or ./ before a path")
        if "://" not in given:
            if in_ray_job() and not os.path.isabs(given):
                cause = "a Ray job's folder is thrown away; give an absolute path or a URI"
                raise UsageError(f"{named}: {cause}")
            try:
                return cls(str(Path(given).resolve()))
            except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long, a null byte
                raise UsageError(f"{named}: is no path ({one_line(error)}); give another folder") from error
        scheme = given.partition("://")[0]
        store = cls(given.rstrip("/"))
        try:
            refuse_credentials(given)
            store._fs.exists(store._root)
        except ImportError as error:
            from infra.remote import PIP_NAMES

            package = PIP_NAMES.get(scheme)
            mend = f"pip install {package}" if package else one_line(error)
            raise UsageError(f"{named}: {scheme}:// needs another package; {mend}") from error
        except UsageError as error:
            raise UsageError(f"{option} {error}") from error
        except Exception as error:  # each file system has errors of its own
            raise UsageError(f"{named}: cannot be reached ({one_line(error)}); see to its address") from error
        return store

    def below(self, name: str) -> Store:
        """A folder in this one."""
        return Store(f"{self.location}/{name}")

    @property
    def parent(self) -> Store:
        """The folder that this one is in."""
        return Store(self.location.rsplit("/", 1)[0])

    @property
    def name(self) -> str:
        """The last part of the URI."""
        return self.location.rsplit("/", 1)[1]

    @property
    def uri(self) -> str:
        """The same without a password: fit to be shown and stored."""
        return without_secrets(self.location)

    @property
    def is_local(self) -> bool:
        """Whether it is a path, and not an object store."""
        return "://" not in self.location

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        """What was worked out on this machine, such as `path`, stays here."""
        return Store, (self.location,)

    @functools.cached_property
    def path(self) -> Path:
        """The folder itself; in front of an object store a scratch folder, the same one each time on a machine."""
        if self.is_local:
            return Path(self.location)
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "hp-vae-gan" / self.uri.replace("://", "/")

    @property
    def tracking_folder(self) -> Path:
        """Where MLflow's sqlite file and its artifacts go if no server is named: here, or in the folder of jobs without
        a storage, if this is an object store or its path is not UTF-8, which MLflow cannot keep."""
        return Path(self.location) if self.is_local and is_utf8(self.location) else default_folder()

    @functools.cached_property
    def _url(self) -> tuple[Any, str]:
        import fsspec

        if self.is_local:  # whatever is in its name: '::' would be a chain of file systems
            return fsspec.filesystem("file"), self.location
        # Others write too: a listing that is remembered is wrong.
        filesystem, root = fsspec.core.url_to_fs(self.location, use_listings_cache=False)
        return filesystem, str(root)

    @property
    def _fs(self) -> Any:
        return self._url[0]

    @property
    def _root(self) -> str:
        return self._url[1]

    def _full(self, name: str) -> str:
        return f"{self._root}/{name}"

    # -- small files

    def check_writable(self) -> None:
        """Raises UsageError if the folder cannot be written, or made, or has no room. Leaves nothing behind."""
        if not self.is_local:
            return  # what is written first tells
        try:
            folder = next(folder for folder in (self.path, *self.path.parents) if folder.exists())
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(ROOM_BYTES))
                file.flush()
        except OSError as error:
            cause = f"nothing can be written there ({error.strerror})"
            raise UsageError(f"{self.uri}: {cause}; make room and make it writable, or give another folder") from error

    def names(self, folder: str = "") -> set[str]:
        """What lies directly in `folder`: one listing, whatever the number of clips. Raises StorageError."""
        with storage_errors(self, folder), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = self._fs.ls(self._full(folder).rstrip("/"), detail=False)
            return {PurePosixPath(str(path)).name for path in found}
        return set()

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The files that are there, by name. From an object store they come side by side. Raises StorageError."""
        full = {self._full(name): name for name in names}
        if not full:
            return {}
        if self.is_local:
            contents = {}
            for path, name in full.items():
                with storage_errors(self, name), contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    contents[name] = Path(path).read_bytes()
            return contents
        with storage_errors(self, ""):
            found = self._fs.cat(list(full), on_error="return")
            for error in found.values():
                if isinstance(error, Exception) and not isinstance(error, FileNotFoundError):
                    raise error
        return {full[path]: content for path, content in found.items() if isinstance(content, bytes)}

    def write(self, name: str, content: bytes) -> None:
        """Atomic. Raises StorageError."""
        if self.is_local:
            path = self.path / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(path.parent, error) from error
            with replacing(path) as file:
                file.write(content)
            return
        with storage_errors(self, name):
            self._fs.pipe_file(self._full(name), content)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Atomic. Raises StorageError."""
        self.write(name, json.dumps(value, indent=2).encode() + b"\n")

    def remove(self, name: str) -> None:
        """A file, or a folder and all that is in it; nothing where it is not there. Raises StorageError."""
        with storage_errors(self, name), contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._full(name), recursive=True)
        if not self.is_local:
            shutil.rmtree(self.path / name, ignore_errors=True)

    def exists(self, name: str) -> bool:
        """Whether there is a file or folder of this name. Raises StorageError."""
        with storage_errors(self, name):
            return bool(self._fs.exists(self._full(name)))

    def copy(self, name: str, to: str) -> None:
        """A file under a second name, within the store. Raises StorageError."""
        with storage_errors(self, to):
            self._fs.cp_file(self._full(name), self._full(to))

    def put_file(self, local: Path, name: str) -> None:
        """A local file into the store. Raises FileNotFoundError if it is gone."""
        self._fs.put_file(str(local), self._full(name))

    def age_s(self, name: str, then: str) -> float:
        """How much earlier `name` was written than `then`, in seconds, by the clock of the store.

        Raises FileNotFoundError if one is gone, and StorageError.
        """
        try:
            written = [self._fs.modified(self._full(each)) for each in (name, then)]
        except FileNotFoundError:
            raise
        except Exception as error:  # each file system has errors of its own
            raise _of_store(self, name, error) from error
        return float((written[1] - written[0]).total_seconds())

    # -- whole folders of an object store

    def pull(self, folder: str, into: Path | None = None) -> None:
        """Bring `folder` to this machine: into `path`, where the store is one already, or `into`."""
        if self.is_local and into is None:
            return
        target = into or self.path / folder
        target.mkdir(parents=True, exist_ok=True)
        root = self._full(folder)
        with storage_errors(self, folder):
            for remote, info in self._fs.find(root, detail=True).items():
                local = target / _inside(str(remote), root)
                if local.exists() and local.stat().st_size == info["size"] and local.suffix == ".tar":
                    continue  # shards never change
                local.parent.mkdir(parents=True, exist_ok=True)
                with replacing(local) as file, storage_errors(self, f"{folder}/{_inside(str(remote), root)}"):
                    self._fs.get_file(remote, file.name)

    def push(self, folder: str, names: Iterable[str]) -> None:
        """Bring files of `path / folder` to an object store, in the order of `names`. Raises StorageError."""
        root = self._full(folder)
        with storage_errors(self, folder):
            sizes = {_inside(str(k), root): v["size"] for k, v in self._fs.find(root, detail=True).items()}
            for name in names:
                local = self.path / folder / name
                if local.suffix != ".tar" or local.stat().st_size != sizes.get(name):
                    self._fs.put_file(str(local), f"{root}/{name}")


def files_below(folder: Path) -> list[str]:
    """Relative names of the files in a folder and its sub-folders, without what is hidden, as files in the making."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def _inside(remote: str, root: str) -> str:
    """The part of a remote path below `root`. A name that would leave the folder is refused."""
    name = remote[len(root) :].lstrip("/") if remote.startswith(root) else ".."
    if leaves_folder(name):
        raise UsageError(f"{remote!r}: an unsafe name in the storage; delete it")
    return name


@contextlib.contextmanager
def storage_errors(store: Store, name: str) -> Iterator[None]:
    """Turns whatever an object store's client raises in the body into a StorageError of one line."""
    try:
        yield
    except (StorageError, UsageError, TakenOver):
        raise
    except Exception as error:  # botocore's, aiohttp's, google's …
        raise _of_store(store, name, error) from error


def _of_store(store: Store, name: str, error: Exception) -> StorageError:
    where = f"{store.uri}/{name}".rstrip("/")
    if isinstance(error, OSError) and (store.is_local or error.errno == errno.ENOSPC):
        return StorageError(where, error, "cannot be read")
    mend = "check the network and the credentials"
    return StorageError(where, OSError(one_line(error)), "the storage does not take or give it", mend)


def host() -> str:
    """This machine: its name and its network address, which tell it from others of the same name."""
    return f"{socket.gethostname()}-{uuid.getnode():x}"

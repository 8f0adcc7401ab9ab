"""Where an experiment's files are: a folder, a path that machines share, or an object store (s3://, gs://, …).

    store = Store("s3://bucket/runs").below("demo")
    with ClipFolder(store, "bikes-1b0f76") as clip:  # on whatever machine the clip's task runs
        train_in(clip.path)                          # a local folder; its files are in the store when the body ends

On a path, a clip is trained in its folder. In front of an object store it is trained in a scratch folder that is
filled from the store and copied to it while training goes on: a machine that dies loses the last seconds only.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.corpus import UsageError, one_line
from model.files import StorageError, replacing

EVALUATION = "evaluation"  # folder of jobs/evaluate.py in what it evaluates
IN_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set in what `ray job submit` runs
ROOM_BYTES = 2 << 20  # that a folder must have to begin with: MLflow's empty store alone takes about 1 MB
MIRROR_S = 5.0  # seconds between two looks for what has changed in a scratch folder
# A clip's files in the order they may be seen in the store: points before the checkpoint that counts them, and what
# says that everything is there after everything.
LAST = ("metrics.jsonl", "checkpoint.pt", "metrics.json", "result.json", "tracked.json")
OWN = (".owner", "checkpoint.previous.pt")  # the store has its own
log = logging.getLogger(__name__)


def default_folder() -> Path:
    """Storage where none is given: runs/, but of a Ray job's working folder, a copy that is thrown away, not."""
    in_ray_job = IN_RAY_JOB in os.environ
    return Path.home() / "hp-vae-gan-runs" if in_ray_job else Path("runs").resolve()


class TakenOver(RuntimeError):
    """Another process trains this clip now: this one must write nothing more."""


@dataclass(frozen=True)
class Store:
    """A folder of files, local or remote; travels to tasks. Names are relative paths with '/'."""

    uri: str  # an absolute path, or scheme://…

    @classmethod
    def open(cls, given: str, option: str = "--storage") -> Store:
        """What an option of a command line names.

        Raises UsageError for a scheme that cannot be used here, a store that does not answer, or a relative path in a
        Ray job.
        """
        if "://" not in given:
            if IN_RAY_JOB in os.environ and not os.path.isabs(given):
                cause = "a Ray job's folder is thrown away; give an absolute path or a URI"
                raise UsageError(f"{option} {given}: {cause}")
            return cls(str(Path(given).resolve()))
        scheme = given.partition("://")[0]
        store = cls(given.rstrip("/"))
        try:
            store._fs.exists(store._root)
        except ImportError as error:
            from pipeline.sources import PIP_NAMES

            package = PIP_NAMES.get(scheme)
            mend = f"pip install {package}" if package else one_line(error)
            raise UsageError(f"{option} {given}: {scheme}:// needs another package; {mend}") from error
        except Exception as error:  # each file system has errors of its own
            raise UsageError(f"{option} {given}: cannot be reached ({one_line(error)}); see to its address") from error
        return store

    def below(self, name: str) -> Store:
        return Store(f"{self.uri}/{name}")

    @property
    def parent(self) -> Store:
        return Store(self.uri.rsplit("/", 1)[0])

    @property
    def name(self) -> str:
        return self.uri.rsplit("/", 1)[1]

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri

    @functools.cached_property
    def path(self) -> Path:
        """The folder itself; in front of an object store a scratch folder, the same one each time on a machine."""
        if self.is_local:
            return Path(self.uri)
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "hp-vae-gan" / self.uri.replace("://", "/")

    @property
    def tracking_folder(self) -> Path:
        """Where MLflow's sqlite file and its artifacts go if no server is named: here, or on this machine."""
        return Path(self.uri) if self.is_local else default_folder()

    @functools.cached_property
    def _url(self) -> tuple[Any, str]:
        import fsspec

        # Others write too: a listing that is remembered is wrong.
        options = {} if self.is_local else {"use_listings_cache": False}
        filesystem, root = fsspec.core.url_to_fs(self.uri, **options)
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
        with _told(self, folder), contextlib.suppress(FileNotFoundError):
            found = self._fs.ls(self._full(folder).rstrip("/"), detail=False)
            return {PurePosixPath(str(path)).name for path in found}
        return set()

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The files that are there, by name. From an object store they come side by side."""
        full = {self._full(name): name for name in names}
        if not full:
            return {}
        if self.is_local:
            contents = {}
            for path, name in full.items():
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    contents[name] = Path(path).read_bytes()
            return contents
        found = self._fs.cat(list(full), on_error="return")
        for error in found.values():
            if isinstance(error, Exception) and not isinstance(error, FileNotFoundError):
                raise StorageError(self.uri, OSError(one_line(error))) from error
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
        with _told(self, name):
            self._fs.pipe_file(self._full(name), content)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Atomic. Raises StorageError."""
        self.write(name, json.dumps(value, indent=2).encode() + b"\n")

    def remove(self, name: str) -> None:
        """A file, or a folder and all that is in it; nothing where it is not there."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._full(name), recursive=True)
        if not self.is_local:
            shutil.rmtree(self.path / name, ignore_errors=True)

    def age_s(self, name: str, then: str) -> float:
        """How much earlier `name` was written than `then`, in seconds, by the clock of the store."""
        return float((self._fs.modified(self._full(then)) - self._fs.modified(self._full(name))).total_seconds())

    # -- whole folders of an object store

    def pull(self, folder: str, into: Path | None = None) -> None:
        """Bring `folder` to this machine: into `path`, where the store is one already, or `into`."""
        if self.is_local and into is None:
            return
        target = into or self.path / folder
        target.mkdir(parents=True, exist_ok=True)
        root = self._full(folder)
        with _told(self, folder):
            for remote, info in self._fs.find(root, detail=True).items():
                local = target / _inside(str(remote), root)
                if local.exists() and local.stat().st_size == info["size"] and local.suffix == ".tar":
                    continue  # shards never change
                local.parent.mkdir(parents=True, exist_ok=True)
                with replacing(local) as file:
                    self._fs.get_file(remote, file.name)

    def push(self, folder: str) -> None:
        """Bring what lies in `path / folder` to the store. Raises StorageError."""
        if self.is_local:
            return
        root = self._full(folder)
        with _told(self, folder):
            sizes = {_inside(str(k), root): v["size"] for k, v in self._fs.find(root, detail=True).items()}
            for name in _names(self.path / folder):
                local = self.path / folder / name
                if local.suffix != ".tar" or local.stat().st_size != sizes.get(name):
                    self._fs.put_file(str(local), f"{root}/{name}")


def _inside(remote: str, root: str) -> str:
    """The part of a remote path below `root`. A name that would leave the folder is refused."""
    name = remote[len(root) :].lstrip("/") if remote.startswith(root) else ".."
    if ".." in PurePosixPath(name).parts or "\\" in name or "\0" in name:
        raise UsageError(f"{remote!r}: an unsafe name in the storage; delete it")
    return name


@contextlib.contextmanager
def _told(store: Store, name: str) -> Iterator[None]:
    """Whatever an object store's client raises, as one line."""
    try:
        yield
    except (StorageError, UsageError, TakenOver):
        raise
    except Exception as error:  # botocore's, aiohttp's, google's …
        raise StorageError(f"{store.uri}/{name}", OSError(one_line(error))) from error


class Mirror:
    """Copies what has changed in a local folder to the store."""

    def __init__(self, store: Store, folder: str, local: Path) -> None:
        self._store, self._folder, self._local = store, folder, local
        self._sent: dict[str, tuple[int, int]] = {}  # by name: time and size of what the store has

    def assume_sent(self) -> None:
        """What is in the folder now came from the store."""
        self._sent = {name: _stamp(self._local / name) for name in _names(self._local)}

    def sync(self) -> None:
        """Raises StorageError. A file that changes meanwhile goes again next time."""
        with _told(self._store, self._folder), tempfile.TemporaryDirectory(dir=self._local, prefix=".") as pins:
            # The checkpoint first, by a second name that its next save does not touch; then the log, which holds at
            # least the points that it counts; and it goes to the store after them.
            pinned = Path(pins) / "checkpoint.pt"
            with contextlib.suppress(FileNotFoundError):
                os.link(self._local / "checkpoint.pt", pinned)
            for name in sorted({*_names(self._local), *(["checkpoint.pt"] if pinned.exists() else [])}, key=_place):
                source = pinned if name == "checkpoint.pt" else self._local / name
                try:
                    stamp = _stamp(source)
                    if self._sent.get(name) != stamp:
                        self._put(source, name)
                        self._sent[name] = stamp
                except FileNotFoundError as error:
                    # It is not the file that is gone, but something in the store.
                    if error.filename != str(source) and source.exists():
                        raise
            for name in ("error.txt", "tracked.json"):  # of an earlier attempt
                if name in self._sent and not (self._local / name).exists():
                    self._store.remove(f"{self._folder}/{name}")
                    del self._sent[name]

    def _put(self, source: Path, name: str) -> None:
        filesystem, target = self._store._fs, self._store._full(f"{self._folder}/{name}")
        if name == "checkpoint.pt" and filesystem.exists(target):
            before = self._store._full(f"{self._folder}/checkpoint.previous.pt")
            filesystem.cp_file(target, before)
        filesystem.put_file(str(source), target)


def _names(folder: Path) -> list[str]:
    """The files of a folder in the order in which they go to the store; a shard before its sidecar."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    names = [p.as_posix() for p in found if not p.parts[0].startswith(".") and p.as_posix() not in OWN]
    return sorted(names, key=_place)


def _place(name: str) -> tuple[int, bool, str]:
    return LAST.index(name) if name in LAST else -1, not name.endswith(".tar"), name


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


class ClipFolder:
    """A clip's folder on the machine that trains it. The newest process to enter owns it.

    A process on a machine that was given up for lost may still be there: `check` raises TakenOver in it, and it writes
    nothing more to the store.
    """

    def __init__(self, store: Store, clip_id: str) -> None:
        self._store, self._clip_id = store, clip_id
        self._token = json.dumps({"host": host(), "pid": os.getpid(), "id": uuid.uuid4().hex}).encode()
        self._owner = f"{clip_id}/.owner"
        self._scratch = contextlib.ExitStack()
        self._stop = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._mirror_loop, name="storage-mirror", daemon=True)
        self.path = store.path / clip_id

    def __enter__(self) -> ClipFolder:
        self._store.write(self._owner, self._token)
        if not self._store.is_local:
            # Private to this process: another attempt on the same machine has its own.
            with contextlib.ExitStack() as unfinished:
                scratch = tempfile.TemporaryDirectory(prefix="hp-vae-gan-", ignore_cleanup_errors=True)
                self.path = Path(unfinished.enter_context(scratch)) / self._clip_id
                self._store.pull(self._clip_id, self.path)
                self._scratch = unfinished.pop_all()
            self._mirror = Mirror(self._store, self._clip_id, self.path)
            self._mirror.assume_sent()
            self._thread.start()
        return self

    def check(self) -> None:
        """Raises TakenOver if another process has entered since. Cheap: called at every logged point."""
        if self._store.is_local:
            self._lost = not self._is_owner()
        if self._lost:
            raise TakenOver(f"{self._clip_id}: another process trains it now; this one stops")

    def __exit__(self, *_: object) -> None:
        with self._scratch:
            if self._thread.ident is not None:
                self._stop.set()
                self._thread.join()
                if self._is_owner():
                    _patiently(self._mirror.sync)

    def _is_owner(self) -> bool:
        return self._store.read([self._owner]).get(self._owner) == self._token

    def _mirror_loop(self) -> None:
        while not self._stop.wait(MIRROR_S):
            try:
                if not self._is_owner():
                    self._lost = True
                    return
                self._mirror.sync()
            except OSError as error:
                log.warning("the storage did not take a clip's files, will try again: %s", one_line(error))


def _patiently(action: Callable[[], None], seconds: float = 120.0) -> None:
    """Try again while a store is away, as long as that: what it does not take is lost with the scratch folder."""
    deadline = time.monotonic() + seconds
    pause = 1.0
    while True:
        try:
            return action()
        except StorageError:
            if time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)
            pause *= 2


def host() -> str:
    return f"{socket.gethostname()}-{uuid.getnode():x}"

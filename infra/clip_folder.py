"""The folder of a clip: the names of its files, the order in which they count, and its mirror in an object store.

A clip's folder, in the order it fills:
    config.json      settings, sizes, precision, versions; written before work starts
    metrics.jsonl    append-only: one line a logged point (infra/metrics_log.py)
    checkpoint.pt    everything training is (model/checkpoint.py), and checkpoint.previous.pt, the one before it
    warnings.txt     only if there were any: one line each
    samples/         scale_NN.png after each scale; at the end real, reconstruction, sample_NN and, where patches
                     finish them, plain_NN as mp4 and gif, of an image as png; sheet.png and side_by_side.mp4 of them;
                     diversity.png and nnf_00.png
    metrics.json     the final scores: svfid_lite0, of an image sifid_lite0_frames (also of the reconstruction and of
                     the blurred clip), diversity_n10 …
    result.json      written last: its presence with status "done" means done
    error.txt        only of a failed clip: the reason, with a traceback unless the project words it
    tracked.json     written when all the others are in MLflow (infra/tracking/forward.py)

    with ClipFolder(store, "bikes-1b0f76") as folder:  # on whatever machine the clip's task runs
        train_in(folder.path)                          # a local folder; its files are in the store when the body ends

On a path, a clip is trained in its folder. In front of an object store it is trained in a scratch folder that is
filled from the store and copied to it while training goes on: a machine that dies loses the last seconds only.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from infra.errors import StorageError, TakenOver, one_line
from infra.store import Store, files_below, host, storage_errors

CONFIG, LOG, CHECKPOINT, PREVIOUS = "config.json", "metrics.jsonl", "checkpoint.pt", "checkpoint.previous.pt"
SHEET = "sheet.png"  # in SAMPLES
WARNINGS, SAMPLES, METRICS, RESULT = "warnings.txt", "samples", "metrics.json", "result.json"
ERROR, TRACKED = "error.txt", "tracked.json"
OWNER = ".owner"  # which process trains the clip
OUTCOME = ".outcome.json"  # of a video that several workers train: how their last run ended
# In the store they may be seen in this order only: points before the checkpoint that counts them, and what says that
# everything is there after everything.
LAST = (LOG, CHECKPOINT, METRICS, RESULT, TRACKED)
OF_AN_ATTEMPT = (ERROR, RESULT, TRACKED)  # removed when a later attempt removes them, as samples are
MIRROR_S = 5.0  # seconds between two looks for what has changed in a scratch folder
PATIENCE_S = (
    120.0  # how long a store that is away is tried again: what it does not take is lost with the scratch folder
)
log = logging.getLogger(__name__)


def clip_files(folder: Path) -> list[str]:
    """The names of a clip's files in the order in which they go to the store, which keeps its own PREVIOUS."""
    return sorted((name for name in files_below(folder) if name != PREVIOUS), key=_place)


def push_clip(store: Store, clip_id: str) -> None:
    """Bring a clip's folder to an object store; nothing on a path. Raises StorageError."""
    if not store.is_local:
        store.push(clip_id, clip_files(store.path / clip_id))


def _place(name: str) -> tuple[int, str]:
    return LAST.index(name) if name in LAST else -1, name


class Mirror:
    """Copies what has changed in a local folder to the store."""

    def __init__(self, store: Store, folder: str, local: Path) -> None:
        self._store, self._folder, self._local = store, folder, local
        self._sent: dict[str, tuple[int, int]] = {}  # by name: time and size of what the store has

    def assume_sent(self) -> None:
        """What is in the folder now came from the store."""
        self._sent = {name: _stamp(self._local / name) for name in clip_files(self._local)}

    def sync(self) -> None:
        """Raises StorageError. A file that changes meanwhile goes again next time."""
        with (
            storage_errors(self._store, self._folder),
            tempfile.TemporaryDirectory(dir=self._local, prefix=".") as pins,
        ):
            # The checkpoint first, by a second name that its next save does not touch; then the log, which holds at
            # least the points that it counts; and it goes to the store after them.
            pinned = Path(pins) / CHECKPOINT
            with contextlib.suppress(FileNotFoundError):
                os.link(self._local / CHECKPOINT, pinned)
            for name in sorted({*clip_files(self._local), *([CHECKPOINT] if pinned.exists() else [])}, key=_place):
                source = pinned if name == CHECKPOINT else self._local / name
                try:
                    stamp = _stamp(source)
                    if self._sent.get(name) != stamp:
                        self._put(source, name)
                        self._sent[name] = stamp
                except FileNotFoundError as error:
                    # It is not the file that is gone, but something in the store.
                    if error.filename != str(source) and source.exists():
                        raise
            for name in [*OF_AN_ATTEMPT, *(name for name in self._sent if name.startswith(f"{SAMPLES}/"))]:
                if name in self._sent and not (self._local / name).exists():
                    self._store.remove(f"{self._folder}/{name}")
                    del self._sent[name]

    def _put(self, source: Path, name: str) -> None:
        target = f"{self._folder}/{name}"
        if name == CHECKPOINT and self._store.exists(target):
            self._store.copy(target, f"{self._folder}/{PREVIOUS}")
        self._store.put_file(source, target)


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
        self._owner = f"{clip_id}/{OWNER}"
        self._scratch = contextlib.ExitStack()
        self._stop = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._mirror_loop, name="storage-mirror", daemon=True)
        self.path = store.path / clip_id

    def __enter__(self) -> ClipFolder:
        own = functools.partial(self._store.write, self._owner, self._token)
        if self._store.is_local:
            own()
        else:
            _patiently(own)
            # Private to this process: another attempt on the same machine has its own.
            with contextlib.ExitStack() as unfinished:
                scratch = tempfile.TemporaryDirectory(prefix="hp-vae-gan-", ignore_cleanup_errors=True)
                self.path = Path(unfinished.enter_context(scratch)) / self._clip_id
                _patiently(functools.partial(self._store.pull, self._clip_id, self.path))
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
                _patiently(self._sync_if_owner)

    def _sync_if_owner(self) -> None:
        if self._is_owner():
            self._mirror.sync()

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


def _patiently(action: Callable[[], None]) -> None:
    """Try again while an object store is away, for PATIENCE_S. Raises the last StorageError."""
    deadline = time.monotonic() + PATIENCE_S
    pause = 1.0
    while True:
        try:
            return action()
        except StorageError:
            if time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)
            pause *= 2

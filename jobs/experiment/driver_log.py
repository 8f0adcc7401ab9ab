"""driver.log in an experiment's folder: what its jobs printed, each line behind its time. Later jobs add to it."""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime

from rich.console import Console

from infra.errors import printable
from infra.files import append
from infra.store import host
from jobs.experiment.experiment import Experiment
from jobs.reports.console import CopyingConsole

DRIVER_LOG = "driver.log"
WRITE_S = 30.0  # seconds between two writes to an object store, which has no appending


@contextlib.contextmanager
def driver_log(experiment: Experiment, console: Console) -> Iterator[None]:
    """Keep what the body prints, and what was printed before it; begins with the command line.

    After an error it goes on: the command's last line, which says why it ends, is printed behind the body.
    """
    if not isinstance(console, CopyingConsole):
        yield
        return
    log = _DriverLog(experiment)
    log.add(f"{printable(shlex.join(sys.argv))} on {host().rpartition('-')[0]}")
    console.copy_to(log.add)
    try:
        yield
    except BaseException as error:
        log.write_at_once()
        if not isinstance(error, KeyboardInterrupt):
            log.add(f"ends by {type(error).__name__}")
        raise
    console.copy_to(None)
    log.write()


class _DriverLog:
    """A log that cannot be written costs nothing else."""

    def __init__(self, experiment: Experiment) -> None:
        self._store = experiment.store
        self._waiting: list[str] = []
        self._content: bytes | None = None  # of an object store, once it was read
        self._write_s = 0.0 if self._store.is_local else WRITE_S
        self._written = time.monotonic()
        self._lock = threading.RLock()  # a status line is printed by a thread of its own

    def add(self, text: str) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        with self._lock:
            self._waiting += [f"{now}  {line.rstrip()}" for line in text.splitlines() if line.strip()]
            if time.monotonic() - self._written >= self._write_s:
                self.write()

    def write_at_once(self) -> None:
        """Write what is added from now on, and what waits, behind what another driver wrote meanwhile."""
        self._write_s, self._content = 0.0, None
        self.write()

    def write(self) -> None:
        with self._lock:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        if not self._waiting:
            return
        with contextlib.suppress(OSError):
            if self._store.is_local:
                self._store.path.mkdir(parents=True, exist_ok=True)
                append(self._store.path / DRIVER_LOG, "\n".join(self._waiting))
            else:
                if self._content is None:
                    self._content = self._store.read([DRIVER_LOG]).get(DRIVER_LOG, b"")
                more = "\n".join(self._waiting).encode(errors="backslashreplace") + b"\n"
                self._store.write(DRIVER_LOG, self._content + more)
                self._content += more
            self._waiting = []

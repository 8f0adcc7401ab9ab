"""One driver an experiment: two would train every clip twice, and write into each other's files."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from infra.errors import UsageError
from infra.store import Store, host

RENEW_S, EXPIRE_S = 10.0, 60.0  # a lease is renewed so often, and forgotten when it was not for so long


class Lease:
    """One driver an experiment. Every driver leaves a file that it renews; another that is renewed is alive.

    Each writes its own before it looks for others, so of two that start at once at least one sees the other.

    Args:
        notify: called once with a line, if the sign of life of another driver is waited for.

    Entering raises UsageError if another driver is alive.
    """

    def __init__(self, store: Store, notify: Callable[[str], None] = lambda line: None) -> None:
        self._store, self._notify = store, notify
        self._name = f".driver-{uuid.uuid4().hex}.json"
        self._stop = threading.Event()
        self._writing = threading.Lock()  # two threads renew: the waiting one and the loop
        self._thread = threading.Thread(target=self._renew_loop, name="lease", daemon=True)
        self.lost = False  # another driver took this one for dead, after a long sleep

    def __enter__(self) -> Lease:
        self._renew()
        self._thread.start()
        try:
            self._wait_for_others()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._store.remove(self._name)
            if self._store.is_local:
                self._store.path.rmdir()  # if nothing else was made

    def check(self) -> None:
        """Raises UsageError if another driver took this one for dead."""
        if self.lost:
            raise UsageError(
                f"{self._store.uri}: another driver trains this experiment now; this one was silent too long"
            )

    def _wait_for_others(self) -> None:
        first: dict[str, bytes] = {}  # what each said when it was first seen
        notified = False
        while True:
            others = self._store.read(name for name in _signs(self._store) if name != self._name)
            waiting = False
            for name, said in others.items():
                if self._is_dead(name, said):
                    self._store.remove(name)
                elif _is_here(said) or first.setdefault(name, said) != said:
                    raise UsageError(f"{self._store.uri}: {_describe(said)} trains this experiment; wait, or stop it")
                else:
                    waiting = True
            if not waiting:
                return
            if not notified:
                self._notify(f"another driver was here; waiting at most {EXPIRE_S:g} s for its sign of life")
                notified = True
            self._renew()
            time.sleep(random.uniform(0.5, 1.5))  # of two that see each other, one looks first and goes

    def _is_dead(self, name: str, said: bytes) -> bool:
        with contextlib.suppress(FileNotFoundError):
            if self._store.age_s(name, self._name) > EXPIRE_S:
                return True
        driver = _parsed(said)
        if driver.get("host") != host():
            return False
        pid = driver.get("pid")
        if not isinstance(pid, int) or pid == os.getpid():  # this very process id, in a container that started again
            return True
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False

    def _renew(self) -> None:
        said = {"host": host(), "pid": os.getpid(), "beat": time.time()}
        with self._writing:
            self._store.write(self._name, json.dumps(said).encode())

    def _renew_loop(self) -> None:
        while not self._stop.wait(RENEW_S):
            with contextlib.suppress(OSError):  # a full disk: tried again
                if not self._store.read([self._name]):
                    self.lost = True
                    return
                self._renew()


def drivers(store: Store) -> list[str]:
    """The drivers that gave a sign of life there lately, in words. Raises StorageError."""
    said = store.read(_signs(store)).values()
    return [_describe(one).removeprefix("another ") for one in said if _silent_s(one) < EXPIRE_S]


def _signs(store: Store) -> list[str]:
    """The files of drivers there."""
    return sorted(name for name in store.names() if name.startswith(".driver-") and name.endswith(".json"))


def _silent_s(said: bytes) -> float:
    beat = _parsed(said).get("beat")
    return time.time() - beat if isinstance(beat, (int, float)) else float("inf")


def _parsed(said: bytes) -> dict[str, Any]:
    try:
        driver = json.loads(said)
    except ValueError:
        return {}
    return driver if isinstance(driver, dict) else {}


def _is_here(said: bytes) -> bool:
    """Whether it is of this machine, where `_is_dead` has seen its process."""
    return _parsed(said).get("host") == host()


def _describe(said: bytes) -> str:
    driver = _parsed(said)
    return f"another driver (process {driver.get('pid')} on {str(driver.get('host')).rpartition('-')[0]})"

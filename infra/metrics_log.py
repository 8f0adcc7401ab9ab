"""metrics.jsonl: what a clip's training logged, a line a point, {time_ms, scale, iteration, metrics}.

Written before the checkpoint that comes after it, and durable when written: a checkpoint never counts iterations whose
points are lost. A resumed training makes some points again; they are the same ones and are skipped. What is skipped
depends on scale and iteration only: time_ms may jump as the clock likes.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

from infra.files import append


class MetricsLog:
    """Appends to `path`, from the last whole line on: a process may have died, or a disk been full, within a line.

    A process that the clip was taken from may still write its last point after this one began to read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = 0  # of the file, as this process knows it
        self._last = _place(-1, None)
        if path.exists():
            self._read()

    def _read(self) -> None:
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(self._path, len(whole))
        if whole:
            last = json.loads(whole.splitlines()[-1])
            self._last = _place(last["scale"], last["iteration"])
        self._bytes = len(whole)

    def append(self, scale: int, iteration: int | None, metrics: Mapping[str, float]) -> None:
        """Log a point, unless it is there already. Raises StorageError if it cannot be written.

        Args:
            iteration: how many of the scale are done; None for what is measured after the last one.
        """
        if self._path.exists() and self._path.stat().st_size != self._bytes:
            self._read()  # somebody else wrote
        if _place(scale, iteration) <= self._last:
            return
        point = {
            "time_ms": time.time_ns() // 1_000_000,
            "scale": scale,
            "iteration": iteration,
            "metrics": dict(metrics),
        }
        line = json.dumps(point)
        append(self._path, line)
        self._bytes += len(line) + 1
        self._last = _place(scale, iteration)


def _place(scale: int, iteration: int | None) -> tuple[int, float]:
    """Where a line stands in the log: one without iteration comes after all the others of its scale."""
    return scale, math.inf if iteration is None else iteration

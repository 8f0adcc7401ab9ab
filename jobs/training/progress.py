"""How far the clips of a corpus are: reported by their tasks, displayed by the driver (board.py)."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import ray
from ray.exceptions import RayError
from rich.console import Console
from rich.live import Live

from infra.errors import counted
from jobs.reports.duration import duration
from jobs.training.board import Board, ClipProgress, Work, memory_in_use
from model.config import TrainConfig
from model.pyramid import ladder

LINE_S = 60.0  # seconds between two prints where there is no terminal to draw on
NAMESPACE = b"hp-vae-gan"  # of Ray's key-value store, which is at its head and needs no process of its own
PATIENCE_S = 2.0  # that a training or the driver waits for Ray's head


def reporter(clip_id: str, config: TrainConfig, size: tuple[int, int]) -> Callable[[Any], None]:
    """A function for a clip's task, which leaves the logged points of its training (`loop.Progress`) at Ray's head.

    Args: size: height and width of the clip's frames, px.
    """
    work = functools.cache(lambda: Work(config, ladder(config, *size)))

    def report(point: Any) -> None:
        values = json.dumps(asdict(work().progress(point.scale, point.iteration, point.metrics))).encode()
        with contextlib.suppress(RayError):  # only the display: a head that does not answer costs no training
            _head().internal_kv_put(_key(clip_id), values, True, NAMESPACE, PATIENCE_S)

    return report


def reported(clip_ids: Iterable[str]) -> dict[str, ClipProgress]:
    """For the driver: how far clips are, by clip id, without those that have reported nothing. Raises RayError."""
    keys = {_key(clip_id): clip_id for clip_id in clip_ids}
    found = _head().internal_kv_multi_get(list(keys), NAMESPACE, PATIENCE_S)
    return {keys[key]: ClipProgress(**json.loads(values)) for key, values in found.items()}


def forget(clip_id: str) -> None:
    """For the driver: remove what the task of a clip that has ended left."""
    with contextlib.suppress(RayError):
        _head().internal_kv_del(_key(clip_id), False, NAMESPACE, PATIENCE_S)


def _head() -> Any:
    """This process's client of Ray's head, which has a key-value store."""
    return ray._private.worker.global_worker.gcs_client  # type: ignore[attr-defined]


def _key(clip_id: str) -> bytes:
    """Of this driver's clip: another driver on the cluster may have one of the same name."""
    return f"{ray.get_runtime_context().get_job_id()}/{clip_id}".encode()


class ProgressDisplay:
    """A line for each clip in flight and one for the corpus on a terminal; elsewhere a few lines a minute.

    Args: board: when the display begins, without a clip in flight.
    """

    def __init__(self, console: Console, board: Board) -> None:
        self._console, self._board = console, board
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._printed = time.monotonic()
        self._started: dict[str, float] = {}
        self._durations: list[float] = []

    def __enter__(self) -> ProgressDisplay:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, progress: Mapping[str, ClipProgress], in_flight: Sequence[str]) -> None:
        """Display how far the clips in flight are. progress: by clip id; without those that have reported nothing."""
        now = time.monotonic()
        for clip_id in progress.keys() & set(in_flight):
            self._started.setdefault(clip_id, now)
        # What Ray holds back for want of a slot is not in training.
        clips = {clip_id: progress[clip_id] for clip_id in in_flight if clip_id in progress}
        mean = sum(self._durations) / len(self._durations) if self._durations else None
        elapsed = {clip_id: now - self._started[clip_id] for clip_id in clips}
        self._board = replace(self._board, clips=clips, elapsed_s=elapsed, clip_s=mean, machine=_load())
        if self._live:
            self._live.update(self._board.draw(*self._console.size), refresh=True)
        elif now - self._printed >= LINE_S:
            self._printed = now
            self._console.print(self._board.text(), soft_wrap=True)

    def finished(self, clip_id: str, reason: str) -> None:
        """Count a clip as finished, and print its outcome. reason: why it failed, or ""."""
        took = ""
        if clip_id in self._started:
            seconds = time.monotonic() - self._started.pop(clip_id)
            self._durations += [] if reason else [seconds]
            took = f"  {duration(seconds)}"
        board = self._board
        clips = {other: clip for other, clip in board.clips.items() if other != clip_id}
        done, failed = board.done + (not reason), board.failed + bool(reason)
        self._board = replace(board, done=done, failed=failed, clips=clips)
        outcome = f"failed: {reason}" if reason else "done"
        self._console.print(f"{clip_id}  {outcome}  ({done + failed}/{board.total}){took}", soft_wrap=True)


@contextlib.contextmanager
def reading(console: Console) -> Iterator[Callable[[int, int], None]]:
    """While the body reads the corpus, a function of how many clips are decoded and of how many: a terminal displays
    it, other outputs have a line a minute."""
    printed = time.monotonic()
    with console.status("reading the corpus") as status:

        def advance(done: int, total: int) -> None:
            nonlocal printed
            text = f"reading the corpus: {done} of {counted(total, 'clip')}"
            status.update(text)
            if not console.is_terminal and time.monotonic() - printed >= LINE_S:
                printed = time.monotonic()
                console.print(text, soft_wrap=True)

        yield advance


def _load() -> str:
    """What the tasks have of the cluster, and the memory of the driver's machine."""
    if not ray.is_initialized():
        return memory_in_use()
    there, free = ray.cluster_resources(), ray.available_resources()
    kind = "GPU" if there.get("GPU") else "CPU"
    if not there.get(kind):  # with --max-gpus: a cluster that starts its nodes
        return "no node yet, `ray status` says what the cluster starts"
    used = there.get(kind, 0) - free.get(kind, 0)
    return f"{kind} {used:g}/{there.get(kind, 0):g}, {memory_in_use()}"

"""How far the clips of a corpus are: reported by their tasks, displayed by the driver, a live line a clip."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

LINE_S = 15.0  # seconds between two plain lines of a clip where there is no terminal to draw on


@dataclass(frozen=True)
class ClipProgress:
    """Where a clip is: finished iterations of all scales, how many there are, the last logged point in words."""

    done_iterations: int
    iterations: int
    text: str  # "scale 3/5  120/200  loss 0.0123  0.25 s/it"


@ray.remote(num_cpus=0, max_restarts=-1)
class ProgressActor:
    """Where tasks leave how far they are, and the driver reads it. One small actor a corpus."""

    def __init__(self) -> None:
        self._clips: dict[str, ClipProgress] = {}

    def put(self, clip_id: str, progress: ClipProgress) -> None:
        """Keep how far a clip is now."""
        self._clips[clip_id] = progress

    def forget(self, clip_id: str) -> None:
        """Drop a clip that has ended."""
        self._clips.pop(clip_id, None)

    def get(self) -> dict[str, ClipProgress]:
        """How far each clip is, by clip id."""
        return self._clips


def reporter(clip_id: str, iterations: Sequence[int], actor: Any) -> Callable[[Any], None]:
    """A function that reports the logged points of a clip's training (`loop.Progress`) to the actor."""

    def report(point: Any) -> None:
        loss, speed = point.metrics["rec_loss"], point.metrics["sec_per_iter"]
        n, done = point.scale, point.iteration
        text = f"scale {n}/{len(iterations) - 1}  {done}/{iterations[n]}  rec_loss {loss:.4f}  {speed:.3f} s/it"
        actor.put.remote(clip_id, ClipProgress(sum(iterations[:n]) + done, sum(iterations), text))

    return report


class ProgressDisplay:
    """A progress bar over clips with a line for each clip in flight; plain lines when the output is no terminal."""

    def __init__(self, console: Console, clips: int, already_done: int) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._corpus = self._bars.add_task("clips", total=clips, completed=already_done, text="")
        self._clips: dict[str, TaskID] = {}
        self._printed: dict[str, tuple[float, ClipProgress]] = {}

    def __enter__(self) -> ProgressDisplay:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(self, progress: Mapping[str, ClipProgress], in_flight: Sequence[str]) -> None:
        """Display how far the clips in flight are. progress: by clip id; without those that have reported nothing."""
        for clip_id in in_flight:
            now = progress.get(clip_id)
            if now is None:
                continue
            if self._console.is_terminal:
                if clip_id not in self._clips:
                    self._clips[clip_id] = self._bars.add_task(clip_id, total=now.iterations, text="")
                self._bars.update(self._clips[clip_id], completed=now.done_iterations, text=now.text)
            else:
                last_time, last = self._printed.get(clip_id, (0.0, None))
                if now != last and time.monotonic() - last_time >= LINE_S:
                    self._printed[clip_id] = (time.monotonic(), now)
                    self._console.print(f"{clip_id}  {now.text}", soft_wrap=True)

    def finished(self, clip_id: str, outcome: str) -> None:
        """Count a clip as finished, and print its outcome."""
        if clip_id in self._clips:
            self._bars.remove_task(self._clips.pop(clip_id))
        self._bars.advance(self._corpus)
        self._console.print(f"{clip_id}  {outcome}", soft_wrap=True)

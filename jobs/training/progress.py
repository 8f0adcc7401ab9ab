"""What a corpus run shows while it works: a live line a clip."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

LINE_S = 15.0  # seconds between two plain lines of a clip where there is no terminal to draw on


@dataclass(frozen=True)
class Standing:
    """Where a clip is: finished iterations of all scales, and the last logged point in words."""

    done_iterations: int
    text: str  # "scale 3/5  120/200  loss 0.0123  0.25 s/it"


@ray.remote(num_cpus=0, max_restarts=-1)
class Standings:
    """The place where tasks leave how far they are; asked by the driver. One small actor a corpus."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}

    def put(self, clip_id: str, standing: Standing) -> None:
        self._standings[clip_id] = standing

    def forget(self, clip_id: str) -> None:
        self._standings.pop(clip_id, None)

    def get(self) -> dict[str, Standing]:
        return self._standings


class Board:
    """A progress bar over clips with a line for each clip in flight; plain lines when the output is no terminal."""

    def __init__(self, console: Console, clips: int, already_done: int, iterations: int) -> None:
        self._console = console
        self._iterations = iterations  # of one clip, over all scales
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
        self._printed: dict[str, tuple[float, Standing]] = {}

    def __enter__(self) -> Board:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(self, standings: Mapping[str, Standing], in_flight: Sequence[str]) -> None:
        for clip_id in in_flight:
            standing = standings.get(clip_id)
            if standing is None:
                continue
            if self._console.is_terminal:
                if clip_id not in self._clips:
                    self._clips[clip_id] = self._bars.add_task(clip_id, total=self._iterations, text="")
                self._bars.update(self._clips[clip_id], completed=standing.done_iterations, text=standing.text)
            else:
                last_time, last = self._printed.get(clip_id, (0.0, None))
                if standing != last and time.monotonic() - last_time >= LINE_S:
                    self._printed[clip_id] = (time.monotonic(), standing)
                    self._console.print(f"{clip_id}  {standing.text}", soft_wrap=True, markup=False, highlight=False)

    def finished(self, clip_id: str, outcome: str) -> None:
        if clip_id in self._clips:
            self._bars.remove_task(self._clips.pop(clip_id))
        self._bars.advance(self._corpus)
        self._console.print(f"{clip_id}  {outcome}", soft_wrap=True, markup=False, highlight=False)

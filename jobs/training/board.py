"""The board of a corpus: which clips are in flight, how far each is, and how long it will take.

The driver of a corpus job draws it from what tasks report (progress.py), jobs/watch.py from the files of the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psutil
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobs.reports.duration import duration
from model.config import TrainConfig
from model.pyramid import ScaleSize
from model.timing import needed_gflops

LOSS_COLUMNS, MEMORY_COLUMNS = 80, 90  # of a terminal, from which on a clip's line has its loss, and its memory too
NAMED = 5  # clips that a log tells of at a time
GIB = 2**30


@dataclass(frozen=True)
class ClipProgress:
    """Where a clip is.

    Attributes:
        iteration: finished ones of the scale, of `iterations`.
        loss: rec_loss at the last logged point.
        part: of the training that is done, from 0 to 1, by the operations that iterations need.
        left_s: of training, at the speed of now.
    """

    scale: int
    scales: int
    iteration: int
    iterations: int
    loss: float
    sec_per_iter: float
    peak_gib: float
    part: float
    left_s: float

    @property
    def trained(self) -> bool:
        """Whether its samples are made and scored now."""
        return self.part >= 1

    @property
    def words(self) -> str:
        """scale 3/5 62 %, 0.25 s/it, loss 0.0123, about 1:02:03 left"""
        if self.trained:
            return "samples"
        at = f"scale {self.scale}/{self.scales - 1} {100 * self.part:.0f} %"
        return f"{at}, {self.speed}, loss {self.loss:.4f}, about {duration(self.left_s)} left"

    @property
    def speed(self) -> str:
        """0.25 s/it"""
        return f"{self.sec_per_iter:.3g} s/it"


class Work:
    """The operations that the training of one clip needs: iterations of fine scales take longer than of coarse ones."""

    def __init__(self, config: TrainConfig, sizes: Sequence[ScaleSize]) -> None:
        self._iterations = config.iterations
        self._gflops = [needed_gflops(config, sizes, n) for n in range(len(self._iterations))]
        self._total = sum(count * each for count, each in zip(self._iterations, self._gflops, strict=True))

    def progress(self, scale: int, iteration: int, metrics: Mapping[str, float]) -> ClipProgress:
        """Where a clip is after a logged point (`loop.Progress`)."""
        done = sum(self._iterations[n] * self._gflops[n] for n in range(scale)) + iteration * self._gflops[scale]
        speed = metrics["sec_per_iter"]
        return ClipProgress(
            scale,
            len(self._iterations),
            iteration,
            self._iterations[scale],
            loss=metrics.get("rec_loss", float("nan")),
            sec_per_iter=speed,
            peak_gib=metrics.get("peak_gib", 0.0),
            part=done / self._total,
            left_s=(self._total - done) / self._gflops[scale] * speed,
        )


@dataclass(frozen=True)
class Board:
    """A corpus in training.

    Attributes:
        total: clips, and files that cannot be used, which are `failed`.
        clips: those in flight; None: nothing is known of it yet.
        elapsed_s: for how long each of those has been in flight, where it is known.
        clip_s: what a whole clip takes with its samples, seconds; None: nothing is known yet.
        machine: the load, in words.
    """

    total: int
    done: int
    failed: int = 0
    clips: Mapping[str, ClipProgress | None] = field(default_factory=dict)
    elapsed_s: Mapping[str, float] = field(default_factory=dict)
    clip_s: float | None = None
    machine: str = ""

    @property
    def left_s(self) -> float | None:
        """Of the corpus, with as many clips at once as now.

        None: not known yet, as no clip has ended and one is at its samples, or has reported nothing.
        """
        left, whole = [], []
        for clip_id, clip in self.clips.items():
            if self.clip_s is not None:
                least = clip.left_s if clip else 0.0
                left.append(max(least, self.clip_s - self.elapsed_s.get(clip_id, self.clip_s / 2)))
            elif clip is None or clip.trained:
                return None
            else:
                left.append(clip.left_s)
                whole.append(clip.left_s / (1 - clip.part))
        if not left:
            return None
        mean = self.clip_s if self.clip_s is not None else sum(whole) / len(whole)
        waiting = self.total - self.done - self.failed - len(left)
        return max([*left, (sum(left) + waiting * mean) / len(left)])

    @property
    def summary(self) -> str:
        """3/25 done, 1 failed, 4 in training, about 1:02:03 left"""
        words = [f"{self.done}/{self.total} done"]
        words += [f"{self.failed} failed"] if self.failed else []
        words += [f"{len(self.clips)} in training"] if self.clips else []
        left = self.left_s
        words += [f"about {duration(left)} left"] if left is not None and self.clips else []
        return ", ".join(words)

    @property
    def headline(self) -> str:
        """The summary and the machine: 3/25 done, 4 in training; GPU 4/4, memory 5.1 of 23 GiB"""
        return "; ".join(filter(None, [self.summary, self.machine]))

    def text(self) -> str:
        """For a log: the headline, and a line for each of the NAMED clips that will take longest."""
        known = {clip_id: clip for clip_id, clip in self.clips.items() if clip}
        slowest = sorted(known, key=lambda clip_id: -known[clip_id].left_s)[:NAMED]
        lines = [self.headline, *(f"  {clip_id}  {known[clip_id].words}" for clip_id in slowest)]
        return "\n".join([*lines, *_and_more(len(known) - len(slowest))])

    def draw(self, width: int, height: int | None = None) -> RenderableType:
        """The headline and a line a clip, for a terminal of that width.

        Args: height: lines that all of it may take, of which the last says how many clips there are beside; None: any.
        """
        parts = [line for line in (self.summary, self.machine) if line]
        head = [self.headline] if cell_len(self.headline) <= width else parts
        room = len(self.clips) if height is None else height - len(head)
        if room < len(self.clips):
            room = max(0, room - 1)
        shown = dict(list(self.clips.items())[:room])
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(ratio=4, no_wrap=True, overflow="ellipsis", min_width=12)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1, min_width=5)
        columns = 5 + (width >= LOSS_COLUMNS) + (width >= MEMORY_COLUMNS)
        for _ in range(columns - 3):
            table.add_column(justify="right", no_wrap=True)
        for clip_id, clip in shown.items():
            if clip is None:
                table.add_row(clip_id, "starting")
                continue
            cells: list[RenderableType] = [Text(clip_id)]
            if clip.trained:
                cells += ["samples", ProgressBar(1, 1)]
            else:
                at = f"scale {clip.scale}/{clip.scales - 1} {clip.iteration}/{clip.iterations}"
                cells += [at, ProgressBar(1, clip.part)]
                cells += [clip.speed, duration(clip.left_s)]
                extra = [f"loss {clip.loss:.4f}", f"{clip.peak_gib:.1f} GiB"]
                cells += extra[: columns - 5]
            table.add_row(*cells)
        lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in head]
        return Group(*lines, table, *map(Text, _and_more(len(self.clips) - len(shown))))


def _and_more(clips: int) -> list[str]:
    """The line, if any, on clips that have none."""
    return [f"  and {clips} more"] if clips else []


def memory_in_use() -> str:
    """How much memory of this machine is in use, in words."""
    memory = psutil.virtual_memory()
    return f"memory {(memory.total - memory.available) / GIB:.1f} of {memory.total / GIB:.0f} GiB"

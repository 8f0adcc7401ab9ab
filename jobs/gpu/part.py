"""A part of the check: a function in a process of its own, which is ended when its time is over."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Literal

from infra.errors import one_line
from model.config import TrainConfig
from model.pyramid import ScaleSize

Status = Literal["passed", "failed", "not possible"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured.

    Attributes:
        device: cuda or cpu.
        config: all of its scales are trained.
        sizes: (T, H, W) of every scale.
        seconds: that a speed is measured for.
        quick: a rehearsal, of which no figure means anything.
    """

    device: str
    config: TrainConfig
    sizes: Sequence[ScaleSize]
    seconds: float
    quick: bool


@dataclass(frozen=True)
class Found:
    """What a part found.

    Attributes:
        passed: whether everything it compares is as it must be.
        lines: Markdown, at most 80 columns.
        figures: the same for a program; JSON.
    """

    passed: bool
    lines: Sequence[str]
    figures: Mapping[str, Any] = field(default_factory=dict)


class NotPossible(Exception):
    """This machine does not have what a part needs; one line."""


@dataclass(frozen=True)
class Part:
    """One part: its title, what finds out, and how long that may take, seconds."""

    name: str
    title: str
    limit_s: float
    run: Callable[[Setting], Found]


@dataclass(frozen=True)
class Outcome:
    """How a part ended. lines, figures: as of `Found`; of one that did not find anything, why."""

    part: Part
    status: Status
    lines: Sequence[str]
    figures: Mapping[str, Any]
    seconds: float


def outcome_of(part: Part, setting: Setting, limit_s: float) -> Outcome:
    """Run a part in a new process for at most `limit_s`.

    Whatever goes wrong in it becomes the outcome. The processes that it has started end with it.
    """
    started = time.perf_counter()
    here, there = get_context("spawn").Pipe(duplex=False)
    process = get_context("spawn").Process(target=_work, args=(part.run, setting, there))
    process.start()
    there.close()
    try:
        status, lines, figures = here.recv() if here.poll(limit_s) else _ended(f"not done after {limit_s:.0f} s")
    except EOFError:
        process.join()
        status, lines, figures = _ended(f"its process died, exit code {process.exitcode}")
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it leads a group of its own
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()
    return Outcome(part, status, lines, figures, time.perf_counter() - started)


def _ended(why: str) -> tuple[Status, Sequence[str], Mapping[str, Any]]:
    return "failed", [why], {}


def _work(run: Callable[[Setting], Found], setting: Setting, answer: Connection) -> None:
    os.setsid()
    try:
        found = run(setting)
        answer.send(("passed" if found.passed else "failed", list(found.lines), dict(found.figures)))
    except NotPossible as error:
        answer.send(("not possible", [str(error)], {}))
    except Exception as error:  # the boundary where a failure becomes a line of the report
        answer.send(_ended(f"{type(error).__name__}: {one_line(error)}"))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table, columns aligned."""
    cells = [list(map(str, row)) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|", *lines[1:]]

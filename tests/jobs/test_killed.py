"""A training that is killed at any instruction and started again ends as one that was left alone, to the bit."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from infra.metrics_log import MetricsLog
from model import checkpoint as ckpt
from model.training.loop import Progress, train_clip
from tests.conftest import Injected
from tests.forked import FORK
from tests.model.conftest import CLIP_ID, assert_same, contents, one_thread, real_pyramid, tiny

pytestmark = pytest.mark.faults
CONFIG = tiny(iters_per_scale=(16, 12, 12, 12, 12), checkpoint_every=2)  # scales 0 to 2 are VAEs, 3 and 4 are GANs
RANDOM_KILLS = 12


class Death(NamedTuple):
    """How and at which scale a training kills itself, and what that leaves in the clip's folder."""

    how: str
    scale: int
    leaves: Callable[[Path], bool]


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_beyond(size: int) -> None:
    """The kernel ends the process in the middle of a write, once a file has `size` bytes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def die_at_rename(target: str, *, renamed: bool) -> None:
    """Before or after a file gets the name `target`."""
    replace = os.replace

    def deadly(source: Path, destination: Path) -> None:
        if destination.name != target or renamed:
            replace(source, destination)
        if destination.name == target:
            die()

    os.replace = deadly  # type: ignore[assignment]


ARM = {
    "in a line": lambda folder: die_beyond((folder / "metrics.jsonl").stat().st_size + 20),
    "in the first checkpoint": lambda folder: die_beyond(3000),
    "in a checkpoint": lambda folder: die_beyond((folder / "checkpoint.pt").stat().st_size // 2),
    "before the renames": lambda folder: die_at_rename("checkpoint.previous.pt", renamed=False),
    "between the renames": lambda folder: die_at_rename("checkpoint.previous.pt", renamed=True),
    "after the renames": lambda folder: die_at_rename("checkpoint.pt", renamed=True),
    "after the scale": lambda folder: None,
}


def temporaries(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.glob(".*.tmp")]


def torn_line(folder: Path) -> bool:
    return not (folder / "metrics.jsonl").read_bytes().endswith(b"\n")


def torn_file(folder: Path) -> bool:
    return bool(temporaries(folder)) and min(temporaries(folder)) < (folder / "checkpoint.pt").stat().st_size


# In the order of the training: each one is resumed from by the next.
DEATHS = [
    Death("in the first checkpoint", 0, lambda f: temporaries(f) == [3000] and not (f / "checkpoint.pt").exists()),
    Death("in a checkpoint", 0, torn_file),
    Death("in a line", 0, torn_line),
    Death("after the scale", 0, lambda f: ckpt.load(f / "checkpoint.pt").iteration == CONFIG.iterations[0]),
    Death("between the renames", 1, lambda f: not (f / "checkpoint.pt").exists() and len(temporaries(f)) == 1),
    Death("before the renames", 2, lambda f: (f / "checkpoint.pt").exists() and len(temporaries(f)) == 1),
    Death("after the scale", 2, lambda f: ckpt.load(f / "checkpoint.pt").critic is None),
    Death("in a checkpoint", 3, torn_file),
    Death("after the renames", 3, lambda f: not temporaries(f)),
    Death("after the scale", 3, lambda f: ckpt.load(f / "checkpoint.pt").critic is not None),
    Death("in a line", 4, torn_line),
    Death("between the renames", 4, lambda f: not (f / "checkpoint.pt").exists() and len(temporaries(f)) == 1),
]


def fit(folder: Path, how: str = "", scale: int = -1) -> None:
    """Train in `folder`, and die there at `scale`: after its end, or soon after its `armed` iterations."""
    armed = {"in the first checkpoint": 1, "in a line": 7}.get(how, 3)  # lines that are there already are not written
    points = MetricsLog(folder / "metrics.jsonl")

    def log(progress: Progress) -> None:
        if progress.scale == scale and progress.iteration >= armed:
            ARM[how](folder)
        points.append(progress.scale, progress.iteration, progress.metrics)

    def warn(line: str) -> None:
        with open(folder / "warnings.txt", "a") as file:
            file.write(line + "\n")

    with one_thread():
        path = folder / "checkpoint.pt"
        for done in train_clip(CONFIG, [real_pyramid()], clip_id=CLIP_ID, path=path, log=log, warn=warn):
            if (how, scale) == ("after the scale", done.n):
                die()
            points.append(done.n, None, {"noise_amp": done.stack.noise_amps[done.n]})


def run(folder: Path, *death: Any, killed_after_s: float | None = None) -> int:
    """Exit status of a training in a process of its own: 0, or minus the signal that ended it."""
    folder.mkdir(exist_ok=True)
    process = FORK.Process(target=fit, args=(folder, *death))
    process.start()
    process.join(120 if killed_after_s is None else killed_after_s)
    if process.is_alive():
        assert killed_after_s is not None, "the training hangs"
        process.kill()
        process.join()
    assert process.exitcode is not None
    return process.exitcode


class Whole(NamedTuple):
    final: ckpt.Checkpoint
    points: list[dict[str, Any]]
    seconds: float


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A training that is left alone."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder / "warm", "in the first checkpoint", 0)  # so that the server is there when the time is taken
    started = time.monotonic()
    assert run(folder) == 0
    return Whole(ckpt.load(folder / "checkpoint.pt"), points_of(folder), time.monotonic() - started)


def points_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what is measured with a clock."""
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for point in points:
        del point["time_ms"]
        for name in ("sec_per_iter", "peak_gib"):
            point["metrics"].pop(name, None)
    return points


def everything(final: ckpt.Checkpoint, points: list[dict[str, Any]]) -> list[Hashable]:
    return [*contents(final), *(json.dumps(point, sort_keys=True) for point in points)]


def assert_as_left_alone(folder: Path, whole: Whole) -> None:
    assert_same(ckpt.load(folder / "checkpoint.pt"), whole.final)
    assert points_of(folder) == whole.points  # none lost, none twice
    assert {path.name for path in folder.iterdir()} - {"warnings.txt"} == {
        *("checkpoint.pt", "checkpoint.previous.pt", "metrics.jsonl")
    }


@pytest.mark.slow
def test_killed_where_it_hurts(whole: Whole, tmp_path: Path, injected: Injected) -> None:
    for how, scale, leaves in DEATHS:
        assert run(tmp_path, how, scale) in (-signal.SIGKILL, -signal.SIGXFSZ), (how, scale)
        assert leaves(tmp_path), (how, scale)
    assert run(tmp_path) == 0
    final, points = ckpt.load(tmp_path / "checkpoint.pt"), points_of(tmp_path)
    injected("training killed inside a write", everything(*whole[:2]), everything(final, points), times=len(DEATHS))
    assert_as_left_alone(tmp_path, whole)
    lines = (tmp_path / "warnings.txt").read_text().splitlines()
    assert len(lines) == 2 and all("gone; went on from checkpoint.previous.pt" in line for line in lines)


@pytest.mark.slow
def test_killed_at_random_moments(whole: Whole, tmp_path: Path, injected: Injected) -> None:
    draw = random.Random(7)
    kills = trainings = 0
    while kills < RANDOM_KILLS:
        trainings, before = trainings + 1, kills
        folder = tmp_path / str(trainings)
        while (code := run(folder, killed_after_s=draw.uniform(0.05, 0.6) * whole.seconds)) != 0:
            assert code == -signal.SIGKILL
            kills += 1
            if kills == RANDOM_KILLS:
                assert run(folder) == 0
                break
        final, points = ckpt.load(folder / "checkpoint.pt"), points_of(folder)
        if kills > before:
            fault, times = "training killed at a random moment", kills - before
            injected(fault, everything(*whole[:2]), everything(final, points), times=times)
        assert_as_left_alone(folder, whole)

"""jobs/watch.py: the board of a job from the files of its storage."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from infra.store import host
from jobs import watch
from jobs.training.board import Board
from jobs.training.watching import Watch

from .conftest import Trained

LOOK = Watch.look


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.fixture
def half(trained: Trained, tmp_path: Path) -> Path:
    """The experiment when one clip was in its second scale: two of four points of that are there."""
    base = tmp_path / "mixed"
    shutil.copytree(trained.storage / "mixed", base)
    clip = base / trained.clips["good"].name
    (clip / "result.json").unlink()
    lines = (clip / "metrics.jsonl").read_text().splitlines(keepends=True)
    points = [json.loads(line) for line in lines]
    last = next(n for n, point in enumerate(points) if (point["scale"], point["iteration"]) == (1, 2))
    (clip / "metrics.jsonl").write_text("".join(lines[: last + 1]) + lines[last + 1][:20])  # a torn line
    return base


def test_an_experiment_that_has_ended_is_one_line(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch.main([str(trained.storage / "mixed")]) == 0
    said = told(capsys)
    assert said == "2/9 done, 7 failed; ended"


def test_a_clip_in_training_is_named_with_its_scale(half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch.main(["mixed", "--storage", str(half.parent), "--once"]) == 0
    said = told(capsys)
    assert said.startswith("1/9 done, 7 failed, 1 in training") and "scale 1/3" in said
    assert "; no driver; the same command goes on" in said


def test_it_watches_until_the_driver_is_gone(
    half: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = half / ".driver-1.json"
    lease.write_text(json.dumps({"host": host(), "pid": os.getpid(), "beat": time.time()}))
    looks: list[Board] = []

    def look(watched: Watch) -> Board:
        looks.append(LOOK(watched))
        if len(looks) == 2:
            lease.unlink()
        return looks[-1]

    monkeypatch.setattr(watch, "LOOK_S", 0.05)
    monkeypatch.setattr(Watch, "look", look)
    assert watch.main([str(half)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("  ")]
    assert f"driver (process {os.getpid()} on " in lines[0] and "no driver" in lines[-1] and len(lines) == 2


@pytest.mark.parametrize("name", ["nothing", "other"])
def test_what_is_no_experiment_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").mkdir()
    assert watch.main([str(tmp_path / name)]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{tmp_path / name}: holds no experiment" in line
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("submission.json", '{"clip_ids": ['),
        ("{clip}/metrics.jsonl", "\0\0\0\n"),
        ("{clip}/metrics.jsonl", "[1]\n"),
        ("{clip}/metrics.jsonl", '{"scale": 9, "iteration": 1, "metrics": {}}\n'),
    ],
)
def test_a_damaged_file_is_one_line(
    file: str, content: str, half: Path, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    path = half / file.format(clip=trained.clips["good"].name)
    path.write_text(content)
    assert watch.main([str(half), "--once"]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"error: {path}: cannot be read")

"""A tracking server that is killed: training does not notice, and afterwards the store has everything once."""

from __future__ import annotations

import logging
import os
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.store import Store
from infra.tracking import forward as forwarding
from infra.tracking import runs as tracking
from jobs.experiment.experiment import Experiment
from jobs.training.task import ClipTask, fit_in_folder
from model.config import TrainConfig
from model.presets import demo
from tests.conftest import EmptyStore, Injected
from tests.infra.mlflow_server import EVERYTHING, POINTS, RUNS, Server, assert_files_are_there_once, files, logged, rows

from .conftest import ROOT, TINY, make_video, run_job, run_process
from .test_interrupted import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.faults]


@pytest.fixture
def server(tmp_path: Path, empty_store: EmptyStore) -> Iterator[Server]:
    server = Server(tmp_path / "server", f"sqlite:///{empty_store(tmp_path / 'server' / 'store.db')}")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def store(tmp_path: Path, server: Server) -> sqlite3.Connection:
    return sqlite3.connect(tmp_path / "server" / "store.db")


def acting(then: dict[tuple[int, int], Callable[[], None]]) -> Callable[[Any], None]:
    """Takes the place of the display: calls then[scale, iteration] when so much is done, in the process that trains."""

    def report(progress: Any) -> None:
        if act := then.pop((progress.scale, progress.iteration), None):
            act()

    return report


def tiny(**settings: str) -> TrainConfig:
    given = [word for word in TINY if "=" in word] + [f"{name}={value}" for name, value in settings.items()]
    return demo().with_overrides(given)


def test_a_server_that_is_away_in_mid_training(
    server: Server,
    store: sqlite3.Connection,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    injected: Injected,
) -> None:
    """Killed in scale 1, there again in scale 2: points and a scale's end lie between."""
    monkeypatch.setattr(forwarding, "FORWARD_S", 0.5)
    caplog.set_level(logging.WARNING, "infra.tracking.forward")

    def told() -> list[str]:
        return [text for text in map(logging.LogRecord.getMessage, caplog.records) if "will try again" in text]

    def come_back() -> None:
        deadline = time.monotonic() + 60
        while not told():  # the forwarding thread has noticed
            assert time.monotonic() < deadline
            time.sleep(0.1)
        server.start()

    frames = np.random.default_rng(0).integers(0, 256, (13, 48, 64, 3), np.uint8)
    corpus = tracking.open_parent(server.uri, "outage", tmp_path, {})
    config = tiny(iters_per_scale="40", log_every="4")
    task = ClipTask("clip", "clip.mp4", config, Experiment(Store(str(tmp_path))), corpus, 2)
    then = {(1, 12): server.kill, (2, 12): come_back}
    result = fit_in_folder(task, [frames], acting(then))
    assert result.status == "done", result.reason
    assert not then

    folder = tmp_path / "clip"
    assert forwarding.run_of(corpus, folder)
    assert rows(store, POINTS) == logged(folder)
    injected("MLflow is away in mid-training: points", logged(folder), rows(store, POINTS))
    assert rows(store, RUNS) == [("clip", "FINISHED")]
    (stored,) = files(server.artifacts).values()
    assert_files_are_there_once(folder, stored)
    assert len(told()) == 1, caplog.records  # one an outage


def test_a_clip_that_ends_while_the_server_is_away(
    server: Server, store: sqlite3.Connection, tmp_path: Path, injected: Injected
) -> None:
    make_video(tmp_path / "clip.mp4", size="48x48")
    storage = tmp_path / "with space"
    arguments = ["--corpus", str(tmp_path / "clip.mp4"), "--storage", str(storage), "--experiment", "away", *TINY]
    arguments += ["--set", "iters_per_scale=30", "--cpus-per-clip", "1", "--tracking-uri", server.uri]
    command = [sys.executable, str(ROOT / "jobs" / "train_corpus.py"), *arguments]
    env = os.environ | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}  # it is away, and five seconds later it still is
    process = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 300
        while not (found := list((storage / "away").glob("clip-*/metrics.jsonl"))):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        wait_for(found[0], process, 20)
        server.kill()
        output, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, output
    (at,) = [i for i, line in enumerate(output.splitlines()) if line.startswith("warning: 1 clip and the totals ")]
    python, job, *upload = shlex.split(output.splitlines()[at + 1])
    assert (python, job) == ("python", "jobs/upload.py")

    server.start()
    done = run_process("upload.py", *upload)
    assert done.returncode == 0, done.stdout
    folder = found[0].parent
    assert rows(store, POINTS) == logged(folder)
    injected("MLflow is away at the end: points", logged(folder), rows(store, POINTS))
    assert rows(store, RUNS) == [(folder.name, "FINISHED")]
    of_clip, of_corpus = sorted(files(server.artifacts).values(), key=len, reverse=True)
    assert_files_are_there_once(folder, of_clip)
    assert of_corpus == ["corpus.png", "gallery.html", "results.txt"]

    def everything() -> list[Any]:
        return [[rows(store, query) for query in EVERYTHING], files(server.artifacts)]

    before = everything()
    for extra in ((), ("--all",)):
        done = run_job("upload.py", *upload, *extra)
        assert done.returncode == 0, done.stdout
        assert everything() == before

"""25 clips that are logged at once: through a server on PostgreSQL, and straight into the default sqlite file."""

from __future__ import annotations

import glob
import json
import multiprocessing
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from infra.files import replacing, write_json
from infra.metrics_log import MetricsLog
from infra.tracking import forward as forwarding
from infra.tracking import runs as tracking
from infra.tracking.uri import default_uri, tracking_uri
from jobs.experiment.result import Result, write_result
from model.config import RUN_SETTINGS
from model.presets import demo
from tests.conftest import Injected

from .mlflow_server import POINTS, RUNS, Server, assert_files_are_there_once, files, logged, rows

pytestmark = [pytest.mark.slow, pytest.mark.faults]

CLIPS = 25
SCALES, POINTS_A_SCALE = 3, 30


class Store(NamedTuple):
    corpus: tracking.ParentRun
    connection: Any  # to its database
    artifacts: Path
    logs: list[Path]  # what its server and its database said


def postgres_program(name: str) -> str | None:
    """A program of Debian's package, which puts them beside the PATH."""
    return shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))), None)


@pytest.fixture(scope="module")
def postgres() -> Iterator[tuple[str, Path]]:
    """A PostgreSQL cluster of these tests' own: its URI and its log. It listens on a socket in its folder only."""
    initdb, server = postgres_program("initdb"), postgres_program("postgres")
    if initdb is None or server is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # short: the path of a socket must be
    as_user: dict[str, Any] = {}
    if os.getuid() == 0:  # as whom it refuses to run
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data, log = folder / "data", folder / "log"
    made = subprocess.run(
        [initdb, "-D", data, "-A", "trust", "-U", "test", "-E", "UTF8", "--locale", "C"],
        cwd=folder, capture_output=True, text=True, **as_user,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    command = [server, "-D", data, "-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
    with open(log, "wb") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file, **as_user)
    try:
        deadline = time.monotonic() + 60
        while "ready to accept connections" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield f"postgresql://test:hidden@/postgres?host={folder}", log
    finally:
        process.send_signal(signal.SIGINT)  # "fast shutdown"
        process.wait(30)
        shutil.rmtree(folder)


@pytest.fixture
def server_on_postgres(postgres: tuple[str, Path], tmp_path: Path) -> Iterator[Store]:
    import psycopg

    uri, log = postgres
    server = Server(tmp_path, uri)
    server.start()
    connection = psycopg.connect(uri)
    connection.autocommit = True
    try:
        corpus = tracking.open_parent(server.uri, "many", tmp_path, {})
        yield Store(corpus, connection, server.artifacts, [server.log, log])
    finally:
        connection.close()
        server.kill()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Store]:
    corpus = tracking.open_parent(default_uri(tmp_path), "many", tmp_path, {})
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        yield Store(corpus, connection, tmp_path / "mlartifacts", [])
    connection.close()


def test_postgresql_keeps_the_runs_of_a_storage_folder_that_is_moved(
    postgres: tuple[str, Path], tmp_path: Path
) -> None:
    """With the driver that setup.cfg's extra installs, and a URI that names none."""
    import psycopg

    old, new = tmp_path / "old ?#%", tmp_path / "new"
    uri = tracking_uri(postgres[0], old)
    parent = tracking.open_parent(uri, "exp", old, {"corpus": "clips"})
    tracking.close_parent(parent, failed=False, metrics={"clips_done": 1.0}, table="the first")
    old.rename(new)
    assert tracking.open_parent(uri, "exp", new, {}) == parent
    client = parent.client()
    assert Path(client.download_artifacts(parent.run_id, "results.txt")).read_text() == "the first"
    tracking.close_parent(parent, failed=False, metrics={}, table="the second")
    assert [path.read_text() for path in tmp_path.rglob("results.txt")] == ["the second"] and not old.exists()
    assert "hidden" not in parent.link("1") + repr(parent) + parent.shown_uri
    with psycopg.connect(postgres[0]) as connection:
        for (table,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
            assert "hidden" not in str(connection.execute(f'SELECT * FROM "{table}"').fetchall()), table


def train(corpus: tracking.ParentRun, folder: Path) -> None:
    """What the task of a clip does, without the networks: it fills the folder while it is forwarded."""
    folder.mkdir()
    with open(folder.with_suffix(".log"), "wb") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    forwarding.FORWARD_S = 0.5
    with forwarding.forwarding(corpus, folder.name, folder, RUN_SETTINGS):
        about = {"clip_id": folder.name, "source": f"{folder.name}.mp4", "precision_used": "float32"}
        write_json(folder / "config.json", {**about, "config": demo().to_dict()})
        (folder / "samples").mkdir()
        points = MetricsLog(folder / "metrics.jsonl")
        for scale in range(SCALES):
            for iteration in range(1, POINTS_A_SCALE + 1):
                values = dict.fromkeys(("rec_loss", "kl_loss", "gp_loss", "adv_loss"), (scale + 1 / iteration) / 3)
                points.append(scale, iteration, values)
                time.sleep(0.02)
            points.append(scale, None, {"diversity": 0.1 * scale})
            with replacing(folder / "samples" / f"scale_{scale:02d}.png") as file:  # whole, as a training writes it
                Image.new("RGB", (64, 48), (80 * scale, 0, 0)).save(file, "PNG")
        (folder / "samples" / "sample_00.mp4").write_bytes(bytes(1000))
        (folder / "checkpoint.pt").write_bytes(bytes(100_000))
        write_json(folder / "metrics.json", {"svfid_lite0": 1 / 3, "diversity": 0.3, "num_samples": 2, "seed": 1})
        write_result(folder, Result(folder.name, "done", minutes=0.1))


def train_all(corpus: tracking.ParentRun, base: Path) -> None:
    """In a process without threads, which imports once for all."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    fork = multiprocessing.get_context("fork")
    clips = [fork.Process(target=train, args=(corpus, base / f"clip-{i:02d}")) for i in range(CLIPS)]
    for clip in clips:
        clip.start()
    for clip in clips:
        clip.join()
    assert [clip.exitcode for clip in clips] == [0] * CLIPS


@pytest.mark.parametrize("kind", ["server_on_postgres", "sqlite"])
def test_25_clips_at_once(kind: str, tmp_path: Path, request: pytest.FixtureRequest, injected: Injected) -> None:
    store: Store = request.getfixturevalue(kind)
    base = tmp_path / "many"
    base.mkdir()
    parent = multiprocessing.get_context("spawn").Process(target=train_all, args=(store.corpus, base))
    parent.start()
    parent.join(240)
    assert parent.exitcode == 0
    folders = sorted(path for path in base.iterdir() if path.is_dir())
    assert len(folders) == CLIPS

    def check() -> None:
        wanted, found = sorted(point for folder in folders for point in logged(folder)), rows(store.connection, POINTS)
        assert found == wanted
        injected(f"{CLIPS} clips log at once, {kind}: points", wanted, found)
        assert rows(store.connection, RUNS) == [(folder.name, "FINISHED") for folder in folders]
        stored = files(store.artifacts)
        for folder in folders:
            assert_files_are_there_once(folder, stored[forwarding.run_of(store.corpus, folder) or ""])
        assert len(stored) == CLIPS

    check()
    for said in [*store.logs, *base.glob("*.log")]:
        assert "locked" not in said.read_text() and "will try again" not in said.read_text(), said.read_text()
    for folder in folders[:3]:  # again: nothing twice
        assert json.loads((folder / "tracked.json").read_text())["corpus_run_id"] == store.corpus.run_id
        with forwarding.forwarding(store.corpus, folder.name, folder, RUN_SETTINGS):
            pass
    check()

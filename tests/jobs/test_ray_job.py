"""`ray job submit`, with token authentication, to a head with GPUs (Ray is told of two; the clips take turns)."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.ports import free_port, ray_head
from tests.test_doors import LOOPBACK, as_a_user, listening

from .conftest import ROOT, TINY, make_video

pytestmark = pytest.mark.slow


AUTH = {"RAY_AUTH_MODE": "token"}  # as infra/cluster/local_head.sh; the token is in this test's own HOME


class Head(NamedTuple):
    """A head started by infra/cluster/local_head.sh."""

    pid: int
    address: str  # of its job server
    joined: str  # where nodes and `ray status` find it


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    port, dashboard = free_port(), free_port()
    env = {**as_a_user(), **AUTH, "RAY_PORT": str(port), "RAY_DASHBOARD_PORT": str(dashboard)}
    script = [str(ROOT / "infra" / "cluster" / "local_head.sh"), "--num-cpus", "2", "--num-gpus", "2"]
    with ray_head(script, env, dashboard) as pid:
        yield Head(pid, f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}")


def submit(head: Head, *command_line: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    ray = str(Path(sys.executable).parent / "ray")
    command = [ray, "job", "submit", "--address", head.address, "--working-dir", ".", "--"]
    return subprocess.run(
        [*command, *map(str, command_line)],
        cwd=ROOT,
        env={**as_a_user(), **AUTH, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=500,
        check=False,
    )


def test_the_head_is_reached_from_this_machine_only(head: Head) -> None:
    deadline = time.monotonic() + 60
    while not {"gcs_server", "raylet"} <= dict(ports := listening(head.pid)).keys():
        assert time.monotonic() < deadline, ports
        time.sleep(0.5)
    assert {address for _, address in ports} <= LOOPBACK, ports


def test_ray_status_with_what_the_script_says_to_export(head: Head) -> None:
    """The token, and the variable by which Ray looks for the head where it listens: at 127.0.0.1."""
    exported = AUTH | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    status = [str(Path(sys.executable).parent / "ray"), "status", "--address", head.joined]
    deadline = time.monotonic() + 60
    while True:
        told = subprocess.run(
            status, env={**as_a_user(), **exported}, capture_output=True, text=True, timeout=100, check=False
        )
        assert told.returncode == 0, told.stderr
        if "GPU" in told.stdout:
            return
        assert "may take a few seconds" in told.stdout and time.monotonic() < deadline, told.stdout
        time.sleep(1)


def test_a_submitted_job_trains_each_clip_on_a_gpu(head: Head, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("one", "two"):
        make_video(videos / f"{name}.mp4", size="48x48")
    storage = tmp_path / "storage"
    train = ("python", "jobs/train_corpus.py", "--corpus", videos, *TINY, "--storage")
    done = submit(head, *train, storage)
    assert done.returncode == 0, done.stdout
    results = [json.loads(path.read_text()) for path in storage.rglob("result.json")]
    assert [result["status"] for result in results] == ["done"] * 2
    assert "columns that do not fit" in done.stdout and "next:    python jobs/sample.py" in done.stdout
    assert (storage / "mlflow.db").exists()

    # a client without the token is not let in
    stranger = submit(head, *train, storage, RAY_AUTH_MODE="disabled")
    assert stranger.returncode != 0 and "  done  " not in stranger.stdout

    # one job of three commands: its evaluation; more GPUs than a node has, which would wait for ever; a relative path,
    # which is in a job's own folder, that is thrown away
    (base,) = [path.parent for path in storage.rglob("submission.json")]
    commands = [
        ("python", "jobs/evaluate.py", base, "--n", "2", "--nn", "0"),
        (*train, tmp_path / "other", "--gpus-per-clip", "4"),
        (*train, "runs"),
    ]
    script = tmp_path / "three.sh"
    script.write_text("".join(f"{shlex.join(map(str, words))}\necho ended $?\n" for words in commands))
    ended = submit(head, "sh", script)
    scored, refused, lost, _ = re.split(r"^ended ", ended.stdout, flags=re.MULTILINE)
    assert re.findall(r"^ended (\d+)$", ended.stdout, re.MULTILINE) == ["0", "2", "2"], ended.stdout
    assert "mean of 2 clips" in scored, scored
    assert len(json.loads((base / "evaluation" / "results.json").read_text())["clips"]) == 2
    assert "--gpus-per-clip 4: above 0, at most 2" in refused
    assert "absolute path" in lost

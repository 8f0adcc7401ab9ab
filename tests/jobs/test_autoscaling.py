"""--max-gpus, on a cluster that has no GPU until a clip waits for one: Ray's autoscaler, with nodes of this machine."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.errors import UsageError
from infra.ray_cluster import ClipShare
from infra.store import IN_RAY_JOB
from tests.conftest import EmptyStore
from tests.ports import free_port, ray_head
from tests.test_doors import listening

from .conftest import ROOT, TINY, make_video, run_job, run_process

SMALL = 100 * 2**20  # bytes of a node's object store
CLUSTER: dict[str, Any] = {
    "cluster_name": "grows",
    "max_workers": 2,
    "upscaling_speed": 10,
    "idle_timeout_minutes": 5,
    "provider": {"type": "fake_multinode", "disable_node_updaters": True, "disable_launch_config_check": True},
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "gpu": {
            "resources": {"CPU": 1, "GPU": 1, "object_store_memory": SMALL},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        },
    },
    "head_node_type": "ray.head.default",
    "cluster_synced_files": [],
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{f"{name}_commands": [] for name in ("initialization", "setup", "head_setup", "worker_setup")},
    **{f"{name}_start_ray_commands": [] for name in ("head", "worker")},
}


def test_fewer_than_a_clip_takes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    done = run_job("train_corpus.py", "--corpus", "demo", "--max-gpus", "1", "--gpus-per-clip", "2", "--dry-run")
    assert done.returncode == 2
    assert "--max-gpus 1: at least --gpus-per-clip, which is 2" in done.stdout


def test_a_ray_that_starts_here_does_not_grow() -> None:
    with pytest.raises(UsageError, match=r"--max-gpus 2: a Ray that starts on this machine gets no further GPU"):
        ClipShare(max_gpus=2).slots(1)


@pytest.fixture
def head(tmp_path: Path) -> Iterator[str]:
    """The address of a head without a slot, which starts up to two nodes with a GPU each (Ray is told so)."""
    port, client, ray = free_port(), free_port(), Path(sys.executable).parent / "ray"
    provider = CLUSTER["provider"] | {"gcs_address": f"127.0.0.1:{port}"}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(CLUSTER | {"provider": provider}))
    command = [ray, "start", "--head", "--block", "--port", port, "--ray-client-server-port", client, "--num-cpus", 0]
    command += ["--num-gpus", 0, "--include-dashboard", "false", "--object-store-memory", SMALL]
    command += [f"--autoscaling-config={tmp_path / 'cluster.yaml'}"]
    environment = os.environ | {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "PYTHONPATH": str(ROOT)}
    with ray_head([*map(str, command)], environment, port) as pid:
        deadline = time.monotonic() + 60
        while "raylet" not in dict(listening(pid)):  # which a driver joins; the head's port answers before
            assert time.monotonic() < deadline, "the head did not come up"
            time.sleep(0.5)
        yield f"127.0.0.1:{port}"


@pytest.mark.slow
def test_the_cluster_grows_with_the_clips(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: EmptyStore
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", head)
    empty_store(tmp_path / "runs" / "mlflow.db")
    # The code is not sent to the nodes: Ray unpacks it in one folder of the machine, where one node would remove it
    # while a task of another runs from it.
    monkeypatch.setenv(IN_RAY_JOB, "{}")
    for name in ("one", "two"):
        (tmp_path / "videos").mkdir(exist_ok=True)
        make_video(tmp_path / "videos" / f"{name}.mp4", size="48x48")
    train = ["--corpus", tmp_path / "videos", *TINY, "--storage", tmp_path / "runs"]
    none = run_process("train_corpus.py", *train)
    assert none.returncode == 2, none.stdout
    assert "has no GPU and no core for a clip; if it starts nodes when clips wait, give --max-gpus" in none.stdout
    done = run_process("train_corpus.py", *train, "--max-gpus", "2")
    assert done.returncode == 0, done.stdout
    results = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/*/result.json")]
    assert [result["status"] for result in results] == ["done"] * 2

"""Drivers, processes and machines that die under a corpus, and memory that runs out."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import s3fs
import torch

from infra.store import Store
from jobs.experiment.result import Result
from jobs.training import schedule
from jobs.training.task import ClipTask, fit_task
from model import checkpoint as ckpt
from model.training.state import TrainState
from tests.conftest import EmptyStore, Injected
from tests.infra.s3 import s3_server

from .conftest import ROOT, TINY, make_video, run_job

pytestmark = [pytest.mark.slow, pytest.mark.faults]

NODES = 2
OFTEN = ("--set", "checkpoint_every=10", "--set", "log_every=5")
# Scale 2 is long enough, by slowly.py, that what it has is in the store before its end, whatever the machine.
LONG = ("--set", "iters_per_scale=10,10,80,10", *OFTEN)
QUICK_DEATHS = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "1000",
}


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 200) -> Any:
    """What `condition` returns, once that is true; `process` must live until then."""
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < deadline, "it did not happen in time"
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def start(folder: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    """In a folder: with an object store and sqlite, MLflow's artifacts go to runs/ in it."""
    command = [sys.executable, str(ROOT / "tests" / "jobs" / "slowly.py"), *map(str, arguments)]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def raylet_of(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def points(lines: str) -> list[tuple[int, int | None, str, str]]:
    """(scale, iteration, name, value) of a metrics log, without what is measured with a clock."""
    return [
        (line["scale"], line["iteration"], name, repr(value))
        for line in map(json.loads, lines.splitlines())
        for name, value in line["metrics"].items()
        if name not in ("sec_per_iter", "peak_gib")
    ]


def weights(saved: ckpt.Checkpoint) -> list[tuple[str, bytes]]:
    return [(name, tensor.numpy().tobytes()) for name, tensor in saved.generators.items()]


@pytest.fixture
def bucket() -> Iterator[str]:
    with s3_server() as address:
        s3fs.S3FileSystem(endpoint_url=address).mkdir("runs")
        yield "s3://runs"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without a slot and two nodes with one each."""
    for name, value in QUICK_DEATHS.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(NODES):
        nodes.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    yield nodes
    nodes.shutdown()


def test_a_node_is_lost_and_its_clip_goes_on_elsewhere(
    bucket: str,
    tmp_path: Path,
    injected: Injected,
    cluster: Any,
    monkeypatch: pytest.MonkeyPatch,
    empty_store: EmptyStore,
) -> None:
    """Two clips, each on its own node, their files in an object store: no node has another's files."""
    tracking = ("--tracking-uri", f"sqlite:///{empty_store(tmp_path / 'mlflow.db')}")
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(NODES):
        make_video(videos / f"clip{number}.mp4", size="48x48")
    command = (*TINY, *LONG, "--cpus-per-clip", "1", *tracking)
    store = Store.open(f"{bucket}/lost", "--storage")
    process = start(tmp_path, "--corpus", videos, *command, "--storage", bucket, "--experiment", "lost")

    def victim() -> tuple[Any, str, bytes] | None:
        """A node that trains a clip whose first GAN scale is in the store, the clip, and its log there."""
        for clip_id in (name for name in store.names() if "-" in name and name[0] != "."):
            found = store.read(f"{clip_id}/{name}" for name in ("metrics.jsonl", "checkpoint.pt", ".owner"))
            log = found.get(f"{clip_id}/metrics.jsonl", b"")
            if len(found) == 3 and b'"scale": 2' in log:
                pid = json.loads(found[f"{clip_id}/.owner"])["pid"]
                for node in cluster.worker_nodes:
                    if pid in {child.pid for child in raylet_of(node).children(recursive=True)}:
                        return node, clip_id, log
        return None

    node, clip_id, before = wait_until(victim, process)
    raylet = raylet_of(node)
    for member in [raylet, *raylet.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output

    found = [name.split("-")[0] for name in store.names() if store.read([f"{name}/result.json"])]
    injected("a node is lost: clips", [f"clip{number}" for number in range(NODES)], found)
    assert output.count("\n" + clip_id + "  done  (") == 1
    after = store.read([f"{clip_id}/metrics.jsonl"])[f"{clip_id}/metrics.jsonl"]
    assert after.startswith(before)  # it went on, it did not start again
    (tmp_path / "final.pt").write_bytes(store.read([f"{clip_id}/checkpoint.pt"])[f"{clip_id}/checkpoint.pt"])
    monkeypatch.delenv("RAY_ADDRESS")
    for other in videos.iterdir():
        if other.stem != clip_id.split("-")[0]:
            other.unlink()
    whole = run_job("train_corpus.py", "--corpus", videos, *command, "--storage", tmp_path, "--experiment", "whole")
    assert whole.returncode == 0, whole.stdout
    undisturbed = tmp_path / "whole" / clip_id
    injected(
        "a node is lost: points and weights",
        [*points((undisturbed / "metrics.jsonl").read_text()), *weights(ckpt.load(undisturbed / "checkpoint.pt"))],
        [*points(after.decode()), *weights(ckpt.load(tmp_path / "final.pt"))],
    )


def test_a_driver_is_killed_and_another_goes_on_but_not_two_at_once(tmp_path: Path, injected: Injected) -> None:
    make_video(tmp_path / "clip.mp4", size="48x48")
    settings = (*TINY, "--set", "iters_per_scale=10,10,40,10", *OFTEN)
    corpus = ("--corpus", tmp_path / "clip.mp4", *settings, "--cpus-per-clip", "1", "--storage", tmp_path / "runs")
    assert run_job("train_corpus.py", *corpus, "--experiment", "whole").returncode == 0
    (whole,) = (tmp_path / "runs" / "whole").glob("clip-*")

    command = (*corpus, "--experiment", "killed")
    process = start(tmp_path, *command)
    base = tmp_path / "runs" / "killed"
    wait_until(lambda: list(base.glob("clip-*/checkpoint.pt")), process)
    second = run_job("train_corpus.py", *command)
    assert second.returncode == 2
    (line,) = second.stdout.splitlines()
    assert f"process {process.pid} on" in line and "trains this experiment" in line and str(base) in line

    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    third = run_job("train_corpus.py", *command)
    assert third.returncode == 0, third.stdout
    assert not any(member.is_running() for member in trainers_among(family))
    (clip,) = base.glob("clip-*")
    injected(
        "the driver is killed: points and weights",
        [*points((whole / "metrics.jsonl").read_text()), *weights(ckpt.load(whole / "checkpoint.pt"))],
        [*points((clip / "metrics.jsonl").read_text()), *weights(ckpt.load(clip / "checkpoint.pt"))],
    )


def trainers_among(family: list[psutil.Process]) -> list[psutil.Process]:
    alive = []
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            if "fit_task" in " ".join(member.cmdline()):
                alive.append(member)
    return alive


def hungry_task(task: ClipTask, chunks: Any) -> Result:
    """The real task, in a process whose GAN iterations want more memory than there is, or than `low_memory` needs."""
    from model.training import steps

    step = steps._gan_step

    def hungry(state: TrainState, *arguments: Any) -> Any:
        if not state.stack.config.low_memory or task.clip_id.startswith("always"):
            torch.empty(2**50, dtype=torch.uint8)
        return step(state, *arguments)

    steps._gan_step = hungry  # type: ignore[assignment]
    return fit_task(task, chunks)


def test_memory_that_runs_out_is_tried_once_more_with_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, injected: Injected, own_processes: None
) -> None:
    from jobs import train_corpus

    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("once", "always"):
        make_video(folder / f"{name}.mp4", size="48x48")
    run = schedule.run
    monkeypatch.setattr(schedule, "run", lambda *arguments: run(*arguments, hungry_task))
    monkeypatch.chdir(tmp_path)
    arguments = ["--corpus", str(folder), *TINY, "--set", "iters_per_scale=4", "--storage", str(tmp_path / "runs")]
    assert train_corpus.main([*arguments, "--experiment", "hungry", "--cpus-per-clip", "1"]) == 1
    results = {}
    for path in (tmp_path / "runs" / "hungry").glob("*/result.json"):
        result = json.loads(path.read_text())
        results[path.parent.name.split("-")[0]] = result
    assert results["once"]["status"] == "done" and results["once"]["svfid_lite0"] > 0
    assert "out of memory" in results["once"]["warning"] and "low_memory" in results["once"]["warning"]
    assert results["always"]["status"] == "failed" and "allocate" in results["always"]["reason"]
    injected("memory runs out: clips", ["once"], [name for name, r in results.items() if r["status"] == "done"])

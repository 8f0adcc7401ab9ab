"""Stopping a corpus and submitting it again: nothing done is lost, nothing is done twice."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import RunData

from infra.errors import TakenOver
from jobs.training.fit_clip import ClipFrames, Hooks, fit_clip
from model import checkpoint
from model.presets import demo
from model.training.loop import Progress
from pipeline import video
from tests.conftest import EmptyStore, Injected
from tests.model.conftest import contents

from .conftest import ROOT, TINY, make_video, run_job

# Scales 1 and 2 are long, by slowly.py: a process that is to be stopped there has not left them when it is.
ITERATIONS = "10,60,60,10"
SETTINGS = ("--set", f"iters_per_scale={ITERATIONS}", "--set", "checkpoint_every=8", "--set", "log_every=2")
# Lines of metrics.jsonl, behind checkpoints of the scale: 10/2 + 1 and 60/2 + 1 for whole scales
IN_SCALE_1, IN_SCALE_2 = 6 + 10, 6 + 31 + 10


def command(tmp_path: Path, storage: str) -> tuple[str, ...]:
    corpus = ("--corpus", str(tmp_path / "clip.mp4"), "--storage", str(tmp_path / storage), "--experiment", "stop")
    return (*corpus, *TINY, *SETTINGS, "--cpus-per-clip", "1")


def wait_for(path: Path, process: subprocess.Popen[str], enough: int) -> None:
    """Until `path` has `enough` lines."""
    deadline = time.monotonic() + 120
    while not path.exists() or len(path.read_bytes().splitlines()) < enough:
        assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be stopped"
        time.sleep(0.05)


def start(tmp_path: Path, storage: str, *more: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, str(ROOT / "tests" / "jobs" / "slowly.py"), *command(tmp_path, storage), *more]
    # SIGINT is ignored where the tests themselves run in the background of a shell
    return subprocess.Popen(
        arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def interrupted(process: subprocess.Popen[str]) -> str:
    """Its output after Ctrl-C, pressed again if nothing comes of it: Python may lose one that meets a destructor."""
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=30)[0]
    raise AssertionError("it does not stop")


def the_worker(process: subprocess.Popen[str]) -> psutil.Process:
    """The process that trains the clip, when it is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "fit_task" in " ".join(child.cmdline()):
                    return child
        time.sleep(0.05)
    raise AssertionError("no worker trains the clip")


def the_clip(tmp_path: Path, storage: str) -> Path:
    """The clip's folder, when it is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = list((tmp_path / storage / "stop").glob("clip-*"))
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError("no clip was started")


def lines_without_timings(clip: Path) -> list[str]:
    points = [json.loads(line) for line in (clip / "metrics.jsonl").read_text().splitlines()]
    for point in points:
        del point["time_ms"]
        for name in ("sec_per_iter", "peak_gib"):
            point["metrics"].pop(name, None)
    return [json.dumps(point, sort_keys=True) for point in points]


@pytest.mark.faults
def test_interrupted_and_killed_runs_end_with_the_weights_of_an_undisturbed_one(
    tmp_path: Path, injected: Injected, empty_store: EmptyStore
) -> None:
    make_video(tmp_path / "clip.mp4", size="48x48")
    empty_store(tmp_path / "stopped" / "mlflow.db")
    assert run_job("train_corpus.py", *command(tmp_path, "whole")).returncode == 0
    whole = the_clip(tmp_path, "whole")

    # (1) Ctrl-C in the second scale
    process = start(tmp_path, "stopped")
    clip = the_clip(tmp_path, "stopped")
    wait_for(clip / "metrics.jsonl", process, IN_SCALE_1)
    output = interrupted(process)
    assert process.returncode == 130 and "the same command goes on" in output
    assert not (clip / "result.json").exists()
    first_lines = (clip / "metrics.jsonl").read_text().splitlines()
    assert len(first_lines) < IN_SCALE_2
    assert checkpoint.load(clip / "checkpoint.pt").scale >= 1

    # (2) the checkpoint is damaged, and the worker that went on from the one before it is killed in a GAN scale: Ray
    # starts the task again, which goes on from the checkpoint
    damaged = clip / "checkpoint.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    process = start(tmp_path, "stopped")
    wait_for(clip / "metrics.jsonl", process, IN_SCALE_2)
    the_worker(process).kill()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    (told,) = [line for line in output.splitlines() if line.startswith("warning  ")]
    assert f"{damaged}: damaged; went on from checkpoint.previous.pt: scale" in told
    assert json.loads((clip / "result.json").read_text())["warning"].strip() in told

    # same weights, same logged losses, every point once
    ours, theirs = (checkpoint.load(folder / "checkpoint.pt") for folder in (clip, whole))
    assert ours.done and ours.noise_amps == theirs.noise_amps
    lines = (clip / "metrics.jsonl").read_text().splitlines()
    assert lines[: len(first_lines)] == first_lines
    wanted, found = lines_without_timings(whole), lines_without_timings(clip)
    fault = "corpus: Ctrl-C, then a damaged checkpoint, then its worker killed"
    injected(fault, [*contents(theirs), *wanted], [*contents(ours), *found], times=3)
    assert found == wanted  # in the same order too
    assert json.loads((clip / "result.json").read_text())["svfid_lite0"] > 0


@pytest.mark.faults
def test_a_clip_whose_loss_is_not_finite_fails_with_scale_iteration_and_term(tmp_path: Path) -> None:
    make_video(tmp_path / "clip.mp4", size="48x48")
    failed = run_job("train_corpus.py", *command(tmp_path, "nan"), "--set", "lr=1e30")
    assert failed.returncode == 1
    (line,) = [line for line in failed.stdout.splitlines() if line.startswith("failed  ")]
    assert f"{the_clip(tmp_path, 'nan').name}: scale 0, iteration" in line and "_loss is" in line
    result = json.loads((the_clip(tmp_path, "nan") / "result.json").read_text())
    assert result["status"] == "failed" and "iteration" in result["reason"]


@pytest.mark.slow
def test_sigterm_ends_it_as_ctrl_c_does_and_a_finished_clip_gets_as_many_samples_as_are_asked_for(
    tmp_path: Path, empty_store: EmptyStore
) -> None:
    make_video(tmp_path / "clip.mp4", size="48x48")
    empty_store(tmp_path / "stopped" / "mlflow.db")
    soon = ("--set", "iters_per_scale=10,60,1,1")
    process = start(tmp_path, "stopped", *soon)
    clip = the_clip(tmp_path, "stopped")
    wait_for(clip / "metrics.jsonl", process, IN_SCALE_1)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143, output
    last = "SIGTERM: stopped; the same command goes on from the last checkpoints"
    assert output.splitlines()[-1] == last
    assert "Traceback" not in output and output.count("SIGTERM") == 1
    assert (clip.parent / "driver.log").read_text().splitlines()[-1].endswith(f"  {last}")

    def statuses() -> dict[str, str]:
        client = MlflowClient(f"sqlite:///{tmp_path / 'stopped' / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("stop")
        assert experiment is not None
        return {run.data.tags["role"]: run.info.status for run in client.search_runs([experiment.experiment_id])}

    def run_of_clip() -> RunData:
        client = MlflowClient(f"sqlite:///{tmp_path / 'stopped' / 'mlflow.db'}")
        (run,) = client.search_runs(["1"], "tags.role = 'clip'")
        return run.data

    def shown(name: str) -> float:
        return run_of_clip().metrics[name]

    def tag(name: str) -> str:
        return run_of_clip().tags[name]

    assert statuses() == {"corpus": "KILLED", "clip": "KILLED"} and tag("status") == "stopped"
    assert run_job("train_corpus.py", *command(tmp_path, "stopped"), *soon).returncode == 0
    assert statuses() == {"corpus": "FINISHED", "clip": "FINISHED"} and tag("status") == "done"

    trained = (clip / "checkpoint.pt").read_bytes()
    first = (clip / "samples" / "sample_01.gif").read_bytes()
    for count in (3, 2):
        done = run_job("train_corpus.py", *command(tmp_path, "stopped"), *soon, "--n", str(count))
        assert done.returncode == 0, done.stdout
        scores = json.loads((clip / "metrics.json").read_text())
        assert shown("score/svfid_lite0") == scores["svfid_lite0"] and f"diversity_n{count}" in scores
        assert len(list((clip / "samples").glob("sample_*.gif"))) == count
        assert (clip / "samples" / "sample_01.gif").read_bytes() == first
    assert (clip / "checkpoint.pt").read_bytes() == trained


WHILE_RAY_STARTS = """
import os, signal, sys
import psutil, ray._private.worker as worker
from infra.ray_cluster import ray_session
from jobs import command_line

connect = worker.connect

def stopped_there(*arguments, **options):
    connect(*arguments, **options)
    words = [word for child in psutil.Process().children() for word in child.cmdline()[:4]]
    print(*(os.path.basename(word) for word in words), file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)

def command():
    with ray_session():
        return 0

worker.connect = stopped_there
sys.exit(command_line.exit_code(command, command_line.console(), stopped="stopped"))
"""


@pytest.mark.slow
def test_sigterm_while_ray_starts_is_the_one_line_too() -> None:
    """There Ray's own handlers are in place: of crashes, and of SIGTERM.

    Of Ray's processes those are there that clips need.
    """
    command = [sys.executable, "-c", WHILE_RAY_STARTS]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 143 and "Traceback" not in process.stderr and "SIGTERM" not in process.stderr
    assert process.stdout.splitlines() == ["SIGTERM: stopped"]
    words = set(process.stderr.split())
    assert {"gcs_server", "raylet"} <= words and not {"log_monitor.py", "monitor.py", "dashboard.py"} & words, words


def test_a_process_that_lost_its_clip_while_it_scored_a_scale_writes_nothing_more(tmp_path: Path) -> None:
    config = demo().with_overrides([word for word in TINY[2:-2] if word != "--set"])
    frames = video.decode(make_video(tmp_path / "clip.mp4", size="48x48"), num_frames=13)
    reported: list[Progress] = []

    def check() -> None:
        if reported and reported[-1].iteration == config.iterations[0]:
            raise TakenOver("another process trains it now")

    with pytest.raises(TakenOver):
        hooks = Hooks(check=check, report=reported.append)
        fit_clip(ClipFrames("clip", "clip.mp4", [frames]), config, tmp_path / "f", hooks=hooks)
    points = [json.loads(line) for line in (tmp_path / "f" / "metrics.jsonl").read_text().splitlines()]
    assert [point["iteration"] for point in points] == [progress.iteration for progress in reported]
    assert not list((tmp_path / "f" / "samples").iterdir())

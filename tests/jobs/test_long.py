"""Long videos beside short clips in one corpus, by several workers, one of which is killed; then their evaluation."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from ray.exceptions import RpcError
from rich.console import Console

from infra.ray_cluster import Slots, ray_session
from infra.store import Store
from infra.tracking.parent import ParentRun
from jobs.experiment.corpus import Clip, clip_frames, read_corpus
from jobs.experiment.experiment import Experiment
from jobs.experiment.result import OutOfMemoryResult, Result
from jobs.train_corpus import main
from jobs.training import progress, schedule
from jobs.training.board import Board
from jobs.training.progress import ProgressDisplay, reporter
from jobs.training.task import ClipTask, fit_task
from model import checkpoint as ckpt
from model.presets import demo
from model.pyramid import training_pyramids
from model.training.loop import Progress, train_clip
from model.training.state import TrainState
from pipeline import shards
from tests.conftest import EmptyStore

from .conftest import ROOT, TINY, make_video, run_job

SETTINGS = ["precision=float32", "iters_per_scale=12", "checkpoint_every=3", "log_every=1", "lr=5e-4", "flip=true"]
CONFIG = demo().with_overrides([*(word for word in TINY if "=" in word), *SETTINGS])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of three chunks and three frames more, and one of a single clip."""
    folder = tmp_path_factory.mktemp("films")
    make_video(folder / "film.mp4", seconds=1.75, size="48x48")
    make_video(folder / "short.mp4", seconds=0.6, source="mandelbrot", size="48x48")
    return folder


def workers_of(driver: int) -> list[psutil.Process]:
    """Processes in which Ray Train runs a worker of this driver's Ray."""
    names = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if process.cmdline()[0].startswith("ray::") and "RayTrainWorker" in process.cmdline()[0]:
                names.append(process)
        except (psutil.Error, IndexError):
            continue
    return names


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory, empty_store: EmptyStore) -> tuple[Path, str]:
    """The corpus, trained with two workers a video, of which one is killed in the middle of it; what was printed."""
    storage = tmp_path_factory.mktemp("storage")
    empty_store(storage / "mlflow.db")
    words = ["--corpus", corpus, "--long", "--workers-per-video", "2", "--cpus-per-clip", "1", *TINY]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    command = [sys.executable, ROOT / "jobs/train_corpus.py", *words, "--storage", storage, "--experiment", "films"]
    output = storage / "output.txt"
    with output.open("w") as file:
        driver = subprocess.Popen([str(word) for word in command], stdout=file, stderr=subprocess.STDOUT)
        killed = False
        deadline = time.monotonic() + 400
        while driver.poll() is None and time.monotonic() < deadline:
            log = next(iter(storage.glob("films/film-*/metrics.jsonl")), None)
            if not killed and log and '"scale": 2, "iteration": 1' in log.read_text():
                os.kill(workers_of(driver.pid)[-1].pid, signal.SIGKILL)
                killed = True
            time.sleep(0.2)
        assert driver.wait(timeout=10) == 0, output.read_text()
    assert killed
    return storage / "films", output.read_text()


def clip_folder(base: Path, name: str) -> Path:
    (folder,) = base.glob(f"{name}-*")
    return folder


@pytest.mark.slow
@pytest.mark.faults
def test_a_video_and_a_clip_are_trained_and_a_killed_worker_loses_nothing(trained, injected) -> None:
    base, output = trained
    assert "film.mp4: 3 frames outside the clip are not used" in output
    assert {name: json.loads((clip_folder(base, name) / "result.json").read_text())["status"]
            for name in ("film", "short")} == {"film": "done", "short": "done"}  # fmt: skip
    points = [json.loads(line) for line in (clip_folder(base, "film") / "metrics.jsonl").read_text().splitlines()]
    wanted = [(n, k) for n in range(4) for k in [*range(1, 13), None]]
    injected("a worker of several is killed", wanted, [(point["scale"], point["iteration"]) for point in points])


@pytest.mark.slow
def test_another_stride_is_another_experiment(trained, corpus, capsys) -> None:
    """A model of other chunks is not taken for the one that is asked for."""
    base, _ = trained
    words = ["--corpus", str(corpus), *TINY, *(word for setting in SETTINGS for word in ("--set", setting))]
    words += ["--storage", str(base.parent), "--experiment", base.name]
    for more, now in ((["--long", "--stride", "6"], "6"), ([], "None")):
        assert main([*words, *more]) == 2
        assert f"holds models with other settings (videos: stride was 13, is now {now})" in capsys.readouterr().out


@pytest.mark.slow
def test_more_workers_than_there_is_work_for_cost_the_video_only(corpus, tmp_path) -> None:
    """Each worker finds out for itself; Ray Train ends them all, and none of it is tried again."""
    words = ["--corpus", corpus, "--long", "--workers-per-video", "2", "--cpus-per-clip", "1", *TINY]
    done = run_job(
        "train_corpus.py", *words, "--set", "chunks_per_iter=1", "--storage", tmp_path, "--experiment", "few"
    )
    assert done.returncode == 1, done.stdout
    results = {name: json.loads((clip_folder(tmp_path / "few", name) / "result.json").read_text()) for name in
               ("film", "short")}  # fmt: skip
    assert results["short"]["status"] == "done" and results["film"]["status"] == "failed"
    assert "2 workers for 1 samples an iteration; every worker needs one, take fewer" in results["film"]["reason"]


@pytest.mark.slow
def test_two_workers_train_what_one_process_does(trained, corpus, tmp_path) -> None:
    """Losses of the VAE scales, where rounding grows slowly: of three chunks, and each mirrored."""
    base, _ = trained
    found = read_corpus(str(corpus), Experiment(Store(str(base))), replace(CONFIG, stride=13)).clips
    film = next(clip for clip in found if clip.num_chunks > 1)
    assert film.num_chunks == 3 and film.clip_id == clip_folder(base, "film").name
    pyramids = training_pyramids([shards.read_clip(entry).frames_thwc for entry in film.chunks], CONFIG)
    points = {}
    torch.set_num_threads(1)
    training = train_clip(
        CONFIG, pyramids, clip_id=film.clip_id, path=tmp_path / "c.pt",
        log=lambda point: points.update({(point.scale, point.iteration): point.metrics}),
    )  # fmt: skip
    next(training), next(training)
    lines = (clip_folder(base, "film") / "metrics.jsonl").read_text().splitlines()
    logged = {(p["scale"], p["iteration"]): p["metrics"] for p in map(json.loads, lines)}
    for place, metrics in points.items():
        losses = {name: loss for name, loss in metrics.items() if name.endswith("_loss")}
        assert losses == pytest.approx({name: logged[place][name] for name in losses}, rel=1e-3), place
    saved = ckpt.load(clip_folder(base, "film") / "checkpoint.pt")
    assert saved.done and saved.samples == 6
    assert json.loads((clip_folder(base, "film") / "config.json").read_text())["chunks"] == 3


@pytest.mark.slow
def test_evaluation_of_a_video_equals_that_of_its_training(trained) -> None:
    base, _ = trained
    done = run_job("evaluate.py", base, "--n", "2", "--seed", "1", "--cpus-per-clip", "1")
    assert done.returncode == 0, done.stdout
    rows = {row["clip_id"]: row for row in json.loads((base / "evaluation/results.json").read_text())["clips"]}
    for name in ("film", "short"):
        folder = clip_folder(base, name)
        scores = json.loads((folder / "metrics.json").read_text())
        for figure in ("svfid_lite0", "diversity_n2", "svfid_lite0_blur"):
            assert rows[folder.name]["figures"][figure]["mean"] == pytest.approx(scores[figure], rel=1e-5)


def stand_in(task: ClipTask, chunks: Sequence[Any]) -> Result:
    """Leaves when it ran, and reports a point of its training."""
    began = time.time()
    reporter(task.clip_id, task.config, (48, 48))(Progress(1, 6, {"rec_loss": 0.25, "sec_per_iter": 2.0}))
    time.sleep(0.5)
    name = ray.get_runtime_context().get_task_name()
    ran = {"workers": task.workers, "began": began, "ended": time.time(), "name": name}
    task.experiment.store.write_json(f"{task.clip_id}.json", ran)
    return Result(task.clip_id, "done")


class HeadIsAway:
    """In place of the client of Ray's head."""

    def __getattr__(self, call: str) -> Any:
        def refuse(*arguments: Any) -> None:
            raise RpcError("Deadline Exceeded")

        return refuse


@pytest.mark.slow
def test_a_video_of_several_workers_starts_when_all_its_slots_are_free_and_is_not_overtaken(
    corpus, tmp_path, monkeypatch
) -> None:
    """Videos that want both slots, then clips of one. Their coordinators take no slot: the driver keeps count.

    Meanwhile the driver prints what each has reported, and at the end keeps none of it.
    """
    (tmp_path / "runs").mkdir()
    clip = read_corpus(str(corpus), Experiment(Store(str(tmp_path))), CONFIG).clips[0]
    todo = {f"clip-{i}": workers for i, workers in enumerate([2, 2, 1, 1, 1, 2, 1])}
    experiment, parent = Experiment(Store(str(tmp_path / "runs"))), ParentRun("sqlite:///nowhere", "0", "0")

    def task_of(clip: Clip) -> ClipTask:
        return ClipTask(clip.clip_id, clip.source, CONFIG, experiment, parent, 2, todo[clip.clip_id])

    monkeypatch.setattr(schedule, "POLL_S", 0.1)
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    printed = StringIO()
    with ray_session():
        display = ProgressDisplay(Console(file=printed), Board(len(todo), 0))
        clips = [replace(clip, clip_id=clip_id) for clip_id in todo]
        results = list(schedule.run(clips, task_of, Slots({"num_cpus": 1}, 2), display, stand_in, stand_in))
        assert progress.reported(todo) == {}
        reporter("clip-1", CONFIG, (48, 48))(Progress(0, 12, {"sec_per_iter": 2.0}))
        assert progress.reported(todo)["clip-1"].iteration == 12
        with monkeypatch.context() as patch:
            patch.setattr(progress, "_head", HeadIsAway)
            reporter("clip-1", CONFIG, (48, 48))(Progress(1, 1, {"sec_per_iter": 2.0}))  # costs the training nothing
            progress.forget("clip-1")
        assert progress.reported(todo)["clip-1"].iteration == 12
        progress.forget("clip-1")
    lines = set(re.findall(r"clip-\d  scale 1/3 .*", printed.getvalue()))
    assert len(lines) == len(todo) and all("2 s/it, loss 0.2500" in line for line in lines)
    assert sorted(result.clip_id for result in results) == sorted(todo)
    runs = [json.loads((tmp_path / "runs" / f"{clip_id}.json").read_text()) for clip_id in todo]
    assert [run["workers"] for run in runs] == list(todo.values())
    assert [run["name"] for run in runs] == [f"fit_task:{clip_id}" for clip_id in todo]  # on Ray's pages
    for run in runs:
        beside = [other["workers"] for other in runs if other["began"] <= run["began"] < other["ended"]]
        assert sum(beside) <= 2
    videos = [run for run in runs if run["workers"] == 2]
    for earlier, later in itertools.pairwise(videos):
        assert earlier["ended"] <= later["began"]
    last_video = runs[5]
    assert all(run["ended"] <= last_video["began"] for run in runs[:5]) and runs[6]["began"] >= last_video["ended"]


def test_memory_that_runs_out_halves_the_micro_batch_and_at_last_keeps_one_samples_activations() -> None:
    parent = ParentRun("sqlite:///nowhere", "0", "0")
    task = ClipTask("film", "film.mp4", CONFIG, Experiment(Store("/nowhere")), parent, 2)
    tried = []
    for held in (7, 3, 1):
        task = task.next_attempt(OutOfMemoryResult("film", reason="the GPU is full", micro_batch=held))
        tried.append((task.config.micro_batch, task.config.low_memory))
        assert "out of memory (the GPU is full); went on from its checkpoint with " in task.warning
    assert tried == [(3, False), (1, False), (1, True)]
    assert task.warning.endswith("with low_memory")
    assert task.next_attempt(OutOfMemoryResult("film", reason="the GPU is full", micro_batch=1)) is None
    assert task.next_attempt(Result("film", "failed", "for another reason")) is None


def hungry_task(task: ClipTask, chunks: Sequence[Any]) -> Result:
    """The real task, in a process whose GAN iterations have memory for one sample at once."""
    from model.training import steps

    step = steps._gan_step

    def hungry(state: TrainState, batches: Sequence[Any], reals: Any) -> Any:
        if max(map(len, batches)) > 1:
            torch.empty(2**50, dtype=torch.uint8)
        return step(state, batches, reals)

    steps._gan_step = hungry  # type: ignore[assignment]
    return fit_task(task, chunks)


@pytest.mark.slow
def test_chunks_that_do_not_fit_together_are_trained_one_after_the_other(
    corpus, tmp_path, monkeypatch, own_processes
) -> None:
    run = schedule.run
    monkeypatch.setattr(schedule, "run", lambda *arguments: run(*arguments, hungry_task))
    words = [
        "--corpus",
        str(corpus / "film.mp4"),
        "--long",
        "--cpus-per-clip",
        "1",
        *TINY,
        "--set",
        "iters_per_scale=2",
    ]
    assert main([*words, "--storage", str(tmp_path), "--experiment", "hungry"]) == 0
    result = json.loads((clip_folder(tmp_path / "hungry", "film") / "result.json").read_text())
    assert result["status"] == "done" and "out of memory" in result["warning"]
    assert result["warning"].splitlines()[-1].endswith("went on from its checkpoint with micro_batch=1")


def test_the_frames_of_a_video_are_its_chunks_of_the_experiments_stride(corpus, tmp_path) -> None:
    """Also of one that begins later, and where chunks of another stride lie beside them."""
    given = tmp_path / "films.csv"
    given.write_text(f"clip_id,path,start_s\nlater,{corpus / 'film.mp4'},0.25\n")
    wanted = {}
    for stride in (13, 5):
        (clip,) = read_corpus(str(given), Experiment(Store(str(tmp_path))), replace(CONFIG, stride=stride)).clips
        wanted[stride] = [entry.clip_id for entry in clip.chunks]
    assert wanted[13] == ["later-000006", "later-000019"] and len(wanted[5]) == 5
    for stride, chunks in wanted.items():
        found = clip_frames(Experiment(Store(str(tmp_path))), str(given), stride)
        assert sorted(entry.clip_id for entry in found["later"]) == chunks


def test_options_for_long_videos_need_long(corpus, capsys) -> None:
    for words in (["--workers-per-video", "2"], ["--stride", "5"]):
        assert main(["--corpus", str(corpus), *words]) == 2
        assert "--workers-per-video and --stride are for long videos; add --long" in capsys.readouterr().out
    for stride, line in (("0", "--stride: 0 frames; 1 is the least"), ("0.01s", "0 frames"), ("1s", "have no rate")):
        as_is = ["--as-is"] if stride == "1s" else []
        assert main(["--corpus", str(corpus), "--long", "--stride", stride, *as_is]) == 2
        assert line in capsys.readouterr().out
    assert main(["--corpus", str(corpus), "--long", "--workers-per-video", "2", "--gpus-per-clip", "0.5"]) == 2
    assert "--gpus-per-clip 0.5: each of several workers needs a whole GPU; give 1" in capsys.readouterr().out


def test_a_dry_run_counts_the_chunks_of_any_stride(corpus, tmp_path, capsys) -> None:
    for stride, chunks in (("13", 3), ("5", 6), ("29", 2), ("0.25s", 5)):
        words = ["--corpus", str(corpus), "--long", "--stride", stride, "--storage", str(tmp_path), "--dry-run"]
        assert main([*words, *TINY]) == 0
        printed = capsys.readouterr().out
        assert f"{chunks} chunks" in printed and "2 clips" in printed, printed

"""Disks that are full or read-only, and clocks that jump: one line says so, and what was there is still there."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from infra.errors import StorageError
from infra.metrics_log import MetricsLog
from infra.remote import fetch
from infra.store import Store
from infra.tracking import forward as forwarding
from infra.tracking import runs as tracking
from infra.tracking.uri import default_uri
from jobs import train_corpus
from jobs.experiment.experiment import Experiment
from jobs.experiment.result import Result, write_result
from jobs.training import corpus_job
from jobs.training.task import ClipTask, fit_in_folder
from model import checkpoint as ckpt
from model.config import RUN_SETTINGS
from model.training.loop import Progress, train_clip
from pipeline import clips, shards
from pipeline.clips import ClipSpec
from tests.conftest import Injected
from tests.model.conftest import CLIP_ID, assert_same, contents, one_thread, real_pyramid, tiny

from .conftest import TINY, make_video, run_job

pytestmark = pytest.mark.faults

CONFIG = tiny(iters_per_scale=4, checkpoint_every=2)
PLACES = [(n, i) for n in range(5) for i in (1, 2, 3, 4)]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can make a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    with open(disk / "ballast", "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(256))


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Trouble:
    """`log` of a training, that calls `begin` just before or just after the last point of scale 3 is written."""

    def __init__(self, folder: Path, when: str, begin: object) -> None:
        self.points, self.when, self.begin = MetricsLog(folder / "metrics.jsonl"), when, begin

    def __call__(self, progress: Progress) -> None:
        there = (progress.scale, progress.iteration) == (3, 4)
        if there and self.when == "before the line":
            self.begin()  # type: ignore[operator]
        self.points.append(progress.scale, progress.iteration, progress.metrics)
        if there and self.when == "after the line":
            self.begin()  # type: ignore[operator]


def train(folder: Path, when: str = "never", begin: object = None) -> ckpt.Checkpoint:
    path = folder / "checkpoint.pt"
    list(train_clip(CONFIG, [real_pyramid()], clip_id=CLIP_ID, path=path, log=Trouble(folder, when, begin)))
    return ckpt.load(path)


def places(folder: Path) -> list[tuple[int, int]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(line["scale"], line["iteration"]) for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ckpt.Checkpoint:
    with one_thread():
        return train(tmp_path_factory.mktemp("whole"))


def one_line(caught: pytest.ExceptionInfo[StorageError], path: Path) -> None:
    assert str(caught.value).startswith(f"{path}: cannot be written (No space left on device); make room")
    assert "\n" not in str(caught.value)


WRITTEN = [("before the line", "metrics.jsonl"), ("after the line", "checkpoint.pt")]


@pytest.mark.parametrize(("when", "name"), WRITTEN)
def test_a_disk_without_room(whole: ckpt.Checkpoint, tmp_path: Path, when: str, name: str, injected: Injected) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StorageError) as caught:
        train(tmp_path, when, lambda: patch.setattr(os, "fsync", no_space))
    one_line(caught, tmp_path / name)
    saved = ckpt.load(tmp_path / "checkpoint.pt")
    assert (saved.scale, saved.iteration) == (3, 2)
    final = train(tmp_path)
    injected("disk full in training", [*contents(whole), *PLACES], [*contents(final), *places(tmp_path)])
    assert_same(final, whole)
    assert places(tmp_path) == PLACES


def test_a_full_disk(whole: ckpt.Checkpoint, small_disk: Path, injected: Injected) -> None:
    with pytest.raises(StorageError) as caught:
        train(small_disk, "after the line", lambda: fill(small_disk))
    one_line(caught, small_disk / "checkpoint.pt")
    assert {path.name for path in small_disk.iterdir()} == {
        *("checkpoint.pt", "checkpoint.previous.pt", "metrics.jsonl", "ballast")
    }
    fill(small_disk)  # with what the half checkpoint had taken
    log = MetricsLog(small_disk / "metrics.jsonl")
    with pytest.raises(StorageError) as caught:
        log.append(3, None, {"a": 0.0, "long line": "x" * 8192})  # type: ignore[dict-item]
    one_line(caught, small_disk / "metrics.jsonl")
    with pytest.raises(StorageError) as caught:
        train(small_disk)
    saved = ckpt.load(small_disk / "checkpoint.pt")
    assert (saved.scale, saved.iteration) == (3, 2)
    (small_disk / "ballast").unlink()
    final = train(small_disk)
    found = [*contents(final), *places(small_disk)]
    injected("disk full in training", [*contents(whole), *PLACES], found, times=3)
    assert_same(final, whole)
    assert places(small_disk) == PLACES


def test_a_result_that_finds_no_room_leaves_the_old_one(small_disk: Path) -> None:
    old = Result(CLIP_ID, "failed", "some reason")
    write_result(small_disk, old)
    fill(small_disk)
    with pytest.raises(StorageError) as caught:
        write_result(small_disk, Result(CLIP_ID, "done"))
    one_line(caught, small_disk / "result.json")
    assert Experiment(Store(str(small_disk.parent))).results([small_disk.name]) == {small_disk.name: old}
    assert {path.name for path in small_disk.iterdir()} == {"result.json", "ballast"}


def test_shards_that_find_no_room_leave_the_finished_ones(small_disk: Path, tmp_path: Path, injected: Injected) -> None:
    """The disk fills while the driver decodes; with room again the same command makes what is missing."""
    videos, made = tmp_path / "videos", small_disk / "disk" / ".shards"
    videos.mkdir()
    make_video(videos / "a_small.mp4")
    shards.write(clips.plan([str(videos)], ClipSpec()).clips, made)
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    assert set(before) == {"000000.tar", "000000.json"}
    make_video(videos / "b_large.mp4", size="480x256", source="mandelbrot")  # 13 frames of it take 4.8 MB
    full = run_job("train_corpus.py", "--corpus", videos, *TINY, "--storage", small_disk, "--experiment", "disk")
    assert full.returncode == 2
    told = full.stdout.splitlines()[-1]
    assert f"{made / '000001.tar'}: cannot be written (No space left on device); make room" in told
    assert "Traceback" not in full.stdout
    after = {path.name: path.read_bytes() for path in made.iterdir()}
    injected("disk full while videos are decoded", before.items(), after.items())
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    planned = clips.plan([str(videos)], ClipSpec()).clips
    written = shards.write(planned, made)
    assert (written.skipped, len(written.clip_ids)) == (1, 1)
    assert sorted(clip.clip_id for clip in shards.read(made)) == sorted(plan.clip_id for plan in planned)


def test_a_copy_of_a_corpus_that_finds_no_room(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name, size in (("a.mp4", 1 << 20), ("b.mp4", 8 << 20)):
        (tmp_path / "videos" / name).write_bytes(bytes(size))
    uri = f"file://{tmp_path / 'videos'}"
    with pytest.raises(ValueError) as caught:
        fetch(uri, small_disk)
    told = str(caught.value)
    assert "b.mp4: cannot be written (No space left on device); make room" in told and "\n" not in told
    assert [path.name for path in small_disk.rglob("*") if path.is_file()] == ["a.mp4"]
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    killed, going_on = (small_disk / next(small_disk.iterdir()) / "videos" / f".b.mp4.{n}.part" for n in "01")
    for part in (killed, going_on):
        part.write_bytes(b"half of it")
    os.utime(killed, (0, 0))
    fetched = Path(fetch(uri, small_disk))
    assert {path.name: path.stat().st_size for path in fetched.iterdir() if path != going_on} == {
        "a.mp4": 1 << 20,
        "b.mp4": 8 << 20,
    }
    assert going_on.exists() and not killed.exists()


def test_an_experiment_that_cannot_be_noted_down_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shards.write(clips.plan([str(make_video(tmp_path / "clip.mp4"))], ClipSpec()).clips, tmp_path / "made")
    monkeypatch.setattr(corpus_job, "_open_tracking", lambda *_: None)  # nothing is logged before it is noted
    monkeypatch.setattr(os, "fsync", no_space)
    storage = tmp_path / "storage"
    (storage / "disk").mkdir(parents=True)
    command = ["--corpus", str(tmp_path / "made"), *TINY, "--storage", str(storage), "--experiment", "disk"]
    assert train_corpus.main(command) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{storage / 'disk'}/" in line and ": cannot be written (No space left on device); make room" in line
    assert not list((storage / "disk").iterdir())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tracking.ParentRun:
    storage = tmp_path_factory.mktemp("tracking")
    return tracking.open_parent(default_uri(storage), "disk", storage, {})


def test_a_clip_whose_folder_takes_nothing_fails_and_says_so(corpus: tracking.ParentRun, tmp_path: Path) -> None:
    """The task ends with a result, not with an error that would end the corpus."""
    (tmp_path / "file").write_text("where a folder should be")
    task = ClipTask(CLIP_ID, "clip.mp4", CONFIG, Experiment(Store(str(tmp_path / "file"))), corpus, 2)
    result = fit_in_folder(task, [np.zeros((13, 48, 64, 3), np.uint8)])
    assert result.status == "failed" and "Not a directory" in result.reason
    assert "its folder did not take the failure" in result.reason and "\n" not in result.reason


def test_a_failed_clip_that_is_tried_again_has_no_result_meanwhile(corpus: tracking.ParentRun, tmp_path: Path) -> None:
    """Whoever watches sees it in training."""
    write_result(tmp_path / "again", Result("again", "failed", "the first time"))
    there = []

    def report(progress: object) -> None:
        there.append((tmp_path / "again" / "result.json").exists())
        raise RuntimeError("the second time")

    frames = np.random.default_rng(0).integers(0, 256, (13, 48, 64, 3), np.uint8)
    task = ClipTask("again", "clip.mp4", CONFIG, Experiment(Store(str(tmp_path))), corpus, 2)
    result = fit_in_folder(task, [frames], report)
    assert there == [False]
    assert result.reason == "RuntimeError: the second time"  # not one of ours: with its class, and a traceback
    assert "Traceback" in (tmp_path / "again" / "error.txt").read_text()
    assert json.loads((tmp_path / "again" / "result.json").read_text())["reason"] == result.reason


@pytest.mark.parametrize("what", ["one colour", "a dot"])
def test_a_clip_that_nothing_can_be_learned_of_fails_in_one_line_of_ours(
    what: str, corpus: tracking.ParentRun, tmp_path: Path
) -> None:
    """Rounding leaves 200, 10, 10 a spread of lightness of 1e-14; scale 0 is sampled beside the dot."""
    frames = np.full((13, 90, 120, 3), (200, 10, 10), np.uint8)
    if what == "a dot":
        frames[:, 1, 1] = 255
    task = ClipTask("flat", "flat.mp4", CONFIG, Experiment(Store(str(tmp_path))), corpus, 2)
    result = fit_in_folder(task, [frames])
    cause = "at scale 0 every pixel has the same lightness, nothing can be learned; give another clip"
    assert (result.status, result.reason) == ("failed", f"flat.mp4: {cause}")
    assert (tmp_path / "flat" / "error.txt").read_text() == f"{result.reason}\n"  # ours: no class, no traceback
    assert not (tmp_path / "flat" / "checkpoint.pt").exists()


def test_a_file_that_mlflow_has_no_room_for_is_named_and_there_when_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    (small_disk / "mlartifacts").mkdir()
    corpus = tracking.open_parent(default_uri(tmp_path), "disk", small_disk, {})
    folder = tmp_path / CLIP_ID
    write_result(folder, Result(CLIP_ID, "failed", "some reason"))
    (folder / "error.txt").write_bytes(bytes(8192))
    fill(small_disk)
    with forwarding.forwarding(corpus, CLIP_ID, folder, RUN_SETTINGS) as forwarder:
        pass
    assert forwarding.run_of(corpus, folder) is None
    assert str(folder / "error.txt") in forwarder.error and "No space left" in forwarder.error
    (small_disk / "ballast").unlink()
    with forwarding.forwarding(corpus, CLIP_ID, folder, RUN_SETTINGS):
        pass
    assert forwarding.run_of(corpus, folder) is not None


@pytest.mark.parametrize("kind", ["file", "disk"])
def test_a_storage_that_cannot_be_written_is_refused_before_any_work(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make_video(tmp_path / "clip.mp4")
    if kind == "file":
        storage = tmp_path / "file"
        storage.write_text("where a folder should be")
    elif os.getuid() == 0:
        storage = request.getfixturevalue("small_disk")
        subprocess.run(["mount", "-o", "remount,ro", storage], check=True)
    else:
        storage = tmp_path / "disk"
        storage.mkdir(mode=0o555)
    refused = run_job("train_corpus.py", "--corpus", tmp_path / "clip.mp4", *TINY, "--storage", storage)
    assert refused.returncode == 2
    (line,) = refused.stdout.splitlines()
    assert str(storage) in line and "nothing can be written there" in line and "give another folder" in line
    assert storage.is_file() or not list(storage.iterdir())


def test_a_clock_that_runs_backwards_harms_nothing(
    whole: ckpt.Checkpoint,
    corpus: tracking.ParentRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    injected: Injected,
) -> None:
    """An hour back at every look, over a training that is stopped twice; MLflow has every point once."""
    now, hours = time.time_ns(), itertools.count()
    monkeypatch.setattr(time, "time_ns", lambda: now - next(hours) * 3_600_000_000_000)
    monkeypatch.setattr(time, "time", lambda: time.time_ns() / 1e9)
    for _ in range(2):
        with forwarding.forwarding(corpus, CLIP_ID, tmp_path, RUN_SETTINGS):
            path, log = tmp_path / "checkpoint.pt", Trouble(tmp_path, "never", None)
            list(itertools.islice(train_clip(CONFIG, [real_pyramid()], clip_id=CLIP_ID, path=path, log=log), 2))
    assert_same(train(tmp_path), whole)
    write_result(tmp_path, Result(CLIP_ID, "failed"))
    with forwarding.forwarding(corpus, CLIP_ID, tmp_path, RUN_SETTINGS):
        pass
    run_id = forwarding.run_of(corpus, tmp_path)
    assert run_id
    assert places(tmp_path) == PLACES
    times = [json.loads(line)["time_ms"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert times == sorted(times, reverse=True)
    client = tracking.MlflowClient(corpus.uri)
    stored = [(int(metric.value), metric.step) for metric in client.get_metric_history(run_id, "train/scale")]
    injected("clock an hour back at every look", PLACES, stored)

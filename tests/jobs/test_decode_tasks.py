"""Videos that Ray tasks decode: the same shards, to the byte, whatever fails on the way."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from infra.errors import UsageError
from infra.ray_cluster import ray_session
from jobs.experiment.corpus import Clip, Corpus, clip_spec
from jobs.experiment.experiment import Experiment
from jobs.training import decoding, progress, schedule
from jobs.training.corpus_job import find_clips
from jobs.training.decoding import DecodeTasks, decode_on_node
from model.presets import demo
from pipeline.prepare import prepare
from pipeline.shards import Batch

from . import conftest
from .conftest import TINY, make_video, run_job

CONFIG = demo().with_overrides(["stride=1"])
CHUNKS = 36  # of a film, which do not fit into one shard with those of the other


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films of 36 chunks each, and a file that is none."""
    folder = tmp_path_factory.mktemp("decoded") / "films"
    folder.mkdir()
    make_video(folder / "one.mp4", seconds=2)
    make_video(folder / "two.mp4", seconds=2, source="mandelbrot")
    (folder / "text.mp4").write_text("no video\n")
    return folder


@pytest.fixture(scope="module")
def wanted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards as this process writes them."""
    folder = tmp_path_factory.mktemp("wanted")
    assert len(prepare([str(corpus)], folder, clip_spec(CONFIG)).written.clip_ids) == 2 * CHUNKS
    return contents(folder)


@pytest.fixture
def never_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks decode; the driver must not."""

    def never(*_: Any) -> None:
        raise AssertionError("decoded on the driver")

    monkeypatch.setattr(decoding, "write_batch", never)
    monkeypatch.setattr(decoding, "in_turn", never)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def found(corpus: str | Path, experiment: Experiment, printed: io.StringIO | None = None) -> Corpus:
    """The clips of a corpus, decoded by two tasks at once on the Ray that the tests share."""
    with contextlib.ExitStack() as session:
        conftest.SHARED[0].enter_context(ray_session())
        tasks = DecodeTasks(experiment, str(corpus), 2, session)
        console = Console(file=printed or io.StringIO())
        return find_clips(console, experiment, str(corpus), CONFIG, decode=tasks)


@pytest.mark.slow
@pytest.mark.usefixtures("never_here")
def test_the_corpus_job_decodes_by_tasks(corpus, wanted, tmp_path, monkeypatch) -> None:
    """Up to the training, which other tests have."""
    trained: list[Clip] = []
    monkeypatch.setattr(schedule, "run", lambda todo, *_: iter(trained.extend(todo) or ()))
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    words = ["--corpus", corpus, "--long", "--stride", "1", *TINY]
    done = run_job("train_corpus.py", *words, "--decode-tasks", "2", "--storage", tmp_path, "--experiment", "films")
    assert done.returncode == 1 and f"reading the corpus: {2 * CHUNKS} of {2 * CHUNKS} clips\n" in done.stdout
    assert f"failed  {corpus / 'text.mp4'}: " in done.stdout
    assert [clip.clip_id.split("-")[0] for clip in trained] == ["one", "two"]
    assert [clip.num_chunks for clip in trained] == [CHUNKS, CHUNKS]
    assert contents(tmp_path / "films" / ".shards") == wanted
    bad = run_job("train_corpus.py", *words, "--decode-tasks", "-1", "--storage", tmp_path)
    assert bad.returncode == 2 and "--decode-tasks -1: 0, or how many decode at once" in bad.stdout


@pytest.mark.faults
def test_a_killed_task_and_a_killed_driver_cost_nothing(corpus, wanted, tmp_path, injected) -> None:
    killed: list[int] = []

    def kill_first() -> None:
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error, IndexError):
                    if process.cmdline()[0].startswith("ray::decode_on_node"):
                        process.kill()
                        killed.append(process.pid)
                        return

    killer = threading.Thread(target=kill_first)
    killer.start()
    experiment = Experiment.open(str(tmp_path), "films")
    assert len(found(corpus, experiment).clips) == 2
    killer.join()
    assert len(killed) == 1
    injected("a task that decodes is killed", wanted.items(), contents(experiment.shards).items())

    (experiment.shards / "000000.json").unlink()  # as if it had been killed before the first task was done
    (experiment.shards / ".000000.tar.0123abcd.tmp").write_bytes(b"half")
    assert len(found(corpus, experiment).clips) == 2
    injected("a driver is killed while tasks decode", wanted.items(), contents(experiment.shards).items())


@pytest.mark.slow
@pytest.mark.usefixtures("never_here")
def test_behind_uris_a_task_fetches_its_files_and_hands_its_shards_to_the_store(corpus, wanted, tmp_path) -> None:
    """A store of fsspec's file:// has no folder that nodes share, as S3 has none."""
    experiment = Experiment.open((tmp_path / "bucket").as_uri(), "films")
    (tmp_path / "bucket" / "films" / ".shards").mkdir(parents=True)  # an object store needs no folders
    uri = corpus.as_uri()
    assert len(found(uri, experiment).clips) == 2
    assert contents(tmp_path / "bucket" / "films" / ".shards") == wanted


def test_a_node_copies_what_it_lacks_and_says_what_it_cannot_see(corpus, wanted, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    experiment = Experiment.open((tmp_path / "bucket").as_uri(), "films")
    (tmp_path / "bucket" / "films" / ".shards").mkdir(parents=True)
    batches: list[Batch] = []

    def keep(given: Any, on_clip: Any) -> list[Any]:
        batches.extend(given)
        raise UsageError("planned")

    with pytest.raises(UsageError, match="planned"):
        find_clips(Console(file=io.StringIO()), experiment, corpus.as_uri(), CONFIG, decode=keep)
    assert [len(batch.clips) for batch in batches] == [CHUNKS, CHUNKS]
    shutil.rmtree(tmp_path / "cache")  # another node has nothing of it
    assert decode_on_node(batches[0], experiment, str(corpus)) is None
    written = decode_on_node(batches[1], experiment, corpus.as_uri())
    assert len(written.clip_ids) == CHUNKS
    assert [path.name for path in experiment.fetched.rglob("*.mp4")] == ["two.mp4"]
    there = contents(tmp_path / "bucket" / "films" / ".shards")
    assert there == {name: wanted[name] for name in ("000001.tar", "000001.json")}


@pytest.mark.slow
def test_what_tasks_cannot_do_is_one_line_or_done_here(corpus, wanted, tmp_path, monkeypatch) -> None:
    experiment = Experiment.open(str(tmp_path), "films")
    (experiment.shards / "000001.tar").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"^\S*/000001\.tar: cannot be written \(Is a directory\)[^\n]*$"):
        found(corpus, experiment)

    experiment = Experiment.open(str(tmp_path), "others")
    plain = decoding.ray.remote
    monkeypatch.setattr(decoding, "MAX_RESTARTS", 0)

    def in_place_of_the_task(body: Any) -> None:
        monkeypatch.setattr(decoding.ray, "remote", lambda **options: lambda _: plain(**options)(body))

    in_place_of_the_task(lambda *_: os._exit(1))
    printed = io.StringIO()
    with pytest.raises(UsageError, match="no clip that can be trained"):
        found(corpus, experiment, printed)
    for name in ("one.mp4", "two.mp4"):
        assert f"{corpus / name}: the process that decoded it died 1 times (" in printed.getvalue()
    in_place_of_the_task(lambda *_: None)  # what the body returns on a machine that does not see the files
    assert len(found(corpus, experiment).clips) == 2
    assert contents(experiment.shards) == wanted

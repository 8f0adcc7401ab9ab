"""A small corpus, good and bad files together, trained once for all the tests that look at what came out."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from infra import ray_cluster
from infra.ray_cluster import ray_session
from infra.tracking import runs
from infra.tracking.parent import ParentRun
from infra.tracking.uri import sqlite_file
from pipeline.video import ffmpeg_exe
from tests.conftest import EmptyStore, made_once

ROOT = Path(__file__).resolve().parent.parent.parent
# A few iterations of narrow networks on a short ladder: everything happens, nothing takes long.
TINY = [
    *("--preset", "demo"),
    *("--set", "channels=4"),
    *("--set", "latent_dim=4"),
    *("--set", "num_scales=4"),
    *("--set", "vae_levels=2"),
    *("--set", "min_size=12"),
    *("--set", "max_size=16"),
    *("--set", "log_every=2"),
    *("--set", "patch_scale=none"),  # all scales are trained
    *("--set", "iters_per_scale=1"),  # a later --set wins
    *("--n", "2"),
]


@pytest.fixture(scope="session", autouse=True)
def _own_ray(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ray and MLflow of these tests see no cluster, token or home of the user's."""
    home = tmp_path_factory.mktemp("home")
    short = Path("/tmp") / f"hpv{os.getpid()}"  # Ray's socket paths must stay below 104 characters
    short.mkdir(exist_ok=True)
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        os.environ.pop(name, None)
    os.environ.update(
        HOME=str(home),
        RAY_TMPDIR=str(short),
        RAY_AUTH_MODE="disabled",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_USAGE_STATS_REPORT_URL="http://127.0.0.1:1/",
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
        RAY_worker_niceness="0",  # else what runs beside, in the other process of the tests, goes first
    )


SHARED: list[contextlib.ExitStack] = []  # what ends with the session
WITHOUT_RAY = {"make_shards.py", "sample.py", "upload.py"}


@pytest.fixture(scope="session", autouse=True)
def _one_ray(_own_ray: None) -> Iterator[None]:
    """One Ray for all the jobs that `run_job` runs in this process, which the first of them starts.

    Its processes take one clip after the other; `own_processes` gives a test's clips a process each, as users have it.
    """
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_cluster, "OWN_PROCESS", {"max_calls": 0})
        SHARED.append(stack)
        yield
        SHARED.clear()


@pytest.fixture(scope="session", autouse=True)
def _quick_estimates() -> Iterator[None]:
    """A dry run in this process measures for a moment how long a training takes, in place of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.timing.ESTIMATE_S", 0.02)
        yield


@pytest.fixture
def own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that changes the process in which a clip is trained."""
    monkeypatch.setattr(ray_cluster, "OWN_PROCESS", {"max_calls": 1})


@pytest.fixture(scope="module")
def one_actor() -> Iterator[None]:
    """Sweeps of a module in this process have actors that take one trial after the other; users have one a trial."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.tuning.trials.REUSE_ACTORS", True)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_schema(empty_store: EmptyStore) -> Iterator[None]:
    """New sqlite files of jobs in this process are copies of one."""
    plain = runs.open_parent

    def with_schema(uri: str, *arguments: Any, **keywords: Any) -> ParentRun:
        path = sqlite_file(uri)
        if path and not path.exists():
            empty_store(path)
        return plain(uri, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "open_parent", with_schema)
        yield


def run_job(job: str, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A job's `main` in this process, on the Ray that such jobs share; stdout and stderr together in `stdout`."""
    main = importlib.import_module(f"jobs.{Path(job).stem}").main
    words, printed = [str(argument) for argument in arguments], io.StringIO()
    if job not in WITHOUT_RAY and "--dry-run" not in words and not ray.is_initialized():
        SHARED[0].enter_context(ray_session())
    before, environment = Path.cwd(), dict(os.environ)
    os.chdir(cwd or before)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = main(words)
    except SystemExit as error:  # of argparse
        code = error.code
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)
    return subprocess.CompletedProcess([job, *words], code, printed.getvalue())


def run_process(job: str, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A job as a user runs it, with a Ray of its own; stdout and stderr together in `stdout`."""
    command = [sys.executable, str(ROOT / "jobs" / job), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500, check=False
    )


def make_video(path: Path, *, seconds: float = 1.0, size: str = "64x48", source: str = "testsrc") -> Path:
    """A small H.264 video at 24 FPS of one of ffmpeg's test patterns."""
    command = [ffmpeg_exe(), "-v", "error", "-y", "-f", "lavfi", "-i", f"{source}=size={size}:rate=24"]
    subprocess.run([*command, "-t", str(seconds), "-pix_fmt", "yuv444p", str(path)], check=True)
    return path


@dataclass(frozen=True)
class Trained:
    storage: Path
    output: str
    code: int
    command: tuple[str | Path, ...]

    @property
    def base(self) -> Path:
        return self.storage / "mixed"

    @property
    def clips(self) -> dict[str, Path]:
        """Folder of each clip by the first word of its id."""
        return {folder.name.split("-")[0]: folder for folder in sorted(self.base.iterdir()) if folder.name[0] != "."
                and folder.is_dir()}  # fmt: skip


def _make_mixed_corpus(folder: Path) -> None:
    folder = folder / "my videos"
    folder.mkdir()
    make_video(folder / "good.mp4")
    make_video(folder / "süß & spaced.mp4", source="mandelbrot", size="80x48")
    (folder / "zero.mp4").write_bytes(b"")
    whole = make_video(folder / "truncated.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "text.mp4").write_text("not a video\n" * 50)
    make_video(folder / "short.mp4", seconds=0.25)
    make_video(folder / "tiny.mp4", size="8x8", source="rgbtestsrc")
    make_video(folder / "dot.mp4", size="1x1", source="rgbtestsrc")
    audio = [ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", "sine=duration=1", str(folder / "audio.mp4")]
    subprocess.run(audio, check=True)


@pytest.fixture(scope="session")
def mixed_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good videos, one with a hard name, among files of every bad kind."""
    return made_once("corpus", _make_mixed_corpus, tmp_path_factory) / "my videos"


@pytest.fixture(scope="session")
def trained(mixed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The corpus, trained; each of the tests' processes has a copy of the storage folder."""
    settings = (
        *("--corpus", mixed_corpus, *TINY, "--set", "iters_per_scale=4"),
        *("--set", "min_size=18", "--set", "max_size=30"),  # videos that others can read, and enlarge
        *("--experiment", "mixed", "--cpus-per-clip", "1"),
    )

    def make(folder: Path) -> None:
        done = run_job("train_corpus.py", *settings, "--storage", folder / "storage")
        (folder / "ended.json").write_text(json.dumps([done.stdout, done.returncode]))

    made = made_once("trained", make, tmp_path_factory)
    storage = tmp_path_factory.mktemp("storage") / "own"
    shutil.copytree(made / "storage", storage)
    return Trained(storage, *json.loads((made / "ended.json").read_text()), (*settings, "--storage", storage))

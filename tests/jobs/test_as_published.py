"""Preset `official` through the commands: clips as the authors' code reads them, samples that play at their rate."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs import train_corpus
from jobs.experiment.corpus import frames_of_source, preview_corpus, read_corpus
from jobs.experiment.experiment import Experiment
from jobs.training.request import TrainRequest
from model.config import TrainConfig
from model.presets import official, paper
from model.pyramid import ladder
from pipeline import shards, video
from pipeline.video import ffmpeg_exe

from .conftest import run_job

SMALL = ["channels=4", "latent_dim=4", "num_scales=2", "vae_levels=1", "min_size=16", "max_size=32"]
TINY = ["--preset", "official", *(word for each in SMALL for word in ("--set", each)), "--set", "iters_per_scale=1"]


def film_of(path: Path, rate: str, height: int, width: int, count: int = 20) -> Path:
    """A lossless video whose frame n is one grey level, 5n."""
    raw = b"".join(bytes([5 * n]) * (3 * height * width) for n in range(count))
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "-"]
    subprocess.run([ffmpeg_exe(), "-v", "error", *given, "-c:v", "ffv1", str(path)], input=raw, check=True)
    return path


def levels(frames_thwc: np.ndarray) -> list[int]:
    return [round(frame.mean() / 5) for frame in frames_thwc]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film_of(tmp_path_factory.mktemp("film") / "fast.mkv", "30000/1001", 1080, 1440)


def test_the_first_frames_of_the_file_as_large_as_they_are(film: Path, tmp_path: Path) -> None:
    """1440×1080 at 29.97 FPS: frames 0 to 12, and a ladder to 13×192×256, not 191 as of frames shrunk first."""
    (previewed,) = preview_corpus(str(film), tmp_path / "cache", official()).clips
    (clip,) = read_corpus(str(film), Experiment.open(str(tmp_path), "own"), official()).clips
    for found in (previewed, clip):
        assert (found.height, found.width, found.fps, found.num_frames) == (1080, 1440, 29.97, 13)
        assert ladder(official(), found.height, found.width)[-1] == (13, 192, 256)
    frames = shards.read_clip(clip.chunks[0]).frames_thwc
    assert frames.shape == (13, 1080, 1440, 3) and levels(frames) == list(range(13))
    (again,) = frames_of_source(str(film), official())
    np.testing.assert_array_equal(again, frames)


def test_the_paper_has_24_frames_a_second_of_any_file(film: Path, tmp_path: Path) -> None:
    (clip,) = read_corpus(str(film), Experiment.open(str(tmp_path), "own"), paper()).clips
    assert (clip.height, clip.width, clip.fps) == (256, 341, 24.0)
    frames = shards.read_clip(clip.chunks[0]).frames_thwc
    places = [int(n * 24 * 1001 / 30000 + 0.5) for n in range(20)]  # of 29.97 a second every fifth is left out
    assert levels(frames) == [max(n for n in range(20) if places[n] == place) for place in range(13)]
    (again,) = frames_of_source(str(film), paper())
    np.testing.assert_array_equal(again, frames)


def test_a_setting_each(film: Path, tmp_path: Path) -> None:
    for changed in (replace(paper(), fps=None), replace(official(), fps=24.0)):
        experiment = Experiment.open(str(tmp_path), changed.resizing)
        (clip,) = read_corpus(str(film), experiment, changed).clips
        assert (clip.height, clip.fps) == ((256, 29.97) if changed.resizing == "corners" else (1080, 24.0))


@pytest.mark.slow
def test_a_model_keeps_the_rate_of_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for name, rate in (("slow", "10"), ("fast", "50")):
        source = f"testsrc=size=64x48:rate={rate}"
        command = [ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", source, "-frames:v", "20"]
        subprocess.run([*command, str(folder / f"{name}.mp4")], check=True)
    named = ["--storage", tmp_path, "--experiment", "own"]
    done = run_job("train_corpus.py", "--corpus", folder, *TINY, "--n", "2", *named)
    assert done.returncode == 0, done.stdout
    assert json.loads((tmp_path / "own" / "experiment.json").read_text())["fps"] is None
    for name, rate in (("slow", 10.0), ("fast", 50.0)):
        (clip,) = (tmp_path / "own").glob(f"{name}-*")
        assert json.loads((clip / "config.json").read_text())["config"]["fps"] == rate
        assert video.probe(clip / "samples" / "sample_00.mp4").fps == rate
        out = tmp_path / name
        assert run_job("sample.py", clip / "checkpoint.pt", "--n", "1", "--out", out).returncode == 0
        assert video.probe(out / "sample_seed0_000.mp4").fps == rate


def test_as_is_is_the_rate_none_of_any_preset(tmp_path: Path) -> None:
    def config(*words: str) -> TrainConfig:
        command = ["--corpus", "demo", "--preset", "demo", "--storage", str(tmp_path), *words]
        return TrainRequest.from_args(train_corpus.parse(command)).settings.main

    assert config().fps == 24.0
    assert config("--as-is") == config("--set", "fps=none") == replace(config(), fps=None)


def test_shards_of_any_rate(film: Path, tmp_path: Path) -> None:
    made = tmp_path / "shards"
    done = run_job("make_shards.py", film, "--out", made, "--as-is", "--max-height", "64")
    assert done.returncode == 0, done.stdout
    clips = read_corpus(str(made), Experiment.open(str(tmp_path), "own"), official()).clips
    assert [(clip.fps, clip.height, clip.width) for clip in clips] == [(29.97, 64, 85)]
    failures = read_corpus(str(made), Experiment.open(str(tmp_path), "paper"), paper()).failures
    assert len(failures) == 1 and "has 13 frames at 29.97 FPS, 13 at 24 are needed" in failures[0][1]

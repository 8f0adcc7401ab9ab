"""Models that patches of the clip finish, and VGPNN, through the commands: train, sample, evaluate, sweep."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from pipeline import video

from .conftest import TINY, make_video, run_job

pytestmark = pytest.mark.slow
PATCHES = (*TINY, "--set", "patch_scale=2", "--set", "max_size=18", "--set", "iters_per_scale=2")
ALONE = ("--cpus-per-clip", "1")


class Finished(NamedTuple):
    base: Path
    clip: Path  # its folder
    source: Path
    output: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("patches")
    source = make_video(folder / "one.mp4", source="mandelbrot")
    storage = ("--storage", folder / "runs", "--experiment", "e")
    done = run_job("train_corpus.py", "--corpus", source, *PATCHES, *storage, *ALONE)
    assert done.returncode == 0, done.stdout
    (clip,) = (folder / "runs" / "e").glob("one-*")
    return Finished(folder / "runs" / "e", clip, source, done.stdout)


def points(clip: Path) -> list[tuple[int, int | None]]:
    lines = map(json.loads, (clip / "metrics.jsonl").read_text().splitlines())
    return [(line["scale"], line["iteration"]) for line in lines]


def test_scales_that_patches_make_are_not_trained_and_the_finest_is_scored_and_shown(finished: Finished) -> None:
    assert points(finished.clip) == [(0, 2), (0, None), (1, 2), (1, None), (3, None)]
    pictures = sorted(path.name for path in (finished.clip / "samples").glob("scale_*.png"))
    assert pictures == ["scale_00.png", "scale_01.png", "scale_03.png"]
    info = video.probe(str(finished.clip / "samples" / "sample_00.mp4"))
    assert (info.height, info.width) == (18, 24)
    scores = json.loads((finished.clip / "metrics.json").read_text())
    assert scores["svfid_lite0"] < 5 * scores["svfid_lite0_blur"]  # of two iterations: the networks alone are noise
    assert 0 <= scores["layouts_redrawn"] <= 30  # two samples, sixteen layouts each
    assert 0 < scores["nnfdiv"] < 1 and 0 < scores["coherence"] < 1
    result = json.loads((finished.clip / "result.json").read_text())
    assert result["status"] == "done" and result["coherence"] == scores["coherence"]
    for head in ("nnfdiv", "coherence"):
        assert head in finished.output


def test_the_same_command_again_does_nothing(finished: Finished) -> None:
    before = (finished.clip / "checkpoint.pt").stat().st_mtime_ns
    storage = ("--storage", finished.base.parent, "--experiment", "e")
    again = run_job("train_corpus.py", "--corpus", finished.source, *PATCHES, *storage, *ALONE)
    assert again.returncode == 0 and (finished.clip / "checkpoint.pt").stat().st_mtime_ns == before
    other = run_job("train_corpus.py", "--corpus", finished.source, *PATCHES, "--set", "patch_scale=3", *storage)
    assert other.returncode == 2 and "patch_scale was 2, is now 3" in other.stdout


def test_evaluation_scores_the_samples_of_training_and_a_rival_beside(finished: Finished, tmp_path: Path) -> None:
    options = ("--n", "2", "--nn", "1", "--out", tmp_path, "--method", "vgpnn", *ALONE)
    done = run_job("evaluate.py", finished.base, *options)
    assert done.returncode == 0, done.stdout
    table = json.loads((tmp_path / "results.json").read_text())
    ours, rival = table["clips"]
    assert "method" not in ours and rival["method"] == "vgpnn" and ours["clip_id"] == rival["clip_id"]
    scores = json.loads((finished.clip / "metrics.json").read_text())
    for name in ("svfid_lite0", "svfid_lite0_blur", "diversity_n2", "nnfdiv", "coherence"):
        assert ours["figures"][name]["mean"] == pytest.approx(scores[name], rel=1e-5)
    assert rival["figures"]["svfid_lite0"]["mean"] > 0 and set(table["rivals"]) == {"vgpnn"}
    assert table["corpus"]["svfid_lite0"]["mean"] == ours["figures"]["svfid_lite0"]["mean"]
    assert f"{ours['clip_id']} (vgpnn)" in done.stdout
    alone_too = ("--n", "2", "--nn", "0", "--out", tmp_path / "1", *ALONE)  # other threads round otherwise
    one = run_job("evaluate.py", finished.clip / "checkpoint.pt", *alone_too)
    assert one.returncode == 0, one.stdout
    alone = json.loads((tmp_path / "1" / "results.json").read_text())["clips"][0]["figures"]
    assert alone["svfid_lite0"]["mean"] == ours["figures"]["svfid_lite0"]["mean"]


def test_samples_find_the_clip_in_the_experiment_and_of_another_size_too(finished: Finished, tmp_path: Path) -> None:
    checkpoint = finished.clip / "checkpoint.pt"
    done = run_job("sample.py", checkpoint, "--n", "1", "--seed", "1", "--out", tmp_path / "same")
    assert done.returncode == 0, done.stdout
    trained = video.decode(str(finished.clip / "samples" / "sample_00.mp4"), fps=24)
    assert (video.decode(str(tmp_path / "same" / "sample_seed1_000.mp4"), fps=24) == trained).all()
    refused = run_job("sample.py", checkpoint, "--z-frames", "13", "--out", tmp_path / "z")
    assert refused.returncode == 2 and "patches too; leave out --z-frames" in refused.stdout
    wide = run_job("sample.py", checkpoint, "--n", "1", "--size", "25x18x48", "--out", tmp_path / "wide")
    assert wide.returncode == 0 and "25×18×48" in wide.stdout
    assert video.decode(str(tmp_path / "wide" / "sample_seed0_000.mp4"), fps=24).shape == (25, 18, 48, 3)


def test_a_checkpoint_without_its_clip_says_so_and_takes_it_by_name(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    moved = shutil.copy(finished.clip / "checkpoint.pt", tmp_path / "moved" / "checkpoint.pt")
    lost = run_job("sample.py", moved, "--n", "1", "--out", tmp_path / "out")
    assert lost.returncode == 2 and lost.stdout.count("\n") == 1, lost.stdout
    assert finished.clip.name in lost.stdout and "give --real CLIP" in lost.stdout
    real = ("--real", finished.source)
    found = run_job("sample.py", moved, "--n", "1", "--seed", "1", "--out", tmp_path / "out", *real)
    assert found.returncode == 0, found.stdout
    trained = video.decode(str(finished.clip / "samples" / "sample_00.mp4"), fps=24)
    assert (video.decode(str(tmp_path / "out" / "sample_seed1_000.mp4"), fps=24) == trained).all()
    other = make_video(tmp_path / "other.mp4", size="64x64")
    wrong = run_job("sample.py", moved, "--n", "1", "--out", tmp_path / "out", "--real", other)
    assert wrong.returncode == 2 and "of another clip" in wrong.stdout and wrong.stdout.count("\n") == 1
    stray = finished.base / "stray-000000"
    stray.mkdir()
    shutil.copy(finished.clip / "checkpoint.pt", stray / "checkpoint.pt")
    scored = run_job("evaluate.py", stray / "checkpoint.pt", "--n", "2", "--nn", "0", *ALONE)
    shutil.rmtree(stray)
    assert scored.returncode == 2 and "give --real CLIP" in scored.stdout
    tiny = run_job("sample.py", finished.clip / "checkpoint.pt", "--size", "13x5x24", "--out", tmp_path / "out")
    assert tiny.returncode == 2 and tiny.stdout.count("\n") == 1
    huge = run_job("sample.py", finished.clip / "checkpoint.pt", "--size", "14401x1080x1920", "--out", tmp_path / "out")
    assert huge.returncode == 2 and "are there; make it smaller" in huge.stdout and huge.stdout.count("\n") == 1


def test_a_long_video_lends_the_patches_of_all_its_chunks(finished: Finished, tmp_path: Path) -> None:
    film = make_video(tmp_path / "film.mp4", seconds=1.2)
    storage = ("--storage", tmp_path / "runs", "--experiment", "e")
    done = run_job("train_corpus.py", "--corpus", film, "--long", *PATCHES, *storage, *ALONE)
    assert done.returncode == 0, done.stdout
    (clip,) = (tmp_path / "runs" / "e").glob("film-*")
    (tmp_path / "moved").mkdir()
    moved = shutil.copy(clip / "checkpoint.pt", tmp_path / "moved" / "checkpoint.pt")
    named = run_job("sample.py", moved, "--n", "1", "--seed", "1", "--real", film, "--out", tmp_path / "out")
    assert named.returncode == 0, named.stdout
    trained = video.decode(str(clip / "samples" / "sample_00.mp4"), fps=24)
    assert (video.decode(str(tmp_path / "out" / "sample_seed1_000.mp4"), fps=24) == trained).all()
    assert json.loads((clip / "config.json").read_text())["chunks"] == 2
    scored = run_job("evaluate.py", tmp_path / "runs" / "e", "--n", "2", "--nn", "0", *ALONE)
    assert scored.returncode == 0, scored.stdout
    row = json.loads((tmp_path / "runs" / "e" / "evaluation" / "results.json").read_text())["clips"][0]["figures"]
    scores = json.loads((clip / "metrics.json").read_text())
    assert row["svfid_lite0"]["mean"] == pytest.approx(scores["svfid_lite0"], rel=1e-5)


def test_vgpnn_is_an_experiment_like_any_other(finished: Finished, tmp_path: Path) -> None:
    command = ("--corpus", finished.source, *TINY, "--method", "vgpnn", "--storage", tmp_path, *ALONE)
    plan = run_job("train_corpus.py", *command, "--dry-run")
    assert plan.returncode == 0 and "from noise on, without training (VGPNN)" in plan.stdout
    done = run_job("train_corpus.py", *command)
    assert done.returncode == 0, done.stdout
    base = tmp_path / "one.mp4-demo-vgpnn"
    (clip,) = base.glob("one-*")
    assert points(clip) == [(3, None)]
    scored = run_job("evaluate.py", base, "--n", "2", "--nn", "0", *ALONE)
    assert scored.returncode == 0, scored.stdout
    row = json.loads((base / "evaluation" / "results.json").read_text())["clips"][0]["figures"]
    scores = json.loads((clip / "metrics.json").read_text())
    assert row["svfid_lite0"]["mean"] == pytest.approx(scores["svfid_lite0"], rel=1e-5)
    sampled = run_job("sample.py", clip / "checkpoint.pt", "--n", "1", "--out", tmp_path / "out")
    assert sampled.returncode == 0, sampled.stdout


def test_a_sweep_has_both_methods_in_one_table(finished: Finished, tmp_path: Path, one_actor: None) -> None:
    sweep = ("--sweep", "method=hpvaegan,vgpnn", "--storage", tmp_path, "--experiment", "s")
    one_at_a_time = ("--cpus-per-clip", str(psutil.cpu_count()))
    done = run_job("tune.py", "--corpus", finished.source, *PATCHES, "--set", "max_size=16", *sweep, *one_at_a_time)
    assert done.returncode == 0, done.stdout
    results = {path.parent.name.partition("--")[2] for path in (tmp_path / "s").glob("*/result.json")}
    assert results == {"method-hpvaegan", "method-vgpnn"}
    scored = run_job("evaluate.py", tmp_path / "s", "--n", "2", "--nn", "0", *one_at_a_time)
    assert scored.returncode == 0, scored.stdout

"""Images and videos in one corpus, and the rivals of Fig. 5, through the commands: train, sample, evaluate, sweep."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pillow_heif
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from jobs.experiment.corpus import preview_corpus, read_corpus
from jobs.experiment.experiment import Experiment
from model.metrics import inception
from model.presets import image_demo

from .conftest import TINY, make_video, run_job

pytestmark = pytest.mark.slow
QUICK = (*TINY, "--set", "num_scales=3", "--set", "max_size=24", "--cpus-per-clip", "1")
PATCHES = (*QUICK, "--set", "vae_levels=1", "--set", "patch_scale=1")


def make_image(path: Path, height: int = 36, width: int = 48, seed: int = 0) -> Path:
    """Squares of many colours."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    Image.fromarray(blocks.repeat(4, axis=0).repeat(4, axis=1)).save(path)
    return path


class Mixed(NamedTuple):
    folder: Path  # of the corpus
    base: Path  # of the experiment
    output: str
    code: int

    def clip(self, name: str) -> Path:
        (found,) = self.base.glob(f"{name}-*")
        return found

    def train(self, *more: str | Path) -> object:
        """The same command again, with more."""
        storage = ("--storage", self.base.parent, "--experiment", "e")
        return run_job("train_corpus.py", "--corpus", self.folder, *PATCHES, *storage, *more)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    """A video, two images and what is neither, trained by one command."""
    top = tmp_path_factory.mktemp("mixed")
    folder = top / "corpus"
    folder.mkdir()
    make_video(folder / "film.mp4", source="mandelbrot")
    make_image(folder / "one.png")
    make_image(folder / "two.jpg", 48, 36, seed=1)
    (folder / "broken.png").write_text("no image\n")
    make_image(folder / "dot.png", 4, 4)
    before = Mixed(folder, top / "runs" / "e", "", 0)
    done = before.train()
    return before._replace(output=done.stdout, code=done.returncode)  # type: ignore[attr-defined]


def test_each_is_trained_as_what_it_is_and_what_is_neither_costs_itself(mixed: Mixed) -> None:
    assert mixed.code == 1, mixed.output
    assert "broken.png: is a text file, not an image; give an image file" in mixed.output
    assert "dot.png: is 4×4 px (H×W), 16×16 is the least; give a larger image" in mixed.output
    for name, metric, other in (("film", "svfid_lite0", "sifid"), ("one", "sifid_lite0_frames", "svfid")):
        scores = json.loads((mixed.clip(name) / "metrics.json").read_text())
        assert {metric, f"{metric}_blur", f"{metric}_reconstruction", "diversity_n2", "coherence"} <= scores.keys()
        assert not [key for key in scores if key.startswith(other)]
        config = json.loads((mixed.clip(name) / "config.json").read_text())
        assert (config["config"]["dims"], config["clip_size_thw"][0]) == ((3, 13) if name == "film" else (2, 1))
        assert all(size[0] == 1 for size in config["sizes_thw"]) == (name != "film")
    assert "columns that do not fit: minutes, " in mixed.output
    rows = list(csv.DictReader(io.StringIO((mixed.base / "results.csv").read_text())))
    filled = {row["clip_id"].split("-")[0]: bool(row["svfid_lite0"]) for row in rows if row["status"] == "done"}
    assert filled == {"film": True, "one": False, "two": False}


def test_samples_of_an_image_are_png_with_one_sheet_and_go_to_mlflow(mixed: Mixed) -> None:
    samples = mixed.clip("one") / "samples"
    names = {path.name for path in samples.iterdir()}
    wanted = {"real.png", "reconstruction.png", "sample_00.png", "sample_01.png", "sheet.png"}
    wanted |= {"diversity.png", "nnf_00.png", *(f"plain_{place:02d}.png" for place in range(4))}
    assert names == wanted | {"scale_00.png", "scale_02.png"}
    with Image.open(samples / "sample_00.png") as picture, Image.open(mixed.folder / "one.png") as original:
        assert picture.size == (32, 24) and original.size == (48, 36)
    with Image.open(mixed.clip("two") / "samples" / "sample_00.png") as picture:
        assert picture.size == (24, 32)  # the shorter side is measured
    client = MlflowClient(f"sqlite:///{mixed.base.parent / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("e").experiment_id], "tags.role = 'clip'")
    run = next(run for run in runs if run.data.tags["clip_id"].startswith("one-"))
    assert {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "samples")} == wanted
    assert run.data.metrics["score/sifid_lite0_frames"] > 0 and run.data.params["dims"] == "2"


def test_the_same_command_again_does_nothing_and_other_settings_are_refused(mixed: Mixed) -> None:
    before = {path: path.stat().st_mtime_ns for path in mixed.base.glob("*/checkpoint.pt")}
    assert mixed.train().returncode == 1  # type: ignore[attr-defined]  # of the two files that are no clips
    assert before == {path: path.stat().st_mtime_ns for path in mixed.base.glob("*/checkpoint.pt")} and len(before) == 3
    other = mixed.train("--set", "kl_weight=3")
    assert other.returncode == 2 and "(videos: kl_weight was 5.0, is now 3.0; images: kl_weight was" in other.stdout  # type: ignore[attr-defined]
    settings = json.loads((mixed.base / "experiment.json").read_text())
    assert (settings["dims"], settings["other_kind"]["dims"]) == (3, 2)


def test_a_dry_run_tells_the_ladder_of_each_kind(mixed: Mixed) -> None:
    told = mixed.train("--dry-run").stdout  # type: ignore[attr-defined]
    assert "ladder T×H×W: 1×12×16 1×17×23 1×24×32" in told and "ladder T×H×W: 4×12×16" in told
    assert "iterations an image: 1 = 1" in told and "iterations a clip: 1 = 1" in told


HALVES: dict[str, tuple[str, dict[str, object]]] = {
    "plain.jpg": ("RGB", {}),
    "progressive.jpg": ("RGB", {"progressive": True}),
    "ink.jpg": ("CMYK", {}),
    "deep.png": ("I;16", {}),
    "clear.png": ("RGBA", {}),
    "web.webp": ("RGB", {}),
    "small.avif": ("RGB", {}),
    "phone.heic": ("RGB", {}),
    "page.tif": ("RGB", {}),
    "raw.bmp": ("RGB", {}),
}


def test_a_dry_run_tells_of_every_image_of_which_half_is_there(tmp_path: Path) -> None:
    pillow_heif.register_heif_opener()  # so that Pillow writes one
    folder = tmp_path / "corpus"
    folder.mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (48, 64, 4), dtype=np.uint8)
    for name, (mode, options) in HALVES.items():
        pixels = colours[..., :2].copy().view(np.uint16)[..., 0] if mode == "I;16" else colours[..., : len(mode)]
        picture = Image.fromarray(np.ascontiguousarray(pixels), mode=mode if mode == "CMYK" else None)
        picture.save(folder / name, **options)  # type: ignore[arg-type]
        whole = (folder / name).read_bytes()
        (folder / f"half_{name}").write_bytes(whole[: len(whole) * 3 // 4])
    told: list[tuple[int, int]] = []
    previewed = preview_corpus(str(folder), tmp_path / "cache", image_demo(), advance=lambda *at: told.append(at))
    read = read_corpus(str(folder), Experiment.open(str(tmp_path), "e"), image_demo())
    assert sorted(previewed.failures) == sorted(read.failures)
    assert {Path(source).name for source, _ in read.failures} == {f"half_{name}" for name in HALVES}
    assert [clip.clip_id for clip in previewed.clips] == [clip.clip_id for clip in read.clips]
    assert len(read.clips) == len(HALVES) and told[-1][0] == told[-1][1] == len(told) >= len(HALVES)


def test_a_dry_run_reads_no_image_of_a_clip_that_is_done(mixed: Mixed) -> None:
    picture = mixed.folder / "two.jpg"
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) * 3 // 4])
    try:
        again, fresh = (mixed.train("--dry-run", *more).stdout for more in ((), ("--fresh",)))  # type: ignore[attr-defined]
    finally:
        picture.write_bytes(whole)
    assert "cannot be read to its end" not in again
    assert f"{mixed.clip('two').name}  48×36 px (H×W)  done" in again
    assert f"not usable: {picture}: is an image that cannot be read to its end" in fresh


def test_long_refuses_images_one_by_one(mixed: Mixed, tmp_path: Path) -> None:
    told = mixed.train("--long", "--dry-run", "--experiment", "long").stdout  # type: ignore[attr-defined]
    for name in ("one.png", "two.jpg"):
        assert f"{mixed.folder / name}: is an image, which has no length; train it without --long" in told
    assert "film" in told and "1 clip, preset" in told
    images = json.loads((mixed.base / "experiment.json").read_text())["other_kind"]
    (tmp_path / "images.json").write_text(json.dumps(images))
    refused = run_job("train_corpus.py", "--corpus", mixed.folder, "--config", tmp_path / "images.json", "--long")
    assert refused.returncode == 2
    assert "--long: an image has no length; leave it out, or give a preset of videos" in refused.stdout


def test_a_setting_that_images_cannot_have_is_named(mixed: Mixed) -> None:
    told = mixed.train("--set", "num_frames=25", "--dry-run", "--experiment", "n").stdout  # type: ignore[attr-defined]
    cause = "is an image, which these settings do not fit (num_frames=25: of an image it is 1)"
    for name in ("one.png", "two.jpg"):
        assert f"{mixed.folder / name}: {cause}; leave that out, or train it by itself" in told


def test_sampling_an_image(mixed: Mixed, tmp_path: Path) -> None:
    checkpoint = mixed.clip("one") / "checkpoint.pt"
    done = run_job("sample.py", checkpoint, "--n", "3", "--seed", "1", "--out", tmp_path / "a")
    assert done.returncode == 0 and "3 images of 1×24×32" in done.stdout, done.stdout
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        *(f"sample_seed1_{i:03d}.png" for i in range(3)),
        "sheet_seed1.png",
    }
    trained = np.asarray(Image.open(mixed.clip("one") / "samples" / "sample_00.png"))
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "a" / "sample_seed1_000.png")), trained
    )  # seed 1 is the scored one
    wide = run_job("sample.py", checkpoint, "--n", "1", "--size", "24x60", "--out", tmp_path / "b")
    assert wide.returncode == 0, wide.stdout
    with Image.open(tmp_path / "b" / "sample_seed0_000.png") as picture:
        assert picture.size == (60, 24)
    for arguments, words in (
        (("--size", "13x24x60"), "13 frames of an image, which has one; give 1x24x60"),
        (("--size", "24"), "--size 24: write height x width, such as 256x1024"),
        (("--real", mixed.folder / "film.mp4"), "is no image, and the model is of images; give one of its kind"),
        (("--real", mixed.folder / "two.jpg"), "they are of another clip; give its own"),
    ):
        refused = run_job("sample.py", checkpoint, *arguments, "--out", tmp_path / "c")
        assert refused.returncode == 2 and words in refused.stdout.replace("\n", " "), refused.stdout
    film = run_job(
        "sample.py", mixed.clip("film") / "checkpoint.pt", "--real", mixed.folder / "one.png", "--out", tmp_path / "c"
    )
    assert film.returncode == 2 and "is an image, and the model is of videos; give one of its kind" in film.stdout


def test_samples_of_anything_are_scored_against_an_image(mixed: Mixed, tmp_path: Path) -> None:
    real, samples = mixed.clip("one") / "samples" / "real.png", mixed.clip("one") / "samples"
    done = run_job("evaluate.py", "--samples", samples, "--real", real, "--out", tmp_path)
    assert done.returncode == 0, done.stdout
    (clip,) = json.loads((tmp_path / "results.json").read_text())["clips"]
    scores = json.loads((mixed.clip("one") / "metrics.json").read_text())
    for name in ("sifid_lite0_frames", "diversity_n2"):  # 8 bits a colour cost a little
        assert clip["figures"][name]["mean"] == pytest.approx(scores[name], rel=0.05)
    make_image(tmp_path / "images.png")
    none = run_job("evaluate.py", "--samples", tmp_path, "--real", mixed.folder / "film.mp4", "--out", tmp_path / "o")
    assert none.returncode == 2 and "holds no video" in none.stdout


def test_an_image_smaller_than_its_coarsest_scale_is_one_line(mixed: Mixed) -> None:
    larger = ("--set", "min_size=40", "--set", "max_size=48", "--experiment", "larger")
    told = mixed.train(*larger, "--dry-run").stdout  # type: ignore[attr-defined]
    words = "is kept at 36×48 px (H×W), and its coarsest scale would be 40×53; give a larger image"
    assert f"{words}, or set a smaller min_size" in told


@pytest.mark.parametrize("more", [("--dry-run",), ()], ids=["dry run", "run"])
def test_a_very_high_image_is_refused_for_its_size_when_it_is_kept(more: tuple[str, ...], tmp_path: Path) -> None:
    """It is shrunk to 376 px of height, twice max_size; a ladder of its shorter side could be higher than that."""
    make_image(tmp_path / "higher.png", 1600, 60)
    make_image(tmp_path / "high.png", 1000, 60)
    settings = ("--preset", "image_demo", "--set", "min_size=30", "--storage", tmp_path / "runs")
    done = run_job("train_corpus.py", "--corpus", tmp_path, *settings, *more)
    assert done.returncode == 2, done.stdout
    assert "higher.png: is 1600×60 px (H×W), kept at 376×14, and 16×16 is the least; crop it" in done.stdout
    words = "is kept at 376×23 px (H×W), and its coarsest scale would be 490×30; crop it, or set a smaller min_size"
    assert words in done.stdout


def test_evaluating_images_and_videos_together(mixed: Mixed, tmp_path: Path) -> None:
    done = run_job("evaluate.py", mixed.base, "--n", "2", "--nn", "1", "--keep", "--out", tmp_path, "--method", "vgpnn")
    assert done.returncode == 0, done.stdout
    table = json.loads((tmp_path / "results.json").read_text())
    assert len(table["clips"]) == 6
    ours = {clip["clip_id"].split("-")[0]: clip["figures"] for clip in table["clips"] if "method" not in clip}
    scores = json.loads((mixed.clip("one") / "metrics.json").read_text())
    for name in ("sifid_lite0_frames", "diversity_n2", "coherence"):
        assert ours["one"][name]["mean"] == pytest.approx(scores[name], rel=1e-5)
    assert "svfid_lite0" in ours["film"] and "svfid_lite0" not in ours["one"]
    folder = tmp_path / mixed.clip("one").name
    assert {path.name for path in folder.iterdir()} == {
        "diversity.png",
        "nnf_00.png",
        "sample_00.png",
        "sample_01.png",
        "scores.json",
    }
    videos_only = run_job("evaluate.py", mixed.clip("one") / "checkpoint.pt", "--features", "c3d:none.npz")
    assert videos_only.returncode == 2


@pytest.fixture(scope="module")
def rivals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep of an image with both rivals beside."""
    top = tmp_path_factory.mktemp("rivals")
    make_image(top / "a.png", 32, 40)
    sweep = ("--sweep", "vae_levels=1,2", "--rivals", "singan,consingan", "--n", "5", "--experiment", "s")
    image = (*QUICK, "--preset", "image_demo", "--set", "num_scales=2", "--set", "iters_per_scale=4")
    done = run_job("tune.py", "--corpus", top / "a.png", *image, *sweep, "--storage", top)
    assert done.returncode == 0, done.stdout
    return top / "s", done.stdout


def test_rivals_are_rows_of_a_sweep_and_straight_lines_of_its_plot(rivals: tuple[Path, str]) -> None:
    base, output = rivals
    assert "4 trials: 4 combinations × 1 clip, into" in output
    lines = output.splitlines()
    table = lines[lines.index("sweep") :]
    rows = [line for line in table if re.search(r" 1/1 ", line)]
    assert [next(word for word in line.split() if "gan" in word) for line in rows] == [
        "hpvaegan",
        "hpvaegan",
        "singan",
        "consingan",
    ]
    assert "sifid of blur" in output and "svfid" not in output
    with Image.open(base / "sweep.png") as picture:
        assert picture.size == (1320, 540)
    best = json.loads((base / "best.json").read_text())
    assert best["method"] == "hpvaegan" and best["dims"] == 2
    config = json.loads(next(base.glob("a-*--method-consingan")).joinpath("config.json").read_text())["config"]
    wanted = {"vae_levels": 0, "latent_dim": 3, "train_depth": 3, "rec_weight": 10.0, "grad_clip": None}
    assert {name: config[name] for name in wanted} == wanted


def test_a_sweep_with_rivals_leaves_the_material_of_a_user_study(rivals: tuple[Path, str]) -> None:
    base, output = rivals
    folder = base / "evaluation" / "study"
    assert "for a user study: 1 clip, 5 samples of each of 4 methods" in output
    index = json.loads((folder / "index.json").read_text())
    assert index["methods"] == ["consingan", "hpvaegan--vae_levels-1", "hpvaegan--vae_levels-2", "singan"]
    for clip, files in index["clips"].items():
        with Image.open(folder / files["original"]) as picture:
            assert picture.size == (30, 24)
        for method, samples in files["samples"].items():
            assert samples == [f"{clip}/{method}/{place}.png" for place in range(1, 6)]
            assert all((folder / sample).is_file() for sample in samples)
    first = folder / next(iter(index["clips"])) / "singan" / "1.png"
    trial = next(base.glob("a-*--method-singan")) / "samples" / "sample_00.png"
    assert first.read_bytes() == trial.read_bytes()


def test_restore_scores_a_finished_sweep_by_other_features_without_training_again(tmp_path: Path) -> None:
    make_image(tmp_path / "a.png", 48, 56)
    weights = {name: torch.rand(shape) for name, shape in inception.shapes(64).items()} | {"fc.bias": torch.zeros(1000)}
    torch.save(weights, tmp_path / "inception.pth")
    image = (*QUICK, "--preset", "image_demo", "--set", "num_scales=2", "--set", "max_size=48", "--storage", tmp_path)
    command = ("--corpus", tmp_path / "a.png", *image, "--sweep", "vae_levels=1", "--experiment", "s")
    assert run_job("tune.py", *command).returncode == 0
    (trial,) = (tmp_path / "s").glob("a-*--vae_levels-1")
    before, scores = (json.loads((trial / f"{name}.json").read_text()) for name in ("result", "metrics"))
    weights_before = (trial / "checkpoint.pt").read_bytes()
    restored = (*command, "--restore", "--features", f"inception:{tmp_path / 'inception.pth'}")
    refused = run_job("tune.py", *restored, "--asha")
    assert refused.returncode == 2 and "its features differ" in refused.stdout.replace("\n", " ")
    assert run_job("tune.py", *restored).returncode == 0
    (row,) = csv.DictReader(io.StringIO((tmp_path / "s" / "sweep.csv").read_text()))
    (name,) = [column for column in row if column.startswith("sifid_inception_") and not column.endswith("_blur")]
    after = json.loads((trial / "result.json").read_text())
    scored = json.loads((trial / "metrics.json").read_text())[name]
    assert float(row[name]) == after.pop(name) == scored > 0 and after.pop(f"{name}_blur") > 0
    assert after == before
    again = json.loads((trial / "metrics.json").read_text())
    assert {figure: again[figure] for figure in scores if figure != "time_ms"} == {
        figure: value for figure, value in scores.items() if figure != "time_ms"
    }
    assert (trial / "checkpoint.pt").read_bytes() == weights_before
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("s").experiment_id], "tags.role = 'clip'")
    assert run.data.metrics[f"score/{name}"] == scored
    stamp = (trial / "result.json").stat().st_mtime_ns
    assert run_job("tune.py", *restored).returncode == 0 and (trial / "result.json").stat().st_mtime_ns == stamp


def test_a_rival_s_checkpoint_is_sampled_like_any_other(rivals: tuple[Path, str], tmp_path: Path) -> None:
    base, _ = rivals
    checkpoint = next(base.glob("a-*--method-consingan")) / "checkpoint.pt"
    done = run_job("sample.py", checkpoint, "--n", "1", "--size", "30x60", "--out", tmp_path)
    assert done.returncode == 0, done.stdout
    with Image.open(tmp_path / "sample_seed0_000.png") as picture:
        assert picture.size == (60, 30)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rivals", "gan"), "--rivals gan: no such method; give some of singan, consingan, vgpnn"),
        (("--rivals", "singan", "--asha"), "--asha: the scales of rivals do not compare"),
        (("--metric", "sifid_lite0_frames"), "--metric sifid_lite0_frames: is not of videos"),
    ],
)
def test_what_cannot_be_swept_beside_is_one_line(
    arguments: tuple[str, ...], words: str, mixed: Mixed, tmp_path: Path
) -> None:
    command = ("--corpus", mixed.folder / "film.mp4", *QUICK, "--sweep", "vae_levels=1,2", "--storage", tmp_path)
    done = run_job("tune.py", *command, *arguments)
    assert done.returncode == 2 and words in done.stdout


def test_a_sweep_of_videos_leaves_images_out(mixed: Mixed, tmp_path: Path) -> None:
    command = ("--corpus", mixed.folder / "one.png", *QUICK, "--sweep", "vae_levels=1,2", "--storage", tmp_path)
    done = run_job("tune.py", *command)
    assert done.returncode == 2
    cause = "is an image, and these settings are of videos; give a preset of images, such as image_demo"
    assert f"{mixed.folder / 'one.png'}: {cause}" in done.stdout


def test_a_video_and_its_mirror_image_are_trained_by_a_rival(mixed: Mixed, tmp_path: Path) -> None:
    sets = ("channels=4", "num_scales=2", "min_size=12", "max_size=16", "iters_per_scale=1", "flip=true")
    command = (
        "--corpus",
        mixed.folder / "film.mp4",
        "--preset",
        "demo",
        *(f"--set={text}" for text in sets),
        "--n",
        "2",
    )
    done = run_job("train_corpus.py", *command, "--method", "singan", "--storage", tmp_path, "--cpus-per-clip", "1")
    assert done.returncode == 0, done.stdout
    base = tmp_path / "film.mp4-demo-singan"
    config = json.loads(next(base.glob("film-*/config.json")).read_text())["config"]
    assert (config["method"], config["batch_size"], config["patch_scale"]) == ("singan", 1, None)
    wrong = run_job("train_corpus.py", *command, "--method", "singan", "--set=vae_levels=1", "--storage", tmp_path)
    assert wrong.returncode == 2 and "method=singan: needs vae_levels=0" in wrong.stdout

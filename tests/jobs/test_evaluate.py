"""jobs/evaluate.py: the figures train_corpus.py logged come out again, foreign videos are scored, bad input is told."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from rich.console import Console
from skimage.color import rgb2lab

from jobs import evaluate
from jobs.evaluation.table import ScoredClip, print_scores
from jobs.reports.pictures import FULL_SPREAD, HEADER, KEY, field_sheet, spread_sheet
from model import checkpoint
from model.metrics import inception
from model.metrics.diversity import diversity_map
from model.metrics.nnf import nearest_neighbour_field
from model.metrics.scores import Score
from pipeline import video

from .conftest import TINY, Trained, make_video, run_job, run_process
from .test_s3 import bucket  # noqa: F401

ALONE = ("--cpus-per-clip", "1")  # as the clips were trained: the same threads give the same bits


def copied(trained: Trained, folder: Path) -> Path:
    """The experiment, and its MLflow store, in a storage of its own; its results are there to be changed."""
    storage = folder / "storage"
    shutil.copytree(trained.storage, storage)
    return storage / "mixed"


@pytest.fixture(scope="module")
def evaluated(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment after an evaluation of the very samples that train_corpus.py scored."""
    base = copied(trained, tmp_path_factory.mktemp("evaluated"))
    done = run_job("evaluate.py", base, "--n", "2", "--nn", "2", "--keep", *ALONE)
    assert done.returncode == 0, done.stdout
    head, _, table = done.stdout.partition("\n")
    assert head == "mixed: n 2, seed 1, features lite0"
    page = (base / "evaluation" / "results.md").read_text().splitlines()
    assert set(page[-2:]) <= set(table.splitlines())  # the notes
    words = {word for line in page if "good-" in line for word in line.split(" | ")[2].split()}
    assert words and words <= {word for line in table.splitlines() if "good-" in line for word in line.split()}
    return base


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_scored_and_leaves_nothing(trained: Trained, tmp_path: Path) -> None:
    base = copied(trained, tmp_path)
    (base / trained.clips["good"].name / "result.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in base.rglob("*") if path.is_file()}
    done = run_job("evaluate.py", base, "--n", "3", "--method", "vgpnn", "--dry-run", *ALONE)
    assert done.returncode == 1, done.stdout
    assert f"mixed: 2 rows of 3 samples, into {base}/evaluation\n" in done.stdout
    assert f"not scored: {trained.clips['good'].name}: is not trained to its end; train it again\n" in done.stdout
    assert re.search(
        r"nearest neighbours: of 2 samples a row\ntime: about \d+:\d\d a row, \d+:\d\d in all", done.stdout
    )
    assert {path: path.stat().st_mtime_ns for path in base.rglob("*") if path.is_file()} == before
    folder = run_job("evaluate.py", "--samples", tmp_path, "--real", "demo", "--dry-run")
    assert folder.returncode == 2 and "--dry-run: is of experiments and checkpoints" in folder.stdout


def results(folder: Path) -> dict[str, dict]:
    """The figures of results.json by clip and name."""
    found = json.loads((folder / "results.json").read_text())
    return {clip["clip_id"]: clip["figures"] for clip in found["clips"]}


def logged(clip: Path) -> dict[str, float]:
    return json.loads((clip / "metrics.json").read_text())


def clips_of(base: Path) -> dict[str, Path]:
    return {path.parent.name.split("-")[0]: path.parent for path in base.glob("*/result.json")}


def complaints(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("- ")]


# -- an experiment


@pytest.mark.slow
def test_the_scores_of_training_are_reproduced_exactly(evaluated: Path) -> None:
    for clip in clips_of(evaluated).values():
        figures, before = results(evaluated / "evaluation")[clip.name], logged(clip)
        assert before["num_samples"] == 2 and before["seed"] == 1
        for name in ("svfid_lite0", "svfid_lite0_blur", "diversity_n2"):
            assert figures[name]["mean"] == before[name]
        # one search over patches at every position, the other side by side: equal to float32's last digits
        assert figures["nn_distance"]["mean"] == pytest.approx(before["nn_distance"], rel=1e-6)
        assert len(set(figures["svfid_lite0"]["values"])) == 2
        assert 0 < figures["nnfdiv"]["mean"] < 1.2


def test_the_tables_agree_and_hold_mean_and_deviation(evaluated: Path) -> None:
    folder = evaluated / "evaluation"
    figures = results(folder)
    with open(folder / "results.csv", newline="") as file:
        *rows, corpus = csv.DictReader(file)
    assert [row["clip_id"] for row in rows] == list(figures) and corpus["clip_id"] == "corpus"
    page = (folder / "results.md").read_text()
    for row in rows:
        values = figures[row["clip_id"]]["svfid_lite0"]["values"]
        assert float(row["svfid_lite0"]) == pytest.approx(sum(values) / 2)
        assert float(row["svfid_lite0_std"]) == pytest.approx(abs(values[0] - values[1]) / 2)
        assert f"{float(row['svfid_lite0']):.1f} ± {float(row['svfid_lite0_std']):.1f}" in page
        assert row["samples"] == row["nn_samples"] == "2" and row["diversity_n2_std"] == ""
    one, two = (float(row["diversity_n2"]) for row in rows)
    assert float(corpus["diversity_n2"]) == pytest.approx((one + two) / 2)
    assert float(corpus["diversity_n2_std"]) == pytest.approx(abs(one - two) / 2)
    assert f"{(one + two) / 2:.2f} ± {abs(one - two) / 2:.2f}" in page and "mean of 2 clips" in page


def test_pictures_and_samples_are_beside_the_tables(evaluated: Path, tmp_path: Path) -> None:
    for clip in clips_of(evaluated).values():
        made = evaluated / "evaluation" / clip.name
        names = {"diversity.png", "nnf_00.png", "nnf_01.png", "sample_00.mp4", "sample_01.mp4", "scores.json"}
        assert {path.name for path in made.iterdir()} == names
        kept, before = (video.decode(folder / "sample_01.mp4") for folder in (made, clip / "samples"))
        assert (kept == before).all()


def test_mlflow_has_it_once_however_often_it_is_made(evaluated: Path) -> None:
    client = MlflowClient(f"sqlite:///{evaluated.parent / 'mlflow.db'}")

    def runs() -> dict[str, Run]:
        experiment = client.get_experiment_by_name("mixed")
        assert experiment is not None
        return {run.data.tags.get("clip_id", "corpus"): run for run in client.search_runs([experiment.experiment_id])}

    before = runs()
    again = run_job("evaluate.py", evaluated, "--n", "2", "--nn", "1", *ALONE)
    assert again.returncode == 0 and "warning" not in again.stdout, again.stdout
    now, figures = runs(), results(evaluated / "evaluation")
    assert {name: run.info.run_id for name, run in now.items()} == {
        name: run.info.run_id for name, run in before.items()
    }
    for clip_id, found in figures.items():
        run = now[clip_id]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["eval/n2_svfid_lite0"] == found["svfid_lite0"]["mean"]
        assert run.data.metrics["eval/n2_svfid_lite0_std"] == found["svfid_lite0"]["std"]
        assert run.data.metrics["eval/n1_nnfdiv"] == found["nnfdiv"]["values"][0]
        assert run.data.metrics["eval/n2_nnfdiv"] == before[clip_id].data.metrics["eval/n2_nnfdiv"]
        assert len(client.get_metric_history(run.info.run_id, "eval/n2_svfid_lite0")) == 1
        paths = {file.path for file in client.list_artifacts(run.info.run_id, "evaluation")}
        assert {"evaluation/diversity.png", "evaluation/nnf_00.png"} <= paths
    parent = now["corpus"]
    means = [found["diversity_n2"]["mean"] for found in figures.values()]
    assert parent.data.metrics["eval/diversity_n2_mean"] == pytest.approx(np.mean(means))
    assert parent.data.metrics["eval/diversity_n2_std"] == pytest.approx(np.std(means))
    assert len(client.get_metric_history(parent.info.run_id, "eval/diversity_n2_mean")) == 1
    tables = {file.path for file in client.list_artifacts(parent.info.run_id, "evaluation")}
    assert tables == {f"evaluation/results.{kind}" for kind in ("csv", "json", "md")}


def test_a_checkpoint_of_an_experiment_and_one_alone(trained: Trained, mixed_corpus: Path, tmp_path: Path) -> None:
    clip, alone = trained.clips["good"], tmp_path / "alone"
    inside = run_job("evaluate.py", clip, "--n", "2", "--nn", "0", *ALONE, "--out", tmp_path / "in")
    assert inside.returncode == 0, inside.stdout
    alone.mkdir()
    shutil.copy(clip / "checkpoint.pt", alone / "model.pt")
    refused = run_job("evaluate.py", alone / "model.pt")
    assert refused.returncode == 2 and "--real CLIP" in refused.stdout
    given = ("--real", mixed_corpus / "good.mp4")
    outside = run_job("evaluate.py", alone / "model.pt", *given, "--n", "2", "--nn", "0", *ALONE)
    assert outside.returncode == 0, outside.stdout
    for figures in (results(tmp_path / "in")[clip.name], results(alone / "evaluation")["alone"]):
        assert figures["svfid_lite0"]["mean"] == logged(clip)["svfid_lite0"]
        assert "nnfdiv" not in figures
    asked = ("--precision", "float32", "--z-frames", "13", "--n", "2", "--nn", "0", *ALONE)
    otherwise = run_job("evaluate.py", clip / "checkpoint.pt", *asked, "--out", tmp_path / "z")
    assert otherwise.returncode == 0 and "precision float32, z_frames 13" in otherwise.stdout, otherwise.stdout
    assert results(tmp_path / "z")[clip.name]["svfid_lite0"]["mean"] != logged(clip)["svfid_lite0"]
    foreign = ("--samples", clip / "samples", *given, "--z-frames", "13")
    refused = run_job("evaluate.py", *foreign)
    assert refused.returncode == 2 and "not --samples" in refused.stdout


def test_a_clip_that_cannot_be_scored_costs_itself_only(trained: Trained, tmp_path: Path) -> None:
    """A model of NaN, and an argument that names nothing."""
    base = copied(trained, tmp_path)
    path = clips_of(base)["good"] / "checkpoint.pt"
    saved = checkpoint.load(path)
    nothing = {name: torch.full_like(x, torch.nan) for name, x in saved.generators.items()}
    checkpoint.save(replace(saved, generators=nothing), path)
    done = run_job("evaluate.py", base, tmp_path / "nowhere", "--n", "2", "--nn", "0")
    assert done.returncode == 1, done.stdout
    (line,) = complaints(done.stdout)
    assert "good-" in line and "none of 2 samples" in line and "NaN" in line
    assert sum("nowhere: no experiment of train_corpus.py" in line for line in done.stdout.splitlines()) == 1
    figures = results(base / "evaluation")
    assert figures[path.parent.name] == {} and "mean of 1 clip " in done.stdout
    assert figures[clips_of(base)["su"].name]["svfid_lite0"]["mean"] > 0


@pytest.mark.slow
def test_an_experiment_in_an_object_store(trained: Trained, bucket: str, tmp_path: Path) -> None:  # noqa: F811
    import s3fs

    store = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"], use_listings_cache=False)
    store.put(str(trained.base), f"{bucket}/runs/mixed", recursive=True)
    done = run_process("evaluate.py", f"{bucket}/runs/mixed", "--n", "2", "--nn", "0", *ALONE, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    figures = {
        c["clip_id"]: c["figures"]
        for c in json.loads(store.cat(f"{bucket}/runs/mixed/evaluation/results.json"))["clips"]
    }
    for clip in trained.clips.values():
        assert figures[clip.name]["svfid_lite0"]["mean"] == logged(clip)["svfid_lite0"]
        assert store.exists(f"{bucket}/runs/mixed/evaluation/{clip.name}/diversity.png")


def test_what_is_scored_is_not_scored_again_but_of_other_weights_or_options(trained: Trained, tmp_path: Path) -> None:
    """A run that is stopped leaves the scores of the clips that were done; here one has another figure, to be known."""

    def evaluated_again(*options: str) -> float:
        done = run_job("evaluate.py", model, "--nn", "0", "--cpus-per-clip", "1", "--out", out, *options)
        assert done.returncode == 0, done.stdout
        (row,) = json.loads((out / "results.json").read_text())["clips"]
        return float(row["figures"]["svfid_lite0"]["mean"])

    model, out = tmp_path / trained.clips["good"].name, tmp_path / "scores"
    shutil.copytree(trained.clips["good"], model)
    real = ("--real", str(trained.clips["good"]))
    first = evaluated_again("--n", "2", *real)
    (kept,) = out.glob("*/scores.json")
    content = kept.read_text()
    marked = json.loads(content)
    marked["scores"]["svfid_lite0"]["values"] = [1.0, 3.0]
    kept.write_text(json.dumps(marked))
    assert evaluated_again("--n", "2", *real) == 2.0
    assert evaluated_again("--n", "3", *real) > 2.0 and kept.read_text() != content
    assert evaluated_again("--n", "2", *real) == first and kept.read_text() == content
    kept.write_text(json.dumps(marked))
    saved = checkpoint.load(model / "checkpoint.pt")
    for weights in saved.generators.values():
        weights.mul_(2)
    checkpoint.save(saved, model / "checkpoint.pt")
    assert evaluated_again("--n", "2", *real) not in (2.0, first)


@pytest.mark.slow
def test_training_afresh_forgets_the_evaluation(tmp_path: Path) -> None:
    make_video(tmp_path / "clip.mp4", size="48x48")
    train = ("--corpus", tmp_path / "clip.mp4", *TINY, "--storage", tmp_path / "runs", "--experiment", "one")
    assert run_job("train_corpus.py", *train).returncode == 0
    base = tmp_path / "runs" / "one"
    assert run_job("evaluate.py", base, "--n", "2", "--nn", "0").returncode == 0
    assert (base / "evaluation" / "results.md").exists()
    assert run_job("train_corpus.py", *train).returncode == 0
    assert (base / "evaluation" / "results.md").exists()
    afresh = run_job("train_corpus.py", *train, "--set", "channels=4", "--fresh")
    assert afresh.returncode == 0, afresh.stdout
    assert not (base / "evaluation").exists()


# -- videos of something else


def main(*arguments: str | Path) -> int:
    return evaluate.main([str(word) for word in arguments])


@pytest.fixture
def foreign(evaluated: Path, tmp_path: Path) -> Path:
    """Two videos that a model made, as another method would hand them over."""
    folder = tmp_path / "other"
    folder.mkdir()
    clip = clips_of(evaluated)["good"]
    for index in range(2):
        shutil.copy(clip / "samples" / f"sample_{index:02d}.mp4", folder)
    return folder


def test_of_a_folder_of_sample_py_what_is_no_sample_is_left_out(
    evaluated: Path, foreign: Path, mixed_corpus: Path, tmp_path: Path
) -> None:
    """The samples of several seeds count; sheets and comparisons, which are of another size, do not."""
    clip, folder = clips_of(evaluated)["good"], tmp_path / "ours"
    folder.mkdir()
    for seed in (0, 3):
        shutil.copy(clip / "samples" / f"sample_0{seed % 2}.mp4", folder / f"sample_seed{seed}_007.mp4")
        shutil.copy(clip / "samples" / f"sample_0{seed % 2}.gif", folder / f"sample_seed{seed}_007.gif")
    make_video(folder / "compare_seed3.mp4")
    make_video(folder / "compare_extend_seed0.mp4")
    assert main("--samples", folder, "--real", clip, "--nn", "0", "--out", tmp_path / "scores") == 0
    of_seeds = results(tmp_path / "scores")["ours"]
    assert len(of_seeds["svfid_lite0"]["values"]) == 2
    assert main("--samples", foreign, "--real", mixed_corpus / "good.mp4", "--nn", "0") == 0
    assert of_seeds == results(foreign / "evaluation")["other"]  # --real takes the clip's folder for its video


def test_foreign_samples_and_bad_ones_among_them(
    evaluated: Path, foreign: Path, mixed_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = ("--real", mixed_corpus / "good.mp4")
    assert main("--samples", foreign, *real, "--nn", "1") == 0
    clean = results(foreign / "evaluation")["other"]
    ours = results(evaluated / "evaluation")[clips_of(evaluated)["good"].name]
    for name in ("svfid_lite0", "diversity_n2", "nn_distance"):  # mp4 loses some colour
        assert clean[name]["mean"] == pytest.approx(ours[name]["mean"], rel=0.3)
    assert clean["svfid_lite0_blur"]["mean"] == ours["svfid_lite0_blur"]["mean"]
    capsys.readouterr()

    whole = (foreign / "sample_00.mp4").read_bytes()
    (foreign / "a_torn.mp4").write_bytes(whole[: len(whole) // 3])
    (foreign / "text.mp4").write_text("no video\n" * 9)
    (foreign / "zero.mp4").write_bytes(b"")
    (foreign / "notes.txt").write_text("not a sample")
    make_video(foreign / "a_small.mp4", size="32x24")  # the first is not what the others are measured by
    make_video(foreign / "still.mp4", seconds=0.04, size="40x30")
    assert main("--samples", foreign, *real, "--nn", "1") == 1
    told = complaints(capsys.readouterr().out)
    causes = {
        "a_torn": "is damaged at",
        "text": "text file",
        "zero": "empty",
        "a_small": "24×24×32",
        "still": "1×30×40",
    }
    assert len(told) == len(causes)
    for name, cause in causes.items():
        (line,) = [line for line in told if f"/{name}.mp4: " in line]
        assert cause in line and "; " in line and line.count(f"{name}.mp4") == 1
    assert results(foreign / "evaluation")["other"] == clean


def test_damage_that_the_decoder_covers_up_is_no_sample(
    foreign: Path, mixed_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All frames are there, some of them held or smeared: their figures would be those of another video."""
    make_video(foreign / "sample_02.mp4", size="40x30", seconds=13 / 24, source="mandelbrot")
    content = bytearray((foreign / "sample_02.mp4").read_bytes())
    middle = content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 2
    content[middle : middle + 200] = np.random.default_rng(0).bytes(200)
    (foreign / "sample_02.mp4").write_bytes(content)
    assert main("--samples", foreign, "--real", mixed_corpus / "good.mp4", "--nn", "0") == 1
    (line,) = complaints(capsys.readouterr().out)
    assert "sample_02.mp4: is damaged" in line
    assert results(foreign / "evaluation")["other"]["svfid_lite0"]["samples"] == 2


def test_a_sample_in_two_files_counts_once_and_the_clip_beside_it_does_not(
    foreign: Path, mixed_corpus: Path, evaluated: Path, tmp_path: Path
) -> None:
    real = ("--real", mixed_corpus / "good.mp4", "--nn", "0")
    assert main("--samples", foreign, *real, "--out", tmp_path / "mp4") == 0
    clip = clips_of(evaluated)["good"]  # its samples/ hold mp4 and gif of samples, real and reconstruction
    shutil.copytree(clip / "samples", tmp_path / "all" / "other")
    assert main("--samples", tmp_path / "all" / "other", *real, "--out", tmp_path / "both") == 0
    assert results(tmp_path / "both") == results(tmp_path / "mp4")


def test_samples_of_two_frames_have_no_patches_but_figures(
    mixed_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short").mkdir()
    for index, source in enumerate(("testsrc", "mandelbrot")):
        make_video(tmp_path / "short" / f"{index}.mp4", size="40x30", seconds=2 / 24, source=source)
    words = ("--samples", tmp_path / "short", "--real", mixed_corpus / "good.mp4")
    assert main(*words) == 0
    assert set(results(tmp_path / "short" / "evaluation")["short"]) == {
        "svfid_lite0",
        "svfid_lite0_blur",
        "diversity_n2",
    }
    capsys.readouterr()
    assert main(*words, "--nn", "1") == 1
    (line,) = complaints(capsys.readouterr().out)
    assert "0.mp4: its nearest neighbours: patches of 3 frames" in line
    assert results(tmp_path / "short" / "evaluation")["short"]["svfid_lite0"]["samples"] == 2


def test_names_that_are_no_text(foreign: Path, mixed_corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = foreign.rename(os.fsdecode(bytes(foreign.parent) + b"/\xff|\n"))
    shutil.copy(folder / "sample_00.mp4", folder / "fine\udcff.mp4")
    make_video(folder / "bad.mp4", size="32x24").rename(folder / "bad\x1b[31m\nred\udcff.mp4")
    assert main("--samples", folder, "--real", mixed_corpus / "good.mp4", "--nn", "0") == 1
    out = capsys.readouterr().out
    (line,) = complaints(out)
    assert "red" in line and "24×24×32" in line and "\x1b" not in out
    assert any(line.startswith("\\udcff|") for line in out.splitlines())
    page = (folder / "evaluation" / "results.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith("| \\udcff")]
    assert "\\|" in row
    (figures,) = results(folder / "evaluation").values()
    assert figures["svfid_lite0"]["samples"] == 3


def test_features_of_images_give_sifid(foreign: Path, mixed_corpus: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = {name: torch.rand(shape) for name, shape in inception.shapes(64).items()} | {"fc.bias": torch.zeros(1000)}
    torch.save(weights, tmp_path / "inception.pth")
    words = ["--samples", foreign, "--real", mixed_corpus / "good.mp4", "--nn", "0"]
    assert main(*words, "--features", f"inception:{tmp_path / 'inception.pth'}") == 0
    figures = results(foreign / "evaluation")["other"]
    (name,) = [name for name in figures if name.startswith("sifid_inception_torchvision_") and "blur" not in name]
    assert figures[name]["samples"] == 2 and f"{name}_blur" in figures
    assert figures[name]["mean"] > figures[f"{name}_blur"]["mean"] > 0  # a trained model is worse than a slight blur


def test_one_sample_has_no_diversity(foreign: Path, mixed_corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (foreign / "sample_01.mp4").unlink()
    assert main("--samples", foreign, "--real", mixed_corpus / "good.mp4", "--nn", "0") == 1
    (line,) = complaints(capsys.readouterr().out)
    assert "at least 2 samples" in line
    figures = results(foreign / "evaluation")["other"]
    assert set(figures) == {"svfid_lite0", "svfid_lite0_blur"}
    assert figures["svfid_lite0"]["std"] is None


def test_only_unreadable_samples(foreign: Path, mixed_corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in foreign.iterdir():
        path.write_bytes(b"")
    assert main("--samples", foreign, "--real", mixed_corpus / "good.mp4") == 1
    assert [line.count("empty") for line in complaints(capsys.readouterr().out)] == [1, 1]


REFUSED = {
    "no argument": ((), "give experiments or checkpoints"),
    "both": (("{empty}", "--samples", "{foreign}", "--real", "{real}"), "give experiments or checkpoints"),
    "no real clip": (("--samples", "{foreign}"), "--real CLIP"),
    "an empty folder": (("--samples", "{empty}", "--real", "{real}"), "holds no video"),
    "no folder": (("--samples", "{real}", "--real", "{real}"), "not a folder"),
    "a real clip that is not there": (("--samples", "{foreign}", "--real", "{empty}/x.mp4"), "x.mp4: no such file"),
    "a real clip that is too short": (("--samples", "{foreign}", "--real", "{short}"), "only 6 frames"),
    "no sample": (("{empty}", "--n", "0"), "--n must be 1 or more"),
    "a wrong weight file": (("{empty}", "--features", "c3d:{real}"), "good.mp4: not a readable file of tensors"),
    "no weight file": (("{empty}", "--features", "c3d:{empty}/c3d.pth"), "c3d.pth: no such file"),
    "no weight file of images": (("{empty}", "--features", "inception:{empty}/i.pth"), "i.pth: no such file"),
    "no experiment": (("{empty}",), "no experiment of train_corpus.py or tune.py, and no trained clip"),
    "a file as folder": (
        ("--samples", "{foreign}", "--real", "{real}", "--out", "{real}/x"),
        "good.mp4/x: nothing can be written there",
    ),
    "no checkpoint": (("{empty}/checkpoint.pt", "--real", "{real}"), "checkpoint.pt: no such file"),
    "stills": (("--samples", "{stills}", "--real", "{real}"), "samples of 1×30×40 (T×H×W) cannot be scored"),
    "an unknown store": (("nowhere://x",), "EXPERIMENT nowhere://x"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_scored_is_refused(
    case: str, foreign: Path, mixed_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"empty": tmp_path / "empty", "foreign": foreign, "real": mixed_corpus / "good.mp4"}
    places |= {"short": mixed_corpus / "short.mp4", "stills": tmp_path / "stills"}
    places["stills"].mkdir()
    make_video(places["stills"] / "still.mp4", seconds=0.04, size="40x30")
    words, cause = REFUSED[case]
    assert main(*(word.format(**places) for word in words)) == 2
    told = [line for line in capsys.readouterr().out.splitlines() if "nothing to evaluate" not in line]
    assert len(told) == 1 and cause in told[0]
    assert not (tmp_path / "empty" / "evaluation").exists()


# -- what the pictures show


def texture(height: int, width: int) -> np.ndarray:
    """Every patch another one: noise."""
    return np.random.default_rng(0).uniform(-1, 1, (3, 7, height, width)).astype(np.float32)


def tiles(picture: np.ndarray, height: int, width: int, column: int) -> np.ndarray:
    """The three frames of a column of a page, in the size they were computed: (3, H, W, 3)."""
    zoom = (picture.shape[0] - HEADER - KEY - 12) // (3 * (height + 2))
    body = picture[HEADER::zoom, ::zoom][: 3 * (height + 2), column * (width + 2) : (column + 1) * (width + 2)]
    return body.reshape(3, height + 2, width + 2, 3)[:, 1:-1, 1:-1]


def test_a_copy_comes_from_where_it_is() -> None:
    real = texture(20, 30)
    page = field_sheet(real, real, nearest_neighbour_field(real, real))
    sample, nearest, where, when, different = (tiles(page, 18, 28, column) for column in range(5))
    assert (where == 255).all() and (when == 255).all() and (different == 0).all()
    assert (sample == nearest).all()


def test_a_part_from_elsewhere_is_coloured_as_the_key_says() -> None:
    real = texture(20, 40)
    sample = real.copy()
    sample[..., :20] = real[..., 20:]  # from 20 px further right: nearest patches are exact but at the seam
    sample[:, :4] = real[:, 3:]  # and the first frames from 3 frames later
    sample[:, :4, :, :20] = real[:, 3:, :, 20:]
    page = field_sheet(sample, real, nearest_neighbour_field(sample, real))
    _, _, where, when, different = (tiles(page, 18, 38, column) for column in range(5))
    moved, kept = where[0, :, :16], where[0, :, 20:]
    assert (kept == 255).all() and (moved == moved[0, 0]).all()
    assert moved[0, 0, 0] == 255 and moved[0, 0, 1] == moved[0, 0, 2] == 0  # red, full: 20 px of 20
    assert (when[0, :, 20:, 0] == 255).all() and (when[0, :, 20:, 1] < 128).all()  # red: later
    assert (when[2, :, 20:] == 255).all()
    assert (different[0, :, :16] == 0).all() and (different[0, :, 18:20] > 0).any()
    wheel = page[HEADER + 3 * 20 * 6 + 4 :, 2 * 40 * 6 + 3 :][:56, :56]
    assert wheel[28, 53, 0] == 255 and wheel[28, 53, 1] < 60  # the right rim of the key is that red


def test_the_diversity_map_is_bright_where_samples_differ() -> None:
    real = texture(20, 30)
    other = real.copy()
    other[..., :15] = -real[..., :15]
    page = spread_sheet([real, other], real, diversity_map([real, other]))
    assert [(tiles(page, 20, 30, column) == tiles(page, 20, 30, 0)).all() for column in (1, 2)] == [True, False]
    spread = tiles(page, 20, 30, 3)
    assert (spread[..., 15:, :] == 0).all() and spread[..., :15, 0].mean() > 128


def test_pictures_of_the_job_are_these(evaluated: Path) -> None:
    for clip in clips_of(evaluated).values():
        height, width = np.array(json.loads((clip / "config.json").read_text())["sizes_thw"][-1])[1:]
        with Image.open(evaluated / "evaluation" / clip.name / "diversity.png") as picture:
            page = np.asarray(picture)
        samples = [video.decode(evaluated / "evaluation" / clip.name / f"sample_{i:02d}.mp4") for i in range(2)]
        for column, frames in enumerate(samples, start=1):
            shown = tiles(page, height, width, column).astype(int)
            assert np.abs(shown - frames[[0, 6, 12], :height, :width]).mean() < 12  # mp4 halves the colour's size
        dark, light = (rgb2lab(frames[[0, 6, 12], :height, :width])[..., 0] for frames in samples)
        spread = np.clip(np.abs(dark - light) / 2, 0, FULL_SPREAD)  # the deviation of two values
        drawn = tiles(page, height, width, 3).astype(int).sum(axis=-1) * FULL_SPREAD / 765
        assert np.corrcoef(spread.ravel(), drawn.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_table_of_a_terminal_fits_it(width: int) -> None:
    scores = {
        name: Score(values=(123.4, 131.2), samples=2)
        for name in ("svfid_lite0", "svfid_lite0_blur", "diversity_n10", "nn_distance", "nnfdiv", "coherence")
    }
    rows = [ScoredClip("bikes-1b0f76-000000", scores, ["sample 3: NaN"]), ScoredClip("bigbuckbunny-16faa6", scores)]
    text = io.StringIO()
    print_scores(Console(file=text, width=width), "demo", {"n": 10}, rows)
    lines = text.getvalue().splitlines()
    table = lines[: next(i for i, line in enumerate(lines) if line.startswith("± is"))]
    assert max(map(len, table)) <= width
    for row in ("bikes-1b0f76-000000", "mean of 2 clips"):
        (line,) = [line for line in table if line.startswith(row)]
        assert "127.3 ± " in line
    assert ("columns that do not fit: samples, coherence" in text.getvalue()) == (width < 140)
    assert lines[-1] == "- bikes-1b0f76-000000: sample 3: NaN"

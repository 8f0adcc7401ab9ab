"""The paper's ablations through the command line and through everything that is done with a clip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from jobs.sample import main as sample_main
from jobs.train_corpus import main
from jobs.training.fit_clip import ClipFrames, Scoring, fit_clip
from jobs.tune import main as tune_main
from model import checkpoint as ckpt
from model.presets import ABLATIONS, demo
from pipeline import video

from .conftest import TINY, make_video, run_job

SETTINGS = TINY[2:-2]
CONFIG = demo().with_overrides([word for word in SETTINGS if word != "--set"])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("videos") / "clip.mp4", size="48x48")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ABLATIONS))
def test_a_clip_is_trained_scored_kept_and_sampled_again(name: str, clip: Path, tmp_path: Path) -> None:
    config = ABLATIONS[name](CONFIG)
    frames = video.decode(clip, num_frames=13)
    folder = tmp_path / "clip"
    result = fit_clip(ClipFrames(name, str(clip), [frames]), config, folder, Scoring(num_samples=2))
    assert result.status == "done" and result.svfid_lite0 is not None and result.diversity is not None
    assert result.svfid_lite0 > 0 and result.diversity > 0
    saved = ckpt.load(folder / "checkpoint.pt")
    assert saved.done and saved.config == config
    assert {f"scale_{n:02d}.png" for n in range(4)} <= {path.name for path in (folder / "samples").iterdir()}
    assert sample_main([str(folder / "checkpoint.pt"), "--n", "2", "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 2
    assert torch.isfinite(torch.cat([tensor.flatten() for tensor in saved.generators.values()])).all()


@pytest.mark.parametrize("name", sorted(ABLATIONS))
def test_the_plan_of_an_ablation_has_an_experiment_of_its_own(
    name: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--corpus", str(clip), "--preset", "demo", "--ablation", name, "--storage", str(tmp_path), "--dry-run"]
    # vae_only follows the number of scales that is set
    assert main([*argv, "--set", "num_scales=4", "--set", "iters_per_scale=1"]) == 0
    assert f"clip.mp4-demo-{name}" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize("method", ["singan", "consingan", "vgpnn"])
@pytest.mark.parametrize("name", sorted(ABLATIONS))
def test_an_ablation_of_another_method_is_refused(
    method: str, name: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--corpus", str(clip), "--preset", "demo", "--method", method, "--storage", str(tmp_path / "runs")]
    told = f"error: ablation={name}: is one of hp-VAE-GAN; leave it out, or method={method}\n"
    for command in (main, tune_main):
        own = ["--ablation", name] if command is main else ["--sweep", f"ablation=none,{name}"]
        for dry in ([], ["--dry-run"]):
            assert command([*argv, *own, *dry]) == 2
            assert capsys.readouterr().out == told
    assert not (tmp_path / "runs").exists()


def test_an_unknown_ablation_is_refused_with_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--corpus", "demo", "--ablation", "no_frezing"])
    assert exit_.value.code == 2
    told = capsys.readouterr().err
    assert all(name in told for name in ABLATIONS)


@pytest.mark.slow
def test_the_command_trains_an_ablation_beside_the_method(clip: Path, tmp_path: Path) -> None:
    command = ("--corpus", clip, *TINY, "--storage", tmp_path, "--cpus-per-clip", "1", "--ablation", "patchvae")
    done = run_job("train_corpus.py", *command)
    assert done.returncode == 0, done.stdout
    base = tmp_path / "clip.mp4-demo-patchvae"
    assert json.loads((base / "experiment.json").read_text())["latent"] == "patchvae"
    (folder,) = [folder for folder in base.iterdir() if folder.is_dir() and folder.name[0] != "."]
    assert json.loads((folder / "result.json").read_text())["status"] == "done"
    refused = run_job("train_corpus.py", *command[:-2], "--experiment", "clip.mp4-demo-patchvae")
    assert refused.returncode == 2
    assert "latent was patchvae, is now gaussian" in refused.stdout.replace("\n", " ")

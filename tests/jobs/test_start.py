"""Starting a job costs little: `--help` must not import what only work needs."""

from __future__ import annotations

import importlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infra.store import IN_RAY_JOB
from jobs import hp_vae_gan
from jobs.invocation import COMMANDS

from .conftest import ROOT

HEAVY = {"torch", "ray", "mlflow", "accelerate", "webdataset", "ffmpeg", "imageio_ffmpeg", "skimage", "scipy"}


@pytest.mark.parametrize("job", ["train_corpus", "make_shards", "sample", "gallery", "study", "watch"])
def test_help_imports_nothing_heavy(job: str) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from jobs import {job}
try:
    {job}.main(["--help"])
except SystemExit as end:
    assert end.code == 0
print("LOADED", *sorted({{name.split(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert loaded[0] == "LOADED"
    assert not HEAVY & set(loaded)
    assert "usage:" in done.stdout


def test_a_process_that_trains_or_samples_waits_for_no_package_that_it_may_not_need() -> None:
    """MLflow is the first worker's, accelerate that of several, scipy and skimage are of scores and applications."""
    script = """
import sys
import jobs.sampling.run, jobs.training.ray_workers
from infra.tracking.parent import ParentRun
from model.training.workers import Workers
ParentRun("sqlite:///a.db", "1", "2"), Workers()
print("LOADED", *sorted({name.split(".")[0] for name in sys.modules}))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, check=True, env=environment)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {"LOADED", "torch"} <= loaded and not {"mlflow", "accelerate", "scipy", "skimage"} & loaded


@pytest.mark.parametrize("job", sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if path.stem != "__init__"))
def test_help_says_one_default_of_an_option_and_never_that_there_is_none(
    job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"jobs.{job}")
    if not hasattr(module, "main"):  # what commands share
        return
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    assert end.value.code == 0
    options = re.split(r"\n  (?=-|[A-Z{])", capsys.readouterr().out)
    assert len(options) > 1
    for option in map(" ".join, map(str.split, options)):
        assert option.count("(default") <= 1 and "default: None" not in option and "default: False" not in option


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("train_corpus", ["--corpus", "demo", "--gpus-per-clip"]),
        ("tune", ["--corpus", "demo", "--gpus-per-clip"]),
        ("evaluate", ["x", "--gpus-per-clip"]),
        ("compare_corpus", ["--samples", "x", "--train", "x", "--test", "x", "--gpus-per-clip"]),
        ("make_shards", ["x", "--out", "y", "--fps"]),
        ("make_shards", ["x", "--out", "y", "--start"]),
        ("sample", ["x", "--out", "y", "--grow"]),
        ("sample", ["x", "--out", "y", "--feather"]),
        ("sample", ["x", "--out", "y", "--enlarge"]),
        ("benchmark", ["--seconds"]),
        ("gpu_check", ["--minutes"]),
    ],
)
def test_a_number_that_is_none_is_refused(
    job: str, words: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    *before, option = words
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"jobs.{job}").parse([*before, f"{option}={word}"])
    assert end.value.code == 2
    assert f"error: {option}: {word}" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_ray_job_without_a_storage_says_first_where_its_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its working folder is thrown away; `runs` in it would be lost."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for job, more in (("train_corpus", ()), ("tune", ("--sweep", "vae_levels=0,1"))):
        main = importlib.import_module(f"jobs.{job}").main
        command = ["--corpus", "demo", "--preset", "demo", *more, "--dry-run"]
        monkeypatch.delenv(IN_RAY_JOB, raising=False)
        monkeypatch.chdir(tmp_path)
        assert main(command) == 0
        here = capsys.readouterr().out
        assert not here.startswith("storage:") and str(tmp_path / "runs") in here
        monkeypatch.setenv(IN_RAY_JOB, "{}")
        assert main(command) == 0
        first, *rest = capsys.readouterr().out.splitlines()
        folder = tmp_path / "hp-vae-gan-runs"
        assert first == f"storage: {folder} on {socket.gethostname()}, as no --storage is given"
        assert any(str(folder) in line for line in rest)
        assert main([*command, "--storage", str(tmp_path)]) == 0
        assert not capsys.readouterr().out.startswith("storage:")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "no command 'trian'; did you mean train?"),
        (["train_corpus", "--help"], "no command 'train_corpus'; did you mean train?"),  # its file
        (["gpu_check"], "no command 'gpu_check'; did you mean gpu-check?"),
        (["xyz"], "no command 'xyz'; --help lists them"),
    ],
)
def test_a_command_that_is_none_names_the_nearest(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        hp_vae_gan.main(words)
    assert ended.value.code == 2 and capsys.readouterr().err.endswith(f"error: COMMAND: {told}\n")


def test_no_command_at_all_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        hp_vae_gan.main([])
    listed = capsys.readouterr().err
    assert ended.value.code == 2 and all(f"\n  {name} " in listed for name in COMMANDS.values())

"""Sweeps through real Ray Tune: what a user sees, what lies in storage and MLflow, what a kill or a bad value costs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from infra.errors import UsageError
from infra.tracking.parent import ParentRun
from jobs import train_corpus, tune
from jobs.experiment.result import Result
from jobs.tuning import plot, summary
from jobs.tuning.axes import combinations, configured, read_axes, trial_name
from jobs.tuning.request import Sweep, SweepRequest
from jobs.tuning.search import FINAL, TRIAL, OptunaSearch
from model.config import ConfigError, TrainConfig
from model.presets import ABLATIONS, ABLATIONS_IN_PAPER, demo
from tests.conftest import EmptyStore

from .conftest import ROOT, TINY, make_video, run_job

pytestmark = pytest.mark.usefixtures("one_actor")
PURE = replace(demo(), patch_scale=None)  # all scales are trained
BLUE = (0x1F, 0x77, 0xB4)  # of matplotlib's first line


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "one.mp4", size="48x48")
    make_video(folder / "two.mp4", source="mandelbrot", size="48x48")
    return folder


def command(corpus: Path, storage: Path, *more: str, cpus: int = 1) -> tuple[str | Path, ...]:
    return ("--corpus", corpus, *TINY, "--storage", storage, "--experiment", "s", "--cpus-per-clip", str(cpus), *more)


def results_of(base: Path) -> dict[str, dict[str, object]]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(base.glob("*/result.json"))}


def times_of(base: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in base.glob("*/result.json")}


def runs_of(storage: Path) -> dict[str, Run]:
    """MLflow's runs by clip id; the parent's is 'corpus'."""
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("s")
    assert experiment is not None
    return {run.data.tags.get("clip_id", "corpus"): run for run in client.search_runs([experiment.experiment_id])}


def blue(png: bytes) -> np.ndarray:
    """Where a picture has the colour of the first line: bool (H, W)."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    return np.asarray((pixels == BLUE).all(-1))


# -- a sweep


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> int:
    """CPUs that a trial takes when it is to be alone, in one process after the other. It computes with one thread."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return psutil.cpu_count() or 1


@dataclass(frozen=True)
class Swept:
    storage: Path
    arguments: tuple[str | Path, ...]
    output: str
    code: int

    @property
    def base(self) -> Path:
        return self.storage / "s"


@pytest.fixture(scope="module")
def swept(videos: Path, tmp_path_factory: pytest.TempPathFactory, one_actor: None) -> Swept:
    storage = tmp_path_factory.mktemp("storage")
    arguments = command(videos, storage, "--sweep", "vae_levels=1,2")
    done = run_job("tune.py", *arguments)
    return Swept(storage, arguments, done.stdout, done.returncode)


@pytest.mark.slow
def test_every_clip_is_trained_with_every_value(swept: Swept) -> None:
    assert swept.code == 0, swept.output
    results = results_of(swept.base)
    assert len(results) == 4 and all(result["status"] == "done" for result in results.values())
    for name in results:
        about = json.loads((swept.base / name / "config.json").read_text())
        clip, _, value = name.partition("--vae_levels-")
        assert about["tags"] == {"clip": clip, "vae_levels": value}
        assert about["config"]["vae_levels"] == int(value)
        assert (swept.base / name / "samples" / "sample_00.mp4").exists()
    assert not (swept.base / ".tune").exists()
    log = (swept.base / "driver.log").read_text()
    ended = re.findall(r"  (\S+)  done  \((\d)/4\)  svfid_lite0 ", log)
    assert sorted(name for name, _ in ended) == sorted(results) and [number for _, number in ended] == [*"1234"]


@pytest.mark.slow
def test_the_table_and_the_csv_have_the_means_over_the_clips(swept: Swept) -> None:
    results = results_of(swept.base)
    for value in ("1", "2"):
        figures = [float(str(r["svfid_lite0"])) for name, r in results.items() if name.endswith(f"-{value}")]
        mean, deviation = np.mean(figures), np.std(figures, ddof=1)
        assert f"{mean:.1f} ± {deviation:.1f}" in swept.output
    rows = list(csv.DictReader(io.StringIO((swept.base / "sweep.csv").read_text())))
    assert {row["trial"] for row in rows} == set(results)
    for row in rows:
        assert row["trial"] == f"{row['clip']}--vae_levels-{row['vae_levels']}" and row["status"] == "done"
        assert float(row["diversity_n2"]) == results[row["trial"]]["diversity_n2"]


@pytest.mark.slow
def test_the_plot_has_a_line_with_error_bars_in_both_panels(swept: Swept) -> None:
    found = blue((swept.base / "sweep.png").read_bytes())
    for half in np.array_split(found, 2, axis=1):
        columns = np.flatnonzero(half.any(0))
        assert columns.max() - columns.min() > half.shape[1] / 2  # from the first value to the last
        assert half.sum(0).max() > 50  # upright: a bar


@pytest.mark.slow
def test_every_trial_is_a_child_run_with_its_points_and_the_parent_has_the_plot(swept: Swept) -> None:
    runs = runs_of(swept.storage)
    client = MlflowClient(f"sqlite:///{swept.storage / 'mlflow.db'}")
    assert set(runs) == {"corpus", *results_of(swept.base)}
    parent = runs.pop("corpus")
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} >= {"sweep.png", "sweep.csv", "best.json"}
    assert parent.data.metrics["trials_done"] == 4 and parent.info.status == "FINISHED"
    for name, run in runs.items():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id and run.info.status == "FINISHED"
        assert run.data.params["vae_levels"] == run.data.tags["vae_levels"] == name[-1]
        assert len(client.get_metric_history(run.info.run_id, "train/after_scale/svfid_lite0")) == 4
        assert run.data.metrics["score/svfid_lite0"] == results_of(swept.base)[name]["svfid_lite0"]


@pytest.mark.slow
def test_train_corpus_takes_the_best_configuration(
    swept: Swept, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = results_of(swept.base)

    def score(value: str) -> float:
        some = [r for name, r in results.items() if name.endswith(f"-{value}")]
        return float(np.mean([float(str(r["svfid_lite0"])) / float(str(r["svfid_lite0_blur"])) for r in some]))

    config = TrainConfig.from_dict(json.loads((swept.base / "best.json").read_text()))
    assert str(config.vae_levels) == min("12", key=score) and config.channels == 4
    argv = ["--corpus", str(videos), "--config", str(swept.base / "best.json"), "--storage", str(tmp_path)]
    assert train_corpus.main([*argv, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "1 + 1 + 1 + 1 = 4" in told and "13×16×16" in told
    assert train_corpus.main([*argv[:3], str(swept.base / "sweep.csv"), "--dry-run"]) == 2
    assert "sweep.csv: cannot be read" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.slow
def test_going_on_with_a_sweep_that_is_done_does_nothing_again_and_another_is_refused(swept: Swept) -> None:
    before = times_of(swept.base)
    again = run_job("tune.py", *swept.arguments, "--restore")
    assert again.returncode == 0 and "best by svfid of blur: vae_levels=" in again.stdout
    assert times_of(swept.base) == before
    unasked = run_job("tune.py", *swept.arguments)
    assert unasked.returncode == 2 and "--restore goes on with it" in unasked.stdout.replace("\n", " ")
    other = run_job("tune.py", *swept.arguments[:-1], "vae_levels=1,2,3", "--restore")
    assert other.returncode == 2 and "its sweep differ" in other.stdout.replace("\n", " ")
    more = run_job("tune.py", *swept.arguments, "--n", "4", "--restore")
    assert more.returncode == 2 and "its n differ" in more.stdout.replace("\n", " ")


@pytest.mark.slow
def test_a_sweep_goes_on_with_more_clips_but_not_without_one_it_had(swept: Swept, videos: Path, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    shutil.copytree(swept.storage, storage, ignore=shutil.ignore_patterns("mlflow*", "mlartifacts"))
    folder = tmp_path / videos.name
    shutil.copytree(videos, folder)
    (folder / "two.mp4").rename(tmp_path / "two.mp4")
    arguments = command(folder, storage, "--sweep", "vae_levels=1,2", "--restore")
    fewer = run_job("tune.py", *arguments)
    assert fewer.returncode == 2 and "two-" in fewer.stdout and "bring it back" in fewer.stdout.replace("\n", " ")
    (tmp_path / "two.mp4").rename(folder / "two.mp4")
    make_video(folder / "three.mp4", source="smptebars", size="48x48")
    before = times_of(storage / "s")
    done = run_job("tune.py", *arguments)
    assert done.returncode == 0 and done.stdout.count("3/3") == 2, done.stdout
    after = times_of(storage / "s")
    assert before.items() <= after.items() and len(after) == 6


@pytest.mark.slow
def test_a_sweep_is_evaluated_with_a_table_a_combination(swept: Swept) -> None:
    done = run_job("evaluate.py", swept.base, "--n", "2", "--nn", "0", "--cpus-per-clip", "1")
    assert done.returncode == 0, done.stdout
    results, runs = results_of(swept.base), runs_of(swept.storage)
    for value in ("1", "2"):
        table = json.loads((swept.base / "evaluation" / f"vae_levels-{value}" / "results.json").read_text())
        assert table["name"] == f"s vae_levels-{value}" and table["corpus"]["svfid_lite0"]["clips"] == 2
        for clip in table["clips"]:
            score = clip["figures"]["svfid_lite0"]["mean"]
            assert clip["clip_id"].endswith(f"--vae_levels-{value}")
            assert score == results[clip["clip_id"]]["svfid_lite0"]  # of the same samples
            assert runs[clip["clip_id"]].data.metrics["eval/n2_svfid_lite0"] == score
    one = run_job("evaluate.py", swept.base / min(results) / "checkpoint.pt", "--n", "2", "--nn", "0")
    assert one.returncode == 0 and min(results) in one.stdout, one.stdout


# -- what can happen to one


@pytest.mark.slow
def test_a_trial_that_fails_costs_that_trial_and_asha_stops_the_worse_half(
    videos: Path, tmp_path: Path, one_at_a_time: int
) -> None:
    """One after the other: lr 1e30 fails; 3e-3 learns; 1e-9 does not, which the first scale shows."""
    more = ("--set", "iters_per_scale=30,1,1,1", "--sweep", "lr=3e-3,1e30,1e-9", "--asha")
    arguments = command(videos / "one.mp4", tmp_path, *more, cpus=one_at_a_time)
    done = run_job("tune.py", *arguments)
    assert done.returncode == 1, done.stdout
    results = {name.partition("--")[2]: result for name, result in results_of(tmp_path / "s").items()}
    assert {name: result["status"] for name, result in results.items()} == {
        "lr-0_003": "done",
        "lr-1e30": "failed",
        "lr-1e-09": "stopped",
    }
    (failure,) = [line for line in done.stdout.splitlines() if line.startswith("failed  ")]
    assert "--lr-1e30: scale 0, iteration" in failure
    assert "Traceback" not in done.stdout and "tune.py:" not in done.stdout
    (stop,) = [line for line in done.stdout.splitlines() if line.startswith("stopped  ")]
    assert "--lr-1e-09: by ASHA after 1 scale" in stop
    runs = {name.partition("--")[2]: run for name, run in runs_of(tmp_path).items()}
    assert runs["lr-1e-09"].info.status == "KILLED" and "by ASHA" in runs["lr-1e-09"].data.tags["stopped"]
    assert runs["lr-1e30"].info.status == "FAILED" and "lower lr" in runs["lr-1e30"].data.tags["failure"]
    assert json.loads((tmp_path / "s" / "best.json").read_text())["lr"] == 3e-3

    before = {name: time for name, time in times_of(tmp_path / "s").items() if "1e30" not in name}
    again = run_job("tune.py", *arguments, "--restore")
    assert again.returncode == 1, again.stdout
    after = times_of(tmp_path / "s")
    assert {name: after[name] for name in before} == before  # done and stopped stay; the failure was tried again
    assert len(after) == 3

    whole = run_job("tune.py", *arguments[:-1], "--restore")  # without --asha what it stopped goes on
    assert whole.returncode == 1, whole.stdout
    results = {name.partition("--")[2]: result for name, result in results_of(tmp_path / "s").items()}
    assert results["lr-1e-09"]["status"] == results["lr-0_003"]["status"] == "done"
    runs = {name.partition("--")[2]: run for name, run in runs_of(tmp_path).items()}
    assert runs["lr-1e-09"].info.status == "FINISHED" and "stopped" not in runs["lr-1e-09"].data.tags


@pytest.mark.slow
def test_a_killed_driver_costs_nothing_that_was_done(
    videos: Path, tmp_path: Path, one_at_a_time: int, empty_store: EmptyStore
) -> None:
    empty_store(tmp_path / "mlflow.db")
    more = ("--set", "iters_per_scale=5,120,1,1", "--set", "log_every=5", "--set", "checkpoint_every=10")
    more += ("--sweep", "vae_levels=1,2")
    arguments = command(videos / "one.mp4", tmp_path, *more, cpus=one_at_a_time)
    process = subprocess.Popen([sys.executable, str(ROOT / "jobs" / "tune.py"), *map(str, arguments)])
    deadline = time.monotonic() + 300

    def lines(value: int) -> list[str]:
        return [x for path in base.glob(f"*-{value}/metrics.jsonl") for x in path.read_text().splitlines()]

    base = tmp_path / "s"
    while len(lines(2)) < 5:  # in the long scale of the second trial
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in reversed(family):  # the driver first
        member.kill()
    psutil.wait_procs(family, timeout=30)
    process.wait()
    before, points = times_of(base), lines(2)
    assert len(before) == 1 and not list(base.glob("*-2/result.json"))

    restored = run_job("tune.py", *arguments, "--restore")
    assert restored.returncode == 0, restored.stdout
    after = times_of(base)
    assert len(after) == 2 and before.items() <= after.items()
    assert lines(2)[: len(points) - 1] == points[:-1]  # it went on; the last line may have been half written
    assert [json.loads(x)["scale"] for x in lines(2) if json.loads(x)["iteration"] is None] == [0, 1, 2, 3]
    assert {run.info.status for run in runs_of(tmp_path).values()} == {"FINISHED"}


@pytest.mark.slow
def test_optuna_draws_from_a_range_for_all_clips_and_goes_on_with_other_draws(
    videos: Path, tmp_path: Path, one_at_a_time: int
) -> None:
    axes = ("--sweep", "lr=1e-4..1e-2", "--sweep", "vae_levels=1,2", "--trials")
    arguments = command(videos, tmp_path, *axes, cpus=one_at_a_time)
    done = run_job("tune.py", *arguments, "2")
    assert done.returncode == 0, done.stdout
    before = times_of(tmp_path / "s")
    drawn = {name.partition("--")[2] for name in before}
    assert len(before) == 4 and len(drawn) == 2  # each for both clips
    more = run_job("tune.py", *arguments, "3", "--restore", "--asha")
    assert more.returncode == 0, more.stdout
    after = times_of(tmp_path / "s")
    assert len(after) == 6 and before.items() <= after.items()
    for path in (tmp_path / "s").glob("*/config.json"):
        about = json.loads(path.read_text())
        assert 1e-4 <= about["config"]["lr"] == float(about["tags"]["lr"]) <= 1e-2
    assert blue((tmp_path / "s" / "sweep.png").read_bytes()).any()


@pytest.mark.slow
def test_a_draw_that_fails_before_it_begins_is_told(tmp_path: Path, one_at_a_time: int) -> None:
    """12 px high the clip would be 6 px wide, and 8 are the least; 16 px high it is 8 px wide."""
    make_video(tmp_path / "narrow.mp4", size="48x96")
    axes = ("--sweep", "lr=1e-4..1e-2", "--sweep", "min_size=12,16", "--trials", "3", "--set", "ladder_side=height")
    done = run_job("tune.py", *command(tmp_path / "narrow.mp4", tmp_path / "storage", *axes, cpus=one_at_a_time))
    assert done.returncode == 1 and "Traceback" not in done.stdout, done.stdout
    ends = [(name[-2:], result["status"]) for name, result in results_of(tmp_path / "storage" / "s").items()]
    assert set(ends) == {("12", "failed"), ("16", "done")} and len(ends) == 3
    told = [line for line in done.stdout.splitlines() if line.startswith("failed  ")]
    assert len(told) == ends.count(("12", "failed")) and "would be 12×6: its" in told[0]
    assert runs_of(tmp_path / "storage")["corpus"].data.metrics["trials_failed"] == len(told)


@pytest.mark.slow
def test_one_command_runs_the_ablations_and_tells_the_papers_words_beside(
    videos: Path, tmp_path: Path, one_at_a_time: int
) -> None:
    done = run_job("tune.py", *command(videos / "two.mp4", tmp_path, "--ablations", cpus=one_at_a_time))
    assert done.returncode == 0, done.stdout
    results = results_of(tmp_path / "s")
    method = next(result for name, result in results.items() if name.endswith("-none"))
    for name in ABLATIONS:
        (result,) = [result for trial, result in results.items() if trial.endswith(f"--ablation-{name}")]
        (row,) = [line for line in done.stdout.splitlines() if line.startswith(f"{name} ")]
        change = float(str(result["diversity_n2"])) / float(str(method["diversity_n2"])) - 1
        assert f"{100 * change:+.0f} %" in row
        assert f"in the paper, {name}: {ABLATIONS_IN_PAPER[name]}" in done.stdout.splitlines()
    (told,) = [line for line in done.stdout.splitlines() if line.startswith("The paper's words are")]
    assert "These differ: M = 2 VAE levels (paper: 3); β_vae 5 (paper: 0.1, 50 times as much as there)" in told


# -- what is asked for


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--sweep", "vae_level=1,2"], "did you mean vae_levels?"),
        (["--sweep", "vae_levels=1,two"], "vae_levels=two: write a whole number"),
        (["--sweep", "vae_levels=1,9"], "vae_levels=9: from 0 to num_scales=7"),
        (["--sweep", "vae_levels="], "no values"),
        (["--sweep", "vae_levels"], "no values"),
        ([], "nothing to sweep"),
        (["--sweep", "lr=1,2", "--sweep", "lr=3"], "twice"),
        (["--sweep", "precision=bf16..float32"], "a range is LOW..HIGH"),
        (["--sweep", "freeze=false..true"], "a range is LOW..HIGH"),
        (["--sweep", "vae_levels=1..3", "--set", "patch_scale=none"], "list the values"),
        (["--sweep", "ablation=none..gan_only"], "list the values"),
        (["--sweep", "lr=1e-4..1e-2", "--sweep", "vae_levels=0,1", "--set", "latent=patchvae"], "needs a VAE scale"),
        (["--sweep", "lr=1e-2..1e-4"], "not below"),
        (["--sweep", "lr=1e-4..fast"], "lr=fast"),
        (["--sweep", "lr=1e-4...1e-2"], "a range is LOW..HIGH"),
        (["--sweep", "num_frames=13,25"], "make a sweep of each value"),
        (["--sweep", "stride=2,3"], "make a sweep of each value"),
        (["--sweep", "ablation=none,no_frezing"], "no_frezing is none of"),
        (["--sweep", "lr=1,2", "--trials", "3"], "--trials 3"),
        (["--sweep", "lr=1e-4..1e-2", "--trials", "0"], "--trials 0"),
        (["--sweep", "num_scales=4,5", "--set", "iters_per_scale=1", "--asha"], "leave out --asha"),
        (["--sweep", "lr=1,2", "--restore"], "holds no sweep"),
        (["--sweep", "lr=1,2", "--n", "1"], "--n 1"),
        (["--sweep", "lr=1,2", "--experiment", "../x"], "../x"),
    ],
)
def test_what_cannot_be_swept_is_one_line_and_exit_2(
    arguments: list[str], told: str, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--corpus", str(videos), "--preset", "demo", "--storage", str(tmp_path / "runs"), *arguments]
    assert tune.main(argv) == 2
    out = capsys.readouterr().out
    assert out.startswith("error: ") and told in out and out.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_corpus_experiment_is_not_taken_for_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "experiment.json").write_text("{}")
    argv = ["--corpus", "demo", "--sweep", "lr=1,2", "--storage", str(tmp_path), "--experiment", "e"]
    assert tune.main(argv) == 2 and "models of train_corpus.py" in capsys.readouterr().out


def combined(given: Sequence[str]) -> list[dict[str, str]]:
    return [dict(values) for values in combinations(PURE, read_axes(given, PURE))]


def test_combinations_are_every_one_once() -> None:
    assert combined(["vae_levels=1,2,1", "lr=0.001,1e-3,3e-3"]) == [
        {"vae_levels": m, "lr": lr} for m in ("1", "2") for lr in ("0.001", "0.003")
    ]
    lists = combined(["adam_betas=0.5,0.999;0,0.9"])
    assert [configured(PURE, values).adam_betas for values in lists] == [(0.5, 0.999), (0.0, 0.9)]
    # gan_only sets vae_levels itself
    assert combined(["vae_levels=1,2", "ablation=none,gan_only"]) == [
        {"vae_levels": "1", "ablation": "none"},
        {"ablation": "gan_only"},
        {"vae_levels": "2", "ablation": "none"},
    ]
    # whatever the order
    for levels in ("1,6", "6,1"):
        assert {"ablation": "vae_only"} in combined([f"vae_levels={levels}", "ablation=none,vae_only"])
    with pytest.raises(ConfigError, match="needs a VAE scale"):
        combined(["vae_levels=0,1", "ablation=none,patchvae"])
    with pytest.raises(UsageError, match="too long"):
        trial_name("c" * 64, {"iters_per_scale": ",".join(["10000"] * 40)})


def result(name: str, svfid: float, diversity: float, blur: float = 100.0) -> Result:
    return Result(name, "done", "", 1.0, svfid, blur, diversity, 0.1, diversity_n=4)


def test_changes_compare_the_clips_that_both_finished_and_the_best_has_most_clips() -> None:
    trials = {f"{clip}{a}": (clip, {"ablation": a}) for a in ("none", "gan_only", "no_freezing") for clip in "ab"}
    results = {
        "anone": result("anone", 100, 0.4),
        "bnone": result("bnone", 1000, 0.4, blur=2000),
        "agan_only": result("agan_only", 150, 0.2),
        "bgan_only": result("bgan_only", 900, 0.2, blur=2000),
        "ano_freezing": result("ano_freezing", 50, 0.1),
        "bno_freezing": Result("bno_freezing", "failed", "why"),
    }
    found = summary.lines(trials, results)
    lines = summary.table(found, ["ablation"]).text().splitlines()
    rows = {line.split()[0]: line for line in lines if "/2 " in line}
    assert "550.0 ± 636.4" in rows["none"] and "0.75" in rows["none"]  # (1 + 0.5) / 2 of the blurred clips'
    assert "-5 %" in rows["gan_only"] and "-50 %" in rows["gan_only"]  # 1050 to 1100; 0.2 to 0.4
    assert "-50 %" in rows["no_freezing"] and "-75 %" in rows["no_freezing"] and "1/2" in rows["no_freezing"]
    chosen = summary.best(found, "svfid_lite0")
    assert chosen and chosen.values == {"ablation": "none"}  # 0.75; gan_only 0.975; no_freezing not on both
    assert "failed  bno_freezing: why" in summary.notes_below_table(trials, results)
    assert summary.best(summary.lines(trials, {}), "svfid_lite0") is None


INCEPTION = "sifid_inception2048_inception_v3_google_5d9c"


def of_image(name: str, sifid: float = 3.0) -> Result:
    """Of an image, scored with Inception too."""
    others = {INCEPTION: 40.0, f"{INCEPTION}_blur": 90.0}
    figures = {"sifid_lite0_frames": sifid, "sifid_lite0_frames_blur": 6.0, "diversity": 0.4, "nn_distance": 0.1}
    return Result(name, "done", diversity_n=10, others=others, **figures)  # type: ignore[arg-type]


def test_the_csv_has_the_figures_that_there_are_and_the_method_of_each_trial() -> None:
    """As results.csv: no column of videos for a sweep of images. A trial that failed has no figures."""
    trials = {"f": ("a", {"vae_levels": "1"}), "o": ("a", {"vae_levels": "2"}), "r": ("a", {"method": "singan"})}
    results = {"f": Result("f", "failed", "why"), "o": of_image("o"), "r": of_image("r", 4.0)}
    rows = list(csv.DictReader(io.StringIO(summary.to_csv(trials, results, ["vae_levels", "method"]).decode())))
    assert [row["method"] for row in rows] == ["hpvaegan", "hpvaegan", "singan"]
    assert [row["sifid_lite0_frames"] for row in rows] == ["", "3.0", "4.0"]
    assert [(row[INCEPTION], row[f"{INCEPTION}_blur"]) for row in rows] == [
        ("", ""),
        ("40.0", "90.0"),
        ("40.0", "90.0"),
    ]
    assert [row["diversity_n10"] for row in rows] == ["", "0.4", "0.4"] and rows[0]["reason"] == "why"
    assert not [name for name in rows[0] if name.startswith("svfid") or name in ("diversity", "clip_id")]
    note, *_ = summary.notes_below_table(trials, results).splitlines()
    assert "A copy of the clip scores best in sifid; read it with diversity" in note
    assert "scores best in svfid; " in summary.notes_below_table({}, {"a": result("a", 100, 0.4)})


def test_the_best_is_named_by_what_decided_and_only_where_it_is_clear() -> None:
    """The mean svfid is lower for 2, but that relative to the blurred clip for 1."""

    def verdict(figures: dict[str, dict[str, float]], metric: str = "svfid_lite0") -> str:
        trials = {f"{clip}{levels}": (clip, {"vae_levels": levels}) for levels, of in figures.items() for clip in of}
        blur = {"a": 100.0, "b": 1000.0, "c": 1000.0}
        results = {
            f"{clip}{levels}": result(f"{clip}{levels}", svfid, svfid / 1000, blur=blur[clip])
            for levels, of in figures.items()
            for clip, svfid in of.items()
        }
        return summary.verdict(summary.lines(trials, results), metric)

    # 1.0 and 0.8 of blur against 1.4 and 0.76: a mean of 0.9 against 1.08, apart by 0.4 and -0.04
    assert verdict({"1": {"a": 100, "b": 800}, "2": {"a": 140, "b": 760}}) == (
        "no clear best by svfid of blur: vae_levels=1 (0.9) is lowest, done on 2 of 2 clips, "
        "but vae_levels=2 (1.08) is only 0.18 ± 0.22 higher, clip by clip"
    )
    # apart by 0.4 and 0.2: 0.3 ± 0.1, though the clips of each are 0.5 and 0.7 apart
    assert verdict({"2": {"a": 140, "b": 700}, "1": {"a": 100, "b": 500}}) == (
        "best by svfid of blur: vae_levels=1 (0.75), done on 2 of 2 clips; "
        "the next, vae_levels=2 (1.05), is 0.3 ± 0.1 higher, clip by clip"
    )
    assert verdict({"1": {"a": 100, "b": 500}, "2": {"a": 300, "b": 700}}, "diversity") == (
        "best by diversity_n4: vae_levels=2 (0.5), done on 2 of 2 clips; "
        "the next, vae_levels=1 (0.3), is 0.2 ± 0 lower, clip by clip"
    )
    assert verdict({"1": {"a": 100}, "2": {"a": 150}}) == (
        "best by svfid of blur: vae_levels=1 (1), done on 1 of 1 clip; "
        "of one clip nobody knows how clear that is; the next is vae_levels=2 (1.5)"
    )
    assert verdict({"1": {"a": 100, "b": 500}}) == ("best by svfid of blur: vae_levels=1 (0.75), done on 2 of 2 clips")


def test_a_dry_run_makes_the_checks_of_the_run_and_leaves_nothing(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def dry(*more: str) -> tuple[int, list[str]]:
        code = tune.main([*map(str, command(videos, tmp_path / "runs", *more)), "--dry-run"])
        return code, capsys.readouterr().out.splitlines()

    code, lines = dry("--sweep", "vae_levels=0,1", "--set", "iters_per_scale=3,2,2,1")
    assert code == 0 and not (tmp_path / "runs").exists()
    assert lines[:2] == [
        f"{Path(clip).stem}-{lines[i].split('-')[1]}-000000  48×48 px (H×W)"
        for i, clip in enumerate(("one.mp4", "two.mp4"))
    ]
    assert [line.split(": about ")[0] for line in lines[6:]] == ["time", "disk"]
    assert lines[2:6] == [
        "vae_levels=0  iterations a trial: 3 + 2 + 2 + 1 = 8",
        "vae_levels=1  iterations a trial: 3 + 2 + 2 + 1 = 8",
        f"4 trials: 2 combinations × 2 clips, into {tmp_path / 'runs' / 's'}",
        "iterations in all: 32",
    ]
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "one.mp4").symlink_to(videos / "one.mp4")
    (tmp_path / "some" / "text.mp4").write_text("no video\n")
    code, (told, *_) = dry("--sweep", "vae_levels=0,1", "--corpus", str(tmp_path / "some"))
    assert code == 1 and told.startswith("not usable: ") and "text.mp4" in told
    assert dry("--sweep", "vae_levels=1,2", "--restore")[0] == 2  # there is none to go on with
    assert dry("--sweep", "vae_levels=1,9")[1] == ["error: vae_levels=9: from 0 to num_scales=4"]
    code, lines = dry("--sweep", "min_size=60,62", "--set", "max_size=64")
    assert code == 0
    (tmp_path / "file").write_bytes(b"")
    code, (line,) = dry("--sweep", "vae_levels=0,1", "--storage", str(tmp_path / "file" / "runs"))
    assert code == 2 and "nothing can be written there (Not a directory)" in line
    (tmp_path / "runs" / "s").mkdir(parents=True)
    (tmp_path / "runs" / "s" / "sweep.json").write_text("{}")
    code, (line,) = dry("--sweep", "vae_levels=0,1")
    assert code == 2 and "holds a sweep; --restore goes on with it" in line


def test_optuna_learns_the_mean_over_the_clips_and_ranks_last_what_did_not_finish_on_all() -> None:
    """A search for log lr = -3, by two clips; the upper half of the range never finishes on the second one."""
    argv = ["--corpus", "demo", "--preset", "demo", "--sweep", "lr=1e-5..1e-1", "--experiment", "e"]
    request, clips = SweepRequest.from_args(tune.parse(argv)), ["a", "b"]
    assert request.draws == 20
    sweep = Sweep(request, {}, ParentRun("sqlite:///nowhere", "0", "0"))
    search = OptunaSearch(sweep, clips, [{"lr": "0.09"}, {"lr": "0.002"}])
    drawn = []
    for i in range(60):
        (one, values), (two, same) = (search.suggest(f"{i}{clip}")[TRIAL] for clip in clips)
        assert {one, two} == set(clips) and values == same
        exponent = math.log10(float(values["lr"]))
        drawn.append(exponent)
        score = abs(exponent + 3)
        search.on_trial_complete(f"{i}b", {FINAL: score + 0.5 if exponent < -2 else math.nan})
        search.on_trial_complete(f"{i}a", {FINAL: score - 0.5 if exponent < -2 else -10.0}, error=False)
    assert drawn[0] == math.log10(0.09) and drawn[1] == math.log10(0.002)  # those of before come first
    assert np.mean([exponent < -2 for exponent in drawn[30:]]) > 0.9
    assert np.median(np.abs(np.add(drawn[30:], 3))) < 0.5


def test_draws_from_two_ranges_are_points_of_one_colour() -> None:
    axes = read_axes(["vae_levels=1,2", "lr=1e-4..1e-2", "kl_weight=0.1..10"], PURE)
    found = [
        summary.CombinationResult(
            {"vae_levels": str(1 + i % 2), "lr": f"{i}e-3", "kl_weight": f"{i}"}, {"a": result("a", i, 0.3)}, 1
        )
        for i in range(1, 9)
    ]
    pixels = np.asarray(Image.open(io.BytesIO(plot.figure(found, axes, "t"))).convert("RGB")).astype(int)
    coloured = pixels[np.ptp(pixels, -1) > 60]
    assert len(coloured) > 100
    assert (coloured[:, 2] > coloured[:, 0]).all()  # blue, and no second colour


def test_a_plot_has_a_line_a_method_and_a_straight_one_for_what_has_no_value() -> None:
    axes = read_axes(["vae_levels=1,2,3", "ablation=none,gan_only"], PURE)
    trials, results = {}, {}
    for values in combinations(PURE, axes):
        for clip, svfid in (("a", 100.0), ("b", 200.0)):
            name = trial_name(clip, values)
            trials[name], results[name] = (clip, values), result(name, svfid * (1 + len(values)), 0.3)
    pixels = np.asarray(Image.open(io.BytesIO(plot.figure(summary.lines(trials, results), axes, "t"))).convert("RGB"))
    orange = (pixels == (0xFF, 0x7F, 0x0E)).all(-1)
    left = orange[:, : orange.shape[1] // 2]
    rows = np.flatnonzero(left.sum(1) > 100)
    assert rows.size and np.ptp(rows) <= 3  # level
    assert left.any(0).sum() > 0.4 * left.shape[1]  # dashed, across
    assert (pixels == BLUE).all(-1).sum() > 500


def test_the_labels_of_a_plot_are_no_higher_than_its_axes() -> None:
    axes = read_axes(["vae_levels=1,2"], PURE)
    found = [summary.CombinationResult({"vae_levels": value}, {"a": of_image("a")}, 1) for value in ("1", "2")]
    pixels = np.asarray(Image.open(io.BytesIO(plot.figure(found, axes, "t"))).convert("L")) < 100
    for panel in np.array_split(pixels, 3, axis=1):
        axis = int(panel.sum(0)[: panel.shape[1] // 2].argmax())
        rows = np.flatnonzero(panel[:, axis])
        written = np.flatnonzero(panel[:, : axis - 50].any(1))  # left of the numbers
        assert written.size and rows.min() <= written.min() and written.max() <= rows.max()

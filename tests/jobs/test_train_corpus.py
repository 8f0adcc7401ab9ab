"""The corpus job on real files, through real Ray and MLflow: what a user sees and what lies in storage afterwards."""

from __future__ import annotations

import csv
import json
import re
import struct
from datetime import datetime
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from infra.errors import printable
from jobs.experiment.corpus import preview_corpus, read_corpus
from jobs.experiment.experiment import Experiment
from model import checkpoint
from model.presets import demo

from .conftest import TINY, Trained, make_video, run_job

BAD = {
    "zero.mp4": "empty",
    "truncated.mp4": "cut off",
    "text.mp4": "text file",
    "short.mp4": "13",
    "tiny.mp4": "16",
    "dot.mp4": "16",
    "audio.mp4": "audio",
}


def test_bad_files_cost_only_themselves(trained: Trained) -> None:
    assert trained.code == 1, trained.output
    for name, cause in BAD.items():
        lines = [line for line in trained.output.splitlines() if line.startswith("failed  ") and name in line]
        assert len(lines) == 1, (name, trained.output)
        assert cause in lines[0]
        assert ";" in lines[0], f"no mend in {lines[0]!r}"
    assert set(trained.clips) == {"good", "su"}  # süß & spaced.mp4 as a slug
    for folder in trained.clips.values():
        assert json.loads((folder / "result.json").read_text())["status"] == "done"


def test_the_table_names_every_clip_with_its_figures_and_fits(trained: Trained) -> None:
    lines = trained.output.splitlines()
    table = lines[lines.index("results") :]
    for folder in trained.clips.values():
        (row,) = [line for line in table if line.startswith(f"{folder.name} ")]
        assert re.fullmatch(r"\S+ +done +\d+\.\d +\d+\.\d +\d+\.\d\d +\d\.\d\d\d +\d\.\d\d *", row) and len(row) <= 80
    assert "columns that do not fit: minutes, coherence" in table
    assert sum(bool(re.fullmatch(r".* failed *", line)) for line in table) == len(BAD)


def test_each_end_is_counted_and_the_last_lines_say_where_to_look(trained: Trained) -> None:
    assert re.search(r"^good-\S+  done  \([89]/9\)", trained.output, flags=re.MULTILINE)
    gallery, serve, runs, compare, following = trained.output.splitlines()[-5:]
    assert re.fullmatch(r"gallery: /\S+/storage/mixed/gallery\.html", gallery)
    assert (trained.base / "gallery.html").is_file()
    assert serve.startswith("MLflow:  python jobs/ui.py --storage ")
    assert re.fullmatch(r"runs:    http://127\.0\.0\.1:5000/#/experiments/\d+/runs\?\S+", runs)
    assert compare.startswith("compare: http://127.0.0.1:5000/#/compare-runs?runs=")
    assert following.startswith("next:    python jobs/sample.py ") and "samples/" in following


def test_the_log_of_the_driver_has_every_line_behind_its_time(trained: Trained) -> None:
    lines = (trained.base / "driver.log").read_text().splitlines()
    times, texts = zip(*(line.split("  ", 1) for line in lines), strict=True)
    assert [datetime.fromisoformat(time) for time in times] == sorted(map(datetime.fromisoformat, times))
    for name in BAD:
        assert any(text.startswith("failed  ") and name in text for text in texts)


def test_a_dry_run_refuses_what_the_run_refuses(trained: Trained) -> None:
    for change in (("--set", "lr=0.001"), ("--gpus-per-clip", "-1"), ("--cpus-per-clip", "0")):
        plan, run = (run_job("train_corpus.py", *trained.command, *change, *dry) for dry in (("--dry-run",), ()))
        assert plan.returncode == run.returncode == 2
        assert plan.stdout.splitlines()[-1] == run.stdout.splitlines()[-1]
        if "lr=0.001" in change:  # of the kind that the corpus has
            assert re.search(r"other settings \(videos: lr was \S+, is now 0.001\); use", plan.stdout)
    plan = run_job("train_corpus.py", *trained.command, "--dry-run")
    assert plan.returncode == 1 and plan.stdout.count("  done\n") == 2 and "0 clips" in plan.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """And no training on CPU cores, for which nobody has asked. A share that nobody gave is no demand."""
    video = make_video(tmp_path / "one.mp4")
    command = ("--corpus", video, *TINY, "--storage", tmp_path / "runs")
    for dry in (("--dry-run",), ()):
        done = run_job("train_corpus.py", *command, "--gpus-per-clip", "0.5", *dry)
        assert done.returncode == 2 and "--gpus-per-clip 0.5: there is no GPU; see to" in done.stdout.splitlines()[-1]
    plan = run_job("train_corpus.py", *command, "--dry-run")
    assert plan.returncode == 0 and "resources a clip: 1 GPU where the cluster has GPUs, else" in plan.stdout


def test_storage_holds_what_the_readme_says(trained: Trained) -> None:
    folder = trained.clips["good"]
    config = json.loads((folder / "config.json").read_text())
    assert config["precision_used"] in ("bf16", "float32")
    assert config["config"]["channels"] == 4
    assert config["sizes_thw"][0][0] == 4 and config["sizes_thw"][-1] == [13, 30, 40]
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(p["scale"], p["iteration"]) for p in points] == [(n, i) for n in range(4) for i in (2, 4, None)]
    assert {"rec_loss", "kl_loss", "sec_per_iter", "peak_gib"} <= set(points[0]["metrics"])
    assert {"rec_loss", "adv_loss", "critic_loss", "gp_loss"} <= set(points[-2]["metrics"])
    assert set(points[-1]["metrics"]) == {"svfid_lite0", "diversity_n4", "nn_distance"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["svfid_lite0"] > 0 and metrics["diversity_n2"] > 0 and metrics["num_samples"] == 2
    assert checkpoint.load(folder / "checkpoint.pt").done
    samples = {path.name for path in (folder / "samples").iterdir()}
    wanted = {f"scale_{n:02d}.png" for n in range(4)}
    wanted |= {"sheet.png", "diversity.png", "nnf_00.png", "side_by_side.mp4"}
    wanted |= {
        f"{name}.{kind}" for name in ("real", "reconstruction", "sample_00", "sample_01") for kind in ("mp4", "gif")
    }
    assert samples == wanted
    assert not [path for path in trained.storage.rglob("*") if path.name.endswith(".tmp")]


def test_videos_have_the_clips_frames_and_speed(trained: Trained) -> None:
    reader = imageio_ffmpeg.read_frames(str(trained.clips["good"] / "samples" / "real.mp4"))
    meta = next(reader)
    frames = list(reader)
    assert meta["size"] == (40, 30) and len(frames) == 13 and meta["fps"] == pytest.approx(24)
    shown = np.asarray(Image.open(trained.clips["good"] / "samples" / "scale_03.png").convert("RGB"))
    assert shown.std() > 20  # a picture, not a blank page


def test_resubmitting_redoes_nothing(trained: Trained) -> None:
    before = {
        path: path.stat().st_mtime_ns
        for path in trained.base.rglob("*")
        if path.is_file() and path.parent.name != "mixed"
    }
    again = run_job("train_corpus.py", *trained.command)
    assert again.returncode == 1  # the bad files are still bad
    after = {path: path.stat().st_mtime_ns for path in before}
    assert before == after
    for folder in trained.clips.values():
        assert folder.name in again.stdout


def test_other_settings_under_the_same_name_are_refused(trained: Trained) -> None:
    other = run_job("train_corpus.py", *trained.command, "--set", "lr=0.001")
    assert other.returncode == 2
    assert f"lr was {demo().lr}, is now 0.001" in other.stdout and "--fresh" in other.stdout


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    make_video(tmp_path / "clip.mp4", seconds=2)
    storage = tmp_path / "storage"
    plan = run_job(
        *("train_corpus.py", "--corpus", tmp_path / "clip.mp4", "--preset", "paper", "--storage", storage, "--dry-run")
    )
    assert plan.returncode == 0, plan.stdout
    assert "4×32×43" in plan.stdout and "13×256×341" in plan.stdout  # 64×48 px: 4:3
    assert "= 200000" in plan.stdout and "resources a clip: 1 GPU where" in plan.stdout
    assert "35 frames" in plan.stdout  # 48 - 13
    assert "48×64 px (H×W)  13 frames from 0.00 s on  to train" in plan.stdout
    assert re.search(r"time: about \S.* of training a clip, .* on this machine's CPU", plan.stdout)
    assert re.search(r"disk: about [1-9]\d* MB", plan.stdout)
    assert not storage.exists()


def test_a_dry_run_of_a_portrait_clip_says_which_side_is_which(tmp_path: Path) -> None:
    """The shorter side is the ladder's, and what is stored lying down and shown upright is upright."""
    upright = make_video(tmp_path / "upright.mp4", size="90x160")
    lying = make_video(tmp_path / "lying.mp4", size="160x90")
    for path, size in ((upright, "160×90"), (lying, "90×160")):
        for preset, finest in (("demo", {"160×90": "13×96×54", "90×160": "13×54×96"}),
                               ("small", {"160×90": "13×171×96", "90×160": "13×96×171"})):  # fmt: skip
            plan = run_job("train_corpus.py", "--corpus", path, "--preset", preset, "--dry-run")
            assert plan.returncode == 0 and f"{size} px (H×W)" in plan.stdout and finest[size] in plan.stdout
    turned, content = tmp_path / "turned.mp4", bytearray(lying.read_bytes())
    matrix = content.index(b"tkhd") + 44  # ISO 14496-12, track header box version 0
    content[matrix : matrix + 20] = struct.pack(">5i", 0, 1 << 16, 0, -1 << 16, 0)  # shown turned by 90 degrees
    turned.write_bytes(content)
    plan = run_job("train_corpus.py", "--corpus", turned, "--preset", "demo", "--dry-run")
    assert "160×90 px (H×W)" in plan.stdout and "13×96×54" in plan.stdout


def test_a_clip_begins_where_it_is_told_to(tmp_path: Path) -> None:
    """1 s of 24 FPS is frame 24. For one video or all of them; what both say is one line."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("a", "b"):
        make_video(clips / f"{name}.mp4", seconds=2)
    for corpus, options, number in (
        (f"{clips}/a.mp4@1.0", (), 1),
        (f"{clips}/a.mp4", ("--start", "1"), 1),
        (f"{clips}/", ("--start", "1s"), 2),
        (f"file://{clips}/a.mp4@1", (), 1),
    ):
        plan = run_job("train_corpus.py", "--corpus", corpus, *options, "--preset", "demo", "--dry-run")
        assert plan.returncode == 0 and plan.stdout.count("-000024  48×64 px") == number, plan.stdout
        sweep = run_job("tune.py", "--corpus", corpus, *options, "--preset", "demo", "--sweep", "seed=0,1", "--dry-run")
        assert sweep.returncode == 0 and sweep.stdout.count("-000024  48×64 px") == number, sweep.stdout
    refused = run_job("train_corpus.py", "--corpus", f"{clips}/a.mp4@1", "--start", "1", "--dry-run")
    assert refused.returncode == 2 and "give --start or @SECONDS, not both" in refused.stdout
    refused = run_job("tune.py", "--corpus", f"{clips}/a.mp4@1:30", "--sweep", "seed=0,1", "--dry-run")
    assert refused.returncode == 2 and "write seconds, such as a.mp4@2.5" in refused.stdout
    refused = run_job("train_corpus.py", "--corpus", clips, "--start", "-1", "--dry-run")
    assert refused.returncode == 2 and "write seconds, such as 2.5" in refused.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "itters_per_scale=3"], "did you mean iters_per_scale?"),
        (["--set", "lr=fast"], "lr=fast"),
        (["--n", "1"], "--n 1"),
        (["--preset", "large"], "large"),
        (["--frobnicate"], "--frobnicate"),
        (["--storage", "s3://bucket/runs"], "s3://bucket/runs"),
        (["--experiment", "../elsewhere"], "../elsewhere"),
    ],
)
def test_bad_arguments_exit_2_with_a_line_that_says_why(arguments: list[str], told: str) -> None:
    refused = run_job("train_corpus.py", "--corpus", "demo", *arguments, "--dry-run")
    assert refused.returncode == 2
    assert told in refused.stdout
    assert "Traceback" not in refused.stdout


@pytest.mark.parametrize(
    ("job", "more"),
    [("train_corpus.py", ()), ("tune.py", ("--sweep", "vae_levels=1,2"))],
)
def test_a_server_that_does_not_answer_is_refused_before_anything_is_made(
    job: str, more: tuple[str, ...], tmp_path: Path
) -> None:
    make_video(tmp_path / "a.mp4", size="48x48")
    away = ("--storage", tmp_path / "runs", "--tracking-uri", "http://127.0.0.1:9")
    refused = run_job(job, "--corpus", tmp_path / "a.mp4", *TINY, *more, *away)
    assert refused.returncode == 2 and "http://127.0.0.1:9: MLflow cannot use it" in refused.stdout
    assert not [*(tmp_path / "runs").rglob("*")]


@pytest.mark.parametrize(
    ("given", "begin"),
    [
        ("films", "{cwd}/films"),
        ("films@0.25", "{cwd}/films"),
        ("file://{cwd}/films", "file://{cwd}/films"),
        ("file://{cwd}/films/", "file://{cwd}/films"),
        ("file://{cwd}/films@0.25", "file://{cwd}/films"),
    ],
)
def test_a_source_is_named_so_that_it_is_found_again_from_any_folder(
    given: str, begin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films" / "part").mkdir(parents=True)
    make_video(tmp_path / "films" / "part" / "a.mp4", size="48x48")
    (tmp_path / "films" / "none.mp4").touch()
    given, begin = (words.format(cwd=tmp_path) for words in (given, begin))
    read = read_corpus(given, Experiment.open(str(tmp_path), "own"), demo())
    for found in (read, preview_corpus(given, tmp_path / "cache", demo())):
        assert [clip.source for clip in found.clips] == [f"{begin}/part/a.mp4"]
        assert [source for source, _ in found.failures] == [f"{begin}/none.mp4"]


def test_nothing_usable_exits_2(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "text.mp4"
    text.write_text("no video\n")
    for corpus in (empty, tmp_path / "missing.mp4", text):
        command = ("train_corpus.py", "--corpus", corpus, *TINY, "--storage", tmp_path / "storage")
        for refused in (run_job(*command), run_job(*command, "--dry-run")):
            *before, last = refused.stdout.splitlines()
            assert refused.returncode == 2 and last == f"error: {corpus}: no clip that can be trained"
            assert len(before) == 1 and corpus.name in before[0], refused.stdout


@pytest.mark.slow
def test_a_manifest_with_a_bad_row_and_made_shards_train(tmp_path: Path) -> None:
    """Shards made from a manifest are what is trained; the bad row was told when they were made."""
    make_video(tmp_path / "a.mp4", seconds=1.6, size="48x48")
    with open(tmp_path / "list.csv", "w", newline="") as file:
        rows = [
            ["clip_id", "path", "start_s"],
            ["first", "a.mp4", "0"],
            ["bad", "a.mp4", "soon"],
            ["later", "a.mp4", "1"],
        ]
        csv.writer(file).writerows(rows)
    direct = run_job(
        *("train_corpus.py", "--corpus", tmp_path / "list.csv", *TINY),
        *("--storage", tmp_path / "direct"),
    )
    assert direct.returncode == 1
    assert any("row" in line and "soon" in line for line in direct.stdout.splitlines() if line.startswith("failed"))
    assert {path.parent.name for path in (tmp_path / "direct").rglob("result.json")} == {"first", "later"}

    shards = tmp_path / "shards"
    assert run_job("make_shards.py", tmp_path / "list.csv", "--out", shards).returncode == 1
    (tmp_path / "a.mp4").unlink()  # training reads shards and decodes nothing
    sharded = run_job(*("train_corpus.py", "--corpus", shards, *TINY, "--storage", tmp_path / "sharded"))
    assert sharded.returncode == 0, sharded.stdout
    trained = {path.parent.name for path in (tmp_path / "sharded").rglob("result.json")}
    assert trained == {"first-000000", "first-000013", "later"}  # every clip that was cut
    (one,) = (tmp_path / "direct").rglob("first/checkpoint.pt")
    (two,) = (tmp_path / "sharded").rglob("first-000000/checkpoint.pt")
    ours, theirs = checkpoint.load(one).generators, checkpoint.load(two).generators
    assert all((ours[name] == theirs[name]).all() for name in ours)


@pytest.mark.slow
def test_fresh_forgets_and_a_damaged_shard_costs_its_clip(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", size="48x48")
    make_video(tmp_path / "b.mp4", source="mandelbrot", size="48x48")
    shards = tmp_path / "shards"
    assert (
        run_job("make_shards.py", tmp_path / "a.mp4", tmp_path / "b.mp4", "--out", shards, "--stride", "24").returncode
        == 0
    )
    command = ("--corpus", shards, *TINY, "--storage", tmp_path / "runs", "--experiment", "x")
    assert run_job("train_corpus.py", *command).returncode == 0
    before = {path.parent.name: path.read_bytes() for path in (tmp_path / "runs" / "x").glob("*/config.json")}

    content = (shards / "000000.tar").read_bytes()
    at = content.rindex(b"\x93NUMPY") + 3000  # a pixel of the last clip
    (shards / "000000.tar").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    again = run_job("train_corpus.py", *command, "--fresh", "--set", "lr=0.001")
    assert again.returncode == 1, again.stdout
    results = {
        path.parent.name.split("-")[0]: json.loads(path.read_text())
        for path in (tmp_path / "runs").rglob("result.json")
    }
    assert results["a"]["status"] == "done" and results["b"]["status"] == "failed"
    assert "000000.tar" in results["b"]["reason"]
    (config,) = (tmp_path / "runs" / "x").glob("a-*/config.json")
    assert json.loads(config.read_text())["config"]["lr"] == 0.001 and config.read_bytes() != before[config.parent.name]
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("x")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.role = 'corpus'")
    assert run.data.params["lr"] == "0.001"


@pytest.mark.slow
def test_another_video_under_a_used_name_is_not_taken_for_the_trained_one(tmp_path: Path) -> None:
    corpus = tmp_path / "films"
    corpus.mkdir()
    command = ("--corpus", corpus, *TINY, "--storage", tmp_path / "runs", "--experiment", "e")
    make_video(corpus / "a.mp4", size="48x48")
    assert run_job("train_corpus.py", *command).returncode == 0
    (model,) = (tmp_path / "runs" / "e").glob("*/checkpoint.pt")
    before = model.read_bytes()
    make_video(corpus / "a.mp4", source="mandelbrot", size="48x48")
    make_video(corpus / "b.mp4", size="48x48")
    told = run_job("train_corpus.py", *command)
    assert told.returncode == 1  # the other one is trained
    assert f"{corpus / 'a.mp4'}: is another file than clip " in told.stdout and "rename it, or use" in told.stdout
    assert len(list((tmp_path / "runs" / "e").glob("b-*/checkpoint.pt"))) == 1 and model.read_bytes() == before


def test_shards_of_another_length_fail_before_anything_is_trained(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", size="48x48")
    shards = tmp_path / "shards"
    assert run_job("make_shards.py", tmp_path / "a.mp4", "--out", shards, "--frames", "7").returncode == 0
    refused = run_job("train_corpus.py", "--corpus", shards, *TINY, "--storage", tmp_path / "runs")
    assert refused.returncode == 2 and "has 7 frames at 24 FPS, 13 at 24 are needed" in refused.stdout


@pytest.mark.slow
def test_hostile_names_and_files_are_one_safe_line_each_and_touch_nothing_else(tmp_path: Path) -> None:
    corpus, storage = tmp_path / "corpus", tmp_path / "storage"
    corpus.mkdir()
    escape = "\x1b[31m\x1b]0;owned\x07\udcff"  # colours, renames the window; a byte that is no UTF-8
    good = make_video(corpus / "plain.mp4", seconds=2, size="48x48")
    good.rename(corpus / f"good\n{escape}.mp4")
    bad = [f"line\nend{escape}.mp4", "quote'\".mp4", "-y.mp4", "[red]http:a|b..mp4", "$(touch owned).mp4"]
    for name in bad:
        (corpus / name).write_bytes(b"\0\0\0\x20ftypisom" + bytes(500))
    (corpus / "loop.mp4").symlink_to("loop.mp4")
    (corpus / "list.mp4").write_bytes(
        f"ffconcat version 1.0\nfile 'good\n{escape}.mp4'\n\x01".encode("utf-8", "replace")
    )
    (corpus / "bomb.y4m").write_bytes(b"YUV4MPEG2 W100000 H100000 F24:1\nFRAME\n" + bytes(range(256)) * 9)
    before = sorted(map(str, tmp_path.rglob("*")))

    plan = run_job("train_corpus.py", "--corpus", corpus, *TINY, "--storage", storage, "--dry-run", cwd=tmp_path)
    assert plan.returncode == 1 and sorted(map(str, tmp_path.rglob("*"))) == before, plan.stdout
    assert sum(line.startswith("not usable: ") for line in plan.stdout.splitlines()) == len(bad) + 3
    done = run_job("train_corpus.py", "--corpus", corpus, *TINY, "--storage", storage, cwd=tmp_path)
    assert done.returncode == 1, done.stdout

    for output in (plan.stdout, done.stdout):
        assert all(line.isprintable() for line in output.split("\n")), output
    assert len(re.findall(r"^\S.* failed *$", done.stdout, flags=re.MULTILINE)) == len(bad) + 3
    told = [line for line in done.stdout.splitlines() if line.startswith("failed  ")]
    for name in (*(printable(name) for name in bad), "loop.mp4", "list.mp4", "bomb.y4m"):
        assert sum(f"{name}: " in line and ";" in line for line in told) == 1, (name, done.stdout)
    (result,) = storage.rglob("result.json")
    assert json.loads(result.read_text())["status"] == "done" and result.parent.name.startswith("good-31m-0-owned")
    assert sorted(str(path) for path in tmp_path.rglob("*") if not path.is_relative_to(storage)) == before

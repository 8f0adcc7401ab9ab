"""The command line of make_shards: tables, exit codes, resuming, running from anywhere."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "jobs" / "make_shards.py"


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("make_shards_under_test", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def video_file(tmp_path_factory, job):
    from pipeline.video import encode

    path = tmp_path_factory.mktemp("in") / "wave.mp4"
    encode(np.random.default_rng(0).integers(0, 256, (30, 36, 64, 3), np.uint8), path)
    return path


def test_all_done_then_nothing_left_to_do(job, video_file, tmp_path, capsys):
    from pipeline import shards

    out = tmp_path / "out"
    assert job.main([str(video_file), "--out", str(out)]) == 0
    table = capsys.readouterr().out.split("\n")
    assert table[0].split()[:3] == ["clips", "written", "2"]
    assert table[2].split() == ["frames", "dropped", "4"] and table[3].split() == ["4", str(video_file)]
    assert len(shards.index(out)) == 2
    before = sorted((path, path.stat().st_mtime_ns) for path in out.iterdir())
    assert job.main([str(video_file), "--out", str(out)]) == 0
    assert capsys.readouterr().out.split("\n")[1].split() == ["already", "there", "2"]
    assert sorted((path, path.stat().st_mtime_ns) for path in out.iterdir()) == before


def test_a_dry_run_says_what_there_is_to_do_and_writes_nothing(job, video_file, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "text.mp4").write_text("no video")
    words = [str(video_file), str(tmp_path / "text.mp4"), "--out", str(out)]
    assert job.main([*words, "--dry-run"]) == 1
    table = capsys.readouterr().out.split("\n")
    assert re.fullmatch(rf"clips to write +2  in {re.escape(str(out))}: about \d+ s, \d+ MB", table[0])
    assert table[1].split() == ["already", "there", "0"] and table[2].split() == ["frames", "dropped", "4"]
    assert not out.exists()
    assert job.main(words) == 1
    capsys.readouterr()
    before = sorted(out.iterdir())
    assert job.main([*words, "--dry-run"]) == 1
    table = capsys.readouterr().out.split("\n")
    assert table[0].split()[:4] == ["clips", "to", "write", "0"] and table[1].split() == ["already", "there", "2"]
    assert sorted(out.iterdir()) == before
    assert job.main([*words, "--max-height", "20", "--dry-run"]) == 2
    assert "give the same settings or another --out" in capsys.readouterr().err
    assert job.main([str(tmp_path / "text.mp4"), "--out", str(out), "--dry-run"]) == 2


def test_a_dry_run_tells_of_an_image_that_is_cut_off(job, tmp_path, capsys):
    image, half = tmp_path / "a.jpg", tmp_path / "half.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(image)
    half.write_bytes(image.read_bytes()[:2000])
    for dry in (["--dry-run"], []):
        assert job.main([str(image), str(half), "--out", str(tmp_path / "out"), *dry]) == 1
        table = capsys.readouterr().out
        assert "half.jpg: is an image that cannot be read to its end" in table and "     1  in " in table


def test_options_reach_the_clips(job, video_file, tmp_path):
    from pipeline import shards

    argv = ["--frames", "5", "--fps", "12", "--stride", "5", "--max-height", "18"]
    assert job.main([str(video_file), "--out", str(tmp_path), *argv]) == 0
    clips = list(shards.read(tmp_path))
    assert [clip.frames_thwc.shape for clip in clips] == [(5, 18, 32, 3)] * 3
    assert [clip.meta["start_frame"] for clip in clips] == [0, 5, 10] and clips[0].meta["fps"] == 12.0


def test_lengths_in_seconds_and_where_the_videos_begin(job, video_file, tmp_path, capsys):
    from pipeline import shards

    argv = ["--frames", "0.25s", "--stride", "0.5s", "--start", "0.25"]
    assert job.main([str(video_file), "--out", str(tmp_path / "one"), *argv]) == 0
    clips = list(shards.read(tmp_path / "one"))
    assert [(clip.meta["start_frame"], len(clip.frames_thwc)) for clip in clips] == [(6, 6), (18, 6)]
    assert job.main([f"{video_file}@0.5", "--out", str(tmp_path / "two"), *argv[:4]]) == 0
    assert [clip.meta["start_frame"] for clip in shards.read(tmp_path / "two")] == [12, 24]
    capsys.readouterr()
    for more, told in (
        (["--frames", "2sec"], "2sec: write frames, such as 48, or seconds, such as 2s"),
        (["--frames", "0.01s"], "--frames is 0, --stride 13 frames; 2 and 1 are the least"),
        (["--stride", "1s", "--as-is"], "--as-is: pictures as they are have no rate"),
    ):
        with pytest.raises(SystemExit) as caught:
            job.main([str(video_file), "--out", str(tmp_path / "three"), *more])
        assert caught.value.code == 2 and told in capsys.readouterr().err


def test_some_failed(job, video_file, tmp_path, capsys):
    from pipeline import shards

    bad = tmp_path / "empty\n.mp4"
    bad.touch()
    assert job.main([str(bad), str(video_file), "--out", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().out.strip().split("\n")
    assert lines[-2].split() == ["failed", "1"]
    assert lines[-1].endswith("empty\\n.mp4: is empty (0 bytes); copy it again")
    assert len(shards.index(tmp_path / "out")) == 2


def test_uris_are_fetched(job, video_file, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert job.main([video_file.as_uri(), "nosuchscheme://x", "--out", out]) == 1
    assert "nosuchscheme://x: cannot be fetched" in capsys.readouterr().out
    assert job.main([video_file.as_uri(), "--out", out]) == 0


def test_nothing_to_do_or_bad_arguments(job, video_file, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert job.main([str(tmp_path / "missing.mp4"), "--out", out]) == 2
    assert "no such file; check the path" in capsys.readouterr().out
    for argv in (
        [],
        [str(video_file)],
        [str(video_file), "--out", out, "--stride", "0"],
        [str(video_file), "--out", out, "--fps", "nan"],
        [str(video_file), "--out", out, "--unknown", "1"],
    ):
        with pytest.raises(SystemExit) as caught:
            job.main(argv)
        assert caught.value.code == 2, argv
    assert job.main([str(video_file), "--out", out]) == 0
    assert job.main([str(video_file), "--out", out, "--max-height", "20"]) == 2
    assert "give the same settings or another --out" in capsys.readouterr().err
    assert job.main([str(video_file), "--out", str(video_file)]) == 2


def test_runs_from_anywhere_and_help_is_quick(video_file, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(SCRIPT), str(video_file), "--out", "out", "--stride", "20"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "000000.json").is_file() and done.stderr == ""
    started = time.monotonic()
    done = subprocess.run([*command[:2], "--help"], capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 2 and "default: 13" in done.stdout

"""jobs/sample.py: everything from the checkpoint file alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from jobs import sample
from model import device
from model.sampling import sampler as sampling
from pipeline import video
from tests.model.test_official import ARGS, Reference, write

from .conftest import Trained, run_job


def frames(path: Path) -> np.ndarray:
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


@pytest.fixture(scope="module")
def alone(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint copied away from everything else that was made."""
    path = tmp_path_factory.mktemp("alone") / "model.pt"
    shutil.copy(trained.clips["good"] / "checkpoint.pt", path)
    return path


def test_same_seed_same_videos_whatever_their_number(alone: Path, tmp_path: Path) -> None:
    for out, n, seed in (("one", 2, 3), ("two", 3, 3), ("other", 2, 4)):
        done = run_job("sample.py", alone, "--n", str(n), "--seed", str(seed), "--out", tmp_path / out)
        assert done.returncode == 0, done.stdout
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        f"sample_{i:03d}.{kind}" for i in range(3) for kind in ("mp4", "gif")
    }
    first, second = frames(tmp_path / "one" / "sample_000.mp4"), frames(tmp_path / "one" / "sample_001.mp4")
    assert first.shape == (13, 30, 40, 3)
    assert (first == frames(tmp_path / "two" / "sample_000.mp4")).all()
    assert (second == frames(tmp_path / "two" / "sample_001.mp4")).all()
    assert (first != second).mean() > 0.2
    assert (first != frames(tmp_path / "other" / "sample_000.mp4")).mean() > 0.2


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_checkpoint_is_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "broken.pt"
    if content is not None:
        path.write_bytes(content)
    refused = run_job("sample.py", path, "--out", tmp_path / "out")
    assert refused.returncode == 2
    assert "broken.pt" in refused.stdout and len(refused.stdout.strip().splitlines()) == 1


def test_a_folder_of_the_authors_code(tmp_path: Path) -> None:
    """Sizes from args.txt; without it 16:9, which is said; without netG.pth one line."""
    options = {"img_size": 40, "min_size": 20, "stop_scale": 1, "stop_scale_time": 1, "vae_levels": 1, "ar": 0.75}
    write(tmp_path, Reference(width=4, latent=4, scales=2).state_dict(), amps=[1, 0.1], args=ARGS | options)
    done = run_job("sample.py", tmp_path, "--n", "1", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout
    assert frames(tmp_path / "out" / "sample_000.mp4").shape == (13, 30, 40, 3)
    assert len(done.stdout.strip().splitlines()) == 1 and "13×30×40" in done.stdout
    (tmp_path / "args.txt").unlink()
    done = run_job("sample.py", tmp_path, "--n", "1", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout
    assert "no args.txt" in done.stdout and "13×144×256" in done.stdout
    (tmp_path / "netG.pth").unlink()
    refused = run_job("sample.py", tmp_path, "--out", tmp_path / "out")
    assert refused.returncode == 2
    assert "netG.pth: no such file" in refused.stdout and len(refused.stdout.strip().splitlines()) == 1


# -- --precision and --z-frames


def test_precision_and_the_frames_of_z(alone: Path, tmp_path: Path) -> None:
    def made(name: str, *more: str) -> np.ndarray:
        assert sample.main([str(alone), "--n", "1", *more, "--out", str(tmp_path / name)]) == 0
        return frames(tmp_path / name / "sample_000.mp4").astype(int)

    plain, float32, bf16 = made("plain"), made("float32", "--precision", "float32"), made("bf16", "--precision", "bf16")
    native = {"float32": float32, "bf16": bf16}[device.resolve("auto", torch.device("cpu"))]
    assert (plain == native).all()  # as it was trained: auto
    assert 0 < np.abs(bf16 - float32).mean() < 20
    as_eval_video = made("z", "--z-frames", "13")
    assert as_eval_video.shape == plain.shape and np.abs(as_eval_video - plain).mean() > 5
    assert (made("as trained", "--z-frames", "4") == plain).all()


def test_frames_of_z_that_cannot_be_are_one_line(
    alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample.main([str(alone), "--z-frames", "0", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().out == "error: --z-frames 0: from 1 to 1000\n"


# -- --size


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ("13x30", "write frames x height x width, such as 13x256x1024"),
        ("13x30x-40", "write frames x height x width"),
        ("13,30,40", "write frames x height x width"),
        ("", "write frames x height x width"),
        ("9999999x30x40", "write frames x height x width"),
        ("13x999999x999999", "pixels a frame; make it smaller"),
        ("999997x3000x4000", " are there; make it smaller"),
        ("26x30x40", "26 frames cannot be divided among the scales; give 1 + a multiple of 12, such as 25x30x40"),
        ("13x30x8", "is the least"),
        ("1x30x40", "is the least"),
        ("13x0x40", "is the least"),
    ],
)
def test_a_size_that_cannot_be_made_is_one_line(
    size: str, told: str, alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample.main([str(alone), f"--size={size}", "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("error: ") and told in line
    assert not (tmp_path / "out").exists()


def test_the_least_size_that_is_named_is_made(alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.main([str(alone), "--size", "13x8x8", "--out", str(tmp_path)]) == 2
    least = capsys.readouterr().out.split("; ")[1].split()[0]
    assert sample.main([str(alone), "--n", "1", "--size", least, "--out", str(tmp_path)]) == 0
    assert "×".join(least.split("x")) in capsys.readouterr().out


def test_wide_and_long_videos(alone: Path, tmp_path: Path) -> None:
    """As a user runs it; longer ones play longer, and sample 0 does not depend on --n."""
    for out, n in (("one", "1"), ("two", "2")):
        done = run_job("sample.py", alone, "--n", n, "--size", "25x36x160", "--out", tmp_path / out)
        assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == 1 and "2 videos of 25×36×160" in done.stdout
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["sample_000.mp4", "sample_001.mp4"]
    first, again, other = (
        frames(tmp_path / name) for name in ("one/sample_000.mp4", "two/sample_000.mp4", "two/sample_001.mp4")
    )
    assert first.shape == (25, 36, 160, 3)
    assert (first == again).all() and (first != other).mean() > 0.2
    assert video.probe(tmp_path / "one" / "sample_000.mp4").fps == 24.0


def test_the_clips_own_size_is_what_comes_without_it(alone: Path, tmp_path: Path) -> None:
    for out, more in (("plain", []), ("size", ["--size", "13×30×40"])):
        assert sample.main([str(alone), "--n", "1", *more, "--out", str(tmp_path / out)]) == 0
    for name in ("sample_000.mp4", "sample_000.gif"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "size" / name).read_bytes()


def test_a_video_in_tiles_is_the_video(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run after run of frames into the file, against the whole at once; in float32, whose rounding is not seen."""
    monkeypatch.setattr(device, "resolve", lambda precision, device: "float32")
    command = [str(alone), "--n", "1", "--size", "61x30x40"]
    assert sample.main([*command, "--out", str(tmp_path / "whole")]) == 0
    runs = []

    def sample_in_parts(*args: Any, **options: Any) -> Iterator[torch.Tensor]:
        for made in plain(*args, **options, limit=1):
            runs.append(made.shape[2])
            yield made

    plain = sampling.sample_in_parts
    monkeypatch.setattr(sampling, "sample_in_parts", sample_in_parts)
    assert sample.main([*command, "--out", str(tmp_path / "tiles")]) == 0
    assert len(runs) > 1 and sum(runs) == 61
    tiles, whole = (frames(tmp_path / name / "sample_000.mp4").astype(int) for name in ("tiles", "whole"))
    assert tiles.shape == whole.shape == (61, 30, 40, 3)
    # Where a rounded grey level differs, H.264 may decide otherwise for a block: 2.6 levels were seen. A frame out of
    # its place would be as far as frames are apart, 7.8.
    assert abs(tiles - whole).mean() < 0.5 * abs(whole[1:] - whole[:-1]).mean()


def test_a_video_that_cannot_be_written_is_one_line(
    alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sample_000.mp4").mkdir()
    assert sample.main([str(alone), "--n", "1", "--size", "13x30x80", "--out", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("error: ") and "sample_000.mp4" in line
    assert [path.name for path in tmp_path.iterdir()] == ["sample_000.mp4"]

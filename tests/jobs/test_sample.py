"""jobs/sample.py: everything from the checkpoint file alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

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

"""The steps of the top page for one's own videos."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.pages import parts_of

from .conftest import make_video, run_job


@pytest.mark.slow
def test_the_steps_for_own_videos(tmp_path: Path) -> None:
    """ "Your own videos", as written but for the size of the model, and two samples to score; tests/model/test_api.py
    has its Python."""
    videos = tmp_path / "my_videos"
    videos.mkdir()
    make_video(videos / "clip.mp4", size="48x48")
    block = next(block.text for block in parts_of("README.md")[1] if "--dry-run" in block.text)
    plan, train, sample = (shlex.split(line, comments=True) for line in block.strip().splitlines())
    sizes = ("channels=4", "latent_dim=4", "iters_per_scale=1", "num_scales=4", "max_size=16")
    tiny = [*(f"--set={s}" for s in sizes), "--n=2"]
    assert run_job(Path(plan[1]).name, *plan[2:], *tiny, cwd=tmp_path).returncode == 0
    done = run_job(Path(train[1]).name, *train[2:], *tiny, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    (clip,) = (tmp_path / "runs" / "my_videos-small").glob("clip-*")
    made = run_job(Path(sample[1]).name, *[word.replace("CLIP", clip.name) for word in sample[2:]], cwd=tmp_path)
    assert made.returncode == 0, made.stdout
    assert len(list((tmp_path / "samples").glob("sample_*.mp4"))) == 10

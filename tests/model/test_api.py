"""The interface in Python, and the block of README that shows it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import model
from model.presets import demo, image_demo, small
from model.pyramid import training_pyramids
from model.training.loop import train_clip
from pipeline import video
from tests.jobs.conftest import make_video

README = (Path(__file__).parent.parent.parent / "README.md").read_text()


def trained(config, frames, path):
    path.parent.mkdir(parents=True)
    for _ in train_clip(config, training_pyramids([frames], config), clip_id="clip", path=path, log=lambda point: None):
        pass


def test_the_block_of_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my_videos").mkdir()
    make_video(Path("my_videos/clip.mp4"))
    frames = video.decode("my_videos/clip.mp4", num_frames=13, fps=24, max_height=256)
    tiny = {"channels": 4, "latent_dim": 4, "max_size": 24, "num_scales": 3, "iters_per_scale": 1}
    trained(replace(small(), **tiny), frames, Path("runs/my_videos-small/CLIP/checkpoint.pt"))
    (block,) = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    assert len([line for line in block.splitlines() if "model." in line]) == 3
    names = {}
    exec(block, names)
    assert names["samples"].shape == (4, 13, 24, 32, 3) and names["samples"].dtype == np.uint8
    assert names["sharper"].shape == names["samples"][0].shape and names["sharper"].dtype == np.uint8
    said = capsys.readouterr().out
    assert "SampleScores(metric='svfid_lite0', realism=" in said and ", diversity_metric='diversity_n4', " in said


@pytest.mark.slow
def test_the_blocks_of_the_page_on_applications(tmp_path, monkeypatch):
    """Each of three lines, beside its import."""
    page = (Path(__file__).parent.parent.parent / "model" / "sampling" / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    clip = np.random.default_rng(0).integers(0, 256, (13, 24, 32, 3), dtype=np.uint8)
    tiny = {"channels": 4, "latent_dim": 4, "min_size": 12, "max_size": 24, "num_scales": 7, "iters_per_scale": 1}
    config = replace(demo(), **tiny, patch_scale=1, patch_passes=1, patch_coarse_passes=1)
    trained(config, clip, Path("runs/demo/CLIP/checkpoint.pt"))
    mask, thing = np.zeros((1, 24, 32), np.uint8), np.zeros((1, 24, 32, 4), np.uint8)
    mask[:, 4:10, 4:10], thing[:, 4:10, 4:10] = 255, (255, 0, 0, 255)
    drawing = np.dstack([clip[0], np.full((24, 32), 255, np.uint8)])
    drawing[4:10, 4:10] = (255, 0, 0, 255)
    names = {"frames": clip, "edited": 255 - clip, "mask": mask, "object": thing, "drawing": drawing, "painting": clip}
    for block in blocks:
        assert len([line for line in block.splitlines() if line and "import" not in line]) <= 3
        exec(block, names)
    assert names["longer"].shape[0] == 37 and np.array_equal(names["longer"][:13], clip)
    for name in ("edit", "filled", "harmonized", "painted"):
        stays = {"edit": names["edited"], "harmonized": names["given"]}.get(name, clip)
        assert np.array_equal(names[name][:, 20:], stays[:, 20:]), name
        assert not np.array_equal(names[name][:, 4:10, 4:10], stays[:, 4:10, 4:10]), name
    assert names["best"].shape == (5, 13, 24, 32, 3) and names["in_its_colours"].shape == clip.shape


def test_the_finish_of_a_model_is_that_of_its_applications(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (1, 24, 32, 3), dtype=np.uint8)
    tiny = {"channels": 4, "latent_dim": 4, "min_size": 12, "max_size": 24, "num_scales": 3, "iters_per_scale": 1}
    path = tmp_path / "model" / "checkpoint.pt"
    trained(replace(image_demo(), **tiny, patch_scale=None), frames, path)
    by = {finish: model.load(str(path), frames, finish=finish) for finish in (None, "generators", "patches")}
    made = {finish: each.applications.inject(255 - frames, 2) for finish, each in by.items()}
    assert np.array_equal(made[None], made["generators"]) and not np.array_equal(made[None], made["patches"])
    assert np.array_equal(by[None].sample(), by["patches"].sample())


def test_what_is_kept_of_a_seed_are_samples_of_it(of_image):
    path, frames = of_image
    loaded = model.load(str(path), frames)
    samples = loaded.sample(8, seed=2)
    scores = [loaded.score(made[None]).realism for made in samples]
    best = loaded.keep(2, seed=2)
    assert np.array_equal(best[0], samples[int(np.argmin(scores))])
    assert any(np.array_equal(best[1], made) for made in samples)
    with pytest.raises(ValueError, match="its clip is needed"):
        model.load(str(path)).keep(2)
    with pytest.raises(ValueError, match="0 samples to keep: 1 or more"):
        loaded.keep(0)


@pytest.fixture(scope="module")
def of_image(tmp_path_factory):
    """A tiny model of an image, its path and its frames."""
    frames = np.random.default_rng(0).integers(0, 256, (1, 40, 52, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("api") / "model" / "checkpoint.pt"
    tiny = {"channels": 4, "latent_dim": 4, "max_size": 32, "num_scales": 3, "iters_per_scale": 1}
    trained(replace(image_demo(), **tiny), frames, path)
    return path, frames


def test_samples_scores_and_patches_of_an_image(of_image):
    path, frames = of_image
    loaded = model.load(str(path), frames)
    assert (loaded.name, loaded.size, loaded.config.dims) == ("clip", (1, 32, 42), 2)
    samples = loaded.sample(3, seed=5)
    assert samples.shape == (3, 1, 32, 42, 3) and np.array_equal(samples[2:], loaded.sample(1, seed=5, first=2))
    assert loaded.sample(size=(1, 32, 60)).shape == (1, 1, 32, 60, 3)
    scores = loaded.score(samples)
    assert scores.metric == "sifid_lite0_frames" and scores.samples == 3 and scores.diversity_metric == "diversity_n3"
    assert scores.realism > 0 and scores.blur > 0 and scores.diversity > 0 and scores.nn_distance > 0
    assert loaded.reconstruct().shape == (1, 32, 42, 3)


def test_the_clip_scores_0_and_stays_itself_when_refined(of_image):
    path, frames = of_image
    loaded = model.load(str(path), frames)
    from model.pyramid import build, to_frames

    clip = to_frames(build(frames, [loaded.size])[0])
    scores = loaded.score(clip[None])
    assert scores.realism < 1e-3 * scores.blur and scores.nn_distance < 0.01
    assert scores.diversity is None and scores.diversity_metric is None
    assert np.abs(loaded.refine(clip).astype(int) - clip).max() <= 1


def test_applications_of_the_clip_and_of_a_given_image(of_image):
    path, frames = of_image
    apps = model.load(str(path), frames).applications
    edited = apps.inject(255 - apps.clip(), 1)
    assert edited.shape == (1, 32, 42, 3) and edited.dtype == np.uint8
    assert apps.enlarge(2).shape == (1, 64, 84, 3)
    with pytest.raises(ValueError, match="its clip is needed; give load its frames"):
        _ = model.load(str(path)).applications


def test_scores_are_of_the_clip_its_nearest_chunk_and_no_augmented_copy(tmp_path):
    """As evaluate.py gives them: each chunk is as far from the clip as that is from itself."""
    path = tmp_path / "model" / "checkpoint.pt"
    chunks = list(np.random.default_rng(0).integers(0, 256, (2, 13, 24, 32, 3), dtype=np.uint8))
    tiny = {"channels": 4, "latent_dim": 4, "max_size": 24, "num_scales": 3, "iters_per_scale": 1}
    config = replace(small(), **tiny, stride=13, flip=True)
    path.parent.mkdir()
    for _ in train_clip(config, training_pyramids(chunks, config), clip_id="clip", path=path, log=lambda point: None):
        pass
    loaded = model.load(str(path), chunks)
    scores, mirrored = loaded.score(np.stack(chunks)), loaded.score(np.stack(chunks)[:, :, :, ::-1])
    assert scores.realism < 1e-3 * scores.blur and scores.nn_distance < 0.01
    assert mirrored.realism > 10 and mirrored.nn_distance > 0.1
    assert loaded.score(np.stack(chunks)) == scores


def test_what_cannot_be_is_one_line(of_image):
    path, frames = of_image
    alone = model.load(str(path))
    with pytest.raises(ValueError, match="frames are not there"):
        alone.sample()
    with pytest.raises(ValueError, match="its clip is needed; give load its frames"):
        alone.score(frames)
    with pytest.raises(ValueError, match="are of another clip; give its own"):
        model.load(str(path), frames[:, :, :30])
    with pytest.raises(ValueError, match=r"samples of 1×32×42 \(T×H×W\) are needed"):
        model.load(str(path), frames).score(frames[None])
    assert alone.size == (1, 32, 42)
    with pytest.raises(ValueError, match=r"uint8 \(T, H, W, 3\) are needed; of one picture give picture\[None\]"):
        model.load(str(path), frames[0])
    with pytest.raises(ValueError, match="2 frames, its clip has 1"):
        model.load(str(path), np.repeat(frames, 2, axis=0))
    with pytest.raises(ValueError, match="count=0: 1 or more"):
        model.load(str(path), frames).sample(0)
    with pytest.raises(ValueError, match=r"GiB of memory, \d+ are there"):
        model.load(str(path), frames).sample(size=(1, 10**5, 10**5))
    with pytest.raises(model.checkpoint.CheckpointError, match="no such file"):
        model.load(str(path.parent / "none.pt"))
    with pytest.raises(AttributeError, match="no attribute 'sing'"):
        model.sing  # noqa: B018

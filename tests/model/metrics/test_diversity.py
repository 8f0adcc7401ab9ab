"""LAB diversity against a slow loop, against closed forms, and on input it refuses."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from model.metrics.diversity import diversity_map, lab_diversity, lightness


def uniform(shape, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1.0


def test_agrees_with_a_loop_over_pixels():
    samples, real = uniform((5, 3, 2, 4, 6), 0), uniform((3, 3, 5, 5), 1)

    def pixel_l(rgb):
        return rgb2lab(((rgb.numpy().astype(np.float64) + 1.0) / 2.0)[None, None])[0, 0, 0]

    stds = []
    for t, y, x in np.ndindex(2, 4, 6):
        stds.append(np.std([pixel_l(samples[n, :, t, y, x]) for n in range(5)]))
    real_l = [pixel_l(real[:, t, y, x]) for t, y, x in np.ndindex(3, 5, 5)]
    assert lab_diversity(samples, real) == pytest.approx(np.mean(stds) / np.std(real_l), rel=1e-9)


def test_the_map_is_the_deviation_at_each_pixel_and_diversity_its_mean():
    samples, real = uniform((6, 3, 2, 4, 5), 9), uniform((3, 3, 5, 5), 10)
    rgb = (samples.permute(0, 2, 3, 4, 1).double().numpy() + 1.0) / 2.0
    expected = rgb2lab(rgb)[..., 0].std(axis=0)  # (T, H, W)
    spread = diversity_map(samples)
    assert spread.dtype == np.float64
    np.testing.assert_allclose(spread, expected, rtol=1e-9)
    real_l = rgb2lab((real.permute(1, 2, 3, 0).double().numpy() + 1.0) / 2.0)[..., 0]
    assert lab_diversity(samples, real) == pytest.approx(spread.mean() / real_l.std(), rel=1e-9)


def test_the_map_shows_where_samples_differ():
    # Two gray samples that are black and white in one corner of one frame: a deviation of 50 there, 0 elsewhere.
    samples = torch.full((2, 3, 2, 4, 5), 0.1)
    samples[0, :, 1, :2, :3], samples[1, :, 1, :2, :3] = -1.0, 1.0
    expected = np.zeros((2, 4, 5))
    expected[1, :2, :3] = 50.0
    np.testing.assert_allclose(diversity_map(samples), expected, atol=1e-3)


def test_samples_may_come_one_by_one():
    samples = uniform((4, 3, 2, 4, 5), 11)
    np.testing.assert_array_equal(diversity_map(sample for sample in samples), diversity_map(samples))


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([uniform((3, 2, 4, 5), 0), uniform((3, 2, 4, 6), 1)], r"one size .*\(2, 4, 5\) and \(2, 4, 6\)"),
        ([uniform((3, 2, 4, 5), 0)], "at least 2 samples, got 1"),
        ([], "at least 2 samples, got 0"),
        ([uniform((3, 2, 4, 5), 0), uniform((3, 2, 4, 5), 1) * torch.inf], "infinite"),
        ([uniform((4, 3, 2, 4, 5), 0)], r"\(3, T, H, W\)"),
    ],
)
def test_the_map_refuses(samples, words):
    with pytest.raises(ValueError, match=words):
        diversity_map(samples)


def test_black_and_white_samples_of_a_black_and_white_clip_have_diversity_one():
    # L is 0 for black and 100 for white: std 50 over two samples, std 50 over a half-and-half real clip.
    samples = torch.stack([torch.full((3, 2, 4, 4), -1.0), torch.full((3, 2, 4, 4), 1.0)])
    real = torch.full((3, 2, 4, 4), -1.0)
    real[..., 2:] = 1.0
    assert lab_diversity(samples, real) == pytest.approx(1.0, rel=1e-4)


def test_two_gray_levels_match_the_cielab_formula():
    def gray_l(value):  # CIE 1976: L* of a gray is a function of its sRGB-decoded intensity alone
        srgb = (value + 1.0) / 2.0
        linear = ((srgb + 0.055) / 1.055) ** 2.4
        return 116.0 * linear ** (1.0 / 3.0) - 16.0

    samples = torch.stack([torch.full((3, 3, 5, 7), level) for level in (-0.2, 0.6)])
    real = torch.full((3, 3, 4, 4), -0.1)
    real[:, :, :, 3] = 0.5  # a quarter of the pixels: std = √(1/4 · 3/4) of the step
    expected = (gray_l(0.6) - gray_l(-0.2)) / 2.0 / (np.sqrt(3.0) / 4.0 * (gray_l(0.5) - gray_l(-0.1)))
    assert lab_diversity(samples, real) == pytest.approx(expected, rel=1e-3)


def test_identical_samples_have_none():
    sample = uniform((3, 4, 6, 8), 2)
    assert lab_diversity(sample.expand(10, *sample.shape), sample) == 0.0


def test_colour_without_lightness_does_not_count():
    # Two colours of (nearly) one lightness: what differs is a and b only.
    red, green = torch.tensor([0.5, -0.6, -0.6]), torch.tensor([-0.6, -0.0775, -0.6])
    samples = torch.stack([colour.view(3, 1, 1, 1).expand(3, 2, 4, 4) for colour in (red, green)])
    assert np.ptp([lightness(s).mean() for s in samples]) < 1.0
    assert lab_diversity(samples, uniform((3, 2, 4, 4), 3)) < 0.05


def test_overshoot_is_clipped_and_numpy_and_bfloat16_are_read():
    samples, real = uniform((3, 3, 2, 4, 4), 4), uniform((3, 2, 4, 4), 5)
    loud = 1.5 * samples
    assert lab_diversity(loud, real) == lab_diversity(loud.clamp(-1.0, 1.0), real)
    assert lab_diversity(samples.numpy(), real.numpy()) == lab_diversity(samples, real)
    assert lab_diversity(samples.bfloat16(), real) == pytest.approx(lab_diversity(samples, real), rel=0.02)


@pytest.mark.parametrize(
    ("samples", "real", "words"),
    [
        (uniform((1, 3, 2, 4, 4), 6), uniform((3, 2, 4, 4), 7), "at least 2 samples"),
        (uniform((2, 3, 2, 4, 4), 6), torch.full((3, 2, 4, 4), 0.3), "constant lightness"),
        (uniform((3, 2, 4, 4), 6), uniform((3, 2, 4, 4), 7), r"\(N, 3, T, H, W\)"),
        (uniform((2, 3, 2, 4, 4), 6) * float("nan"), uniform((3, 2, 4, 4), 7), "NaN"),
        (uniform((2, 3, 2, 4, 4), 6), uniform((3, 2, 4, 4), 7) * 127.0 + 128.0, "another range"),
    ],
)
def test_refuses(samples, real, words):
    with pytest.raises(ValueError, match=words):
        lab_diversity(samples, real)


def test_refuses_integer_frames():
    with pytest.raises(TypeError, match="floating point"):
        lab_diversity(torch.zeros(2, 3, 2, 4, 4, dtype=torch.uint8), uniform((3, 2, 4, 4), 8))

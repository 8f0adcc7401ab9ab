"""Local statistics of videos, against distributions that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats
from skimage import data

from model.metrics.naturalness import _asymmetric, naturalness_distance


@pytest.mark.parametrize("shape", [0.7, 1.0, 2.0, 4.0])
def test_the_fit_finds_the_distribution_that_values_were_drawn_from(shape: float) -> None:
    values = stats.gennorm.rvs(shape, scale=1.5, size=(3, 20_000), random_state=0)
    found, mean, left, right = _asymmetric(values)
    assert found == pytest.approx(shape, rel=0.08)
    assert np.abs(mean).max() < 0.1  # of a deviation of 2 to 4
    assert left == pytest.approx(1.5, rel=0.12) and right == pytest.approx(1.5, rel=0.12)


def test_a_skewed_distribution_has_its_two_sides() -> None:
    half = np.abs(np.random.default_rng(0).normal(size=(1, 40_000)))
    values = np.concatenate([-half[:, :10_000] * 1.0, half[:, 10_000:] * 3.0], axis=1)
    shape, mean, left, right = _asymmetric(values)  # an AGGD of these sides: as many values as a side is wide
    assert shape == pytest.approx(2, rel=0.05)
    assert left == pytest.approx(np.sqrt(2), rel=0.03) and right == pytest.approx(3 * np.sqrt(2), rel=0.03)
    assert mean == pytest.approx(values.mean(), rel=0.03)


def test_blur_and_noise_are_less_natural_the_stronger_they_are() -> None:
    clip = data.astronaut()[None, 100:420:2, 100:420:2]
    noise = np.random.default_rng(0).normal(size=clip.shape)
    distances = []
    for strength in (0.7, 1.4):
        blurred = ndimage.gaussian_filter(clip.astype(float), (0, strength, strength, 0)).round().astype(np.uint8)
        noisy = (clip + 12 * strength * noise).clip(0, 255).astype(np.uint8)
        distances.append((naturalness_distance(blurred, clip), naturalness_distance(noisy, clip)))
    assert naturalness_distance(clip, clip) == 0
    other_half = naturalness_distance(clip[:, :, :80], clip[:, :, 80:])
    assert all(0 < weak < strong for weak, strong in zip(*distances)) and other_half < min(distances[1])


def test_frames_without_room_for_a_patch_are_refused() -> None:
    small = np.zeros((13, 31, 64, 3), np.uint8)
    with pytest.raises(ValueError, match="frames of 32×32 px or more"):
        naturalness_distance(small, small)
    flat = np.full((2, 32, 32, 3), 90, np.uint8)
    assert naturalness_distance(flat, flat) == 0

"""Nearest-neighbour field against brute force, closed forms and a decompressor of its own."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from model.metrics.nnf import NearestNeighbourField, nearest_neighbour_distance, nearest_neighbour_field, nnfdiv
from model.patches import search


def video(seed, *size):
    return torch.rand((3, *size), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def smooth(seed, *size):
    """Neighbouring values alike, as in pictures."""
    coarse = torch.randn((1, 3, 3, 4, 4), generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, size, mode="trilinear", align_corners=True)[0]
    return (0.4 * fine).clamp(-1, 1)


def places(x, step=1):
    """Corners of the patches, in order."""
    starts = [range(0, side - 2, step) for side in x.shape[1:]]
    return [(t, h, w) for t in starts[0] for h in starts[1] for w in starts[2]]


def patches(x, step=1):
    """(n, 81) float64 by plain loops."""
    x = np.asarray(x, dtype=np.float64)
    return np.array([x[:, t : t + 3, h : h + 3, w : w + 3].flatten() for t, h, w in places(x, step)])


def brute_force(sample, real, step=1):
    """(distance, displacement) of each patch of the sample: every pair's difference, none of it expanded."""
    distances = cdist(patches(sample, step), patches(real))
    nearest = distances.argmin(axis=1)  # the first of equally near ones
    displacement = np.array(places(real))[nearest] - np.array(places(sample, step))
    return distances.min(axis=1) / 9.0, displacement


def assert_is_brute_force(field, sample, real, step=1):
    distance, displacement = brute_force(sample, real, step)
    np.testing.assert_allclose(field.distance.flatten(), distance, rtol=1e-6, atol=1.2e-6)
    np.testing.assert_array_equal(field.displacement.reshape(3, -1).T, displacement)


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("chunk", [7, 4096])
@pytest.mark.parametrize("kind", [video, smooth])
def test_field_is_that_of_brute_force(monkeypatch, kind, chunk, step):
    monkeypatch.setattr(search, "CHUNK", chunk)
    sample, real = kind(0, 6, 9, 11), kind(1, 5, 8, 12)
    field = nearest_neighbour_field(sample, real, step)
    assert field.displacement.dtype == np.int32 and field.distance.dtype == np.float32
    assert field.displacement.shape == (3, *field.distance.shape)
    assert field.distance.shape == ((4, 7, 9) if step == 1 else (2, 3, 3))
    assert_is_brute_force(field, sample, real, step)


@pytest.mark.parametrize("chunk", [7, 4096])
def test_neighbours_that_float32_products_cannot_tell_apart(monkeypatch, chunk):
    monkeypatch.setattr(search, "CHUNK", chunk)
    # Patches far from the origin (|k|² near 81) that differ by 1e-4 a value: |k|² - 2 q·k in float32 has an error of
    # the size of what it is to measure, and finds other neighbours.
    sample, real = (0.99 + 1e-4 * video(seed, 5, 8, 9) for seed in (2, 3))
    field = nearest_neighbour_field(sample, real)
    assert_is_brute_force(field, sample, real)
    queries, keys = patches(sample).astype(np.float32), patches(real).astype(np.float32)
    by_products = (np.square(keys).sum(1) - 2 * queries @ keys.T).argmin(axis=1)
    found = np.ravel_multi_index(
        tuple(field.displacement.reshape(3, -1) + np.array(places(sample)).T), [side - 2 for side in real.shape[1:]]
    )
    assert (by_products != found).mean() > 0.1


@pytest.mark.parametrize("chunk", [7, 4096])
def test_of_equal_patches_the_first_is_taken(monkeypatch, chunk):
    monkeypatch.setattr(search, "CHUNK", chunk)
    half = video(4, 3, 6, 8)
    twice = torch.cat([half, half], dim=1)  # every patch of the first frames comes again 3 frames later
    field = nearest_neighbour_field(half, twice)
    assert not field.displacement.any() and not field.distance.any()
    gray = torch.full((3, 3, 4, 5), 0.3)
    assert_is_brute_force(nearest_neighbour_field(gray + 0.1, gray), gray + 0.1, gray)


@pytest.mark.parametrize("chunk", [7, 4096])
def test_mean_distance_equals_a_kd_tree(monkeypatch, chunk):
    monkeypatch.setattr(search, "CHUNK", chunk)
    sample, real = video(0, 7, 10, 11), video(1, 5, 9, 12)
    distance, _ = cKDTree(patches(real)).query(patches(sample, 3))
    assert nearest_neighbour_distance(sample, real) == pytest.approx((distance / 9).mean(), rel=1e-6)


def test_one_search_gives_the_mean_distance_too():
    sample, real = video(5, 7, 10, 11), video(6, 5, 9, 12)
    assert nearest_neighbour_field(sample, real).nn_distance == nearest_neighbour_distance(sample, real)


def test_any_part_of_the_clip_scores_zero_and_is_displaced_as_a_whole():
    real = video(2, 7, 12, 14)
    assert nearest_neighbour_distance(real, real) == 0
    field = nearest_neighbour_field(real[:, 1:5, 2:9, 3:], real)
    assert field.nn_distance == 0 and not field.distance.any()
    assert (field.displacement == np.array([1, 2, 3]).reshape(3, 1, 1, 1)).all()


def test_a_constant_offset_scores_the_offset():
    real = torch.full((3, 4, 5, 6), 0.25)
    assert nearest_neighbour_distance(torch.full((3, 3, 6, 9), -0.5), real) == pytest.approx(0.75, rel=1e-6)


def field_of(displacement):
    return NearestNeighbourField(displacement=displacement, distance=np.zeros(displacement.shape[1:]), step=1)


def test_nnfdiv_compresses_a_byte_a_component_plane_by_plane():
    displacement = np.random.default_rng(0).integers(-140, 140, (3, 4, 5, 6)).astype(np.int32)
    displacement[0] = 2
    planes = [displacement[axis, t, y, x] for axis, t, y, x in np.ndindex(3, 4, 5, 6)]
    raw = bytes(int(value) % 256 for value in planes)
    assert len(raw) == 3 * 4 * 5 * 6
    assert nnfdiv(field_of(displacement)) == len(zlib.compress(raw)) / len(raw)


def test_nnfdiv_is_near_0_for_a_translation_and_grows_with_disorder_up_to_1():
    real = video(7, 9, 22, 30)
    rng = np.random.default_rng(1)
    blocks = real.clone()  # the clip's right half and left half changed over
    blocks[..., :15], blocks[..., 15:] = real[..., 15:], real[..., :15]
    shift, swapped, other = (
        nnfdiv(nearest_neighbour_field(sample, real)) for sample in (real[:, 1:, 3:, 4:], blocks, video(8, 9, 22, 30))
    )
    assert shift < 0.02 < swapped < 0.3 < other <= 1.01
    assert 0.99 < nnfdiv(field_of(rng.integers(0, 256, (3, 11, 40, 60)).astype(np.int32))) < 1.01


def test_nnfdiv_refuses_a_coarse_field():
    with pytest.raises(ValueError, match="step 1"):
        nnfdiv(nearest_neighbour_field(video(3, 4, 8, 8), video(4, 4, 8, 8), step=3))


@pytest.mark.parametrize(
    ("sample", "real", "step", "words"),
    [
        (video(3, 2, 8, 8), video(4, 4, 8, 8), 1, "3 frames and pixels"),
        (video(3, 4, 8, 8), video(4, 4, 8, 2), 3, "3 frames and pixels"),
        (video(3, 4, 8, 8), video(4, 4, 8, 8), 2, "step must be 1 .* or 3"),
        (video(3, 4, 8, 8) * torch.nan, video(4, 4, 8, 8), 1, "NaN"),
        (video(3, 4, 8, 8), video(4, 4, 8, 8)[None], 1, r"\(3, T, H, W\)"),
    ],
)
def test_refuses(sample, real, step, words):
    with pytest.raises(ValueError, match=words):
        nearest_neighbour_field(sample, real, step)


def test_overshoots_are_clipped():
    sample, real = 1.5 * video(9, 4, 7, 8), video(10, 4, 7, 8)
    clipped = nearest_neighbour_field(sample.clamp(-1, 1), real)
    np.testing.assert_array_equal(nearest_neighbour_field(sample, real).displacement, clipped.displacement)

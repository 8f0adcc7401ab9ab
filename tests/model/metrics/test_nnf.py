"""Nearest-neighbour distance against a k-d tree's and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from model.metrics import nnf
from model.metrics.nnf import nearest_neighbour_distance


def video(seed, *size):
    return torch.rand((3, *size), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def patches(x, step):
    """(n, 81) by plain loops."""
    t, h, w = x.shape[1:]
    starts = [range(0, side - 2, step) for side in (t, h, w)]
    return np.array(
        [x[:, a : a + 3, b : b + 3, c : c + 3].flatten() for a in starts[0] for b in starts[1] for c in starts[2]]
    )


@pytest.mark.parametrize("chunk", [7, 4096])
def test_equals_a_kd_tree(monkeypatch, chunk):
    monkeypatch.setattr(nnf, "QUERIES", chunk)
    monkeypatch.setattr(nnf, "KEYS", chunk)
    sample, real = video(0, 7, 10, 11), video(1, 5, 9, 12)
    distance, _ = cKDTree(patches(real.numpy(), 1)).query(patches(sample.numpy(), 3))
    assert nearest_neighbour_distance(sample, real) == pytest.approx((distance / 9).mean(), rel=1e-6)


def test_any_part_of_the_clip_scores_zero():
    real = video(2, 7, 12, 14)
    assert nearest_neighbour_distance(real, real) == 0
    assert nearest_neighbour_distance(real[:, 1:5, 2:9, 3:], real) == 0


def test_a_constant_offset_scores_the_offset():
    real = torch.full((3, 4, 5, 6), 0.25)
    assert nearest_neighbour_distance(torch.full((3, 3, 6, 9), -0.5), real) == pytest.approx(0.75, rel=1e-6)


def test_a_side_below_the_patch_is_refused():
    with pytest.raises(ValueError, match="3 frames and pixels"):
        nearest_neighbour_distance(video(3, 2, 8, 8), video(4, 4, 8, 8))

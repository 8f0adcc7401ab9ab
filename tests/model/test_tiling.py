"""A generator in tiles against the same generator on the whole volume."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from model.boxes import cut
from model.networks import blocks
from model.networks import generators as networks
from model.networks.generators import Generator
from model.networks.singan import Stage
from model.pyramid import ScaleSize
from model.sampling import tiling


def made(convs, side=3, inputs=3, seed=0, padded=True, stage=False):
    """A generator whose affines are not the identity."""
    torch.manual_seed(seed)
    kernel = (side, side, side)
    generator = Stage(inputs, convs, kernel) if stage else Generator(inputs, 8, convs, kernel, padded=padded)
    generator.requires_grad_(False)
    for block in generator.blocks:
        block.weight.normal_(1, 0.3)
        block.bias.normal_(0, 0.3)
    return generator


def volume(size, inputs=3):
    """Noise on a ramp: a part of it has other statistics than the whole."""
    t, h, w = (torch.linspace(-1, 1, side) for side in size)
    ramp = t.view(-1, 1, 1) + 2 * h.view(-1, 1) - 3 * w
    return torch.randn((1, inputs, *size), generator=torch.Generator().manual_seed(1)) + ramp


@pytest.fixture
def seen(monkeypatch):
    """Voxels of the input of every convolution."""
    voxels = []

    def convolve(x, *args, **options):
        voxels.append(x[0, 0].numel())
        return plain(x, *args, **options)

    plain = blocks.convolve
    for module in (blocks, networks):
        monkeypatch.setattr(module, "convolve", convolve)
    return voxels


@pytest.mark.parametrize(
    ("convs", "side", "inputs", "size", "limit"),
    [
        (5, 3, 3, (13, 24, 34), 13 * 24 * 34),  # one tile
        (5, 3, 3, (13, 24, 34), 5000),
        (5, 3, 3, (13, 24, 34), 2000),
        (5, 3, 3, (11, 12, 12), 1331),  # a voxel and what it sees: 11 · 11 · 11
        (5, 3, 3, (30, 12, 14), 3000),  # cut in time
        (5, 3, 16, (4, 20, 36), 1500),  # G⁰
        (7, 3, 3, (13, 24, 34), 5000),
        (7, 3, 3, (31, 16, 16), 5000),
        (5, 1, 3, (13, 24, 34), 1000),
        (5, 1, 16, (4, 6, 5), 1),
        (2, 3, 3, (9, 9, 9), 125),
    ],
)
def test_tiles_give_what_the_whole_gives_and_none_is_larger_than_the_limit(convs, side, inputs, size, limit, seen):
    generator, x, told = made(convs, side, inputs), volume(size, inputs), []
    whole = generator(x)
    assert max(seen) == x[0, 0].numel()
    seen.clear()
    runs = list(tiling.evaluate(generator, x, precision="float32", limit=limit, tick=told.append))
    assert max(seen) <= limit and len(seen) >= (len(told) > convs) * 2 * convs
    torch.testing.assert_close(torch.cat(runs, dim=2), whole, rtol=0, atol=2e-5)
    assert whole.std() > 0.1
    assert sum(told) == tiling.evaluations(generator, ScaleSize(*size), limit) == len(seen)


@pytest.mark.parametrize("stage", [False, True], ids=["singan", "consingan"])
@pytest.mark.parametrize("limit", [20_000, 4_000])
def test_so_do_tiles_of_generators_that_are_not_padded(limit, stage, seen):
    inputs = 8 if stage else 3
    generator, told = made(5, inputs=inputs, padded=False, stage=stage), []
    x = volume((14, 30, 40), inputs)
    whole = generator(x)
    assert whole.shape == (1, inputs, 4, 20, 30)
    seen.clear()
    runs = list(tiling.evaluate(generator, x, precision="float32", limit=limit, tick=told.append))
    assert max(seen) <= limit
    torch.testing.assert_close(torch.cat(runs, dim=2), whole, rtol=0, atol=2e-5)
    assert sum(told) == tiling.evaluations(generator, ScaleSize(4, 20, 30), limit)


def test_a_part_alone_gives_something_else():
    """The test above can fail: with statistics of its own a part is not what it is in the whole."""
    generator, x = made(5), volume((13, 24, 34))
    assert (generator(x[..., :24])[..., :12] - generator(x)[..., :12]).abs().max() > 0.1
    assert [tiling.halo(5, (3, 3, 3)), tiling.halo(7, (3, 3, 3)), tiling.halo(5, (1, 1, 1))] == [
        (5, 5, 5),
        (7, 7, 7),
        (0, 0, 0),
    ]


def test_runs_come_in_order_and_early():
    generator, x = made(3), volume((40, 8, 8))
    runs = tiling.evaluate(generator, x, precision="float32", limit=1000)
    first, *rest = runs
    assert first.shape[2] < 40 and sum(run.shape[2] for run in (first, *rest)) == 40
    torch.testing.assert_close(first, generator(x)[:, :, : first.shape[2]], rtol=0, atol=2e-5)


def test_bf16_tiles_are_the_bf16_whole_but_for_rounding():
    generator, x = made(5), volume((7, 20, 24))
    with torch.autocast("cpu", torch.bfloat16):
        whole = generator(x)
    tiles = torch.cat(list(tiling.evaluate(generator, x, precision="bf16", limit=2000)), dim=2)
    assert (tiles - generator(x)).abs().mean() > 1e-4  # bf16 it was
    assert (tiles - whole).abs().mean() < 0.01


@pytest.mark.parametrize(
    ("size", "halo", "limit"),
    [((13, 24, 34), 5, 2000), ((13, 24, 34), 0, 7), ((1, 50, 3), 2, 60), ((121, 256, 1024), 5, 2**20)],
)
def test_boxes_fill_the_volume_once(size, halo, limit):
    runs = cut(size, (halo, halo, halo), limit)
    times = np.zeros(size, np.uint8)
    for box in itertools.chain(*runs):
        times[box] += 1
        wide = [min(s.stop + halo, side) - max(s.start - halo, 0) for s, side in zip(box, size, strict=True)]
        assert np.prod(wide) <= limit
    assert (times == 1).all()
    frames = [{(box[0].start, box[0].stop) for box in run} for run in runs]
    assert all(len(found) == 1 for found in frames)
    assert [start for ((start, _),) in frames] == [0, *[stop for ((_, stop),) in frames[:-1]]]


def test_cuts_waste_little():
    """13 frames are not cut in time, where the halo would nearly double them; many frames are, to be done early."""
    ((*boxes,),) = cut((13, 256, 1024), (5, 5, 5), 2**20)
    assert [(b[1].stop - b[1].start, b[2].stop - b[2].start) for b in boxes] == [(256, 256)] * 4
    assert len(cut((121, 256, 1024), (5, 5, 5), 2**20)) >= 2
    assert cut((13, 24, 34), (5, 5, 5), 13 * 24 * 34) == [[(slice(0, 13), slice(0, 24), slice(0, 34))]]
    assert [len(run) for run in cut((10, 10, 10), (0, 0, 0), 500)] == [1] * 10  # without a halo runs cost nothing
    with pytest.raises(ValueError, match="limit=1000: fewer voxels than one with 5 on every side"):
        cut((13, 24, 34), (5, 5, 5), 1000)


def test_moments_of_parts_are_those_of_the_whole():
    """A mean a thousand times the deviation, in parts of unequal size and mean."""
    values = np.random.default_rng(0).normal(1000, 1, (1, 2, 10, 6, 5)).astype(np.float32)
    values[:, :, 7:] += 3
    moments = tiling.Moments()
    for part in np.split(values, [1, 7], axis=2):
        moments.add(torch.from_numpy(part))
    exact = values.astype(np.float64)
    np.testing.assert_allclose(moments.mean, exact.mean(axis=(0, 2, 3, 4)), rtol=1e-6)
    np.testing.assert_allclose(moments.var, exact.var(axis=(0, 2, 3, 4)), rtol=1e-3)

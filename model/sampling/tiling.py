"""A generator on a volume whose activations do not fit: tile by tile, equal to the whole but for rounding.

A generator sees a few voxels around each, so a tile with that much around it gives the same as the volume; where the
volume ends there is nothing around it, and the zero padding of the convolutions is the volume's own. Only the
normalisation looks further: its mean and variance are those of all (T, H, W), as the paper's batch norm has them (§3,
A.1). So the tiles are gone through once for each block, with the statistics of the blocks before it known, and once
more for the result: (convs + 1) / 2 times the multiplications, 3 times for the paper's 5 convolutions, without keeping
any activation from one pass to the next. The statistics of the training clip would need one pass, but they are not what
the method's networks normalise a larger video by, and a checkpoint does not have them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from model.boxes import Box, cut, inside, surrounded
from model.config import Precision
from model.device import autocast
from model.networks.blocks import halo
from model.networks.generators import Generator
from model.pyramid import ScaleSize

# Voxels of a tile, with what is around it. A block holds three activations at a time: with 64 channels in bf16
# 3 · 2²⁰ · 64 · 2 bytes = 384 MiB. Smaller tiles repeat more of each other's surroundings.
MAX_VOXELS = 2**20


def evaluations(generator: Generator, size: ScaleSize, limit: int) -> int:
    """How many convolutions of a tile `evaluate` computes for a result of this size: what it counts for `tick`."""
    blocks, convs = len(generator.blocks), generator.convs
    passes = [(_volume(generator, size, depth), depth) for depth in range(1, blocks + 1)] + [(size, convs)]
    return sum(depth * sum(map(len, _boxes(generator, volume, limit))) for volume, depth in passes)


@torch.no_grad()
def evaluate(
    generator: Generator,
    x: Tensor,
    *,
    precision: Precision,
    limit: int = MAX_VOXELS,
    tick: Callable[[int], None] = lambda convolutions: None,
) -> Iterator[Tensor]:
    """generator(x), a run of frames after the other; the generator's device never holds more than a tile of it.

    Args:
        x: (1, in, T, H, W) float32, on any device: the host's memory, where that is larger. Of a generator that is not
            padded it is larger than the result by what its convolutions take off.
        limit: voxels of a tile, its surroundings included.
        tick: called after every tile with how many convolutions of it have been computed.

    Yields (1, 3, t, H, W) float32 on x's device; the t add up to T. Raises ValueError as `cut` does.
    """
    off = (0, 0, 0) if generator.padded else halo(generator.convs, generator.kernel)
    size = ScaleSize(*(side - 2 * around for side, around in zip(x.shape[2:], off, strict=True)))
    statistics: list[tuple[Tensor, Tensor]] = []  # mean and variance of each block's convolution
    for depth in range(1, len(generator.blocks) + 1):
        moments = Moments()
        for box in (box for run in _boxes(generator, _volume(generator, size, depth), limit) for box in run):
            moments.add(_part(generator, x, box, statistics, depth, precision))
            tick(depth)
        statistics.append((moments.mean.to(x.dtype), moments.var.to(x.dtype)))
    for run in _boxes(generator, size, limit):
        parts = []
        for box in run:
            parts.append((box, _part(generator, x, box, statistics, None, precision)))
            tick(generator.convs)
        made = x.new_empty((1, parts[0][1].shape[1], run[0][0].stop - run[0][0].start, *size[1:]))
        for box, part in parts:
            made[..., box[1], box[2]] = part
        yield made


def _boxes(generator: Generator, size: ScaleSize, limit: int) -> list[list[Box]]:
    return cut(size, halo(generator.convs, generator.kernel), limit, padded=generator.padded)


def _volume(generator: Generator, size: ScaleSize, depth: int) -> ScaleSize:
    """Of what convolution `depth` (from 1) gives, where the result is of `size`."""
    if generator.padded:
        return size
    later = halo(generator.convs - depth, generator.kernel)
    return ScaleSize(*(side + 2 * around for side, around in zip(size, later, strict=True)))


def _part(
    generator: Generator,
    x: Tensor,
    box: Box,
    statistics: list[tuple[Tensor, Tensor]],
    depth: int | None,
    precision: Precision,
) -> Tensor:
    """What convolution `depth` (from 1), or None: the generator, gives in a box: (1, C, t, h, w) on its device."""
    count, device = depth or generator.convs, generator.block(0).conv.weight.device
    reach = halo(count, generator.kernel)
    if generator.padded:
        wide = surrounded(box, reach, x.shape[2:])
    else:  # it begins where what it sees does
        frames, rows, columns = (slice(s.start, s.stop + 2 * around) for s, around in zip(box, reach, strict=True))
        wide = frames, rows, columns
    y = x[:, :, wide[0], wide[1], wide[2]].to(device)
    with autocast(device, precision):
        known = len(generator.blocks) if depth is None else depth - 1
        for n, (mean, var) in zip(range(known), statistics, strict=False):
            y = generator.block(n).with_statistics(y, mean.to(device), var.to(device))
        y = generator.rgb(y) if depth is None else generator.block(depth - 1).convolved(y)
    if not generator.padded:
        return y
    inner = inside(box, wide)
    return y[:, :, inner[0], inner[1], inner[2]]


class Moments:
    """Mean and variance of each channel over tensors given one after the other, merged in float64 (Chan et al. 1979).

    Sums of squares would lose what is small beside the mean.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())  # (C,) float64 on the device of what is added, from the first `add` on
        self._squares = torch.zeros(())  # of the distances to the mean

    @property
    def var(self) -> Tensor:
        """(C,) float64, biased: divided by the count, as a batch norm does."""
        return self._squares / self.count

    def add(self, y: Tensor) -> None:
        """y: (1, C, T, H, W), of any type and device."""
        var, mean = (m.double() for m in torch.var_mean(y.float(), dim=(0, 2, 3, 4), correction=0))
        count = y.numel() // y.shape[1]
        total = self.count + count
        apart = mean - self.mean
        self._squares = self._squares + var * count + apart.square() * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total

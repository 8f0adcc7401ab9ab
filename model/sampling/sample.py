"""Videos from a stack and a seed, of the clip's size or another; sample i of a seed is the same whatever is asked for.

A video of another size is the same recursion (eq. 9) on a ladder scaled to it: noise drawn at the new coarse size, the
same networks (§3.1, §4.2). What does not fit is computed in tiles (tiling.py): the host's memory holds three RGB
volumes of the output in float32, the networks' device a tile at a time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from model.config import TrainConfig
from model.device import autocast
from model.networks.generators import GeneratorStack
from model.pyramid import ScaleSize, SizeError
from model.sampling import tiling

VOLUMES = 3  # of the whole output that the host holds: what is below, its noise, the residual


Tick = Callable[[int], None]  # called with how many steps were done since the last call


def ignore(steps: int) -> None:
    """A tick that nobody hears."""


class Draw(IntEnum):
    """What random numbers of a seed and an index are for, beside the z and the noise of a sample (`stream_of`)."""

    PATCHES = 1  # the search
    LAYOUT_AGAIN = 2  # and which attempt it is
    ENTERING = 3
    FILLING = 5
    EXTENDING = 6
    LOOPING = 7
    ENLARGING = 8  # and which step it is

    @classmethod
    def layout(cls, attempt: int) -> tuple[int, ...]:
        """Of z and the noise of a sample, drawn again where the one before was the clip."""
        return (cls.LAYOUT_AGAIN, attempt) if attempt else ()


def frames_per_second(config: TrainConfig, frames: int) -> float:
    """FPS at which a scale of so many frames plays as long as the clip: coarse scales have fewer frames.

    Also that of videos of another length: twice the gaps between frames play twice as long.
    """
    if config.dims == 2:
        return 1.0
    return (config.fps or 24.0) * (frames - 1) / (config.num_frames - 1)


def stretched_ladder(stack: GeneratorStack, size: Sequence[int], scales: int | None = None) -> list[ScaleSize]:
    """The ladder's first scales so that the last of them has this size: the trained ladder, stretched.

    Heights and widths are rounded. Frames are not: T - 1 must divide as the clip's does, so that each scale keeps the
    first and the last one. The trained size gives the trained ladder.

    Args: scales: how many; None: those there are generators for.

    Raises SizeError, one line that names what would do, for other T, and for a size whose coarsest scale has a side
    below what a generator sees around a voxel (or the clip's, if that is below it).
    """
    trained = stack.sizes[: scales or stack.num_scales]
    gaps = [frames - 1 for frames, _, _ in trained]
    # T - 1 is a multiple of it: then T_n - 1 = gaps[n] · (T - 1) / gaps[-1] is whole.
    step = gaps[-1] // math.gcd(*gaps) if gaps[-1] else 0  # of an image 0: it has one frame

    def at(n: int, size: Sequence[int]) -> ScaleSize:
        frames = gaps[n] * (size[0] - 1) // gaps[-1] + 1 if step else 1
        height, width = (round(trained[n][i] * size[i] / trained[-1][i]) for i in (1, 2))
        return ScaleSize(frames, height, width)

    field = 2 * stack.config.generator_convs + 1  # voxels
    smallest = [min(field, side) for side in trained[0]]
    wanted = f"{_written(size)}: "
    lengths = range(1 + step, trained[-1][0] + 1, step) if step else [1]
    frames = next(t for t in lengths if at(0, (t, 1, 1))[0] >= smallest[0])
    height = next(h for h in range(1, trained[-1][1] + 1) if at(0, (1, h, 1))[1] >= smallest[1])
    width = next(w for w in range(1, trained[-1][2] + 1) if at(0, (1, 1, w))[2] >= smallest[2])
    if any(side < low for side, low in zip(size, (frames, height, width), strict=True)):
        least = _written((frames, height, width))
        raise SizeError(f"{wanted}smaller than what the networks see at the coarsest scale; {least} is the least")
    if not step and size[0] != 1:
        raise SizeError(f"{wanted}{size[0]} frames of an image, which has one; give {_written((1, *size[1:]))}")
    if step and (size[0] - 1) % step:
        below = size[0] - (size[0] - 1) % step
        near = min(below, below + step, key=lambda t: abs(t - size[0]))
        cause = f"{size[0]} frames cannot be divided among the scales"
        raise SizeError(f"{wanted}{cause}; give 1 + a multiple of {step}, such as {_written((near, *size[1:]))}")
    return [at(n, size) for n in range(len(trained))]


def _written(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _limit(stack: GeneratorStack, sizes: Sequence[ScaleSize], limit: int) -> int:
    """Voxels that are computed at once: `limit`, or as many as the clip has, which fitted when it was trained."""
    return max(limit, *(math.prod(size) for size in stack.sizes[: len(sizes)]))


def count_convolutions(stack: GeneratorStack, sizes: Sequence[ScaleSize], limit: int = tiling.MAX_VOXELS) -> int:
    """How many convolutions of a volume or of a tile one video takes: what `sample_in_parts` counts for `tick`."""
    convs, limit = stack.config.generator_convs, _limit(stack, sizes, limit)
    return sum(
        convs if math.prod(size) <= limit else tiling.evaluations(stack.generator(n), size, limit)
        for n, size in enumerate(sizes)
    )


def stream_of(seed: int, index: int, *place: int) -> torch.Generator:
    """The random numbers of one video, on the CPU.

    Args: place: a `Draw` and what it counts; each has its own numbers. None: z and the noise of a sample.
    """
    (state,) = np.random.SeedSequence([seed, index], spawn_key=place).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state))


@torch.no_grad()
def sample_in_parts(
    stack: GeneratorStack,
    sizes: Sequence[ScaleSize],
    seed: int,
    index: int,
    *place: int,
    limit: int = tiling.MAX_VOXELS,
    tick: Tick = ignore,
) -> Iterator[Tensor]:
    """Random video `index` of a seed at the last of `sizes`, a run of frames after the other as it is made; eq. 9.

    It has its own noise stream (seed, index), drawn on the CPU, so neither what is asked for beside it nor the kind of
    device changes what is drawn. One run where the video has at most `limit` voxels, or no more than the clip.

    Args:
        sizes: the stack's own ladder or one of `stretched_ladder`, from scale 0 on.
        place: of its random numbers, see `stream_of`.
        tick: called with how many of `count_convolutions` were done since the last call.

    Yields (1, 3, t, H, W) float32 in [-1, 1] on the CPU; the t add up to T.
    """
    limit = _limit(stack, sizes, limit)
    stack = stretched(stack, sizes)
    stream = stream_of(seed, index, *place)
    x = stack.draw(1, stream)
    for n in range(len(sizes)):
        runs = run_level(stack, x, n, stack.noise(n, 1, stream), limit, tick)
        if n < len(sizes) - 1:
            x = torch.cat(list(runs), dim=2)
    if stack.carried != 3:  # what they carry becomes a video as a whole
        runs = iter([stack.to_video(torch.cat(list(runs), dim=2))])
    for run in runs:
        yield run.clamp(-1, 1).cpu()


def stretched(stack: GeneratorStack, sizes: Sequence[ScaleSize]) -> GeneratorStack:
    """The same networks on another ladder."""
    other = copy.copy(stack)
    other.sizes = list(sizes)
    return other


@torch.no_grad()
def run_level(
    stack: GeneratorStack,
    below: Tensor,
    n: int,
    noise: Tensor | None,
    limit: int = tiling.MAX_VOXELS,
    tick: Tick = ignore,
) -> Iterator[Tensor]:
    """`stack.level`, in runs of frames: one on the stack's device, or several on the CPU.

    Args: limit: voxels that are computed at once.
    """
    if math.prod(stack.sizes[n]) <= limit:
        with autocast(stack.device, stack.config.precision):
            x = stack.level(below, n, noise)
        tick(stack.config.generator_convs)
        yield x
        return
    base, entering = stack.inputs(below.cpu(), n, noise)
    start = 0
    runs = tiling.evaluate(stack.generator(n), entering.cpu(), precision=stack.config.precision, limit=limit, tick=tick)
    for residual in runs:
        frames = None if base is None else base[:, :, start : start + residual.shape[2]]
        start += residual.shape[2]
        yield stack.join(frames, residual)


@torch.no_grad()
def reconstruct(stack: GeneratorStack, real_zero: Tensor, *, last: int | None = None) -> Tensor:
    """x̄ of scale `last` (default: the finest trained) from the posterior mean of x⁰, without noise (eq. 6).

    A model without VAE scales has the z* of its first example for it, whatever x⁰ is, unless that is x⁰ (`fixed_code`).

    Args: real_zero: (1, 3, *sizes[0]) float32 in [-1, 1].
    Returns (1, 3, T, H, W) float32 in [-1, 1] on the CPU.
    """
    device = stack.device
    with autocast(device, stack.config.precision):
        x0 = stack.decode(stack.encoder(real_zero.to(device)).mu)
        x = stack.to_video(stack.reconstruct(x0, 0, stack.num_scales - 1 if last is None else last))
    return x.clamp(-1, 1).cpu()

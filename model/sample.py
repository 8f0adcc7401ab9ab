"""Videos from a trained stack and a seed: sample i of a seed is the same whatever number is asked for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from model.networks import GeneratorStack
from model.precision import autocast


def frames_per_second(stack: GeneratorStack, n: int, fps: float = 24.0) -> float:
    """FPS at which the frames of scale n play as long as the clip does: coarse scales have fewer frames."""
    return fps * (stack.sizes[n][0] - 1) / (stack.config.num_frames - 1)


@torch.no_grad()
def sample(stack: GeneratorStack, count: int, seed: int, *, first: int = 0, last: int | None = None) -> Tensor:
    """Random videos `first` … `first + count - 1` of a seed, of scale `last` (default: the finest trained); eq. 9.

    Each is computed by itself from its own noise stream (seed, index), drawn on the CPU, so neither `count`, nor the
    batch, nor the kind of device changes what is drawn.

    Returns (count, 3, T, H, W) float32 in [-1, 1] on the CPU.
    """
    device = stack.device
    videos = []
    for index in range(first, first + count):
        (state,) = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
        stream = torch.Generator().manual_seed(int(state))
        with autocast(device, stack.config.precision):
            x = stack.sample(stack.draw(1, stream), stream, last=last)
        videos.append(x.clamp(-1, 1).cpu())
    return torch.cat(videos)


@torch.no_grad()
def reconstruct(stack: GeneratorStack, real_zero: Tensor, *, last: int | None = None) -> Tensor:
    """x̄ of scale `last` (default: the finest trained) from the posterior mean of x⁰, without noise (eq. 6).

    A model without VAE scales has one z* for it, whatever x⁰ is.

    Args: real_zero: (1, 3, *sizes[0]) float32 in [-1, 1].
    Returns (1, 3, T, H, W) float32 in [-1, 1] on the CPU.
    """
    device = stack.device
    with autocast(device, stack.config.precision):
        x0 = stack.decode(stack.encoder(real_zero.to(device)).mu)
        x = stack.reconstruct(x0, 0, stack.num_scales - 1 if last is None else last)
    return x.clamp(-1, 1).cpu()

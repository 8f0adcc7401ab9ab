"""Convolutions and the two blocks that all networks are made of (paper A.1).

Convolutions keep (T, H, W): 3×3×3 with padding 1, 1×3×3 for images (§4.2), which have one frame, or a single voxel in
two of the ablations (§4.2). Those of SinGAN are not padded (singan.py). Weights are channels_last_3d: that is the
layout in which CPU and GPU kernels multiply bf16, and autocast casts only the convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import LEAK, TrainConfig

Kernel = tuple[int, int, int]  # frames, height, width, each 1 or 3
CUBE: Kernel = (3, 3, 3)
Halo = tuple[int, int, int]  # frames, rows, columns


def halo(convs: int, kernel: Sequence[int]) -> Halo:
    """Frames, rows and columns that `convs` convolutions see on each side of a voxel, and take off if not padded."""
    t, h, w = (convs * (side // 2) for side in kernel)
    return t, h, w


def pad(x: Tensor, around: Halo) -> Tensor:
    """Zeros on each side of frames, rows and columns; negative numbers take these away."""
    t, h, w = around
    return F.pad(x, (w, w, h, h, t, t))


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, padded: bool = True, leak: float | None = None
) -> Tensor:
    """The convolution of `conv`: x (B, in, T, H, W), weight (out, in, *Kernel) → (B, out, T, H, W).

    Not padded, every side of its output is smaller by what the kernel has beyond one. `leak`: slope of a LeakyReLU
    of it, in place, as nothing else needs what the convolution gave; None: there is none.

    From or to RGB, and where `_slow_in_3d`, the three taps in time become channels of the convolution of an image:
    kernels multiply blocks of 16 channels whatever there are, so on 3 channels 3×3×3 taps take 2.7 times as long.
    """
    out_channels, in_channels, *kernel = weight.shape
    frame, around = int(padded and kernel[0] == 3), int(padded and kernel[1] == 3)
    if kernel[0] == 1:
        return _each_frame(x, weight.squeeze(2), bias, around, leak)
    if in_channels <= 3 or (out_channels > 3 and _slow_in_3d(x)):
        wide = F.pad(x, (0, 0, 0, 0, frame, frame))
        frames = torch.cat([wide[:, :, :-2], wide[:, :, 1:-1], wide[:, :, 2:]], dim=1)  # t−1, t, t+1: (B, 3·in, …)
        return _each_frame(frames, weight.transpose(1, 2).flatten(1, 2), bias, around, leak)
    if out_channels > 3:
        y = F.conv3d(x, weight, bias, padding=(frame, around, around))
    else:
        taps = weight.movedim(2, 0).flatten(0, 1)  # (3·out, in, 3, 3)
        before, now, after = widened(_each_frame(x, taps, None, around)).chunk(3, dim=1)  # (B, out, …) each
        if padded:
            y = now + F.pad(before[:, :, :-1], (0, 0, 0, 0, 1, 0)) + F.pad(after[:, :, 1:], (0, 0, 0, 0, 0, 1))
        else:
            y = now[:, :, 1:-1] + before[:, :, :-2] + after[:, :, 2:]
        y = y if bias is None else y + bias.view(1, -1, 1, 1, 1)
    return y if leak is None else F.leaky_relu_(y, leak)


def _each_frame(x: Tensor, weight: Tensor, bias: Tensor | None, around: int, leak: float | None = None) -> Tensor:
    """Every frame's 2D convolution: x (B, in, T, H, W), weight (out, in, k, k) → (B, out, T, H, W).

    The weight is channels_last, from which the output takes its layout where x, of RGB or one channel, has none.
    LeakyReLU comes before the frames' dimension is back: autograd copies, three times in its backward, what is changed
    through a view.
    """
    weight = weight.contiguous(memory_format=torch.channels_last)
    image = x.shape[2] == 1  # squeezed, as flatten and unflatten would leave strides that no layout has
    y = F.conv2d(x.squeeze(2) if image else x.movedim(2, 1).flatten(0, 1), weight, bias, padding=around)
    y = y if leak is None else F.leaky_relu_(y, leak)
    return y.unsqueeze(2) if image else y.unflatten(0, (x.shape[0], -1)).movedim(1, 2)


def _slow_in_3d(x: Tensor) -> bool:
    """Whether torch convolves this volume by its slow kernel: float32 on a CPU, one sample, small.

    That kernel is 2 to 4 times slower than to copy every frame's neighbours beside it. torch takes it where
    C·T·H ≤ 20480 (use_mkldnn in aten/src/ATen/native/Convolution.cpp). In float64, which tests use, it has no other.
    """
    in_bf16 = x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and not in_bf16 and x.shape[0] == 1 and x[0, ..., 0].numel() <= 20480


def widened(x: Tensor) -> Tensor:
    """x in float32, or in its own type if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def conv(in_channels: int, out_channels: int, kernel: Kernel = CUBE, *, bias: bool = True) -> nn.Conv3d:
    """The weights of a convolution, PyTorch's default initialisation (as the authors' code)."""
    made = nn.Conv3d(in_channels, out_channels, kernel, bias=bias)
    made.weight = nn.Parameter(made.weight.detach().contiguous(memory_format=torch.channels_last_3d))
    return made


class NormBlock(nn.Module):
    """Convolution, normalisation over (T, H, W) of each sample with an affine, LeakyReLU (A.1).

    Equivalent to the paper's batch norm, which it trains and samples at batch size 1 with batch statistics; written per
    sample so that a sample never depends on what else is in its batch. No running statistics, and no convolution bias:
    the normalisation would subtract it again.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Kernel = CUBE, *, padded: bool = True, leak: float = LEAK
    ) -> None:
        super().__init__()
        self.padded, self.leak = padded, leak
        self.conv = conv(in_channels, out_channels, kernel, bias=False)
        self.weight = nn.Parameter(torch.ones(out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, T, H, W) → (B, out, T, H, W), each sample normalised by its own statistics."""
        return normalised(self.convolved(x), self.weight, self.bias, self.leak)

    def convolved(self, x: Tensor) -> Tensor:
        """What is normalised: (B, in, T, H, W) → (B, out, T, H, W)."""
        return convolve(x, self.conv.weight, padded=self.padded)

    def with_statistics(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """The block with the mean and the (biased) variance, (out,) float32, of a volume that x is a part of."""
        y = F.batch_norm(self.convolved(x), mean, var, self.weight, self.bias, training=False)
        return F.leaky_relu_(y, self.leak)


def normalised(y: Tensor, weight: Tensor, bias: Tensor, leak: float) -> Tensor:
    """LeakyReLU of y (B, C, T, H, W), each sample normalised by its own statistics, with the affine (C,)."""
    if torch.compiler.is_exporting():  # of any number of samples: all their channels as those of one
        batch, channels = y.shape[:2]
        one = y.flatten(0, 1)[None].contiguous(memory_format=torch.channels_last_3d)
        made = F.batch_norm(one, None, None, weight.repeat(batch), bias.repeat(batch), training=True)
        return F.leaky_relu(made.unflatten(1, (batch, channels))[0], leak)
    # batch_norm on one sample at a time: its kernels keep bf16 and channels_last_3d, with float32 statistics;
    # group_norm and instance_norm copy or convert (3 to 10 times slower backward on a CPU).
    rows = [F.batch_norm(row, None, None, weight, bias, training=True) for row in y.split(1)]
    return F.leaky_relu_(rows[0] if len(rows) == 1 else torch.cat(rows), leak)


class PlainBlock(nn.Module):
    """Convolution and LeakyReLU without normalisation: ConSinGAN's own (`generator_norm`)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Kernel = CUBE, *, padded: bool = True, leak: float = LEAK
    ) -> None:
        super().__init__()
        self.padded, self.leak = padded, leak
        self.conv = conv(in_channels, out_channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, T, H, W) → (B, out, T, H, W)."""
        return F.leaky_relu(self.convolved(x), self.leak)

    def convolved(self, x: Tensor) -> Tensor:
        """What LeakyReLU is given: (B, in, T, H, W) → (B, out, T, H, W)."""
        return convolve(x, self.conv.weight, self.conv.bias, padded=self.padded)

    def with_statistics(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """The same as `forward`, whatever the statistics are."""
        return self.forward(x)


Block = NormBlock | PlainBlock


def block_kind(config: TrainConfig) -> Callable[..., Block]:
    """Makes the blocks of generators: `NormBlock` or `PlainBlock`, with the slope of the config."""
    return partial(NormBlock if config.generator_norm else PlainBlock, leak=config.leak)


class SpectralConv(nn.Module):
    """A convolution whose weight is divided by its largest singular value (spectral normalisation, Miyato 2018).

    `refine`, one step of power iteration on the singular vectors u and v, is called once a training iteration, where
    the authors' code does it once a call (four times for D), from a random start.
    """

    u: Tensor
    v: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: Kernel = CUBE) -> None:
        super().__init__()
        plain = conv(in_channels, out_channels, kernel)
        self.weight, self.bias = plain.weight, cast(nn.Parameter, plain.bias)
        self.register_buffer("u", F.normalize(torch.randn(out_channels), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(in_channels * math.prod(kernel)), dim=0))
        for _ in range(15):  # as torch.nn.utils.parametrizations.spectral_norm: start near the leading vectors
            self.refine()

    @torch.no_grad()
    def refine(self) -> None:
        """One step of power iteration: u and v come nearer to the leading singular vectors."""
        matrix = self.weight.flatten(1)
        self.v.copy_(F.normalize(matrix.T @ self.u, dim=0))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0))

    def normalized(self) -> Tensor:
        """The weight divided by u·W·v, in float32 whatever the autocast; differentiable in the weight."""
        with torch.autocast(self.weight.device.type, enabled=False):
            # clones: a later refinement must not change what this graph's backward reads
            u, v = self.u.clone(), self.v.clone()
            return self.weight / torch.dot(u, self.weight.flatten(1) @ v)


def refine_spectral(network: nn.Module) -> None:
    """One step of power iteration in every SpectralConv of a network."""
    for module in network.modules():
        if isinstance(module, SpectralConv):
            module.refine()

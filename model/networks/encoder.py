"""The patch encoder E with its heads M and S, and the posterior q(z|x) that it gives (paper §3.1, A.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from model.config import TrainConfig
from model.networks.blocks import SpectralConv, conv, convolve


@dataclass(frozen=True)
class Posterior:
    """q(z|x): mean and logarithm of the variance, (B, latent, T, H, W) float32 each."""

    mu: Tensor
    logvar: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """z = μ + ε·σ, the reparameterisation of §3.1."""
        eps = torch.randn(self.mu.shape, generator=generator, device=self.mu.device)
        return self.mu + eps * torch.exp(0.5 * self.logvar)

    def split(self) -> list[Posterior]:
        """One of each sample of the batch."""
        return [Posterior(mu, logvar) for mu, logvar in zip(self.mu.split(1), self.logvar.split(1))]


class Encoder(nn.Module):
    """E with M and S: spectral-norm convolutions with LeakyReLU, then one convolution each for mean and variance (A.1).

    Five convolutions in the paper, three in the authors' code.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.leak, self.kernel = config.leak, config.kernel(config.encoder_kernel)
        widths = [3] + [config.channels] * config.encoder_convs
        self.blocks = nn.ModuleList(SpectralConv(a, b, self.kernel) for a, b in pairwise(widths))
        self.mu = conv(config.channels, config.latent_dim, self.kernel)
        self.logvar = conv(config.channels, config.latent_dim, self.kernel)

    def features(self, x: Tensor) -> Tensor:
        """What M and S see, (B, channels, T, H, W)."""
        for block in cast("list[SpectralConv]", self.blocks):
            x = convolve(x, block.normalized(), block.bias, leak=self.leak)
        return x

    def forward(self, x: Tensor) -> Posterior:
        """q(z|x) of x⁰: (B, 3, T, H, W) → maps of (B, latent, T, H, W)."""
        features = self.features(x)
        mu, logvar = (convolve(features, head.weight, head.bias).float() for head in (self.mu, self.logvar))
        return Posterior(mu, logvar)


class FixedCode(nn.Module):
    """In place of the encoder where there is no VAE scale: whatever it is given, the posterior is a fixed z*.

    The text speaks of "patch-GAN for all levels" (§1) without saying what scale 0 is then; the authors' code has none.
    Here it is what SinGAN does: at scale 0 too a critic judges G⁰(z) of random z ~ N(0, I), and the clip is
    reconstructed from z*, drawn once. All else stays that of hp-VAE-GAN. Its checkpoint holds z*.
    Of several examples this is the first one's z*. `of_examples` gives each of the others its own.
    """

    z: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("z", torch.randn(tuple(shape)))

    def forward(self, x: Tensor) -> Posterior:
        """q(z|x) of the first example, (B, latent, T, H, W)."""
        return without_width(self.z.expand(len(x), *self.z.shape[1:]))

    def of_examples(self, numbers: Sequence[int], seed: int) -> Posterior:
        """q(z|x) of examples by their numbers in the training set, (B, latent, T, H, W).

        The z* of the first one, number 0, is in the checkpoint. Those of the others follow from seed and number.
        """
        return without_width(torch.cat([self._z_of(number, seed) if number else self.z for number in numbers]))

    def _z_of(self, number: int, seed: int) -> Tensor:
        (state,) = np.random.SeedSequence(seed, spawn_key=(number,)).generate_state(1, np.uint64)
        rng = torch.Generator().manual_seed(int(state) >> 1)  # of the CPU, so that it is the same on every device
        return torch.randn(self.z.shape, generator=rng).to(self.z)


class ClipCode(nn.Module):
    """As `FixedCode`, of ConSinGAN's own: what stands for z* is the clip itself at scale 0, which has z's channels."""

    def forward(self, x: Tensor) -> Posterior:
        """q(z|x) of x⁰: (B, 3, T, H, W) → maps of (B, 3, T, H, W)."""
        return without_width(x)


def without_width(z: Tensor) -> Posterior:
    """A Gaussian whose mean and every sample are z."""
    return Posterior(z, torch.full_like(z, -math.inf))

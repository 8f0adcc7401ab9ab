"""SinGAN and ConSinGAN, for images and, with 3D convolutions, for videos: the rivals of the paper's Fig. 5.

As re-implemented by the authors of hp-VAE-GAN (train_video_baselines.py and modules/networks_3d.py at f372e84), from
SinGAN (Shaham et al. 2019) and ConSinGAN (Hinz et al. 2021). Both are patch-GANs at all scales: the clip is
reconstructed from one z* drawn at the coarsest scale, of three channels, and a critic judges random samples. The loop,
the losses, the critic and the checkpoint are those of `GeneratorStack`.

Convolutions are not padded. What enters a generator is larger by what they take off: zeros around a reconstruction; a
random sample is enlarged to that size, and noise covers all of it. So the border is no place that a generator knows.
Where the two papers or their codes differ from that re-implementation, there are settings: model/README.md, "Rivals".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from model.config import TrainConfig
from model.interpolation import interpolated
from model.networks.blocks import Block, Halo, NormBlock, block_kind, conv, convolve, halo, pad
from model.networks.generators import Generator, GeneratorStack
from model.pyramid import ScaleSize

WEIGHT_STD = 0.02  # of convolutions, around 0, and of the scales of normalisations, around 1: both published codes


class SinganStack(GeneratorStack):
    """A generator a scale, each with a residual: x̄ⁿ = tanh(↑x̄ⁿ⁻¹ + Gⁿ(enlarged x̄ⁿ⁻¹ + z_n)).

    Of one channel (`latent_dim`), z is the same in R, G and B.
    """

    first_grown = 1  # all have RGB at both ends

    def _new_generator(self, n: int) -> Generator:
        config = self.config
        kernel, block = config.generator_kernel(n), block_kind(config)
        made = Generator(3, config.width(n), config.generator_convs, kernel, padded=False, block=block)
        return made.apply(initialise)

    @property
    def margin(self) -> Halo:
        """Frames, rows and columns on each side that the convolutions of a generator take off."""
        return halo(self.generator(0).convs, self.config.kernel(3))

    def noise_shape(self, n: int) -> tuple[int, ...]:
        """See `GeneratorStack`: z_n covers all that enters Gⁿ, but for zeros around it."""
        return (self.carried, *(self.sizes[n] if self._zeros else self._enlarged(n)))

    def inputs(self, below: Tensor, n: int, noise: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """See `GeneratorStack`: reconstructions with zeros around them, random samples enlarged, with noise."""
        if n == 0:
            return None, pad(below.expand(-1, 3, -1, -1, -1), self.margin)
        up = self.upsample(below, n)
        if noise is None:
            return up, pad(up, self.margin)
        rest = up.shape[0] - noise.shape[0]
        if self._zeros:
            return up, pad(torch.cat([up[:rest], up[rest:] + noise.to(up.device)]), self.margin)
        random = interpolated(below[rest:], self._enlarged(n), self.config.enlarging)
        random = random + noise.to(up.device)
        return up, torch.cat([pad(up[:rest], self.margin), random]) if rest else random

    @property
    def _zeros(self) -> bool:
        return self.config.random_border == "zeros"

    def _enlarged(self, n: int) -> tuple[int, int, int]:
        t, h, w = (side + 2 * around for side, around in zip(self.sizes[n], self.margin, strict=True))
        return t, h, w


class ConsinganStack(SinganStack):
    """One generator that grows by a stage a scale; features, not RGB, go from stage to stage.

    A convolution from z before the first stage, and one to RGB with a tanh after the last.
    """

    def __init__(self, config: TrainConfig, sizes: Sequence[ScaleSize]) -> None:
        super().__init__(config, sizes)
        kernel = config.kernel(3)
        self.head = block_kind(config)(3, config.channels, kernel).apply(initialise)
        self.tail = conv(config.channels, 3, kernel).apply(initialise)

    def _new_generator(self, n: int) -> Generator:
        config = self.config
        kernel, block = config.kernel(3), block_kind(config)
        return Stage(config.channels, config.generator_convs - 2, kernel, block).apply(initialise)

    @property
    def carried(self) -> int:
        """See `GeneratorStack`."""
        return self.config.channels

    def inputs(self, below: Tensor, n: int, noise: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """See `SinganStack`."""
        if n == 0:
            return None, pad(self.head(below.to(self.device)), self.margin)
        return super().inputs(below, n, noise)

    def join(self, base: Tensor | None, residual: Tensor) -> Tensor:
        """Features of scale n from those below, enlarged, and what the stage gives."""
        return residual if base is None else base + residual

    def to_video(self, x: Tensor) -> Tensor:
        """(B, channels, T, H, W) → (B, 3, T, H, W) in [-1, 1]."""
        return torch.tanh(convolve(x.to(self.device), self.tail.weight, self.tail.bias).float())

    def trained(self, n: int) -> list[tuple[nn.Module, float]]:
        """See `GeneratorStack`: the last `train_depth` stages, the head with the first one, and the tail."""
        decay = self.config.unfrozen_lr_decay or self.config.vae_lr_decay
        ends: list[tuple[nn.Module, float]] = [(self.tail, 1.0)]
        if self.first_trained(n) == 0:
            ends.insert(0, (self.head, decay**n))
        return [*super().trained(n), *ends]


class Stage(Generator):
    """A generator of ConSinGAN: features to features, all of its convolutions in blocks with LeakyReLU."""

    def __init__(
        self, channels: int, convs: int, kernel: tuple[int, int, int], block: Callable[..., Block] = NormBlock
    ) -> None:
        super().__init__(channels, channels, convs + 1, kernel, padded=False, block=block)
        del self.tail

    @property
    def convs(self) -> int:
        """See `Generator`."""
        return len(self.blocks)

    def rgb(self, features: Tensor) -> Tensor:
        """The features, in float32: there is no last convolution to RGB."""
        return features.float()


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """The weights of a new network, as both published codes draw them; biases of convolutions stay PyTorch's."""
    if isinstance(module, nn.Conv3d):
        module.weight.normal_(0.0, WEIGHT_STD)
    elif isinstance(module, NormBlock):
        cast(Tensor, module.weight).normal_(1.0, WEIGHT_STD)

"""The networks: residual generators G⁰ … Gᴺ, and the stack of E and all generators (paper §3, A.1).

Legend, used everywhere in model/:
    B batch, C channels, T frames, H height, W width
    video    float32 RGB in [-1, 1], (B, 3, T, H, W)
    n        scale index, 0 coarsest … N finest
    E, M, S  encoder with its two heads; S gives log σ² (the paper writes σ; the logarithm keeps it positive)
    x        real clip at a scale; x̄ reconstruction; x̃ random sample
Convolutions keep (T, H, W), see blocks.py. The image path x̄ⁿ stays float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from model.config import TrainConfig
from model.interpolation import interpolated
from model.networks.blocks import CUBE, Block, Kernel, NormBlock, block_kind, conv, convolve
from model.networks.critic import checkpointed
from model.networks.encoder import ClipCode, Encoder, FixedCode
from model.networks.patchvae import PatchEncoder, occupied_normal
from model.pyramid import ScaleSize

Cut = Callable[[Tensor], Tensor]


class Generator(nn.Module):
    """Gⁿ: `convs` convolutions, all but the last with normalisation and LeakyReLU. (B, in, T, H, W) → (B, 3, T, H, W).

    The tanh is not here: where it goes depends on the residual sum, see `GeneratorStack.join`.
    Differs from the authors' code by the number of convolutions only: 5 in the paper, 7 in theirs.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        convs: int,
        kernel: Kernel = CUBE,
        *,
        padded: bool = True,
        block: Callable[..., Block] = NormBlock,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [channels] * (convs - 1)
        self.kernel, self.padded = kernel, padded
        self.blocks = nn.Sequential(*(block(a, b, kernel, padded=padded) for a, b in pairwise(widths)))
        self.tail = conv(channels, 3, kernel)

    @property
    def convs(self) -> int:
        """How many convolutions it has."""
        return len(self.blocks) + 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, T, H, W) → (B, 3, T, H, W) float32, without the tanh."""
        return self.rgb(self.blocks(x))

    def block(self, i: int) -> Block:
        """Convolution i with its normalisation, from 0."""
        return cast(Block, self.blocks[i])

    def rgb(self, features: Tensor) -> Tensor:
        """The last convolution: (B, channels, T, H, W) → (B, 3, T, H, W) float32."""
        return convolve(features, self.tail.weight, self.tail.bias, padded=self.padded).float()


class GeneratorStack(nn.Module):
    """E and G⁰ … Gⁿ with the recursions of eq. 6 and 9; grows by one generator a scale.

    sizes: (T, H, W) of every scale of the ladder. noise_amps: amplitude of z_n, 0 at the VAE scales.

    >>> stack = GeneratorStack(config, sizes)
    >>> while stack.num_scales < len(sizes): stack.grow()
    >>> x_rand = stack.sample(stack.draw(1, rng), rng)  # eq. 9, (1, 3, *sizes[-1])
    """

    first_grown = 2  # the first generator that begins as the one below it

    def __init__(self, config: TrainConfig, sizes: Sequence[ScaleSize]) -> None:
        super().__init__()
        self.config = config
        self.sizes = [ScaleSize(*size) for size in sizes]
        self.encoder: Encoder | FixedCode | ClipCode
        if config.vae_levels == 0:
            self.encoder = FixedCode(self.latent_shape(1)) if config.fixed_code == "noise" else ClipCode()
        else:
            self.encoder = (PatchEncoder if config.latent == "patchvae" else Encoder)(config)
        self.generators = nn.ModuleList([self._new_generator(0)])
        self.noise_amps = [0.0]

    @property
    def num_scales(self) -> int:
        """Scales there are generators for so far."""
        return len(self.generators)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.parameters()).device

    def grow(self) -> None:
        """Append the next generator, initialised from the previous one (§3.2).

        G¹ starts fresh, as in the authors' code: its input is RGB where that of G⁰ is z, and it adds a residual.
        So does one with another kernel, the first GAN scale's above patch-VAE generators with r = 1 (§4.2), or with
        another number of channels.
        """
        n, config = self.num_scales, self.config
        grown = self._new_generator(n)
        same = config.generator_kernel(n) == config.generator_kernel(n - 1) and config.width(n) == config.width(n - 1)
        if n >= self.first_grown and same:
            grown.load_state_dict(self.generators[-1].state_dict())
        self.generators.append(grown.to(self.device))
        self.noise_amps.append(0.0)

    def _new_generator(self, n: int) -> Generator:
        config, inputs = self.config, self.config.latent_dim if n == 0 else 3
        kernel, block = config.generator_kernel(n), block_kind(config)
        return Generator(inputs, config.width(n), config.generator_convs, kernel, block=block)

    def latent_shape(self, batch: int) -> tuple[int, ...]:
        """(B, latent, T, H, W) of z at the ladder's scale 0."""
        return (batch, self.config.latent_dim, *self.sizes[0])

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """z' of eq. 9 from the prior, (B, latent, T, H, W): N(0, I), or that of PatchVAE. On the generator's device."""
        shape = self.latent_shape(batch)
        if self.config.latent == "patchvae":
            return occupied_normal(shape, generator)
        return torch.randn(shape, generator=generator, device=generator.device)

    def decode(self, z: Tensor) -> Tensor:
        """x̄⁰ of z, (B, latent, T, H, W): what `level` carries on, (B, 3, T, H, W)."""
        return self.level(z, 0)

    def upsample(self, x: Tensor, n: int) -> Tensor:
        """↑x to the size of scale n, by `enlarging`: trilinear in the paper (§3.2)."""
        return interpolated(x, self.sizes[n], self.config.enlarging)

    def level(self, below: Tensor, n: int, noise: Tensor | None = None, cut: Cut | None = None) -> Tensor:
        """x̄ⁿ from what is below it: z at scale 0, x̄ⁿ⁻¹ at the others. On the device of the networks.

        Args:
            noise: z_n of the last rows of the batch, the random samples; those before it are reconstructions.
            cut: (…, H, W) → the part of every frame that is computed; None: all of it.
        """
        base, entering = self.inputs(below.to(self.device), n, noise)
        if cut is not None:
            base, entering = None if base is None else cut(base), cut(entering)
        generator = self.generator(n)
        return self.join(base, checkpointed(generator, entering) if self.config.low_memory else generator(entering))

    def inputs(self, below: Tensor, n: int, noise: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """Of `level`: ↑x̄ⁿ⁻¹, None at scale 0, and what Gⁿ is given. On the device of `below`.

        Noise enters the generator only, never the sum (eq. 9).
        """
        if n == 0:
            return None, below
        up = self.upsample(below, n)
        if noise is None:
            return up, up
        noise = noise.to(up.device)
        rest = up.shape[0] - noise.shape[0]
        return up, torch.cat([up[:rest], up[rest:] + noise]) if rest else up + noise

    def join(self, base: Tensor | None, residual: Tensor) -> Tensor:
        """x̄ⁿ from ↑x̄ⁿ⁻¹ and what Gⁿ gives, eq. 6, where the tanh belongs (`tanh_after_sum`)."""
        if base is None:
            return torch.tanh(residual)
        return torch.tanh(base + residual) if self.config.tanh_after_sum else base + torch.tanh(residual)

    def to_video(self, x: Tensor) -> Tensor:
        """The video that `level` gave: (B, 3, T, H, W)."""
        return x

    @property
    def carried(self) -> int:
        """Channels of what goes from a scale to the next."""
        return 3

    def generator(self, n: int) -> Generator:
        """Gⁿ."""
        return cast(Generator, self.generators[n])

    def reconstruct(self, x0: Tensor, first: int, last: int) -> Tensor:
        """x̄ of scale `last` from x̄ of scale `first`, without noise. x0: (B, 3, *sizes[first])."""
        for n in range(first + 1, last + 1):
            x0 = self.level(x0, n)
        return x0

    def first_trained(self, n: int) -> int:
        """The lowest level that learns at GAN scale n."""
        return max(n - self.config.train_depth + 1, self.config.vae_levels) if self.config.freeze else 0

    def trained(self, n: int) -> list[tuple[nn.Module, float]]:
        """The networks that learn at scale n, each with its learning rate over config.lr (§3.2)."""
        config, decay = self.config, self.config.vae_lr_decay
        learning = {0, n} if n < config.vae_levels else set(range(self.first_trained(n), n + 1))
        if not config.freeze:
            learning = set(range(n + 1))
        if n >= config.vae_levels or not config.freeze:
            decay = config.unfrozen_lr_decay or decay
        networks: list[tuple[nn.Module, float]] = []
        for k in sorted(learning):
            if k == 0 and config.vae_levels > 0:
                networks.append((self.encoder, decay**n))  # E learns where G⁰ does
            networks.append((self.generators[k], decay ** (n - k)))
        return networks

    def has_noise(self, n: int) -> bool:
        """Whether scale n adds z_n: not scale 0, and not the VAE scales unless `vae_noise`."""
        return n >= 1 and (n >= self.config.vae_levels or self.config.vae_noise)

    def noise(self, n: int, batch: int, generator: torch.Generator) -> Tensor | None:
        """z_n of eq. 9 times its amplitude, (B, *noise_shape(n)), on the generator's device; None if it has none."""
        if not self.has_noise(n):
            return None
        z_n = torch.randn((batch, *self.noise_shape(n)), generator=generator, device=generator.device)
        return z_n.mul_(self.noise_amps[n])

    def noise_shape(self, n: int) -> tuple[int, ...]:
        """Channels, frames, height and width of z_n: those of what it is added to."""
        return (self.carried, *self.sizes[n])

    def sample(self, z: Tensor, generator: torch.Generator, *, last: int | None = None) -> Tensor:
        """x̃ of scale `last` (default: the finest there is), eq. 9. z: (B, latent, T, H, W) from the prior."""
        x = z
        for n in range((self.num_scales - 1 if last is None else last) + 1):
            x = self.level(x, n, self.noise(n, len(z), generator))
        return self.to_video(x)

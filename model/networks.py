"""The networks: patch encoder E, residual generators G⁰ … Gᴺ, patch critic D (paper §3, A.1).

Legend, used everywhere in model/:
    B batch, C channels, T frames, H height, W width
    video    float32 RGB in [-1, 1], (B, 3, T, H, W)
    n        scale index, 0 coarsest … N finest
    E, M, S  encoder with its two heads; S gives log σ² (the paper writes σ; the logarithm keeps it positive)
    x        real clip at a scale; x̄ reconstruction; x̃ random sample
Convolutions are 3×3×3 with padding 1 and keep (T, H, W). Weights are channels_last_3d: that is the layout in which
CPU and GPU kernels multiply bf16, and autocast casts only the convolutions. The image path x̄ⁿ stays float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.config import TrainConfig

Size = tuple[int, int, int]  # (T, H, W)
LEAK = 0.2  # negative slope of every LeakyReLU (A.1)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The convolution of `conv3`: x (B, in, T, H, W), weight (out, in, 3, 3, 3) → (B, out, T, H, W).

    From or to RGB the three taps in time become channels of a 1×3×3 convolution: kernels multiply blocks of 16 channels
    whatever there are, so on 3 channels 3×3×3 taps take 2.7 times as long.
    """
    out_channels, in_channels = weight.shape[:2]
    if in_channels <= 3:
        padded = F.pad(x, (0, 0, 0, 0, 1, 1))
        frames = torch.cat([padded[:, :, :-2], x, padded[:, :, 2:]], dim=1)  # (B, 3·in, T, H, W): t−1, t, t+1
        return F.conv3d(frames, weight.transpose(1, 2).reshape(out_channels, -1, 1, 3, 3), bias, padding=(0, 1, 1))
    if out_channels <= 3:
        taps = weight.movedim(2, 0).reshape(-1, in_channels, 1, 3, 3)
        before, now, after = _widened(F.conv3d(x, taps, padding=(0, 1, 1))).chunk(3, dim=1)  # (B, out, T, H, W) each
        y = now + F.pad(before[:, :, :-1], (0, 0, 0, 0, 1, 0)) + F.pad(after[:, :, 1:], (0, 0, 0, 0, 0, 1))
        return y if bias is None else y + bias.view(1, -1, 1, 1, 1)
    return F.conv3d(x, weight, bias, padding=1)


def conv3(in_channels: int, out_channels: int, *, bias: bool = True) -> nn.Conv3d:
    """A 3×3×3 convolution, padding 1, PyTorch's default initialisation (as the authors' code)."""
    conv = nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=bias)
    conv.weight = nn.Parameter(conv.weight.detach().contiguous(memory_format=torch.channels_last_3d))
    return conv


class NormBlock(nn.Module):
    """Convolution, normalisation over (T, H, W) of each sample with an affine, LeakyReLU (A.1).

    Equivalent to the paper's batch norm, which it trains and samples at batch size 1 with batch statistics; written per
    sample so that a sample never depends on what else is in its batch. No running statistics, and no convolution bias:
    the normalisation would subtract it again.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv3(in_channels, out_channels, bias=False)
        self.weight = nn.Parameter(torch.ones(out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = convolve(x, self.conv.weight)
        # batch_norm on one sample at a time: its kernels keep bf16 and channels_last_3d, with float32 statistics;
        # group_norm and instance_norm copy or convert (3 to 10 times slower backward on a CPU).
        rows = [F.batch_norm(row, None, None, self.weight, self.bias, training=True) for row in y.split(1)]
        return F.leaky_relu_(rows[0] if len(rows) == 1 else torch.cat(rows), LEAK)


class SpectralConv(nn.Module):
    """A 3×3×3 convolution whose weight is divided by its largest singular value (spectral normalisation, Miyato 2018).

    One step of power iteration refines the singular vectors u and v whenever `normalized` is called with
    `refine=True`: once a training iteration, where the authors' code does it once a call.
    """

    u: Tensor
    v: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        conv = conv3(in_channels, out_channels)
        self.weight, self.bias = conv.weight, cast(nn.Parameter, conv.bias)
        self.register_buffer("u", F.normalize(torch.randn(out_channels), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(in_channels * 27), dim=0))
        for _ in range(15):  # as torch.nn.utils.parametrizations.spectral_norm: start near the leading vectors
            self._refine()

    @torch.no_grad()
    def _refine(self) -> None:
        matrix = self.weight.flatten(1)
        self.v.copy_(F.normalize(matrix.T @ self.u, dim=0))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0))

    def normalized(self, *, refine: bool) -> Tensor:
        """The weight divided by u·W·v, in float32 whatever the autocast; differentiable in the weight."""
        with torch.autocast(self.weight.device.type, enabled=False):
            if refine:
                self._refine()
            # clones: a later refinement must not change what this graph's backward reads
            u, v = self.u.clone(), self.v.clone()
            return self.weight / torch.dot(u, self.weight.flatten(1) @ v)


class Generator(nn.Module):
    """Gⁿ: `convs` convolutions, all but the last with normalisation and LeakyReLU. (B, in, T, H, W) → (B, 3, T, H, W).

    The tanh is not here: where it goes depends on the residual sum, see `GeneratorStack.refine`.
    Differs from the authors' code by the number of convolutions only: 5 in the paper, 7 in theirs.
    """

    def __init__(self, in_channels: int, channels: int, convs: int) -> None:
        super().__init__()
        widths = [in_channels] + [channels] * (convs - 1)
        self.blocks = nn.Sequential(*(NormBlock(a, b) for a, b in pairwise(widths)))
        self.tail = conv3(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self.blocks(x), self.tail.weight, self.tail.bias).float()


@dataclass(frozen=True)
class Posterior:
    """q(z|x): mean and logarithm of the variance, (B, latent, T, H, W) float32 each."""

    mu: Tensor
    logvar: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """z = μ + ε·σ, the reparameterisation of §3.1."""
        eps = torch.randn(self.mu.shape, generator=generator, device=self.mu.device)
        return self.mu + eps * torch.exp(0.5 * self.logvar)


class Encoder(nn.Module):
    """E with M and S: spectral-norm convolutions with LeakyReLU, then one convolution each for mean and variance (A.1).

    Five convolutions in the paper, three in the authors' code.
    """

    def __init__(self, channels: int, latent_dim: int, convs: int) -> None:
        super().__init__()
        widths = [3] + [channels] * convs
        self.blocks = nn.ModuleList(SpectralConv(a, b) for a, b in pairwise(widths))
        self.mu = conv3(channels, latent_dim)
        self.logvar = conv3(channels, latent_dim)

    def forward(self, x: Tensor, *, refine: bool = False) -> Posterior:
        for block in cast("list[SpectralConv]", self.blocks):
            x = F.leaky_relu_(convolve(x, block.normalized(refine=refine), block.bias), LEAK)
        return Posterior(self.mu(x).float(), self.logvar(x).float())


class Critic(nn.Module):
    """Dⁿ: spectral-norm convolutions with LeakyReLU, last one without activation, one number a position (A.1).

    Use it through `fixed`, which normalises the weights once for all the calls of a step.
    The authors' code leaves spectral norm off the last convolution (`last_spectral=False`).
    """

    def __init__(self, channels: int, convs: int, *, last_spectral: bool) -> None:
        super().__init__()
        widths = [3] + [channels] * (convs - 1)
        self.blocks = nn.ModuleList(SpectralConv(a, b) for a, b in pairwise(widths))
        self.tail: SpectralConv | nn.Conv3d = SpectralConv(channels, 1) if last_spectral else conv3(channels, 1)

    def fixed(self, *, refine: bool = False, trainable: bool = True) -> FixedCritic:
        """The critic with its weights normalised now.

        refine: one step of power iteration first. trainable=False: no gradient reaches the weights, only the input.
        """
        layers = [
            (
                block.normalized(refine=refine) if isinstance(block, SpectralConv) else block.weight,
                cast(Tensor, block.bias),
            )
            for block in cast("list[SpectralConv | nn.Conv3d]", [*self.blocks, self.tail])
        ]
        return FixedCritic(layers if trainable else [(weight.detach(), bias.detach()) for weight, bias in layers])


class FixedCritic:
    """A critic for the calls of one step: a function (B, 3, T, H, W) → (B, 1, T, H, W) float32."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._layers = layers  # (weight, bias) of every convolution

    def __call__(self, x: Tensor) -> Tensor:
        weight, bias = self._layers[-1]
        return convolve(self._activations(x)[-1], weight, bias).float()

    def _activations(self, x: Tensor) -> list[Tensor]:
        """What each convolution but the last gives, after its LeakyReLU."""
        activations = []
        for weight, bias in self._layers[:-1]:
            x = F.leaky_relu_(convolve(x, weight, bias), LEAK)
            activations.append(x)
        return activations

    def input_gradient(self, x: Tensor) -> Tensor:
        """∇ₓ of the sum of D's map, (B, 3, T, H, W), float32 or better; differentiable in the weights, not in x.

        Written out, because torch's double backward goes on through D(x) with zeros and takes a slow kernel for the
        weights: the gradient of a convolution is the convolution with the mirrored, transposed weight, and LeakyReLU's
        slopes are constants (almost everywhere).
        """
        with torch.no_grad():
            activations = self._activations(x)
        gradient = torch.ones_like(activations[-1][:, :1])
        for (weight, _), y in zip(reversed(self._layers[1:]), reversed(activations), strict=True):
            gradient = convolve(gradient, _mirrored(weight))
            gradient = torch.ops.aten.leaky_relu_backward(gradient, y, LEAK, True)
        return _widened(convolve(gradient, _mirrored(self._layers[0][0])))


def one_by_one(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """network(x), which at any time keeps the activations of one sample only: they are computed again for the gradient.

    The same but for rounding, as `network` treats each sample for itself.
    """
    made = (checkpoint(network, one, use_reentrant=False, preserve_rng_state=False) for one in x.split(1))
    return torch.cat(list(made))


def _widened(x: Tensor) -> Tensor:
    """x in float32, or in its own type if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _mirrored(weight: Tensor) -> Tensor:
    """The weight of the transposed convolution: (out, in, 3, 3, 3) → (in, out, 3, 3, 3)."""
    return weight.transpose(0, 1).flip(2, 3, 4)


class GeneratorStack(nn.Module):
    """E and G⁰ … Gⁿ with the recursions of eq. 6 and 9; grows by one generator a scale.

    sizes: (T, H, W) of every scale of the ladder. noise_amps: amplitude of z_n, 0 at the VAE scales.

    >>> stack = GeneratorStack(config, sizes)
    >>> while stack.num_scales < len(sizes): stack.grow()
    >>> x_rand = stack.sample(z)                       # eq. 9, (B, 3, *sizes[-1])
    """

    def __init__(self, config: TrainConfig, sizes: Sequence[Size]) -> None:
        super().__init__()
        self.config = config
        self.sizes: list[Size] = [(t, h, w) for t, h, w in sizes]
        self.encoder = Encoder(config.channels, config.latent_dim, config.encoder_convs)
        self.generators = nn.ModuleList([Generator(config.latent_dim, config.channels, config.generator_convs)])
        self.noise_amps = [0.0]

    @property
    def num_scales(self) -> int:
        """Scales there are generators for so far."""
        return len(self.generators)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def grow(self) -> None:
        """Append the next generator, initialised from the previous one (§3.2).

        G¹ starts fresh, as in the authors' code: its input is RGB where that of G⁰ is z, and it adds a residual.
        """
        grown = Generator(3, self.config.channels, self.config.generator_convs)
        if self.num_scales >= 2:
            grown.load_state_dict(self.generators[-1].state_dict())
        self.generators.append(grown.to(self.device))
        self.noise_amps.append(0.0)

    def latent_shape(self, batch: int) -> tuple[int, ...]:
        """(B, latent, T, H, W) of z at the ladder's scale 0."""
        return (batch, self.config.latent_dim, *self.sizes[0])

    def decode(self, z: Tensor) -> Tensor:
        """x̄⁰ = tanh(G⁰(z)): (B, latent, T, H, W) → (B, 3, T, H, W)."""
        return torch.tanh(self.generators[0](z))

    def upsample(self, x: Tensor, n: int) -> Tensor:
        """↑x to the size of scale n: trilinear over space and time together, corners kept (§3.2)."""
        return F.interpolate(x, size=self.sizes[n], mode="trilinear", align_corners=True)

    def refine(self, up: Tensor, n: int, noise: Tensor | None = None) -> Tensor:
        """x̄ⁿ from ↑x̄ⁿ⁻¹: up + Gⁿ(up + noise), eq. 6 and 9; noise enters the generator only, never the sum."""
        x = up if noise is None else up + noise
        residual = one_by_one(self.generators[n], x) if self.config.low_memory else self.generators[n](x)
        return torch.tanh(up + residual) if self.config.tanh_after_sum else up + torch.tanh(residual)

    def reconstruct(self, x0: Tensor, first: int, last: int) -> Tensor:
        """x̄ of scale `last` from x̄ of scale `first`, without noise. x0: (B, 3, *sizes[first])."""
        for n in range(first + 1, last + 1):
            x0 = self.refine(self.upsample(x0, n), n)
        return x0

    def noise(self, n: int, batch: int, generator: torch.Generator) -> Tensor | None:
        """z_n of eq. 9 times its amplitude, (B, 3, *sizes[n]); None at VAE scales, where there is none."""
        if n < self.config.vae_levels:
            return None
        z_n = torch.randn((batch, 3, *self.sizes[n]), generator=generator, device=generator.device)
        return z_n.mul_(self.noise_amps[n]).to(self.device)

    def sample(self, z: Tensor, generator: torch.Generator, *, last: int | None = None) -> Tensor:
        """x̃ of scale `last` (default: the finest there is), eq. 9. z: (B, latent, T, H, W) ~ N(0, I)."""
        x = self.decode(z)
        for n in range(1, (self.num_scales - 1 if last is None else last) + 1):
            x = self.refine(self.upsample(x, n), n, self.noise(n, len(z), generator))
        return x

"""The patch critic Dⁿ, and its input gradient written out for the gradient penalty (paper §3, A.1).

Legend: generators.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.config import TrainConfig
from model.networks.blocks import NormBlock, SpectralConv, conv, convolve, halo, normalised, pad, widened


class Layer(NamedTuple):
    """A convolution of a critic as it is now. `scale`, (out,): of a normalisation after it, whose shift `bias` is."""

    weight: Tensor
    bias: Tensor
    scale: Tensor | None = None


class Critic(nn.Module):
    """Dⁿ: spectral-norm convolutions with LeakyReLU, last one without activation, one number a position (A.1).

    Use it through `fixed`, which normalises the weights once for all the calls of a step.
    The authors' code leaves spectral norm off the last convolution (`critic_last_spectral`), ConSinGAN's off all
    (`critic_spectral`); SinGAN's has the normalisation of generators in its place (`critic_norm`). Neither of the two
    pads (`critic_padded`).
    """

    def __init__(self, config: TrainConfig, n: int) -> None:
        super().__init__()
        channels, kernel = config.width(n), config.kernel(3)
        widths = [3] + [channels] * (config.critic_convs - 1)
        layer = NormBlock if config.critic_norm else SpectralConv if config.critic_spectral else conv
        last = SpectralConv if config.critic_last_spectral else conv
        self.padded, self.leak = config.critic_padded, config.leak
        self.blocks = nn.ModuleList(layer(a, b, kernel) for a, b in pairwise(widths))
        self.tail: SpectralConv | nn.Conv3d = last(channels, 1, kernel)

    def fixed(self, *, trainable: bool = True) -> FixedCritic:
        """The critic with its weights normalised now. trainable=False: no gradient reaches them, only the input."""
        layers = [_layer(cast("SpectralConv | NormBlock | nn.Conv3d", block)) for block in [*self.blocks, self.tail]]
        if not trainable:
            layers = [
                Layer(weight.detach(), bias.detach(), None if scale is None else scale.detach())
                for weight, bias, scale in layers
            ]
        return FixedCritic(layers, self.padded, self.leak)


def _layer(block: SpectralConv | NormBlock | nn.Conv3d) -> Layer:
    if isinstance(block, NormBlock):
        return Layer(block.conv.weight, block.bias, block.weight)
    weight = block.normalized() if isinstance(block, SpectralConv) else block.weight
    return Layer(weight, cast(Tensor, block.bias))


class FixedCritic:
    """A critic for the calls of one step: a function (B, 3, T, H, W) → (B, 1, T, H, W) float32.

    Not padded, its map is smaller by what the convolutions take off.
    """

    def __init__(self, layers: Sequence[Layer], padded: bool, leak: float) -> None:
        self._layers, self._padded, self._leak = layers, padded, leak

    def __call__(self, x: Tensor) -> Tensor:
        last = self._layers[-1]
        return convolve(self._activations(x)[-1], last.weight, last.bias, padded=self._padded).float()

    def _activations(self, x: Tensor) -> list[Tensor]:
        """What each convolution but the last gives, after its LeakyReLU."""
        activations = []
        for weight, bias, scale in self._layers[:-1]:
            if scale is None:
                x = convolve(x, weight, bias, padded=self._padded, leak=self._leak)
            else:
                x = normalised(convolve(x, weight, padded=self._padded), scale, bias, self._leak)
            activations.append(x)
        return activations

    def input_gradient(self, x: Tensor) -> Tensor:
        """∇ₓ of the sum of D's map, (B, 3, T, H, W), float32 or better; differentiable in the weights, not in x.

        Written out, because torch's double backward goes on through D(x) with zeros and takes a slow kernel for the
        weights: the gradient of a convolution is the convolution with the mirrored, transposed weight, and LeakyReLU's
        slopes are constants (almost everywhere). With normalisation, whose statistics are no constants, it is torch's.
        """
        if self._layers[0].scale is not None:
            x = x.detach().requires_grad_()
            return widened(torch.autograd.grad(self(x).sum(), x, create_graph=True)[0])
        with torch.no_grad():
            activations = self._activations(x)
        last = activations[-1][:, :1]
        around = halo(-1, self._layers[-1].weight.shape[2:])
        gradient = torch.ones_like(last if self._padded else pad(last, around))
        for layer, y in zip(reversed(self._layers[1:]), reversed(activations), strict=True):
            gradient = self._to_input(gradient, layer.weight)
            gradient = torch.ops.aten.leaky_relu_backward(gradient, y, self._leak, True)
        return widened(self._to_input(gradient, self._layers[0].weight))

    def _to_input(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """The gradient of what a convolution was given, from that of what it gave."""
        if not self._padded:
            gradient = pad(gradient, halo(1, weight.shape[2:]))
        return convolve(gradient, weight.transpose(0, 1).flip(2, 3, 4))


def checkpointed(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """network(x), which at any time keeps the activations of one sample only: they are computed again for the gradient.

    The same but for rounding, as `network` treats each sample for itself.
    """
    made = (checkpoint(network, one, use_reentrant=False, preserve_rng_state=False) for one in x.split(1))
    return torch.cat(list(made))

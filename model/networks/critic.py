"""The patch critic Dⁿ, and its input gradient written out for the gradient penalty (paper §3, A.1).

Legend: generators.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.networks.blocks import CUBE, LEAK, Kernel, SpectralConv, conv, convolve, widened


class Critic(nn.Module):
    """Dⁿ: spectral-norm convolutions with LeakyReLU, last one without activation, one number a position (A.1).

    Use it through `fixed`, which normalises the weights once for all the calls of a step.
    The authors' code leaves spectral norm off the last convolution (`last_spectral=False`), ConSinGAN's off all
    (`spectral=False`).
    """

    def __init__(
        self, channels: int, convs: int, *, last_spectral: bool, kernel: Kernel = CUBE, spectral: bool = True
    ) -> None:
        super().__init__()
        widths = [3] + [channels] * (convs - 1)
        layer = SpectralConv if spectral else conv
        self.blocks = nn.ModuleList(layer(a, b, kernel) for a, b in pairwise(widths))
        self.tail: SpectralConv | nn.Conv3d = (
            SpectralConv(channels, 1, kernel) if last_spectral else conv(channels, 1, kernel)
        )

    def fixed(self, *, trainable: bool = True) -> FixedCritic:
        """The critic with its weights normalised now. trainable=False: no gradient reaches them, only the input."""
        layers = [
            (
                block.normalized() if isinstance(block, SpectralConv) else block.weight,
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
            x = convolve(x, weight, bias, leaky=True)
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
        return widened(convolve(gradient, _mirrored(self._layers[0][0])))


def checkpointed(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """network(x), which at any time keeps the activations of one sample only: they are computed again for the gradient.

    The same but for rounding, as `network` treats each sample for itself.
    """
    made = (checkpoint(network, one, use_reentrant=False, preserve_rng_state=False) for one in x.split(1))
    return torch.cat(list(made))


def _mirrored(weight: Tensor) -> Tensor:
    """The weight of the transposed convolution: (out, in, 3, 3, 3) → (in, out, 3, 3, 3)."""
    return weight.transpose(0, 1).flip(2, 3, 4)

"""The networks of a model as a function of tensors alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from model.networks.generators import GeneratorStack
from model.pyramid import ScaleSize
from model.sampling.sample import stretched


class Generators(nn.Module):
    """z and the noise of the scales → a video of the finest trained scale (eq. 9): what `NetworkSampler` makes."""

    def __init__(self, stack: GeneratorStack, sizes: Sequence[ScaleSize]) -> None:
        super().__init__()
        self.stack = stretched(stack, sizes)
        self.stack._modules = {name: part for name, part in stack._modules.items() if name != "encoder"}  # of training

    def forward(self, z: Tensor, noise: list[Tensor]) -> Tensor:
        """z: (B, latent, T, H, W), noise: (B, C, T_n, H_n, W_n) each → (B, 3, T, H, W) float32 in [-1, 1]."""
        stack, given, x = self.stack, iter(noise), z
        for n in range(stack.num_scales):
            x = stack.level(x, n, next(given) * stack.noise_amps[n] if stack.has_noise(n) else None)
        return stack.to_video(x).clamp(-1, 1)

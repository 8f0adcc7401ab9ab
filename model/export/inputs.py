"""What an exported program is given in place of a seed, and how it is drawn from one.

The file beside a program lists this, so that people without this code draw the same numbers: jobs/README.md, "Export",
has the lines that do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.networks.generators import GeneratorStack
from model.networks.patchvae import occupied_normal
from model.sampling.sample import stream_of


@dataclass(frozen=True)
class Drawn:
    """One input, float32.

    Attributes:
        name: z, or noise_ and the scale that it enters.
        shape: of one sample, (1, C, T, H, W); the first side is the batch.
        draw: normal: N(0, 1). occupied_normal: one vector (1, C, 1, 1, 1) of N(0, 1) at the places where a number of
            [0, 1), one a place, is below ½, else 0.
    """

    name: str
    shape: tuple[int, ...]
    draw: Literal["normal", "occupied_normal"] = "normal"

    def drawn(self, random: torch.Generator) -> Tensor:
        """It, for one sample: the numbers that a sampler draws here."""
        if self.draw == "occupied_normal":
            return occupied_normal(self.shape, random)
        return torch.randn(self.shape, generator=random)


def inputs_of(stack: GeneratorStack) -> list[Drawn]:
    """z, and z_n of every scale that has one, as they are drawn; without its amplitude, which is in the program."""
    scales = [n for n in range(stack.num_scales) if stack.has_noise(n)]
    return [
        Drawn("z", stack.latent_shape(1), "occupied_normal" if stack.config.latent == "patchvae" else "normal"),
        *(Drawn(f"noise_{n}", (1, *stack.noise_shape(n))) for n in scales),
    ]


def draw(inputs: Sequence[Drawn], seed: int, index: int) -> list[Tensor]:
    """The inputs of sample `index` of a seed, as `sample_in_parts` draws them."""
    random = stream_of(seed, index)
    return [given.drawn(random) for given in inputs]

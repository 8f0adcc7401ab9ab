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
from model.patches.field import Grid
from model.patches.match import ROUNDS, reach_of
from model.patches.refine import EXACT_PAIRS, ClipPatches, Matching, Step
from model.sampling.sample import Draw, stream_of

Stream = Literal["sample", "layout_patches", "patches"]


@dataclass(frozen=True)
class Drawn:
    """One input: float32, or int64 of whole numbers.

    Attributes:
        name: z, noise_ and the scale that it enters, or what it is of the search of patches.
        shape: of one sample, (1, C, T, H, W), where the first side is the batch; of the search (T', H', W') of the
            patches, and of displacements (9, T', H', W').
        draw: normal: N(0, 1). occupied_normal: one vector (1, C, 1, 1, 1) of N(0, 1) at the places where a number of
            [0, 1), one a place, is below ½, else 0. below: a whole number from 0 on, below `numbers`. around: one of
            -far … far, for each `far` of `numbers`.
        stream: which random numbers it is drawn from (`streams`); those of one stream in the order of the inputs.
    """

    name: str
    shape: tuple[int, ...]
    draw: Literal["normal", "occupied_normal", "below", "around"] = "normal"
    stream: Stream = "sample"
    numbers: tuple[int, ...] = ()

    def drawn(self, random: torch.Generator) -> Tensor:
        """It, for one sample: the numbers that a sampler draws here."""
        if self.draw == "occupied_normal":
            return occupied_normal(self.shape, random)
        if self.draw == "below":
            return torch.randint(self.numbers[0], self.shape, generator=random)
        if self.draw == "around":
            shape = self.shape[1:]
            return torch.stack([torch.randint(-far, far + 1, shape, generator=random) for far in self.numbers])
        return torch.randn(self.shape, generator=random)


def inputs_of(stack: GeneratorStack) -> list[Drawn]:
    """z, and z_n of every scale that has one, as they are drawn; without its amplitude, which is in the program."""
    scales = [n for n in range(stack.num_scales) if stack.has_noise(n)]
    return [
        Drawn("z", stack.latent_shape(1), "occupied_normal" if stack.config.latent == "patchvae" else "normal"),
        *(Drawn(f"noise_{n}", (1, *stack.noise_shape(n))) for n in scales),
    ]


def search_inputs_of(clip: ClipPatches, how: Matching, steps: Sequence[Step], stream: Stream) -> list[Drawn]:
    """What `Refinement` draws in these steps: for each pass whose patches are not all compared."""
    inputs: list[Drawn] = []
    has_field = False
    for step in steps:
        own, keys = Grid(1, (step.size[0], step.size[1], step.size[2]), how.patch), clip.grid(step.n, how.patch)
        for turn in range(step.passes):
            if len(own) * len(keys) > EXACT_PAIRS:
                if not has_field:
                    inputs.append(Drawn(f"{stream}_begin", own.shape, "below", stream, (len(keys),)))
                reaches = tuple(far for _, radius in ROUNDS for far in reach_of(radius))
                inputs.append(Drawn(f"{stream}_{step.n}_{turn}", (len(reaches), *own.shape), "around", stream, reaches))
            has_field = True
    return inputs


def streams(attempts: int) -> dict[Stream, list[tuple[int, ...]]]:
    """By attempt to draw a layout, from 0: the place of each kind of random numbers (`stream_of`)."""
    return {
        "sample": [Draw.layout(attempt) for attempt in range(attempts)],
        "layout_patches": [(Draw.PATCHES, attempt) for attempt in range(attempts)],
        "patches": [(Draw.PATCHES,)] * attempts,
    }


def draw(inputs: Sequence[Drawn], seed: int, index: int, attempt: int = 0) -> list[Tensor]:
    """The inputs of sample `index` of a seed, as a sampler draws them when it draws its layout for the attempt-th time,
    from 0."""
    random = {stream: stream_of(seed, index, *places[attempt]) for stream, places in streams(attempt + 1).items()}
    return [given.drawn(random[given.stream]) for given in inputs]

"""Which stack of generators a method has."""

from __future__ import annotations

from collections.abc import Sequence

from model.config import TrainConfig
from model.networks.generators import GeneratorStack
from model.networks.singan import ConsinganStack, SinganStack
from model.pyramid import ScaleSize


def new_stack(config: TrainConfig, sizes: Sequence[ScaleSize]) -> GeneratorStack:
    """The untrained networks of scale 0, with PyTorch's random numbers. sizes: (T, H, W) of every scale."""
    match config.method:
        case "singan":
            return SinganStack(config, sizes)
        case "consingan":
            return ConsinganStack(config, sizes)
        case _:
            return GeneratorStack(config, sizes)

"""One file that holds everything a clip's training is: config, ladder, networks, optimizers, noise, position.

Written by temp + fsync + rename, so a reader sees the old file or the new one. Read with `weights_only=True`:
tensors and plain values, nothing that runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import ConfigError, TrainConfig
from model.networks import GeneratorStack, Size

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line: file, cause, mend."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file holds. `iteration` counts finished iterations of `scale`; a finished scale has all of them."""

    config: TrainConfig
    sizes: tuple[Size, ...]
    clip_id: str
    scale: int
    iteration: int
    train_s: float  # seconds of training so far
    noise_amps: tuple[float, ...]  # as many as there are generators: scale + 1
    generators: dict[str, Tensor]  # state of the GeneratorStack
    critic: dict[str, Tensor] | None  # None at VAE scales
    optimizers: tuple[dict[str, Any], ...]  # generator's, then the critic's at GAN scales
    rng_state: Tensor  # of the generator that draws z, noise and ε
    device: str  # "cpu" or "cuda": where rng_state was taken

    @property
    def done(self) -> bool:
        """Whether every iteration of every scale is in it."""
        return self.scale == len(self.sizes) - 1 and self.iteration == self.config.iterations[self.scale]

    def stack(self) -> GeneratorStack:
        """The encoder and the generators trained so far, on the CPU, without gradients, as they were saved."""
        return rebuild(self.config, self.sizes, self.generators, self.noise_amps)


def rebuild(
    config: TrainConfig, sizes: Sequence[Size], generators: Mapping[str, Tensor], noise_amps: Sequence[float]
) -> GeneratorStack:
    """A stack on the CPU, without gradients, from its state; as many generators as there are noise amplitudes."""
    stack = GeneratorStack(config, sizes)
    while stack.num_scales < len(noise_amps):
        stack.grow()
    stack.load_state_dict(generators)
    stack.noise_amps = list(noise_amps)
    return stack.requires_grad_(False)


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write `path` so that it holds either what it held or the whole new checkpoint, whatever happens."""
    record = {field: getattr(checkpoint, field) for field in checkpoint.__dataclass_fields__}
    record.update(format=FORMAT, config=checkpoint.config.to_dict())
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(record, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises CheckpointError if the file is missing, torn, of another program or of another format.
    """
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; give the checkpoint.pt of a clip") from error
    except Exception as error:  # a damaged file makes the unpickler raise anything: IndexError, struct.error …
        raise CheckpointError(f"{path}: not a readable checkpoint; give the checkpoint.pt of a clip") from error
    if not isinstance(record, Mapping) or "format" not in record:
        raise CheckpointError(f"{path}: not a checkpoint of this program; give the checkpoint.pt of a clip")
    if record["format"] != FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {record['format']}, this version reads {FORMAT}; train again")
    fields = {name: record[name] for name in Checkpoint.__dataclass_fields__ if name in record}
    try:
        fields["config"] = TrainConfig.from_dict(record["config"])
        return Checkpoint(**fields)
    except (ConfigError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: incomplete checkpoint ({error}); train again") from error

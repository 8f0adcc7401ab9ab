"""How many examples of a training fit into memory at once, and what it means when they do not."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model.config import TrainConfig
from model.device import memory_bytes, resolve
from model.pyramid import ScaleSize

FOR_ACTIVATIONS = 0.5  # of the memory there is


class OutOfMemory(RuntimeError):
    """Memory, of the GPU or the host, did not suffice for `micro_batch` examples at once."""

    def __init__(self, message: str, micro_batch: int) -> None:
        super().__init__(message)
        self.micro_batch = micro_batch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice.

    torch has a type for a GPU's memory only; its allocator on a CPU raises a plain RuntimeError.
    """
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def largest_micro_batch(config: TrainConfig, sizes: Sequence[ScaleSize], n: int, device: torch.device) -> int:
    """How many examples of scale n should fit into memory at once, at least 1.

    By how much memory there is, not by how much is free: a resumed training must cut its examples as before.
    """
    return max(1, int(FOR_ACTIVATIONS * memory_bytes(device) / activation_bytes(config, sizes, n, device)))


def activation_bytes(config: TrainConfig, sizes: Sequence[ScaleSize], n: int, device: torch.device) -> float:
    """Estimate of the memory that one example takes in an iteration of scale n.

    Each normalised convolution keeps two maps for the gradient, each of the critic one; at a GAN scale those of
    reconstruction and random sample are held beside the critic's of real and fake. With a normalised critic (SinGAN's
    own) the gradient penalty, whose gradient goes through D(x̂) twice, holds five maps a convolution. Maps that come and
    go, and gaps that the allocator leaves, make it about twice that: on a CPU 1.8 to 2.0 times, at scales 5 and 6 of
    paper and official.
    """
    number = 2 if resolve(config.precision, device) == "bf16" else 4
    maps = [number * config.width(k) * t * h * w for k, (t, h, w) in enumerate(sizes)]
    blocks, critic = config.generator_convs - 1, config.critic_convs - 1
    if n < config.vae_levels:
        return 2 * (sum(2 * blocks * maps[k] for k in range(n + 1)) + config.encoder_convs * maps[0] + 4 * maps[n])
    below = 0 if config.freeze else sum(4 * blocks * maps[k] for k in range(n))
    of_critic = 5 if config.critic_norm else 2
    return 2 * (below + (4 * blocks + of_critic * critic + 8) * maps[n])

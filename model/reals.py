"""What a model is trained on: the real pyramids of one clip, or of many samples whose losses are summed (eq. 5, 11).

Samples are the chunks of a long video (§3, last paragraph), and augmented copies. An iteration goes through them in
micro-batches, as many at a time as memory allows: as normalisation is per sample, gradients are the same sums whatever
the size of a micro-batch, but for rounding. Random numbers are a function of (seed, scale, iteration, sample) and of
nothing else, so neither micro-batches, nor the processes that share the work, nor a resumed training change them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.config import TrainConfig
from model.memory import largest_micro_batch
from model.team import Team

Pyramid = Sequence[np.ndarray]  # a sample at every scale, float32 (3, T_n, H_n, W_n) in [-1, 1], coarsest first
KEPT_BYTES = 1 << 30  # of real samples on the device; what is beyond is built again each time
MEASURING = 0  # the "iteration" in which noise amplitudes are measured; those of training count from 1


def stream(device: torch.device, seed: int, *place: int) -> torch.Generator:
    """Random numbers of their own for each place in a training."""
    (state,) = np.random.SeedSequence(seed, spawn_key=place).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state) >> 1)


@dataclass(frozen=True)
class Batch:
    """Samples that go through the networks at once, in one iteration of one scale."""

    reals: Reals
    samples: tuple[int, ...]
    scale: int
    iteration: int

    def __len__(self) -> int:
        return len(self.samples)

    def real(self, n: int) -> Tensor:
        """The samples at scale n: (B, 3, T_n, H_n, W_n) float32."""
        return self.reals.at(n, self.samples)

    def streams(self) -> list[torch.Generator]:
        """One of random numbers a sample, each time from its beginning."""
        seed = self.reals.config.seed
        return [stream(self.reals.team.device, seed, self.scale, self.iteration, sample) for sample in self.samples]


class Reals:
    """All samples of a training and, of each iteration, this process's share in micro-batches."""

    def __init__(self, pyramids: Sequence[Pyramid], config: TrainConfig, team: Team) -> None:
        """pyramids: one a sample; a pyramid may build its scales as they are asked for.

        Raises ValueError for what cannot be trained together.
        """
        self.config, self.team = config, team
        self.sizes = [(t, h, w) for _, t, h, w in (real.shape for real in pyramids[0])]
        if len(self.sizes) != config.num_scales:
            raise ValueError(f"{len(self.sizes)} scales in the pyramid, {config.num_scales} in the config")
        if config.vae_levels == 0 and len(pyramids) > 1:
            raise ValueError(f"vae_levels=0 reconstructs one sample, from its one z*; there are {len(pyramids)}")
        if team.size > self.an_iteration(len(pyramids), config):
            raise ValueError(
                f"{team.size} workers for {self.an_iteration(len(pyramids), config)} samples an iteration; "
                "every worker needs one, take fewer"
            )
        self._pyramids = pyramids
        self._kept: dict[tuple[int, int], Tensor] = {}

    @staticmethod
    def an_iteration(samples: int, config: TrainConfig) -> int:
        """How many of so many samples one iteration takes."""
        return min(samples, config.chunks_per_iter or samples)

    def __len__(self) -> int:
        return len(self._pyramids)

    @property
    def weight(self) -> float:
        """Of a sample's loss, so that an iteration's loss estimates the sum over all samples without bias."""
        return len(self) / self.an_iteration(len(self), self.config)

    def batches(self, n: int, iteration: int) -> list[Batch]:
        """This process's part of an iteration of scale n, at least one sample."""
        count = self.an_iteration(len(self), self.config)
        samples = list(range(len(self)))
        if count < len(self):  # without replacement; every process draws the same ones
            chance = stream(torch.device("cpu"), self.config.seed, n, iteration)
            samples = sorted(torch.randperm(len(self), generator=chance)[:count].tolist())
        return list(self._cut(samples, n, iteration))

    def measuring(self, n: int) -> list[Batch]:
        """This process's part of all samples, to measure noise amplitudes with."""
        return list(self._cut(list(range(len(self))), n, MEASURING))

    def _cut(self, samples: Sequence[int], n: int, iteration: int) -> Iterator[Batch]:
        mine = self.team.share(samples)
        at_once = self.at_once(n)
        for start in range(0, len(mine), at_once):
            yield Batch(self, tuple(mine[start : start + at_once]), n, iteration)

    def at_once(self, n: int) -> int:
        """How many samples of scale n a micro-batch has at most; no more than an iteration gives a process."""
        share = -(-self.an_iteration(len(self), self.config) // self.team.size)
        if share == 1:
            return 1
        chosen = self.config.micro_batch or largest_micro_batch(self.config, self.sizes, n, self.team.device)
        return min(chosen, share)

    def at(self, n: int, samples: Sequence[int]) -> Tensor:
        """Samples at scale n: (B, 3, T_n, H_n, W_n) float32, on the device."""
        found = [self._at(n, sample) for sample in samples]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _at(self, n: int, sample: int) -> Tensor:
        kept = self._kept
        if (n, sample) in kept:
            return kept[n, sample]
        if n > 0 and any(scale not in (0, n) for scale, _ in kept):  # a scale needs itself and scale 0
            self._kept = kept = {key: real for key, real in kept.items() if key[0] in (0, n)}
        real = torch.from_numpy(self._pyramids[sample][n])[None].to(self.team.device)
        if sum(other.nbytes for other in kept.values()) + real.nbytes <= KEPT_BYTES:
            kept[n, sample] = real
        return real

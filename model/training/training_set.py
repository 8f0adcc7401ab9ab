"""What a model is trained on: the real pyramids of one clip, or of many examples whose losses are summed (eq. 5, 11).

Examples are the chunks of a long video (§3, last paragraph), and augmented copies. An iteration goes through them in
micro-batches, as many at a time as memory allows. Normalisation is per example, so gradients are the same sums whatever
the size of a micro-batch, but for rounding. Random numbers are a function of (seed, scale, iteration, example) and of
nothing else, so neither micro-batches, nor the processes that share the work, nor a resumed training change them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from infra.errors import Refusal
from model.config import TrainConfig
from model.device import memory_bytes, on_device
from model.pyramid import ScaleSize
from model.training.memory import largest_micro_batch
from model.training.workers import Workers

Pyramid = Sequence[np.ndarray]  # an example at every scale, float32 (3, T_n, H_n, W_n) in [-1, 1], coarsest first
KEPT_BYTES = 1 << 30  # of examples on the device, or KEPT_SHARE of a GPU; what is beyond is built again each time
KEPT_SHARE = 1 / 8
MEASURING = 0  # the "iteration" in which noise amplitudes are measured; those of training count from 1


def rng_at(device: torch.device, seed: int, *place: int) -> torch.Generator:
    """Random numbers of their own for each place in a training."""
    (state,) = np.random.SeedSequence(seed, spawn_key=place).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state) >> 1)


@dataclass(frozen=True)
class Window:
    """A part of every frame of a volume."""

    top: int
    left: int
    height: int
    width: int

    @staticmethod
    def at_random(config: TrainConfig, size: ScaleSize, n: int, iteration: int) -> Window:
        """Of one iteration of GAN scale n: `config.gan_crop` of each side, no less than the critic sees at once."""
        sees = 1 + 2 * config.critic_convs
        height, width = (max(round(config.gan_crop * side), min(sees, side)) for side in size[1:])
        place = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(n, iteration)))
        top = int(place.integers(size.height - height, endpoint=True))
        left = int(place.integers(size.width - width, endpoint=True))
        return Window(top, left, height, width)

    def cut(self, volumes: Tensor) -> Tensor:
        """(…, H, W) → (…, height, width), a view."""
        return volumes[..., self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Batch:
    """Examples that go through the networks at once, in one iteration of one scale."""

    training_set: TrainingSet
    examples: tuple[int, ...]  # their numbers in the training set
    draws: tuple[int, ...]  # of each, which of the `batch_size` draws of its example it is
    scale: int
    iteration: int

    def __len__(self) -> int:
        return len(self.examples)

    def real(self, n: int) -> Tensor:
        """The examples at scale n: (B, 3, T_n, H_n, W_n) float32."""
        return self.training_set.at(n, self.examples)

    @functools.cached_property
    def window(self) -> Window:
        """The part that this iteration of a GAN scale trains on, the same of all examples."""
        size = self.training_set.sizes[self.scale]
        return Window.at_random(self.training_set.config, size, self.scale, self.iteration)

    def at_step(self, step: int) -> Batch:
        """The same examples, with the random numbers of a later step of the iteration."""
        first = step * self.training_set.config.batch_size
        return replace(self, draws=tuple(first + draw for draw in self.draws)) if step else self

    def rngs(self) -> list[torch.Generator]:
        """Random numbers of each example, each time from their beginning."""
        seed = self.training_set.config.seed
        return [
            rng_at(
                self.training_set.workers.device, seed, self.scale, self.iteration, number, *([draw] if draw else [])
            )
            for number, draw in zip(self.examples, self.draws, strict=True)
        ]


class TrainingSet:
    """All examples of a training and, of each iteration, this process's share in micro-batches."""

    def __init__(self, pyramids: Sequence[Pyramid], config: TrainConfig, workers: Workers) -> None:
        """pyramids: one an example; a pyramid may build its scales as they are asked for.

        Raises ValueError for what cannot be trained together.
        """
        self.config, self.workers = config, workers
        self.sizes = [ScaleSize(t, h, w) for _, t, h, w in (real.shape for real in pyramids[0])]
        if len(self.sizes) != config.num_scales:
            raise Refusal(f"{len(self.sizes)} scales in the pyramid, {config.num_scales} in the config")
        count = self.draws_per_iteration(len(pyramids), config)
        if workers.size > count:
            cause = f"{workers.size} workers for {count} samples an iteration"
            raise Refusal(f"{cause}; every worker needs one, take fewer")
        self._pyramids = pyramids
        self._kept: dict[tuple[int, int], Tensor] = {}
        on_gpu = workers.device.type == "cuda"
        self._most_kept = max(KEPT_BYTES, KEPT_SHARE * memory_bytes(workers.device) if on_gpu else 0)

    @staticmethod
    def examples_per_iteration(examples: int, config: TrainConfig) -> int:
        """How many of so many examples one iteration takes."""
        return min(examples, config.chunks_per_iter or examples)

    @classmethod
    def draws_per_iteration(cls, examples: int, config: TrainConfig) -> int:
        """How many losses of one example each an iteration has."""
        return cls.examples_per_iteration(examples, config) * config.batch_size

    def __len__(self) -> int:
        return len(self._pyramids)

    @property
    def weight(self) -> float:
        """Of an example's loss, so that an iteration's loss estimates the sum over all examples without bias."""
        return len(self) / self.draws_per_iteration(len(self), self.config)

    def batches(self, n: int, iteration: int) -> list[Batch]:
        """This process's part of an iteration of scale n, at least one example."""
        count = self.examples_per_iteration(len(self), self.config)
        numbers = list(range(len(self)))
        if count < len(self):  # without replacement; every process draws the same ones
            rng = rng_at(torch.device("cpu"), self.config.seed, n, iteration)
            numbers = sorted(torch.randperm(len(self), generator=rng)[:count].tolist())
        return list(self._cut([(number, k) for number in numbers for k in range(self.config.batch_size)], n, iteration))

    def measuring(self, n: int) -> list[Batch]:
        """This process's part of all examples, to measure noise amplitudes with."""
        return list(self._cut([(number, 0) for number in range(len(self))], n, MEASURING))

    def _cut(self, drawn: Sequence[tuple[int, int]], n: int, iteration: int) -> Iterator[Batch]:
        mine = self.workers.share(drawn)
        size = self.micro_batch_size(n)
        for start in range(0, len(mine), size):
            numbers, draws = zip(*mine[start : start + size])
            yield Batch(self, numbers, draws, n, iteration)

    def micro_batch_size(self, n: int) -> int:
        """How many examples of scale n a micro-batch has at most; no more than an iteration gives a process."""
        share = -(-self.draws_per_iteration(len(self), self.config) // self.workers.size)
        if share == 1:
            return 1
        chosen = self.config.micro_batch or largest_micro_batch(self.config, self.sizes, n, self.workers.device)
        return min(chosen, share)

    def at(self, n: int, numbers: Sequence[int]) -> Tensor:
        """Examples at scale n: (B, 3, T_n, H_n, W_n) float32, on the device."""
        found = [self._at(n, number) for number in numbers]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _at(self, n: int, number: int) -> Tensor:
        kept = self._kept
        if (n, number) in kept:
            return kept[n, number]
        if n > 0 and any(scale not in (0, n) for scale, _ in kept):  # a scale needs itself and scale 0
            self._kept = kept = {key: real for key, real in kept.items() if key[0] in (0, n)}
        real = on_device(self._pyramids[number][n], self.workers.device)[None]
        if sum(other.nbytes for other in kept.values()) + real.nbytes <= self._most_kept:
            kept[n, number] = real
        return real

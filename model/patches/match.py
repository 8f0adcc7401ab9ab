"""The clip's patch that suits each patch of a video best: by distance, and so that all of the clip is used.

The score of a query q and a key k is d(q, k) / (α + min over all queries of d(·, k)), d the squared distance: the
completeness of Granot et al. 2022 (GPNN).
A key that no query resembles has a large minimum and so low scores: it is taken more easily. A small α asks for all of
the clip, a large one for the nearest patch alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.patches.field import Grid, clamp, index, places

PAIRS = 2**24  # of queries and keys that a device compares at once: 64 MiB
HOST_PAIRS = 2**20  # and the CPU: 4 MiB stay in its caches
QUERIES = 2**15  # whose vectors are compared with one key each at once
# How neighbours in the field are asked for their neighbours, and how far around the own one is tried: pixels, a round.
ROUNDS = ((4, 2), (2, 1), (1, 1))


def exact_field(queries: Tensor, keys: Tensor, grid: Grid, alpha: float) -> Tensor:
    """The best key of each query, of all keys.

    Args:
        queries: (T', H', W', D) float32; keys: (N, D), those of `grid`.
        alpha: squared distance.

    Returns (4, T', H', W') places.
    """
    rows = queries.reshape(-1, queries.shape[-1])
    at_once = HOST_PAIRS if rows.device.type == "cpu" else PAIRS
    parts = rows.split(max(1, at_once // len(keys)))
    room = rows.new_empty((len(parts[0]), len(keys)))
    squares = keys.square().sum(dim=1)
    nearest = keys.new_full((len(keys),), math.inf)
    for part in parts:
        distances = torch.addmm(squares, part, keys.T, alpha=-2, out=room[: len(part)])
        distances.add_(part.square().sum(dim=1, keepdim=True))
        nearest = torch.minimum(nearest, distances.amin(dim=0))
    weight = 1 / (alpha + nearest.clamp_(min=0))
    weighted, squares = keys * weight[:, None], squares * weight
    best = []
    for part in parts:  # (|q|² - 2 q·k + |k|²) · weight
        scores = torch.addmm(squares, part, weighted.T, alpha=-2, out=room[: len(part)])
        best.append(_lowest(scores.addr_(part.square().sum(dim=1), weight)))
    return places(torch.cat(best).reshape(queries.shape[:3]), grid)


def _lowest(scores: Tensor) -> Tensor:
    """The place of the smallest score in each row, of equal ones the first; on the CPU NumPy is five times as fast."""
    return torch.from_numpy(scores.numpy().argmin(axis=1)) if scores.device.type == "cpu" else scores.argmin(dim=1)


def spread_field(
    queries: Tensor, keys: Tensor, grid: Grid, field: Tensor, alpha: float, random: torch.Generator
) -> Tensor:
    """A field made better: each query tries the neighbours of its neighbours, and places around its own.

    The propagation and the random search of PatchMatch (Barnes et al. 2009), for all queries at once, with jumps of 4,
    2 and 1 (Rong, Tan 2006). The minimum over the queries is over the pairs that were tried: never below the true one,
    so a key that few queries tried is taken more easily, as completeness wants.

    Args:
        field: (4, T', H', W'), where to begin: that of the scale below, or of the pass before.
        random: on the CPU, so that the kind of device changes nothing that is drawn.

    Other arguments and what it returns as of `exact_field`.
    """
    search = _Search(queries, keys, grid, field, alpha)
    for step, radius in ROUNDS:
        for axis in range(3):
            jump = min(step, 2) if axis == 0 else step  # a clip has few frames
            if jump < queries.shape[axis]:
                for distance in (jump, -jump):
                    search.consider(_from_neighbour(search.field, axis, distance))
        search.consider(search.field + _around(search.field, reach_of(radius), random))
    return search.field


def _from_neighbour(field: Tensor, axis: int, distance: int) -> Tensor:
    """What a patch would have if it lay in the clip beside its neighbour's as it lies beside the neighbour."""
    moved = field.roll(distance, dims=axis + 1)
    moved[axis + 1] += distance
    return moved


def reach_of(radius: int) -> tuple[int, int, int]:
    """How far around its own place a patch is tried in a round: frames, rows and columns."""
    return min(radius, 1), radius, radius


def _around(field: Tensor, reach: Sequence[int], random: torch.Generator) -> Tensor:
    """Random displacements of up to `reach` frames, rows and columns; none between chunks."""
    shape = field.shape[1:]
    drawn = [torch.randint(-far, far + 1, shape, generator=random) for far in reach]
    return torch.stack([torch.zeros(shape, dtype=torch.long), *drawn]).to(field.device)


@dataclass
class _Search:
    """The best key so far of every query."""

    queries: Tensor
    keys: Tensor
    grid: Grid
    field: Tensor
    alpha: float

    def __post_init__(self) -> None:
        self._rows = self.queries.reshape(-1, self.queries.shape[-1])
        self._best = index(self.field, self.grid).reshape(-1)
        self._distance = self._distances(self._best)
        self._nearest = self.keys.new_full((len(self.keys),), math.inf)  # of each key, over the queries that tried it
        self._nearest.scatter_reduce_(0, self._best, self._distance, "amin")

    def _distances(self, numbers: Tensor) -> Tensor:
        """Squared distance of each query to one key."""
        found = torch.empty_like(self._rows[:, 0])
        for rows, some, out in zip(self._rows.split(QUERIES), numbers.split(QUERIES), found.split(QUERIES)):
            torch.linalg.vector_norm(self.keys.index_select(0, some).sub_(rows), dim=1, out=out)
        return found.square_()

    def consider(self, field: Tensor) -> None:
        """Take of another field what is better; its places beyond a chunk are moved into it."""
        clamp(field, self.grid)
        numbers = index(field, self.grid).reshape(-1)
        distance = self._distances(numbers)
        self._nearest.scatter_reduce_(0, numbers, distance, "amin")
        score = distance * (self.alpha + self._nearest[self._best])  # both sides times both denominators
        better = score < self._distance * (self.alpha + self._nearest[numbers])
        self._best = torch.where(better, numbers, self._best)
        self._distance = torch.where(better, distance, self._distance)
        self.field = torch.where(better.reshape(self.field.shape[1:]), field, self.field)

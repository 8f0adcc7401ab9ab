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

from model.boxes import Box, inside, surrounded
from model.device import stop_if_unwanted
from model.patches.field import Grid, clamp, in_parts, index, places
from model.patches.space import PatchSpace

PAIRS = 2**24  # of queries and keys that a device compares at once: 64 MiB
HOST_PAIRS = 2**20  # and the CPU: 4 MiB stay in its caches
QUERIES = 2**15  # whose vectors are compared with one key each at once
# How neighbours in the field are asked for their neighbours, and how far around the own one is tried: pixels, a round.
ROUNDS = ((4, 2), (2, 1), (1, 1))


@dataclass
class Queries:
    """The patches of a video as vectors, which are made a part of it at a time.

    Attributes:
        video: (1, 3, T, H, W) float32.
        space: of the keys.
    """

    video: Tensor
    space: PatchSpace
    _made: tuple[Box, Tensor] | None = None  # the part that was made last

    @property
    def shape(self) -> tuple[int, int, int]:
        """Patches along frames, height and width."""
        t, h, w = (
            side - part + 1 for side, part in zip(self.video.shape[2:], self.space.filters.shape[2:], strict=True)
        )
        return t, h, w

    def vectors(self, box: Box) -> Tensor:
        """Of the patches in a box: (t, h, w, D) float32. A part that is asked for again at once is not made again."""
        if self._made is None or self._made[0] != box:
            self._made = None  # one part at a time is in memory
            t, h, w = (slice(s.start, s.stop + part - 1) for s, part in zip(box, self.space.filters.shape[2:]))
            self._made = box, self.space.project(self.video[:, :, t, h, w])[0]
        return self._made[1]


def exact_field(queries: Queries, keys: Tensor, grid: Grid, alpha: float) -> Tensor:
    """The best key of each query, of all keys.

    A video in parts is gone through twice: first for the minimum of each key, which is over the queries of all parts,
    then for the best key of each query.

    Args:
        keys: (N, D) float32, those of `grid`.
        alpha: squared distance.

    Returns a field, (T', H', W').
    """
    squares, nearest, boxes = keys.square().sum(dim=1), _untried(keys), in_parts(queries.shape)
    many = max(1, (HOST_PAIRS if keys.device.type == "cpu" else PAIRS) // len(keys))
    room = keys.new_empty((min(many, math.prod(queries.shape)), len(keys)))
    for box in boxes:
        nearest = torch.minimum(nearest, _least_distances(queries.vectors(box), keys, squares, room))
    weight = 1 / (alpha + nearest.clamp_(min=0))
    weighted, squares = keys * weight[:, None], squares * weight
    field = torch.empty(queries.shape, dtype=grid.kind, device=keys.device)
    for box in boxes:
        field[box] = _least_scores(queries.vectors(box), weighted, squares, weight, room).to(grid.kind)
    return field


def _least_distances(queries: Tensor, keys: Tensor, squares: Tensor, room: Tensor) -> Tensor:
    """Of each key to any query: (t, h, w, D), (N, D) → (N,). room: for the distances of some queries to all keys."""
    least = _untried(keys)
    for rows in queries.flatten(0, 2).split(len(room)):
        distances = torch.addmm(squares, rows, keys.T, alpha=-2, out=room[: len(rows)])
        distances.add_(rows.square().sum(dim=1, keepdim=True))
        least = torch.minimum(least, distances.amin(dim=0))
    return least


def _least_scores(queries: Tensor, weighted: Tensor, squares: Tensor, weight: Tensor, room: Tensor) -> Tensor:
    """The key of each query whose score, (|q|² - 2 q·k + |k|²) · weight, is the least: (t, h, w, D) → (t, h, w)."""
    best = []
    for rows in queries.flatten(0, 2).split(len(room)):
        scores = torch.addmm(squares, rows, weighted.T, alpha=-2, out=room[: len(rows)])
        best.append(_lowest(scores.addr_(rows.square().sum(dim=1), weight)))
    return torch.cat(best).reshape(queries.shape[:3])


def _lowest(scores: Tensor) -> Tensor:
    """The place of the smallest score in each row, of equal ones the first; on the CPU NumPy is five times as fast."""
    return torch.from_numpy(scores.numpy().argmin(axis=1)) if scores.device.type == "cpu" else scores.argmin(dim=1)


def spread_field(
    queries: Queries, keys: Tensor, grid: Grid, field: Tensor, alpha: float, random: torch.Generator
) -> Tensor:
    """A field made better: each query tries the neighbours of its neighbours, and places around its own.

    The propagation and the random search of PatchMatch (Barnes et al. 2009), for all queries at once, with jumps of 4,
    2 and 1 (Rong, Tan 2006). The minimum over the queries is over the pairs that were tried: never below the true one,
    so a key that few queries tried is taken more easily, as completeness wants.

    In parts (`_spread_in_parts`) the minimum and the order of what is drawn differ.

    Args:
        field: (T', H', W'), where to begin: that of the scale below, or of the pass before.
        random: on the CPU, so that the kind of device changes nothing that is drawn.

    Other arguments and what it returns as of `exact_field`.
    """
    whole, *more = in_parts(queries.shape)
    if more:
        return _spread_in_parts(queries, keys, grid, field, alpha, random)
    search = _Search(queries.vectors(whole), keys, grid, field, alpha, _untried(keys))
    for step, radius in ROUNDS:
        search.round(step, radius, random)
    return search.field


def _spread_in_parts(
    queries: Queries, keys: Tensor, grid: Grid, field: Tensor, alpha: float, random: torch.Generator
) -> Tensor:
    """`spread_field` of a video whose vectors are made a part at a time, anew in each round.

    In a round every part begins with the field of the round before, and is searched together with what is around it, as
    far as the round's jumps reach. So across a border of parts a patch is offered what it is offered in one search of
    the whole. At an edge of the video it is offered what the opposite edge has: of the whole, or here of the part.
    The minimum over the queries is over two kinds of pairs: those of the rounds before in all parts (at first those of
    `field`), and those of this round in the part itself. So no part comes before another; only what is drawn at random
    follows their order.
    """
    nearest = _untried(keys)
    for box in in_parts(queries.shape):
        nearest = _Search(queries.vectors(box), keys, grid, field[box], alpha, nearest).nearest
    for step, radius in ROUNDS:
        better, tried, reach = torch.empty_like(field), nearest, jumps_of(step)
        for box in in_parts(queries.shape, reach):
            wide = surrounded(box, reach, queries.shape)
            search = _Search(queries.vectors(wide), keys, grid, field[wide], alpha, nearest)
            search.round(step, radius, random)
            better[box] = search.field[inside(box, wide)]
            tried = torch.minimum(tried, search.nearest)
            del search  # before the next part's vectors are made
        field, nearest = better, tried
    return field


def _untried(keys: Tensor) -> Tensor:
    """The minimum of each key over no query: (N,)."""
    return keys.new_full((len(keys),), math.inf)


def jumps_of(step: int) -> tuple[int, int, int]:
    """Frames, rows and columns to the neighbours of a round; a clip has few frames."""
    return min(step, 2), step, step


def _from_neighbour(places: Tensor, axis: int, distance: int) -> Tensor:
    """What a patch would have if it lay in the clip beside its neighbour's as it lies beside the neighbour."""
    moved = places.roll(distance, dims=axis + 1)
    moved[axis + 1] += distance
    return moved


def reach_of(radius: int) -> tuple[int, int, int]:
    """How far around its own place a patch is tried in a round: frames, rows and columns."""
    return min(radius, 1), radius, radius


def _around(places: Tensor, reach: Sequence[int], random: torch.Generator) -> Tensor:
    """Random displacements of up to `reach` frames, rows and columns; none between chunks."""
    shape = places.shape[1:]
    drawn = [torch.randint(-far, far + 1, shape, generator=random) for far in reach]
    return torch.stack([torch.zeros(shape, dtype=torch.long), *drawn]).to(places.device)


class _Search:
    """The best key so far of every query of a part.

    Attributes:
        nearest: (N,), of each key, over the queries that tried it.
    """

    def __init__(self, queries: Tensor, keys: Tensor, grid: Grid, field: Tensor, alpha: float, nearest: Tensor) -> None:
        """queries: (t, h, w, D); field: (t, h, w), where to begin; nearest: of pairs that were tried before."""
        self._rows, self._keys, self._grid, self._alpha = queries.flatten(0, 2), keys, grid, alpha
        self._places = places(field, grid)
        self._best = field.flatten().long()
        self._distance = self._distances(self._best)
        self.nearest = nearest.scatter_reduce(0, self._best, self._distance, "amin")

    @property
    def field(self) -> Tensor:
        """The best keys: (t, h, w)."""
        return self._best.reshape(self._places.shape[1:]).to(self._grid.kind)

    def round(self, step: int, radius: int, random: torch.Generator) -> None:
        """Try what neighbours offer that are `step` away, then places up to `radius` around the own one."""
        for axis, jump in enumerate(jumps_of(step)):
            if jump < self._places.shape[axis + 1]:
                for distance in (jump, -jump):
                    self._consider(_from_neighbour(self._places, axis, distance))
        self._consider(self._places + _around(self._places, reach_of(radius), random))

    def _distances(self, numbers: Tensor) -> Tensor:
        """Squared distance of each query to one key."""
        found = torch.empty_like(self._rows[:, 0])
        for rows, some, out in zip(self._rows.split(QUERIES), numbers.split(QUERIES), found.split(QUERIES)):
            torch.linalg.vector_norm(self._keys.index_select(0, some).sub_(rows), dim=1, out=out)
        return found.square_()

    def _consider(self, others: Tensor) -> None:
        """Take of other places what is better; those beyond a chunk are moved into it."""
        stop_if_unwanted()
        clamp(others, self._grid)
        numbers = index(others, self._grid).reshape(-1)
        distance = self._distances(numbers)
        self.nearest.scatter_reduce_(0, numbers, distance, "amin")
        score = distance * (self._alpha + self.nearest[self._best])  # both sides times both denominators
        better = score < self._distance * (self._alpha + self.nearest[numbers])
        self._best = torch.where(better, numbers, self._best)
        self._distance = torch.where(better, distance, self._distance)
        self._places = torch.where(better.reshape(self._places.shape[1:]), others, self._places)

"""The search of patches, and the video that is made of them, as loops that torch can write down.

A program that torch.export writes has no loop of Python in it, and a pass of patches as a row of operations would be
thousands of them. These are `model/patches/match.py` and `refine.py`'s `assemble` with torch's `while_loop`, to the
bit. They run only in programs: as Python calls them, one operation after the other, they are slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop_op

from model.patches.field import Grid, Size, index, places
from model.patches.match import HOST_PAIRS, ROUNDS, Queries, jumps_of
from model.patches.refine import SMALLEST_EXPONENT
from model.patches.space import Patch


def exact_field(queries: Queries, keys: Tensor, grid: Grid, alpha: float) -> Tensor:
    """See `match.exact_field`."""
    rows = _vectors(queries)
    at_once = min(len(rows), max(1, HOST_PAIRS // len(keys)))
    times = len(rows) // at_once
    parts, rest = rows[: times * at_once].reshape(times, at_once, -1), rows[times * at_once :]
    squares = keys.square().sum(dim=1)

    def compared(nearest: Tensor, part: Tensor, keys: Tensor, squares: Tensor) -> Tensor:
        distances = torch.addmm(squares, part, keys.T, alpha=-2) + part.square().sum(dim=1, keepdim=True)
        return torch.minimum(nearest, distances.amin(dim=0))

    def compare(i: Tensor, nearest: Tensor, parts: Tensor, keys: Tensor, squares: Tensor) -> tuple[Tensor, ...]:
        return (compared(nearest, _at(parts, i), keys, squares),)

    (nearest,) = _repeated(times, compare, [squares.new_full((len(keys),), math.inf)], [parts, keys, squares])
    if len(rest):
        nearest = compared(nearest, rest, keys, squares)
    weight = 1 / (alpha + nearest.clamp(min=0))
    given = [keys * weight[:, None], squares * weight, weight]

    def lowest(part: Tensor, weighted: Tensor, squares: Tensor, weight: Tensor) -> Tensor:
        scores = torch.addmm(squares, part, weighted.T, alpha=-2)
        return torch.addr(scores, part.square().sum(dim=1), weight).argmin(dim=1)

    def choose(i: Tensor, best: Tensor, parts: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        return (best.index_copy(0, i.reshape(1), lowest(_at(parts, i), *given)[None]),)

    (best,) = _repeated(times, choose, [torch.zeros((times, at_once), dtype=torch.long)], [parts, *given])
    best = best.reshape(-1)
    if len(rest):
        best = torch.cat([best, lowest(rest, *given)])
    return best.reshape(queries.shape).to(grid.kind)


def spread_field(queries: Queries, keys: Tensor, grid: Grid, field: Tensor, alpha: float, around: Tensor) -> Tensor:
    """See `match.spread_field`.

    Args: around: (3 · rounds, T', H', W'), the random displacements along frames, rows and columns of every round.
    """
    shape = queries.shape
    frames, height, width = shape
    moves, which = [], []  # where each query asks, and the round whose displacements are added
    for number, (step, _) in enumerate(ROUNDS):
        for axis, jump in enumerate(jumps_of(step)):
            if jump < shape[axis]:
                moves += [[by if i == axis else 0 for i in range(3)] for by in (jump, -jump)]
                which += [len(ROUNDS)] * 2
        moves.append([0, 0, 0])
        which.append(number)
    rows = _vectors(queries)
    none = torch.zeros((1, 3, len(rows)), dtype=torch.long)
    added = torch.cat([around.reshape(len(ROUNDS), 3, -1), none])
    at = torch.arange(len(rows))
    own = torch.stack([at // (width * height), at // width % height, at % width])
    best = field.reshape(-1).long()
    distance = _distances(rows, keys, best)
    nearest = keys.new_full((len(keys),), math.inf).scatter_reduce(0, best, distance, "amin")

    def consider(
        i: Tensor, found: Tensor, best: Tensor, distance: Tensor, nearest: Tensor, *given: Tensor
    ) -> tuple[Tensor, ...]:
        rows, keys, own, moves, which, added = given
        move = _at(moves, i)
        f, y, x = own - move[:, None]
        taken = found.index_select(1, (f % frames * height + y % height) * width + x % width)
        place = taken[1:] + _at(added, _at(which, i)) + move[:, None]
        inside = [along.clamp(0, side - 1) for along, side in zip(place, grid.shape, strict=True)]
        other = torch.stack([taken[0], *inside])
        numbers = index(other, grid)
        far = _distances(rows, keys, numbers)
        nearest = nearest.scatter_reduce(0, numbers, far, "amin")
        score = far * (alpha + nearest.index_select(0, best))
        better = score < distance * (alpha + nearest.index_select(0, numbers))
        found = torch.where(better, other, found)
        return found, torch.where(better, numbers, best), torch.where(better, far, distance), nearest

    carried = [places(best, grid), best.clone(), distance, nearest]
    given = [rows, keys, own, torch.tensor(moves), torch.tensor(which), added]
    _, best, *_ = _repeated(len(moves), consider, carried, given)
    return best.reshape(shape).to(grid.kind)


def _vectors(queries: Queries) -> Tensor:
    """Of all of them at once: (N, D)."""
    t, h, w = (slice(0, side) for side in queries.shape)
    return queries.vectors((t, h, w)).flatten(0, 2)


def _distances(rows: Tensor, keys: Tensor, numbers: Tensor) -> Tensor:
    return torch.linalg.vector_norm(keys.index_select(0, numbers) - rows, dim=1).square()


def assemble(values: Tensor, found: Tensor, size: Size, patch: Patch, bandwidth: float | None = None) -> Tensor:
    """See `refine.assemble`."""
    channels, frames, rows, columns = values.shape[1:]
    chunk, t, y, x = places(found, Grid(len(values), (frames, rows, columns), patch))
    first = (((chunk * frames + t) * rows + y) * columns + x).reshape(-1)
    count, height, width = found.shape
    at = torch.arange(math.prod(size))
    pixels = torch.stack([at // (size[1] * size[2]), at // size[2] % size[1], at % size[2]])
    given = [values.movedim(1, 0).reshape(channels, -1), first, pixels]

    def vote(i: Tensor, colours: Tensor, first: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The colour that each pixel has in the patch of which it is pixel i, and whether there is one."""
        place = [i // (patch[1] * patch[2]), i // patch[2] % patch[1], i % patch[2]]
        of = [along - by for along, by in zip(pixels, place, strict=True)]
        sides = (count, height, width)
        there = [(along >= 0) & (along < side) for along, side in zip(of, sides, strict=True)]
        t, y, x = (along.clamp(0, side - 1) for along, side in zip(of, sides, strict=True))
        began = first.index_select(0, (t * height + y) * width + x)
        colour = colours.index_select(1, began + (place[0] * rows + place[1]) * columns + place[2])
        return colour, there[0] & there[1] & there[2]

    def add(i: Tensor, total: Tensor, votes: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        colour, there = vote(i, *given)
        return torch.where(there, total + colour, total), votes + there

    nothing = values.new_zeros((channels, len(at)))
    total, votes = _repeated(math.prod(patch), add, [nothing, nothing[0].clone()], given)
    mean = total / votes
    if bandwidth is not None:
        scale = -0.5 / bandwidth**2

        def shift(i: Tensor, total: Tensor, weights: Tensor, mean: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
            colour, there = vote(i, *given)
            exponent = (mean - colour).square().mean(dim=0, keepdim=True) * scale
            weight = torch.where(there, exponent.clamp_min(SMALLEST_EXPONENT).exp(), 0)
            return torch.addcmul(total, colour, weight), weights + weight

        carried = [nothing.clone(), nothing[:1].clone()]
        total, weights = _repeated(math.prod(patch), shift, carried, [mean, *given])
        mean = total / weights
    return mean.reshape(1, channels, *size)


def _at(tensors: Tensor, i: Tensor) -> Tensor:
    """tensors[i], where i is a tensor."""
    return tensors.index_select(0, i.reshape(1))[0]


def _repeated(
    times: int, body: Callable[..., tuple[Tensor, ...]], carried: Sequence[Tensor], given: Sequence[Tensor]
) -> Any:
    """`carried = body(i, *carried, *given)` for i in range(times).

    What a body takes of tensors must be in `carried` or `given`: torch's own wrapper runs its compiler to find the
    others.
    """

    def goes_on(i: Tensor, *more: Tensor) -> Tensor:
        return i < times

    def once(i: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        return (i + 1, *body(i, *more))

    begun: Any = (torch.zeros((), dtype=torch.long), *carried)
    return while_loop_op(goes_on, once, begun, tuple(given))[1:]

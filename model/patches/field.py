"""Nearest-neighbour fields: for every patch of a video, the number of one patch of the clip.

A field of a whole video is kept, one number a patch: (T', H', W'). The places that the numbers stand for are four
int64 a patch, and are made a part of the video at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.boxes import Box, parts
from model.patches.space import Patch

Size = Sequence[int]  # (T, H, W)
# Patches, or pixels, of a video that are worked on at once, with what is around them. The vectors of so many patches
# are 256 MiB, and three times that while they are made. No preset that makes patches has a clip of half as many.
PART = 2**21


@dataclass(frozen=True)
class Grid:
    """Where the patches of a clip are: its chunks are of one size."""

    chunks: int
    size: tuple[int, int, int]  # of a chunk, (T, H, W)
    patch: Patch

    @property
    def shape(self) -> tuple[int, int, int]:
        """Patches of a chunk along frames, height and width."""
        t, h, w = (side - patch + 1 for side, patch in zip(self.size, self.patch, strict=True))
        return t, h, w

    def __len__(self) -> int:
        t, h, w = self.shape
        return self.chunks * t * h * w

    @property
    def kind(self) -> torch.dtype:
        """Of the numbers of a field."""
        return torch.int32 if len(self) < 2**31 else torch.int64


def fits(size: Size, patch: Patch) -> bool:
    """Whether a video of `size` holds a patch."""
    return all(side >= part for side, part in zip(size, patch, strict=True))


def in_parts(size: Size, halo: Size = (0, 0, 0)) -> list[Box]:
    """The parts of a volume of patches or pixels that are worked on one after the other: one where it is small."""
    return parts(size, halo, PART)


def index(places: Tensor, grid: Grid) -> Tensor:
    """Numbers of patches, in order of chunk, frame, row, column: (4, …) → (…)."""
    _, rows, columns = grid.shape
    chunk, t, y, x = places
    return ((chunk * grid.shape[0] + t) * rows + y) * columns + x


def places(numbers: Tensor, grid: Grid) -> Tensor:
    """Inverse of `index`: (…) → (4, …) int64: chunk, frame, row, column."""
    frames, rows, columns = grid.shape
    numbers = numbers.long()
    x, rest = numbers % columns, numbers // columns
    y, rest = rest % rows, rest // rows
    return torch.stack([rest // frames, rest % frames, y, x])


def scattered(shape: Size, grid: Grid, random: torch.Generator) -> Tensor:
    """A field drawn at random: (*shape)."""
    return torch.randint(len(grid), tuple(shape), generator=random, dtype=grid.kind)


def clamp(places: Tensor, grid: Grid) -> Tensor:
    """Places beyond a chunk, moved to its nearest patch; in place."""
    for axis, side in enumerate(grid.shape, 1):
        places[axis].clamp_(0, side - 1)
    return places


def carry(field: Tensor, below: Size, size: Size, keys_below: Grid, keys: Grid) -> Tensor:
    """The field of a video, for the same video enlarged and the clip's next scale.

    A patch of the enlarged video takes the neighbour of the patch that its centre was in, and as far from it in the
    clip as it was from that patch's centre.

    Args:
        field: (T', H', W') of a video of size `below`, in `keys_below`.
        size: of the enlarged video. Corners coincide, as everywhere in a pyramid.

    Returns (T'', H'', W'') in `keys`.
    """
    device = field.device
    taken, offsets = [], []
    half = [(side - 1) / 2 for side in keys.patch]
    for axis in range(3):
        centres = torch.arange(size[axis] - keys.patch[axis] + 1, device=device) + half[axis]
        exact = centres * ((below[axis] - 1) / max(size[axis] - 1, 1)) - half[axis]
        nearest = exact.round().clamp(0, field.shape[axis] - 1)
        taken.append(nearest.long())
        offsets.append(exact - nearest)
    carried = torch.empty([len(along) for along in taken], dtype=keys.kind, device=device)
    for box in in_parts(carried.shape):
        frames, rows, columns = (along[side] for along, side in zip(taken, box, strict=True))
        found = places(field[frames][:, rows][:, :, columns], keys_below)
        moved = [found[0]]
        for axis, side in enumerate(box):
            shape = [-1 if i == axis else 1 for i in range(3)]
            centre = found[axis + 1] + half[axis] + offsets[axis][side].reshape(shape)
            ratio = (keys.size[axis] - 1) / max(keys_below.size[axis] - 1, 1)
            moved.append((centre * ratio - half[axis]).round().long())
        carried[box] = index(clamp(torch.stack(moved), keys), keys).to(keys.kind)
    return carried


def share_in_place(places: Tensor, chunks: int, reach: int) -> Tensor:
    """How much of a video is a chunk of the clip where it was: the share of its patches that come from one chunk, and
    from up to `reach` pixels beside their own place in the picture, at any time. The largest over the chunks.

    Args: places: (4, T', H', W') of a video as large as the clip; chunks: how many the clip has.

    Returns (), float64.
    """
    chunk, _, y, x = places
    rows = torch.arange(y.shape[1], device=y.device)[:, None]
    columns = torch.arange(x.shape[2], device=x.device)
    in_place = ((y - rows).abs() <= reach) & ((x - columns).abs() <= reach)
    counts = torch.zeros(chunks, device=chunk.device).index_add_(0, chunk.reshape(-1), in_place.reshape(-1).float())
    return counts.max().double() / chunk.numel()

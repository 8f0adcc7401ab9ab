"""A volume in boxes: what does not fit into memory as a whole is computed one box at a time, with what is around it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import product

SLACK = 1.1  # halos may cost this much more than they must, if that makes frames earlier

Box = tuple[slice, slice, slice]  # in T, H and W
Size = tuple[int, int, int]  # (T, H, W)


@functools.lru_cache  # asked for at every depth of a generator, and in every pass of patches
def cut(size: Size, halo: Size, limit: int, *, padded: bool = True) -> list[list[Box]]:
    """Boxes that fill a volume of `size` without overlap, none with more than `limit` voxels with the halo around it.

    Of all regular cuts whose boxes have, halos included, at most SLACK times the fewest voxels, it is the one with the
    shortest runs of frames, so that frames are done early; of these the one with the fewest voxels, then boxes.

    Args:
        halo: frames, rows and columns on each side of a box, but not beyond the volume.
        limit: voxels.
        padded: whether there is nothing beyond the volume; else its boxes have their halo there too.

    Returns one list of boxes for each run of frames, in order. Raises ValueError if that cannot be.
    """
    lengths = [sorted({math.ceil(side / count) for count in range(1, side + 1)}) for side in size]
    found: list[tuple[int, int, tuple[int, ...]]] = []  # voxels of all boxes with their halos, number of boxes, a box
    for box in product(*lengths):
        axes = list(zip(size, box, strict=True))
        wide = [length + 2 * around for length, around in zip(box, halo, strict=True)]
        if math.prod(map(min, size, wide) if padded else wide) <= limit:
            counts = [math.ceil(side / length) for side, length in axes]
            voxels = math.prod(
                side + 2 * around * (count - 1) for side, around, count in zip(size, halo, counts, strict=True)
            )
            found.append((voxels, math.prod(counts), box))
    if not found:
        raise ValueError(f"limit={limit}: fewer voxels than one with {max(halo)} on every side")
    most = SLACK * min(found)[0]
    *_, box = min((cut for cut in found if cut[0] <= most), key=lambda cut: (cut[2][0], cut))
    frames, rows, columns = (
        [slice(start, min(start + length, side)) for start in range(0, side, length)]
        for side, length in zip(size, box, strict=True)
    )
    return [list(product([t], rows, columns)) for t in frames]


def parts(size: Sequence[int], halo: Sequence[int], limit: int) -> list[Box]:
    """The whole volume where it has at most `limit` voxels, else the boxes of `cut`, in order."""
    frames, rows, columns = size
    if math.prod(size) <= limit:
        return [(slice(0, frames), slice(0, rows), slice(0, columns))]
    t, h, w = halo
    return [box for run in cut((frames, rows, columns), (t, h, w), limit) for box in run]


def surrounded(box: Box, halo: Sequence[int], size: Sequence[int]) -> Box:
    """A box with a halo on each side, but not beyond the volume."""
    frames, rows, columns = (
        slice(max(side.start - around, 0), min(side.stop + around, end))
        for side, around, end in zip(box, halo, size, strict=True)
    )
    return frames, rows, columns


def inside(box: Box, wide: Box) -> Box:
    """Where in a larger box a box is."""
    frames, rows, columns = (slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, wide, strict=True))
    return frames, rows, columns

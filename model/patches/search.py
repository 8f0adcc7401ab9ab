"""Exact search of nearest patches: of each patch of a sample, the nearest of all patches of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from infra.errors import Refusal

PATCH = 3  # pixels and frames of a side (SinFusion §7.2); an image has one frame, and patches of 1×3×3
# Patches of the sample, and of the clip, compared at a time. With it a search holds less than 150 MiB beside the two
# videos and the field, whatever their sizes.
CHUNK = 2048
TIE = 1e-10  # squared distances this near are equal; of equally near patches the first of the clip is taken


def patch_sides(size: Sequence[int]) -> tuple[int, int, int]:
    """Frames, height and width of a patch of a video of (T, H, W); of an image, which has one frame, 1×3×3."""
    return (1 if size[0] == 1 else PATCH, PATCH, PATCH)


def patches_of(video_cthw: Tensor, step: int) -> Tensor:
    """A view of every `step`-th patch: (3, T, H, W) → (T', H', W', 3, *patch_sides)."""
    sides = patch_sides(video_cthw.shape[1:])
    if any(side < part for side, part in zip(video_cthw.shape[1:], sides)):
        raise Refusal(f"patches of {PATCH} frames and pixels need a larger video than {tuple(video_cthw.shape)}")
    for dim, side in zip((1, 2, 3), sides):
        video_cthw = video_cthw.unfold(dim, side, step)
    return video_cthw.movedim(0, 3)


def error_float32(values: int) -> float:
    """By how much |k|² - 2 q·k of patches of so many values can be off in float32; in float64 it is 3e-12 of 81.

    Values are in [-1, 1]: |k|² sums to at most their number, and |k|² - 2 q·k then sums terms of at most three times
    that. A sum of n terms in any order is off by at most n × the unit round-off × the sum of their sizes (Higham 2002,
    §4.2).
    """
    return (values + 1) * 2.0**-24 * 4 * values  # 1.6e-3 of 81


def unravelled(places: Tensor, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """The index in each dimension of places that are counted in order, as `torch.unravel_index`, whose first call
    imports sympy and takes a second."""
    indices = []
    for side in reversed(shape):
        indices.append(places % side)
        places = places // side
    return tuple(reversed(indices))


def read_patches(patches: Tensor, part: slice) -> Tensor:
    """Some of the patches, counted in order of frame, row, column: (n, values) float32."""
    places = unravelled(torch.arange(part.start, part.stop), patches.shape[:3])
    return patches[places].reshape(part.stop - part.start, -1)


def nearest_patches(queries: Tensor, keys: Tensor) -> Tensor:
    """Place of the key nearest to each query, counted as in `read_patches`.

    (queries, values), keys of `patches_of` → (queries,).

    |q − k|² is compared without |q|², which is the same for all keys.
    """
    total = keys.shape[:3].numel()
    parts = [slice(start, min(start + CHUNK, total)) for start in range(0, total, CHUNK)]
    products = torch.empty(len(queries), CHUNK)
    lowest = torch.empty(len(queries), len(parts))
    for n, part in enumerate(parts):
        some = read_patches(keys, part)
        out = products[:, : len(some)]
        lowest[:, n] = torch.addmm(some.square().sum(dim=1), queries, some.T, alpha=-2, out=out).amin(dim=1)

    possible = lowest <= lowest.amin(dim=1, keepdim=True) + 2 * error_float32(queries.shape[1])
    best = torch.full((len(queries),), torch.inf, dtype=torch.float64)
    index = torch.zeros(len(queries), dtype=torch.long)
    for n, part in enumerate(parts):
        rows = possible[:, n].nonzero().squeeze(1)
        if len(rows) == 0:
            continue
        some = read_patches(keys, part).double()
        exact = torch.addmm(some.square().sum(dim=1), queries[rows].double(), some.T, alpha=-2)
        nearest = exact.amin(dim=1, keepdim=True)
        first = (exact <= nearest + TIE).byte().argmax(dim=1)
        closer = nearest.squeeze(1) < best[rows] - TIE
        best[rows[closer]] = nearest.squeeze(1)[closer]
        index[rows[closer]] = first[closer] + part.start
    return index

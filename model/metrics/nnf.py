"""The nearest-neighbour field of a sample: which patch of the real clip each of its patches comes from, and how near.

SinFusion (Nikankin, Haim, Irani 2023) §7.2; beyond hp-VAE-GAN's own metrics (PAPER.md §5).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.metrics.features import Video, checked_video, one_thread

PATCH = 3  # pixels and frames of a side (SinFusion §7.2)
VALUES = 3 * PATCH**3  # of one patch: 81
# Patches of the sample, and of the clip, compared at a time. With it a search holds less than 150 MiB beside the two
# videos and the field, whatever their sizes.
CHUNK = 2048
# Values are in [-1, 1]: |k|² sums to at most 81, and |k|² - 2 q·k then sums terms of at most 3 · 81. A sum of n terms
# in any order is off by at most n × the unit round-off × the sum of their sizes (Higham 2002, §4.2), so the two steps
# by this much in float32, and by 3e-12 in float64.
ERROR_FLOAT32 = (VALUES + 1) * 2.0**-24 * 4 * VALUES  # 1.6e-3
TIE = 1e-10  # squared distances this near are equal; of equally near patches the first of the clip is taken


@dataclass(frozen=True, kw_only=True, eq=False)  # arrays have no single truth value to compare by
class NearestNeighbourField:
    """For every `step`-th 3×3×3 patch of a sample, the nearest of all 3×3×3 patches of the real clip.

    Attributes:
        displacement: int32 (3, T', H', W'): (dt, dy, dx) from a patch to its nearest neighbour, frames and pixels.
            T' = (T - 3) // step + 1, and so on. Constant for a translation of the clip, 0 for the clip itself.
        distance: float32 (T', H', W'), to that neighbour: root mean square over the 81 values, so black to white is 2.
        step: 1 for a patch at every position, 3 for patches side by side.
    """

    displacement: np.ndarray
    distance: np.ndarray
    step: int

    @property
    def nn_distance(self) -> float:
        """Mean distance over the patches side by side, so that each pixel counts once; in [0, 2]."""
        every = PATCH // self.step
        return float(self.distance[::every, ::every, ::every].mean(dtype=np.float64))


def nearest_neighbour_field(sample_cthw: Video, real_cthw: Video, step: int = 1) -> NearestNeighbourField:
    """Search the clip for the nearest neighbour of a sample's patches.

    Exact: float32 products leave only the parts of the clip that may hold the nearest patch, in float64 products over
    those every squared distance is right to 3e-12, and the distance returned is taken from the two patches themselves.
    Of patches that are equally near (to 1e-10 in squared distance, 1e-6 in `distance`) the first one of the clip is
    taken, in order of frame, row, column.

    Always runs on one CPU thread, for the reason given at `features.Lite0Features`. All of 13×54×96 against as much is
    9 s of one core of a cloud CPU; time grows with the sample's patches × the clip's.

    Args:
        sample_cthw: float RGB in [-1, 1], (3, T, H, W), every side at least 3. Overshoots are clipped.
        real_cthw: the same kind; its size may differ.
        step: 1 or 3. 3 takes patches side by side, 27 times fewer, with up to two pixels or frames at each far border
            left over: enough for `nn_distance`, which is the same number with 1.

    Raises:
        TypeError, ValueError: not such videos (see `checked_video`), a side below 3, or another step.
    """
    if step not in (1, PATCH):
        raise ValueError(f"step must be 1 (every position) or {PATCH} (side by side), got {step}")
    queries = _patches(checked_video(sample_cthw, ndim=4).cpu(), step)
    keys = _patches(checked_video(real_cthw, ndim=4).cpu(), 1)
    shape = queries.shape[:3]
    total = shape.numel()
    places, distances = torch.empty(3, total, dtype=torch.int32), torch.empty(total)
    with torch.inference_mode(), one_thread():
        for start in range(0, total, CHUNK):
            chunk = slice(start, min(start + CHUNK, total))
            values = _read(queries, chunk)
            nearest = torch.unravel_index(_nearest(values, keys), keys.shape[:3])
            places[:, chunk] = torch.stack(nearest).int()
            distances[chunk] = (values - keys[nearest].reshape(-1, VALUES)).square().mean(dim=1).sqrt()
    own = step * torch.stack(torch.meshgrid([torch.arange(side) for side in shape], indexing="ij")).int()
    displacement = places.reshape(3, *shape) - own
    return NearestNeighbourField(
        displacement=displacement.numpy(), distance=distances.reshape(shape).numpy(), step=step
    )


def nearest_neighbour_distance(sample_cthw: Video, real_cthw: Video) -> float:
    """Mean over the sample's 3×3×3 patches, side by side, of the distance to the nearest 3×3×3 patch of the real clip.

    A copy of any part of the clip scores 0, blur and noise score high. SinFusion's NNFDIST differs: mean *square*
    distance, over the patches at every position. Arguments and errors as of `nearest_neighbour_field`.

    Returns:
        Distance in [0, 2]: root mean square over the values of a patch, RGB in [-1, 1].
    """
    return nearest_neighbour_field(sample_cthw, real_cthw, step=PATCH).nn_distance


def nnfdiv(field: NearestNeighbourField) -> float:
    """NNFDIV: compressed size of the displacement field / its raw size. SinFusion §7.2, Table 1.

    §7.2 names ZLIB and gives no type. As in its authors' published code (nnf_diversity): one byte a component, modulo
    256, the planes dt, dy, dx one after the other, zlib at its default level. Modulo 256 loses nothing for a clip of up
    to 258 frames or pixels a side, where the patch's own place and the byte give the neighbour's.

    Args:
        field: of step 1. A coarser field is another picture, with another ratio.

    Returns:
        No unit; near 0 for a copy or a translation of the clip. How high it can come depends on the size, as
        components fill a byte only from 258 frames or pixels a side on: places drawn at random give 0.76 at 13×54×96.
        High values come from new arrangements, and from noise: read it with `nn_distance`.

    Raises:
        ValueError: a field of another step.
    """
    if field.step != 1:
        raise ValueError(f"nnfdiv needs the field at every position (step 1), got one of step {field.step}")
    raw = field.displacement.astype(np.uint8).tobytes()
    return len(zlib.compress(raw)) / len(raw)


def _patches(video_cthw: Tensor, step: int) -> Tensor:
    """A view of every `step`-th 3×3×3 patch: (3, T, H, W) → (T', H', W', 3, 3, 3, 3)."""
    if min(video_cthw.shape[1:]) < PATCH:
        raise ValueError(f"patches of {PATCH} frames and pixels need a larger video than {tuple(video_cthw.shape)}")
    for dim in (1, 2, 3):
        video_cthw = video_cthw.unfold(dim, PATCH, step)
    return video_cthw.movedim(0, 3)


def _read(patches: Tensor, part: slice) -> Tensor:
    """Some of the patches, counted in order of frame, row, column: (n, 81) float32."""
    return patches[torch.unravel_index(torch.arange(part.start, part.stop), patches.shape[:3])].reshape(-1, VALUES)


def _nearest(queries: Tensor, keys: Tensor) -> Tensor:
    """Place of the key nearest to each query, counted as in `_read`: (queries, 81), `_patches` → (queries,).

    |q − k|² is compared without |q|², which is the same for all keys.
    """
    total = keys.shape[:3].numel()
    parts = [slice(start, min(start + CHUNK, total)) for start in range(0, total, CHUNK)]
    products = torch.empty(len(queries), CHUNK)
    lowest = torch.empty(len(queries), len(parts))
    for n, part in enumerate(parts):
        some = _read(keys, part)
        out = products[:, : len(some)]
        lowest[:, n] = torch.addmm(some.square().sum(dim=1), queries, some.T, alpha=-2, out=out).amin(dim=1)

    possible = lowest <= lowest.amin(dim=1, keepdim=True) + 2 * ERROR_FLOAT32
    best = torch.full((len(queries),), torch.inf, dtype=torch.float64)
    index = torch.zeros(len(queries), dtype=torch.long)
    for n, part in enumerate(parts):
        rows = possible[:, n].nonzero().squeeze(1)
        if len(rows) == 0:
            continue
        some = _read(keys, part).double()
        exact = torch.addmm(some.square().sum(dim=1), queries[rows].double(), some.T, alpha=-2)
        nearest = exact.amin(dim=1, keepdim=True)
        first = (exact <= nearest + TIE).byte().argmax(dim=1)
        closer = nearest.squeeze(1) < best[rows] - TIE
        best[rows[closer]] = nearest.squeeze(1)[closer]
        index[rows[closer]] = first[closer] + part.start
    return index

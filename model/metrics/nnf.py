"""The nearest-neighbour field of a sample: which patch of the real clip each of its patches comes from, and how near.

SinFusion (Nikankin, Haim, Irani 2023) §7.2; beyond hp-VAE-GAN's own metrics.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch

from model.device import on_threads
from model.metrics.features import Video, checked_video
from model.patches import search
from model.patches.search import PATCH, nearest_patches, patches_of, read_patches, unravelled


@dataclass(frozen=True, kw_only=True, eq=False)  # arrays have no single truth value to compare by
class NearestNeighbourField:
    """For every `step`-th 3×3×3 patch of a sample, the nearest of all 3×3×3 patches of the real clip.

    Of images, which have one frame, patches are 1×3×3.

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

    Always runs on one CPU thread, for the reason given at `lite0.Lite0Features`. All of 13×54×96 against as much is
    9 s of one core of a cloud CPU; time grows with the sample's patches × the clip's.

    Args:
        sample_cthw: float RGB in [-1, 1], (3, T, H, W), every side at least 3. Overshoots are clipped.
        real_cthw: the same kind; its size may differ.
        step: 1 or 3. 3 takes patches side by side, 27 times fewer, with up to two pixels or frames at each far border
            left over: enough for `nn_distance`, which is the same number with 1.

    Raises:
        TypeError, ValueError: not such videos (see `checked_video`), a side below 3, another step, or an image and a
            video.
    """
    if step not in (1, PATCH):
        raise ValueError(f"step must be 1 (every position) or {PATCH} (side by side), got {step}")
    sample, real = checked_video(sample_cthw, ndim=4).cpu(), checked_video(real_cthw, ndim=4).cpu()
    if (sample.shape[1] == 1) != (real.shape[1] == 1):
        raise ValueError("an image and a video cannot be compared: one has no patches in time")
    queries, keys = patches_of(sample, step), patches_of(real, 1)
    shape = queries.shape[:3]
    total = shape.numel()
    places, distances = torch.empty(3, total, dtype=torch.int32), torch.empty(total)
    with torch.inference_mode(), on_threads(1):
        for start in range(0, total, search.CHUNK):
            chunk = slice(start, min(start + search.CHUNK, total))
            values = read_patches(queries, chunk)
            nearest = unravelled(nearest_patches(values, keys), keys.shape[:3])
            places[:, chunk] = torch.stack(nearest).int()
            distances[chunk] = (values - keys[nearest].reshape(len(values), -1)).square().mean(dim=1).sqrt()
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


def coherence(field: NearestNeighbourField) -> float:
    """How much is copied in large pieces: the share of neighbouring patches that come from neighbouring patches.

    A pair is a patch and the next one along frames, height or width. It counts if both have the same displacement.

    Args:
        field: of step 1.

    Returns:
        From 0 to 1: 1 for a copy or a translation of the clip, near 0 for noise.

    Raises:
        ValueError: a field of another step, or of one patch.
    """
    if field.step != 1:
        raise ValueError(f"coherence needs the field at every position (step 1), got one of step {field.step}")
    same = pairs = 0
    for axis in (1, 2, 3):
        equal = (np.diff(field.displacement, axis=axis) == 0).all(axis=0)
        same, pairs = same + int(equal.sum()), pairs + equal.size
    if not pairs:
        raise ValueError("coherence needs two patches, got a field of one")
    return same / pairs


def nnfdiv(field: NearestNeighbourField) -> float:
    """NNFDIV: compressed size of the displacement field / its raw size. SinFusion §7.2, Table 1.

    §7.2 names ZLIB and gives no type. As in its authors' published code (nnf_diversity): one byte a component, modulo
    256, the planes dt, dy, dx one after the other, zlib at its default level. Modulo 256 loses nothing for a clip of up
    to 258 frames or pixels a side, where the patch's own place and the byte give the neighbour's. Their field is
    PatchMatch's, ours is exact: of the same videos this gives 4 % more than the published code.

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

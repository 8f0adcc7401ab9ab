"""How far the patches of a sample are from the nearest patches of the real clip."""

from __future__ import annotations

import torch
from torch import Tensor

from model.metrics.features import Video, checked_video

PATCH = 3  # pixels and frames of a side (SinFusion §7.2)
# Distances in memory at a time: 2048 × 8192 float32 are 64 MiB.
QUERIES, KEYS = 2048, 8192


def nearest_neighbour_distance(sample_cthw: Video, real_cthw: Video) -> float:
    """Mean over the sample's 3×3×3 patches of the distance to the nearest 3×3×3 patch of the real clip.

    The sample is cut into patches side by side, so that each pixel counts once (up to two at each far border are left
    over); the real clip offers a patch at every position. Distance: root mean square over the 81 values, RGB in
    [-1, 1], so black to white is 2. A copy of any part of the clip scores 0, blur and noise score high.
    PAPER.md §5; the field is that of SinFusion (Nikankin et al. 2023) §7.2.

    Args:
        sample_cthw: float RGB in [-1, 1], (3, T, H, W), every side at least 3. Overshoots are clipped.
        real_cthw: the same kind; its size may differ.

    Returns:
        Distance in [0, 2]. Exact: the products that find the neighbour are float32, the distance to it is not taken
        from them.

    Raises:
        TypeError, ValueError: not such videos (see `checked_video`), or a side below 3.
    """
    queries = _patches(checked_video(sample_cthw, ndim=4), step=PATCH)
    keys = _patches(checked_video(real_cthw, ndim=4), step=1)
    distances = [(chunk - keys[_nearest(chunk, keys)]).square().mean(dim=1).sqrt() for chunk in queries.split(QUERIES)]
    return torch.cat(distances).double().mean().item()


def _patches(video_cthw: Tensor, step: int) -> Tensor:
    """Every `step`-th 3×3×3 patch: (3, T, H, W) → (patches, 81) float32."""
    if min(video_cthw.shape[1:]) < PATCH:
        raise ValueError(f"patches of {PATCH} frames and pixels need a larger video than {tuple(video_cthw.shape)}")
    for dim in (1, 2, 3):
        video_cthw = video_cthw.unfold(dim, PATCH, step)
    return video_cthw.movedim(0, 3).reshape(-1, 3 * PATCH**3).float()  # (T', H', W', 3, 3, 3, 3) before


def _nearest(queries: Tensor, keys: Tensor) -> Tensor:
    """Index of the key nearest to each query, (queries,): |q − k|² without |q|², which is the same for all keys."""
    best = torch.full((len(queries),), torch.inf)
    index = torch.zeros(len(queries), dtype=torch.long)
    for start in range(0, len(keys), KEYS):
        some = keys[start : start + KEYS]
        distance, nearest = torch.addmm(some.square().sum(dim=1), queries, some.T, alpha=-2).min(dim=1)
        closer = distance < best
        best = torch.where(closer, distance, best)
        index = torch.where(closer, nearest + start, index)
    return index

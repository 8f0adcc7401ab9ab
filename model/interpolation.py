"""From one size to another with the corners kept: how a video goes from a scale to the next, of networks and patches.

Two others are not this: the clip's own scales (pyramid.py), and what the metrics' networks see (metrics/).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from model.config import Enlarging


def interpolated(x: Tensor, size: Sequence[int], by: Enlarging = "linear") -> Tensor:
    """x (B, C, T, H, W), of any range, brought to (T, H, W) of `size`: its first and last voxels stay where they are.

    Args: by: linear: over space and time together (§3.2); cubic: over space, and linear over time.

    A smaller size is not antialiased.
    """
    if by == "linear":
        return F.interpolate(x, size=tuple(size), mode="trilinear", align_corners=True)
    frames = interpolated(x, (size[0], *x.shape[3:]))
    wide = F.interpolate(frames.movedim(2, 1).flatten(0, 1), size=tuple(size[1:]), mode="bicubic", align_corners=True)
    return wide.unflatten(0, (-1, size[0])).movedim(1, 2)

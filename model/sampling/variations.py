"""Between samples, and which of many to keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Along the great circle from a to b, their lengths interpolated too (Shoemake 1985); share 0 is a, 1 is b."""
    lengths = a.norm(), b.norm()
    if share in (0.0, 1.0) or min(lengths) == 0:
        return a if share == 0 else b if share == 1 else (1 - share) * a + share * b
    angle = torch.acos(((a * b).sum() / (lengths[0] * lengths[1])).clamp(-1, 1))
    if angle < 1e-4:
        return (1 - share) * a + share * b
    unit = (torch.sin((1 - share) * angle) * a / lengths[0] + torch.sin(share * angle) * b / lengths[1]) / angle.sin()
    return unit * ((1 - share) * lengths[0] + share * lengths[1])


def diverse(videos: Sequence[np.ndarray], scores: Sequence[float], keep: int) -> list[int]:
    """Which of some samples to keep: of the better half by score, where lower is better, those that differ most.

    The best comes first; each that follows is the one whose smallest mean difference to those taken is largest.
    """
    order = np.argsort(scores, kind="stable")[: max(keep, len(videos) // 2)]
    taken = [int(order[0])]
    while len(taken) < keep:
        rest = [int(i) for i in order if i not in taken]
        taken.append(max(rest, key=lambda i: min(mean_change(videos[i], videos[j]) for j in taken)))
    return taken


def mean_change(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference, levels."""
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).mean())

"""Between samples, and which of many to keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from model.device import HOST, concurrently
from model.pyramid import to_frames
from model.sampling.sample import Tick, ignore
from model.sampling.sampler import Sampler, check_bytes, whole_video

DRAWN = 4  # samples of each that is kept


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


def check_kept(sampler: Sampler, keep: int) -> None:
    """Raises ValueError, one line, for so many samples to keep that what they are chosen from does not fit into memory,
    and for none."""
    if keep < 1:
        raise ValueError(f"{keep} samples to keep: 1 or more")
    needed = DRAWN * keep * 3 * math.prod(sampler.size)
    what = f"keeping {keep:,} of {DRAWN * keep:,} samples of {sampler.size}"
    check_bytes(what, lambda share: share * needed, HOST, lambda share: f"keep {int(keep * share):,} or fewer")


def kept(
    sampler: Sampler,
    score: Callable[[np.ndarray], float],
    seed: int,
    keep: int,
    tick: Tick = ignore,
) -> dict[int, np.ndarray]:
    """Draw DRAWN times as many samples of a seed as are kept, as large as the clip, and choose by `diverse`.

    Args:
        score: of a sample, uint8 (T, H, W, 3); lower is better. Called from several threads.
        tick: called with how many of `steps_to_keep` were done since the last call, from several threads.

    Returns the samples by their numbers, best first.
    """
    sizes = sampler.ladder_to(sampler.size)

    def drawn(index: int) -> tuple[np.ndarray, float]:
        video = to_frames(whole_video(sampler, sizes, seed, index, tick)[0].numpy())
        own = score(video)
        tick(1)
        return video, own

    videos, scores = zip(*concurrently(drawn, range(DRAWN * keep), sampler.at_once(sizes)))
    return {index: videos[index] for index in diverse(videos, scores, keep, tick)}


def steps_to_keep(sampler: Sampler, keep: int) -> int:
    """What `kept` counts for `tick`: the steps of every sample, its score, and each that is taken after the first."""
    return DRAWN * keep * (sampler.steps(sampler.ladder_to(sampler.size)) + 1) + keep - 1


def diverse(videos: Sequence[np.ndarray], scores: Sequence[float], keep: int, tick: Tick = ignore) -> list[int]:
    """Which of some samples to keep: of the better half by score, where lower is better, those that differ most.

    The best comes first; each that follows is the one whose smallest mean difference to those taken is largest.

    Args: tick: called with 1 for each that follows.
    """
    first, *rest = (int(i) for i in np.argsort(scores, kind="stable")[: max(keep, len(videos) // 2)])
    taken, smallest = [first], dict.fromkeys(rest, math.inf)
    while len(taken) < keep:
        for i in smallest:
            smallest[i] = min(smallest[i], mean_change(videos[i], videos[taken[-1]]))
        taken.append(max(smallest, key=lambda i: smallest[i]))
        del smallest[taken[-1]]
        tick(1)
    return taken


def mean_change(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference, levels."""
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).mean())

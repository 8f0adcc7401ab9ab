"""How much the samples of one clip differ from each other."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from infra.errors import Refusal
from model.metrics.features import Video, checked_video

LEAST_SPREAD = 1e-4  # of L, which goes to 100; below it all pixels have one lightness, but for float32 rounding


def lab_diversity(samples_ncthw: Video | Iterable[Video], real_cthw: Video) -> float:
    """Spread of the samples' lightness at a pixel, relative to the real clip's spread over all its pixels.

    The mean of `diversity_map` over pixels (t, y, x), divided by the standard deviation of L (CIELAB) over all pixels
    of the real clip. Paper §4.2; introduced in SinGAN (Shaham et al. 2019, §3). Both deviations divide by
    n, not n - 1.

    Args:
        samples_ncthw: as of `diversity_map`.
        real_cthw: float RGB in [-1, 1], (3, T', H', W'); its size may differ, no pixel is compared with another's.

    Returns:
        Diversity >= 0, no unit; 0 for identical samples. Grows with N (the n-divided deviation of N draws): of pixel
        noise N = 4, 10 and 25 give 0.81, 0.93 and 0.98 of what the paper's 50 give. Compare only values of the same N.

    Raises:
        TypeError, ValueError: not such videos (see `checked_video`), samples that `diversity_map` refuses, or a real
            clip of one constant lightness.
    """
    return relative_spread(diversity_map(samples_ncthw), real_cthw)


def relative_spread(map_thw: np.ndarray, real_cthw: Video) -> float:
    """`lab_diversity` of the samples that `map_thw` is the `diversity_map` of. Errors as there, of the real clip."""
    real_std = spread_of_lightness(real_cthw)
    if real_std < LEAST_SPREAD:
        raise Refusal("diversity is relative to the real clip's spread, and the real clip has constant lightness")
    return float(map_thw.mean()) / real_std


def is_of_one_lightness(video_cthw: Video) -> bool:
    """Whether a real clip, as of `lab_diversity`, has no spread that samples' could be relative to."""
    return spread_of_lightness(video_cthw) < LEAST_SPREAD


def spread_of_lightness(video_cthw: Video) -> float:
    """Standard deviation of L (CIELAB) over all pixels of a video, (3, T, H, W) float RGB in [-1, 1]."""
    return float(lightness(checked_video(video_cthw, ndim=4)).std())


def diversity_map(samples_ncthw: Video | Iterable[Video]) -> np.ndarray:
    """Where the samples differ: per pixel the standard deviation of L (CIELAB) over the samples, divided by n.

    Args:
        samples_ncthw: float RGB in [-1, 1], (N, 3, T, H, W), N >= 2, or any iterable of (3, T, H, W) of one size.
            Overshoots are clipped. One sample's lightness is in memory at a time.

    Returns:
        float64 (T, H, W), in units of L: 0 where all samples agree, 50 where half are black and half white, never more.

    Raises:
        TypeError, ValueError: not such videos (see `checked_video`), of more than one size, or fewer than 2.
    """
    samples: Iterable[torch.Tensor] = (
        checked_video(samples_ncthw, ndim=5)
        if isinstance(samples_ncthw, (np.ndarray, torch.Tensor))
        else (checked_video(sample, ndim=4) for sample in samples_ncthw)
    )

    # Welford's update: one sample's lightness at a time, and exactly 0 for identical samples.
    count, mean, squares = 0, np.zeros(()), np.zeros(())
    for count, sample in enumerate(samples, start=1):
        sample_l = lightness(sample)
        if count == 1:
            mean, squares = np.zeros_like(sample_l), np.zeros_like(sample_l)
        elif sample_l.shape != mean.shape:
            raise Refusal(f"samples must have one size (T, H, W), got {mean.shape} and {sample_l.shape}")
        delta = sample_l - mean
        mean += delta / count
        squares += delta * (sample_l - mean)
    if count < 2:
        raise Refusal(f"diversity needs at least 2 samples, got {count}: one sample has no spread")
    spread: np.ndarray = np.sqrt(squares / count)
    return spread


def lightness(video_cthw: torch.Tensor) -> np.ndarray:
    """L of CIELAB (D65), 0 black … 100 white, float64 (T, H, W), of float RGB (3, T, H, W) in [-1, 1]."""
    from skimage.color import rgb2lab  # imports scipy, which plain samples must not wait for

    rgb_thwc = (video_cthw.permute(1, 2, 3, 0).cpu().numpy().astype(np.float64) + 1.0) / 2.0
    lab_thwc: np.ndarray = rgb2lab(rgb_thwc)
    return lab_thwc[..., 0]

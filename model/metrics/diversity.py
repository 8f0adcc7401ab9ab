"""How much the samples of one clip differ from each other."""

from __future__ import annotations

import numpy as np
import torch
from skimage.color import rgb2lab

from model.metrics.features import Video, checked_video


def lab_diversity(samples_ncthw: Video, real_cthw: Video) -> float:
    """Spread of the samples' lightness at a pixel, relative to the real clip's spread over all its pixels.

    Per pixel the standard deviation of L (CIELAB) over the samples, mean over pixels (t, y, x), divided by
    the standard deviation of L over all pixels of the real clip. PAPER.md §5; paper §4.2; introduced in
    SinGAN (Shaham et al. 2019, §3). Both deviations divide by n, not n - 1.

    Args:
        samples_ncthw: float RGB in [-1, 1], (N, 3, T, H, W), N >= 2. Overshoots are clipped.
        real_cthw: the same kind, (3, T', H', W'); its size may differ, no pixel is compared with another's.

    Returns:
        Diversity >= 0, no unit; 0 for identical samples. Grows with N (the n-divided deviation of N draws),
        so compare only values of the same N.

    Raises:
        TypeError, ValueError: not such videos (see `checked_video`), fewer than 2 samples, or a real clip of
            one constant lightness.
    """
    samples = checked_video(samples_ncthw, ndim=5)
    real = checked_video(real_cthw, ndim=4)
    if samples.shape[0] < 2:
        raise ValueError("diversity needs at least 2 samples: one sample has no spread")
    real_l = lightness(real)
    real_std = float(real_l.std())
    if real_std < 1e-6:
        raise ValueError("diversity is relative to the real clip's spread, and the real clip has constant lightness")

    # Welford's update: one sample's lightness at a time, and exactly 0 for identical samples.
    mean = np.zeros(samples.shape[2:])
    squares = np.zeros(samples.shape[2:])
    for count, sample in enumerate(samples, start=1):
        sample_l = lightness(sample)
        delta = sample_l - mean
        mean += delta / count
        squares += delta * (sample_l - mean)
    return float(np.sqrt(squares / samples.shape[0]).mean()) / real_std


def lightness(video_cthw: torch.Tensor) -> np.ndarray:
    """L of CIELAB (D65), 0 black … 100 white, float64 (T, H, W), of float RGB (3, T, H, W) in [-1, 1]."""
    rgb_thwc = (video_cthw.permute(1, 2, 3, 0).cpu().numpy().astype(np.float64) + 1.0) / 2.0
    lab_thwc: np.ndarray = rgb2lab(rgb_thwc)
    return lab_thwc[..., 0]

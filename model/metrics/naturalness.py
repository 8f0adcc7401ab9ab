"""How natural a video's local statistics are: NIQE (Mittal et al. 2013), with the clip in place of its pristine photos.

NIQE fits a Gaussian to features of a picture's patches, and measures how far it is from the Gaussian of good photos. It
needs no truth to compare with. The photos' place is taken by the clip itself, whose statistics are what a model of one
clip should have; so pictures that are smaller than NIQE's patches of 96 px can be measured too.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage, special

from infra.errors import Refusal

PATCH, STRIDE = 32, 16  # px; NIQE has 96, which most clips here have no room for
SIGMA, RADIUS = 7 / 6, 3  # of the Gaussian window of 7×7 px
SATURATION = 1.0  # of 255 levels, added to the deviation that pixels are divided by
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
SHAPES = np.arange(0.2, 10, 0.001)  # of a generalised Gaussian; 2 is a Gaussian
Gaussian = tuple[np.ndarray, np.ndarray]  # mean, covariance
RATIOS = special.gamma(2 / SHAPES) ** 2 / (special.gamma(1 / SHAPES) * special.gamma(3 / SHAPES))


def naturalness_distance(video: np.ndarray, clip: np.ndarray) -> float:
    """The distance of a video's local statistics to the clip's; 0 for the clip itself, and lower is more natural.

    √(Δμᵀ ((Σ₁ + Σ₂) / 2)⁻¹ Δμ) of the 36 features of NIQE, of overlapping patches of 32 px in all frames.

    Args: video, clip: uint8 (T, H, W, 3) RGB, of any sizes from 32×32 px.

    Raises ValueError for smaller ones.
    """
    return distance(statistics(video), statistics(clip))


def distance(one: Gaussian, other: Gaussian) -> float:
    """That of `naturalness_distance`, of two `statistics`."""
    (mean, covariance), (clip_mean, clip_covariance) = one, other
    apart = mean - clip_mean
    squared = apart @ np.linalg.pinv((covariance + clip_covariance) / 2) @ apart
    return float(np.sqrt(max(0.0, squared)))


def has_room(frames_thwc: np.ndarray) -> bool:
    """Whether a frame holds a patch."""
    return min(frames_thwc.shape[1:3]) >= PATCH


def statistics(frames_thwc: np.ndarray) -> Gaussian:
    """Mean (36,), covariance (36, 36) of the features of all patches. Raises ValueError as `naturalness_distance`."""
    if not has_room(frames_thwc):
        raise Refusal(f"frames of {PATCH}×{PATCH} px or more are needed, got {frames_thwc.shape}")
    features = np.concatenate([_features(frame @ np.array([0.299, 0.587, 0.114])) for frame in frames_thwc])
    return features.mean(axis=0), np.atleast_2d(np.cov(features.T)) if len(features) > 1 else np.zeros((36, 36))


def _features(luma: np.ndarray) -> np.ndarray:
    """Of a frame, float (H, W) in 0 to 255: (patches, 36), the features at this size and at half of it."""
    height, width = (side - side % 2 for side in luma.shape)
    half = luma[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    return np.concatenate([_statistics(luma[:height, :width], PATCH), _statistics(half, PATCH // 2)], axis=1)


def _statistics(luma: np.ndarray, side: int) -> np.ndarray:
    """Of patches of `side` px: shape and deviation of the normalised pixels; of their products with a neighbour the
    shape, the mean, and the variances to the left and to the right. (patches, 18)."""
    mean = ndimage.gaussian_filter(luma, SIGMA, radius=RADIUS, mode="nearest")
    variance = ndimage.gaussian_filter(luma**2, SIGMA, radius=RADIUS, mode="nearest") - mean**2
    normalised = (luma - mean) / (np.sqrt(np.maximum(variance, 0)) + SATURATION)
    shape, _, left, right = _asymmetric(_patches(normalised, side))
    found = [shape, (left + right) / 2]
    for down, across in NEIGHBOURS:
        product = normalised * np.roll(normalised, (-down, -across), axis=(0, 1))
        shape, centre, left, right = _asymmetric(_patches(product, side))
        found += [shape, centre, left**2, right**2]
    return np.stack(found, axis=1)


def _patches(values: np.ndarray, side: int) -> np.ndarray:
    """(patches, side²), each `side` / 2 px from the next."""
    step = STRIDE * side // PATCH
    return sliding_window_view(values, (side, side))[::step, ::step].reshape(-1, side * side)


def _asymmetric(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """An asymmetric generalised Gaussian fitted to each row by its moments (Lasmar et al. 2009).

    Returns shape, mean, and the scales to the left and to the right, (rows,) each.
    """
    tiny = 1e-9
    squares, negative = values**2, values < 0
    left = np.sqrt((squares * negative).sum(axis=1) / np.maximum(1, negative.sum(axis=1)) + tiny)
    right = np.sqrt((squares * ~negative).sum(axis=1) / np.maximum(1, (~negative).sum(axis=1)) + tiny)
    gamma = left / right
    ratio = np.abs(values).mean(axis=1) ** 2 / (squares.mean(axis=1) + tiny)
    ratio *= (gamma**3 + 1) * (gamma + 1) / (gamma**2 + 1) ** 2
    shape = SHAPES[np.searchsorted(RATIOS, ratio).clip(0, len(SHAPES) - 1)]
    scale = np.sqrt(special.gamma(1 / shape) / special.gamma(3 / shape))
    mean = (right - left) * scale * special.gamma(2 / shape) / special.gamma(1 / shape)
    return shape, mean, left * scale, right * scale

"""FID of a set of samples against a test set (paper A.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from model.metrics.features import Video, VideoFeatures
from model.metrics.frechet import Gaussian, frechet_distance


@dataclass(frozen=True, kw_only=True)
class Fid:
    """FID of a set of samples.

    Attributes:
        mean: over the trials; >= 0, lower is closer to the test set.
        std: over the trials (divided by their number): how much the choice of features matters.
    """

    mean: float
    std: float


def embeddings(videos: Iterable[Video], features: VideoFeatures) -> np.ndarray:
    """One vector a video, the mean over its locations: float64 (videos, D), for `fid`.

    A.3 takes "the 512 feature vector" of a video and leaves open how the locations of the map become one; the mean is
    what FID's Inception vector is of its map (Heusel et al. 2017).

    Raises ValueError if there is no video, and what the features raise.
    """
    means = [features(video).mean(axis=0) for video in videos]
    if not means:
        raise ValueError("no video to embed")
    return np.stack(means)


def fid(samples_nd: np.ndarray, test_set_nd: np.ndarray, *, trials: int = 50, drawn: int = 50, seed: int = 0) -> Fid:
    """FID of samples against a test set, from few samples: mean over trials on features drawn at random.

    Paper A.3. 50 samples give a covariance of 512 features a rank of 49 at most, so each trial takes 50
    of the 512, the same of samples and test set, without repetition. As 50 vectors minus their mean span 49
    dimensions, one is still missing; `frechet_distance` is right for that. Compare only with the same numbers.

    Args:
        samples_nd: one vector a video, (n, D), for example of `embeddings`.
        test_set_nd: (m, D), of the same features.
        drawn: features a trial, at most D, n and m.
        seed: which features are drawn: each trial takes the next `choice(D, drawn, replace=False)` of
            `numpy.random.default_rng(seed)`.

    Raises:
        ValueError: not such arrays, of different D, a NaN or infinity, `drawn` out of range, fewer than 2 videos on a
            side, or no trial.
    """
    samples, test_set = np.asarray(samples_nd, dtype=np.float64), np.asarray(test_set_nd, dtype=np.float64)
    if samples.ndim != 2 or test_set.ndim != 2 or samples.shape[1] != test_set.shape[1]:
        raise ValueError(f"FID compares (n, D) with (m, D), got {samples.shape} and {test_set.shape}")
    dims = samples.shape[1]
    most = min(dims, len(samples), len(test_set))
    if not 1 <= drawn <= most:
        raise ValueError(
            f"{drawn} features a trial of {dims}, with {len(samples)} samples and {len(test_set)} test videos: "
            f"draw 1 to {most}, or give more videos"
        )
    if trials < 1:
        raise ValueError(f"FID needs at least one trial, got {trials}")
    if not (np.isfinite(samples).all() and np.isfinite(test_set).all()):
        raise ValueError("the features hold NaN or infinite values")
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(trials):
        chosen = rng.choice(dims, drawn, replace=False)
        of_samples, of_test_set = (Gaussian.fit(x[:, chosen], rank_deficient=True) for x in (samples, test_set))
        scores.append(frechet_distance(of_samples, of_test_set))
    return Fid(mean=float(np.mean(scores)), std=float(np.std(scores)))

"""Fréchet distance between two sets of vectors, and SVFID: that distance from a clip to its fakes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from model.metrics.features import Video, VideoFeatures, one_thread


@dataclass(frozen=True, kw_only=True, eq=False)  # arrays have no single truth value to compare by
class Gaussian:
    """A normal distribution: mean (D,) and covariance (D, D), both float64."""

    mean: np.ndarray
    cov: np.ndarray

    @classmethod
    def fit(cls, vectors: np.ndarray, *, rank_deficient: bool = False) -> Gaussian:
        """The Gaussian with the mean and the unbiased covariance (divided by n - 1) of the vectors.

        Args:
            vectors: (n, D), any real dtype; computed in float64.
            rank_deficient: allows any n >= 2. A distance of such Gaussians also measures the number of vectors, so it
                compares only with distances of as many.

        Raises:
            ValueError: not (n, D), a NaN or infinity, or without `rank_deficient` n < D + 1: such a covariance is
                singular whatever the distribution.
        """
        vectors = np.asarray(vectors, dtype=np.float64)
        if vectors.ndim != 2 or vectors.shape[1] == 0:
            raise ValueError(f"vectors must be (n, D), got {vectors.shape}")
        count, dims = vectors.shape
        least = 2 if rank_deficient else dims + 1
        if count < least:
            raise ValueError(f"{count} vectors of {dims} dimensions: the covariance needs at least {least}")
        if not np.isfinite(vectors).all():
            raise ValueError("vectors hold NaN or infinite values")
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        return cls(mean=mean, cov=centred.T @ centred / (count - 1))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians, the "d²" of FID.

    |mean_a - mean_b|² + tr(A) + tr(B) - 2 tr((√A B √A)^½)   (Dowson & Landau 1982; Heusel et al. 2017, FID)

    The last trace is the sum of the singular values of √A √B, with √ from the eigendecomposition of a
    symmetric matrix. Against the usual `sqrtm(A @ B)` nothing turns complex, singular covariances need no
    added diagonal, and no square root is taken of a product's round-off (which would cost half the digits).

    Returns:
        Distance >= 0 in the squared unit of the vectors; of equal Gaussians 0 up to 1e-12 of the trace.

    Raises:
        ValueError: different dimensions, or a covariance that is not symmetric, not finite or not positive
            semidefinite beyond round-off.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"Gaussians of {a.mean.size} and {b.mean.size} dimensions have no distance")
    difference = a.mean - b.mean
    with one_thread():  # of numpy's threads a busy machine makes seconds out of 0.1 s
        cross = float(torch.linalg.svdvals(_sqrt_psd(a.cov) @ _sqrt_psd(b.cov)).sum())
    distance = difference @ difference + np.trace(a.cov) + np.trace(b.cov) - 2.0 * cross
    return max(0.0, float(distance))


def _sqrt_psd(cov: np.ndarray) -> torch.Tensor:
    """Symmetric square root of a positive semidefinite matrix; eigenvalues of -round-off count as 0."""
    if not np.isfinite(cov).all():
        raise ValueError("covariance holds NaN or infinite values")
    scale = float(np.abs(cov).max())
    if np.abs(cov - cov.T).max() > 1e-9 * scale:
        raise ValueError("covariance is not symmetric")
    values, axes = torch.linalg.eigh(torch.from_numpy((cov + cov.T) / 2.0))
    if values[0] < -1e-9 * len(values) * scale:
        raise ValueError(f"covariance is not positive semidefinite: smallest eigenvalue {values[0]:g}")
    return (axes * values.clamp(min=0.0).sqrt()) @ axes.T


@dataclass(frozen=True, kw_only=True)
class Svfid:
    """SVFID of the samples of one clip.

    Attributes:
        mean: over the samples; >= 0, lower is closer to the real clip.
        per_sample: one value a sample, in their order.
        features: name of the feature network; values of different features cannot be compared.
    """

    mean: float
    per_sample: tuple[float, ...]
    features: str


def svfid(real_cthw: Video, samples_ncthw: Video | Iterable[Video], features: VideoFeatures) -> Svfid:
    """Single-video FID: the Fréchet distance of real and fake location vectors, mean over the samples.

    PAPER.md §5; paper §4.1 "Single Video FID" and A.2. The feature network is the caller's choice, and the result
    names it; the paper's is `c3d.C3dFeatures`. Only one sample's vectors are in memory at a time.

    Args:
        real_cthw: float RGB in [-1, 1], (3, T, H, W).
        samples_ncthw: (N, 3, T', H', W') of the same kind, N >= 1, or any iterable of (3, T', H', W'); the
            sizes may differ from the real clip's, the features bring all to one height.
        features: for example `features.Lite0Features()`, or what `option.from_option` gives.

    Raises:
        TypeError, ValueError: no sample, or a video that the features or `Gaussian.fit` refuse.
    """

    def fit(video: Video) -> Gaussian:
        return Gaussian.fit(features(video), rank_deficient=features.rank_deficient)

    real = fit(real_cthw)
    per_sample = tuple(frechet_distance(real, fit(sample)) for sample in samples_ncthw)
    if not per_sample:
        raise ValueError("svfid needs at least one sample")
    return Svfid(mean=float(np.mean(per_sample)), per_sample=per_sample, features=features.name)

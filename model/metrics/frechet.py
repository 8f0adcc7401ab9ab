"""Fréchet distance between two sets of vectors, each taken as a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from infra.errors import Refusal
from model.device import on_threads


@dataclass(frozen=True, kw_only=True, eq=False)  # arrays have no single truth value to compare by
class Gaussian:
    """A normal distribution, both arrays float64.

    Attributes:
        mean: (D,).
        root: (r, D), any r: a root of the covariance, which is rootᵀ root. It may have fewer rows than D, where the
            covariance is singular.
    """

    mean: np.ndarray
    root: np.ndarray

    @classmethod
    def fit(cls, vectors: np.ndarray, *, rank_deficient: bool = False) -> Gaussian:
        """The Gaussian with the mean and the unbiased covariance (divided by n - 1) of the vectors.

        Args:
            vectors: (n, D), any real dtype; computed in float64.
            rank_deficient: allows any n >= 2. With n <= D the covariance is singular whatever the distribution; the
                distance is right, but also measures the number of vectors, so it compares only with distances of as
                many.

        Raises:
            ValueError: not (n, D), a NaN or infinity, or too few vectors: without `rank_deficient` n < D + 1.
        """
        vectors = np.asarray(vectors, dtype=np.float64)
        if vectors.ndim != 2 or vectors.shape[1] == 0:
            raise Refusal(f"vectors must be (n, D), got {vectors.shape}")
        count, dims = vectors.shape
        least = 2 if rank_deficient else dims + 1
        if count < least:
            raise Refusal(f"{count} vectors of {dims} dimensions: the covariance needs at least {least}")
        if not np.isfinite(vectors).all():
            raise Refusal("vectors hold NaN or infinite values")
        mean = vectors.mean(axis=0)
        with on_threads(1):  # of a second one a busy machine makes a second out of 10 ms
            root = torch.linalg.qr(torch.from_numpy(vectors - mean), mode="r").R
        return cls(mean=mean, root=root.numpy() / np.sqrt(count - 1))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians, the "d²" of FID.

    |mean_a - mean_b|² + tr(A) + tr(B) - 2 tr((A B)^½)   (Dowson & Landau 1982; Heusel et al. 2017, FID)

    With roots, A = RᵀR and B = SᵀS, the last trace is the sum of the singular values of R Sᵀ. Against the usual
    `sqrtm(A @ B)` nothing turns complex, singular covariances need no added diagonal, and no square root is taken of
    a product's round-off, which would cost half the digits.

    Returns:
        Distance >= 0 in the squared unit of the vectors; of equal Gaussians 0 up to 1e-12 of the trace.

    Raises:
        ValueError: different dimensions, or a NaN or infinity.
    """
    if a.mean.shape != b.mean.shape:
        raise Refusal(f"Gaussians of {a.mean.size} and {b.mean.size} dimensions have no distance")
    if not all(np.isfinite(array).all() for array in (a.mean, a.root, b.mean, b.root)):
        raise Refusal("a Gaussian holds NaN or infinite values")
    with on_threads(1):
        cross = torch.linalg.svdvals(torch.from_numpy(a.root) @ torch.from_numpy(b.root).T).sum().item()
    means = np.sum((a.mean - b.mean) ** 2)
    return max(0.0, float(means + np.sum(a.root**2) + np.sum(b.root**2) - 2.0 * cross))

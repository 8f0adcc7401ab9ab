"""Fréchet distance between two sets of vectors: SVFID, SIFID (one clip or image), FID (a test set)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from model.metrics.features import ImageFeatures, Video, VideoFeatures, one_thread


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
    def fit(cls, vectors: np.ndarray) -> Gaussian:
        """The Gaussian with the mean and the unbiased covariance (divided by n - 1) of the vectors.

        With n <= D the covariance is singular whatever the distribution, as in the paper's SVFID (98 vectors of 512
        numbers). The distance is right all the same, but it then measures the number of vectors too: compare only
        scores of equally many.

        Args:
            vectors: (n, D), n >= 2, any real dtype; computed in float64.

        Raises:
            ValueError: not (n, D), fewer than 2 vectors, a NaN or infinity.
        """
        vectors = checked_vectors(vectors)
        mean = vectors.mean(axis=0)
        with one_thread():
            root = torch.linalg.qr(torch.from_numpy(vectors - mean), mode="r").R
        return cls(mean=mean, root=root.numpy() / np.sqrt(len(vectors) - 1))


def checked_vectors(vectors: np.ndarray) -> np.ndarray:
    """The vectors as float64 (n, D). Raises ValueError: see `Gaussian.fit`."""
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise ValueError(f"vectors must be (n, D), got {vectors.shape}")
    if len(vectors) < 2:
        raise ValueError(f"a covariance needs at least 2 vectors, got {len(vectors)}")
    if not np.isfinite(vectors).all():
        raise ValueError("vectors hold NaN or infinite values")
    return vectors


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
        raise ValueError(f"Gaussians of {a.mean.size} and {b.mean.size} dimensions have no distance")
    if not all(np.isfinite(array).all() for array in (a.mean, a.root, b.mean, b.root)):
        raise ValueError("a Gaussian holds NaN or infinite values")
    with one_thread():
        cross = torch.linalg.svdvals(torch.from_numpy(a.root) @ torch.from_numpy(b.root).T).sum().item()
    means = np.sum((a.mean - b.mean) ** 2)
    return max(0.0, float(means + np.sum(a.root**2) + np.sum(b.root**2) - 2.0 * cross))


class RealClip:
    """The clip that samples are held against. Its features are computed once, here, however often it is used.

    Attributes:
        video: the clip, as it was given: float RGB in [-1, 1], (3, T, H, W).
        features: the feature network, which every sample goes through too.
        gaussian: of the clip's vectors.

    Example:
        real = RealClip(video_cthw, Lite0Features())
        svfid(real, samples_ncthw).mean
    """

    def __init__(self, video_cthw: Video, features: VideoFeatures) -> None:
        """Raises TypeError, ValueError: a video that the features refuse."""
        self.video = video_cthw
        self.features = features
        self.gaussian = Gaussian.fit(features(video_cthw))


@dataclass(frozen=True, kw_only=True)
class Svfid:
    """SVFID of the samples of one clip, or SIFID of the samples of one image.

    Attributes:
        mean: over the samples; >= 0, lower is closer to the real clip.
        per_sample: one value a sample, in their order.
        features: name of the feature network; values of different features cannot be compared.
    """

    mean: float
    per_sample: tuple[float, ...]
    features: str


def svfid(real: RealClip, samples_ncthw: Video | Iterable[Video]) -> Svfid:
    """Single-video FID: the Fréchet distance of real and fake location vectors, mean over the samples.

    PAPER.md §5; paper §4.1 "Single Video FID" and A.2. Differs from the paper in the feature network only,
    which the caller chooses and the result names. Only one sample's vectors are in memory at a time.

    Args:
        samples_ncthw: (N, 3, T', H', W') float RGB in [-1, 1], N >= 1, or any iterable of (3, T', H', W'); the
            sizes may differ from the real clip's, the features bring all to one height.

    Raises:
        TypeError, ValueError: no sample, or one that the features refuse.
    """
    return _distances(real.gaussian, (real.features(sample) for sample in samples_ncthw), real.features.name)


def sifid(real_chw: Video, samples_nchw: Video | Iterable[Video], features: ImageFeatures) -> Svfid:
    """Single-image FID: the same of images, over the positions of one feature map.

    PAPER.md §5; paper §4.2 "Image Generation"; introduced in SinGAN (Shaham et al. 2019, §3), whose features are the
    192 channels before Inception's second pooling.

    Args:
        real_chw: float RGB in [-1, 1], (3, H, W).
        samples_nchw: (N, 3, H', W') of the same kind, N >= 1, or any iterable of (3, H', W').

    Raises:
        TypeError, ValueError: no sample, or an image that the features refuse.
    """
    return _distances(Gaussian.fit(features(real_chw)), (features(sample) for sample in samples_nchw), features.name)


def _distances(real: Gaussian, vectors: Iterable[np.ndarray], features: str) -> Svfid:
    per_sample = tuple(frechet_distance(real, Gaussian.fit(of_sample)) for of_sample in vectors)
    if not per_sample:
        raise ValueError("a Fréchet distance needs at least one sample")
    return Svfid(mean=float(np.mean(per_sample)), per_sample=per_sample, features=features)


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

    PAPER.md §5; paper A.3. 50 samples give a covariance of 512 features a rank of 49 at most, so each trial takes 50
    of the 512, the same of samples and test set, without repetition. As 50 vectors minus their mean span 49
    dimensions, one is still missing; `frechet_distance` is right for that. Compare only with the same numbers.

    Args:
        samples_nd: one vector a video, (n, D), for example of `embeddings`.
        test_set_nd: (m, D), of the same features.
        drawn: features a trial, at most D, n and m.
        seed: which features are drawn: each trial takes the next `choice(D, drawn, replace=False)` of
            `numpy.random.default_rng(seed)`.

    Raises:
        ValueError: not such arrays (see `Gaussian.fit`), of different D, `drawn` out of range, or no trial.
    """
    samples, test_set = checked_vectors(samples_nd), checked_vectors(test_set_nd)
    dims = samples.shape[1]
    if test_set.shape[1] != dims:
        raise ValueError(f"samples of {dims} features and a test set of {test_set.shape[1]} have no distance")
    most = min(dims, len(samples), len(test_set))
    if not 1 <= drawn <= most:
        raise ValueError(
            f"{drawn} features a trial of {dims}, with {len(samples)} samples and {len(test_set)} test videos: "
            f"draw 1 to {most}, or give more videos"
        )
    if trials < 1:
        raise ValueError(f"FID needs at least one trial, got {trials}")
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(trials):
        chosen = rng.choice(dims, drawn, replace=False)
        scores.append(frechet_distance(Gaussian.fit(samples[:, chosen]), Gaussian.fit(test_set[:, chosen])))
    return Fid(mean=float(np.mean(scores)), std=float(np.std(scores)))

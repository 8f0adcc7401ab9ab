"""Fréchet distance between two sets of vectors: SVFID, SIFID (one clip or image), FID (a test set)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.metrics.features import Video, VideoFeatures, one_thread


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
            raise ValueError(f"vectors must be (n, D), got {vectors.shape}")
        count, dims = vectors.shape
        least = 2 if rank_deficient else dims + 1
        if count < least:
            raise ValueError(f"{count} vectors of {dims} dimensions: the covariance needs at least {least}")
        if not np.isfinite(vectors).all():
            raise ValueError("vectors hold NaN or infinite values")
        mean = vectors.mean(axis=0)
        with one_thread():  # of a second one a busy machine makes a second out of 10 ms
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
        raise ValueError(f"Gaussians of {a.mean.size} and {b.mean.size} dimensions have no distance")
    if not all(np.isfinite(array).all() for array in (a.mean, a.root, b.mean, b.root)):
        raise ValueError("a Gaussian holds NaN or infinite values")
    with one_thread():
        cross = torch.linalg.svdvals(torch.from_numpy(a.root) @ torch.from_numpy(b.root).T).sum().item()
    means = np.sum((a.mean - b.mean) ** 2)
    return max(0.0, float(means + np.sum(a.root**2) + np.sum(b.root**2) - 2.0 * cross))


class RealClip:
    """The clip that samples are held against. Its features are computed once, here, however often it is used.

    Of a long video it holds chunks: a sample's distance is that to the chunk it is nearest to, as a perfect sample is
    one of them and no mixture of all. With features of images it is SIFID, which the paper has of images only: each
    frame against the clip's frame at the same place, mean over the frames.

    Attributes:
        chunks: the clip, or the chunks, as they were given: float RGB in [-1, 1], (3, T, H, W) each.
        features: the feature network, which every sample goes through too.

    Example:
        real = RealClip([video_cthw], Lite0Features())
        svfid(real, samples_ncthw).mean
    """

    def __init__(self, chunks: Sequence[Video], features: VideoFeatures) -> None:
        """Raises TypeError, ValueError: a video that the features refuse."""
        self.chunks = chunks
        self.features = features
        self._gaussians = [self._fit(chunk) for chunk in chunks]

    @property
    def metric(self) -> str:
        """Name of the distance: svfid_{features}, sifid_{features} where those are of images."""
        return f"{'sifid' if self.features.of_images else 'svfid'}_{self.features.name}"

    @property
    def video(self) -> Video:
        """The clip, or the first chunk."""
        return self.chunks[0]

    @property
    def frames(self) -> Video:
        """All there is, one chunk's frames after the other's: (3, K·T, H, W)."""
        if len(self.chunks) == 1:
            return self.video
        return torch.cat([torch.as_tensor(chunk) for chunk in self.chunks], dim=1)

    def distance(self, sample_cthw: Video) -> float:
        """Fréchet distance to a sample's vectors.

        Raises as the features and `Gaussian.fit` do, and ValueError if images are compared and their numbers differ.
        """
        fitted = self._fit(sample_cthw)
        return min(_mean_distance(gaussians, fitted) for gaussians in self._gaussians)

    def _fit(self, video_cthw: Video) -> list[Gaussian]:
        """Of the video, or of each of its frames."""
        alone = [video_cthw]
        if self.features.of_images:
            alone = [video_cthw[:, t : t + 1] for t in range(video_cthw.shape[1])]
        return [Gaussian.fit(self.features(part), rank_deficient=self.features.rank_deficient) for part in alone]


def _mean_distance(a: Sequence[Gaussian], b: Sequence[Gaussian]) -> float:
    if len(a) != len(b):
        raise ValueError(f"{len(b)} frames cannot be held against {len(a)}, one by one")
    return float(np.mean([frechet_distance(*pair) for pair in zip(a, b, strict=True)]))


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
    per_sample = tuple(real.distance(sample) for sample in samples_ncthw)
    if not per_sample:
        raise ValueError("a Fréchet distance needs at least one sample")
    return Svfid(mean=float(np.mean(per_sample)), per_sample=per_sample, features=real.features.name)


def sifid(real_chw: Video, samples_nchw: Video | Iterable[Video], features: VideoFeatures) -> Svfid:
    """Single-image FID: the same of images, over the positions of the feature map of one image.

    PAPER.md §5; paper §4.2 "Image Generation"; introduced in SinGAN (Shaham et al. 2019, §3) with Inception features.

    Args:
        real_chw: float RGB in [-1, 1], (3, H, W).
        samples_nchw: (N, 3, H', W') of the same kind, N >= 1, or any iterable of (3, H', W').
        features: given each image as a video of one frame, (3, 1, H, W); for example `features.Lite0FrameFeatures()`.

    Raises:
        TypeError, ValueError: no sample, or not such images.
    """
    return svfid(RealClip([_one_frame(real_chw)], features), (_one_frame(sample) for sample in samples_nchw))


def _one_frame(image_chw: Video) -> Video:
    if image_chw.ndim != 3:
        raise ValueError(f"image must be (3, H, W), got {tuple(image_chw.shape)}")
    return image_chw[:, None]


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

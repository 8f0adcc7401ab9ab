"""SVFID of the samples of one clip, SIFID of those of one image: a Fréchet distance over the locations of one video."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from infra.errors import Refusal
from model.metrics.features import Video, VideoFeatures
from model.metrics.frechet import Gaussian, frechet_distance


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
        raise Refusal(f"{len(b)} frames cannot be held against {len(a)}, one by one")
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

    Paper §4.1 "Single Video FID" and A.2. Differs from the paper in the feature network only,
    which the caller chooses and the result names. Only one sample's vectors are in memory at a time.

    Args:
        samples_ncthw: (N, 3, T', H', W') float RGB in [-1, 1], N >= 1, or any iterable of (3, T', H', W'); the
            sizes may differ from the real clip's, the features bring all to one height.

    Raises:
        TypeError, ValueError: no sample, or one that the features refuse.
    """
    per_sample = tuple(real.distance(sample) for sample in samples_ncthw)
    if not per_sample:
        raise Refusal("a Fréchet distance needs at least one sample")
    return Svfid(mean=float(np.mean(per_sample)), per_sample=per_sample, features=real.features.name)


def sifid(real_chw: Video, samples_nchw: Video | Iterable[Video], features: VideoFeatures) -> Svfid:
    """Single-image FID: the same of images, over the positions of the feature map of one image.

    Paper §4.2 "Image Generation"; introduced in SinGAN (Shaham et al. 2019, §3) with Inception features.

    Args:
        real_chw: float RGB in [-1, 1], (3, H, W).
        samples_nchw: (N, 3, H', W') of the same kind, N >= 1, or any iterable of (3, H', W').
        features: given each image as a video of one frame, (3, 1, H, W); for example `lite0.Lite0FrameFeatures()`.

    Raises:
        TypeError, ValueError: no sample, or not such images.
    """
    return svfid(RealClip([_one_frame(real_chw)], features), (_one_frame(sample) for sample in samples_nchw))


def _one_frame(image_chw: Video) -> Video:
    if image_chw.ndim != 3:
        raise Refusal(f"image must be (3, H, W), got {tuple(image_chw.shape)}")
    return image_chw[:, None]

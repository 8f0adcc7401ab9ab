"""A trained model in Python, in three lines.

    from model import load

    model = load("runs/demo/bikes-1b0f76-000000/checkpoint.pt", frames)
    samples = model.sample(4, seed=0)
    print(model.score(samples))

`frames` is the clip, uint8 (T, H, W, 3) RGB, of an image (1, H, W, 3): `pipeline.video.decode` and
`pipeline.image.read` give it. Sampling needs it only where the model finishes with the clip's patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.config import Finish, Precision, TrainConfig
from model.device import best_device
from model.loading import LoadedModel
from model.loading import load as load_file
from model.metrics.diversity import lab_diversity
from model.metrics.features import VideoFeatures
from model.metrics.names import diversity_name
from model.metrics.scores import blur_distance, nn_distance
from model.metrics.svfid import svfid
from model.patches.field import Size
from model.patches.refine import Step, refine
from model.pyramid import ScaleSize, to_frames, to_video, training_pyramids
from model.sampling.applications import Applications
from model.sampling.masks import as_drawn, overlaid, quantised, tracked
from model.sampling.sample import Draw, stream_of
from model.sampling.sampler import Sampler, check_sample, clip_patches, matching_of, whole_videos
from model.sampling.variations import check_kept, kept

__all__ = ["Applications", "Model", "SampleScores", "as_drawn", "load", "overlaid", "quantised", "tracked"]


@dataclass(frozen=True, kw_only=True)
class SampleScores:
    """How near samples are to the clip, and how much they differ.

    Attributes:
        metric: name of `realism`: svfid_lite0, of images sifid_lite0_frames; of other features another.
        realism: Fréchet distance to the clip, mean over the samples; lower is nearer, 0 a copy.
        blur: the same of the clip itself, blurred by 1 px: what `realism` is read against.
        diversity: spread of the samples' lightness over the clip's; None of one sample. It rises with their number.
        diversity_metric: its name, which holds that number: of four samples diversity_n4; None of one sample.
        nn_distance: of a 3×3×3 patch to the nearest of the clip, in [0, 2]; 0 for a copy of any part.
        samples: how many they are of.
    """

    metric: str
    realism: float
    blur: float
    diversity: float | None
    diversity_metric: str | None
    nn_distance: float
    samples: int


class Model:
    """A trained model and, where it is given, its clip."""

    def __init__(self, loaded: LoadedModel, chunks: Sequence[np.ndarray], finish: Finish | None) -> None:
        self._loaded, self._chunks, self._device, self._finish = loaded, chunks, best_device(), finish
        self._sampler: Sampler | None = None
        self._applications: Applications | None = None

    @property
    def name(self) -> str:
        """The clip's id."""
        return self._loaded.name

    @property
    def config(self) -> TrainConfig:
        """What it was trained by."""
        return self._loaded.config

    @property
    def size(self) -> ScaleSize:
        """(T, H, W) of a sample as large as the clip."""
        return self._loaded.size

    def sample(self, count: int = 1, *, seed: int = 0, first: int = 0, size: Size | None = None) -> np.ndarray:
        """Random videos, or images, `first` … `first + count - 1` of a seed.

        Args: size: (T, H, W); None: the clip's.

        Returns uint8 (count, T, H, W, 3) RGB. Raises ValueError, one line, for a size that cannot be or does not fit
        into memory, and for a model that needs its clip and has none.
        """
        if count < 1:
            raise ValueError(f"count={count}: 1 or more")
        sampler = self._made()
        sizes = sampler.ladder_to(size or sampler.size)
        check_sample(sampler, sizes, self._device)
        made = whole_videos(sampler, sizes, seed, range(first, first + count))
        return np.stack([to_frames(video[0].numpy()) for video in made])

    def keep(self, count: int, *, seed: int = 0) -> np.ndarray:
        """Of four times as many samples of a seed those of the better half by svfid, of images sifid, that differ most.

        Returns uint8 (count, T, H, W, 3) RGB, the best first. Raises ValueError, one line, without the clip and for
        more than fit into memory.
        """
        self._need_clip()
        real, sampler = self._loaded.real_clip(self._chunks), self._made()
        check_kept(sampler, count)
        return np.stack([*kept(sampler, lambda made: real.distance(to_video(made)), seed, count).values()])

    def reconstruct(self) -> np.ndarray:
        """The clip as the model gives it back: uint8 (T, H, W, 3). Raises ValueError without the clip."""
        self._need_clip()
        return to_frames(self._made().reconstruction()[0].numpy())

    def score(self, samples: np.ndarray, features: VideoFeatures | None = None) -> SampleScores:
        """Score samples of the clip's size, of this model or of anything else, as evaluate.py does.

        Args:
            samples: uint8 (N, T, H, W, 3) RGB, as `sample` gives them.
            features: None: Lite0; of a video's, those of its frames are taken for images.

        Raises ValueError without the clip, for samples of another size, and for a clip of one lightness.
        """
        self._need_clip()
        real = self._loaded.real_clip(self._chunks, features)
        videos = [to_video(sample) for sample in samples]
        if not videos or any(video.shape != real.video.shape for video in videos):
            raise ValueError(f"{self.name}: samples of {ScaleSize(*real.video.shape[1:])} (T×H×W) are needed to score")
        return SampleScores(
            metric=real.metric,
            realism=svfid(real, videos).mean,
            blur=blur_distance(real),
            diversity=lab_diversity(videos, real.frames) if len(videos) > 1 else None,
            diversity_metric=diversity_name(len(videos)) if len(videos) > 1 else None,
            nn_distance=float(np.mean([nn_distance(video, real) for video in videos])),
            samples=len(videos),
        )

    def refine(self, video: np.ndarray, *, passes: int = 1, seed: int = 0) -> np.ndarray:
        """A video made of the clip's patches: its layout stays, its detail becomes the clip's.

        Args:
            video: uint8 (T, H, W, 3) RGB, of any size that holds a patch.
            passes: how often every patch is replaced.

        Returns uint8 (T, H, W, 3), as large as `video`. Raises ValueError, one line, without the clip and for a video
        that is smaller than a patch.
        """
        self._need_clip()
        config, finest = self.config, list(self._loaded.sizes)[-1:]
        clip = training_pyramids(self._chunks, config, finest)
        patches = clip_patches(finest, clip, self._device)
        step, how = Step(0, video.shape[:3], passes), matching_of(config)
        made = refine(torch.from_numpy(to_video(video))[None], patches, [step], how, stream_of(seed, 0, Draw.PATCHES))
        return to_frames(made[0].cpu().numpy())

    @property
    def applications(self) -> Applications:
        """What it makes of a given video, or of its clip: `inject`, `edit`, `fill`, `extend`, `loop`, `retarget`,
        `enlarge`, `vary`, `between`, `recombined` (model/sampling/README.md). Raises ValueError, one line, for a model
        without its clip where patches make its fine scales, and for a `finish` that it does not have.
        """
        if self._loaded.needs_clip:
            self._need_clip()
        if self._applications is None:
            self._applications = self._loaded.applications(self._chunks, self._device, self._finish)
        return self._applications

    def _made(self) -> Sampler:
        if self._sampler is None:
            self._sampler = self._loaded.sampler(self._chunks, self._device)
        return self._sampler

    def _need_clip(self) -> None:
        if not self._chunks:
            raise ValueError(f"{self.name}: its clip is needed; give load its frames")


def load(
    path: str,
    frames: np.ndarray | Sequence[np.ndarray] | None = None,
    *,
    precision: Precision | None = None,
    finish: Finish | None = None,
) -> Model:
    """The model of a clip, or of a folder of the authors' published code.

    Args:
        path: the clip's folder or its checkpoint.pt; or the URI of one.
        frames: the clip it was trained on, uint8 (T, H, W, 3) RGB; of a long video all its chunks.
        precision: that samples are computed in; None: that of the training.
        finish: of its applications alone, see `Workbench`; None: as its samples.

    Raises CheckpointError for what cannot be read, ValueError, one line, for frames that cannot be those of its clip.
    """
    loaded = load_file(path, precision=precision)
    chunks = [] if frames is None else [frames] if isinstance(frames, np.ndarray) else list(frames)
    loaded.check_frames(chunks)
    return Model(loaded, chunks, finish)

"""What a training leaves of its samples in the clip's folder: videos, pictures and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from infra import clip_folder
from jobs.reports.pictures import SHOWN_SAMPLES, contact_sheet, field_sheet, sheet, spread_sheet, write_png
from jobs.reports.side_by_side import LOOP_S, side_by_side_video
from model.interpolation import interpolated
from model.metrics.diversity import diversity_map
from model.metrics.features import VideoFeatures
from model.metrics.scores import nearest_chunk, score, score_of_blur, score_of_novelty
from model.metrics.svfid import RealClip, svfid
from model.networks.generators import GeneratorStack
from model.pyramid import to_frames
from model.sampling.sampler import FinishedSampler, NetworkSampler, Sampler, random_videos
from pipeline import video

DIVERSITY_MAP, NEAREST_MAP, COMPARED = "diversity.png", "nnf_00.png", "side_by_side.mp4"
SCORED_SEED = 1  # of the samples that are scored and kept


@dataclass(frozen=True)
class Trained:
    """A clip whose training has ended.

    Attributes:
        stack: its networks; None of a method without.
        minutes: of training.
        real: the clip at its finest scale, of a long video the chunks to score.
        reconstruction: (3, T, H, W) float32 in [-1, 1].
    """

    sampler: Sampler
    stack: GeneratorStack | None
    minutes: float
    real: RealClip
    reconstruction: Tensor

    @property
    def is_video(self) -> bool:
        """Whether it is no image."""
        return self.real.video.shape[1] > 1


class KeptSamples:
    """The samples of a trained clip that are scored and kept.

    Args: check: called before each write; raises if another process has taken the folder over.
    """

    def __init__(self, trained: Trained, count: int, check: Callable[[], None]) -> None:
        self._trained, self._check = trained, check
        self._videos = random_videos(trained.sampler, count, SCORED_SEED)
        self._nearest = nearest_chunk(self._videos[0], trained.real)

    def write(self, folder: Path, fps: float) -> None:
        """Videos, of an image pictures, and sheets, into a folder. Raises VideoError, StorageError."""
        frames = self._frames()
        for stale in {path for path in folder.glob("sample_*") if path.stem not in frames}:
            self._check()
            stale.unlink()  # of a submission that asked for more
        for name, each in frames.items():
            self._check()
            _write_clip(each, folder / name, fps)
        for name, picture in self._pictures().items():
            self._check()
            write_png(picture, folder / name)
        if self._trained.is_video:
            self._check()
            video.encode(self._side_by_side(), folder / COMPARED, fps=fps, least_s=LOOP_S)

    def scores(self) -> Mapping[str, float]:
        """Of the samples by the method's own features, and of the reconstruction and the blurred clip beside them."""
        real, reconstruction = self._trained.real, self._trained.reconstruction
        return {
            **score(self._videos, real),
            **(score_of_novelty(self._nearest[1]) if self._nearest else {}),
            **score_of_blur(real),
            f"{real.metric}_reconstruction": svfid(real, reconstruction[None]).mean,
        }

    def scores_by(self, features: VideoFeatures) -> Mapping[str, float]:
        """The distance of the samples, and that of the blurred clip, by other features."""
        real = RealClip(self._trained.real.chunks, features)
        return {real.metric: svfid(real, self._videos).mean, **score_of_blur(real)}

    def _frames(self) -> dict[str, np.ndarray]:
        """What is kept as videos or images, by name: uint8 (T, H, W, 3) each."""
        named = {"real": torch.as_tensor(self._trained.real.video), "reconstruction": self._trained.reconstruction}
        named |= {f"sample_{i:02d}": x for i, x in enumerate(self._videos)}
        named |= {f"plain_{i:02d}": x for i, x in enumerate(self._plain())}
        return {name: to_frames(each.numpy()) for name, each in named.items()}

    def _plain(self) -> Tensor:
        """The first samples as the networks alone make them, of the finest size; none unless patches finish them.

        (n, 3, T, H, W)
        """
        sampler, stack = self._trained.sampler, self._trained.stack
        if stack is None or not isinstance(sampler, FinishedSampler):
            return self._videos[:0]
        coarse = random_videos(NetworkSampler(stack), SHOWN_SAMPLES, SCORED_SEED)
        return interpolated(coarse, sampler.size)

    def _pictures(self) -> dict[str, np.ndarray]:
        """By name: the sheet, where samples differ, where the patches of the first come from. uint8 (H, W, 3) each."""
        clip, reconstruction = np.asarray(self._trained.real.video), self._trained.reconstruction
        some = [sample.numpy() for sample in self._videos[:SHOWN_SAMPLES]]
        if self._trained.is_video:
            picture = sheet(clip, reconstruction.numpy(), self._videos.numpy())
        else:
            shown = {"real": clip, "reconstruction": reconstruction}
            shown |= {f"sample {i}": sample for i, sample in enumerate(self._videos)}
            picture = contact_sheet({name: to_frames(np.asarray(each))[0] for name, each in shown.items()})
        pictures = {
            clip_folder.SHEET: picture,
            DIVERSITY_MAP: spread_sheet(some, clip, diversity_map(self._videos)),
        }
        if self._nearest:
            chunk, field = self._nearest
            pictures[NEAREST_MAP] = field_sheet(some[0], np.asarray(chunk), field)
        return pictures

    def _side_by_side(self) -> np.ndarray:
        """One video of the clip, its reconstruction and the first samples, in a row: uint8 (T, H, W, 3)."""
        shown = {"real": np.asarray(self._trained.real.video), "reconstruction": self._trained.reconstruction.numpy()}
        shown |= {f"sample {i}": sample.numpy() for i, sample in enumerate(self._videos[:SHOWN_SAMPLES])}
        return side_by_side_video({label: to_frames(each) for label, each in shown.items()})


def _write_clip(frames_thwc: np.ndarray, path: Path, fps: float) -> None:
    """A video as mp4 and gif, an image, which has one frame, as png. path: without a suffix.

    Raises VideoError, StorageError.
    """
    if len(frames_thwc) == 1:
        write_png(frames_thwc[0], path.with_name(f"{path.name}.png"))
        return
    for suffix in (".mp4", ".gif"):
        video.encode(frames_thwc, path.with_name(f"{path.name}{suffix}"), fps=fps)

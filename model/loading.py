"""A model from where it lies: a clip's folder or checkpoint, or a folder of the authors' published code."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from infra.errors import Refusal, counted
from infra.remote import fetch
from model import checkpoint, official, presets
from model.config import Finish, Method, Precision, TrainConfig
from model.metrics.features import VideoFeatures
from model.metrics.option import features_for
from model.metrics.scores import chunks_to_score
from model.metrics.svfid import RealClip
from model.networks.generators import GeneratorStack
from model.pyramid import Pyramid, ScaleSize, build, ladder, training_pyramids
from model.sampling.sampler import NetworkSampler, Sampler, is_finished, sampler_of

if TYPE_CHECKING:
    from model.sampling.applications import Applications

CHECKPOINT = "checkpoint.pt"  # in a clip's folder


@dataclass(frozen=True)
class LoadedModel:
    """What `load` returns.

    Attributes:
        stack: encoder and generators on the CPU, without gradients; None of a method without networks.
        name: the clip's id, or the path of the authors' folder.
        sizes: (T, H, W) of every scale of the clip.
        examples: how many chunks and copies of them it was trained on; None where that is not known.
        latent_frames: of the z that videos are drawn from; None: those of scale 0, as in training.
        note: one line on what had to be assumed; "" if nothing had to be.
    """

    config: TrainConfig
    stack: GeneratorStack | None
    name: str
    sizes: Sequence[ScaleSize]
    examples: int | None = None
    latent_frames: int | None = None
    note: str = ""

    @property
    def needs_clip(self) -> bool:
        """Whether its videos are made of the clip's patches too."""
        return is_finished(self.config, self.stack)

    def rival(self, method: Method) -> LoadedModel:
        """A method without networks, of the same clip at the same size; of the clip itself, without its copies."""
        config = replace(self.config, method=method, flip=False, crops=0)
        return replace(self, config=config, stack=None, examples=None, latent_frames=None)

    @property
    def size(self) -> ScaleSize:
        """(T, H, W) of a video as large as the clip: of the finest scale, or of the finest that is trained."""
        return self.sizes[-1] if self.needs_clip or self.stack is None else self.sizes[self.stack.num_scales - 1]

    def check_frames(self, chunks_thwc: Sequence[np.ndarray]) -> None:
        """Raises ValueError, one line, for frames that cannot be those of its clip: their shape, number or size."""
        for chunk in chunks_thwc:
            if chunk.ndim != 4 or chunk.shape[3] != 3:
                cause = f"frames of shape {chunk.shape}, uint8 (T, H, W, 3) are needed"
                raise Refusal(f"{self.name}: {cause}; of one picture give picture[None]")
            if len(chunk) != self.config.num_frames:
                cause = f"{counted(len(chunk), 'frame')}, its clip has {self.config.num_frames}"
                raise Refusal(f"{self.name}: {cause}; give as many, of a long video chunks of as many")
            finest = ladder(self.config, *chunk.shape[1:3])[-1]
            if any(abs(side - own) > 1 for side, own in zip(finest, self.sizes[-1], strict=True)):  # px of rounding
                px = "×".join(map(str, chunk.shape[1:3]))
                cause = f"frames of {px} px have a finest scale of {finest}, its clip {self.sizes[-1]}"
                raise Refusal(f"{self.name}: {cause}: they are of another clip; give its own")

    def real_clip(self, chunks_thwc: Sequence[np.ndarray], features: VideoFeatures | None = None) -> RealClip:
        """What its samples are scored against: the clip, or its chunks to score, and no augmented copy of them.

        Args:
            chunks_thwc: uint8 (T, H, W, 3) each.
            features: None: Lite0; of a video's, those of its frames are taken for images.

        Raises TypeError, ValueError: frames that cannot be those of its clip, or that the features refuse.
        """
        self.check_frames(chunks_thwc)
        chunks = [build(frames, [self.size], self.config.resizing)[0] for frames in chunks_to_score(chunks_thwc)]
        return RealClip(chunks, features_for(self.config.dims, features))

    def sampler(self, chunks_thwc: Sequence[np.ndarray], device: torch.device) -> Sampler:
        """What its videos come from, on a device.

        Args: chunks_thwc: the clip, uint8 (T, H, W, 3) each; none where the model does not need it. Without it there is
            no reconstruction.

        Raises ValueError, one line, for frames that cannot be those of its clip.
        """
        stack = self.stack.to(device) if self.stack else None
        if not self.needs_clip:
            assert stack is not None
            zero = build(chunks_thwc[0], self.sizes[:1], self.config.resizing)[0] if chunks_thwc else None
            return NetworkSampler(stack, None if zero is None else torch.from_numpy(zero)[None], self.latent_frames)
        if self.latent_frames is not None:
            raise Refusal(f"{self.name}: its videos are made of the clip's patches too; leave out --z-frames")
        if not chunks_thwc:
            raise Refusal(f"{self.name}: its videos are made of the clip's patches, and its frames are not there")
        return sampler_of(self.config, stack, self._clip(chunks_thwc), device)

    def _clip(self, chunks_thwc: Sequence[np.ndarray]) -> list[Pyramid]:
        """What it was trained on. Raises ValueError, one line, for frames that cannot be those of its clip."""
        self.check_frames(chunks_thwc)
        clip = training_pyramids(chunks_thwc, self.config, self.sizes)
        if self.examples not in (None, len(clip)):
            cause = f"trained on {self.examples} chunks and copies of them, there are {len(clip)}"
            raise Refusal(f"{self.name}: {cause}: chunks are lost, or of another clip; give all of its own")
        return clip

    def applications(
        self, chunks_thwc: Sequence[np.ndarray], device: torch.device, finish: Finish | None = None
    ) -> Applications:
        """What it can make of a given video, on a device.

        Args: chunks_thwc: the clip, as of `sampler`; empty: only what needs no clip. finish: see `Applications`.

        Raises ValueError, one line, for an unfinished model and for frames that cannot be those of its clip.
        """
        stack = self.stack.to(device) if self.stack else None
        trained = stack.num_scales if stack else 0
        if trained < self.config.trained_scales:
            cause = f"{trained} of {self.config.trained_scales} scales are trained"
            raise Refusal(f"{self.name}: {cause}; finish the training first, by the same command again")
        if chunks_thwc:
            self._clip(chunks_thwc)
        from model.sampling.applications import Applications  # imports scipy, which plain samples must not wait for

        return Applications(self.config, stack, chunks_thwc, self.sizes, device, finish)


def load(path: str, *, precision: Precision | None = None, latent_frames: int | None = None) -> LoadedModel:
    """The generators of a clip's checkpoint, or of a folder of the authors' code.

    Args:
        path: the file, or the folder of a clip; or the URI of one.
        precision: that videos are computed in; None: that of the training, and float32 for the authors' code.
        latent_frames: see `LoadedModel`.

    Raises CheckpointError for what cannot be read, ValueError for a clip too narrow for the ladder.
    """
    loaded = _load(path, precision)
    return replace(loaded, latent_frames=latent_frames)


def _load(path: str, precision: Precision | None) -> LoadedModel:
    with tempfile.TemporaryDirectory() as cache:
        try:
            local = fetch(path, Path(cache))
        except (ValueError, OSError) as error:
            raise checkpoint.CheckpointError(str(error)) from error
        folder = Path(local)
        if (folder / CHECKPOINT).is_file():
            local = str(folder / CHECKPOINT)
        elif folder.is_dir() and not (folder / official.NETWORKS).exists():
            cause = f"holds no {CHECKPOINT} of a clip, and no {official.NETWORKS} of the authors' code"
            raise checkpoint.CheckpointError(f"{path}: {cause}; give the folder of one trained clip, or its file")
        if not Path(local).is_dir():
            saved = checkpoint.load(local)
            saved = replace(saved, config=replace(saved.config, precision=precision or saved.config.precision))
            sizes = [ScaleSize(*size) for size in saved.sizes]
            return LoadedModel(saved.config, saved.stack(), saved.clip_id, sizes, saved.samples)
        published = official.load(local, replace(presets.official(), precision=precision or "float32"))
    note = ""
    if published.aspect is None:
        note = f"no args.txt in {path}: taken as a 16:9 clip with {published.config.vae_levels} VAE scales"
    sizes = list(ladder(published.config, *(published.aspect or (9, 16))))
    return LoadedModel(published.config, published.stack(sizes), path, sizes, note=note)

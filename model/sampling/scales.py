"""The scales at which a given video can enter a model: those of its ladder, or of VGPNN's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.config import Finish, TrainConfig
from model.networks.generators import GeneratorStack
from model.patches.field import Size
from model.patches.refine import ClipPatches, Matching
from model.patches.vgpnn import Vgpnn, shrunk
from model.pyramid import ScaleSize, build, training_pyramids
from model.sampling.sample import stretched_ladder
from model.sampling.sampler import check_patch, clip_patches, matching_of


class CannotApply(ValueError):
    """An application that this model or this input does not allow; one line that names the mend."""


class Scales(Protocol):
    """The scales of one model and its clip.

    Attributes:
        sizes: (T, H, W) of the clip at every scale, coarsest first.
        patch_from: the first scale that is made of the clip's patches; len(sizes) if none is.
        how: how a patch is chosen.
        passes: at each of these scales.
    """

    sizes: Sequence[ScaleSize]
    patch_from: int
    how: Matching
    passes: int

    def ladder_to(self, size: Size) -> list[ScaleSize]:
        """The scales of a video of another size, coarsest first. Raises ValueError, one line, if it cannot be."""

    def patches(self) -> ClipPatches:
        """The clip's, at every scale. Raises CannotApply without the clip."""

    def given(self, frames_thwc: np.ndarray, sizes: Sequence[ScaleSize], n: int) -> Tensor:
        """A given video, uint8 (T, H, W, 3), at scale n of a ladder: (1, 3, *sizes[n]) float32."""


def scales_of(
    config: TrainConfig,
    stack: GeneratorStack | None,
    chunks: Sequence[np.ndarray],
    sizes: Sequence[ScaleSize],
    device: torch.device,
    finish: Finish | None,
) -> Scales:
    """The scales of a model; the arguments are those of `workbench.Workbench`.

    Raises CannotApply for a model that nothing can enter, and for a `finish` that it does not have.
    """
    if config.method == "vgpnn":
        scales: Scales = _OfVgpnn(config, chunks, sizes[-1], device)
    else:
        assert stack is not None
        scales = _OfNetworks(config, stack, chunks, sizes, device)
        if finish == "patches":
            scales.patch_from = min(scales.patch_from, 1)
    if finish == "generators" and scales.patch_from < len(scales.sizes):
        mend = "leave out --finish generators, or train with --method singan or --set patch_scale=none"
        raise CannotApply(f"its fine scales were never trained, patches make them; {mend}")
    return scales


class _OfNetworks:
    def __init__(
        self,
        config: TrainConfig,
        stack: GeneratorStack,
        chunks: Sequence[np.ndarray],
        sizes: Sequence[ScaleSize],
        device: torch.device,
    ) -> None:
        if stack.carried != 3:
            cause = "features go from scale to scale, so no picture can enter at one"
            raise CannotApply(f"method={config.method}: {cause}")
        self.sizes: Sequence[ScaleSize] = sizes
        self.passes = config.patch_passes
        self.how = matching_of(config)
        self.patch_from = config.trained_scales if config.made_of_patches else len(sizes)
        self._config, self._stack, self._chunks, self._device = config, stack, chunks, device
        self._patches: ClipPatches | None = None

    def ladder_to(self, size: Size) -> list[ScaleSize]:
        """See `Scales`."""
        return stretched_ladder(self._stack, size, len(self.sizes))

    def patches(self) -> ClipPatches:
        """See `Scales`; with the clip's copies, as in training."""
        if self._patches is None:
            need_clip(self._chunks)
            check_patch(self.sizes[self.patch_from], self.how)
            clip = training_pyramids(self._chunks, self._config, self.sizes)
            self._patches = clip_patches(self.sizes, clip, self._device)
        return self._patches

    def given(self, frames_thwc: np.ndarray, sizes: Sequence[ScaleSize], n: int) -> Tensor:
        """See `Scales`."""
        return at_scale(frames_thwc, sizes[n], self._config)


class _OfVgpnn:
    """They have any number of frames, and are all made of patches."""

    patch_from = 0

    def __init__(
        self, config: TrainConfig, chunks: Sequence[np.ndarray], size: ScaleSize, device: torch.device
    ) -> None:
        need_clip(chunks)
        finest = torch.cat([at_scale(chunk, size._replace(frames=len(chunk)), config) for chunk in chunks])
        self._vgpnn, self._config = Vgpnn(finest, device), config
        self.sizes: Sequence[ScaleSize] = [ScaleSize(*scale) for scale in self._vgpnn.sizes]
        self.how, self.passes = self._vgpnn.method.how, self._vgpnn.method.passes

    def ladder_to(self, size: Size) -> list[ScaleSize]:
        """See `Scales`."""
        return [ScaleSize(*scale) for scale in self._vgpnn.ladder_to(size)]

    def patches(self) -> ClipPatches:
        """See `Scales`."""
        check_patch(self.sizes[0], self.how)
        return self._vgpnn.patches

    def given(self, frames_thwc: np.ndarray, sizes: Sequence[ScaleSize], n: int) -> Tensor:
        """See `Scales`."""
        return shrunk(at_scale(frames_thwc, sizes[-1], self._config), sizes[n])


def need_clip(chunks: Sequence[np.ndarray]) -> None:
    """Raises CannotApply where the clip's frames are not there."""
    if not chunks:
        raise CannotApply("the clip itself is needed; give --real CLIP")


def at_scale(frames_thwc: np.ndarray, size: ScaleSize, config: TrainConfig) -> Tensor:
    """Frames as a model sees them, (1, 3, *size) float32 in [-1, 1]; of a size of fewer, every second, third, …"""
    return torch.from_numpy(build(frames_thwc, [size], config.resizing)[0])[None]

"""One model and its clip on a device: what all applications work with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from model.config import Finish, TrainConfig
from model.device import HOST, most_at_once, usual_threads
from model.networks.generators import GeneratorStack
from model.patches.field import Size
from model.patches.refine import ClipPatches, Step, needed_bytes, pixels_of
from model.pyramid import ScaleSize, to_frames
from model.sampling.sample import Tick, run_level
from model.sampling.sampler import NetworkSampler, check_video
from model.sampling.scales import CannotApply, Scales, at_scale, need_clip, scales_of
from model.sampling.tiling import MAX_VOXELS

NEAREST = 1e6  # of `Matching.alpha`: so large that the nearest patch alone counts


class Workbench:
    """A model and its clip.

    Videos are uint8 (T, H, W, 3) RGB; of images T is 1. Random numbers come from a seed and an index, as those of a
    sample do: result i of a seed is the same whatever else is made.

    Attributes:
        progress: called with the share of the result's steps that were done since the last call: scales of generators
            and passes of patches. May be set. Results that are made side by side call it from several threads.
    """

    def __init__(
        self,
        config: TrainConfig,
        stack: GeneratorStack | None,
        chunks: Sequence[np.ndarray],
        sizes: Sequence[ScaleSize],
        device: torch.device,
        finish: Finish | None = None,
    ) -> None:
        """
        Args:
            stack: on the device; None of a method without networks.
            chunks: the clip, uint8 (T, H, W, 3); of a long video every chunk. Empty: only what needs no clip works.
            sizes: (T, H, W) of every scale of the clip.
            finish: of what the scales above a given video are; None: as the model's samples.

        Raises CannotApply, one line, for a model that nothing can be made with.
        """
        self.config, self.device = config, device
        self.progress: Callable[[float], None] = lambda share: None
        self._stack, self._chunks = stack, list(chunks)
        self._scales: Scales = scales_of(config, stack, self._chunks, sizes, device, finish)
        # voxels that are computed at once: no less than the clip's, which fitted when it was trained
        self._limit = max(MAX_VOXELS, *(math.prod(size) for size in self.sizes))

    # -- the clip

    @property
    def sizes(self) -> Sequence[ScaleSize]:
        """(T, H, W) of the clip at every scale, coarsest first."""
        return self._scales.sizes

    @property
    def size(self) -> ScaleSize:
        """(T, H, W) of a video as large as the clip."""
        return self.sizes[-1]

    @property
    def has_clip(self) -> bool:
        """Whether the clip's frames are there."""
        return bool(self._chunks)

    def clip(self, chunk: int = 0) -> np.ndarray:
        """The clip as the model sees it at its finest scale. Raises CannotApply without it."""
        need_clip(self._chunks)
        return self.at_size(self._chunks[chunk])

    def at_size(self, frames_thwc: np.ndarray) -> np.ndarray:
        """Frames at the height and width of the finest scale; unchanged where they have it."""
        _, height, width = self.size
        if frames_thwc.shape[1:3] == (height, width):
            return frames_thwc
        return self._frames(self._video(frames_thwc, ScaleSize(len(frames_thwc), height, width)))

    def _video(self, frames_thwc: np.ndarray, size: ScaleSize) -> Tensor:
        return at_scale(frames_thwc, size, self.config)

    @staticmethod
    def _frames(x: Tensor) -> np.ndarray:
        return to_frames(x[0].clamp(-1, 1).float().cpu().numpy())

    # -- what makes the scales

    @property
    def makes_patches(self) -> bool:
        """Whether any scale is made of the clip's patches."""
        return self._scales.patch_from < len(self.sizes)

    @property
    def at_once(self) -> int:
        """How many videos as large as the clip are best made `concurrently`."""
        needed = needed_bytes(math.prod(self.size), pixels_of(self.sizes, max(1, len(self._chunks))))
        return most_at_once(needed, self.device) if self.makes_patches else 1

    def ladder_to(self, size: Size) -> list[ScaleSize]:
        """The scales of a video of another size, coarsest first. Raises ValueError, one line, if it cannot be."""
        return self._scales.ladder_to(size)

    def patches(self) -> ClipPatches:
        """Those of the clip at the model's scales. Raises CannotApply without the clip."""
        return self._scales.patches()

    def _networks_of(self, what: str) -> GeneratorStack:
        """Raises CannotApply where there are none. what: they are needed for."""
        if self._stack is None:
            raise CannotApply(f"method={self.config.method}: has no {what}; take a model of hpvaegan")
        return self._stack

    def _ticks(self, steps: int) -> Tick:
        """To be called with how many of a result's steps were done since the last call."""
        return lambda more: self.progress(more / steps)

    def _generators(
        self, x: Tensor, scales: range, stack: GeneratorStack, noise: Callable[[int], Tensor | None], tick: Tick
    ) -> Tensor:
        """Some scales of a stack: what is below them, or z, → what the last of them gives."""
        for n in scales:
            with usual_threads():
                x = torch.cat(list(run_level(stack, x, n, noise(n), self._limit)), dim=2)
            tick(1)
        return x

    def _check_memory(self, size: ScaleSize) -> None:
        """Raises ValueError, one line, for a video that the model's own scales have no memory for."""
        if self.makes_patches:
            self._check_patch_memory(size, self.sizes)
        else:
            check_video(size, NetworkSampler(self._networks_of("generators")).needed_bytes, HOST)

    def _check_patch_memory(self, size: ScaleSize, clip_sizes: Sequence[Size]) -> None:
        """The same of a video that is made of the clip's patches at these scales."""
        of_clip = pixels_of(clip_sizes, max(1, len(self._chunks)))
        check_video(size, lambda pixels: needed_bytes(pixels, of_clip), self.device)


def passes(steps: Sequence[Step]) -> int:
    """Of all these steps."""
    return sum(step.passes for step in steps)

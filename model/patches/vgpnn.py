"""VGPNN: random videos from the patches of one clip, without training (Haim et al., ECCV 2022, arXiv 2109.08591).

The coarsest scale of the clip is covered with noise, and from there on `refine` makes a video of the clip's patches,
scale by scale. Numbers are those of the authors' published code (nivha/single_video_generation, 22c1e87) at its
defaults; α is that of GPNN (Granot et al. 2022), whose completeness that code leaves out.
Theirs differs in the median of overlapping patches in place of the mean, and in cubic enlarging.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from model.patches.field import Size
from model.patches.refine import ClipPatches, Matching, Step, enlarged, refine

DOWN = 0.85  # --downfactor: of frames and pixels, a scale
LEAST_FRAMES, LEAST_SIDE = 3, 15  # --min_size, of the coarsest scale
NOISE = 5.0  # standard deviation of what is added to the coarsest scale, whose values are in [-1, 1]
COARSEST_PASSES, PASSES = 1, 5  # --J_start_from, --J


def vgpnn_ladder(size: Size) -> list[tuple[int, int, int]]:
    """Sizes of all scales of a clip of (T, H, W), coarsest first; the last is the clip's own.

    Frames and pixels shrink by DOWN a scale, each until it reaches its least.
    """
    frames, height, width = size
    least_frames = min(1.0, LEAST_FRAMES / frames)
    least_side = min(1.0, LEAST_SIDE / min(height, width))
    sizes, factor = [], 1.0
    while True:
        t, side = max(factor, least_frames), max(factor, least_side)
        scale = (round(frames * t), round(height * side), round(width * side))
        if scale not in sizes:
            sizes.append(scale)
        if factor <= min(least_frames, least_side):
            return sizes[::-1]
        factor *= DOWN


def shrunk(videos: Tensor, size: Size) -> Tensor:
    """(B, 3, T, H, W) at a smaller size: cubic with antialiasing, along frames too."""
    batch, channels, frames, height, width = videos.shape
    if size == (frames, height, width):
        return videos
    flat = videos.reshape(batch, channels * frames, height, width)
    flat = F.interpolate(flat, size=tuple(size[1:]), mode="bicubic", antialias=True)
    along = flat.reshape(batch, channels, frames, -1)
    along = F.interpolate(along, size=(size[0], along.shape[-1]), mode="bicubic", antialias=True)
    return along.reshape(batch, channels, *size)


@dataclass
class Vgpnn:
    """A clip, and what VGPNN makes of it. clip: (chunks, 3, T, H, W) float32 in [-1, 1]; of a short clip one chunk."""

    clip: Tensor
    device: torch.device
    how: ClassVar[Matching] = Matching(patch=(3, 7, 7), alpha=0.005)

    def __post_init__(self) -> None:
        size: Sequence[int] = self.clip.shape[2:]
        self.sizes = vgpnn_ladder(size)
        self._patches = ClipPatches(self.sizes, lambda n: shrunk(self.clip, self.sizes[n]), self.device)

    def ladder_to(self, size: Size) -> list[tuple[int, int, int]]:
        """The ladder, stretched so that it ends at `size`."""
        finest = self.sizes[-1]
        stretched = [
            tuple(round(side * out / own) for side, out, own in zip(scale, size, finest, strict=True))
            for scale in self.sizes
        ]
        return [(t, h, w) for t, h, w in stretched]

    @staticmethod
    def steps(sizes: Sequence[Size]) -> int:
        """Passes of one video of these scales: what `sample` counts for `tick`."""
        return COARSEST_PASSES + PASSES * (len(sizes) - 1)

    def sample(
        self,
        sizes: Sequence[Size],
        random: torch.Generator,
        *,
        noise: float = NOISE,
        tick: Callable[[int], None] = lambda passes: None,
    ) -> Tensor:
        """A random video of the size sizes[-1]; without noise it is the clip, or the clip at that size.

        Args: sizes: of `ladder_to`. random: on the CPU.
        Returns (1, 3, T, H, W) float32 in [-1, 1]. Raises ValueError for a size that holds no patch.
        """
        coarsest = self._patches.values(0)
        chunk = int(torch.randint(len(coarsest), (1,), generator=random))
        start = enlarged(coarsest[chunk : chunk + 1], sizes[0])
        if noise:
            start = start + noise * torch.randn(start.shape, generator=random).to(start.device)
        steps = [Step(n, size, PASSES if n else COARSEST_PASSES) for n, size in enumerate(sizes)]
        return refine(start, self._patches, steps, self.how, random, tick)

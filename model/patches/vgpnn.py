"""VGPNN and GPNN: random videos, or images, from the patches of one clip, without training.

VGPNN: Haim et al., ECCV 2022, arXiv 2109.08591; GPNN: Granot et al., CVPR 2022, arXiv 2103.15545. The coarsest scale of
the clip is covered with noise, and from there on `refine` makes a video of the clip's patches, scale by scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.interpolation import interpolated
from model.patches.field import Size
from model.patches.refine import ClipPatches, Matching, Step, refine


@dataclass(frozen=True)
class PatchMethod:
    """The numbers of a method.

    Attributes:
        down: of frames and pixels, a scale.
        least_frames, least_side: of the coarsest scale.
        noise: standard deviation of what is added to the coarsest scale, whose values are in [-1, 1].
        grey: whether the noise is the same in all channels.
        coarsest_passes, passes: at the coarsest scale, and at each other.
    """

    how: Matching
    down: float
    least_frames: int
    least_side: int
    noise: float
    grey: bool
    coarsest_passes: int
    passes: int


# The authors' published code at its defaults (nivha/single_video_generation, 22c1e87, run_generation.py: --downfactor,
# --min_size, --J_start_from, --J, and noises_amps); α is GPNN's, whose completeness that code leaves out. Theirs also
# makes half the frames (--sthw 0.5,1,1), searches by PatchMatch, takes the median of overlapping patches in place of
# the mean, and enlarges by cubic interpolation.
VGPNN = PatchMethod(Matching(patch=(3, 7, 7), alpha=0.005), 0.85, 3, 15, 5.0, False, 1, 5)
# GPNN's own code is not published: the defaults of iyttor/GPNN (2266afc), whose images are in [0, 1]. That takes the
# root of the squared distance, where this takes the mean square, as the text has it.
GPNN = PatchMethod(Matching(patch=(1, 7, 7), alpha=0.005), 0.75, 1, 14, 1.5, True, 10, 10)


def method_for(size: Size) -> PatchMethod:
    """Of a clip of (T, H, W): GPNN for an image, which has one frame, else VGPNN."""
    return GPNN if size[0] == 1 else VGPNN


def vgpnn_ladder(size: Size) -> list[tuple[int, int, int]]:
    """Sizes of all scales of a clip of (T, H, W), coarsest first; the last is the clip's own.

    Frames and pixels shrink by the method's factor a scale, each until it reaches its least.
    """
    frames, height, width = size
    method = method_for(size)
    least_frames = min(1.0, method.least_frames / frames)
    least_side = min(1.0, method.least_side / min(height, width))
    sizes, factor = [], 1.0
    while True:
        t, side = max(factor, least_frames), max(factor, least_side)
        scale = (round(frames * t), round(height * side), round(width * side))
        if scale not in sizes:
            sizes.append(scale)
        if factor <= min(least_frames, least_side):
            return sizes[::-1]
        factor *= method.down


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
    """A clip, and what VGPNN, of an image GPNN, makes of it.

    clip: (chunks, 3, T, H, W) float32 in [-1, 1]; of a short clip one chunk.
    """

    clip: Tensor
    device: torch.device

    def __post_init__(self) -> None:
        size: Sequence[int] = self.clip.shape[2:]
        self.method = method_for(size)
        self.sizes = vgpnn_ladder(size)
        self.patches = ClipPatches(self.sizes, lambda n: shrunk(self.clip, self.sizes[n]), self.device)

    def ladder_to(self, size: Size) -> list[tuple[int, int, int]]:
        """The ladder, stretched so that it ends at `size`."""
        finest = self.sizes[-1]
        stretched = [
            tuple(round(side * out / own) for side, out, own in zip(scale, size, finest, strict=True))
            for scale in self.sizes
        ]
        return [(t, h, w) for t, h, w in stretched]

    def steps(self, sizes: Sequence[Size]) -> int:
        """Passes of one video of these scales: what `sample` counts for `tick`."""
        return self.method.coarsest_passes + self.method.passes * (len(sizes) - 1)

    def sample(
        self,
        sizes: Sequence[Size],
        random: torch.Generator,
        *,
        noisy: bool = True,
        tick: Callable[[int], None] = lambda passes: None,
    ) -> Tensor:
        """A random video of the size sizes[-1]; without noise it is the clip, or the clip at that size.

        Args: sizes: of `ladder_to`. random: on the CPU.
        Returns (1, 3, T, H, W) float32 in [-1, 1]. Raises ValueError for a size that holds no patch.
        """
        coarsest = self.patches.values(0)
        chunk = int(torch.randint(len(coarsest), (1,), generator=random))
        start = interpolated(coarsest[chunk : chunk + 1], sizes[0])
        method = self.method
        if noisy:
            batch, channels, *volume = start.shape
            drawn = torch.randn((batch, 1 if method.grey else channels, *volume), generator=random)
            start = start + method.noise * drawn.to(start.device)
        steps = [Step(n, size, method.passes if n else method.coarsest_passes) for n, size in enumerate(sizes)]
        return refine(start, self.patches, steps, method.how, random, tick=tick)

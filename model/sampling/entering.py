"""A given video or image enters at a scale, in place of what the scales below would make; the rest runs on it.

SinGAN's applications (Shaham et al. 2019, §4) and those of the paper's Fig. 8; here for videos too. What a scale is, a
generator or the clip's patches, is that of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import Retarget
from model.interpolation import interpolated
from model.patches.field import Grid, Size, fits
from model.patches.refine import Matching, Step, refine
from model.pyramid import ScaleSize, to_video
from model.sampling.masks import composite, mask_weight
from model.sampling.sample import Draw, ignore, stream_of, stretched
from model.sampling.scales import CannotApply
from model.sampling.workbench import NEAREST, Workbench, passes

SEARCHED_PAIRS = 10**9  # of patches that are compared where a video enters: 2 s on two cores
BACK_PROJECTIONS = 8  # of `enlarge`, a step: more change less than a level


@dataclass(frozen=True)
class _Entered:
    """A video where it enters.

    Attributes:
        at: the video at scale n: n → (1, 3, *sizes[n]).
        first: the scale.
        hold: from 0 to 1, see `inject`.
    """

    at: Callable[[int], Tensor]
    first: int
    hold: float

    @cached_property
    def low(self) -> Tensor:
        """What the scale `first` runs on."""
        return self.at(self.first - 1)

    def held(self, made: Tensor, size: Size) -> Tensor:
        """What is made, (1, 3, *size), with its coarse content brought back to that of the video, by `hold`."""
        low = self.low.to(made.device)
        return made + self.hold * interpolated(low - F.interpolate(made, size=low.shape[2:], mode="area"), size)


class Entering(Workbench):
    """`inject`, and what it is for: `edit`, `retarget`, `enlarge`."""

    def inject(
        self,
        given: np.ndarray,
        scale: int,
        *,
        seed: int = 0,
        index: int = 0,
        size: Size | None = None,
        hold: float = 0.0,
    ) -> np.ndarray:
        """What the scales from `scale` on make of a given video.

        Args:
            given: uint8 (T, H, W, 3), of any height and width, and of the clip's frames or those of `size`.
            scale: from 1 to the finest; the lower, the more is made anew.
            size: (T, H, W) of the result; None: the clip's.
            hold: from 0 to 1: where it enters at a scale of patches, how much of it, seen at the scale below, is
                brought back after each pass but the last. 0: patches go where they like, and may cover what is unlike
                the clip; 1: colours and places stay. Below, generators run on it, and nothing is held.

        Returns uint8 (T, H, W, 3). Raises CannotApply, one line, for a scale that is none, and for a number of frames
        that its scales cannot have; ValueError for a size that cannot be.
        """
        sizes = self.ladder_to(size or self.size)
        return self._injected(given, scale, sizes, self._scales.how, hold, stream_of(seed, index, Draw.ENTERING))

    def edit(
        self,
        given: np.ndarray,
        mask: np.ndarray,
        scale: int,
        *,
        stays: np.ndarray | None = None,
        grown: float | None = None,
        feather: float | None = None,
        hold: float = 0.0,
        seed: int = 0,
        index: int = 0,
    ) -> np.ndarray:
        """`inject` of a clip that was edited in part: what the scales make of it is seen in a mask alone.

        Patches do not ask for all of the clip (`Matching.alpha`): what the edit hides would be asked for most, and come
        back in its place.

        Args:
            given: uint8 (T, H, W, 3) of the finest scale, edited, or with something laid over it.
            mask: bool (T, H, W), where it changes.
            stays: uint8 (T, H, W, 3), what is seen elsewhere, to the bit; None: what was given.
            grown, feather: px, see `masks.mask_weight`.
            hold: as of `inject`.

        Returns uint8 (T, H, W, 3). Raises what `inject` and `masks.mask_weight` raise, and CannotApply, one line, for
        another size than the clip's.
        """
        stays = given if stays is None else stays
        for what, found in {"given": given, "stays": stays, "mask": mask}.items():
            if found.shape[:3] != tuple(self.size):
                sizes = f"{what} is {ScaleSize(*found.shape[:3])}, and the clip {self.size}"
                raise CannotApply(f"{sizes} (T×H×W); bring it there by at_size")
        weight = mask_weight(mask, grown, feather)
        nearest = replace(self._scales.how, alpha=NEAREST)
        random = stream_of(seed, index, Draw.ENTERING)
        made = self._injected(given, scale, self.ladder_to(self.size), nearest, hold, random)
        return composite(made, stays, weight)

    @torch.no_grad()
    def _injected(
        self,
        given: np.ndarray,
        scale: int,
        sizes: Sequence[ScaleSize],
        how: Matching,
        hold: float,
        random: torch.Generator,
    ) -> np.ndarray:
        """See `inject`."""
        self._check_scale(scale)
        if len(given) != sizes[-1].frames:
            raise CannotApply(f"{len(given)} frames enter a model of {sizes[-1].frames}; give as many")
        if not 0 <= hold <= 1:
            raise CannotApply(f"hold={hold:g}: from 0 to 1")
        self._check_memory(sizes[-1])
        entered = _Entered(partial(self._scales.given, given, sizes), scale, hold)
        if scale < self._scales.patch_from:
            return self._frames(self._rest(entered.low, scale, sizes, how, random))
        return self._frames(self._made_of_patches(entered, sizes, how, random))

    def _check_scale(self, scale: int) -> None:
        if len(self.sizes) == 1:
            raise CannotApply("a model of one scale: nothing can enter above it; train more scales")
        if not 1 <= scale < len(self.sizes):
            raise CannotApply(f"--scale {scale}: a video enters at a scale from 1 to {len(self.sizes) - 1}, the finest")

    def _rest(
        self, x: Tensor, first: int, sizes: Sequence[ScaleSize], how: Matching, random: torch.Generator
    ) -> Tensor:
        """Generators from scale `first` on, then patches, if any: (1, 3, *sizes[first - 1]) → (1, 3, *sizes[-1])."""
        stack, patch_from = stretched(self._networks_of("generators"), sizes), self._scales.patch_from
        steps = [Step(n, sizes[n], self._scales.passes) for n in range(patch_from, len(sizes))]
        tick = self._ticks(patch_from - first + passes(steps))
        x = self._generators(x, range(first, patch_from), stack, lambda n: stack.noise(n, 1, random), tick)
        return refine(x, self.patches(), steps, how, random, tick=tick) if steps else x

    def _made_of_patches(
        self, entered: _Entered, sizes: Sequence[ScaleSize], how: Matching, random: torch.Generator
    ) -> Tensor:
        """A given video, made of patches from the scale on at which it enters.

        What is like it may be anywhere in the clip, so all patches are compared. Where they are too many, that is done
        at a scale below, and the search goes on from there.
        """
        first = entered.first
        searched = self._searched(sizes[:first]) if self._pairs(sizes[first], first) > SEARCHED_PAIRS else []
        steps = [*searched, *(Step(n, sizes[n], self._scales.passes) for n in range(first, len(sizes)))]

        left = passes(steps)

        def given(made: Tensor, step: Step) -> Tensor:
            nonlocal left
            left -= 1
            if step.n < first:
                return entered.at(step.n).to(made.device)
            return entered.held(made, step.size) if left and entered.hold else made

        x, tick = entered.at(searched[0].n) if searched else entered.low, self._ticks(passes(steps))
        return refine(x, self.patches(), steps, how, random, tick=tick, after=given, first_pairs=SEARCHED_PAIRS)

    def _searched(self, below: Sequence[ScaleSize]) -> list[Step]:
        """Of the scales of a video: from the last one on at which all pairs of patches can be compared.

        None if there is no such scale: then the search begins at random.
        """
        patch = self._scales.how.patch
        fit = [(n, size) for n, size in enumerate(below) if fits(size, patch) and fits(self.sizes[n], patch)]
        begin = max((n for n, size in fit if self._pairs(size, n) <= SEARCHED_PAIRS), default=None)
        return [] if begin is None else [Step(n, size, 1) for n, size in fit if n >= begin]

    def _pairs(self, size: ScaleSize, n: int) -> int:
        """Of patches of a video of `size`, and of the clip's at scale n."""
        frames, height, width = self.sizes[n]
        grid = Grid(len(self._chunks), (frames, height, width), self._scales.how.patch)
        return math.prod(size) * len(grid)

    def retarget(self, size: Size, keep: Retarget, *, seed: int = 0, index: int = 0) -> np.ndarray:
        """The clip at another size and aspect.

        Args:
            size: (T, H, W).
            keep: objects: they stay as large as they are, there are more or fewer of them; the clip enters at the
                coarsest scale, where it is stretched. layout: all stays where it is and is stretched with the picture;
                the clip enters at the finest scale, which gives it its detail.

        Returns uint8 (T, H, W, 3). Raises CannotApply, one line, for another number of frames than the clip's, and what
        `inject` raises.
        """
        scale = len(self.sizes) - 1 if keep == "layout" else 1
        sizes = self.ladder_to(size)
        if sizes[-1].frames != self.size.frames:
            raise CannotApply(f"--retarget: keeps the clip's {self.size.frames} frames; see --extend for more")
        return self.inject(self.clip(), scale, seed=seed, index=index, size=size)

    @torch.no_grad()
    def enlarge(self, factor: float, *, given: np.ndarray | None = None, seed: int = 0, index: int = 0) -> np.ndarray:
        """A video `factor` times as high and wide, with the detail of the clip: SinGAN's super-resolution.

        The finest scale is applied again and again, each time to a video larger by about the ladder's factor, so that
        they come to `factor` in all. After each the result is corrected to shrink to the given video (back-projection,
        Irani and Peleg 1991).

        Args:
            factor: above 1.
            given: uint8 (T, H, W, 3) of any size; None: the clip.

        Returns uint8 (T, factor · H, factor · W, 3). Raises CannotApply, one line, for another factor and for one that
        adds no pixel; ValueError for what does not fit into memory.
        """
        if not 1 < factor < math.inf:
            raise CannotApply(f"a factor of {factor:g}: larger means above 1; give 2 or 4")
        base = self.clip() if given is None else given
        frames, height, width = base.shape[:3]
        self._check_memory(ScaleSize(frames, round(height * factor), round(width * factor)))
        if (round(height * factor), round(width * factor)) == (height, width):
            raise CannotApply(f"a factor of {factor:g}: {height}×{width} px become no larger by it; give 2 or 4")
        low = torch.from_numpy(to_video(base))[None].to(self.device)
        x, count = low, self._enlargements(factor)
        tick = self._ticks(count)
        for k in range(1, count + 1):
            share = factor ** (k / count)
            size = ScaleSize(frames, round(height * share), round(width * share))
            x = self._finest_scale(x, size, stream_of(seed, index, Draw.ENLARGING, k))
            for _ in range(BACK_PROJECTIONS):
                error = low - F.interpolate(x, size=low.shape[2:], mode="area")
                x = (x + F.interpolate(error, size=tuple(size), mode="trilinear", align_corners=False)).clamp(-1, 1)
            tick(1)
        return self._frames(x)

    def _enlargements(self, factor: float) -> int:
        """How many of about the factor between the two finest scales come to `factor`."""
        below = [size.height for size in self.sizes if size.height < self.size.height]
        ratio = self.size.height / below[-1] if below else 4 / 3
        return max(1, round(math.log(factor) / math.log(ratio)))

    def _finest_scale(self, x: Tensor, size: ScaleSize, random: torch.Generator) -> Tensor:
        """What the finest scale makes of a video, at a larger size: (1, 3, *size) on the device."""
        last = len(self.sizes) - 1
        if self.makes_patches:
            how = replace(self._scales.how, alpha=NEAREST, bandwidth=None)  # their mean: nearest to the truth
            return refine(interpolated(x, size), self.patches(), [Step(last, size, 2)], how, random)
        stack = stretched(self._networks_of("generators"), [*self.sizes[:last], size])
        return self._generators(x.cpu(), range(last, last + 1), stack, lambda n: None, ignore).to(self.device)

"""A part of a clip made anew, so that it joins the frames that stay: holes, more frames, loops.

What is new is made of the clip's patches, by the search of VGPNN (Haim et al. 2022). Here they have all of the clip's
frames at every scale, so any number of frames can be made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.interpolation import interpolated
from model.patches.field import fits
from model.patches.refine import ClipPatches, Step, refine, touched
from model.pyramid import ScaleSize
from model.sampling.masks import composite, dilated, softened
from model.sampling.sample import Draw, reconstruct, stream_of
from model.sampling.scales import CannotApply, need_clip
from model.sampling.variations import mean_change
from model.sampling.workbench import NEAREST, Workbench, passes

HOLE_NOISE = 0.3  # standard deviations of the clip, on the smooth continuation that fills a hole
EXTENDING_NOISE = 1.0  # likewise, on the frames that are made new, so that small objects differ between seeds
SHORTEST_RUN = 1 / 3  # of the clip's frames: no sooner than that does what is prolonged turn back again
PERIODIC = 0.5  # of the clip's own change between frames: what comes so near to an earlier frame has come back to it


@dataclass(frozen=True)
class Seam:
    """How well a loop closes.

    Attributes:
        change: mean absolute difference of the last frame to the first, levels of 255; where frames were made to lead
            back, the largest between neighbours among them.
        own: the median of that between neighbouring frames of the clip.
    """

    change: float
    own: float

    @property
    def ratio(self) -> float:
        """1 or less: the seam cannot be told from the clip's own motion; of a still clip infinite where it is not."""
        return self.change / self.own if self.own else (math.inf if self.change else 1.0)


class Remaking(Workbench):
    """`fill`, `extend`, `loop`."""

    _kept: ClipPatches | None = None  # of all frames at every scale, for the next result

    @torch.no_grad()
    def fill(
        self, mask: np.ndarray, *, given: np.ndarray | None = None, grown: float = 1.0, seed: int = 0, index: int = 0
    ) -> np.ndarray:
        """What is under the mask made new from the rest of the clip; all else stays unchanged.

        The hole begins as a smooth continuation of its surroundings, which the patch-VAE of the coarsest scale makes
        like the clip; then the clip's patches make it, scale by scale, from those that the mask does not touch.

        Args:
            mask: bool (T, H, W), of the finest scale.
            given: the video with the hole, uint8 (T, H, W, 3) of the finest scale; None: the clip.
            grown: px around the mask that are made new too.

        Returns uint8 (T, H, W, 3). Raises CannotApply, one line, without the clip and for a mask that leaves no patch;
        ValueError for what does not fit into memory.
        """
        clip = self.clip()
        base = clip if given is None else given
        hole = dilated(mask, grown)
        is_clip = base.shape == clip.shape and np.array_equal(base[~hole], clip[~hole])
        ladder = [
            size
            for size in self._full_rate(len(base))
            if not _reduced(hole, size).all() and (not is_clip or self._leaves_patches(hole, size))
        ]
        if not ladder:
            patch = ScaleSize(*self._scales.how.patch)
            raise CannotApply(f"the mask leaves no patch of {patch} (T×H×W) to fill it with; make it smaller")
        holes = [_reduced(hole, size) for size in ladder]
        patches = self._patches_at(ladder, (lambda n: self._in_every_chunk(holes[n])) if is_clip else None)
        self._check_patch_memory(ladder[-1], patches.sizes)
        random = stream_of(seed, index, Draw.FILLING)
        x = self._smooth(base, hole, ladder[0])
        x = x + holes[0] * HOLE_NOISE * x.std() * torch.randn(x.shape, generator=random)

        def known(made: Tensor, step: Step) -> Tensor:
            """The video outside the hole."""
            real = self._video(base, ladder[step.n])
            return torch.where(holes[step.n].to(made.device), made, real.to(made.device))

        x = known(x.to(self.device), Step(0, ladder[0], 0))
        made = self._frames(self._remade(x, patches, ladder, random, known, NEAREST))
        return composite(made, base, np.maximum(softened(hole, 0.7), mask))

    def _leaves_patches(self, hole: np.ndarray, size: ScaleSize) -> bool:
        return not bool(touched(_reduced(hole, size), self._scales.how.patch).all())

    def _in_every_chunk(self, hole: Tensor) -> Tensor:
        """The hole in the first chunk; in the others, which may hold the same frames, wherever it is in any frame.

        (1, 1, T, H, W) → (chunks, 1, T, H, W).
        """
        ever = hole.any(dim=2, keepdim=True).expand(len(self._chunks) - 1, *hole.shape[1:])
        return torch.cat([hole, ever])

    def _smooth(self, base: np.ndarray, hole: np.ndarray, size: ScaleSize) -> Tensor:
        """The video at the coarsest size with its hole continued smoothly, and through E and G⁰: (1, 3, *size)."""
        x = _continued(self._video(base, size), _reduced(hole, size))
        stack = self._stack
        if stack is None or self.config.vae_levels == 0 or self.config.latent != "gaussian":
            return x
        at_zero = interpolated(x, self.sizes[0])
        return interpolated(reconstruct(stack, at_zero, last=0), size)

    @torch.no_grad()
    def extend(self, after: int = 0, before: int = 0, *, seed: int = 0, index: int = 0) -> np.ndarray:
        """The clip's own frames, and more behind and before them, made of its patches.

        They begin as the clip played backwards from its end (and to its start), which meets it without a jump, then
        forwards again, and so on. Where they turn is drawn: noise alone is no more than a place's own patch outweighs.

        Args: after, before: how many frames are made behind the clip's last and before its first.

        Returns uint8 (before + T + after, H, W, 3). Raises CannotApply, one line, for an image, for no frames, without
        the clip, and for both ends of a long video; ValueError for what does not fit into memory.
        """
        if self.config.dims == 2:
            raise CannotApply("--extend: an image has one frame, and no time to go on in")
        if min(after, before) < 0 or after + before == 0:
            raise CannotApply("--extend: 1 frame or more")
        own = self.clip(-1 if after else 0)
        if before and after and len(self._chunks) > 1:
            raise CannotApply("--extend: of a long video one end at a time; give one of --extend and --extend-before")
        ladder = self._full_rate(len(own) + after + before)
        patches = self._patches_at(ladder)
        self._check_patch_memory(ladder[-1], patches.sizes)
        random = stream_of(seed, index, Draw.EXTENDING)
        behind, ahead = _wandering(len(own), after, random), _wandering(len(own), before, random)
        base = np.concatenate([own[::-1][ahead][::-1], own, own[behind]])
        free = np.ones(len(base), bool)
        free[before : before + len(own)] = False
        hole = torch.from_numpy(free)[None, None, :, None, None]

        def known(made: Tensor, step: Step) -> Tensor:
            return torch.where(hole.to(made.device), made, self._video(base, ladder[step.n]).to(made.device))

        x = self._video(base, ladder[0])
        x = x + hole * EXTENDING_NOISE * x.std() * torch.randn(x.shape, generator=random)
        made = self._frames(self._remade(x, patches, ladder, random, known))
        made[before : before + len(own)] = own
        return made

    @torch.no_grad()
    def loop(self, given: np.ndarray | None = None, *, seed: int = 0, index: int = 0) -> tuple[np.ndarray, Seam]:
        """A loop of the clip, or of a given video: its last frame leads to its first.

        If the motion comes back to where it was, it is the longest run of frames that does, of a third of them or more.
        If not, it is all frames and then as many new ones, less two, that lead back: they begin as the frames played
        backwards, and patches of the clip that go around the seam make them anew.

        Args: given: uint8 (T, H, W, 3), brought to the height and width of the finest scale; None: the clip.

        Returns the loop, uint8 (t, H, W, 3), and its seam. Raises CannotApply, one line, for too few frames, for equal
        ones, and without the clip; ValueError for what does not fit into memory.
        """
        base = self.clip() if given is None else self.at_size(given)
        if len(base) < self._scales.how.patch[0] + 1:
            raise CannotApply(f"--loop: {self._scales.how.patch[0] + 1} frames or more; an image does not move")
        if (base == base[:1]).all():
            raise CannotApply("--loop: all frames are the same picture, which does not move; give a video that moves")
        own = float(np.median([mean_change(a, b) for a, b in pairwise(base)]))
        if closed := _closed_run(base, PERIODIC * own):
            frames = base[closed]
            return frames, Seam(mean_change(frames[-1], frames[0]), own)
        frames = self._led_back(base, stream_of(seed, index, Draw.LOOPING))
        new = [*frames[len(base) - 1 :], frames[0]]
        return frames, Seam(max(mean_change(a, b) for a, b in pairwise(new)), own)

    def _led_back(self, base: np.ndarray, random: torch.Generator) -> np.ndarray:
        canvas = np.concatenate([base, base[-2:0:-1]])
        around = self._scales.how.patch[0] - 1
        ladder = self._full_rate(len(canvas) + 2 * around)
        patches = self._patches_at(ladder)
        self._check_patch_memory(ladder[-1], patches.sizes)
        inner = slice(around, around + len(canvas))

        def held(made: Tensor, step: Step) -> Tensor:
            """The own frames, the new ones, and at both ends what is at the other."""
            real = self._video(base, ladder[step.n]._replace(frames=len(base))).to(made.device)
            loop = torch.cat([real, made[:, :, inner][:, :, len(base) :]], dim=2)
            return torch.cat([loop[:, :, loop.shape[2] - around :], loop, loop[:, :, :around]], dim=2)

        x = self._video(canvas, ladder[0]._replace(frames=len(canvas)))
        x = F.pad(x, (0, 0, 0, 0, around, around))
        made = self._remade(held(x, Step(0, ladder[0], 0)), patches, ladder, random, held)
        return np.concatenate([base, self._frames(made[:, :, inner])[len(base) :]])

    def _remade(
        self,
        x: Tensor,
        patches: ClipPatches,
        ladder: Sequence[ScaleSize],
        random: torch.Generator,
        after: Callable[[Tensor, Step], Tensor],
        alpha: float | None = None,
    ) -> Tensor:
        """A video at the coarsest size, made of patches from there to the finest; what must hold is `after`."""
        fine = self._scales.passes
        coarse = max(fine, self.config.patch_coarse_passes)
        steps = [Step(n, size, fine if n else coarse) for n, size in enumerate(ladder)]
        how = self._scales.how if alpha is None else replace(self._scales.how, alpha=alpha)
        return refine(x, patches, steps, how, random, tick=self._ticks(passes(steps)), after=after)

    def _full_rate(self, frames: int) -> list[ScaleSize]:
        """The model's scales that hold a patch, with so many frames in each."""
        patch = self._scales.how.patch
        found = [size._replace(frames=frames) for size in self.sizes]
        found = [size for size in found if fits(size, patch)]
        if not found:
            raise CannotApply(f"a video of {self.size} is smaller than a patch of {ScaleSize(*patch)} (T×H×W)")
        return found

    def _patches_at(self, ladder: Sequence[ScaleSize], hidden: Callable[[int], Tensor] | None = None) -> ClipPatches:
        """Those of the clip at the heights and widths of a ladder, of all its frames."""
        need_clip(self._chunks)
        sizes = [size._replace(frames=len(self._chunks[0])) for size in ladder]

        def level(n: int) -> Tensor:
            return torch.cat([self._video(chunk, sizes[n]) for chunk in self._chunks])

        if hidden is not None:
            return ClipPatches(sizes, level, self.device, hidden)
        if self._kept is None or self._kept.sizes != sizes:
            self._kept = ClipPatches(sizes, level, self.device)
        return self._kept


# -- small parts


def _reduced(hole: np.ndarray, size: ScaleSize) -> Tensor:
    """(1, 1, T, H, W) bool: pixels of which any part is in the hole."""
    whole = torch.from_numpy(hole).float()[None, None]
    return F.interpolate(whole, size=tuple(size), mode="area") > 0


def _continued(x: Tensor, hole: Tensor) -> Tensor:
    """(1, 3, T, H, W) with its hole, (1, 1, T, H, W) bool, filled outwards from what is around, by means of that."""
    weight = (~hole).float()
    x = x * weight
    while (weight == 0).any():
        around = F.avg_pool3d(F.pad(torch.cat([x, weight], 1), (1, 1, 1, 1, 1, 1)), 3, stride=1)
        grown = around[:, 3:] > 0
        fresh = (weight == 0) & grown
        x = torch.where(fresh, around[:, :3] / around[:, 3:].clamp_min(1e-6), x)
        weight = torch.where(grown, torch.ones_like(weight), weight)
        x = x * weight
    return x


def _closed_run(base: np.ndarray, near: float) -> slice | None:
    """The first of the longest runs, of a third of the frames or more, behind which a frame is near to its first one.

    Args: near: mean absolute difference, levels.
    """
    for length in range(len(base) - 1, max(2, len(base) // 3) - 1, -1):
        for start in range(len(base) - length):
            if mean_change(base[start + length], base[start]) <= near:
                return slice(start, start + length)
    return None


def _wandering(frames: int, count: int, random: torch.Generator) -> np.ndarray:
    """Which of a clip's frames, 2 or more, each of `count` frames behind its last one begins as: (count,) int.

    Neighbours in time stay neighbours: … 2 1 0 1 2 …; each run back and forth is as long as the clip, or ends before,
    but not before SHORTEST_RUN.
    """
    at, step = frames - 1, -1
    found: list[int] = []
    while len(found) < count:
        most = at if step < 0 else frames - 1 - at
        least = min(most, max(1, round(SHORTEST_RUN * frames)))
        run = int(torch.randint(least, most + 1, (), generator=random))
        found += range(at + step, at + step * (run + 1), step)
        at, step = at + step * run, -step
    return np.array(found[:count], int)

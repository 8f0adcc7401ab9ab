"""What a trained model makes of a given video or image: the applications of the paper's Fig. 8, and those for videos.

A given video enters at a scale in place of what the scales below would make; the rest runs on it (Shaham et al. 2019,
§4, for images; here for videos too). What a scale is, a generator or the clip's patches, is that of the model.

What must join the clip's own frames (`fill`, `extend`, `loop`) and what is larger than the clip (`enlarge`) is made of
the clip's patches, by the search of VGPNN (Haim et al. 2022); they see all frames at every scale, so any number of
frames can be made.
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

from model.config import Finish, Retarget, TrainConfig
from model.device import HOST, autocast
from model.networks.generators import GeneratorStack
from model.patches.field import Grid, Size, fits
from model.patches.refine import ClipPatches, Matching, Step, enlarged, needed_bytes, refine, touched
from model.patches.vgpnn import Vgpnn, shrunk
from model.pyramid import ScaleSize, build, to_frames, to_video, training_pyramids
from model.sampling.masks import composite, dilated, softened
from model.sampling.sample import reconstruct, run_level, stream_of, stretched, stretched_ladder
from model.sampling.sampler import NetworkSampler, check_patch, check_video, clip_patches, patch_steps
from model.sampling.tiling import MAX_VOXELS
from model.sampling.variations import mean_change, slerp

NEAREST = 1e6  # of `Matching.alpha`: so large that the nearest patch alone counts
DETAIL_NOISE = 0.3  # standard deviations of the clip, on a layout whose fine scales are patches
EXTENDING_NOISE = 1.0  # likewise, on the frames that are made new, so that each seed makes others
PERIODIC = 0.5  # of the clip's own change between frames: what comes so near to an earlier frame has come back to it
SEARCHED_PAIRS = 10**9  # of patches that are compared where a video enters: 2 s on two cores
BACK_PROJECTIONS = 8  # of `enlarge`, a step: more change less than a level


class CannotApply(ValueError):
    """An application that this model or this input does not allow; one line that names the mend."""


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


class Applications:
    """The applications of one model and its clip.

    Videos are uint8 (T, H, W, 3) RGB; of images T is 1. Random numbers come from a seed and an index, as those of a
    sample do.
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
        """
        self.config, self.stack, self.device = config, stack, device
        self._chunks = list(chunks)
        self.sizes: list[ScaleSize] = list(sizes)
        self._how = Matching(config.patch_size, config.patch_alpha)
        self._passes = config.patch_passes
        self.patch_from = config.trained_scales if config.made_of_patches else len(self.sizes)
        self._vgpnn: Vgpnn | None = None
        if config.method == "vgpnn":
            self._need_clip()
            finest = torch.stack([torch.from_numpy(to_video(self.at_size(chunk))) for chunk in self._chunks])
            self._vgpnn = Vgpnn(finest, device)
            self.sizes = [ScaleSize(*size) for size in self._vgpnn.sizes]
            method = self._vgpnn.method
            self._how, self._passes, self.patch_from = method.how, method.passes, 0
        elif stack is not None and stack.carried != 3:
            raise CannotApply(
                f"method={config.method}: features go from scale to scale, so no picture can enter at one"
            )
        elif finish == "patches":
            self.patch_from = min(self.patch_from, 1)
        if finish == "generators" and self.makes_patches:
            raise CannotApply("its fine scales were never trained, patches make them; leave out --finish generators")
        self._patches: ClipPatches | None = None
        self._full_patches: ClipPatches | None = None  # of all frames at every scale
        # voxels that are computed at once: no less than the clip's, which fitted when it was trained
        self._limit = max(MAX_VOXELS, *(math.prod(size) for size in self.sizes))

    # -- the clip

    @property
    def size(self) -> ScaleSize:
        """(T, H, W) of a video as large as the clip."""
        return self.sizes[-1]

    @property
    def has_clip(self) -> bool:
        """Whether the clip's frames are there."""
        return bool(self._chunks)

    @property
    def makes_patches(self) -> bool:
        """Whether any scale is made of the clip's patches."""
        return self.patch_from < len(self.sizes)

    def _need_clip(self) -> None:
        if not self._chunks:
            raise CannotApply("the clip itself is needed; give --real CLIP")

    def clip(self, chunk: int = 0) -> np.ndarray:
        """The clip as the model sees it at its finest scale. Raises CannotApply without it."""
        self._need_clip()
        return self.at_size(self._chunks[chunk])

    def at_size(self, frames_thwc: np.ndarray) -> np.ndarray:
        """Frames at the height and width of the finest scale, to the bit where they have it."""
        _, height, width = self.size
        if frames_thwc.shape[1:3] == (height, width):
            return frames_thwc
        return to_frames(build(frames_thwc, [ScaleSize(len(frames_thwc), height, width)], self.config.resizing)[0])

    def ladder_to(self, size: Size) -> list[ScaleSize]:
        """The scales of a video of another size, coarsest first. Raises ValueError, one line, if it cannot be."""
        if self._vgpnn:
            return [ScaleSize(*scale) for scale in self._vgpnn.ladder_to(size)]
        assert self.stack is not None
        return stretched_ladder(self.stack, size, len(self.sizes))

    # -- a given video enters

    @torch.no_grad()
    def inject(
        self,
        given: np.ndarray,
        scale: int,
        *,
        seed: int = 0,
        index: int = 0,
        size: Size | None = None,
        complete: bool = True,
    ) -> np.ndarray:
        """What the scales from `scale` on make of a given video.

        Args:
            given: of any height and width, and of the clip's frames or those of `size`.
            scale: from 1 to the finest; the lower, the more is made anew.
            size: (T, H, W) of the result; None: the clip's.
            complete: whether patches ask for all of the clip (`Matching.alpha`). False for a clip that was edited in
                part: what the edit hides would be asked for most, and come back in its place.

        Raises CannotApply for a scale that is none, and for a number of frames that its scales cannot have.
        """
        self.check_scale(scale)
        sizes = self.ladder_to(size or self.size)
        if len(given) != sizes[-1].frames:
            raise CannotApply(f"{len(given)} frames enter a model of {sizes[-1].frames}; give as many")

        how = self._how if complete else replace(self._how, alpha=NEAREST)
        self._check_memory(sizes[-1])

        def at(n: int) -> Tensor:
            if self._vgpnn:  # whose scales have any number of frames
                return shrunk(self._video(given, sizes[-1]), sizes[n])
            return self._video(given, sizes[n])

        if scale < self.patch_from:
            return self._frames(self._rest(at(scale - 1), scale, sizes, how, stream_of(seed, index, 3)))
        return self._frames(self._made_of_patches(at, scale, sizes, how, stream_of(seed, index, 3)))

    def _made_of_patches(
        self,
        at: Callable[[int], Tensor],
        first: int,
        sizes: Sequence[ScaleSize],
        how: Matching,
        random: torch.Generator,
    ) -> Tensor:
        """A given video, at every scale, made of patches from scale `first` on.

        What is like it may be anywhere in the clip, so all patches are compared. Where they are too many, that is done
        at a scale below, and the search goes on from there.
        """
        ladder = list(enumerate(sizes))[:first]
        searched = self._searched(ladder) if self._pairs(sizes[first], first) > SEARCHED_PAIRS else []
        steps = [*searched, *(Step(n, sizes[n], self._passes) for n in range(first, len(sizes)))]

        def given(made: Tensor, step: Step) -> Tensor:
            return at(step.n).to(made.device) if step.n < first else made

        x = at(searched[0].n if searched else first - 1)
        return refine(x, self.patches(), steps, how, random, after=given, first_pairs=SEARCHED_PAIRS)

    def _searched(self, ladder: Sequence[tuple[int, ScaleSize]]) -> list[Step]:
        """Of scales and a video's sizes there: from the last one on at which all pairs of patches can be compared.

        None if there is no such scale: then the search begins at random.
        """
        fit = [(n, size) for n, size in ladder if fits(size, self._how.patch) and fits(self.sizes[n], self._how.patch)]
        begin = max((n for n, size in fit if self._pairs(size, n) <= SEARCHED_PAIRS), default=None)
        return [] if begin is None else [Step(n, size, 1) for n, size in fit if n >= begin]

    def _pairs(self, size: ScaleSize, n: int) -> int:
        """Of patches of a video of `size`, and of the clip's at scale n."""
        own = self.sizes[n]
        grid = Grid(len(self._chunks), (own.frames, own.height, own.width), self._how.patch)
        return math.prod(size) * len(grid)

    def check_scale(self, scale: int) -> None:
        """Raises CannotApply, one line, for a scale that nothing can enter at."""
        if len(self.sizes) == 1:
            raise CannotApply("a model of one scale: nothing can enter above it; train more scales")
        if not 1 <= scale < len(self.sizes):
            raise CannotApply(f"--scale {scale}: a video enters at a scale from 1 to {len(self.sizes) - 1}, the finest")

    def _rest(
        self, x: Tensor, first: int, sizes: Sequence[ScaleSize], how: Matching, random: torch.Generator
    ) -> Tensor:
        """Generators from scale `first` on, then patches, if any: (1, 3, *sizes[first - 1]) → (1, 3, *sizes[-1])."""
        assert self.stack is not None
        stack = stretched(self.stack, sizes)
        x = self._generators(x, range(first, self.patch_from), stack, lambda n: stack.noise(n, 1, random))
        steps = [Step(n, sizes[n], self._passes) for n in range(self.patch_from, len(sizes))]
        return refine(x, self.patches(), steps, how, random) if steps else x

    def _generators(
        self, x: Tensor, scales: range, stack: GeneratorStack, noise: Callable[[int], Tensor | None]
    ) -> Tensor:
        """Some scales of a stack: what is below them, or z, → what the last of them gives."""
        for n in scales:
            x = torch.cat(list(run_level(stack, x, n, noise(n), self._limit)), dim=2)
        return x

    def patches(self) -> ClipPatches:
        """Those of the clip at the model's scales. Raises CannotApply without the clip."""
        if self._patches is None:
            self._need_clip()
            check_patch(self.sizes[self.patch_from], self._how)
            if self._vgpnn:
                self._patches = self._vgpnn.patches
            else:
                clip = training_pyramids(self._chunks, self.config, self.sizes)  # with their copies, as in training
                self._patches = clip_patches(self.sizes, clip, self.device)
        return self._patches

    def _level(self, size: ScaleSize) -> Tensor:
        """All chunks at a size: (chunks, 3, T, H, W)."""
        return torch.stack([torch.from_numpy(build(chunk, [size], self.config.resizing)[0]) for chunk in self._chunks])

    def _check_memory(self, size: ScaleSize, *, of_patches: bool | None = None) -> None:
        """Raises ValueError, one line, for a video that does not fit into memory.

        Args: of_patches: whether it is made of them; None: as the model's samples.
        """
        if self.makes_patches if of_patches is None else of_patches:
            check_video(size, needed_bytes([size], self.sizes, max(1, len(self._chunks))), self.device)
        else:
            assert self.stack is not None
            check_video(size, NetworkSampler(self.stack).needed_bytes([size]), HOST)

    @staticmethod
    def _frames(x: Tensor) -> np.ndarray:
        return to_frames(x[0].clamp(-1, 1).float().cpu().numpy())

    # -- changes of the clip

    def retarget(self, size: Size, keep: Retarget, *, seed: int = 0, index: int = 0) -> np.ndarray:
        """The clip at another size and aspect.

        Args:
            size: (T, H, W).
            keep: objects: they stay as large as they are, there are more or fewer of them; the clip enters at the
                coarsest scale, where it is stretched. layout: all stays where it is and is stretched with the picture;
                the clip enters at the finest scale, which gives it its detail.
        """
        scale = len(self.sizes) - 1 if keep == "layout" else 1
        sizes = self.ladder_to(size)
        if sizes[-1].frames != self.size.frames:
            raise CannotApply(f"--retarget: keeps the clip's {self.size.frames} frames; see --extend for more")
        return self.inject(self.clip(), scale, seed=seed, index=index, size=size)

    @torch.no_grad()
    def fill(
        self, mask: np.ndarray, *, given: np.ndarray | None = None, grown: float = 1.0, seed: int = 0
    ) -> np.ndarray:
        """What is under the mask made new from the rest of the clip; all else stays to the bit.

        The hole begins as a smooth continuation of its surroundings, which the patch-VAE of the coarsest scale makes
        like the clip; then the clip's patches make it, scale by scale, from those that the mask does not touch.

        Args:
            mask: bool (T, H, W), of the finest scale.
            given: the video with the hole, of the finest scale; None: the clip.
            grown: px around the mask that are made new too.
        """
        clip = self.clip()
        base = clip if given is None else given
        hole = dilated(mask, grown)
        is_clip = base.shape == clip.shape and np.array_equal(base[~hole], clip[~hole])
        ladder = [
            size
            for size in self._full_rate(len(base))
            if not self._reduced(hole, size).all() and (not is_clip or self._leaves_patches(hole, size))
        ]
        if not ladder:
            patch = ScaleSize(*self._how.patch)
            raise CannotApply(f"the mask leaves no patch of {patch} (T×H×W) to fill it with; make it smaller")
        holes = [self._reduced(hole, size) for size in ladder]
        patches = self._patches_at(ladder, (lambda n: self._in_every_chunk(holes[n])) if is_clip else None)
        random = stream_of(seed, 0, 5)
        x = self._smooth(base, hole, ladder[0])
        x = x + holes[0] * DETAIL_NOISE * x.std() * torch.randn(x.shape, generator=random)

        def known(made: Tensor, step: Step) -> Tensor:
            """The video outside the hole."""
            real = self._video(base, ladder[step.n])
            return torch.where(holes[step.n].to(made.device), made, real.to(made.device))

        x = known(x.to(self.device), Step(0, ladder[0], 0))
        made = self._frames(self._remade(x, patches, ladder, random, known, NEAREST))
        return composite(made, base, np.maximum(softened(hole, 0, 0.7), mask))

    def _leaves_patches(self, hole: np.ndarray, size: ScaleSize) -> bool:
        return not bool(touched(self._reduced(hole, size), self._how.patch).all())

    def _in_every_chunk(self, hole: Tensor) -> Tensor:
        """The hole in the first chunk; in the others, which may hold the same frames, wherever it is in any frame.

        (1, 1, T, H, W) → (chunks, 1, T, H, W).
        """
        ever = hole.any(dim=2, keepdim=True).expand(len(self._chunks) - 1, *hole.shape[1:])
        return torch.cat([hole, ever])

    def _smooth(self, base: np.ndarray, hole: np.ndarray, size: ScaleSize) -> Tensor:
        """The video at the coarsest size with its hole continued smoothly, and through E and G⁰: (1, 3, *size)."""
        x = self._video(base, size)
        keep = (~self._reduced(hole, size)).float()
        weight, x = keep, x * keep
        while (weight == 0).any():  # outwards from what is known, by means of what is around
            around = F.avg_pool3d(F.pad(torch.cat([x, weight], 1), (1, 1, 1, 1, 1, 1)), 3, stride=1)
            grown = around[:, 3:] > 0
            fresh = (weight == 0) & grown
            x = torch.where(fresh, around[:, :3] / around[:, 3:].clamp_min(1e-6), x)
            weight = torch.where(grown, torch.ones_like(weight), weight)
            x = x * weight
        stack = self.stack
        if stack is None or self.config.vae_levels == 0 or self.config.latent != "gaussian":
            return x
        at_zero = F.interpolate(x, size=tuple(self.sizes[0]), mode="trilinear", align_corners=True)
        return enlarged(reconstruct(stack, at_zero, last=0), size)

    @torch.no_grad()
    def extend(self, after: int = 0, before: int = 0, *, seed: int = 0) -> np.ndarray:
        """The clip's own frames, and so many more behind and before them, made of its patches.

        They begin as the clip played backwards from its end (and to its start), which meets it without a jump.
        """
        if self.config.dims == 2:
            raise CannotApply("--extend: an image has one frame, and no time to go on in")
        if min(after, before) < 0 or after + before == 0:
            raise CannotApply("--extend: 1 frame or more")
        own = self.clip(-1 if after else 0)
        if before and after and len(self._chunks) > 1:
            raise CannotApply("--extend: of a long video one end at a time; give one of --extend and --extend-before")
        self._check_memory(self.size._replace(frames=len(own) + after + before), of_patches=True)
        index = _bounced(len(own), before, after)
        base = own[index]
        ladder = self._full_rate(len(base))
        patches = self._patches_at(ladder)
        free = np.ones(len(base), bool)
        free[before : before + len(own)] = False
        hole = torch.from_numpy(free)[None, None, :, None, None]

        def known(made: Tensor, step: Step) -> Tensor:
            return torch.where(hole.to(made.device), made, self._video(base, ladder[step.n]).to(made.device))

        random = stream_of(seed, 0, 6)
        x = self._video(base, ladder[0])
        x = x + hole * EXTENDING_NOISE * x.std() * torch.randn(x.shape, generator=random)
        made = self._frames(self._remade(x, patches, ladder, random, known))
        made[before : before + len(own)] = own
        return made

    @torch.no_grad()
    def loop(self, given: np.ndarray | None = None, *, seed: int = 0) -> tuple[np.ndarray, Seam]:
        """A loop of the clip, or of a given video: its last frame leads to its first.

        If the motion comes back to where it was, it is the longest run of frames that does, of a third of them or more.
        If not, it is all frames and then as many new ones, less two, that lead back: they begin as the frames played
        backwards, and patches of the clip that go around the seam make them anew.

        Returns the loop, (t, H, W, 3), and its seam.
        """
        base = self.clip() if given is None else given
        if len(base) < self._how.patch[0] + 1:
            raise CannotApply(f"--loop: {self._how.patch[0] + 1} frames or more; an image does not move")
        own = float(np.median([mean_change(a, b) for a, b in pairwise(base)]))
        runs = [(n, start) for n in range(max(2, len(base) // 3), len(base)) for start in range(len(base) - n)]
        closed = [(n, start) for n, start in runs if mean_change(base[start + n], base[start]) <= PERIODIC * own]
        if closed:
            length, start = max(closed, key=lambda run: (run[0], -run[1]))  # the first of the longest
            frames = base[start : start + length]
            return frames, Seam(mean_change(frames[-1], frames[0]), own)
        frames = self._led_back(base, stream_of(seed, 0, 7))
        new = [*frames[len(base) - 1 :], frames[0]]
        return frames, Seam(max(mean_change(a, b) for a, b in pairwise(new)), own)

    def _led_back(self, base: np.ndarray, random: torch.Generator) -> np.ndarray:
        canvas = base[_bounced(len(base), 0, len(base) - 2)]
        around = self._how.patch[0] - 1
        ladder = self._full_rate(len(canvas) + 2 * around)
        patches = self._patches_at(ladder)
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

    @torch.no_grad()
    def enlarge(self, factor: float, *, given: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
        """A video `factor` times as high and wide, with the detail of the clip: SinGAN's super-resolution.

        The finest scale is applied again and again, each time to a video larger by about the ladder's factor, so that
        they come to `factor` in all. After each the result is corrected to shrink to the given video (back-projection,
        Irani and Peleg 1991).
        """
        base = self.clip() if given is None else given
        self._check_memory(ScaleSize(len(base), round(base.shape[1] * factor), round(base.shape[2] * factor)))
        low = torch.from_numpy(to_video(base))[None].to(self.device)
        last = len(self.sizes) - 1
        below = [size.height for size in self.sizes if size.height < self.size.height]
        ratio = self.size.height / below[-1] if below else 4 / 3
        count = max(1, round(math.log(factor) / math.log(ratio)))
        x = low
        for k in range(1, count + 1):
            share = factor ** (k / count)
            size = ScaleSize(len(base), round(base.shape[1] * share), round(base.shape[2] * share))
            random = stream_of(seed, 0, 8, k)
            if self.makes_patches:
                how = replace(self._how, alpha=NEAREST)
                x = refine(enlarged(x, size), self.patches(), [Step(last, size, 2)], how, random)
            else:
                assert self.stack is not None
                stack = stretched(self.stack, [*self.sizes[:last], size])
                x = self._generators(x.cpu(), range(last, last + 1), stack, lambda n: None).to(self.device)
            for _ in range(BACK_PROJECTIONS):
                error = low - F.interpolate(x, size=low.shape[2:], mode="area")
                x = (x + F.interpolate(error, size=tuple(size), mode="trilinear", align_corners=False)).clamp(-1, 1)
        return self._frames(x)

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
        self._check_memory(ladder[-1], of_patches=True)
        coarse = max(self._passes, self.config.patch_coarse_passes)
        steps = [Step(n, size, self._passes if n else coarse) for n, size in enumerate(ladder)]
        how = self._how if alpha is None else replace(self._how, alpha=alpha)
        return refine(x, patches, steps, how, random, after=after)

    def _full_rate(self, frames: int) -> list[ScaleSize]:
        """The model's scales that hold a patch, with so many frames in each."""
        found = [size._replace(frames=frames) for size in self.sizes]
        found = [size for size in found if fits(size, self._how.patch)]
        if not found:
            raise CannotApply(
                f"a video of {self.size} is smaller than a patch of {ScaleSize(*self._how.patch)} (T×H×W)"
            )
        return found

    def _patches_at(self, ladder: Sequence[ScaleSize], hidden: Callable[[int], Tensor] | None = None) -> ClipPatches:
        """Those of the clip at the heights and widths of a ladder, of all its frames."""
        self._need_clip()
        sizes = [size._replace(frames=len(self._chunks[0])) for size in ladder]
        if hidden is None and self._full_patches is not None and self._full_patches.sizes == sizes:
            return self._full_patches
        patches = ClipPatches(sizes, lambda n: self._level(sizes[n]), self.device, hidden)
        if hidden is None:
            self._full_patches = patches
        return patches

    def _video(self, frames_thwc: np.ndarray, size: ScaleSize) -> Tensor:
        """(1, 3, *size) of frames, of which a size of fewer has every second, third, …"""
        return torch.from_numpy(build(frames_thwc, [size], self.config.resizing)[0])[None]

    @staticmethod
    def _reduced(hole: np.ndarray, size: ScaleSize) -> Tensor:
        """(1, 1, T, H, W) bool: pixels of which any part is in the hole."""
        whole = torch.from_numpy(hole).float()[None, None]
        return F.interpolate(whole, size=tuple(size), mode="area") > 0

    # -- latent space

    @torch.no_grad()
    def vary(self, strength: float, *, seed: int = 0, index: int = 0) -> np.ndarray:
        """Between the clip and a free sample: z = √(1 − s²)·μ + s·ε at scale 0, μ of the posterior and ε of the prior.

        Args: strength: s in [0, 1]. At 0 it is the reconstruction, at 1 a sample whose z is the prior's.
        """
        if not 0 <= strength <= 1:
            raise CannotApply(f"--strength {strength}: from 0, the clip, to 1, a free sample")
        stack = self._latent()
        random = stream_of(seed, index)
        drawn = stack.draw(1, random)
        self._need_clip()
        real = self._video(self._chunks[0], self.sizes[0])
        with autocast(self.device, self.config.precision):
            mean = stack.encoder(real.to(self.device)).mu.float().cpu()
        if strength == 0:  # one search through all scales, as of `Sampler.reconstruction`
            x = self._networks(mean, lambda n: None)
            if self.makes_patches:
                own, above = patch_steps(self.config, self.sizes, self.patch_from)
                x = refine(x, self.patches(), [*own, *above], self._how, stream_of(0, 0, 1))
            return self._frames(x)
        z = math.sqrt(1 - strength**2) * mean + strength * drawn
        return self._of_latents(z, lambda n: _times(strength, stack.noise(n, 1, random)), (seed, index))

    @torch.no_grad()
    def between(self, seed: int, seed_to: int, share: float, *, index: int = 0) -> np.ndarray:
        """Sample `index` of one seed becoming that of another: spherical interpolation of z and of every noise.

        Args: share: 0 is the first, 1 the second.
        """
        stack = self._latent()
        a, b = stream_of(seed, index), stream_of(seed_to, index)
        z = slerp(stack.draw(1, a), stack.draw(1, b), share)

        def noise(n: int) -> Tensor | None:
            one, other = stack.noise(n, 1, a), stack.noise(n, 1, b)
            return None if one is None or other is None else slerp(one, other, share)

        return self._of_latents(z, noise, (seed_to if share == 1 else seed, index))

    @torch.no_grad()
    def recombined(self, layout: tuple[int, int], detail: tuple[int, int]) -> np.ndarray:
        """The layout of one sample with the detail of another, each named by seed and index.

        The layout is z of scale 0, the detail the noise of all scales above; where patches make those, noise on the
        layout that they are searched for.
        """
        stack = self._latent()
        z, random = stack.draw(1, stream_of(*layout)), stream_of(*detail)
        stack.draw(1, random)  # its own z, which is not taken
        return self._of_latents(z, lambda n: stack.noise(n, 1, random), detail, detail_noise=DETAIL_NOISE)

    def _latent(self) -> GeneratorStack:
        if self.stack is None:
            raise CannotApply(f"method={self.config.method}: has no latent space; take a model of hpvaegan")
        return self.stack

    def _networks(self, z: Tensor, noise: Callable[[int], Tensor | None]) -> Tensor:
        """The generators on a latent: of all scales, or of those below the patches."""
        stack = self._latent()
        x = self._generators(z, range(min(self.patch_from, stack.num_scales)), stack, noise)
        return x if self.makes_patches else stack.to_video(x)

    def _of_latents(
        self,
        z: Tensor,
        noise: Callable[[int], Tensor | None],
        place: tuple[int, int],
        *,
        detail_noise: float = 0.0,
    ) -> np.ndarray:
        """The video of a latent, made as the first layout of a sample is; it is kept though it may be the clip's.

        Args: place: seed and index of the search of patches.
        """
        x = self._networks(z, noise)
        if not self.makes_patches:
            return self._frames(x)
        (own, above), random = patch_steps(self.config, self.sizes, self.patch_from), stream_of(*place, 1)
        x = refine(x, self.patches(), own, self._how, stream_of(*place, 1, 0)) if own else x
        if detail_noise:
            x = x + detail_noise * x.std() * torch.randn(x.shape, generator=random).to(x.device)
        return self._frames(refine(x, self.patches(), above, self._how, random))


# -- small parts


def _times(strength: float, noise: Tensor | None) -> Tensor | None:
    return None if noise is None or strength == 0 else strength * noise


def _bounced(frames: int, before: int, after: int) -> np.ndarray:
    """Which frame each of the canvas begins as: the clip, continued backwards at both ends: … 2 1 | 0 1 2 | 1 0 …"""
    period = 2 * (frames - 1)
    at = np.arange(-before, frames + after) % period
    return np.where(at < frames, at, period - at)

"""What random videos of one clip come from: its networks, its networks and then its patches, or its patches alone."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from infra.errors import Refusal
from model.config import TrainConfig
from model.device import HOST, concurrently, host_bytes, memory_bytes, most_at_once, usual_threads
from model.networks.generators import GeneratorStack
from model.patches.field import Size, fits, share_in_place
from model.patches.refine import ClipPatches, Matching, Refinement, Step, needed_bytes, pixels_of, refine
from model.patches.vgpnn import Vgpnn
from model.pyramid import ScaleSize, SizeError
from model.sampling.sample import (
    VOLUMES,
    Draw,
    Tick,
    count_convolutions,
    ignore,
    reconstruct,
    sample_in_parts,
    stream_of,
    stretched_ladder,
)

Pyramids = Sequence[Sequence[np.ndarray]]  # of the clip or its chunks: float32 (3, T_n, H_n, W_n), coarsest first


# A layout is a copy if its mean absolute difference to the clip is below so many standard deviations of the clip. It is
# drawn again, up to so many layouts in all. The first UNCUT are as the networks make them, the others are cut out of
# larger ones. Of 224 layouts of 14 `demo` models of 7 clips 32 were closer than 0.03, 2 others than 0.1: of carphone
# 48 %, of airballoons 8 %, of bikes and bigbuckbunny none.
COPY, LAYOUTS, UNCUT = 0.1, 16, 8
# It is a copy, too, if after so many scales of patches more than this share of them are within a pixel of their own
# place: the clip, moved by less than that in the picture, or by a part of a frame in time. Of 210 samples of 21 `demo`
# models of 7 clips the share was above 0.9 in 50 (carphone 20 of 30, balloons_later 14, airballoons 10), below 0.7 in
# 159, and between in one.
TRIED, IN_PLACE = 2, 0.9


class Sampler(Protocol):
    """Random videos of one model; video i of a seed is the same whatever else is asked for.

    Attributes:
        size: (T, H, W) of a video as large as the clip.
    """

    size: ScaleSize

    def ladder_to(self, size: Size) -> Sequence[ScaleSize]:
        """The scales of a video of another size, coarsest first. Raises SizeError, one line, if it cannot be."""

    def steps(self, sizes: Sequence[ScaleSize]) -> int:
        """What `parts` counts for `tick`. sizes: of `ladder_to`."""

    def needed_bytes(self, pixels: float) -> float:
        """Estimate of the memory that one video takes, on the host or the device.

        Args: pixels: of all its frames.
        """

    def at_once(self, sizes: Sequence[ScaleSize]) -> int:
        """How many videos are best made `concurrently`; where it is more than one, `parts` has one run."""

    def parts(self, sizes: Sequence[ScaleSize], seed: int, index: int, tick: Tick = ignore) -> Iterator[Tensor]:
        """Video `index` of a seed, a run of frames after the other: (1, 3, t, H, W) float32 in [-1, 1] on the CPU."""

    def reconstruction(self) -> Tensor:
        """The clip as the model gives it back: (1, 3, T, H, W) float32 in [-1, 1] on the CPU."""


class NetworkSampler:
    """The generators of a stack up to the finest that is trained: the paper's method."""

    def __init__(
        self, stack: GeneratorStack, real_zero: Tensor | None = None, latent_frames: int | None = None
    ) -> None:
        """
        Args:
            real_zero: (1, 3, *sizes[0]), the clip at scale 0; needed for its reconstruction only.
            latent_frames: of z; None: those of scale 0. The first enlargement brings any other number to scale 1's.
        """
        self.stack, self._real_zero, self._latent_frames = stack, real_zero, latent_frames
        self.size = stack.sizes[stack.num_scales - 1]

    def ladder_to(self, size: Size) -> list[ScaleSize]:
        """See `Sampler`."""
        coarsest, *finer = stretched_ladder(self.stack, size, self.stack.num_scales)
        return [coarsest._replace(frames=self._latent_frames or coarsest.frames), *finer]

    def steps(self, sizes: Sequence[ScaleSize]) -> int:
        """Convolutions."""
        return count_convolutions(self.stack, sizes)

    def needed_bytes(self, pixels: float) -> float:
        """See `Sampler`."""
        return VOLUMES * 4 * self.stack.carried * pixels  # float32

    def at_once(self, sizes: Sequence[ScaleSize]) -> int:
        """See `Sampler`: each operation of a network keeps all threads busy."""
        return 1

    def parts(self, sizes: Sequence[ScaleSize], seed: int, index: int, tick: Tick = ignore) -> Iterator[Tensor]:
        """See `Sampler`."""
        return sample_in_parts(self.stack, sizes, seed, index, tick=tick)

    def reconstruction(self) -> Tensor:
        """See `Sampler`."""
        if self._real_zero is None:
            raise Refusal("a reconstruction needs the clip")
        return reconstruct(self.stack, self._real_zero)


class FinishedSampler:
    """The generators of the coarse scales, then the clip's patches, from scale `config.patch_scale` on.

    Attributes:
        first: the coarsest scale that patches make alone.
        patches, how: of the clip, and how they are put together.
        layouts: how many are drawn before one that is the clip is kept.
        redrawn: layouts so far that were the clip itself, and were thrown away.
    """

    def __init__(self, stack: GeneratorStack, clip: Pyramids) -> None:
        """clip: what the model was trained on."""
        config, self.stack = stack.config, stack
        self.size = stack.sizes[-1]
        self.first = config.trained_scales
        self._coarse = NetworkSampler(stack, torch.from_numpy(clip[0][0])[None])
        self.how = matching_of(config)
        self._chunks = len(clip)
        self.patches = clip_patches(stack.sizes, clip, stack.device)
        self.layouts = LAYOUTS
        self.redrawn = 0
        self._counting = threading.Lock()

    def ladder_to(self, size: Size) -> list[ScaleSize]:
        """See `Sampler`."""
        sizes = stretched_ladder(self.stack, size, len(self.stack.sizes))
        steps = [step for part in self.patch_steps(sizes) for step in part]
        for own in [*(ScaleSize(*step.size) for step in steps), *(self.stack.sizes[step.n] for step in steps)]:
            check_patch(own, self.how)
        return sizes

    def _layout(self, sizes: Sequence[ScaleSize], seed: int, index: int, tick: Tick) -> Refinement:
        """A sample of the finest trained scale, made of the clip's patches there and at the next scales. It is not the
        clip, unless `layouts` in a row are."""
        at_its_size, above = self.patch_steps(sizes)
        for attempt in range(self.layouts):
            own_tick = ignore if attempt else tick  # steps are counted once
            video = self._cut_out(sizes, seed, index, attempt, own_tick)
            video = self._refined(video, at_its_size, stream_of(seed, index, Draw.PATCHES, attempt), own_tick)
            layout = Refinement(video, self.patches, self.how, stream_of(seed, index, Draw.PATCHES), ignore)
            if not (is_clip := bool(self.is_the_clip(layout.video))):
                layout.run(above[:TRIED])
                is_clip = bool(self.is_the_clip_in_place(layout))
            if not is_clip:
                break
            with self._counting:
                self.redrawn += attempt < self.layouts - 1  # the last one is kept
        if layout.found is None:  # the last one too was the clip before any patch above was searched
            layout.run(above[:TRIED])
        tick(sum(step.passes for step in above[:TRIED]))
        return layout

    def _cut_out(self, sizes: Sequence[ScaleSize], seed: int, index: int, attempt: int, tick: Tick) -> Tensor:
        """A sample of the networks; from the middle of the attempts on, a random part of a larger one.

        A generator sees so much of a coarse scale that the border tells it where it is. Inside a larger one it cannot.
        """
        margin = self.stack.config.patch_margin if attempt >= UNCUT else 0
        last = sizes[self.first - 1]
        larger = [
            ScaleSize(t, math.ceil(h * (1 + margin)), math.ceil(w * (1 + margin))) for t, h, w in sizes[: self.first]
        ]
        place = Draw.layout(attempt)
        with usual_threads():
            layout = torch.cat(list(sample_in_parts(self.stack, larger, seed, index, *place, tick=tick)), dim=2)
        random = np.random.default_rng([seed, index, attempt])
        top = int(random.integers(layout.shape[3] - last.height, endpoint=True))
        left = int(random.integers(layout.shape[4] - last.width, endpoint=True))
        return layout[..., top : top + last.height, left : left + last.width]

    def is_the_clip(self, layout: Tensor) -> Tensor:
        """Whether it is one of the clip's chunks, at the scale of layouts; of another size it is none.

        Returns () bool.
        """
        chunks = self.patches.values(self.first - 1)
        if chunks.shape[1:] != layout.shape[1:]:
            return torch.zeros((), dtype=torch.bool)
        return ((chunks - layout.to(chunks.device)).abs().mean(dim=(1, 2, 3, 4)) < COPY * chunks.std()).any()

    def is_the_clip_in_place(self, layout: Refinement) -> Tensor:
        """Whether nearly all of its patches are where they were: the clip, a pixel or a part of a frame away.

        Returns () bool.
        """
        if tuple(layout.video.shape[2:]) not in self.patches.sizes or layout.found is None:
            return torch.zeros((), dtype=torch.bool)
        return share_in_place(layout.places(), self._chunks, reach=1) > IN_PLACE

    def patch_steps(self, sizes: Sequence[ScaleSize]) -> tuple[list[Step], list[Step]]:
        """At the finest trained scale, and above it."""
        return patch_steps(self.stack.config, sizes, self.first)

    def steps(self, sizes: Sequence[ScaleSize]) -> int:
        """Convolutions and passes."""
        coarse = self._coarse.steps(sizes[: self.first])
        return coarse + sum(step.passes for part in self.patch_steps(sizes) for step in part)

    def needed_bytes(self, pixels: float) -> float:
        """See `Sampler`."""
        return needed_bytes(pixels, pixels_of(self.stack.sizes[self.first - 1 :], self._chunks))

    def at_once(self, sizes: Sequence[ScaleSize]) -> int:
        """See `Sampler`."""
        return most_at_once(self.needed_bytes(math.prod(sizes[-1])), self.stack.device)

    def parts(self, sizes: Sequence[ScaleSize], seed: int, index: int, tick: Tick = ignore) -> Iterator[Tensor]:
        """See `Sampler`; one run, as every patch may come from anywhere."""
        layout = self._layout(sizes, seed, index, tick)
        _, above = self.patch_steps(sizes)
        layout.tick = tick
        yield layout.run(above[TRIED:]).cpu()

    def reconstruction(self) -> Tensor:
        """See `Sampler`."""
        steps = [step for part in self.patch_steps(self.stack.sizes) for step in part]
        return self._refined(self._coarse.reconstruction(), steps, stream_of(0, 0, Draw.PATCHES)).cpu()

    def _refined(self, video: Tensor, steps: Sequence[Step], random: torch.Generator, tick: Tick = ignore) -> Tensor:
        return refine(video, self.patches, steps, self.how, random, tick=tick) if steps else video


class VgpnnSampler:
    """The clip's patches alone, from noise: VGPNN."""

    def __init__(self, config: TrainConfig, clip: Pyramids, device: torch.device) -> None:
        finest = torch.stack([torch.from_numpy(pyramid[config.num_scales - 1]) for pyramid in clip])
        self.size = ScaleSize(*finest.shape[2:])
        self._chunks, self._device = len(clip), device
        self._vgpnn = Vgpnn(finest, device)

    def ladder_to(self, size: Size) -> list[ScaleSize]:
        """See `Sampler`: VGPNN's own ladder."""
        sizes = [ScaleSize(*scale) for scale in self._vgpnn.ladder_to(size)]
        for own in [*sizes, *(ScaleSize(*scale) for scale in self._vgpnn.sizes)]:
            check_patch(own, self._vgpnn.method.how)
        return sizes

    def steps(self, sizes: Sequence[ScaleSize]) -> int:
        """Passes."""
        return self._vgpnn.steps(sizes)

    def needed_bytes(self, pixels: float) -> float:
        """See `Sampler`."""
        return needed_bytes(pixels, pixels_of(self._vgpnn.sizes, self._chunks))

    def at_once(self, sizes: Sequence[ScaleSize]) -> int:
        """See `Sampler`."""
        return most_at_once(self.needed_bytes(math.prod(sizes[-1])), self._device)

    def parts(self, sizes: Sequence[ScaleSize], seed: int, index: int, tick: Tick = ignore) -> Iterator[Tensor]:
        """See `Sampler`; one run."""
        yield self._vgpnn.sample(sizes, stream_of(seed, index, Draw.PATCHES), tick=tick).cpu()

    def reconstruction(self) -> Tensor:
        """What it makes of the clip itself, without noise."""
        return self._vgpnn.sample(self._vgpnn.sizes, stream_of(0, 0, Draw.PATCHES), noisy=False).cpu()


def is_finished(config: TrainConfig, stack: GeneratorStack | None) -> bool:
    """Whether videos of a model are made of the clip's patches: not before its last trained scale."""
    return config.made_of_patches and (stack.num_scales if stack else 0) == config.trained_scales


def check_memory(config: TrainConfig, sizes: Sequence[ScaleSize], examples: int, device: torch.device) -> None:
    """Raises ValueError, one line, if the patches of a clip are more than the memory of the device.

    Args: examples: its chunks and their copies.
    """
    if not config.made_of_patches:
        return
    pixels, clip_pixels = math.prod(sizes[-1]), pixels_of(sizes[max(0, config.trained_scales - 1) :], examples)

    def mend(share: float) -> str:
        fits = int(0.95 * config.max_size * math.sqrt(share))  # scales below do not shrink as much
        return f"max_size={fits} fits" if fits >= config.min_size else "take a larger stride, or a shorter video"

    what = f"a video of {sizes[-1]}"
    check_bytes(what, lambda share: needed_bytes(share * pixels, share * clip_pixels), device, mend)


def matching_of(config: TrainConfig) -> Matching:
    """How patches are chosen and put together."""
    return Matching(config.patch_size, config.patch_alpha, config.patch_bandwidth)


def clip_patches(sizes: Sequence[ScaleSize], clip: Pyramids, device: torch.device) -> ClipPatches:
    """The patches of a clip at the scales of its pyramids."""
    return ClipPatches(sizes, lambda n: torch.stack([torch.from_numpy(pyramid[n]) for pyramid in clip]), device)


def patch_steps(config: TrainConfig, sizes: Sequence[ScaleSize], first: int) -> tuple[list[Step], list[Step]]:
    """Of a sample whose patches begin at scale `first`: at the finest trained scale, whose sample has that size
    already, if at all; and at those above."""
    coarse = first - 1
    own = [Step(coarse, sizes[coarse], config.patch_coarse_passes)] if config.patch_coarse_passes else []
    return own, [Step(n, size, config.patch_passes) for n, size in enumerate(sizes)][first:]


def check_sample(sampler: Sampler, sizes: Sequence[ScaleSize], device: torch.device) -> None:
    """Raises SizeError, one line, if a video of these scales does not fit into memory: that of the host, or where
    patches make it that of the device.

    Args: sizes: of `Sampler.ladder_to`. device: where the model is.
    """
    where = HOST if isinstance(sampler, NetworkSampler) else device
    check_video(sizes[-1], sampler.needed_bytes, where)


def check_video(size: ScaleSize, needed: Callable[[float], float], device: torch.device) -> None:
    """Raises SizeError, one line, if a video of this size needs more bytes than the memory of the device.

    Args: needed: by a video of so many pixels, in all its frames.
    """
    pixels = math.prod(size)

    def mend(share: float) -> str:
        return f"make it smaller, {math.floor(1000 * share) / 10}% of its pixels fit"

    try:
        check_bytes(f"a video of {size}", lambda share: needed(share * pixels), device, mend)
    except Refusal as error:
        raise SizeError(str(error)) from None


def check_bytes(
    what: str, needed: Callable[[float], float], device: torch.device, mend: Callable[[float], str]
) -> None:
    """Raises Refusal, one line, if something needs more bytes than the memory of the device.

    Args:
        what: needs them.
        needed: by a share of it, from 0 to 1; it grows with the share.
        mend: what to do where this share fits; 0 where none does.
    """
    there = memory_bytes(device) if device.type == "cuda" else host_bytes()
    if needed(1) > there:
        fits, too_much = 0.0, 1.0
        for _ in range(50):
            share = (fits + too_much) / 2
            fits, too_much = (share, too_much) if needed(share) <= there else (fits, share)
        amounts = f"{needed(1) / 2**30:.0f} GiB of memory, {there / 2**30:.0f} are there"
        raise Refusal(f"{what} needs {amounts}; {mend(fits)}")


def sampler_of(config: TrainConfig, stack: GeneratorStack | None, clip: Pyramids, device: torch.device) -> Sampler:
    """What the videos of a finished training come from.

    Args:
        stack: None where `config.method` has no networks.
        clip: the examples it was trained on.

    Raises ValueError, one line, for a clip that is smaller than a patch.
    """
    sampler: Sampler
    if config.method == "vgpnn":
        sampler = VgpnnSampler(config, clip, device)
    else:
        assert stack is not None
        real_zero = torch.from_numpy(clip[0][0])[None]
        finished = is_finished(config, stack)
        sampler = FinishedSampler(stack, clip) if finished else NetworkSampler(stack, real_zero)
    sampler.ladder_to(sampler.size)
    return sampler


def random_videos(sampler: Sampler, count: int, seed: int, *, first: int = 0) -> Tensor:
    """Random videos `first` … `first + count - 1` of a seed, as large as the clip: (count, 3, T, H, W) float32."""
    return torch.cat(list(whole_videos(sampler, sampler.ladder_to(sampler.size), seed, range(first, first + count))))


def whole_videos(sampler: Sampler, sizes: Sequence[ScaleSize], seed: int, indices: Sequence[int]) -> Iterator[Tensor]:
    """Random videos of a seed, in order, as of `whole_video`."""
    return concurrently(partial(whole_video, sampler, sizes, seed), indices, sampler.at_once(sizes))


def whole_video(sampler: Sampler, sizes: Sequence[ScaleSize], seed: int, index: int, tick: Tick = ignore) -> Tensor:
    """All of `Sampler.parts`: (1, 3, T, H, W) float32 in [-1, 1] on the CPU."""
    return torch.cat(list(sampler.parts(sizes, seed, index, tick)), dim=2)


def check_patch(size: ScaleSize, how: Matching) -> None:
    """Raises SizeError, one line, for a scale that is smaller than a patch."""
    if not fits(size, how.patch):
        patch = ScaleSize(*how.patch)
        raise SizeError(f"a scale of {size} is smaller than a patch of {patch} (T×H×W); make it larger, or patch_size")

"""An application, from its request to its videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from infra.errors import counted
from jobs.sampling.given import Given
from jobs.sampling.request import ApplicationRequest
from model.device import concurrently
from model.metrics.naturalness import distance, has_room, statistics
from model.pyramid import ScaleSize
from model.sampling.applications import Applications
from model.sampling.masks import HARMONIZED
from model.sampling.sample import frames_per_second


@dataclass(frozen=True)
class Made:
    """A result.

    Attributes:
        name: of its file, without suffix.
        label: on the sheet, short.
        frames: uint8 (T, H, W, 3).
        note: a line to print; "" for none.
    """

    name: str
    label: str
    frames: np.ndarray
    note: str = ""


def count(request: ApplicationRequest, applications: Applications, indices: Sequence[int]) -> int:
    """How many results there will be."""
    if request.application == "inject" and request.scale is None:
        return len(applications.sizes) - 1
    return len(request.share) if request.application in ("strength", "between") else len(indices)


def results(
    request: ApplicationRequest,
    applications: Applications,
    given: Given,
    *,
    seed: int,
    indices: Sequence[int],
    size: ScaleSize | None,
) -> Iterator[Made]:
    """The videos of a request, in their order. Raises CannotApply and ValueError, one line each.

    Args: indices: of the seed's results, where seeds make the difference. size: of `retarget`.
    """
    if request.application == "inject":
        yield from _entered(request, applications, given, seed, indices)
    elif request.application == "strength":

        def varied(strength: float) -> Made:
            frames = applications.vary(strength, seed=seed)
            return Made(f"strength{strength:g}_seed{seed}", f"strength {strength:g}", frames)

        yield from concurrently(varied, request.share, applications.at_once)
    elif request.application == "between":

        def between(step: int) -> Made:
            frames = applications.between(seed, request.seed_to, request.share[step])
            return Made(f"{request.stem(seed)}_{step:03d}", f"step {step}", frames)

        yield from concurrently(between, range(len(request.share)), applications.at_once)
    else:

        def one(index: int) -> Made:
            frames, note = _one(request, applications, given, seed, index, size)
            return Made(f"{request.stem(seed)}_{index:03d}", f"{request.name} {index}", frames, note)

        as_the_clip = request.application in ("fix_layout", "fix_detail")  # others may be larger by far
        yield from concurrently(one, indices, applications.at_once if as_the_clip else 1)


def _entered(
    request: ApplicationRequest, applications: Applications, given: Given, seed: int, indices: Sequence[int]
) -> Iterator[Made]:
    video = applications.clip() if given.video is None else given.video
    grown = request.grown
    if grown is None and request.name == "over":
        grown = HARMONIZED * max(video.shape[1:3])
    every = request.scale is None
    scales = range(1, len(applications.sizes)) if every else [request.scale or 0] * len(indices)
    for place, scale in enumerate(scales):
        index = 0 if every else indices[place]
        if given.mask is None:
            frames = applications.inject(video, scale, seed=seed, index=index, hold=request.hold)
        else:
            frames = applications.edit(
                video,
                given.mask,
                scale,
                stays=given.stays,
                grown=grown,
                feather=request.feather,
                hold=request.hold,
                seed=seed,
                index=index,
            )
        label = f"scale {scale}" if every or len(indices) == 1 else f"scale {scale}, {index}"
        yield Made(f"{request.name}_scale{scale}_seed{seed}_{index:03d}", label, frames)


def _one(
    request: ApplicationRequest,
    applications: Applications,
    given: Given,
    seed: int,
    index: int,
    size: ScaleSize | None,
) -> tuple[np.ndarray, str]:
    """A result that only the seed makes another, and a note on it."""
    match request.application:
        case "fill":
            assert given.mask is not None
            grown = {} if request.grown is None else {"grown": request.grown}
            return applications.fill(given.mask, given=given.video, seed=seed, index=index, **grown), ""
        case "extend":
            fps = frames_per_second(applications.config, applications.size.frames)
            behind, before = request.extend.frames(fps), request.extend_before.frames(fps)
            return applications.extend(behind, before, seed=seed, index=index), ""
        case "loop":
            frames, seam = applications.loop(given.video, seed=seed, index=index)
            change = f"{counted(len(frames), 'frame')}; at the seam they change by {seam.change:.1f} levels"
            return frames, f"loop {index}: {change}, the clip's own change is {seam.own:.1f}"
        case "retarget":
            assert size is not None
            return applications.retarget(size, request.retarget, seed=seed, index=index), ""
        case "enlarge":
            frames = applications.enlarge(request.factor, given=given.video, seed=seed, index=index)
            return frames, _naturalness(index, frames, applications.clip() if given.video is None else given.video)
        case "fix_layout":
            return applications.recombined((seed, 0), (seed, index)), ""
        case _:
            return applications.recombined((seed, index), (seed, 0)), ""


def _naturalness(index: int, frames: np.ndarray, small: np.ndarray) -> str:
    """A line on what was enlarged, and on what a bicubic interpolation of it would be."""
    if not has_room(small):
        return ""
    height, width = frames.shape[1:3]
    bicubic = Image.Resampling.BICUBIC
    cubic = [np.asarray(Image.fromarray(frame).resize((width, height), bicubic)) for frame in small]
    given = statistics(small)
    own, plain = (distance(statistics(large), given) for large in (frames, np.stack(cubic)))
    return f"enlarge {index}: its local statistics are {own:.1f} from those of what was given; bicubic, {plain:.1f}"

"""A video made of a clip's patches, scale by scale: its layout stays, its detail becomes the clip's.

At each scale the video is enlarged; every 3×7×7 patch of it is replaced by the clip's that suits it best. Where patches
overlap each has a vote, and the video takes the mean of the votes, or what most of them are near. Values are the clip
at this scale. Keys of the first pass are the clip's scale below, enlarged, which is as blurred as the video is; from
the second pass on keys are the values, as for a video that comes at the size of the scale (Haim et al. 2022, VGPNN;
their published code takes the median of the votes). A mean blurs where patches of different places meet; a step of mean
shift does not (Wexler, Shechtman and Irani 2007, Space-Time Completion of Video).
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infra.errors import Refusal
from model.boxes import inside, surrounded
from model.device import stop_if_unwanted, usual_threads
from model.interpolation import interpolated
from model.patches.field import PART, Grid, Size, carry, fits, in_parts, places, scattered
from model.patches.match import PAIRS, Queries, exact_field, spread_field
from model.patches.space import COMPONENTS, Patch, PatchSpace, principal_components

FAR = 1e3  # in every component of a patch that may not be taken; those of others are below 21 (√441)
SMALLEST_EXPONENT = -80.0  # of a weight: the sum of a pixel's is above 0 in float32, however far its votes are apart
EXACT_PAIRS = 10**8  # of queries and keys: up to so many all are compared
VOLUMES = 5  # of the whole video's pixels, in float32: two of a pass, more of what is between passes, and of the caller
VOTES = 2**16  # that are read at once, of small videos those of several pixels of a patch: each call costs microseconds


@dataclass(frozen=True)
class Matching:
    """How patches of the clip are chosen, and put together.

    Attributes:
        patch: frames, height, width; 3×7×7 in VGPNN.
        alpha: of completeness, mean squared difference of a value in [-1, 1]; 0.005 in GPNN.
        bandwidth: of the mean shift where patches overlap, for values in [-1, 1]; None: their mean, as in VGPNN.
    """

    patch: Patch = (3, 7, 7)
    alpha: float = 0.005
    bandwidth: float | None = None


@dataclass(frozen=True)
class Step:
    """One scale: patches of the clip's scale n, for a video of `size`, so many times."""

    n: int
    size: Size
    passes: int


@dataclass(frozen=True)
class Keys:
    """A clip's patches at one scale, as vectors: (N, D)."""

    space: PatchSpace
    vectors: Tensor


@dataclass
class ClipPatches:
    """The patches of a clip at every scale, of a long video those of all its chunks.

    Attributes:
        sizes: (T, H, W) of every scale, coarsest first.
        level: the clip at a scale: n → (chunks, 3, T, H, W) float32 in [-1, 1].
        device: where the search runs.
        hidden: the pixels that no patch may have: n → (chunks, 1, T, H, W) bool; None: none. Some patches must be left.
            With them ask for nearest patches alone, by a large `Matching.alpha`: completeness wants what no patch of
            the video is like, and that is what is hidden.
    """

    sizes: Sequence[tuple[int, int, int]]
    level: Callable[[int], Tensor]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    hidden: Callable[[int], Tensor] | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()  # several videos may be made at once
        self._keys: dict[tuple[int, bool, Patch], Keys] = {}
        self._values: dict[int, Tensor] = {}

    def values(self, n: int) -> Tensor:
        """The clip at scale n: (chunks, 3, T, H, W)."""
        if n not in self._values:
            self._values[n] = self.level(n).to(self.device)
        return self._values[n]

    def keys(self, n: int, patch: Patch, *, sharp: bool) -> Keys:
        """sharp: of the clip at scale n; else of its scale below, enlarged. Scale 0 has none below."""
        sharp = sharp or n == 0
        with self._lock, usual_threads():
            if (n, sharp, patch) not in self._keys:
                self._keys[n, sharp, patch] = self._keys_of(n, patch, sharp)
            return self._keys[n, sharp, patch]

    def _keys_of(self, n: int, patch: Patch, sharp: bool) -> Keys:
        videos = self.values(n) if sharp else interpolated(self.values(n - 1), self.sizes[n])
        space = self._space(videos, n, sharp, patch)
        vectors = space.project(videos)
        if self.hidden:
            hidden = touched(self.hidden(n), patch).to(vectors.device)
            if hidden.all():
                raise Refusal(f"at {_written(self.sizes[n])} no patch of {_written(patch)} is left outside the mask")
            vectors[hidden] = FAR
        return Keys(space, vectors.reshape(-1, len(space.filters)))

    def _space(self, videos: Tensor, n: int, sharp: bool, patch: Patch) -> PatchSpace:
        return principal_components(videos, patch)

    def grid(self, n: int, patch: Patch) -> Grid:
        """Where its patches at scale n are."""
        t, h, w = self.sizes[n]
        return Grid(len(self.values(n)), (t, h, w), patch)


def touched(hidden: Tensor, patch: Patch) -> Tensor:
    """Which patches have a hidden pixel: (B, 1, T, H, W) bool → (B, T', H', W') bool."""
    return F.max_pool3d(hidden.float(), patch, stride=1)[:, 0] > 0


@dataclass
class Refinement:
    """A video on its way through the scales.

    Attributes:
        video: (1, 3, T, H, W) float32 in [-1, 1].
        clip, how: what it is made of, and how.
        random: for the search; on the CPU.
        tick: called after every pass.
        after: what becomes of the video of every pass, at the step's size: for what must hold beside the patches.
        first_pairs: of queries and keys that are all compared in the first pass, which has no field to begin with.
        found: (T', H', W'), the field that the last pass took; None before it.
    """

    video: Tensor
    clip: ClipPatches
    how: Matching
    random: torch.Generator
    tick: Callable[[int], None] = lambda passes: None
    after: Callable[[Tensor, Step], Tensor] = lambda made, step: made
    first_pairs: int = EXACT_PAIRS
    found: Tensor | None = None
    _done: Step | None = None

    @torch.no_grad()
    def run(self, steps: Sequence[Step]) -> Tensor:
        """The video after these steps, coarsest first: (1, 3, *steps[-1].size) on the clip's device.

        Their sizes may differ from the clip's. Raises ValueError for a size that holds no patch.
        """
        patch = self.how.patch
        for size in [size for step in steps for size in (step.size, self.clip.sizes[step.n])]:
            if not fits(size, patch):
                raise Refusal(f"{_written(size)} is smaller than a patch of {_written(patch)} (T×H×W)")
        self.video = self.video.to(self.clip.device)
        for step in steps:
            self._run(step)
        return self.video

    def _run(self, step: Step) -> None:
        clip, patch = self.clip, self.how.patch
        grid = clip.grid(step.n, patch)
        enlarges = tuple(self.video.shape[2:]) != tuple(step.size)
        if enlarges:
            self.video = interpolated(self.video, step.size)
        if self.found is not None and self._done is not None:
            self.found = carry(self.found, self._done.size, step.size, clip.grid(self._done.n, patch), grid)
        for turn in range(step.passes):
            stop_if_unwanted()
            self.found = self._search(clip.keys(step.n, patch, sharp=turn > 0 or not enlarges), grid)
            self.video = self.after(self._assembled(step, self.found), step)
            self.tick(1)
        self._done = step

    def _search(self, keys: Keys, grid: Grid) -> Tensor:
        """The field of the video as it is."""
        queries = Queries(self.video, keys.space)
        most = self.first_pairs if self.found is None else EXACT_PAIRS
        search = self._exact if math.prod(queries.shape) * len(grid) <= most else self._spread
        return search(queries, keys.vectors, grid, self.how.alpha * keys.space.values)

    def _exact(self, queries: Queries, keys: Tensor, grid: Grid, alpha: float) -> Tensor:
        return exact_field(queries, keys, grid, alpha)

    def _spread(self, queries: Queries, keys: Tensor, grid: Grid, alpha: float) -> Tensor:
        begun = self.found
        if begun is None:
            begun = scattered(queries.shape, grid, self.random).to(self.video.device)
        return spread_field(queries, keys, grid, begun, alpha, self.random)

    def _assembled(self, step: Step, found: Tensor) -> Tensor:
        return assemble(self.clip.values(step.n), found, step.size, self.how.patch, self.how.bandwidth)

    def places(self) -> Tensor:
        """(4, T', H', W') int64: chunk, frame, row and column of the patches that the last pass took."""
        if self.found is None or self._done is None:
            raise ValueError("no pass has been made")
        return places(self.found, self.clip.grid(self._done.n, self.how.patch))


def refine(
    video: Tensor, clip: ClipPatches, steps: Sequence[Step], how: Matching, random: torch.Generator, **more: Any
) -> Tensor:
    """The video, brought to the size of each step and made of the clip's patches there: a whole `Refinement`.

    Args: more: `tick`, `after`, `first_pairs` of `Refinement`.
    """
    return Refinement(video, clip, how, random, **more).run(steps)


def assemble(values: Tensor, found: Tensor, size: Size, patch: Patch, bandwidth: float | None = None) -> Tensor:
    """The video whose patches are those of a field.

    Where they overlap each has a vote. A pixel is the mean of its votes or, with a bandwidth σ, their mean again with
    the weights exp(-d² / 2σ²), where d² is a vote's mean squared difference from the first mean.

    A large video is made in parts: of all patches that reach into one, so that it is what it is in the whole.

    Args:
        values: (chunks, 3, T, H, W), the clip; found: (T', H', W'), a field of its patches.

    Returns (1, 3, *size), size = (T' + t - 1, H' + h - 1, W' + w - 1) of patches of t×h×w.
    """
    chunks, channels, frames, rows, columns = values.shape
    grid, reach = Grid(chunks, (frames, rows, columns), patch), [side - 1 for side in patch]
    made = values.new_empty((channels, *size))
    for box in in_parts(size, reach):
        wide = surrounded(box, reach, size)
        taken = found[tuple(slice(s.start, s.stop - around) for s, around in zip(wide, reach, strict=True))]
        extent = [s.stop - s.start for s in wide]
        part = _assembled(values, places(taken, grid), extent, patch, bandwidth)
        inner = inside(box, wide)
        made[:, box[0], box[1], box[2]] = part[:, inner[0], inner[1], inner[2]]
    return made[None]


def _assembled(values: Tensor, found: Tensor, size: Size, patch: Patch, bandwidth: float | None) -> Tensor:
    """`assemble` of a part: found: (4, T', H', W'), places; returns (3, *size)."""
    mean = values.new_zeros((values.shape[1], *size))
    means = _windows(mean, patch)
    for pixels, votes in _votes(values, found, patch):
        for own, vote in zip(means[pixels], votes.unbind(1)):
            own.add_(vote)
    mean /= _overlaps(size, patch, values.device)
    if bandwidth is None:
        return mean
    total, weights = torch.zeros_like(mean), values.new_zeros((1, *size))
    totals, sums = _windows(total, patch), _windows(weights, patch)
    for pixels, votes in _votes(values, found, patch):
        exponents = torch.stack(means[pixels], dim=1).sub_(votes).square_().mean(dim=0, keepdim=True)
        weighing = exponents.mul_(-0.5 / bandwidth**2).clamp_min_(SMALLEST_EXPONENT).exp_()
        for own, own_sum, vote, weight in zip(totals[pixels], sums[pixels], votes.unbind(1), weighing.unbind(1)):
            own.addcmul_(vote, weight)
            own_sum.add_(weight)
    return total / weights


def _votes(values: Tensor, found: Tensor, patch: Patch) -> Iterator[tuple[slice, Tensor]]:
    """For the pixels of a patch, several at once: which they are, in order of frame, row and column, and the colours
    that all patches have there: (3, pixels, T', H', W')."""
    channels, frames, rows, columns = values.shape[1:]
    colours = values.movedim(1, 0).reshape(channels, -1)
    chunk, t, y, x = found
    first = (((chunk * frames + t) * rows + y) * columns + x).reshape(-1)
    pixels = itertools.product(*map(range, patch))
    steps = torch.tensor([(dt * rows + dy) * columns + dx for dt, dy, dx in pixels]).to(first.device)[:, None]
    at_once = max(1, VOTES // len(first))
    for start in range(0, len(steps), at_once):
        stop_if_unwanted()
        some = slice(start, start + at_once)
        votes = colours.index_select(1, (first + steps[some]).reshape(-1))
        yield some, votes.view(channels, -1, *found.shape[1:])


def _windows(video: Tensor, patch: Patch) -> list[Tensor]:
    """For each pixel of a patch, where it is in a video, of all patches: (C, T, H, W) → views (C, T', H', W')."""
    shape = [side - part + 1 for side, part in zip(video.shape[1:], patch, strict=True)]
    channel, *steps = video.stride()
    whole = video.as_strided((*patch, len(video), *shape), (*steps, channel, *steps))
    return [window for frame in whole.unbind() for row in frame.unbind() for window in row.unbind()]


def _overlaps(size: Size, patch: Patch, device: torch.device) -> Tensor:
    """How many patches each pixel is in: (T, H, W)."""
    along = []
    for side, part in zip(size, patch, strict=True):
        at = torch.arange(side, device=device)
        along.append(torch.minimum(at + 1, side - at).clamp_max(min(part, side - part + 1)).float())
    return along[0][:, None, None] * along[1][:, None] * along[2]


def needed_bytes(pixels: float, clip_pixels: float) -> float:
    """Estimate of the memory that `refine` takes at most.

    Of the clip two sets of vectors a scale, blurred and sharp, and the pixels; of a part of the video, while its
    vectors are made, three sets of these and one field of four numbers; of the whole video three fields of one
    number, and VOLUMES; and of pairs three times as many as are compared at once.

    Args: pixels: of the video, in all its frames; clip_pixels: those of the clip, in all its scales and chunks.
    """
    of_part = min(pixels, PART) * (3 * 4 * COMPONENTS + 4 * 8)
    of_video = pixels * (3 * 4 + VOLUMES * 4 * 3)
    return of_part + of_video + clip_pixels * 4 * (2 * COMPONENTS + 3) + 3 * 4 * PAIRS


def pixels_of(sizes: Sequence[Size], chunks: int) -> int:
    """Of the clip at these scales, in all its chunks: (T, H, W) each."""
    return chunks * sum(math.prod(size) for size in sizes)


def _written(size: Size) -> str:
    return "×".join(map(str, size))

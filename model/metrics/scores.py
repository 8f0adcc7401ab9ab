"""The scores of one clip's samples, and what a known damage of the clip itself scores beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from infra.errors import Refusal
from model.metrics.diversity import diversity_map, lab_diversity, relative_spread
from model.metrics.features import Video
from model.metrics.names import diversity_name
from model.metrics.nnf import (
    NearestNeighbourField,
    coherence,
    nearest_neighbour_distance,
    nearest_neighbour_field,
    nnfdiv,
)
from model.metrics.svfid import RealClip, svfid
from model.patches.search import PATCH, patch_sides

T = TypeVar("T")
BLUR_PX = 1.0  # sigma of the blurred clip that svfid is read against
SCORED_CHUNKS = 8
NN_TRAINING_S = 20.0  # that a training waits for nearest neighbours, each time it scores; seconds of one core
NN_PAIR_S = 3.4e-9  # of one core for a pair of patches: 10 s a sample of 13×54×96, 39 s of 13×76×136


def chunks_to_score(chunks: Sequence[T]) -> Sequence[T]:
    """The chunks that samples of a long video are held against: all, or SCORED_CHUNKS spread evenly over it."""
    if not chunks:
        return []
    places = np.linspace(0, len(chunks) - 1, min(SCORED_CHUNKS, len(chunks)))
    return [chunks[round(place)] for place in places]


def score(samples: Tensor, real: RealClip) -> Mapping[str, float]:
    """`real.metric`, `diversity_name(N)` and nn_distance.

    nn_distance is the mean over the samples, of a large clip over as many of the first ones as NN_TRAINING_S allows.

    Args: samples: (N, 3, T, H, W) float in [-1, 1], N >= 2.
    """
    beside = math.prod(patch_sides(real.video.shape[1:]))  # patches of which one is searched, side by side
    of_one = len(real.chunks) * nn_seconds(*real.video.shape[1:]) / beside
    searched = samples[: max(1, int(NN_TRAINING_S / max(of_one, 1e-9)))]
    return {
        real.metric: svfid(real, samples).mean,
        diversity_name(len(samples)): lab_diversity(samples, real.frames),
        "nn_distance": float(np.mean([nn_distance(sample, real) for sample in searched])),
    }


def nearest_chunk(sample: Tensor, real: RealClip) -> tuple[Video, NearestNeighbourField] | None:
    """The chunk that is nearest to a sample, (3, T, H, W), as a whole, and the field between them at every position.

    None of a clip so large that the search takes more than NN_TRAINING_S.
    """
    if len(real.chunks) * nn_seconds(*real.video.shape[1:]) > NN_TRAINING_S or min(real.video.shape[2:]) <= PATCH:
        return None
    found = [(chunk, nearest_neighbour_field(sample, chunk)) for chunk in real.chunks]
    return min(found, key=lambda one: one[1].nn_distance)


def score_of_novelty(field: NearestNeighbourField) -> Mapping[str, float]:
    """nnfdiv and coherence of a sample."""
    return {"nnfdiv": nnfdiv(field), "coherence": coherence(field)}


def nn_distance(sample: Video, real: RealClip) -> float:
    """Of a sample to the clip, or to the chunk that is nearest as a whole, in [0, 2]; see `nnf`."""
    return min(nearest_neighbour_distance(sample, chunk) for chunk in real.chunks)


def score_of_blur(real: RealClip) -> Mapping[str, float]:
    """`real.metric`_blur: `blur_distance`."""
    return {f"{real.metric}_blur": blur_distance(real)}


def blur_distance(real: RealClip) -> float:
    """Of the clip, or the mean over its chunks, with frames blurred by a Gaussian of 1 px, to the clip."""
    from scipy.ndimage import gaussian_filter  # a fifth of a second, which plain samples must not wait for

    blurred = [gaussian_filter(chunk, (0, 0, BLUR_PX, BLUR_PX), mode="nearest") for chunk in real.chunks]
    return svfid(real, blurred).mean


@dataclass(frozen=True, kw_only=True)
class Score:
    """One score of a clip: of each of its samples, of all of them together, or of the clip itself.

    Attributes:
        values: one a sample; a single one if it is of all of them together, or of the clip.
        samples: how many samples it is of; 0 if it is of the clip itself.
    """

    values: tuple[float, ...]
    samples: int

    @property
    def mean(self) -> float:
        """Over the samples."""
        return float(np.mean(self.values))

    @property
    def std(self) -> float | None:
        """Over the samples, divided by their number; None of a single value."""
        return float(np.std(self.values)) if len(self.values) > 1 else None


@dataclass(frozen=True, kw_only=True, eq=False)  # arrays have no single truth value to compare by
class ClipScores:
    """The scores of a clip's samples, and what their pictures are made of.

    Attributes:
        scores: `RealClip.metric`, its `_blur`, and, where they can be had, `diversity_name(N)`, nn_distance, nnfdiv,
            coherence.
        fields: of the first samples, (sample, the clip or its nearest chunk, the field between them at every position).
        spread: (T, H, W), `diversity_map`; None of fewer than 2 samples.
        pictured: the first samples, (3, T, H, W).
        complaints: what could not be scored and why, one line each.
    """

    scores: Mapping[str, Score]
    fields: Sequence[tuple[Tensor, Video, NearestNeighbourField]]
    spread: np.ndarray | None
    pictured: Sequence[Tensor]
    complaints: Sequence[str]


def measure(
    samples: Iterable[tuple[str, Callable[[], Tensor]]],
    real: RealClip,
    *,
    nn: int,
    pictured: int,
    each: Callable[[int, Tensor], None] = lambda index, sample: None,
) -> ClipScores:
    """Every score of a clip's samples; one that cannot be scored costs itself only. One is held at a time.

    Args:
        samples: name, and what reads or makes the sample: (3, T, H, W) float in [-1, 1], of the clip's size.
        nn: how many of the first ones are searched for their nearest neighbours: `nn_seconds` each.
        pictured: how many of the first ones are returned.
        each: given every sample that was scored, with its place among these.
    """
    distances: list[float] = []
    fields: list[tuple[Tensor, Video, NearestNeighbourField]] = []
    first: list[Tensor] = []
    complaints: list[str] = []

    def scored() -> Iterator[Tensor]:
        for name, load in samples:
            try:
                video = load()
                if video.shape != real.video.shape:
                    cause = f"is {size_of(video)} (T×H×W), and not {size_of(real.video)} as most"
                    raise Refusal(f"{cause}; give all samples one size")
                distance = real.distance(video)
                each(len(distances), video)
            except (TypeError, ValueError) as error:
                complaints.append(f"{name}: {str(error).removeprefix(f'{name}: ')}")
                continue
            distances.append(distance)
            if len(distances) <= nn:
                try:
                    found = [(video, chunk, nearest_neighbour_field(video, chunk)) for chunk in real.chunks]
                    fields.append(min(found, key=lambda one: one[2].nn_distance))
                except ValueError as error:
                    complaints.append(f"{name}: its nearest neighbours: {error}")
            if len(first) < pictured:
                first.append(video)
            yield video

    spread: np.ndarray | None = None
    scores: dict[str, Score] = {}
    try:
        spread = diversity_map(scored())
        diversity = Score(values=(relative_spread(spread, real.frames),), samples=len(distances))
        scores[diversity_name(diversity.samples)] = diversity
    except ValueError as error:  # fewer than 2 samples, or a clip of one lightness
        if distances:
            complaints.append(str(error))
    if distances:
        svfids = {real.metric: Score(values=tuple(distances), samples=len(distances))}
        blur = {name: Score(values=(value,), samples=0) for name, value in score_of_blur(real).items()}
        scores = svfids | blur | scores
    if fields:
        of_samples = [field for _, _, field in fields]
        distances_nn = tuple(field.nn_distance for field in of_samples)
        scores["nn_distance"] = Score(values=distances_nn, samples=len(of_samples))
        scores["nnfdiv"] = Score(values=tuple(map(nnfdiv, of_samples)), samples=len(of_samples))
        if of_samples[0].distance.size > 1:
            scores["coherence"] = Score(values=tuple(map(coherence, of_samples)), samples=len(of_samples))
    return ClipScores(scores=scores, fields=fields, spread=spread, pictured=first, complaints=complaints)


def nn_seconds(frames: int, height: int, width: int) -> float:
    """About how long one core of a cloud CPU searches a sample of this size in a clip as large."""
    t, h, w = patch_sides((frames, height, width))
    patches = max(0, frames - t + 1) * max(0, height - h + 1) * max(0, width - w + 1)
    return NN_PAIR_S * patches**2


def size_of(video: Video) -> str:
    """T×H×W of a video (3, T, H, W), for a line of text."""
    return "×".join(map(str, video.shape[1:]))

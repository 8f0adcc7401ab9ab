"""Mean opinion scores with their intervals, and how far participants agree.

What is scored is a mapping from (participant, unit) to a rating; a unit is a clip with the samples of one method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

from jobs.user_study.answers import SCALE

RESAMPLES, CONFIDENCE, SEED = 9999, 0.95, 0
BATCH = 10_000_000  # numbers that the bootstrap holds at once
Unit = tuple[str, str]  # clip, method
Ratings = Mapping[tuple[int, Unit], int]  # by participant and unit


@dataclass(frozen=True)
class Opinion:
    """A mean opinion score. interval: its 95 % interval, None of fewer than two participants."""

    mean: float
    ratings: int
    participants: int
    interval: tuple[float, float] | None


def opinion(ratings: Ratings) -> Opinion:
    """The mean of all ratings, one or more.

    The interval is of the percentiles of a bootstrap that draws participants, each with all its ratings: ratings of one
    person are not independent.
    """
    by_person: dict[int, list[int]] = {}
    for (person, _), rating in ratings.items():
        by_person.setdefault(person, []).append(rating)
    sums, counts = (np.array([part(of) for of in by_person.values()], float) for part in (sum, len))
    interval = None
    if len(by_person) > 1:
        found = bootstrap(
            (sums, counts),
            _mean,
            paired=True,
            vectorized=True,
            batch=max(1, BATCH // len(by_person)),
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(SEED),
        ).confidence_interval
        interval = (float(found.low), float(found.high))
    return Opinion(float(sums.sum() / counts.sum()), len(ratings), len(by_person), interval)


def _mean(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.asarray(sums.sum(axis=axis) / counts.sum(axis=axis))


def agreement(ratings: Ratings) -> float | None:
    """Krippendorff's alpha for ordinal ratings: 1 is perfect agreement, 0 that of chance.

    Krippendorff, Computing Krippendorff's Alpha-Reliability (2011). None where it is not defined: no unit has two
    ratings, or all ratings that share a unit are the same number.
    """
    by_unit: dict[Unit, list[int]] = {}
    for (_, unit), rating in ratings.items():
        by_unit.setdefault(unit, []).append(rating)
    counts = np.array([[of.count(value) for value in SCALE] for of in by_unit.values() if len(of) > 1], float)
    if len(counts) == 0 or np.count_nonzero(counts.sum(axis=0)) < 2:
        return None
    pairs = counts[:, :, None] * counts[:, None, :] - np.eye(len(SCALE)) * counts[:, :, None]
    observed = np.sum(pairs / (counts.sum(axis=1) - 1)[:, None, None], axis=0)  # coincidences of two values
    each = observed.sum(axis=1)  # how often each value can be paired
    below = np.cumsum(each)
    # Between two values lie those in between, and half of each.
    distance = (below[:, None] - below[None, :] - (each[:, None] - each[None, :]) / 2) ** 2
    expected = np.outer(each, each) / (each.sum() - 1)
    return float(1 - np.sum(observed * distance) / np.sum(expected * distance))

"""The figures of one clip's samples, and what a known damage of the clip itself scores beside them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.ndimage import gaussian_filter
from torch import Tensor

from model.metrics.diversity import lab_diversity
from model.metrics.frechet import RealClip, svfid
from model.metrics.nnf import nearest_neighbour_distance

BLUR_PX = 1.0  # sigma of the blurred clip that svfid is read against


def score(samples: Tensor, real: RealClip) -> Mapping[str, float]:
    """svfid_{features}, diversity and nn_distance (mean over the samples).

    Args: samples: (N, 3, T, H, W) float in [-1, 1], N >= 2.
    """
    return {
        f"svfid_{real.features.name}": svfid(real, samples).mean,
        "diversity": lab_diversity(samples, real.video),
        "nn_distance": float(np.mean([nearest_neighbour_distance(sample, real.video) for sample in samples])),
    }


def score_of_blur(real: RealClip) -> Mapping[str, float]:
    """svfid_{features}_blur: the clip with every frame blurred by a Gaussian of 1 px, against the clip."""
    blurred = gaussian_filter(real.video, (0, 0, BLUR_PX, BLUR_PX), mode="nearest")
    return {f"svfid_{real.features.name}_blur": svfid(real, blurred[None]).mean}

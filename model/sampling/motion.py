"""The motion of a clip under a drawing: what is painted on an object moves, turns and grows with it."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
from skimage.measure import ransac
from skimage.registration import optical_flow_ilk
from skimage.transform import SimilarityTransform, warp

AROUND = 16  # px around the paint that the flow is computed of
WINDOW = 5  # px, radius of the flow's windows
TEXTURE = 0.02  # of the lightness in [0, 1], a px: where it changes less, motion cannot be seen
LEAST_POINTS = 12  # with texture under the paint, at least
INLIER = 0.5  # px from where the motion puts a point
AGREED = 0.5  # of the points: fewer follow one motion at a cut, and where the paint lies on several objects
MOST_GROWTH = 0.2  # from one frame to the next


def carried(clip: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """A drawing of the first frame, in all frames of a clip: it follows what it was painted on.

    From each frame to the next the dense optical flow under the paint (iterative Lucas-Kanade; Le Besnerais and
    Champagnat 2005) gives one shift, turn and change of size, which most of its points agree on (RANSAC). Where they
    do not, as when the object has left the picture, the paint goes on as before; without texture it stays.

    Args:
        clip: uint8 (T, H, W, 3). Played backwards, it carries the drawing of its last frame to its first.
        layer: float32 (H, W, 4), premultiplied RGBA, 0 to 255.

    Returns float32 (T, H, W, 4), premultiplied.
    """
    lightness = clip.astype(np.float32).mean(axis=-1) / 255
    layers, whole, motion = [layer], SimilarityTransform(), SimilarityTransform()
    for before, after in pairwise(lightness):
        motion = _motion(before, after, layers[-1][..., 3] > 127) or motion
        whole = whole + motion
        layers.append(warp(layer, whole.inverse, order=1, preserve_range=True).astype(np.float32))
    return np.stack(layers)


def _motion(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> SimilarityTransform | None:
    """Of what is at `where` in one frame, to the next: of (x, y) in px; None where none can be seen.

    Args: a, b: float32 (H, W) in [0, 1]. where: bool (H, W).
    """
    if not where.any():  # it has left the picture
        return None
    rows, columns = _span(where, axis=1), _span(where, axis=0)
    a, b, where = (each[rows, columns] for each in (a, b, where))
    if min(a.shape) <= 2 * WINDOW:
        return None
    textured = where & (np.hypot(*np.gradient(a)) > TEXTURE)
    if textured.sum() < LEAST_POINTS:
        return None
    down, right = optical_flow_ilk(a, b, radius=WINDOW)
    y, x = np.nonzero(textured)
    corner = (columns.start, rows.start)
    points = np.stack([x, y], axis=1) + corner
    moved = points + np.stack([right[textured], down[textured]], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no three points agree
        found, agree = ransac((points, moved), SimilarityTransform, 3, INLIER, max_trials=100, rng=0)
    if not found or agree.mean() < AGREED or abs(found.scale - 1) > MOST_GROWTH:
        return None
    return found


def _span(where: np.ndarray, axis: int) -> slice:
    """The rows (axis 1) or columns (axis 0) with paint, and AROUND more on both sides."""
    found = np.flatnonzero(where.any(axis=axis))
    return slice(max(0, found[0] - AROUND), min(where.shape[1 - axis], found[-1] + 1 + AROUND))

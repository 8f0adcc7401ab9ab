"""Masks of what changes in a video: larger than drawn, soft at the edge, and exactly nothing elsewhere.

SinGAN's (Shaham et al. 2019; their published code, functions.dilate_mask): a mask is dilated by a disk of 7 px for
harmonization and of 20 px for editing, then blurred by a Gaussian of 5 px, of images about 250 px long.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage
from scipy.cluster.vq import kmeans2, vq
from scipy.spatial import KDTree
from skimage.transform import resize

from infra.errors import counted
from model.config import COLOURS
from model.pyramid import ScaleSize
from model.sampling.motion import carried

EDITED, HARMONIZED, FEATHER = 20 / 250, 7 / 250, 5 / 250  # of the longer side
SAME_ASPECT = 0.02  # ratio of two aspects that are still the same, beside 1: sides are rounded to pixels
PAINTED = 12  # levels of 255 by which a drawing differs from the frame that it was drawn on
FOREIGN = 32  # levels of 255 in RGB: a colour farther than this from all of the clip's is none of them
STROKE = 5  # px of a stroke, or more: fewer are noise, as of a drawing that was saved as jpg


def as_drawn(mask: np.ndarray, size: ScaleSize) -> np.ndarray:
    """A mask at the size of a video.

    Args: mask: uint8 (T or 1, H, W), white where the video changes. size: (T, H, W).

    Returns bool (T, H, W). Raises ValueError, one line, for another aspect or number of frames, and for a mask that is
    empty or covers everything.
    """
    frames, height, width = mask.shape
    check_aspect("the mask", (height, width), size)
    if frames not in (1, size.frames):
        raise ValueError(
            f"the mask has {counted(frames, 'frame')}, the video {size.frames}; give one frame, or as many"
        )
    drawn = np.stack([_resized(frame, size[1:]) for frame in mask]) > 127
    drawn = np.broadcast_to(drawn, size)
    if not drawn.any():
        raise ValueError("the mask is empty: nothing would change; paint white what is to be made new")
    if drawn.all():
        raise ValueError("the mask covers everything; leave it out, or paint black what is to stay")
    return drawn


def distortion(given: tuple[int, int], size: ScaleSize) -> float:
    """By how much (H, W) px are stretched along one side more than along the other at a video's size; 0: not at all."""
    height, width = given
    return abs(width * size.height / (height * size.width) - 1)


def check_aspect(what: str, given: tuple[int, int], size: ScaleSize) -> None:
    """Raises ValueError, one line, if (H, W) px cannot be scaled to a video's size without distortion."""
    height, width = given
    rounding = 1 / min(size.height, size.width)
    if distortion(given, size) > SAME_ASPECT + rounding:
        kind = "image" if size.frames == 1 else "video"
        raise ValueError(
            f"{what} has {height}×{width} px, the {kind} {size.height}×{size.width}: give one of its aspect"
        )


def softened(mask: np.ndarray, feather: float | None = None) -> np.ndarray:
    """The weight of what is new: near 1 in the mask, falling to exactly 0 around it, each frame for itself.

    Args:
        mask: bool (T, H, W).
        feather: px, standard deviation of the Gaussian; None: FEATHER of the longer side.

    Returns float32 (T, H, W) in [0, 1]; a frame without mask stays 0.
    """
    side = max(mask.shape[1:])
    feather = FEATHER * side if feather is None else feather
    weights = np.zeros(mask.shape, np.float32)
    for weight, frame in zip(weights, mask):
        if frame.any():
            soft = ndimage.gaussian_filter(frame.astype(np.float32), feather, mode="nearest") if feather else frame
            weight[:] = soft / soft.max()
    return weights


def dilated(mask: np.ndarray, radius: float) -> np.ndarray:
    """A mask, bool (T, H, W), with all that is at most `radius` px from it in its frame."""
    return np.stack([ndimage.distance_transform_edt(~frame) <= radius if frame.any() else frame for frame in mask])


def composite(made: np.ndarray, given: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`made` where the weight is 1, `given` to the bit where it is 0, between them in proportion.

    Args: made, given: uint8 (T, H, W, 3). weight: float32 (T, H, W). Returns uint8 (T, H, W, 3).
    """
    base = given.astype(np.float32)
    return np.rint(base + weight[..., None] * (made.astype(np.float32) - base)).astype(np.uint8)


def mask_weight(mask: np.ndarray, grown: float | None = None, feather: float | None = None) -> np.ndarray:
    """The weight of what is made in a mask, which is grown and softened as SinGAN does, see `softened`.

    Args: mask: bool (T, H, W). grown, feather: px; None: those of SinGAN's editing, see `masks`.

    Raises ValueError, one line, for a mask that covers everything when it is grown.
    """
    grown = EDITED * max(mask.shape[1:]) if grown is None else grown
    wide = dilated(mask, grown)
    if wide.all():
        raise ValueError(f"grown by {grown:g} px the mask covers everything; grow it by fewer")
    return softened(wide, feather)


# -- what people bring: objects with alpha, drawings, paintings


def quantised(painting: np.ndarray, clip: np.ndarray, colours: int = COLOURS, seed: int = 0) -> np.ndarray:
    """A painting in the clip's main colours, as SinGAN's colour quantisation.

    Main colours are centres of k-means on the clip's pixels. k-means on the painting's pixels begins at these centres;
    each painted pixel then gets the clip's centre of its cluster.

    Args: painting, clip: uint8 (T, H, W, 3). Returns uint8 like the painting.
    """
    pixels = clip.reshape(-1, 3).astype(np.float64)
    some = pixels[np.random.default_rng(seed).permutation(len(pixels))[: 2**14]]
    centres, _ = kmeans2(some, min(colours, len(np.unique(some, axis=0))), minit="++", seed=seed)
    own = painting.reshape(-1, 3).astype(np.float64)
    theirs = centres.copy()
    for _ in range(10):
        labels, _ = vq(own, theirs)
        for k in np.unique(labels):  # a colour that the painting does not have stays
            theirs[k] = own[labels == k].mean(axis=0)
    return np.rint(centres[labels]).astype(np.uint8).reshape(painting.shape)


def foreign(pixels: np.ndarray, clip: np.ndarray) -> float:
    """The share of pixels, uint8 (N, 3), whose colours are none of a clip's, uint8 (T, H, W, 3): from 0 to 1."""
    step = 8  # levels that count as one: far fewer than FOREIGN, and few colours are left to compare
    theirs = np.unique(clip.reshape(-1, 3) // step, axis=0)
    own, place = np.unique(pixels // step, axis=0, return_inverse=True)
    far = KDTree(theirs).query(own)[0] * step > FOREIGN
    return float(far[place.reshape(-1)].mean())


def overlaid(clip: np.ndarray, layer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An object in front of a clip.

    Args: clip: uint8 (T, H, W, 3). layer: uint8 (T or 1, h, w, 4) RGBA, straight alpha, of the clip's aspect.

    Returns the composite, uint8 (T, H, W, 3), and where the object is, bool (T, H, W). Raises ValueError, one line.
    """
    size = ScaleSize(*clip.shape[:3])
    if len(layer) not in (1, size.frames):
        raise ValueError(
            f"the object has {counted(len(layer), 'frame')}, the video {size.frames}; give one frame, or as many"
        )
    check_aspect("the object", layer.shape[1:3], size)
    if (layer[..., 3] == 255).all():
        raise ValueError("the object has no transparent pixel: it would hide the clip; give one with alpha")
    return _in_front(clip, np.broadcast_to(_at_size(layer, size), (*size, 4)))


def tracked(clip: np.ndarray, drawings: Mapping[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Drawings on some frames of a clip, carried to all of them.

    Paint is what is opaque and differs from the frame that it was drawn on, in at least STROKE px that hang together.
    Between two drawings it moves from the
    centre of one to that of the other, and fades from one to the other. Before the first and after the last it follows
    what it was painted on (`motion.carried`).

    Args:
        clip: uint8 (T, H, W, 3).
        drawings: by frame, from 0, uint8 (H, W, 4) RGBA. Brought to the clip's size as the clip was: what is not
            painted must be equal.

    Returns the painted clip, uint8 (T, H, W, 3), and where paint is, bool (T, H, W). Raises ValueError, one line, for a
    frame that the clip does not have, and for a drawing that differs nowhere.
    """
    size = ScaleSize(*clip.shape[:3])
    painted: dict[int, np.ndarray] = {}
    for at, drawing in sorted(drawings.items()):
        if not 0 <= at < size.frames:
            there = f"the video has frames 0 to {size.frames - 1}" if size.frames > 1 else "an image has frame 0 alone"
            raise ValueError(f"a drawing is for frame {at}, and {there}; name it by one of these")
        layer = drawing.astype(np.float32)
        differs = np.abs(layer[..., :3] - clip[at]).max(axis=-1) > PAINTED
        layer[..., 3] *= _strokes(differs)
        if layer[..., 3].max() < 128:
            raise ValueError(f"the drawing of frame {at} differs nowhere from the clip's frame; paint something on it")
        painted[at] = _premultiplied(layer)
    first, last = min(painted), max(painted)
    layers = [
        *carried(clip[first::-1], painted[first])[:0:-1],
        *(_between(painted, frame) for frame in range(first, last)),
        *carried(clip[last:], painted[last]),
    ]
    return _in_front(clip, _straight(np.stack(layers)))


def _strokes(differs: np.ndarray) -> np.ndarray:
    """What is painted of the pixels that differ, bool (H, W): those that hang together, STROKE px or more."""
    parts, _ = ndimage.label(differs, np.ones((3, 3)))
    areas = np.bincount(parts.ravel())
    areas[0] = 0  # what does not differ
    return areas[parts] >= STROKE


def _between(painted: Mapping[int, np.ndarray], frame: int) -> np.ndarray:
    """The layer of a frame before the last drawing, and not before the first: float32 (H, W, 4), premultiplied."""
    before = max(at for at in painted if at <= frame)
    after = min(at for at in painted if at > frame)
    share = (frame - before) / (after - before)
    centres = [np.array(ndimage.center_of_mass(painted[at][..., 3])) for at in (before, after)]
    centre = (1 - share) * centres[0] + share * centres[1]
    mixed = np.zeros_like(painted[before])
    for at, own, part in zip((before, after), centres, (1 - share, share)):
        mixed += np.float32(part) * ndimage.shift(painted[at], (*(centre - own), 0), order=1)
    return mixed


def _at_size(layer: np.ndarray, size: ScaleSize) -> np.ndarray:
    """uint8 (t, h, w, 4) → float32 (t, H, W, 4), straight alpha: what is transparent lends no colour."""
    if layer.shape[1:3] == size[1:]:
        return layer.astype(np.float32)
    return np.stack([_straight(_resized(_premultiplied(frame), (*size[1:], 4))) for frame in layer])


def _premultiplied(layer: np.ndarray) -> np.ndarray:
    """(H, W, 4), colours 0 to 255 → float32, colours times alpha."""
    rgba = layer.astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    return rgba


def _straight(rgba: np.ndarray) -> np.ndarray:
    """The inverse; black where it is transparent."""
    alpha = rgba[..., 3:]
    rgba[..., :3] = np.divide(rgba[..., :3] * 255, alpha, out=np.zeros_like(rgba[..., :3]), where=alpha > 0)
    return rgba


def _resized(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Any numbers → float32 of the same range; what shrinks is blurred before."""
    if values.shape == shape:
        return values.astype(np.float32)
    return resize(values, shape, order=1, preserve_range=True, anti_aliasing=True).astype(np.float32)


def _in_front(clip: np.ndarray, layers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    alpha = layers[..., 3] / 255
    mask = alpha > 0.5
    if not mask.any():
        raise ValueError("what is laid over the clip is transparent everywhere; give something to see")
    return composite(np.rint(layers[..., :3]).clip(0, 255).astype(np.uint8), clip, alpha.astype(np.float32)), mask

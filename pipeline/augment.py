"""Augmented copies of a clip: views of its frames, mirrored or cut out. They are samples of their own (paper eq. 5)."""

import numpy as np

CROP_SIDE = 0.9  # of the frame's height and width: the pyramid brings a crop to the clip's sizes, so it is enlarged


def copies(frames_thwc: np.ndarray, *, flip: bool, crops: int, seed: int) -> list[np.ndarray]:
    """The clip itself, mirrored left to right if `flip`, then `crops` random crops, each the same in all frames.

    Args:
        frames_thwc: (T, H, W, 3).
        seed: of the places of the crops, uniform over the frame; of one seed always the same.

    Returns: views of frames_thwc, (T, H, W, 3) or, of a crop, (T, 0.9 H, 0.9 W, 3), rounded.
    """
    _, height, width, _ = frames_thwc.shape
    crop_height, crop_width = round(CROP_SIDE * height), round(CROP_SIDE * width)
    made = [frames_thwc, *([frames_thwc[:, :, ::-1]] if flip else [])]
    chance = np.random.default_rng(seed)
    for _ in range(crops):
        top = chance.integers(height - crop_height, endpoint=True)
        left = chance.integers(width - crop_width, endpoint=True)
        made.append(frames_thwc[:, top : top + crop_height, left : left + crop_width])
    return made

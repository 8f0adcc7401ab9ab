"""The scale ladder of a clip (integers only) and the real pyramid built on it.

Paper section 3.1: 13 frames = LCM(1, 2, 3, 4) + 1, so that the sampling rates 4, 3, 2 and 1 all keep the
first and the last frame.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

SMALLEST_SIDE_PX = 8  # below this a kernel-3 network of receptive field 11 sees only padding


@dataclass(frozen=True)
class ScaleSize:
    """Size of the real clip at one scale."""

    frames: int
    height: int  # px
    width: int  # px


def ladder(
    height: int,
    width: int,
    *,
    side: Literal["height", "width"],
    min_size: int,
    max_size: int,
    num_scales: int,
    factor: float | None,
    num_frames: int = 13,
    rates: Sequence[int] = (4, 3, 2, 1),
) -> tuple[ScaleSize, ...]:
    """Sizes of all scales for a clip of height x width px, coarsest first.

    Args:
        side: the side that `min_size` and `max_size` (px) speak of; the other follows by the clip's aspect.
        factor: growth a scale, capped at max_size (the paper: side="height", 32, 256, 10 scales, 1.33).
            None: geometric, ending at max_size. With side="width" sizes are rounded as in the authors' code,
            up along the width and down along the height (official: 32, 256, 10 scales).
        rates: temporal sampling rates, coarsest first, indexed linearly over the scales.

    Raises: ValueError when num_frames - 1 is no multiple of every rate, or a scale is under 8 px on a side.
    """
    if min(height, width, min_size, num_scales, num_frames) < 1 or max_size < min_size:
        raise ValueError(
            f"sizes and counts must be positive and min_size <= max_size, got clip {height}x{width}, "
            f"{min_size}..{max_size}, {num_scales} scales, {num_frames} frames"
        )
    if side not in ("height", "width") or (factor is not None and factor <= 1):
        raise ValueError(f'side must be "height" or "width" and factor > 1 or None, got {side!r}, {factor}')
    if not rates or min(rates) < 1 or any((num_frames - 1) % rate for rate in rates):
        raise ValueError(f"num_frames - 1 = {num_frames - 1} must be a multiple of every rate {tuple(rates)}")
    sizes = []
    for n in range(num_scales):
        along = _along(n, num_scales - 1, side, min_size, max_size, factor)
        if side == "height":
            scale_height, scale_width = along, round(along * width / height)
        else:
            scale_height, scale_width = int(along * (height / width)), along
        if min(scale_height, scale_width) < SMALLEST_SIDE_PX:
            raise ValueError(
                f"scale {n} of a clip of {width}x{height} px would be {scale_width}x{scale_height} px: its "
                f"aspect ratio is too extreme (each side needs {SMALLEST_SIDE_PX} px); crop it"
            )
        last = num_scales - 1
        rate = rates[int(n / last * (len(rates) - 1)) if last else -1]
        sizes.append(ScaleSize((num_frames - 1) // rate + 1, scale_height, scale_width))
    return tuple(sizes)


def _along(n: int, last: int, side: str, min_size: int, max_size: int, factor: float | None) -> int:
    if factor is not None:
        return min(round(min_size * factor**n), max_size)
    if last == 0:
        return max_size
    if side == "width":
        # The authors' float power, as it is: it lands just above 32, 64 and 128, and ceil makes 33, 65, 129.
        return math.ceil(max_size * ((min_size / max_size) ** (1 / last)) ** (last - n))
    return round(min_size * (max_size / min_size) ** (n / last))


class Pyramid(Sequence[np.ndarray]):
    """What `build` returns, each scale made when it is asked for, each time: of many clips, memory holds the frames."""

    def __init__(self, frames_thwc: np.ndarray, sizes: Sequence[ScaleSize]) -> None:
        """Raises as `build` does."""
        for size in sizes:
            _subsample(_checked(frames_thwc), size.frames)
        self._frames_thwc, self._sizes = frames_thwc, tuple(sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, n: int) -> np.ndarray:  # type: ignore[override]  # of a slice there is no use
        size = self._sizes[n]
        return _resize(_subsample(self._frames_thwc, size.frames), size.height, size.width)


def build(frames_thwc: np.ndarray, sizes: Sequence[ScaleSize]) -> list[np.ndarray]:
    """The real clip at every size, each made from the original frames.

    Frames are sub-sampled (first and last kept), then resized bilinearly with align_corners=True and no
    antialiasing, as torch.nn.functional.interpolate does.

    Args:
        frames_thwc: (T, H, W, 3) uint8 RGB.

    Returns: one (3, T_n, H_n, W_n) float32 array in [-1, 1] a size, C-contiguous.
    Raises: ValueError when the frames cannot be sub-sampled to a size's count.
    """
    return list(Pyramid(frames_thwc, sizes))


def to_video(frames_thwc: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8 → (3, T, H, W) float32 in [-1, 1]."""
    return frames_thwc.transpose(3, 0, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1)


def _checked(frames_thwc: np.ndarray) -> np.ndarray:
    if frames_thwc.dtype != np.uint8 or frames_thwc.ndim != 4 or frames_thwc.shape[3] != 3:
        raise ValueError(f"uint8 (T, H, W, 3) is needed, got {frames_thwc.dtype} {frames_thwc.shape}")
    return frames_thwc


def _subsample(frames_thwc: np.ndarray, count: int) -> np.ndarray:
    steps, gaps = len(frames_thwc) - 1, count - 1
    if count == 1 == len(frames_thwc):
        return frames_thwc
    if gaps < 1 or steps % gaps or steps < gaps:
        raise ValueError(f"{len(frames_thwc)} frames cannot be sub-sampled evenly to {count} with both ends kept")
    return frames_thwc[:: steps // gaps]


def _resize(frames_thwc: np.ndarray, height: int, width: int) -> np.ndarray:
    video = _interpolate(to_video(frames_thwc), height, axis=2)  # (3, T, height, W)
    return np.ascontiguousarray(_interpolate(video, width, axis=3))  # (3, T, height, width)


def _interpolate(video: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Linear interpolation along one axis; the outermost samples of input and output coincide."""
    length = video.shape[axis]
    if size == length:
        return video
    at = np.arange(size) * ((length - 1) / max(size - 1, 1))  # float64: exact enough for any size
    low = np.minimum(at.astype(np.intp), length - 1)
    high = np.minimum(low + 1, length - 1)
    shape = [1] * video.ndim
    shape[axis] = size
    weight = (at - low).astype(np.float32).reshape(shape)
    return np.take(video, low, axis) * (1 - weight) + np.take(video, high, axis) * weight

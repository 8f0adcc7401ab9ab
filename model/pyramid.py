"""The scale ladder of a clip (integers only), and the real pyramid that is built on it.

Paper §3.2: 13 frames = LCM(1, 2, 3, 4) + 1, so the sampling rates 4, 3, 2 and 1 all keep the first and the last frame.
Layouts: frames_thwc uint8 RGB (T, H, W, 3); video_cthw float32 RGB in [-1, 1] (3, T, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from infra.errors import Refusal
from model.config import Resizing, TrainConfig

SMALLEST_SIDE_PX = 8  # below this a kernel-3 network of receptive field 11 sees only padding
CROP_SIDE = 0.9  # of the frame's height and width: the pyramid brings a crop to the clip's sizes, so it is enlarged


class SizeError(Refusal):
    """A size that was asked for and cannot be made; one line that names what would do."""


class ScaleSize(NamedTuple):
    """Size of a video at one scale, (T, H, W)."""

    frames: int
    height: int  # px
    width: int  # px

    def __str__(self) -> str:
        return "×".join(map(str, self))


def ladder(config: TrainConfig, height: int, width: int) -> tuple[ScaleSize, ...]:
    """Sizes of all scales for a clip of height × width px, coarsest first.

    The side that config.ladder_side names goes from min_size to max_size; the other follows by the clip's aspect. With
    a scale_factor it grows by that a scale, capped at max_size (the paper: height, 32 to 256, 1.33). Without one the
    ladder is geometric and ends at max_size; on a width ladder sizes are rounded as in the authors' code, up along the
    width and down along the height. config.frame_rates are indexed linearly over the scales.

    Raises ValueError, one line, for a clip that would have fewer than SMALLEST_SIDE_PX on a side of a scale, a scale
    that patches make and that is smaller than one, or one that is smaller than what a critic without padding sees.
    """
    if min(height, width) < 1:
        raise Refusal(f"a clip of {height}×{width} px (H×W) has no ladder")
    sizes, last = [], config.num_scales - 1
    for n in range(config.num_scales):
        along = _along(config, n)
        if config.ladder_side == "height" or (config.ladder_side == "shorter" and height <= width):
            scale_height, scale_width = along, round(along * width / height)
        elif config.ladder_side == "shorter":
            scale_height, scale_width = round(along * height / width), along
        else:
            scale_height, scale_width = int(along * (height / width)), along
        if min(scale_height, scale_width) < SMALLEST_SIDE_PX:
            raise Refusal(
                f"scale {n} of a clip of {height}×{width} px (H×W) would be {scale_height}×{scale_width}: its "
                f"aspect ratio is too extreme (each side needs {SMALLEST_SIDE_PX} px); crop it"
            )
        rate = config.frame_rates[int(n / last * (len(config.frame_rates) - 1)) if last else -1]
        sizes.append(ScaleSize((config.num_frames - 1) // rate + 1, scale_height, scale_width))
    if not config.critic_padded:
        sees = [1 + 2 * config.critic_convs * (side // 2) for side in config.kernel(3)]
        for size in sizes[config.vae_levels : config.trained_scales]:
            if any(side < least for side, least in zip(size, sees, strict=True)):
                raise Refusal(
                    f"a scale of {size} is smaller than the {ScaleSize(*sees)} (T×H×W) that D sees without padding; "
                    "set critic_padded=true, a larger min_size or fewer critic_convs"
                )
    if config.made_of_patches and config.method != "vgpnn":  # which has a ladder of its own
        for size in sizes[config.trained_scales - bool(config.patch_coarse_passes) :]:
            if any(side < part for side, part in zip(size, config.patch_size, strict=True)):
                raise Refusal(
                    f"a scale of {size} is smaller than a patch of {ScaleSize(*config.patch_size)} (T×H×W); "
                    "set a larger max_size, a later patch_scale or a smaller patch_size"
                )
    return tuple(sizes)


def _along(config: TrainConfig, n: int) -> int:
    """Size in px at scale n of the side that the ladder measures."""
    low, high, last = config.min_size, config.max_size, config.num_scales - 1
    if config.scale_factor is not None:
        return min(round(low * config.scale_factor**n), high)
    if last == 0:
        return high
    if config.rescaling == "consingan":
        return round(high * (low / high) ** _consingan_share(n, last))
    if config.ladder_side == "width":
        # The authors' float power, as it is: it lands just above 32, 64 and 128, and ceil makes 33, 65, 129.
        return math.ceil(high * ((low / high) ** (1 / last)) ** (last - n))
    return round(low * (high / low) ** (n / last))


def _consingan_share(n: int, last: int) -> float:
    """Of the way from the finest scale to the coarsest along the logarithm of the size: ConSinGAN's rescaling.

    Hinz et al. 2021, §3.3, as in their published code (create_reals_pyramid): the exponent of the mean factor between
    scales is (S − 1) / log S · log(S − n) + 1 for n below S, the last scale.
    """
    if n == last:
        return 0.0
    return ((last - 1) / math.log(last) * math.log(last - n) + 1) / last if last > 1 else 1.0


class Pyramid(Sequence[np.ndarray]):
    """What `build` returns, each scale computed whenever it is asked for: memory holds the frames only."""

    def __init__(
        self, frames_thwc: np.ndarray, sizes: Sequence[ScaleSize], resizing: Resizing = TrainConfig.resizing
    ) -> None:
        """Raises as `build` does."""
        for size in sizes:
            _subsample(_checked(frames_thwc), size.frames)
        self._frames_thwc, self._sizes = frames_thwc, tuple(sizes)
        self._resize = {"corners": _resize_corners, "opencv": _resize_opencv}[resizing]

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, n: int) -> np.ndarray:  # type: ignore[override]  # of a slice there is no use
        size = self._sizes[n]
        return self._resize(_subsample(self._frames_thwc, size.frames), size.height, size.width)


def build(
    frames_thwc: np.ndarray, sizes: Sequence[ScaleSize], resizing: Resizing = TrainConfig.resizing
) -> list[np.ndarray]:
    """The real clip at every size, each computed from the original frames.

    Frames are sub-sampled (first and last kept), then resized bilinearly, without antialiasing.

    Args:
        frames_thwc: (T, H, W, 3) uint8 RGB.
        resizing: corners: with align_corners=True, as torch.nn.functional.interpolate does; opencv: to the bit what
            cv2.resize(…, interpolation=INTER_LINEAR) makes of each frame.

    Returns: one (3, T_n, H_n, W_n) float32 array in [-1, 1] a size, C-contiguous.
    Raises: ValueError when the frames cannot be sub-sampled to a size's count.
    """
    return list(Pyramid(frames_thwc, sizes, resizing))


def training_pyramids(
    chunks_thwc: Sequence[np.ndarray], config: TrainConfig, sizes: Sequence[ScaleSize] | None = None
) -> list[Pyramid]:
    """The examples a model is trained on: each chunk of a video, followed by its augmented copies (eq. 5).

    Args:
        chunks_thwc: uint8 (T, H, W, 3) each, of one size; of a short clip one.
        sizes: None: those of `ladder`.

    Raises ValueError as `ladder` and `build` do.
    """
    _, height, width, _ = chunks_thwc[0].shape
    scales = sizes or ladder(config, height, width)
    return [
        Pyramid(copy, scales, config.resizing)
        for place, chunk in enumerate(chunks_thwc)
        for copy in augmented_copies(chunk, flip=config.flip, crops=config.crops, seed=config.seed + place)
    ]


def augmented_copies(frames_thwc: np.ndarray, *, flip: bool, crops: int, seed: int) -> list[np.ndarray]:
    """The clip itself, mirrored left to right if `flip`, then `crops` random crops, each the same in all frames.

    Args:
        frames_thwc: (T, H, W, 3).
        seed: of the places of the crops, uniform over the frame; of one seed always the same.

    Returns: views of frames_thwc, (T, H, W, 3) or, of a crop, (T, 0.9 H, 0.9 W, 3), rounded.
    """
    _, height, width, _ = frames_thwc.shape
    crop_height, crop_width = round(CROP_SIDE * height), round(CROP_SIDE * width)
    copies = [frames_thwc, *([frames_thwc[:, :, ::-1]] if flip else [])]
    rng = np.random.default_rng(seed)
    for _ in range(crops):
        top = rng.integers(height - crop_height, endpoint=True)
        left = rng.integers(width - crop_width, endpoint=True)
        copies.append(frames_thwc[:, top : top + crop_height, left : left + crop_width])
    return copies


def to_video(frames_thwc: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8 → (3, T, H, W) float32 in [-1, 1]."""
    return frames_thwc.transpose(3, 0, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_frames(video_cthw: np.ndarray) -> np.ndarray:
    """float (3, T, H, W) in [-1, 1] → uint8 (T, H, W, 3) in [0, 255], rounded; values outside are clipped."""
    scaled = (np.clip(video_cthw, -1, 1) + 1) * 127.5
    return np.ascontiguousarray(np.rint(scaled).astype(np.uint8).transpose(1, 2, 3, 0))


def _checked(frames_thwc: np.ndarray) -> np.ndarray:
    if frames_thwc.dtype != np.uint8 or frames_thwc.ndim != 4 or frames_thwc.shape[3] != 3:
        raise Refusal(f"uint8 (T, H, W, 3) is needed, got {frames_thwc.dtype} {frames_thwc.shape}")
    return frames_thwc


def _subsample(frames_thwc: np.ndarray, count: int) -> np.ndarray:
    steps, gaps = len(frames_thwc) - 1, count - 1
    if count == 1 == len(frames_thwc):
        return frames_thwc
    if gaps < 1 or steps % gaps or steps < gaps:
        raise Refusal(f"{len(frames_thwc)} frames cannot be sub-sampled evenly to {count} with both ends kept")
    return frames_thwc[:: steps // gaps]


def _resize_corners(frames_thwc: np.ndarray, height: int, width: int) -> np.ndarray:
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


def _resize_opencv(frames_thwc: np.ndarray, height: int, width: int) -> np.ndarray:
    """As cv2.resize makes uint8 of uint8: centres at half pixels, weights of 11 bits, what is small cut off twice."""
    if frames_thwc.shape[1:3] == (height, width):
        return np.ascontiguousarray(to_video(frames_thwc))
    low, high, near, far = _opencv_weights(frames_thwc.shape[2], width)
    columns = frames_thwc[:, :, low] * near[:, None] + frames_thwc[:, :, high] * far[:, None]  # int32
    low, high, near, far = _opencv_weights(frames_thwc.shape[1], height)
    columns >>= 4
    above = columns[:, low] * near[:, None, None] >> 16
    below = columns[:, high] * far[:, None, None] >> 16
    return np.ascontiguousarray(to_video(((above + below + 2) >> 2).astype(np.uint8)))


def _opencv_weights(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each of `size` pixels the two of `length` that it lies between, and their weights in 2048ths, int32."""
    at = ((np.arange(size) + 0.5) * (1 / (size / length)) - 0.5).astype(np.float32)
    low = np.floor(at)
    far = at - low
    weights = (np.rint(weight * np.float32(2048)).astype(np.int32) for weight in (1 - far, far))
    places = (np.clip(low + step, 0, length - 1).astype(np.intp) for step in (0, 1))
    return (*places, *weights)

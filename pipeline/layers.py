"""What a user draws, edits or cuts out for a trained video or image: layers, masks and painted key frames.

A layer is read just as a video or image to train on is, so that what was not edited has the same colours.
"""

import os
import re
from pathlib import Path

import numpy as np

from infra.errors import counted, printable
from pipeline import image, video
from pipeline.video.errors import video_error
from pipeline.video.frames import files_of

_DRAWINGS = image.IMAGE_SUFFIXES | image.OTHER_SUFFIXES | {".gif", ".apng"}  # what cannot be read says so
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue: luma by ITU-R BT.601; the sum is 1


def read_layer(
    path: str | os.PathLike[str],
    *,
    num_frames: int | None,
    fps: float | None,
    max_height: int | None,
    start_frame: int = 0,
) -> np.ndarray:
    """An image, or frames of a video or of a folder of numbered images, with their alpha.

    Args:
        path: an image; a folder of numbered images, each a frame as it is; or a video. These have an alpha channel that
            is read: png, apng, gif, webp and tif; mov of qtrle, ProRes 4444 or png; webm of VP8 or VP9.
        num_frames: how many frames of a video or folder are read; None: all. An image is one frame in any case.
        fps: frames a second that a video is brought to, as `video.decode` does; None: each picture is one frame.
        max_height: px; what is higher is shrunk to it with its aspect kept. None: as it is.
        start_frame: the first that is read of a video or folder, counted at `fps`.

    Returns: uint8 (T, H, W, 4) RGBA, upright, 0 to 255. T is 1 for an image, whose ICC profile is applied. Alpha is
        straight (the colours are not multiplied by it): 0 is transparent, 255 is opaque. It is 255 where the file has
        none.
    Raises: VideoError, one line with file, cause and mend, for what cannot be read, is damaged before the last frame,
        or has fewer frames than `num_frames` from the first on; ValueError for numbers out of range.
    """
    if (num_frames is not None and num_frames < 1) or (max_height is not None and max_height < 1):
        raise ValueError(
            f"num_frames >= 1 and max_height >= 1 are needed, got num_frames={num_frames}, max_height={max_height}"
        )
    if image.is_image(path):
        return image.read_rgba(path, max_height)
    if num_frames is not None:
        _check_length(path, start_frame, num_frames, fps)
    return video.decode(
        path, start_frame=start_frame, num_frames=num_frames, fps=fps, max_height=max_height, alpha=True
    )


def read_mask(
    path: str | os.PathLike[str],
    *,
    num_frames: int | None,
    fps: float | None,
    max_height: int | None,
    start_frame: int = 0,
) -> np.ndarray:
    """Where a video changes: white is where it does, black is where it does not.

    It is the gray level, of colours the luma, 0.299 red + 0.587 green + 0.114 blue; what is transparent is black.

    Args: as of `read_layer`.

    Returns: uint8 (T, H, W), 0 to 255. T is 1 for an image.
    Raises: as `read_layer` does.
    """
    layer_thwc = read_layer(path, num_frames=num_frames, fps=fps, max_height=max_height, start_frame=start_frame)
    return np.stack(
        [np.rint((frame_hwc[..., :3] @ _GRAY) * (frame_hwc[..., 3] / 255)).astype(np.uint8) for frame_hwc in layer_thwc]
    )


def read_keyframes(folder: str | os.PathLike[str], max_height: int | None = None) -> dict[int, np.ndarray]:
    """The drawings in a folder, each by the frame that it is for: the last number in its name.

    `0.png`, `006.png` and `frame_12.png` are for the frames 0, 6 and 12; the first frame is 0. Hidden files, and files
    that are no images by their names, are left out.

    Args: max_height: px; what is higher is shrunk to it with its aspect kept. None: as it is.

    Returns: the drawings in ascending order of their frames, all of one size: uint8 (H, W, 4) RGBA as of `read_layer`.
    Raises: VideoError as `keyframe_files` does, for drawings of different sizes, and for one that cannot be read.
    """
    files = keyframe_files(folder)
    drawings: dict[int, np.ndarray] = {}
    first = min(files)
    for frame in files:
        (drawings[frame],) = image.read_rgba(files[frame], max_height)
        (height, width, _), (first_height, first_width, _) = drawings[frame].shape, drawings[first].shape
        if (height, width) != (first_height, first_width):
            cause = f"is {height}×{width} px (H×W) but {printable(files[first].name)} is {first_height}×{first_width}"
            raise video_error(files[frame], cause, "give all drawings of a folder the same size")
    return drawings


def keyframe_files(folder: str | os.PathLike[str]) -> dict[int, Path]:
    """The files of `read_keyframes`, by ascending frames.

    Raises: VideoError, one line with file, cause and mend, for a folder that cannot be listed or holds no image, for a
        name without a number, and for two drawings of one frame.
    """
    files: dict[int, Path] = {}
    for file in files_of(folder, _DRAWINGS):
        numbers = re.findall(r"\d+", file.stem)
        if not numbers:
            mend = "name it by the frame that it is for, such as 12.png"
            raise video_error(file, "has no number in its name", mend)
        if other := files.get(frame := int(numbers[-1])):
            raise video_error(file, f"is for frame {frame}, as {printable(other.name)} is", "keep one of the two")
        files[frame] = file
    if not files:
        raise video_error(folder, "holds no images", "put drawings there, named by their frames, such as 12.png")
    return dict(sorted(files.items()))


def _check_length(path: str | os.PathLike[str], start_frame: int, num_frames: int, fps: float | None) -> None:
    """Raises: VideoError for a video or folder of fewer frames than are needed."""
    there = video.count_frames(video.probe(path), fps)
    if there >= start_frame + num_frames:
        return
    frames = counted(there, "frame")
    needed = f"{num_frames} are needed" + (f" from frame {start_frame} on" if start_frame else "")
    if os.path.isdir(path):
        raise video_error(path, f"has {frames}, {needed}", "add the missing images")
    at = f" at {fps:g} FPS" if fps else ""
    mend = "give a longer video" + (", or an earlier start" if start_frame else "")
    raise video_error(path, f"has {frames}{at}, {needed}", mend)

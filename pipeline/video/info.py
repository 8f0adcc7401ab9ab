"""What a video file, still image or folder of numbered frames is: `probe(path)` -> VideoInfo.

Whatever is refused for its size is refused here, before a frame is decoded.
"""

import codecs
import os
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from pipeline.video import container
from pipeline.video import ffmpeg as command
from pipeline.video.errors import VideoError, read_failure, telling_line, video_error
from pipeline.video.ffmpeg import AnyPath
from pipeline.video.frames import frame_files
from pipeline.video.orientation import UPRIGHT, Orientation, clean_aperture, is_encrypted, of_image, pixel_crop
from pipeline.video.timeline import Timeline, timeline

FOLDER_FPS = 24.0  # a folder of frames has no clock; the paper's rate is taken
COLORS = ("matrix", "primaries", "transfer")
MAX_SIDE_PX = 16384  # stored or displayed
MAX_FRAMES = 24 * 3600 * 24  # a day at 24 FPS


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself. Sizes in pixels as displayed: cropped, with square pixels, turned."""

    path: str
    width: int
    height: int
    fps: float  # average, rounded to 0.01
    duration_s: float  # of the pictures that can be decoded
    rotation_deg: int  # clockwise, already applied to width and height
    has_audio: bool
    pix_fmt: str
    codec: str  # by FFmpeg's name
    has_alpha: bool
    timeline: Timeline = field(repr=False, compare=False)
    stream: int = 0  # the one of the file's that is decoded
    announced_s: float = 0.0  # how long its header says that it lasts; 0: nothing
    unused: float = 0.0  # part of the bytes, of recordings that were joined, of which nothing is read
    has_sure_times: bool = False  # whether every reader of its format gives a picture the same time
    is_counted: bool = False  # whether its container counts packets and tells no picture's time
    is_in_order: bool = False  # whether ffmpeg may give its pictures other times: the one that comes is the next
    crop: tuple[int, int, int, int] | None = None  # width, height, left, top of what is meant to be seen
    orientation: Orientation = UPRIGHT
    interlaced: bool = False  # as its frames say
    field_order: int = 0  # as its container says: 0 unknown, 1 progressive, 2 and 4 top first, 3 and 5 bottom first
    matrix: int = 2  # colours, by the numbers of ITU-T H.273; 2: the file does not say
    primaries: int = 2
    transfer: int = 2


def probe(path: AnyPath) -> VideoInfo:
    """Read a video file's header and the times of its packets; of a folder of numbered frames, the first one's header.

    Raises: VideoError when the path is missing, empty, no video, has sound only, or has frames too large to decode.
    """
    if os.path.isdir(path):
        count = len(files := frame_files(path))
        frames = Timeline.even(Fraction(1, 24), np.arange(count))
        first = probe(files[0])
        return replace(first, path=os.fspath(path), fps=FOLDER_FPS, duration_s=count / FOLDER_FPS, timeline=frames)
    # ffmpeg takes text for speech, subtitles or playlists. A PPM may be text, too.
    if is_text(check_file(path, "a video")) and not command.is_foreign(path):
        raise video_error(path, "is a text file, not a video", "give a video file")
    head, packets = container.read(path)
    messages = "\n".join(head["messages"]).encode()
    if "width" not in head:
        if "audio" not in head:
            raise read_failure(path, messages)
        cause = "has no video stream" + (" (audio only)" if head["audio"] else "")
        raise video_error(path, cause, "give a file with video")
    return _info(path, head, packets, messages)


def _info(path: AnyPath, head: dict[str, Any], packets: np.ndarray, messages: bytes) -> VideoInfo:
    if head["format"].startswith("mov") and is_encrypted(path, head["stream"]):
        raise video_error(path, "is encrypted (DRM)", "give a file without copy protection")
    width, height = head["width"], head["height"]
    is_image = command.is_still(path)
    if not (width and height):
        if is_image and b"Picture size" not in messages:
            raise cut_image(path)
        why = f" ({telling_line(path, messages)})" if messages.strip() else ""
        raise video_error(path, f"does not tell its frame size{why}", "convert it to mp4")
    _check_size(path, width, height)
    cropped = {"mov": clean_aperture, "matroska": pixel_crop}.get(head["format"].split(",")[0])
    crop = cropped(path, head["stream"], width, height) if cropped else None
    orientation = of_image(path) if is_image else Orientation.of_matrix(head["display"])
    seen_width, seen_height = crop[:2] if crop else (width, height)
    size = (max(1, round_half_up(seen_width * Fraction(*head["sar"]))), seen_height)
    displayed = size[::-1] if orientation.turned else size
    _check_size(path, *displayed)
    fps, tick_s = Fraction(*head["fps"]) or Fraction(25), Fraction(*head["tick"])
    frames = timeline(packets, tick_s, fps, may_jump=head["jumps"], complaints=head["complaints"])
    same = {
        name: head[name]
        for name in (
            *("pix_fmt", "codec", "has_alpha", "stream", "announced_s", "unused", "interlaced", "field_order"),
            *COLORS,
        )
    }
    return VideoInfo(
        path=os.fspath(path),
        width=displayed[0],
        height=displayed[1],
        fps=round(float(fps), 2),
        duration_s=round(float(frames.end * frames.tick_s), 6),
        rotation_deg=orientation.rotation_deg,
        has_audio=head["audio"],
        timeline=frames,
        has_sure_times=head["format"].startswith(("mov", "matroska")) and not head["in_order"],
        is_counted=head["format"] == "avi",
        is_in_order=head["in_order"],
        crop=crop,
        orientation=orientation,
        **same,
    )


def cut_image(path: AnyPath) -> VideoError:
    return video_error(path, "is an image that ffmpeg cannot read to its end", "copy or export it again")


def _check_size(path: AnyPath, width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE_PX or width * height > command.MAX_PIXELS:
        most = f"{MAX_SIDE_PX} a side and {command.MAX_PIXELS} in all are the most"
        raise video_error(path, f"has frames of {height}×{width} px (H×W), {most}", "give a smaller video")


def shrunk(width: int, height: int, max_height: int | None) -> tuple[int, int]:
    """Width and height of frames that are shrunk to `max_height` where they are higher. None: as they are."""
    if max_height is None or height <= max_height:
        return width, height
    return max(1, round_half_up(Fraction(width * max_height, height))), max_height


def round_half_up(value: float | Fraction) -> int:
    """Nearest integer, halves up; for value >= 0."""
    return int(value + Fraction(1, 2))


def check_file(path: AnyPath, what: str) -> bytes:
    """The first 4096 bytes of a file that should be `what`, "a video". Raises: VideoError if it cannot be opened."""
    try:
        size_bytes = os.stat(path).st_size
        if not os.path.isfile(path):  # opening a pipe would wait for its other end
            raise video_error(path, "is not a regular file", f"give {what} file or a folder")
        with open(path, "rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        raise video_error(path, "no such file", "check the path") from None
    except PermissionError:
        raise video_error(path, "may not be read (permission denied)", "change its permissions") from None
    except VideoError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        cause = getattr(error, "strerror", None) or str(error)
        raise video_error(path, f"cannot be opened ({cause})", "check the path") from None
    if size_bytes == 0:
        raise video_error(path, "is empty (0 bytes)", "copy it again")
    return head


def is_text(head: bytes) -> bool:
    """Whether a file that begins so is a text file, in UTF-8."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # a last character may be cut in two
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\t\r\n\f" for c in text)

"""Video files, still images and folders of frames -> uint8 RGB or RGBA arrays.

A video is decoded in one pass (one_pass.py). A clip is damaged where one of its pictures does not come, or where what
it is made of cannot be decoded without an error (soundness.py). What else ffmpeg complains of is only a reason to look
closely.
"""

import contextlib
import math
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import numpy as np

from infra.errors import counted
from pipeline.video import ffmpeg as command
from pipeline.video import one_pass, picture
from pipeline.video.errors import VideoError, video_error
from pipeline.video.ffmpeg import AnyPath
from pipeline.video.frames import frame_files, frame_notes
from pipeline.video.info import MAX_FRAMES, VideoInfo, cut_image, probe, shrunk
from pipeline.video.output import Output, Wanted
from pipeline.video.soundness import Soundness

MAX_CLIP_BYTES = 2 << 30  # in memory; 13 frames of 8K RGB have 1.2 GiB
MISSING_S = 1.0  # by which a video may be shorter than it says
MAX_UNUSED = 0.1  # of a recording's bytes, behind its last picture


def count_frames(info: VideoInfo, fps: float | None = 24.0) -> int:
    """How many frames `decode(info.path, fps=fps)` gives of a sound file. Raises: VideoError for more than MAX_FRAMES.

    Args: fps: None: each picture of the file is one frame, as in folders of frames in any case.
    """
    frames = info.timeline.count(_rate(info.path, fps))
    if frames > MAX_FRAMES:
        at = f" at {fps:g} FPS" if fps else ""
        raise video_error(info.path, f"has {frames} frames{at}, {MAX_FRAMES} are the most", "cut it into parts")
    return frames


def notes(info: VideoInfo) -> Iterator[str]:
    """What is to be said of a video that can be used, one line each."""
    if os.path.isdir(info.path):
        yield from frame_notes(info.path)
    if info.announced_s > info.duration_s + MISSING_S and not info.timeline.part[-1:].any():
        there = f"says that it lasts {info.announced_s:.1f} s, and {info.duration_s:.1f} s can be decoded"
        yield str(video_error(info.path, there, "copy it again if it is cut off"))
    if info.unused > MAX_UNUSED:
        cause = f"holds no picture of the stream that is used in its last {100 * info.unused:.0f} %"
        yield str(video_error(info.path, cause, "copy it again if it is damaged; cut recordings that were joined"))
    if (picture.is_hdr(info) or picture.is_wide(info)) and not picture.can_tone_map():
        kind = "HDR" if picture.is_hdr(info) else "of a wide gamut"
        cause = f"is {kind}, and this ffmpeg cannot turn its colours into those of SDR"
        yield str(video_error(info.path, f"{cause}: they will be pale", "use an ffmpeg with zscale (libzimg)"))


def decode(
    path: AnyPath,
    *,
    start_frame: int = 0,
    num_frames: int | None = None,
    fps: float | None = 24.0,
    max_height: int | None = None,
    alpha: bool = False,
) -> np.ndarray:
    """Frames of a video, resampled to `fps`, as displayed: rotated, with square pixels.

    Args:
        path: video file, still image, or folder of numbered frames (one file = one frame, whatever `fps`).
        start_frame, num_frames: counted in resampled frames; the result equals a slice of the whole decode.
        fps: None: each picture of the file is one frame.
        max_height: pixels; a higher video is shrunk to it with its aspect kept, a lower one is left alone.
        alpha: whether the alpha channel is given too.

    Returns: (T, H, W, 3) uint8 RGB, C-contiguous. Gray becomes three equal channels. What is transparent is laid
        on white, but alpha of an AVI or of HDR is dropped. With `alpha`: (T, H, W, 4) uint8 RGBA, straight alpha from
        0, transparent, to 255, which it is where the file has none.
    Raises: VideoError, also when fewer than `num_frames` are there, and for damage before the last frame, which ffmpeg
        covers with repeated or smeared ones; ValueError for numbers out of range.
    """
    _check(start_frame, num_frames or 1, fps, max_height)
    count = num_frames or max(1, count_frames(probe(path), fps) - start_frame)
    (clip,) = decode_each(path, [start_frame], num_frames=count, fps=fps, max_height=max_height, alpha=alpha)
    if isinstance(clip, Damaged) and num_frames is None:
        raise video_error(path, f"is damaged at {clip.end_s:.1f} s or before", "copy or export it again")
    if isinstance(clip, VideoError):
        raise clip
    return clip


def decode_each(
    path: AnyPath,
    starts: Sequence[int],
    *,
    num_frames: int,
    fps: float | None = 24.0,
    max_height: int | None = None,
    alpha: bool = False,
) -> Iterator["np.ndarray | VideoError"]:
    """The clips that begin at each of `starts` (ascending), in one pass over the video and one clip's memory.

    Each item is what `decode` of that clip returns, or the VideoError that it raises: a Damaged where a picture of the
    clip, or one that it is decoded from, is gone or hurt, which ffmpeg would cover with repeated or smeared frames.
    What is lost without a trace, such as a packet of a format that says nothing of lengths, is not seen.
    """
    _check(min(starts, default=0), num_frames, fps, max_height)
    if list(starts) != sorted(starts):
        raise ValueError(f"starts must ascend, got {list(starts)}")
    waiting = deque(starts)
    try:
        if waiting:
            yield from _clips(path, waiting, num_frames, Wanted(fps, max_height, alpha))
    except VideoError as error:
        yield from (error for _ in waiting)


def _clips(path: AnyPath, waiting: deque[int], num_frames: int, wanted: Wanted) -> Iterator["np.ndarray | VideoError"]:
    """Takes clips off `waiting` as they come."""
    info = probe(path)
    due = info.timeline.due(_rate(path, wanted.fps))
    width, height = shrunk(info.width, info.height, wanted.max_height)
    _check_memory(path, (height, width, 3 + wanted.alpha), num_frames)
    numbers = range(waiting[0], min(waiting[-1] + num_frames, len(due)))
    soundness = Soundness(info)
    window: deque[np.ndarray] = deque(maxlen=num_frames)
    shown = (
        _folder(info, numbers, wanted)
        if os.path.isdir(path)
        else one_pass.frames(info, due, numbers, wanted, soundness)
    )
    with contextlib.closing(shown):
        for seen, frame in enumerate(shown, numbers.start + 1):
            window.append(frame)
            while waiting and waiting[0] + num_frames == seen:
                start = waiting.popleft()
                first, last = int(due[start]), int(due[seen - 1])
                is_sound = soundness.of(first, last, info.timeline.is_held(seen - 1, last, wanted.fps))
                yield np.stack(list(window)) if is_sound else Damaged(start, num_frames, wanted.fps or info.fps, path)
    while waiting:
        start = waiting.popleft()
        whole = start + num_frames <= len(due)
        yield (
            Damaged(start, num_frames, wanted.fps or info.fps, path)
            if whole
            else _too_short(path, len(due), start, num_frames, wanted.fps)
        )


class Damaged(VideoError):
    """A clip that cannot be decoded as it was, in a file of which other parts can."""

    def __init__(self, start_frame: int, num_frames: int, fps: float, path: AnyPath) -> None:
        self.start_s, self.end_s = start_frame / fps, (start_frame + num_frames) / fps
        super().__init__(str(damage(path, self.start_s, self.end_s, 1)))


def damage(path: AnyPath, start_s: float, end_s: float, clips: int) -> VideoError:
    """The one line that tells of a damaged part of a video."""
    what = "the clip" if clips == 1 else counted(clips, "clip")
    cause = f"is damaged between {start_s:.1f} s and {end_s:.1f} s, where {what} cannot be decoded"
    return video_error(path, cause, "copy or export it again; what is before and after is used")


def _rate(path: AnyPath, fps: float | None) -> float | None:
    return None if os.path.isdir(path) else fps


def _check(start_frame: int, num_frames: int, fps: float | None, max_height: int | None) -> None:
    is_rate = fps is None or 0 < fps < 1e6
    if start_frame < 0 or num_frames < 1 or not is_rate or (max_height is not None and max_height < 1):
        raise ValueError(
            f"start_frame >= 0, num_frames >= 1, fps > 0 and max_height >= 1 are needed, got "
            f"start_frame={start_frame}, num_frames={num_frames}, fps={fps}, max_height={max_height}"
        )


def _too_short(path: AnyPath, total: int, start_frame: int, needed: int, fps: float | None) -> VideoError:
    there = f"has only {counted(total, 'frame')}" + (f" at {fps:g} FPS" if fps else "")
    cause = f"{there}, and {needed} from frame {start_frame} on are needed"
    return video_error(path, cause, "give a longer video or an earlier start")


def _check_memory(path: AnyPath, shape: tuple[int, int, int], count: int) -> None:
    if math.prod(shape) * count > MAX_CLIP_BYTES:
        height, width, _ = shape
        cause = f"{counted(count, 'frame')} of {height}×{width} px (H×W) are more than {MAX_CLIP_BYTES >> 30} GiB"
        raise video_error(path, cause, "take fewer frames or a smaller max_height")


def _folder(info: VideoInfo, numbers: range, wanted: Wanted) -> Generator[np.ndarray, None, None]:
    """Frames of a folder, one by one. Raises: VideoError for one that has another size or cannot be read."""
    for file in frame_files(info.path)[numbers.start : numbers.stop]:
        yield _image(file, info, wanted)


def decode_stored(path: AnyPath) -> np.ndarray:
    """The pixels of an image file as they are stored, not turned: uint8 (H, W, 4) RGBA. Raises: VideoError."""
    info = probe(path)
    width, height = (info.height, info.width) if info.orientation.turned else (info.width, info.height)
    node = command.input_node(path, noautorotate=None)["V:0"].filter("scale", width, height)
    node = node.output("pipe:1", format="rawvideo", pix_fmt="rgba", frames=1)
    done = command.run(Path(path), command.ffmpeg_args(path, node), max_bytes=width * height * 4)
    if done.returncode or len(done.stdout) != width * height * 4:
        raise cut_image(path)
    return np.frombuffer(done.stdout, np.uint8).reshape(height, width, 4)


def _image(file: Path, first: VideoInfo, wanted: Wanted) -> np.ndarray:
    info = probe(file)
    if (info.width, info.height) != (first.width, first.height):
        cause = f"is {info.height}×{info.width} px (H×W) but the first frame is {first.height}×{first.width}"
        raise video_error(file, cause, "give all frames of a folder the same size")
    given = Output(info, wanted)
    node = given.output(command.input_node(file, noautorotate=None)["V:0"], frames=1)
    done = command.run(file, command.ffmpeg_args(file, node), max_bytes=given.size)
    if done.returncode or len(done.stdout) != given.size:
        raise cut_image(file)
    return given.frame(done.stdout)

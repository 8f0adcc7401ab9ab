"""uint8 RGB arrays -> mp4, mkv and gif files."""

import math
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import printable
from infra.files import commit, remove_leftovers, temporary_beside
from pipeline.video import ffmpeg as command
from pipeline.video.errors import VideoError, telling_line, video_error
from pipeline.video.ffmpeg import AnyPath

ENCODED_SUFFIXES = (".mp4", ".mkv", ".gif")


def encode(frames_thwc: np.ndarray, path: AnyPath, fps: float = 24.0, *, least_s: float = 0.0) -> None:
    """Write frames as .mp4 (H.264 that browsers play), .mkv (FFV1, to the bit) or .gif (looping, its own palette).

    Args:
        frames_thwc: (T, H, W, 3) uint8 RGB, T >= 1.
        least_s: seconds that an mp4 of several frames plays at least: it has as many whole rounds of them.

    Everything else as `writing`.
    """
    _check(frames_thwc)
    rounds = max(1, math.ceil(least_s * fps / len(frames_thwc))) if len(frames_thwc) > 1 else 1
    with writing(path, *frames_thwc.shape[1:3], fps=fps, rounds=rounds) as write:
        write(frames_thwc)


@contextmanager
def writing(
    path: AnyPath, height: int, width: int, *, fps: float = 24.0, rounds: int = 1
) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that takes the next frames of a .mp4, .mkv or .gif: (t, height, width, 3) uint8 RGB, t >= 1.

    >>> with writing("out.mp4", 256, 1024) as write:
    ...     for frames_thwc in made:
    ...         write(frames_thwc)

    Args:
        height, width: px; odd sizes grow by one repeated edge line in mp4.
        fps: frames a second; a GIF counts in 0.01 s, so 24 becomes 25.
        rounds: how often an mp4 has all its frames, one round behind the other; they are encoded once.

    An mp4 or mkv is encoded as it comes; a GIF's palette needs all frames, which ffmpeg keeps. The file appears under
    its name only when the block ends, and not if it raises. Raises: ValueError for anything else than the above;
    VideoError when ffmpeg cannot write.
    """
    path = Path(path)
    if path.suffix.lower() not in ENCODED_SUFFIXES:
        cause = f"unknown suffix {printable(path.suffix.lower())!r}"
        raise ValueError(f"{printable(path)}: {cause}; write .mp4, .mkv or .gif")
    if not 0 < fps < 1e6 or min(height, width) < 1:
        raise ValueError(f"fps > 0 and a size > 0 are needed, got {fps} and {height}x{width}")
    odd_h, odd_w = (height % 2, width % 2) if path.suffix.lower() == ".mp4" else (0, 0)  # 4:2:0 wants even sizes
    written = False
    remove_leftovers(path)
    with temporary_beside(path) as temporary, temporary_beside(path) as repeated:
        args = command.ffmpeg_args(temporary, _graph(path.suffix.lower(), height + odd_h, width + odd_w, fps))
        with command.Running(path, args, timeout_s=command.COMMAND_TIMEOUT_S, stdin=subprocess.PIPE) as running:

            def failed() -> VideoError:
                running.wait()
                return _unwritten(path, temporary, bytes(running.messages))

            def write(frames_thwc: np.ndarray) -> None:
                nonlocal written
                _check(frames_thwc)
                if frames_thwc.shape[1:3] != (height, width):
                    raise ValueError(f"frames of {height}x{width} are needed, got {frames_thwc.shape}")
                padded = np.pad(frames_thwc, ((0, 0), (0, odd_h), (0, odd_w), (0, 0)), mode="edge")
                if not running.write(padded.reshape(-1).data):
                    raise failed()
                written = True

            yield write
            if not written:
                raise ValueError(f"{printable(path)}: no frames were given")
            if running.wait():
                raise failed()
        if rounds > 1 and path.suffix.lower() == ".mp4":
            done = command.run(path, command.ffmpeg_args(repeated, _rounds(temporary, rounds)))
            if done.returncode:
                raise _unwritten(path, repeated, done.stderr)
            temporary = repeated
        commit(temporary, path)


def _unwritten(path: Path, temporary: Path, messages: bytes) -> VideoError:
    """What ffmpeg said when it could not write the file that was to become `path`."""
    line = telling_line(temporary, messages)
    mend = "install an ffmpeg that has it" if "Unknown encoder" in line else "check folder and free space"
    return video_error(path, f"ffmpeg could not write it ({line})", mend)


def _check(frames_thwc: np.ndarray) -> None:
    if frames_thwc.dtype != np.uint8 or frames_thwc.ndim != 4 or frames_thwc.shape[3] != 3 or not frames_thwc.size:
        raise ValueError(f"uint8 (T, H, W, 3) is needed, got {frames_thwc.dtype} {frames_thwc.shape}")


def _rounds(path: Path, rounds: int) -> Any:
    """An mp4 as it is, so many times."""
    import ffmpeg

    once = ffmpeg.input(command.url(path), f="mp4", stream_loop=rounds - 1)
    return once.output(command.FILE, c="copy", format="mp4", movflags="+faststart")


def _graph(suffix: str, height: int, width: int, fps: float) -> Any:
    """What ffmpeg does with raw frames on its stdin."""
    import ffmpeg

    raw = ffmpeg.input("pipe:0", f="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=fps)
    if suffix == ".mp4":
        # Named colours, since players guess differently for files that do not say.
        bt709 = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv"}
        # veryfast takes half the time of the default, for files as large at the same crf.
        x264 = {"vcodec": "libx264", "preset": "veryfast", "crf": 14, "pix_fmt": "yuv420p"}
        return raw.filter(
            "scale", out_color_matrix="bt709", out_range="tv", flags="accurate_rnd+full_chroma_inp"
        ).output(command.FILE, format="mp4", movflags="+faststart", **x264, **bt709)
    if suffix == ".mkv":
        return raw.output(command.FILE, format="matroska", vcodec="ffv1", pix_fmt="bgr0")
    split = raw.split()
    palette = split[0].filter("palettegen")
    return ffmpeg.filter([split[1], palette], "paletteuse").output(command.FILE, format="gif", loop=0)

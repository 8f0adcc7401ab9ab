"""Video files and folders of frames <-> uint8 RGB arrays. The only file that runs ffmpeg.

Everything works with the system's ffmpeg or, without one, the binary inside imageio-ffmpeg's wheel. That
wheel has no ffprobe, so `probe` can also read the header that ffmpeg prints; both give the same VideoInfo.
Commands are put together by ffmpeg-python and run here, because its own runners take neither a closed stdin
nor a time limit. A path is always passed as `file:PATH` with only the file protocol allowed: a name that
begins with '-' or reads like 'concat:' is a file name and nothing else.
"""

import codecs
import os
import re
import select
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.header import (
    Header,
    VideoError,
    from_ffmpeg,
    from_ffprobe,
    read_failure,
    round_half_up,
    shown,
    telling_line,
    video_error,
)

COMMAND_TIMEOUT_S = 600.0  # for a whole command, or for the next frame of a streamed one
FOLDER_FPS = 24.0  # a folder of frames has no clock; the paper's rate is taken
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
# These formats turn text into pictures or read other files named inside: none is a video of the user's.
NOT_VIDEO_FORMATS = frozenset({"tty", "hls", "concat", "concatf", "dash", "sdp", "lrc"})

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class VideoInfo:
    """What a header says. Sizes in pixels as displayed: after non-square pixels and rotation metadata."""

    path: str
    width: int
    height: int
    fps: float  # average, rounded to 0.01
    duration_s: float  # of the video stream; 0.0 when the file does not say
    rotation_deg: int  # clockwise, already applied to width and height
    has_audio: bool
    pix_fmt: str


def ffmpeg_exe() -> str:
    """Path of the ffmpeg to use: the first on PATH, else the one in imageio-ffmpeg's wheel."""
    if found := shutil.which("ffmpeg"):
        return found
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


def ffprobe_exe() -> str | None:
    """Path of the ffprobe on PATH, or None."""
    return shutil.which("ffprobe")


def _url(path: AnyPath) -> str:
    return f"file:{os.fspath(path)}"


def _input_options(path: AnyPath) -> dict[str, str]:
    options = {"protocol_whitelist": "file"}
    if Path(path).suffix.lower() in IMAGE_SUFFIXES:
        options |= {"f": "image2", "pattern_type": "none"}  # else '%' in the name is read as a number pattern
    return options


def _input(path: AnyPath) -> Any:
    import ffmpeg

    return ffmpeg.input(_url(path), **_input_options(path))


def _compile(node: Any, loglevel: str = "error") -> list[str]:
    return [ffmpeg_exe(), "-hide_banner", "-nostdin", "-y", "-v", loglevel, *node.get_args()]


def _run(path: AnyPath, args: list[str], stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    feed: Mapping[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    try:
        return subprocess.run(args, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False, **feed)
    except subprocess.TimeoutExpired:
        raise _stalled(path) from None


def _stalled(path: AnyPath) -> VideoError:
    return video_error(path, f"ffmpeg made no progress for {COMMAND_TIMEOUT_S:g} s", "re-encode the file")


def probe(path: AnyPath) -> VideoInfo:
    """Read the header of a video file, of a still image, or of the first of a folder's numbered frames.

    Raises: VideoError when the path is missing, empty, no video, or has sound only.
    """
    if Path(path).is_dir():
        files = frame_files(path)
        return replace(probe(files[0]), path=os.fspath(path), fps=FOLDER_FPS, duration_s=len(files) / FOLDER_FPS)
    _check_file(path)
    header = _header(path)
    if NOT_VIDEO_FORMATS & set(header.formats):
        raise video_error(path, f"is not a video but {header.formats[0]} data", "give a video file")
    if header.pix_fmt is None:
        cause = "has no video stream" + (" (audio only)" if header.has_audio else "")
        raise video_error(path, cause, "give a file with video")
    if not (header.stored_width and header.stored_height):
        raise video_error(path, "does not tell its frame size", "convert it to mp4")
    width, height = header.displayed_size
    duration_s = _packet_duration_s(path) if header.duration_s is None else header.duration_s
    return VideoInfo(
        os.fspath(path),
        width,
        height,
        round(header.fps, 2),
        round(duration_s, 6),
        header.rotation_deg,
        header.has_audio,
        header.pix_fmt,
    )


def _check_file(path: AnyPath) -> None:
    try:
        size_bytes = os.stat(path).st_size
    except FileNotFoundError:
        raise video_error(path, "no such file", "check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        cause = getattr(error, "strerror", None) or str(error)
        raise video_error(path, f"cannot be opened ({cause})", "check the path") from None
    if not Path(path).is_file():
        raise video_error(path, "is not a regular file", "give a video file or a folder")
    if not os.access(path, os.R_OK):
        raise video_error(path, "may not be read (permission denied)", "change its permissions")
    if size_bytes == 0:
        raise video_error(path, "is empty (0 bytes)", "copy it again")
    with open(path, "rb") as file:
        head = file.read(4096)
    if _is_text(head):  # ffmpeg takes text for speech, subtitles or playlists
        raise video_error(path, "is a text file, not a video", "give a video file")


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # a last character may be cut in two
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\t\r\n\f" for c in text)


def _header(path: AnyPath) -> Header:
    import ffmpeg

    exe = ffprobe_exe()
    if exe is None:
        done = _run(path, [ffmpeg_exe(), "-hide_banner", "-nostdin", *_input(path).output("-").get_args()[:-1]])
        header = from_ffmpeg(done.stderr.decode("utf-8", "replace"))
        if header is None:
            raise read_failure(path, done.stderr)
        return header
    try:
        return from_ffprobe(ffmpeg.probe(_url(path), cmd=exe, v="error", **_input_options(path)))
    except ffmpeg.Error as error:
        raise read_failure(path, error.stderr) from None


def _packet_duration_s(path: AnyPath) -> float:
    """Seconds of the video stream, from its packets' own times, without decoding. 0.0 when they have none.

    The printed header rounds to 0.01 s and covers the sound as well, which may be longer than the picture.
    """
    done = _run(path, _compile(_input(path)["V:0"].output("pipe:1", format="framecrc", c="copy")))
    tick_s = re.search(rb"^#tb 0: (\d+)/(\d+)", done.stdout, re.MULTILINE)
    times = re.findall(rb"^0, +-?\d+, +(-?\d+), +(\d+),", done.stdout, re.MULTILINE)
    if not times or not tick_s:
        return 0.0
    ticks = max(int(pts) + int(length) for pts, length in times) - min(int(pts) for pts, _ in times)
    return ticks * int(tick_s[1]) / int(tick_s[2])


def count_frames(info: VideoInfo, fps: float) -> int:
    """How many frames `decode(info.path, fps=fps)` gives: by the header's duration where that settles it.

    Where it does not (none, or a rounded one that ends on half a frame), frames are decoded and counted.
    For a folder it is the number of its files. Raises: VideoError.
    """
    if Path(info.path).is_dir():
        return len(frame_files(info.path))
    frames = info.duration_s * fps
    if frames > 0 and abs(frames % 1 - 0.5) > 0.05:
        return round(frames)
    return _count_by_decoding(info.path, fps)


def _count_by_decoding(path: AnyPath, fps: float) -> int:
    return sum(1 for _ in _frames(path, 0, None, fps, max_height=1))


def decode(
    path: AnyPath,
    *,
    start_frame: int = 0,
    num_frames: int | None = None,
    fps: float = 24.0,
    max_height: int | None = None,
) -> np.ndarray:
    """Frames of a video, resampled to `fps`, as displayed: rotated, with square pixels.

    Args:
        path: video file, still image, or folder of numbered frames (one file = one frame, whatever `fps`).
        start_frame, num_frames: counted in resampled frames; the result equals a slice of the whole decode.
        max_height: pixels; a higher video is shrunk to it with its aspect kept, a lower one is left alone.

    Returns: (T, H, W, 3) uint8 RGB, C-contiguous. Alpha is dropped, gray becomes three equal channels.
    Raises: VideoError, also when fewer than `num_frames` are there; ValueError for numbers out of range.
    """
    if num_frames is not None:
        clip = next(decode_each(path, [start_frame], num_frames=num_frames, fps=fps, max_height=max_height))
        if isinstance(clip, VideoError):
            raise clip
        return clip
    _check(start_frame, 1, fps, max_height)
    frames = list(_frames(path, start_frame, None, fps, max_height))
    if not frames:
        raise _too_short(path, _count_by_decoding(path, fps), start_frame, 1, fps)
    return np.stack(frames)


def decode_each(
    path: AnyPath,
    starts: Sequence[int],
    *,
    num_frames: int,
    fps: float = 24.0,
    max_height: int | None = None,
) -> Iterator["np.ndarray | VideoError"]:
    """The clips that begin at each of `starts` (ascending), in one pass over the video and one clip's memory.

    Each item is what `decode` of that clip returns, or the VideoError that it raises.
    """
    _check(min(starts, default=0), num_frames, fps, max_height)
    if list(starts) != sorted(starts):
        raise ValueError(f"starts must ascend, got {list(starts)}")
    if not starts:
        return
    waiting = deque(starts)
    window: deque[np.ndarray] = deque(maxlen=num_frames)
    seen = 0  # frames from starts[0] on
    try:
        for frame in _frames(path, starts[0], starts[-1] + num_frames - starts[0], fps, max_height):
            window.append(frame)
            seen += 1
            while waiting and waiting[0] + num_frames == starts[0] + seen:
                waiting.popleft()
                yield np.stack(list(window))
    except VideoError as error:
        yield from (error for _ in waiting)
        return
    if waiting:
        total = starts[0] + seen if seen else _count_by_decoding(path, fps)
        yield from (_too_short(path, total, start, num_frames, fps) for start in waiting)


def _check(start_frame: int, num_frames: int, fps: float, max_height: int | None) -> None:
    if start_frame < 0 or num_frames < 1 or not 0 < fps < 1e6 or (max_height is not None and max_height < 1):
        raise ValueError(
            f"start_frame >= 0, num_frames >= 1, fps > 0 and max_height >= 1 are needed, got "
            f"start_frame={start_frame}, num_frames={num_frames}, fps={fps}, max_height={max_height}"
        )


def _too_short(path: AnyPath, total: int, start_frame: int, needed: int, fps: float) -> VideoError:
    there = f"has only {total} frame{'' if total == 1 else 's'} at {fps:g} FPS"
    cause = f"{there}, and {needed} from frame {start_frame} on are needed"
    return video_error(path, cause, "give a longer video or an earlier start")


def _fit(info: VideoInfo, max_height: int | None) -> tuple[int, int, str]:
    """Width, height and scaler: `area` is right for shrinking, bicubic for stretched pixels."""
    if max_height is None or info.height <= max_height:
        return info.width, info.height, "bicubic+accurate_rnd+full_chroma_int"
    width = max(1, round_half_up(Fraction(info.width * max_height, info.height)))
    return width, max_height, "area+accurate_rnd+full_chroma_int"


def _frames(path: AnyPath, start: int, count: int | None, fps: float, max_height: int | None) -> Iterator[np.ndarray]:
    """Frames start .. start + count one by one, each (H, W, 3) uint8; fewer where the video ends."""
    info = probe(path)
    width, height, scaler = _fit(info, max_height)
    if Path(path).is_dir():
        stop = None if count is None else start + count
        for file in frame_files(path)[start:stop]:
            yield _image(file, info, width, height, scaler)
        return
    trim = {"start_frame": start} | ({} if count is None else {"end_frame": start + count})
    node = (
        _input(path)["V:0"]
        .filter("fps", fps=fps)
        .filter("trim", **trim)
        .filter("setpts", "N/FRAME_RATE/TB")  # else the rawvideo writer fills the time before `start` with copies
        .filter("scale", width, height, flags=scaler)
        .output("pipe:1", format="rawvideo", pix_fmt="rgb24")
    )
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(_compile(node), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
        try:
            while raw := _read(path, process, width * height * 3):
                yield np.frombuffer(raw, np.uint8).reshape(height, width, 3)
            if process.wait(COMMAND_TIMEOUT_S):
                stderr.seek(0)
                raise read_failure(path, stderr.read())
        finally:  # also when the caller stops early
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _read(path: AnyPath, process: subprocess.Popen[bytes], size: int) -> bytearray:
    """The next `size` bytes, or nothing at the end (half a last frame is no frame: ffmpeg then says why)."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    raw = bytearray()
    while len(raw) < size:
        if not select.select([fd], [], [], COMMAND_TIMEOUT_S)[0]:
            raise _stalled(path)
        part = os.read(fd, min(size - len(raw), 1 << 20))
        if not part:
            return bytearray()
        raw += part
    return raw


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which "2.png" comes before "10.png"."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def frame_files(folder: AnyPath) -> list[Path]:
    """The numbered images of a folder (1.png .. 10.png, frame_001.jpg ..), in natural order.

    Raises: VideoError when there is none, or two have the same number.
    """
    files = [
        file
        for file in Path(folder).iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES
        and not file.name.startswith(".")
        and re.search(r"\d", file.stem)
        and file.is_file()
    ]
    if not files:
        raise video_error(folder, "holds no numbered frames", "name them 1.png, 2.png, ...")
    files.sort(key=lambda file: (natural_key(file.stem), file.name))
    for before, after in pairwise(files):
        if natural_key(before.stem) == natural_key(after.stem):
            raise video_error(after, f"has the same number as {shown(before.name)}", "keep one of the two")
    return files


def _image(file: Path, first: VideoInfo, width: int, height: int, scaler: str) -> np.ndarray:
    """One frame of a folder; the header printed in passing shows whether its size is the first one's."""
    node = (
        _input(file)["V:0"]
        .filter("scale", width, height, flags=scaler)
        .output("pipe:1", format="rawvideo", pix_fmt="rgb24", frames=1)
    )
    done = _run(file, _compile(node, loglevel="info"))
    header = from_ffmpeg(done.stderr.decode("utf-8", "replace"))
    if header is None:
        raise read_failure(file, done.stderr)
    (w, h), (first_w, first_h) = header.displayed_size, (first.width, first.height)
    if (w, h) != (first_w, first_h):
        cause = f"is {w}x{h} but the first frame is {first_w}x{first_h}"
        raise video_error(file, cause, "give all frames of a folder the same size")
    if done.returncode or len(done.stdout) != width * height * 3:
        raise video_error(file, "is an image that ffmpeg cannot read to its end", "copy or export it again")
    return np.frombuffer(done.stdout, np.uint8).reshape(height, width, 3)


def encode(frames_thwc: np.ndarray, path: AnyPath, fps: float = 24.0) -> None:
    """Write frames as .mp4 (H.264 that browsers play) or .gif (looping, its own palette), by the suffix.

    Args:
        frames_thwc: (T, H, W, 3) uint8 RGB, T >= 1. Odd sizes grow by one repeated edge line in mp4.
        fps: frames a second; a GIF counts in 0.01 s, so 24 becomes 25.

    The file appears under its name only when complete. Raises: ValueError for anything else than the above;
    VideoError when ffmpeg cannot write.
    """
    import ffmpeg

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".mp4", ".gif"):
        raise ValueError(f"{shown(path)}: unknown suffix {shown(suffix)!r}; write .mp4 or .gif")
    if frames_thwc.dtype != np.uint8 or frames_thwc.ndim != 4 or frames_thwc.shape[3] != 3 or not frames_thwc.size:
        raise ValueError(f"uint8 (T, H, W, 3) is needed, got {frames_thwc.dtype} {frames_thwc.shape}")
    if not 0 < fps < 1e6:
        raise ValueError(f"fps > 0 is needed, got {fps}")
    if suffix == ".mp4":  # 4:2:0 colour needs even sizes
        odd_h, odd_w = frames_thwc.shape[1] % 2, frames_thwc.shape[2] % 2
        frames_thwc = np.pad(frames_thwc, ((0, 0), (0, odd_h), (0, odd_w), (0, 0)), mode="edge")
    _, height, width, _ = frames_thwc.shape
    raw = ffmpeg.input("pipe:0", f="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=fps)
    temporary = path.with_name(f".{path.name}.tmp")  # a killed run's leftover is overwritten
    target = _url(temporary)
    if suffix == ".mp4":
        # Named colours, since players guess differently for files that do not say.
        bt709 = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv"}
        node = raw.filter(
            "scale", out_color_matrix="bt709", out_range="tv", flags="accurate_rnd+full_chroma_inp"
        ).output(target, format="mp4", vcodec="libx264", crf=14, pix_fmt="yuv420p", movflags="+faststart", **bt709)
    else:
        split = raw.split()
        palette = split[0].filter("palettegen")
        node = ffmpeg.filter([split[1], palette], "paletteuse").output(target, format="gif", loop=0)
    try:
        done = _run(path, _compile(node), stdin=frames_thwc.tobytes())
        if done.returncode:
            line = telling_line(temporary, done.stderr)
            mend = "install an ffmpeg with libx264" if "Unknown encoder" in line else "check folder and free space"
            raise video_error(path, f"ffmpeg could not write it ({line})", mend)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

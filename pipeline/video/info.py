"""What a video file, still image or folder of numbered frames is, from its header: `probe(path)` -> VideoInfo.

imageio-ffmpeg's wheel has no ffprobe, so the header that ffmpeg prints can be read as well; both give the same.
Whatever is refused for its size is refused here, before a frame is decoded.
"""

import codecs
import json
import os
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from infra.errors import printable
from pipeline.video import ffmpeg as command
from pipeline.video.ffmpeg import IMAGE_SUFFIXES, AnyPath
from pipeline.video.header import Header, VideoError, from_ffmpeg, from_ffprobe, read_failure, telling_line, video_error

FOLDER_FPS = 24.0  # a folder of frames has no clock; the paper's rate is taken
MAX_SIDE_PX = 16384  # stored or displayed
MAX_FRAMES = 24 * 3600 * 24  # a day at 24 FPS
_ENTRIES = (  # all that `from_ffprobe` reads: tags of any length are left out
    "format=format_name,duration:stream=codec_type,pix_fmt,width,height,sample_aspect_ratio,avg_frame_rate,"
    "r_frame_rate,duration:stream_disposition=attached_pic:stream_tags=rotate:stream_side_data=rotation"
)


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


def probe(path: AnyPath) -> VideoInfo:
    """Read the header of a video file, of a still image, or of the first of a folder's numbered frames.

    Raises: VideoError when the path is missing, empty, no video, has sound only, or has frames too large to decode.
    """
    if os.path.isdir(path):
        files = frame_files(path)
        return replace(probe(files[0]), path=os.fspath(path), fps=FOLDER_FPS, duration_s=len(files) / FOLDER_FPS)
    _check_file(path)
    header, messages = _header(path)
    if header.pix_fmt is None:
        cause = "has no video stream" + (" (audio only)" if header.has_audio else "")
        raise video_error(path, cause, "give a file with video")
    if not (header.stored_width and header.stored_height):
        why = f" ({telling_line(path, messages)})" if messages.strip() else ""
        raise video_error(path, f"does not tell its frame size{why}", "convert it to mp4")
    for width, height in ((header.stored_width, header.stored_height), header.displayed_size):
        if max(width, height) > MAX_SIDE_PX or width * height > command.MAX_PIXELS:
            most = f"{MAX_SIDE_PX} a side and {command.MAX_PIXELS} in all are the most"
            raise video_error(path, f"has frames of {width}x{height} pixels, {most}", "give a smaller video")
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
        if not os.path.isfile(path):  # opening a pipe would wait for its other end
            raise video_error(path, "is not a regular file", "give a video file or a folder")
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
    if _is_text(head):  # ffmpeg takes text for speech, subtitles or playlists
        raise video_error(path, "is a text file, not a video", "give a video file")


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # a last character may be cut in two
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\t\r\n\f" for c in text)


def _header(path: AnyPath) -> tuple[Header, bytes]:
    """The header, and what ffprobe or ffmpeg complained about while reading it."""
    exe = command.ffprobe_exe()
    if exe is None:
        args = command.ffmpeg_args(path, command.input_node(path).output("-"), loglevel="info")[:-1]
        done = command.run(path, args, timeout_s=command.HEADER_TIMEOUT_S)
        header = from_ffmpeg(done.stderr.decode("utf-8", "replace"))
        if header is None:
            raise read_failure(path, done.stderr)
        invalid = re.findall(rb"^.*Picture size .*$", done.stderr, re.MULTILINE)  # among much that is no complaint
        return header, b"\n".join(invalid)
    options = [word for name, value in command.input_options(path).items() for word in (f"-{name}", value)]
    args = [exe, "-v", "error", *options, "-show_entries", _ENTRIES, "-of", "json", command.url(path)]
    done = command.run(path, args, timeout_s=command.HEADER_TIMEOUT_S)
    try:
        found = json.loads(done.stdout.decode("utf-8", "replace"))
    except ValueError:
        found = None
    if done.returncode or found is None:
        raise read_failure(path, done.stderr)
    return from_ffprobe(found), done.stderr


def _packet_duration_s(path: AnyPath) -> float:
    """Seconds of the video stream, from its packets' own times, without decoding. 0.0 when they have none.

    The printed header rounds to 0.01 s and covers the sound as well, which may be longer than the picture.
    """
    node = command.input_node(path)["V:0"].output("pipe:1", format="framecrc", c="copy")
    args = command.ffmpeg_args(path, node)
    tick_s, starts, ends, rest = 0.0, [], [], b""
    with command.Running(path, args, timeout_s=command.COMMAND_TIMEOUT_S) as packets:
        while block := packets.read(1 << 16):
            *lines, rest = (rest + block).split(b"\n")
            text = b"\n".join([*lines, b""])
            if tick := re.search(rb"^#tb 0: (\d+)/(\d+)$", text, re.MULTILINE):
                tick_s = int(tick[1]) / int(tick[2])
            times = re.findall(rb"^0, +-?\d+, +(-?\d+), +(\d+),", text, re.MULTILINE)
            if times:  # the first and last of a block are enough to keep
                starts.append(min(int(pts) for pts, _ in times))
                ends.append(max(int(pts) + int(length) for pts, length in times))
    return (max(ends) - min(starts)) * tick_s if starts else 0.0


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which "2.png" comes before "10.png"."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def frame_files(folder: AnyPath) -> list[Path]:
    """The numbered images of a folder (1.png .. 10.png, frame_001.jpg ..), in natural order.

    Raises: VideoError when there is none, two have the same number, or the folder may not be read.
    """
    try:
        files = [
            file
            for file in Path(folder).iterdir()
            if file.suffix.lower() in IMAGE_SUFFIXES
            and not file.name.startswith(".")
            and re.search(r"\d", file.stem)
            and os.path.isfile(file)
        ]
    except OSError as error:
        raise video_error(folder, f"cannot be listed ({error.strerror})", "check the folder") from None
    if not files:
        raise video_error(folder, "holds no numbered frames", "name them 1.png, 2.png, ...")
    files.sort(key=lambda file: (natural_key(file.stem), file.name))
    for before, after in pairwise(files):
        if natural_key(before.stem) == natural_key(after.stem):
            raise video_error(after, f"has the same number as {printable(before.name)}", "keep one of the two")
    return files

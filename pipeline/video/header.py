"""What ffmpeg and ffprobe print, read into one `Header`; what goes wrong with a file, in one line.

Text in, facts out: nothing is run here, so any version's output can be tried on it.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from infra.errors import printable


class VideoError(ValueError):
    """A video cannot be used. `str(e)` is one line: "<file>: <cause>; <mend>"."""


@dataclass(frozen=True)
class Header:
    """A file's header as stored: sizes before rotation and pixel shape are taken into account."""

    formats: tuple[str, ...]  # ffmpeg's names of the container
    has_audio: bool
    pix_fmt: str | None = None  # None: no video stream
    stored_width: int = 0
    stored_height: int = 0
    sar: Fraction = Fraction(1)  # width : height of one pixel
    fps: float = 0.0
    rotation_deg: int = 0  # clockwise
    duration_s: float | None = None  # None: not given for the video stream alone

    @property
    def displayed_size(self) -> tuple[int, int]:
        """(width, height) in pixels: lines kept, width stretched to square pixels, then turned."""
        size = (max(1, round_half_up(self.stored_width * self.sar)), self.stored_height)
        turned = min(abs(self.rotation_deg - 90), abs(self.rotation_deg - 270)) <= 1  # ffmpeg's own limit
        return size[::-1] if turned else size


def video_error(path: str | os.PathLike[str], cause: str, mend: str) -> VideoError:
    """The one line that says which file, what is wrong, and what to do."""
    return VideoError(f"{printable(path)}: {cause}; {mend}")


def round_half_up(value: float | Fraction) -> int:
    """Nearest integer, halves up, as ffmpeg's fps filter rounds times; for value >= 0."""
    return int(value + Fraction(1, 2))


def from_ffprobe(found: Mapping[str, Any]) -> Header:
    """Header from the JSON of `ffprobe -show_format -show_streams`."""
    streams = found.get("streams", [])
    formats = tuple(found.get("format", {}).get("format_name", "unknown").split(","))
    has_audio = any(s.get("codec_type") == "audio" for s in streams)
    stream = next(
        (
            s
            for s in streams  # a song's cover is a video stream too
            if s.get("codec_type") == "video" and not s.get("disposition", {}).get("attached_pic")
        ),
        None,
    )
    if stream is None:
        return Header(formats, has_audio)
    turns = [d["rotation"] for d in stream.get("side_data_list", []) if "rotation" in d]
    clockwise = -_number(turns[0]) if turns else _number(stream.get("tags", {}).get("rotate"))
    duration = stream.get("duration")
    if duration is None and len(streams) == 1:  # Matroska keeps one duration for all streams together
        duration = found.get("format", {}).get("duration")
    return Header(
        formats,
        has_audio,
        stream.get("pix_fmt", "unknown"),
        int(stream.get("width", 0)),
        int(stream.get("height", 0)),
        _fraction(stream.get("sample_aspect_ratio")) or Fraction(1),
        float(_fraction(stream.get("avg_frame_rate")) or _fraction(stream.get("r_frame_rate"))),
        round(clockwise) % 360,
        _number(duration) if duration else None,
    )


def from_ffmpeg(text: str) -> Header | None:
    """Header from what `ffmpeg -i FILE` prints to stderr; None when it could not open the file.

    The printed duration is not used: it is rounded to 0.01 s and covers the sound too, which may outlast the
    picture. Nor is imageio-ffmpeg's parser: it looks for a "rotate" tag that its own ffmpeg no longer prints.
    """
    opened = re.search(r"^Input #0, (\S+), from ", text, re.MULTILINE)
    if not opened:
        return None
    # Outputs have stream lines of their own, further down.
    text = re.split(r"^(?:Output #0|Stream mapping)", text[opened.start() :], maxsplit=1, flags=re.MULTILINE)[0]
    formats = tuple(opened[1].split(","))
    blocks = re.split(r"^(?=\s+Stream #0:\d+)", text, flags=re.MULTILINE)[1:]
    has_audio = any(re.match(r"\s+Stream #0:\d+[^\n]*?: Audio: ", block) for block in blocks)
    videos = [
        (found[1], block)
        for block in blocks
        if (found := re.match(r"\s+Stream #0:\d+[^\n]*?: Video: ([^\n]*)", block)) and "(attached pic)" not in found[1]
    ]
    if not videos:
        return Header(formats, has_audio)
    line, block = videos[0]
    size = re.search(r", (\d+)x(\d+)(?=[ ,]|$)", line)
    sar = re.search(r"SAR (\d+:\d+)", line)
    fps = re.search(r" ([\d.]+)(k?) fps\b", line) or re.search(r" ([\d.]+)(k?) tbr\b", line)
    turn = re.search(r"rotation of (-?[\d.]+) degrees", block)
    fields = re.sub(r"\([^()]*\)|\[[^][]*\]", "", line).split(",")
    return Header(
        formats,
        has_audio,
        fields[1].strip() if len(fields) > 1 else "unknown",
        int(size[1]) if size else 0,
        int(size[2]) if size else 0,
        (_fraction(sar[1]) if sar else Fraction(1)) or Fraction(1),
        _number(fps[1]) * (1000 if fps[2] else 1) if fps else 0.0,
        round(-_number(turn[1])) % 360 if turn else 0,
    )


def read_failure(path: str | os.PathLike[str], stderr: bytes) -> VideoError:
    """The error for a file that ffmpeg or ffprobe could not read."""
    line = telling_line(path, stderr)
    if "not on whitelist" in line:
        return video_error(path, "is in no video format that is read here", "convert it to mp4")
    if b"Cannot allocate memory" in stderr:
        return video_error(path, "needs more memory to be read than is allowed", "re-encode the file")
    if "moov atom not found" in line:
        return video_error(path, "is cut off or was never finished (moov atom not found)", "copy it again")
    return video_error(path, f"is not a video that ffmpeg can read ({line})", "check it, or convert it to mp4")


def telling_line(path: str | os.PathLike[str], stderr: bytes) -> str:
    """Of ffmpeg's lines on `path`, the first that is not about the command itself; no names or addresses."""
    text = stderr.decode("utf-8", "replace").replace(f"file:{os.fspath(path)}", "")
    lines = [re.sub(r"^(\[[^]]*\]\s*)+", "", line).strip(": \r\t") for line in text.splitlines()]
    noise = ("Conversion failed", "Error opening input", "Error opening output", "Nothing was written")
    telling = [x for x in lines if x and not x.startswith(noise) and not x.endswith("misdetection possible!")]
    return printable((telling or lines or ["no reason given"])[0])[:200].rstrip(".")


def _number(text: Any) -> float:
    """The finite number that a header gives as text or number; 0.0 when it says nothing of the kind."""
    try:
        value = float(text)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return value if math.isfinite(value) else 0.0


def _fraction(text: str | None) -> Fraction:
    """The number in "30000/1001" or "4:3"; 0 when it says nothing ("0/0", "N/A")."""
    top, _, bottom = (text or "0").replace(":", "/").partition("/")
    bottom = bottom or "1"
    return Fraction(int(top), int(bottom)) if top.isdecimal() and bottom.isdecimal() and int(bottom) else Fraction(0)

"""Where the frames of a whole file lie in it, found by their bytes: what damage costs is told without a decoder."""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg

WHEEL = imageio_ffmpeg.get_ffmpeg_exe()


@dataclass(frozen=True)
class Stored:
    """One frame. Places are bytes of the file, both ends included."""

    frame: int  # its number as shown, at the rate given to `stored`
    is_key: bool
    after: int  # where the frame stored before it has ended, and what its container says of it may begin
    begin: int
    end: int


def stored(path: Path, fps: int) -> list[Stored]:
    """The frames of a sound file of one video stream, in the order in which they are decoded."""
    copy = [WHEEL, "-v", "error", "-nostdin", "-i", f"file:{path}", "-map", "0:v", "-c", "copy"]
    text = subprocess.run([*copy, "-f", "framecrc", "-"], capture_output=True, check=True).stdout.decode()
    content = subprocess.run([*copy, "-f", "data", "-"], capture_output=True, check=True).stdout
    tick = re.search(r"^#tb 0: (\d+)/(\d+)$", text, re.MULTILINE)
    rows = re.findall(r"^0, +-?\d+, +(\d+), +\d+, +(\d+), 0x\w+(.*)$", text, re.MULTILINE)
    assert tick and rows and sum(int(size) for _, size, _ in rows) == len(content)
    raw = path.read_bytes()
    places: Sequence[int] = range(len(raw)) if path.suffix != ".ts" else _transported(raw)
    carried = bytes(raw[place] for place in places)
    found, taken, searched = [], 0, 0
    for pts, size_text, flags in rows:
        size = int(size_text)
        at = carried.index(content[taken : taken + size], searched)
        taken, searched = taken + size, at + size
        number = round(int(pts) * int(tick[1]) / int(tick[2]) * fps)
        after = found[-1].end + 1 if found else 0
        found.append(Stored(number, "F=0x" not in flags, after, places[at], places[at + size - 1]))
    assert sorted(one.frame for one in found) == list(range(len(found)))
    return found


def _transported(raw: bytes) -> list[int]:
    """Where the bytes of the first stream are in an MPEG transport stream: 188 bytes at a time, behind a header."""
    places: list[int] = []
    for begin in range(0, len(raw), 188):
        sync, first, second, control = raw[begin : begin + 4]
        assert sync == 0x47
        if (first & 0x1F) << 8 | second == 0x100:
            filler = 1 + raw[begin + 4] if control & 0x20 else 0
            places += range(begin + 4 + filler, begin + 188)
    return places


def spoilt(frames: Sequence[Stored], start: int, count: int, begin: int, end: int) -> tuple[bool, bool]:
    """What damage of the bytes begin .. end - 1 does to the clip of `count` frames from `start` on.

    Returns: whether it may be lost: a byte is hit of what is decoded for it, from its key frame to its last frame.
        Whether it must be: all of one of its own frames is overwritten.
    """
    shown = [number for number, one in enumerate(frames) if start <= one.frame < start + count]
    key = max(number for number, one in enumerate(frames) if one.is_key and one.frame <= start)
    decoded = frames[key : max(shown) + 1]
    may_be = any(one.after < end and one.end >= begin for one in decoded)
    return may_be, any(begin <= frames[number].begin and frames[number].end < end for number in shown)

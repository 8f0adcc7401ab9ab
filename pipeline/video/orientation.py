"""How a stored frame is cropped, turned and mirrored to be seen, as its container or its EXIF says."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from pipeline.video.ffmpeg import AnyPath

EXIF_ORIENTATION = 0x0112
Children = Iterator[tuple[bytes | int, tuple[int, int]]]  # kind, and where the content begins and ends


@dataclass(frozen=True)
class Orientation:
    """First mirrored left to right, or not, and then turned clockwise."""

    rotation_deg: int = 0  # 0, 90, 180 or 270
    mirrored: bool = False

    @property
    def turned(self) -> bool:
        """Whether width and height change places."""
        return self.rotation_deg in (90, 270)

    def filters(self) -> list[tuple[str, ...]]:
        """What ffmpeg's filters do it."""
        mirror: list[tuple[str, ...]] = [("hflip",)] if self.mirrored else []
        return mirror + _TURNS[self.rotation_deg]

    @classmethod
    def of_matrix(cls, matrix: Sequence[int] | None) -> "Orientation":
        """Of a display matrix: a, b, c, d in x' = a x + c y, y' = b x + d y with y downwards, each -1, 0 or 1."""
        return UPRIGHT if matrix is None else _BY_MATRIX.get(tuple(matrix), UPRIGHT)


UPRIGHT = Orientation()
_TURNS: dict[int, list[tuple[str, ...]]] = {
    0: [],
    90: [("transpose", "clock")],
    180: [("hflip",), ("vflip",)],
    270: [("transpose", "cclock")],
}
_BY_MATRIX: dict[tuple[int, ...], Orientation] = {
    (0, 1, -1, 0): Orientation(90),
    (-1, 0, 0, -1): Orientation(180),
    (0, -1, 1, 0): Orientation(270),
    (-1, 0, 0, 1): Orientation(0, True),
    (0, -1, -1, 0): Orientation(90, True),
    (1, 0, 0, -1): Orientation(180, True),
    (0, 1, 1, 0): Orientation(270, True),
}
_BY_EXIF = {  # EXIF 2.3, tag Orientation
    2: Orientation(0, True),
    3: Orientation(180),
    4: Orientation(180, True),
    5: Orientation(270, True),
    6: Orientation(90),
    7: Orientation(90, True),
    8: Orientation(270),
}


def of_image(path: AnyPath) -> Orientation:
    """As the EXIF of an image file says; upright where it says nothing that can be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return _BY_EXIF.get(image.getexif().get(EXIF_ORIENTATION, 1), UPRIGHT)
    except Exception:  # of any kind: the picture itself is read by ffmpeg, which says what is wrong with it
        return UPRIGHT


def clean_aperture(path: AnyPath, track: int, width: int, height: int) -> tuple[int, int, int, int] | None:
    """(width, height, left, top) of the part of a QuickTime or MP4 track's frames that is meant to be seen.

    None where it does not say, or says what cannot be. ISO/IEC 14496-12, 12.1.4 ("clap").
    """
    with open(path, "rb") as file:
        begin, end = _descriptions(file, track)
        begin, end = _child(boxes(file, begin, end), end, None)  # the first one
        begin, end = _child(boxes(file, begin + 78, end), end, b"clap")
        file.seek(begin)
        return _crop(struct.unpack(">8i", file.read(32)), width, height) if end - begin >= 32 else None


def is_encrypted(path: AnyPath, track: int) -> bool:
    """Whether a QuickTime or MP4 track can be decoded only with a key. ISO/IEC 14496-12, 8.12."""
    with open(path, "rb") as file:
        begin, end = _descriptions(file, track)
        return any(kind in (b"encv", b"drmi") for kind, _ in boxes(file, begin, end))


def _descriptions(file: BinaryIO, track: int) -> tuple[int, int]:
    """Where the descriptions of a QuickTime or MP4 track's samples begin and end."""
    begin, end = 0, file.seek(0, 2)
    for name, number in ((b"moov", 0), (b"trak", track), (b"mdia", 0), (b"minf", 0), (b"stbl", 0), (b"stsd", 0)):
        begin, end = _child(boxes(file, begin, end), end, name, number)
    return begin + 8, end


def _crop(numbers: Sequence[int], width: int, height: int) -> tuple[int, int, int, int] | None:
    if min(numbers[1::2]) <= 0:
        return None
    wide, high, right, down = (top / bottom for top, bottom in zip(numbers[::2], numbers[1::2]))
    crop = (round(wide), round(high), round((width - wide) / 2 + right), round((height - high) / 2 + down))
    fits = min(crop[:2]) >= 1 and min(crop[2:]) >= 0 and crop[0] + crop[2] <= width and crop[1] + crop[3] <= height
    return crop if fits and crop[:2] != (width, height) else None


def boxes(file: BinaryIO, begin: int, end: int) -> Children:
    """The boxes between two places (bytes) of a QuickTime or MP4 file, up to one that cannot be (ISO/IEC 14496-12)."""
    while begin + 8 <= end:
        file.seek(begin)
        size, found, header = *struct.unpack(">I4s", file.read(8)), 8
        if size == 1:
            size, header = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))[0], 16
        size = size or end - begin
        if size < header or begin + size > end:
            break
        yield found, (begin + header, begin + size)
        begin += size


def _child(children: Children, end: int, kind: bytes | int | None, number: int = 0) -> tuple[int, int]:
    """Begin and end of the content of child `number` of a kind, of any for None; (end, end) if it is not there."""
    return next(islice((place for found, place in children if kind in (None, found)), number, None), (end, end))


def pixel_crop(path: AnyPath, track: int, width: int, height: int) -> tuple[int, int, int, int] | None:
    """(width, height, left, top) of the part of a Matroska track's frames that is meant to be seen.

    None where it does not say, or says what cannot be. RFC 9559, 5.1.4.1.28.8 to 5.1.4.1.28.11.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        begin, end = _child(_elements(file, 0, size), size, _SEGMENT)
        begin, end = _child(_elements(file, begin, end), end, _TRACKS)
        begin, end = _child(_elements(file, begin, end), end, _TRACK, track)
        begin, end = _child(_elements(file, begin, end), end, _VIDEO)
        cut = []
        for name in _PIXEL_CROP:
            first, last = _child(_elements(file, begin, end), end, name)
            file.seek(first)
            cut.append(int.from_bytes(file.read(min(last - first, 8)), "big"))
    left, right, top, bottom = cut
    crop = (width - left - right, height - top - bottom, left, top)
    return crop if any(cut) and min(crop[:2]) >= 1 else None


_SEGMENT, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_PIXEL_CROP = (0x54CC, 0x54DD, 0x54BB, 0x54AA)  # left, right, top, bottom


def _elements(file: BinaryIO, begin: int, end: int) -> Children:
    """The EBML elements between two places of a file (RFC 8794)."""
    while begin < end:
        file.seek(begin)
        found, id_length = _number(file.read(8), keep_marker=True)
        file.seek(begin + id_length)
        size, length = _number(file.read(8), keep_marker=False)
        if not (id_length and length):
            break
        begin += id_length + length
        if size == (1 << 7 * length) - 1:  # unknown, as of a live stream: to the end
            size = end - begin
        yield found, (begin, min(begin + size, end))
        begin += size


def _number(raw: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """A number of variable length, and how many bytes it takes; (0, 0) where there is none."""
    length = 9 - raw[0].bit_length() if raw and raw[0] else 0
    if not 0 < length <= len(raw):
        return 0, 0
    value = int.from_bytes(raw[:length], "big")
    return value if keep_marker else value & ((1 << 7 * length) - 1), length

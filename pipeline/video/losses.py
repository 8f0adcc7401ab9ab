"""Which pictures are torn, or beside others that are gone, by the marks of each format: ffmpeg says nothing of them."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, BinaryIO, Protocol

import numpy as np

from pipeline.video.h264 import FrameNumbers
from pipeline.video.mpeg2 import PictureNumbers
from pipeline.video.orientation import boxes

TS_DISCONT = 0x200  # AVFMT_TS_DISCONT: the clock may jump
MAX_GIF_EXTRA_BYTES = 1 << 16  # of a picture's packet: palette, comments
MIN_NUMBERED = 4  # packets to a gap in the frame numbers of H.264: of more gaps, its encoder does not number well
MXF_KEY = b"\x06\x0e\x2b\x34"  # how the key of each item of an MXF begins
MPEG = ("mpeg1video", "mpeg2video")
SEQUENCE = b"\0\0\1\xb3"  # the header of MPEG-1 and MPEG-2 that begins with the size

AviIndex = Mapping[int, tuple[int, int]]  # time and size of each picture, by its place in the file


class Watch(Protocol):
    """Sees the pictures' packets in the order of storage, and then knows of losses."""

    def see(self, number: int, packet: Any) -> None:
        """Args: number: of the packet, from 0."""

    def lost(self) -> Iterable[int]:
        """Numbers of packets that are torn, or beside others that are gone."""


def watches(path: str, container: Any, stream: Any, index: AviIndex) -> list[Watch]:
    """Those of a stream's format and codec. index: empty of a file that is no AVI."""
    found: list[Watch] = []
    if index:
        found.append(_Avi(path, index))
    if stream.codec_context.name == "h264":
        found.append(_H264(stream.codec_context.extradata))
    if stream.codec_context.name in MPEG:
        found.append(PictureNumbers())
    if container.format.name == "mxf":
        found.append(_Mxf(path))
    if container.format.name == "mpegvideo":
        found.append(_RawMpeg())
    return found


class _Avi:
    """By its index, whose pictures are not all there: the end of the one before may be gone, too."""

    def __init__(self, path: str, index: AviIndex) -> None:
        self._path, self._index = path, index
        self._packets: dict[int, int] = {}  # numbers of packets, by place
        self._seen = 0

    def see(self, number: int, packet: Any) -> None:
        self._seen = number + 1
        if packet.pos in self._index:
            self._packets[packet.pos] = number

    def lost(self) -> Iterable[int]:
        if 2 * len(self._packets) <= self._seen:  # the index is of another file
            return
        before = None
        with open(self._path, "rb") as file:
            for place, (_, size) in self._index.items():
                if size and place not in self._packets and before is not None:
                    file.seek(place - 4)
                    if int.from_bytes(file.read(4), "little") != size:  # else it is there, and no picture: a palette
                        yield before
                before = self._packets.get(place, before)


class _H264:
    """By the numbers that it gives its frames."""

    def __init__(self, extradata: bytes | None) -> None:
        self._numbers = FrameNumbers(extradata)
        self._behind_gaps: list[int] = []
        self._seen = 0

    def see(self, number: int, packet: Any) -> None:
        self._seen = number + 1
        if self._numbers.is_behind_gap(bytes(packet)):
            self._behind_gaps.append(number)

    def lost(self) -> Iterable[int]:
        if len(self._behind_gaps) * MIN_NUMBERED < self._seen:
            for number in self._behind_gaps:
                yield from (number - 1, number)


class _Mxf:
    """By the lengths of its items, each of which leads to the next. Where one holds many pictures, nothing tells."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._places: list[int] = []

    def see(self, number: int, packet: Any) -> None:
        self._places.append(packet.pos or 0)

    def lost(self) -> Iterable[int]:
        with open(self._path, "rb") as file:
            for number, (begin, end) in enumerate(pairwise(self._places)):
                at = begin
                while at < end and (size := _item_bytes(file, at)):
                    at += size
                if begin < at < end:
                    yield number


class _RawMpeg:
    """By the sizes in the headers of a raw MPEG-1 or MPEG-2 stream: at a new one the decoder drops a picture, and those
    behind it move, as they have no times."""

    def __init__(self) -> None:
        self._size = b""
        self._resized: list[int] = []

    def see(self, number: int, packet: Any) -> None:
        if bytes(memoryview(packet)[:4]) == SEQUENCE:
            before, self._size = self._size, bytes(memoryview(packet)[4:7])  # twelve bits each
            if before not in (b"", self._size):
                self._resized.append(number)

    def lost(self) -> Iterable[int]:
        for dropped, number in enumerate(self._resized):
            yield from range(number - 1 - dropped, number)


def _item_bytes(file: BinaryIO, place: int) -> int:
    """Of the key, the length and the value (SMPTE 336) that begin at a place; 0 where none do."""
    file.seek(place)
    key, length = file.read(16), file.read(9)
    if not key.startswith(MXF_KEY) or not length:
        return 0
    more = length[0] & 0x7F if length[0] & 0x80 else 0
    return 17 + more + (int.from_bytes(length[1 : 1 + more], "big") if more else length[0])


def is_torn(container: Any, packet: Any) -> bool:
    """Whether a packet's end is gone. Of formats for broadcasts this is also said where all is well."""
    if container.format.name == "dv":  # which reads on behind the file's end
        return bool(packet.size and packet.pos + packet.size > container.size)
    if container.format.name == "gif":  # which takes all that it does not know for more of the picture
        is_at_end = packet.size and packet.pos + packet.size >= container.size
        has_end = not is_at_end or bytes(packet).endswith(b"\0") or b"\0;" in bytes(packet)
        return not has_end or packet.size > 2 * packet.stream.width * packet.stream.height + MAX_GIF_EXTRA_BYTES
    return bool(packet.is_corrupt) and not container.format.flags & TS_DISCONT


def behind_missing_fragments(path: str) -> list[int]:
    """Where the fragments of an mp4 begin before which others are gone, by their numbers (bytes, ascending)."""
    numbers = {}
    with open(path, "rb") as file:
        for kind, (begin, _) in boxes(file, 0, file.seek(0, 2)):
            if kind == b"moof":
                file.seek(begin)
                numbers[begin] = int.from_bytes(file.read(16)[12:], "big")  # of the box mfhd, which is the first in it
    steps = np.diff(list(numbers.values()))
    return (
        [begin for begin, step in zip(list(numbers)[1:], steps) if step > 1]
        if len(steps) and np.median(steps) == 1
        else []
    )

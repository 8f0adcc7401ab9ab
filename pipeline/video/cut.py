"""Clips beside damage: the packets of one clip are copied into a file of their own, which is decoded by itself.

ffmpeg reads ahead: while a clip's last frames come out, it complains of damage some packets behind them already.
Before a clip it begins at a key frame that is earlier than need be, where the damage may still be. A file that holds
the clip's packets alone, from its key frame to its last frame, leaves no doubt what a complaint is about.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.video import ffmpeg as command
from pipeline.video.ffmpeg import AnyPath
from pipeline.video.header import from_ffmpeg, round_half_up
from pipeline.video.info import VideoInfo, probe

# ffmpeg seeks 3/23 s too early where frames are reordered; the rest is for times that are rounded to 1 ms.
SEEK_LATE_S = (3 / 23 + 0.005, 0.005)
LISTED_BEFORE_S = 5.0  # before a clip, where its key frame is looked for
LISTED_BEHIND_S = 1.0  # behind a clip's last frame: frames that are shown earlier may be stored later
AVI_AHEAD_S = 30.0  # in which another key frame has to be
KEY, CORRUPT = 1, 2  # flags of a packet
_CONTAINERS = {"mov": ("mov", "mp4"), "matroska": ("matroska",)}  # those that keep rotation and colours


@dataclass(frozen=True)
class Packet:
    """One stored frame; times in ticks of its stream, counted from the file's first time."""

    pts: int
    duration: int
    flags: int
    crc: bytes  # of what is stored


@dataclass(frozen=True)
class Listing:
    """The packets of a part of a video, in the order in which they are stored, which is that of decoding."""

    tick_s: Fraction
    packets: Sequence[Packet]
    messages: bytes  # what ffmpeg printed while it read them and a few behind them

    def place(self, pts: Fraction | int, fps: Fraction) -> int:
        """The resampled frame from which on a packet is shown, counted from the file's first time."""
        return round_half_up(max(Fraction(pts), Fraction(0)) * self.tick_s * fps)


@dataclass(frozen=True)
class Cut:
    """Which packets make a clip: `count` from the one that is found by seeking to `seek_s`."""

    seek_s: float
    count: int
    first_pts_s: Fraction  # of the first of them, which is a key frame and the first that is shown
    skipped: int  # resampled frames from that one to the clip's first


class Cutter:
    """The clips of one video at `fps` frames a second, each by its own packets."""

    def __init__(self, path: AnyPath, fps: float) -> None:
        self._path, self._fps = path, Fraction(fps)

    def cut(self, start_frame: int, num_frames: int) -> Cut | None:
        """How to get the clip of these resampled frames; None where packets of it are missing or hurt.

        Raises: VideoError when ffmpeg stalls.
        """
        if self._origin is None:
            return None
        first = self._origin + start_frame
        start_s, length_s = float(first / self._fps), float(num_frames / self._fps) + LISTED_BEHIND_S
        is_late = True
        for late_s in SEEK_LATE_S:
            if listing := self._list(start_s + late_s, length_s):
                if cut := self._plan(listing, start_s + late_s, first, num_frames):
                    return cut
                is_late &= listing.place(listing.packets[0].pts, self._fps) > first
        # Some formats are sought by place, and ffmpeg then takes the next key frame: it has to be told of the last one.
        before = self._list(max(0.0, start_s - LISTED_BEFORE_S), LISTED_BEFORE_S + 1) if is_late else None
        if key := before and key_before(before, first, self._fps):
            key_s = float(key.pts * before.tick_s)
            for late_s in SEEK_LATE_S:
                listing = self._list(key_s + late_s, length_s + start_s - key_s)
                if listing and (cut := self._plan(listing, key_s + late_s, first, num_frames)):
                    return cut
        return None

    def ends_before(self, start_frame: int) -> bool:
        """Whether nothing that ffmpeg can find is at this resampled frame or behind it. Raises: as `cut`."""
        if self._origin is None or self._beginning is None:
            return True
        first, block = self._origin + start_frame, b""
        node = _listing_node(self._path, ss=f"{float(first / self._fps):.6f}", copyts=None, start_at_zero=None)
        args = command.ffmpeg_args(self._path, node)
        with command.Running(self._path, args, timeout_s=command.COMMAND_TIMEOUT_S) as running:
            while more := running.read(1 << 16):
                block = block[-200:] + more  # a line may be in two blocks
                found = Listing(self._beginning.tick_s, _packets(block), b"")
                if any(found.place(packet.pts, self._fps) >= first for packet in found.packets):
                    return False
        return True

    def _plan(self, listing: Listing, seek_s: float, first: int, num_frames: int) -> Cut | None:
        """As `plan`, and None where the times cannot be trusted.

        An AVI holds no times: ffmpeg counts, from the key frame of its index that it has sought. Where that one is
        destroyed, the first packet behind the damage is given its time. It has another when a later time is sought,
        or the next key frame is not found by its own time.
        """
        cut = plan(listing, seek_s, first, num_frames, self._fps)
        if cut is None or self._kind != "avi":
            return cut
        ahead = self._list(seek_s, AVI_AHEAD_S)
        after = next((packet for packet in ahead.packets[1:] if packet.flags & KEY), None) if ahead else None
        if after is None:
            return None
        for ticks, expected in ((after.pts - 1, listing.packets[0]), (after.pts, after)):
            found = self._list(float(ticks * listing.tick_s), LISTED_BEHIND_S)
            if found is None or found.packets[0] != expected:
                return None
        return cut

    def _list(self, seek_s: float, length_s: float) -> Listing | None:
        return _list(self._path, ss=f"{seek_s:.6f}", t=f"{length_s:.6f}", copyts=None, start_at_zero=None)

    def write(self, cut: Cut, folder: str) -> Path | None:
        """A file in `folder` with the packets of `cut` and no other; None where no container takes them."""
        begin = {"ss": f"{cut.seek_s:.6f}", "copyts": None, "start_at_zero": None}
        for name in self._containers:
            target = Path(folder) / f"clip.{name}"
            node = command.input_node(self._path, **begin)["V:0"].output(
                command.url(target), format=name, c="copy", **{"frames:v": cut.count}
            )
            done = command.run(self._path, command.ffmpeg_args(self._path, node))
            if done.returncode == 0 and target.is_file():
                return target
        return None

    @cached_property
    def info(self) -> VideoInfo:
        return probe(self._path)

    @cached_property
    def _beginning(self) -> Listing | None:
        return _list(self._path, loglevel="info", t="1")

    @cached_property
    def _origin(self) -> int | None:
        """Where on the grid of resampled frames, which begins with the file, the video's first frame is."""
        if not self._beginning:
            return None
        return self._beginning.place(min(packet.pts for packet in self._beginning.packets), self._fps)

    @cached_property
    def _kind(self) -> str:
        """ffmpeg's first name of the file's format."""
        header = from_ffmpeg(self._beginning.messages.decode("utf-8", "replace")) if self._beginning else None
        return header.formats[0] if header else ""

    @cached_property
    def _containers(self) -> tuple[str, ...]:
        """Those that the packets may be copied into with nothing lost: of the same kind, or one with exact times."""
        rounds = self._kind == "matroska" and self._beginning and self._beginning.tick_s != Fraction(1, 1000)
        return ("nut",) if rounds else _CONTAINERS.get(self._kind, ("nut",))


def key_before(listing: Listing, first: int, fps: Fraction) -> Packet | None:
    """The last key frame that is due at the resampled frame `first` or before it."""
    due = [packet for packet in listing.packets if packet.flags & KEY and listing.place(packet.pts, fps) <= first]
    return due[-1] if due else None


def plan(listing: Listing, seek_s: float, first: int, num_frames: int, fps: Fraction) -> Cut | None:
    """How to cut the resampled frames first .. first + num_frames out of `listing`; None where packets are missing.

    A packet that is gone leaves a hole in the times. So does a frame that is shown for longer than its packet says:
    that is taken for a hole only where ffmpeg complained.
    """
    packets, last = listing.packets, first + num_frames - 1

    def place(pts: Fraction | int) -> int:
        return listing.place(pts, fps)

    wanted = [number for number, packet in enumerate(packets) if place(packet.pts) <= last]
    if not wanted or not packets[0].flags & KEY or place(packets[0].pts) > first:
        return None
    used = packets[: wanted[-1] + 1]
    if min(packet.pts for packet in used) < packets[0].pts or any(packet.flags & CORRUPT for packet in used):
        return None
    shown = sorted((packets[number] for number in wanted), key=lambda packet: packet.pts)
    ends = [packet.pts + Fraction(3, 2) * packet.duration for packet in shown]  # half a frame for rounded times
    is_whole = all(end >= after.pts for end, after in zip(ends, shown[1:]))
    lasts, goes_on = place(ends[-1]) > last, len(wanted) < len(packets)
    if command.complaints(listing.messages):
        if not (is_whole and lasts):
            return None
    elif not (goes_on or lasts):
        return None
    return Cut(seek_s, len(used), packets[0].pts * listing.tick_s, first - place(packets[0].pts))


def _listing_node(path: AnyPath, **options: str | None) -> Any:
    return command.input_node(path, **options)["V:0"].output("pipe:1", format="framecrc", c="copy")


def _packets(text: bytes) -> list[Packet]:
    rows = re.findall(rb"^0, +-?\d+, +(-?\d+), +(\d+), +\d+, (0x\w+)(?:, F=0x(\w+))?", text, re.MULTILINE)
    return [Packet(int(pts), int(length), int(flags, 16) if flags else KEY, crc) for pts, length, crc, flags in rows]


def _list(path: AnyPath, loglevel: str = "error", **options: str | None) -> Listing | None:
    """The packets of the video stream from a key frame on, without decoding. None when there is none with a time."""
    args = command.ffmpeg_args(path, _listing_node(path, **options), loglevel=loglevel)
    done = command.run(path, args, max_bytes=command.MAX_MESSAGES_BYTES)
    tick = re.search(rb"^#tb 0: (\d+)/(\d+)$", done.stdout, re.MULTILINE)
    packets = _packets(done.stdout)
    if tick is None or not packets or any(packet.pts <= -(1 << 62) for packet in packets):
        return None
    return Listing(Fraction(int(tick[1]), int(tick[2])), packets, done.stderr)

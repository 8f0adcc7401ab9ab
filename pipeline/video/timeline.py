"""When each picture of a video is shown, by the packets of its container: what is expected of a decoder.

Times are counted from the first picture that can be decoded. Where a clock jumps (recordings joined end to end, a
recorder that was set anew) the pictures go on without a gap.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pipeline.video.container import GUESSED, KEY, LOST, NO_TIME, UNSEEN

JUMP_S = 10.0  # what ffmpeg takes for a clock's jump and not for a still picture, in formats whose clocks may jump
STILL_S = 600.0  # the same in other formats
REORDERED = 16  # pictures that may be stored before one that is shown earlier
OUTLIER_PACKETS = 5  # fewer than this with a time of their own are damaged, and no jump


@dataclass(frozen=True)
class Timeline:
    """The pictures of a video in the order in which they are shown. All arrays but `keys` have one entry a picture."""

    tick_s: Fraction
    packet: np.ndarray  # int64: its number in the order of storage, which is that of decoding
    stamp: np.ndarray  # int64: the time that the container gives it, in ticks, or NO_TIME
    part: np.ndarray  # int64: how many jumps of the clock are before it
    at: np.ndarray  # int64: when it is shown, in ticks from the first
    until: np.ndarray  # int64: to when it lasts by its own packet, in ticks from the first
    keys: Sequence[int]  # packets from which decoding can begin, ascending
    gap: np.ndarray  # int64: where it is shown for longer, the packet behind which others may be gone; else -1
    lost: frozenset[int]  # packets that are torn, or behind which others are gone

    @classmethod
    def even(
        cls, tick_s: Fraction, packet: np.ndarray, keys: Sequence[int] = (), lost: frozenset[int] = frozenset()
    ) -> "Timeline":
        """Of pictures without times, one a tick."""
        at, none = np.arange(len(packet)), np.full(len(packet), NO_TIME)
        return cls(tick_s, packet, none, 0 * at, at, at + 1, keys, 0 * at - 1, lost)

    def __len__(self) -> int:
        return len(self.at)

    @property
    def end(self) -> int:
        """Of the last picture, in ticks."""
        return int(self.until[-1]) if len(self) else 0

    def is_held(self, frame: int, picture: int, fps: float | None) -> bool:
        """Whether one of `count(fps)` frames shows a picture although that has ended by its own packet."""
        return fps is not None and frame >= self._place(int(self.until[picture]), Fraction(fps))

    def count(self, fps: float | None) -> int:
        """How many frames it has at `fps` a second; None: as it is, each picture one frame."""
        return len(self) if fps is None else max(min(len(self), 1), self._place(self.end, Fraction(fps)))

    def due(self, fps: float | None) -> np.ndarray:
        """Which picture each of the `count(fps)` frames shows: the last one whose time, rounded, has come."""
        if fps is None:
            return np.arange(len(self))
        rate = Fraction(fps)
        places = np.array([self._place(ticks, rate) for ticks in self.at.tolist()], np.int64)
        return np.searchsorted(places, np.arange(self.count(fps)), side="right") - 1

    def seconds(self, picture: int) -> float:
        return float(int(self.at[picture]) * self.tick_s)

    def key_of(self, picture: int) -> int:
        """The packet from which on a picture is decoded: the last key frame that is not shown behind it."""
        place = bisect_right(self.keys, int(self.packet[picture]))
        leading = place > 1 and self._key_at(self.keys[place - 1]) > self.at[picture]
        return self.keys[max(0, place - 1 - leading)] if self.keys else 0

    def next_key(self, packet: int) -> int:
        """The first key frame behind a packet; the end of the video if there is none."""
        place = bisect_right(self.keys, packet)
        return self.keys[place] if place < len(self.keys) else int(self.packet.max()) + 1

    def _key_at(self, packet: int) -> int:
        found = np.flatnonzero(self.packet == packet)
        return int(self.at[found[0]]) if len(found) else 0

    def _place(self, ticks: int, fps: Fraction) -> int:
        scaled = 2 * ticks * self.tick_s * fps + 1  # halves go up, as in ffmpeg's fps filter
        return scaled.numerator // (2 * scaled.denominator)


def timeline(
    packets: np.ndarray, tick_s: Fraction, fps: Fraction, *, may_jump: bool, complaints: Sequence[int] | None
) -> Timeline:
    """The pictures of packets as `container.read` gives them.

    Args:
        fps: for streams without times.
        may_jump: whether the format's clocks may jump.
        complaints: packets before which the container is damaged, so that a gap between pictures is a loss; None: it
            is not.
    """
    stamps, dts, duration, flags, late = packets
    pts = np.where(stamps == NO_TIME, NO_TIME, stamps + late)
    dts = np.where(dts == NO_TIME, NO_TIME, dts + late)
    stamps = np.where(flags & GUESSED, NO_TIME, stamps)
    keys = np.flatnonzero(flags & KEY)
    expected = flags & UNSEEN == 0
    if len(keys):
        expected[: keys[0]] = False
    lost = frozenset(np.flatnonzero(flags & LOST).tolist())
    if (pts == NO_TIME).all() or (np.unique(pts[expected]).size == 1 < expected.sum()):  # one for all is none
        return Timeline.even(1 / fps, np.flatnonzero(expected), keys.tolist(), lost)
    expected &= pts != NO_TIME
    if len(keys) and (dts[expected] == NO_TIME).any():  # a format without them: groups of pictures tell the time
        dts = pts[keys[np.searchsorted(keys, np.arange(len(pts)), side="right") - 1]]
    longest = round((JUMP_S if may_jump else STILL_S) / tick_s)
    part = _parts(dts, expected, longest)
    expected &= part >= 0
    if len(keys):  # what is shown before the first key frame hangs on one that is gone
        expected &= (part != part[keys[0]]) | (pts >= pts[keys[0]])
    (number,) = np.nonzero(expected)
    number = number[np.lexsort((number, pts[number], part[number]))]
    jumps = (np.diff(part[number]) != 0) | (np.diff(pts[number]) >= longest)
    part[number] = np.append(np.zeros(min(len(number), 1), np.int64), np.cumsum(jumps))
    last = number
    if len(number):  # of pictures of one time the first is shown, until the last of them ends
        differs = (np.diff(pts[number]) != 0) | (np.diff(part[number]) != 0)
        last, number = number[np.append(differs, True)], number[np.append(True, differs)]
    shown, part, given = pts[number], part[number], np.maximum(duration[last], 0)
    steps = np.diff(shown)[np.diff(part) == 0]
    usual = int(np.median(steps)) if len(steps) else max(1, round(1 / (fps * tick_s)))
    lasts = np.where(given > 0, given, usual)
    step = np.where(np.diff(part) == 0, np.diff(shown), usual)
    at = np.append(np.zeros(min(len(number), 1), np.int64), np.cumsum(step))
    gap = _gaps(number, step, lasts, complaints or ())
    lost |= frozenset(gap[gap >= 0].tolist()) if complaints is not None else frozenset()
    return Timeline(tick_s, number, stamps[number], part, at, at + lasts, keys.tolist(), gap, lost)


def _parts(dts: np.ndarray, expected: np.ndarray, longest: int) -> np.ndarray:
    """How many jumps back of the clock are before each packet; -1 where only a few packets have a time of their own.

    A jump forward comes earlier in the times at which pictures are shown than in these, of decoding.
    """
    part = np.where(expected, 0, -1)
    numbers = np.flatnonzero(expected & (dts != NO_TIME))
    steps = np.diff(dts[numbers])
    if ((steps >= 0) & (steps < longest)).all():
        return part
    now, before = 0, int(dts[numbers[0]])
    for place, number in enumerate(numbers.tolist()):
        time = int(dts[number])
        if not 0 <= time - before < longest:
            following = dts[numbers[place + 1 : place + OUTLIER_PACKETS]].tolist()
            goes_on = any(0 <= later - before < longest for later in following)
            if goes_on and not 0 <= following[0] - time < longest:
                part[number] = -1
                continue
            now += time < before
        part[number], before = now, time
    return part


def _gaps(number: np.ndarray, step: np.ndarray, lasts: np.ndarray, complaints: Sequence[int]) -> np.ndarray:
    """For each picture that is shown for longer than its packet says, the packet behind which others may be gone.

    They were stored before all that are shown later, or, of pictures that are shown in another order than stored, a
    few packets behind the first of these: where the container complains.
    """
    gap = np.full(len(number), -1)
    first_behind = np.minimum.accumulate(number[::-1])[::-1][1:]
    for picture in np.flatnonzero(2 * step > 3 * lasts[:-1]).tolist():
        behind = int(first_behind[picture])
        gap[picture] = next((told for told in complaints if 0 <= told - behind <= REORDERED), behind) - 1
    return gap

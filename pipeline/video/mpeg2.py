"""Pictures of MPEG-1 and MPEG-2: in which order they are shown, and where some are gone, by the numbers that they have.

Each has its place in its group of pictures (temporal_reference), and each group the time code of its first picture.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

# Kinds of units (ITU-T H.262, table 6-1); those from 1 to 0xAF are slices.
PICTURE, SEQUENCE, EXTENSION, GROUP = 0, 0xB3, 0xB5, 0xB8
TIME_CODE_RATES = (24, 24, 25, 30, 30, 50, 60, 60)  # by a sequence's frame_rate_code, from 1 on
OF_PICTURE = 8  # an extension's first four bits
_UNIT = re.compile(rb"\x00\x00\x01([\x00-\xaf\xb3\xb5\xb8])", re.DOTALL)
B_PICTURE = 3  # picture_coding_type
FRAME = 3  # picture_structure; 1 and 2 are fields
PLACES = 1024  # after which temporal_reference begins anew
DAY_S = 24 * 3600
JOINED_S = 10.0  # by which the time code of another recording differs
# For how many pictures of a program stream times may be wrong; and by how many, if that is at its beginning or end.
# Where they are later by more, pictures are gone, or one is held.
PACKED, EARLY, LATE = 64, 16, 1.5
MIN_NUMBERED = 4  # pictures to a gap in their places, or groups to a gap in their time codes: else these tell nothing


@dataclass(frozen=True, slots=True)
class _Picture:
    packet: int
    group: int
    place: int
    is_b: bool
    structure: int  # a frame, or the top or bottom field of one
    fields: int  # that it is shown for


@dataclass(frozen=True, slots=True)
class _Group:
    frames: int  # its time code
    is_closed: bool


class PictureNumbers:
    """Sees the packets of one stream in the order of storage, each of one picture or of the second field of one."""

    def __init__(self) -> None:
        self._rate = TIME_CODE_RATES[0]
        self._groups = [_Group(0, is_closed=True)]  # the first is what is before any header
        self._pictures: list[_Picture] = []  # in the order of storage

    def see(self, number: int, packet: Any) -> None:
        data = bytes(packet)
        place = kind = None
        structure, fields = FRAME, 2
        for unit in _UNIT.finditer(data):
            at = unit.end()
            what, body = unit[1][0], data[at : at + 4].ljust(4, b"\0")
            if what == SEQUENCE:
                code = body[3] & 15
                self._rate = TIME_CODE_RATES[code - 1] if 1 <= code <= len(TIME_CODE_RATES) else self._rate
            elif what == GROUP:
                self._groups.append(self._group(int.from_bytes(body, "big")))
            elif what == PICTURE and place is None:
                place, kind = body[0] << 2 | body[1] >> 6, body[1] >> 3 & 7
            elif what == EXTENSION and body[0] >> 4 == OF_PICTURE:
                structure, fields = body[2] & 3, 2 + (body[3] >> 1 & 1)
            elif place is not None:  # a slice, or the second field
                break
        if place is None or self._is_second_field(place, structure):
            return
        self._pictures.append(_Picture(number, len(self._groups) - 1, place, kind == B_PICTURE, structure, fields))

    def shown(self) -> list[int]:
        """The packets in the order in which their pictures are shown."""
        return [picture.packet for picture in self._shown()]

    def lost(self) -> Iterator[int]:
        """Numbers of packets before which others are gone, or from which on they may be."""
        shown = list(self._shown())
        within, before = [], []
        for last, picture in pairwise(shown):
            step = (picture.place - last.place) % PLACES
            if last.group == picture.group and step <= PLACES // 2:
                within += [picture] if step != 1 else []
            else:  # places begin anew, with a header or, of some encoders, without
                before += [picture] if picture.place else []
        gaps = within if len(within) * MIN_NUMBERED < len(shown) else []
        gaps += before if len(before) * MIN_NUMBERED < len(self._groups) else []
        yield from (picture.packet for picture in gaps)
        yield from self._lost_with_groups({picture.group for picture in gaps})

    def _lost_with_groups(self, gaps: set[int]) -> Iterator[int]:
        """First packets of the groups in or behind which pictures are gone, by the time codes.

        Args: gaps: groups in or before which pictures are known to be gone.
        """
        first: dict[int, int] = {}
        fields = [0 for _ in self._groups]
        for picture in self._pictures:
            first.setdefault(picture.group, picture.packet)
            fields[picture.group] += picture.fields
        groups, steps = sorted(set(first) - {0}), {}
        for group, following in pairwise(groups):
            shown = 2 * (self._groups[following].frames - self._groups[group].frames)
            step = (shown - fields[group]) % (2 * DAY_S * self._rate)
            if 1 < step < 2 * DAY_S * self._rate - 1:
                steps[group, following] = step if self._groups[following].is_closed else 0
        if len(steps) * MIN_NUMBERED < len(groups):
            # Where nothing hangs on what is before, it may be another recording that was joined.
            for pair, step in steps.items():
                if step < 2 * JOINED_S * self._rate and gaps.isdisjoint(pair):
                    yield first[pair[0]]

    def _shown(self) -> Iterator[_Picture]:
        held = None
        for picture in self._pictures:
            if picture.is_b:
                yield picture
            else:
                if held:
                    yield held
                held = picture
        if held:
            yield held

    def _is_second_field(self, place: int, structure: int) -> bool:
        if structure == FRAME or not self._pictures:
            return False
        last = self._pictures[-1]
        return last.group == len(self._groups) - 1 and last.place == place and last.structure == FRAME - structure

    def _group(self, bits: int) -> _Group:
        minutes = 60 * (bits >> 26 & 31) + (bits >> 20 & 63)
        skipped = 2 * (minutes - minutes // 10) if bits >> 31 else 0  # numbers that 29.97 frames a second leave out
        frames = (60 * minutes + (bits >> 13 & 63)) * self._rate + (bits >> 7 & 63) - skipped
        return _Group(frames, is_closed=bool(bits >> 6 & 1))


def evened(times: np.ndarray, lasts: np.ndarray) -> np.ndarray:
    """Times of the pictures of a program stream without ffmpeg's errors.

    A packet of several pictures has one time, and ffmpeg may give it to the wrong one of them. Where a file begins
    amid a packet, ffmpeg guesses the times before the first packet that has one. Pictures whose times are wrong follow
    each other as long as each lasts.

    Args: int64 (pictures,), ticks: when each is shown or decoded, ascending but for the errors; how long it lasts.
    Returns: int64 (pictures,), ticks.
    """
    even = np.cumsum(lasts) - lasts
    late, least = times - even, lasts.min()
    for at in (np.flatnonzero(np.abs(np.diff(late)) > least / 2) + 1).tolist():
        before, step = late[at - 1], late[at] - late[at - 1]
        again = np.flatnonzero(np.abs(late[at : at + PACKED] - before) <= least / 2)
        is_begin = at <= PACKED and (np.abs(late[:at] - before) <= least / 2).all()
        if len(again):
            late[at : at + again[0]] = before
        elif at + PACKED >= len(late) and -EARLY * least <= step <= LATE * least:
            late[at:] = before
        elif is_begin and -EARLY * least <= step < 0:  # they would be shown at once: nothing is lost between
            late[:at] = late[at]
    return even + late

"""Where pictures of H.264 are gone, by the frame numbers of its slices: its decoder makes others in their place."""

from collections.abc import Iterator

HEAD_BYTES = 256  # of a unit, which hold all that is read here
# Kinds of units (ITU-T H.264, table 7-1), and profiles whose parameters say how colours are kept.
SLICE, PARTITION, IDR_SLICE, PARAMETERS = 1, 2, 5, 7
WITH_COLORS = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
UNKNOWN = 0
START = b"\0\0\1"  # before each unit, where their lengths are not told


class FrameNumbers:
    """Reads the packets of one stream in the order of storage."""

    def __init__(self, extradata: bytes | None) -> None:
        extradata = extradata or b""
        self._length_bytes = (extradata[4] & 3) + 1 if extradata[:1] == b"\1" and len(extradata) > 8 else 0
        self._bits = UNKNOWN  # of a frame number
        self._last: int | None = None  # that of the last picture to which others may refer
        given = extradata[8:] if self._length_bytes else extradata
        parameters = [given] if self._length_bytes else self._units(given)
        for unit in parameters:
            self._picture(unit)

    def is_behind_gap(self, packet: bytes) -> bool:
        """Whether others are gone before this packet's picture."""
        found = (self._picture(unit) for unit in self._units(packet))
        return next((is_gap for is_gap in found if is_gap is not None), False)

    def _picture(self, unit: bytes) -> bool | None:
        """Whether others are gone before a slice's picture; None for other units, and where nothing tells."""
        kind = unit[0] & 31 if unit else 0
        try:
            if kind == PARAMETERS:
                self._bits = _number_bits(_Bits(unit[1:]))
            if kind not in (SLICE, PARTITION, IDR_SLICE) or self._bits == UNKNOWN:
                return None
            bits = _Bits(unit[1:])
            bits.skip_numbers(3)
            number = bits.take(self._bits)
        except ValueError:
            return None
        step = 0 if kind == IDR_SLICE or self._last is None else (number - self._last) % (1 << self._bits)
        if unit[0] & 0x60:  # others may refer to it
            self._last = number
        elif step > 1:
            self._last = number - 1
        return step > 1

    def _units(self, data: bytes) -> Iterator[bytes]:
        """How each unit begins."""
        at = 0
        while self._length_bytes and (begin := at + self._length_bytes) < len(data):
            at = begin + int.from_bytes(data[at:begin], "big")
            yield data[begin : min(at, begin + HEAD_BYTES)]
        while not self._length_bytes and (begin := data.find(START, at)) >= 0:
            at = begin + len(START)
            yield data[at : at + HEAD_BYTES]


class _Bits:
    """The bits of a unit, behind its first byte. Raises: ValueError behind the last one."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(plain, "big"), 8 * len(plain)

    def take(self, count: int) -> int:
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def number(self) -> int:
        """One in an Exp-Golomb code (9.1)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def skip_numbers(self, count: int) -> None:
        for _ in range(count):
            self.number()


def _number_bits(bits: _Bits) -> int:
    """How many bits a frame number has, by a sequence's parameters (7.3.2.1.1); UNKNOWN also where gaps are allowed."""
    profile = bits.take(8)
    bits.take(16)
    bits.number()
    if profile in WITH_COLORS:
        if bits.number() == 3 and bits.take(1):  # a slice for each colour
            return UNKNOWN
        bits.skip_numbers(2)
        if bits.take(2) & 1:  # with matrices, which are not read here
            return UNKNOWN
    size = bits.number() + 4
    order = bits.number()
    if order == 0:
        bits.number()
    elif order == 1:
        bits.take(1)
        bits.skip_numbers(2)
        bits.skip_numbers(bits.number())
    bits.number()
    are_gaps_allowed = bits.take(1)
    return UNKNOWN if are_gaps_allowed else size

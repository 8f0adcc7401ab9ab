"""Whether the pictures of a clip are as they were, or some of them damaged."""

from bisect import bisect_left

from pipeline.video import container
from pipeline.video.info import VideoInfo

AHEAD = 64  # pictures that ffmpeg may have begun, and complained of, before those that it has given
# Codecs of which each packet is a picture that is seen. Of others some packets hold none: what does not come may be so.
EACH_IS_SEEN = frozenset({"mpeg1video", "mpeg2video"})
NEAR = 3  # packets from one behind which others may be gone, of which a bad one says that they are


class Soundness:
    """Whether a clip's pictures are as they were, by what came and what was complained of."""

    def __init__(self, info: VideoInfo) -> None:
        self._info, self._timeline = info, info.timeline
        self._suspect_until = -1  # a packet
        self._gone: list[int] = []  # pictures that did not come
        self._bad: list[int] = sorted(info.timeline.lost)
        self._checked = range(0)  # packets
        self._came: set[int] = set()  # stamps of pictures that do come of the packets that were checked

    def suspect(self, picture: int) -> None:
        """Something was complained of when this one had not come yet."""
        last = min(picture + AHEAD, len(self._timeline) - 1)
        self._suspect_until = max(self._suspect_until, self._timeline.next_key(int(self._timeline.packet[last])))

    def gone(self, pictures: range) -> None:
        """These did not come."""
        if pictures:
            self._gone += pictures
            self.suspect(pictures[0])

    def of(self, first: int, last: int, is_held: bool) -> bool:
        """Whether the pictures first .. last are sound, those between included.

        Args: is_held: whether the last one is shown although it has ended by its own packet.
        """
        timeline = self._timeline
        begin, end = timeline.key_of(first), int(timeline.packet[first : last + 1].max()) + 1
        gaps = timeline.gap[first : last + is_held]
        if begin < self._suspect_until:
            self._look_closely(begin, max(end, int(gaps.max(initial=-1)) + NEAR))
        if self._is_bad(begin, end) or any(self._is_bad(gap, gap + 1) for gap in gaps[gaps >= 0].tolist()):
            return False
        gone = self._gone[bisect_left(self._gone, first) : bisect_left(self._gone, last + 1)]
        each_is_seen = self._info.codec in EACH_IS_SEEN
        return not any(each_is_seen or int(timeline.stamp[picture]) in self._came for picture in gone)

    def _is_bad(self, begin: int, end: int) -> bool:
        """Whether one of the packets begin .. end - 1 is."""
        return bisect_left(self._bad, begin) < bisect_left(self._bad, end)

    def _look_closely(self, begin: int, end: int) -> None:
        """Decode packets once more, stopping at every error; twice as many each time, as reading up to them is work."""
        checked = self._checked if begin in self._checked or begin == self._checked.stop else range(begin, begin)
        if end <= checked.stop:
            return
        first = max(begin, checked.stop)
        stop = self._timeline.next_key(max(end, first + len(checked), first + AHEAD) - 1)
        bad, came = container.undecodable(self._info.path, self._info.stream, first, stop)
        gaps = self._timeline.gap[self._timeline.gap >= 0].tolist()
        bad |= {gap for gap in gaps if not bad.isdisjoint(range(gap, gap + NEAR))}
        self._bad, self._came = sorted({*self._bad, *bad}), self._came | came
        self._checked = range(checked.start, stop)

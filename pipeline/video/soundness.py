"""Whether the pictures of a clip are as they were, or some of them damaged."""

from bisect import bisect_left

from pipeline.video import container
from pipeline.video.info import VideoInfo

AHEAD = 64  # pictures that ffmpeg may have begun, and complained of, before those that it has given


class Soundness:
    """Whether a clip's pictures are as they were, by what came and what was complained of."""

    def __init__(self, info: VideoInfo) -> None:
        self._info, self._timeline = info, info.timeline
        self._suspect_until = -1  # a packet
        self._gone: list[int] = []  # pictures that did not come
        self._bad: list[int] = sorted(info.timeline.gaps) if info.timeline.is_hurt else []
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

    def of(self, first: int, last: int) -> bool:
        """Whether the pictures first .. last are sound, those between included."""
        timeline = self._timeline
        begin, end = timeline.key_of(first), int(timeline.packet[first : last + 1].max()) + 1
        if begin < self._suspect_until:
            self._look_closely(begin, end)
        place = bisect_left(self._bad, begin)
        if place < len(self._bad) and self._bad[place] < end:
            return False
        gone = self._gone[bisect_left(self._gone, first) : bisect_left(self._gone, last + 1)]
        return not any(int(timeline.stamp[picture]) in self._came for picture in gone)

    def _look_closely(self, begin: int, end: int) -> None:
        """Decode packets once more, stopping at every error; twice as many each time, as reading up to them is work."""
        checked = self._checked if begin in self._checked or begin == self._checked.stop else range(begin, begin)
        if end <= checked.stop:
            return
        first = max(begin, checked.stop)
        stop = self._timeline.next_key(max(end, first + len(checked), first + AHEAD) - 1)
        bad, came = container.undecodable(self._info.path, self._info.stream, first, stop)
        bad |= {gap for gap in self._timeline.gaps if not bad.isdisjoint(range(gap, gap + 3))}
        self._bad, self._came = sorted({*self._bad, *bad}), self._came | came
        self._checked = range(checked.start, stop)

"""One pass of ffmpeg over a video, and the frames that come of it.

ffmpeg tells the time of each picture that it decodes. Which pictures should come, and when each is shown, is known from
the container's packets: the times of both say which picture each one is.
"""

import math
import queue
import re
from collections.abc import Generator

import numpy as np

from pipeline.video import container, picture
from pipeline.video import ffmpeg as command
from pipeline.video.errors import read_failure, video_error
from pipeline.video.ffmpeg import AnyPath
from pipeline.video.info import VideoInfo
from pipeline.video.output import Output, Wanted
from pipeline.video.soundness import AHEAD, Soundness
from pipeline.video.timeline import REORDERED

FRAME_TIMEOUT_S = 0.2  # what decoding may take for each frame, those before the first wanted one included
PRINTED_S = 2e-6  # to which ffmpeg's printed times are exact
LAG_S = 60.0  # from a frame to the line that ffmpeg has printed before it
# Codecs whose decoders give what is before the first key frame, painted on gray, some of them in older releases only.
STARTING_GRAY = frozenset(
    {"hevc", "mpeg4", "msmpeg4", "msmpeg4v1", "msmpeg4v2", "wmv1", "wmv2", "h263", "flv", "theora"}
)
MARGIN_S = 2.0  # before the first wanted picture, by which ffmpeg's clock may differ from the container's


def frames(
    info: VideoInfo, due: np.ndarray, numbers: range, wanted: Wanted, soundness: Soundness
) -> Generator[np.ndarray, None, None]:
    """Frames of a video file, each (H, W, 3) or, with alpha, (H, W, 4) uint8; none where no picture came.

    Where a picture does not come, the one before it is given, and `soundness` is told.

    Args:
        due: the picture that each frame shows, by its number in the container.
        numbers: of the frames.

    Raises: VideoError when ffmpeg ends with an error before the last of them.
    """
    if not numbers:
        return
    given = Output(info, wanted)
    matching = _Matching(info)
    options = given.decoder | ({"reinit_filter": 0} if picture.may_be_interlaced(info) else {})
    options |= {"threads": 1} if info.codec == "theora" else {}  # else its headers cannot change where files are joined
    node = command.input_node(info.path, noautorotate=None, copyts=None, **options)[f"{info.stream}"]
    node = picture.progressive(node, info).filter("select", _selected(info, due[numbers.start], wanted.fps))
    node = given.output(node, fps_mode="passthrough")
    timeout_s = command.COMMAND_TIMEOUT_S + FRAME_TIMEOUT_S * numbers.stop
    last, at, stop = None, numbers.start, numbers.stop
    with _Decoding(
        info.path, command.ffmpeg_args(info.path, node, loglevel="repeat+level+warning"), timeout_s=timeout_s
    ) as running:
        complaints = 0
        while at < stop and len(raw := running.read(given.size)) == given.size:  # half a last frame is no frame
            frame = given.frame(raw)
            is_given = False
            while not is_given:  # the pictures that were decoded and are not wanted come before it
                expected = matching.next
                stamp_s, is_given = running.next_decoded()
                number = matching.match(stamp_s, running.complaints > 0)
                if number is not None and number > expected:
                    soundness.gone(range(expected, number))
            if running.complaints > complaints:
                complaints = running.complaints
                soundness.suspect(min(expected, int(due[at])))
            if number is None:
                continue
            while at < stop and due[at] <= number:
                yield frame if due[at] == number or last is None else last
                at += 1
            last = frame
        if at < stop and running.wait():
            raise read_failure(info.path, bytes(running.messages))
    if at < stop:
        soundness.gone(range(matching.next, len(info.timeline)))
    while last is not None and at < stop:
        yield last
        at += 1


def _selected(info: VideoInfo, first: int, fps: float | None) -> str:
    """ffmpeg's expression that prints a picture's time and whether it is given on, which it is if it may be wanted.

    Of pictures before the first key frame, which the container's timeline leaves out, it prints nothing.
    Where the times are sure, the pictures before the first wanted one are left out, and of a higher rate those that
    are soon followed by another one of the same frame.
    """
    timeline, wanted = info.timeline, "1"
    if info.has_sure_times and len(timeline) and timeline.part[-1] == 0 and timeline.stamp[0] != container.NO_TIME:
        stamps_s = timeline.stamp * float(timeline.tick_s)
        wanted = f"gte(t,{stamps_s[first] - MARGIN_S:.6f})"
        longest_s = float(np.diff(stamps_s).max(initial=0))
        if fps is not None and longest_s * fps < 0.8:
            place = f"(t-{stamps_s[0]:.6f})*{fps}+0.5"
            is_last_of_frame = f"gt(floor({place}+{longest_s * fps + 0.02:.6f}),floor({place}-0.02))"
            wanted += f"*gt({is_last_of_frame}+gte(t,{stamps_s[-1] - 0.02:.6f}),0)"
    printed = f"st(0,{wanted});print(t,16);print(ld(0),16);ld(0)"
    is_cut = info.codec in STARTING_GRAY and bool(timeline.keys) and timeline.keys[0] > 0
    return f"if(st(1,max(ld(1),key)),{printed},0)" if is_cut else printed


class _Decoding(command.Running):
    """An ffmpeg whose filter prints, for each picture that is decoded, its time in seconds and whether it is given."""

    _STAMP = re.compile(rb"^(?:\[Eval @ \w+\] )?\[error\] (-?\d+\.\d+|-?nan)$")

    def __init__(self, path: AnyPath, args: list[str], *, timeout_s: float) -> None:
        self._decoded: queue.SimpleQueue[tuple[float, bool]] = queue.SimpleQueue()  # time, and whether it is given
        self._stamp: float | None = None
        self.complaints = 0  # lines that tell of an error, or of a picture that is hurt
        self._rest = b""
        super().__init__(path, args, timeout_s=timeout_s)

    def next_decoded(self) -> tuple[float, bool]:
        """Time of the next picture that was decoded, and whether it is given. Raises VideoError if none is printed."""
        try:
            return self._decoded.get(timeout=LAG_S)
        except queue.Empty:
            cause = "is decoded by an ffmpeg that does not print the times of its pictures"
            raise video_error(self._path, cause, "use the ffmpeg of imageio-ffmpeg") from None

    def _told(self, block: bytes) -> None:
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            if found := self._STAMP.match(line):
                number = float(found[1])
                if self._stamp is not None:
                    self._decoded.put((self._stamp, number > 0))
                self._stamp = number if self._stamp is None else None
            elif b"[warning]" not in line or b"corrupt decoded frame" in line:
                self.complaints += 1
                super()._told(line + b"\n")


class _Matching:
    """Which picture of the container each one is that ffmpeg gives, by its time: its number, or None for none."""

    def __init__(self, info: VideoInfo) -> None:
        timeline = info.timeline
        self.next = 0  # the one that is expected
        self._part = timeline.part
        self._stamp_s = timeline.stamp * float(timeline.tick_s)
        self._is_guessed = timeline.stamp == container.NO_TIME
        self._has_times = not self._is_guessed.all() and not info.is_in_order
        steps = np.diff(self._stamp_s)
        self._near_s = max(0.4 * float(np.min(steps, where=steps > 0, initial=0.04)), PRINTED_S)
        self._is_counted = info.is_counted
        self._is_begun = False
        self._guessed = 0  # pictures at the end that come under times of ffmpeg's own

    def match(self, stamp_s: float | None, is_suspect: bool) -> int | None:
        """Args: is_suspect: whether something was complained of, so that the first picture may be another one."""
        number = self._number(stamp_s, is_suspect)
        if number is not None:
            self.next = number + 1
        return number

    def _begin(self, stamp_s: float, is_suspect: bool) -> None:
        """Take the times under which the pictures will come, by that of the first one."""
        self._is_begun = True
        late_s = stamp_s - float(self._stamp_s[0])
        known = np.flatnonzero(np.abs(self._stamp_s - stamp_s) < self._near_s)
        if len(known) == 0:
            self._stamp_s += late_s if abs(late_s) <= MARGIN_S / 2 else 0.0
        elif self._is_counted and not is_suspect and known[0] <= REORDERED:
            # Of B-frames that are counted each has the time of the one that is stored when it comes.
            self._guessed = int(known[0])
            self._stamp_s = np.append(self._stamp_s[self._guessed :], np.full(self._guessed, np.inf))

    def _number(self, stamp_s: float | None, is_suspect: bool) -> int | None:
        left = len(self._part) - self.next
        if stamp_s is None or left <= 0:
            return None
        if not self._has_times or math.isnan(stamp_s) or self._is_guessed[self.next]:
            return self.next
        if not self._is_begun:
            self._begin(stamp_s, is_suspect)
        if abs(self._stamp_s[self.next] - stamp_s) < self._near_s or left <= self._guessed:
            return self.next
        part = self._part[self.next]
        stop = int(np.searchsorted(self._part, part, side="right"))
        for begin, end in ((self.next, stop), (stop, min(stop + AHEAD, len(self._part)))):
            apart = np.abs(self._stamp_s[begin:end] - stamp_s)
            if len(apart) and apart.min() < self._near_s:
                return begin + int(apart.argmin())
        is_last_before_jump = self.next + 1 == stop < len(self._part)
        return self.next if is_last_before_jump else None  # it comes when the clock has jumped, under a time of its own

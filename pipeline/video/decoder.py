"""Video files, still images and folders of frames -> uint8 RGB or RGBA arrays.

ffmpeg decodes a video in one pass, and tells the time of each picture that comes. Which pictures should come, and when
each is shown, is known from the container's packets. A clip is damaged where one of them does not come, or where what
it is made of cannot be decoded without an error. What else ffmpeg complains of is only a reason to look closely.
"""

import contextlib
import math
import os
import queue
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infra.errors import counted
from pipeline.video import container, picture
from pipeline.video import ffmpeg as command
from pipeline.video.errors import VideoError, read_failure, video_error
from pipeline.video.ffmpeg import AnyPath
from pipeline.video.frames import frame_files, frame_notes
from pipeline.video.info import MAX_FRAMES, VideoInfo, cut_image, probe

FRAME_TIMEOUT_S = 0.2  # what decoding may take for each frame, those before the first wanted one included
MAX_CLIP_BYTES = 2 << 30  # in memory; 13 frames of 8K RGB have 1.2 GiB
AHEAD = 64  # pictures that ffmpeg may have begun, and complained of, before those that it has given
MISSING_S = 1.0  # by which a video may be shorter than it says
MAX_UNUSED = 0.1  # of a recording's bytes, behind its last picture
PRINTED_S = 2e-6  # to which ffmpeg's printed times are exact
LAG_S = 60.0  # from a frame to the line that ffmpeg has printed before it
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # by the codec's name: the one that gives alpha
MARGIN_S = 2.0  # before the first wanted picture, by which ffmpeg's clock may differ from the container's


def count_frames(info: VideoInfo, fps: float | None = 24.0) -> int:
    """How many frames `decode(info.path, fps=fps)` gives of a sound file. Raises: VideoError for more than MAX_FRAMES.

    Args: fps: None: each picture of the file is one frame, as in folders of frames in any case.
    """
    frames = info.timeline.count(_rate(info.path, fps))
    if frames > MAX_FRAMES:
        at = f" at {fps:g} FPS" if fps else ""
        raise video_error(info.path, f"has {frames} frames{at}, {MAX_FRAMES} are the most", "cut it into parts")
    return frames


def notes(info: VideoInfo) -> Iterator[str]:
    """What is to be said of a video that can be used, one line each."""
    if os.path.isdir(info.path):
        yield from frame_notes(info.path)
    if info.announced_s > info.duration_s + MISSING_S and not info.timeline.part[-1:].any():
        there = f"says that it lasts {info.announced_s:.1f} s, and {info.duration_s:.1f} s can be decoded"
        yield str(video_error(info.path, there, "copy it again if it is cut off"))
    if info.unused > MAX_UNUSED:
        cause = f"holds no picture of the stream that is used in its last {100 * info.unused:.0f} %"
        yield str(video_error(info.path, cause, "cut recordings that were joined, and give each as a file of its own"))
    if picture.is_hdr(info) and not picture.can_tone_map():
        cause = "is HDR, and this ffmpeg cannot turn its colours into those of SDR"
        yield str(video_error(info.path, f"{cause}: they will be pale", "use an ffmpeg with zscale (libzimg)"))


def decode(
    path: AnyPath,
    *,
    start_frame: int = 0,
    num_frames: int | None = None,
    fps: float | None = 24.0,
    max_height: int | None = None,
    alpha: bool = False,
) -> np.ndarray:
    """Frames of a video, resampled to `fps`, as displayed: rotated, with square pixels.

    Args:
        path: video file, still image, or folder of numbered frames (one file = one frame, whatever `fps`).
        start_frame, num_frames: counted in resampled frames; the result equals a slice of the whole decode.
        fps: None: each picture of the file is one frame.
        max_height: pixels; a higher video is shrunk to it with its aspect kept, a lower one is left alone.
        alpha: whether the alpha channel is given too.

    Returns: (T, H, W, 3) uint8 RGB, C-contiguous. Gray becomes three equal channels. What is transparent is laid
        on white, but alpha of an AVI or of HDR is dropped. With `alpha`: (T, H, W, 4) uint8 RGBA, straight alpha from
        0, transparent, to 255, which it is where the file has none.
    Raises: VideoError, also when fewer than `num_frames` are there, and for damage before the last frame, which ffmpeg
        covers with repeated or smeared ones; ValueError for numbers out of range.
    """
    _check(start_frame, num_frames or 1, fps, max_height)
    count = num_frames or max(1, count_frames(probe(path), fps) - start_frame)
    (clip,) = decode_each(path, [start_frame], num_frames=count, fps=fps, max_height=max_height, alpha=alpha)
    if isinstance(clip, Damaged) and num_frames is None:
        raise video_error(path, f"is damaged at {clip.end_s:.1f} s or before", "copy or export it again")
    if isinstance(clip, VideoError):
        raise clip
    return clip


def decode_each(
    path: AnyPath,
    starts: Sequence[int],
    *,
    num_frames: int,
    fps: float | None = 24.0,
    max_height: int | None = None,
    alpha: bool = False,
) -> Iterator["np.ndarray | VideoError"]:
    """The clips that begin at each of `starts` (ascending), in one pass over the video and one clip's memory.

    Each item is what `decode` of that clip returns, or the VideoError that it raises: a Damaged where a picture of the
    clip, or one that it is decoded from, is gone or hurt, which ffmpeg would cover with repeated or smeared frames.
    What is lost without a trace, such as a packet of a format that says nothing of lengths, is not seen.
    """
    _check(min(starts, default=0), num_frames, fps, max_height)
    if list(starts) != sorted(starts):
        raise ValueError(f"starts must ascend, got {list(starts)}")
    waiting = deque(starts)
    try:
        if waiting:
            yield from _clips(path, waiting, num_frames, fps, max_height, alpha)
    except VideoError as error:
        yield from (error for _ in waiting)


def _clips(
    path: AnyPath, waiting: deque[int], num_frames: int, fps: float | None, max_height: int | None, alpha: bool
) -> Iterator["np.ndarray | VideoError"]:
    """Takes clips off `waiting` as they come."""
    info = probe(path)
    due = info.timeline.due(_rate(path, fps))
    width, height = picture.size(info, max_height)
    _check_memory(path, (height, width, 3 + alpha), num_frames)
    first, stop = waiting[0], min(waiting[-1] + num_frames, len(due))
    soundness = _Soundness(info)
    window: deque[np.ndarray] = deque(maxlen=num_frames)
    shown = (
        _folder(info, first, stop, max_height, alpha)
        if os.path.isdir(path)
        else _frames(info, due, first, stop, fps, max_height, alpha, soundness)
    )
    with contextlib.closing(shown):
        for seen, frame in enumerate(shown, first + 1):
            window.append(frame)
            while waiting and waiting[0] + num_frames == seen:
                pictures = due[waiting[0] : seen]
                is_sound = soundness.of(int(pictures[0]), int(pictures[-1]))
                start = waiting.popleft()
                yield np.stack(list(window)) if is_sound else Damaged(start, num_frames, fps or info.fps, path)
    while waiting:
        start = waiting.popleft()
        whole = start + num_frames <= len(due)
        yield (
            Damaged(start, num_frames, fps or info.fps, path)
            if whole
            else _too_short(path, len(due), start, num_frames, fps)
        )


class Damaged(VideoError):
    """A clip that cannot be decoded as it was, in a file of which other parts can."""

    def __init__(self, start_frame: int, num_frames: int, fps: float, path: AnyPath) -> None:
        self.start_s, self.end_s = start_frame / fps, (start_frame + num_frames) / fps
        super().__init__(str(damage(path, self.start_s, self.end_s, 1)))


def damage(path: AnyPath, start_s: float, end_s: float, clips: int) -> VideoError:
    """The one line that tells of a damaged part of a video."""
    what = "the clip" if clips == 1 else counted(clips, "clip")
    cause = f"is damaged between {start_s:.1f} s and {end_s:.1f} s, where {what} cannot be decoded"
    return video_error(path, cause, "copy or export it again; what is before and after is used")


def _rate(path: AnyPath, fps: float | None) -> float | None:
    return None if os.path.isdir(path) else fps


def _check(start_frame: int, num_frames: int, fps: float | None, max_height: int | None) -> None:
    is_rate = fps is None or 0 < fps < 1e6
    if start_frame < 0 or num_frames < 1 or not is_rate or (max_height is not None and max_height < 1):
        raise ValueError(
            f"start_frame >= 0, num_frames >= 1, fps > 0 and max_height >= 1 are needed, got "
            f"start_frame={start_frame}, num_frames={num_frames}, fps={fps}, max_height={max_height}"
        )


def _too_short(path: AnyPath, total: int, start_frame: int, needed: int, fps: float | None) -> VideoError:
    there = f"has only {counted(total, 'frame')}" + (f" at {fps:g} FPS" if fps else "")
    cause = f"{there}, and {needed} from frame {start_frame} on are needed"
    return video_error(path, cause, "give a longer video or an earlier start")


def _check_memory(path: AnyPath, shape: tuple[int, int, int], count: int) -> None:
    if math.prod(shape) * count > MAX_CLIP_BYTES:
        height, width, _ = shape
        cause = f"{counted(count, 'frame')} of {width}x{height} pixels are more than {MAX_CLIP_BYTES >> 30} GiB"
        raise video_error(path, cause, "take fewer frames or a smaller max_height")


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


class _Given:
    """How ffmpeg gives the frames of a file: RGB, or RGBA where alpha is there; not asked for, it is laid on white."""

    def __init__(self, info: VideoInfo, max_height: int | None, alpha: bool) -> None:
        self._info, self._max_height, self._is_asked = info, max_height, alpha
        name = _ALPHA_DECODERS.get(info.codec)  # ffmpeg's own may leave alpha out
        is_decodable = name is None or not info.has_alpha or command.has(command.ffmpeg_exe(), "decoders", name)
        if alpha and info.has_alpha and not is_decodable:
            cause = f"has an alpha channel, which this ffmpeg cannot decode (no decoder {name})"
            raise video_error(info.path, cause, "use an ffmpeg with libvpx, or export it as a .mov")
        if alpha and info.has_alpha and picture.is_hdr(info):
            cause = "is HDR with an alpha channel, whose colours cannot be turned into those of SDR here"
            raise video_error(info.path, cause, "export it in SDR")
        may_be_laid = is_decodable and not picture.is_hdr(info) and not info.is_counted  # an AVI's alpha may be filler
        self._alpha = info.has_alpha and (alpha or may_be_laid)
        self.decoder = {"c:v": name} if self._alpha and name else {}  # options of the input
        width, height = picture.size(info, max_height)
        self._shape = (height, width, 3 + self._alpha)
        self.size = math.prod(self._shape)  # bytes

    def output(self, node: Any, **options: Any) -> Any:
        """The graph that prints the frames of a node, as they are seen."""
        node = picture.filtered(node, self._info, self._max_height, alpha=self._alpha)
        return node.output("pipe:1", format="rawvideo", pix_fmt="rgba" if self._alpha else "rgb24", **options)

    def frame(self, raw: bytes | bytearray) -> np.ndarray:
        """One printed frame, (H, W, 3) or, where alpha is asked for, (H, W, 4) uint8."""
        frame = np.frombuffer(raw, np.uint8).reshape(self._shape)
        if self._is_asked:
            return frame if self._alpha else np.dstack([frame, np.full(frame.shape[:2], 255, np.uint8)])
        return _on_white(frame) if self._alpha else frame


def _on_white(frame: np.ndarray) -> np.ndarray:
    """(H, W, 4) RGBA, straight alpha -> (H, W, 3) RGB; both uint8."""
    colors, alpha = frame[:, :, :3], frame[:, :, 3:].astype(np.uint16)
    return ((colors * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


class _Soundness:
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


def _frames(
    info: VideoInfo,
    due: np.ndarray,
    first: int,
    stop: int,
    fps: float | None,
    max_height: int | None,
    alpha: bool,
    soundness: _Soundness,
) -> Generator[np.ndarray, None, None]:
    """Frames first .. stop - 1 of a video file, each (H, W, 3) or, with `alpha`, (H, W, 4) uint8; fewer where it ends
    before. `due`: the picture that each frame shows. Where one does not come, the one before it is given, and
    `soundness` told."""
    if first >= stop:
        return
    given = _Given(info, max_height, alpha)
    matching = _Matching(info)
    options = given.decoder | ({"reinit_filter": 0} if picture.may_be_interlaced(info) else {})
    options |= {"threads": 1} if info.codec == "theora" else {}  # else its headers cannot change where files are joined
    node = command.input_node(info.path, noautorotate=None, copyts=None, **options)[f"{info.stream}"]
    node = picture.progressive(node, info).filter("select", _selected(info, due, first, fps))
    node = given.output(node, fps_mode="passthrough")
    timeout_s = command.COMMAND_TIMEOUT_S + FRAME_TIMEOUT_S * stop
    last, at = None, first
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


def _selected(info: VideoInfo, due: np.ndarray, first: int, fps: float | None) -> str:
    """ffmpeg's expression that prints a picture's time and whether it is given on, which it is if it may be wanted.

    Where the times are sure, the pictures before the first wanted one are left out, and of a higher rate those that
    are soon followed by another one of the same frame.
    """
    timeline, wanted = info.timeline, "1"
    if info.has_sure_times and len(timeline) and timeline.part[-1] == 0:
        stamps_s = timeline.stamp * float(timeline.tick_s)
        wanted = f"gte(t,{stamps_s[due[first]] - MARGIN_S:.6f})"
        longest_s = float(np.diff(stamps_s).max(initial=0))
        if fps is not None and longest_s * fps < 0.8:
            place = f"(t-{stamps_s[0]:.6f})*{fps}+0.5"
            is_last_of_frame = f"gt(floor({place}+{longest_s * fps + 0.02:.6f}),floor({place}-0.02))"
            wanted += f"*gt({is_last_of_frame}+gte(t,{stamps_s[-1] - 0.02:.6f}),0)"
    return f"st(0,{wanted});print(t,16);print(ld(0),16);ld(0)"


class _Matching:
    """Which picture of the container each one is that ffmpeg gives, by its time: its number, or None for none."""

    def __init__(self, info: VideoInfo) -> None:
        timeline = info.timeline
        self.next = 0  # the one that is expected
        self._part = timeline.part
        self._has_times = bool(len(timeline)) and timeline.stamp[0] != container.NO_TIME and not info.is_in_order
        self._stamp_s = timeline.stamp * float(timeline.tick_s)
        steps = np.diff(self._stamp_s)
        self._near_s = max(0.4 * float(np.min(steps, where=steps > 0, initial=0.04)), PRINTED_S)
        self._is_counted = info.is_counted
        self._late_s: float | None = None  # how far ffmpeg's clock is ahead of the container's

    def match(self, stamp_s: float | None, is_suspect: bool) -> int | None:
        """Args: is_suspect: whether something was complained of, so that the first picture may be another one."""
        number = self._number(stamp_s, is_suspect)
        if number is not None:
            self.next = number + 1
        return number

    def _number(self, stamp_s: float | None, is_suspect: bool) -> int | None:
        left = len(self._part) - self.next
        if stamp_s is None or left <= 0:
            return None
        if not self._has_times or math.isnan(stamp_s):
            return self.next
        if self._late_s is None:  # the first: of a video that has it under another time, how much later that is
            late_s = stamp_s - float(self._stamp_s[0])
            is_sure = is_suspect or not self._is_counted
            is_known = is_sure and bool((np.abs(self._stamp_s - stamp_s) < self._near_s).any())
            self._late_s = 0.0 if is_known or abs(late_s) > MARGIN_S / 2 else late_s
        stamp_s -= self._late_s
        if abs(self._stamp_s[self.next] - stamp_s) < self._near_s:
            return self.next
        part = self._part[self.next]
        stop = int(np.searchsorted(self._part, part, side="right"))
        for begin, end in ((self.next, stop), (stop, min(stop + AHEAD, len(self._part)))):
            apart = np.abs(self._stamp_s[begin:end] - stamp_s)
            if len(apart) and apart.min() < self._near_s:
                return begin + int(apart.argmin())
        is_last_before_jump = self.next + 1 == stop < len(self._part)
        return self.next if is_last_before_jump else None  # it comes when the clock has jumped, under a time of its own


def _folder(
    info: VideoInfo, first: int, stop: int, max_height: int | None, alpha: bool
) -> Generator[np.ndarray, None, None]:
    """Frames of a folder, one by one. Raises: VideoError for one that has another size or cannot be read."""
    for file in frame_files(info.path)[first:stop]:
        yield _image(file, info, max_height, alpha)


def decode_stored(path: AnyPath) -> np.ndarray:
    """The pixels of an image file as they are stored, not turned: uint8 (H, W, 4) RGBA. Raises: VideoError."""
    info = probe(path)
    width, height = (info.height, info.width) if info.orientation.turned else (info.width, info.height)
    node = command.input_node(path, noautorotate=None)["V:0"].filter("scale", width, height)
    node = node.output("pipe:1", format="rawvideo", pix_fmt="rgba", frames=1)
    done = command.run(Path(path), command.ffmpeg_args(path, node), max_bytes=width * height * 4)
    if done.returncode or len(done.stdout) != width * height * 4:
        raise cut_image(path)
    return np.frombuffer(done.stdout, np.uint8).reshape(height, width, 4)


def _image(file: Path, first: VideoInfo, max_height: int | None, alpha: bool) -> np.ndarray:
    info = probe(file)
    if (info.width, info.height) != (first.width, first.height):
        cause = f"is {info.width}x{info.height} but the first frame is {first.width}x{first.height}"
        raise video_error(file, cause, "give all frames of a folder the same size")
    given = _Given(info, max_height, alpha)
    node = given.output(command.input_node(file, noautorotate=None)["V:0"], frames=1)
    done = command.run(file, command.ffmpeg_args(file, node), max_bytes=given.size)
    if done.returncode or len(done.stdout) != given.size:
        raise cut_image(file)
    return given.frame(done.stdout)

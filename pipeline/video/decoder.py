"""Video files, still images and folders of frames -> uint8 RGB arrays."""

import contextlib
import os
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from pipeline.video import ffmpeg as command
from pipeline.video.cut import Cut, Cutter
from pipeline.video.ffmpeg import AnyPath
from pipeline.video.header import VideoError, from_ffmpeg, read_failure, round_half_up, video_error
from pipeline.video.info import MAX_FRAMES, VideoInfo, frame_files, probe

PATIENCE = 8  # clips behind damage that are tried one by one
SEEK_MARGIN_S = 1.0  # before a clip, so that frames which are shown for longer are there at its beginning
FRAME_TIMEOUT_S = 0.2  # what decoding may take for each frame, those before the first wanted one included
MAX_CLIP_BYTES = 2 << 30  # in memory; 13 frames of 8K RGB have 1.2 GiB


def count_frames(info: VideoInfo, fps: float) -> int:
    """How many frames `decode(info.path, fps=fps)` gives: by the header's duration where that settles it.

    Where it does not (none, or a rounded one that ends on half a frame), frames are decoded and counted.
    For a folder it is the number of its files. Raises: VideoError, also for more than MAX_FRAMES.
    """
    frames = len(frame_files(info.path)) if os.path.isdir(info.path) else info.duration_s * fps
    if frames > MAX_FRAMES:
        raise _too_long(info.path, f"{frames:.0f}", fps)
    if frames > 0 and abs(frames % 1 - 0.5) > 0.05:
        return round(frames)
    return _count_by_decoding(info.path, fps)


def _count_by_decoding(path: AnyPath, fps: float) -> int:
    total = 0
    for _ in _frames(path, 0, None, fps, max_height=1):
        total += 1
        if total > MAX_FRAMES:
            raise _too_long(path, f"more than {MAX_FRAMES}", fps)
    return total


def decode(
    path: AnyPath,
    *,
    start_frame: int = 0,
    num_frames: int | None = None,
    fps: float = 24.0,
    max_height: int | None = None,
) -> np.ndarray:
    """Frames of a video, resampled to `fps`, as displayed: rotated, with square pixels.

    Args:
        path: video file, still image, or folder of numbered frames (one file = one frame, whatever `fps`).
        start_frame, num_frames: counted in resampled frames; the result equals a slice of the whole decode.
        max_height: pixels; a higher video is shrunk to it with its aspect kept, a lower one is left alone.

    Returns: (T, H, W, 3) uint8 RGB, C-contiguous. Alpha is dropped, gray becomes three equal channels.
    Raises: VideoError, also when fewer than `num_frames` are there, and for damage before the last frame, which ffmpeg
        covers with repeated or smeared ones; ValueError for numbers out of range.
    """
    if num_frames is not None:
        clip = next(decode_each(path, [start_frame], num_frames=num_frames, fps=fps, max_height=max_height))
        if isinstance(clip, VideoError):
            raise clip
        return clip
    _check(start_frame, 1, fps, max_height)
    frames: list[np.ndarray] = []
    with contextlib.closing(_frames(path, start_frame, None, fps, max_height)) as all_:
        for frame, is_clean in all_:
            frames.append(frame)
            _check_memory(path, frame, len(frames))
            if not is_clean():
                raise video_error(path, f"is damaged at {len(frames) / fps:.1f} s or before", "copy or export it again")
    if not frames:
        raise _too_short(path, _count_by_decoding(path, fps), start_frame, 1, fps)
    return np.stack(frames)


def decode_each(
    path: AnyPath,
    starts: Sequence[int],
    *,
    num_frames: int,
    fps: float = 24.0,
    max_height: int | None = None,
) -> Iterator["np.ndarray | VideoError"]:
    """The clips that begin at each of `starts` (ascending), in one pass over the video and one clip's memory.

    Each item is what `decode` of that clip returns, or the VideoError that it raises; a Damaged where ffmpeg tells of
    damage in the clip or between its key frame and its end, which it would cover with repeated or smeared frames. A
    clip beside damage is decoded from its own packets alone, as ffmpeg complains of what is before and behind it, too.
    Behind the damage decoding begins anew, at the next clip that can be read without a complaint: after PATIENCE tries
    by twos, fours, …, so that a file that is all damage is soon done with. What is lost without a complaint, such as
    whole packets of an MPEG transport stream, is not seen.
    """
    _check(min(starts, default=0), num_frames, fps, max_height)
    if list(starts) != sorted(starts):
        raise ValueError(f"starts must ascend, got {list(starts)}")
    if not starts:
        return
    waiting = deque(starts)
    cutter = Cutter(path, fps)
    lead = round(SEEK_MARGIN_S * fps)
    from_the_start, tries = True, 0
    sound_from: int | None = None  # the first of the clips behind the damage that are good so far
    while waiting:
        try:
            if from_the_start or (sound_from is not None and waiting[0] - lead >= sound_from):
                yield from _clean(path, waiting, num_frames, fps, max_height, from_the_start)
                continue
            clip = _cut_out(cutter, waiting[0], num_frames, fps, max_height)
        except Damaged:  # good up to here; the next one may be, too: try it by itself
            from_the_start, sound_from = False, None
        except VideoError as error:
            yield from (error for _ in waiting)
            return
        else:
            if clip is not None:
                start = waiting.popleft()
                sound_from, tries = start if sound_from is None else sound_from, 0
                yield clip
                continue
            if cutter.ends_before(waiting[0]):
                total = _count_by_decoding(path, fps)
                yield from (_too_short(path, total, start, num_frames, fps) for start in waiting)
                return
            for _ in range(min(2 ** max(0, tries - PATIENCE), len(waiting))):
                yield Damaged(waiting.popleft(), num_frames, fps, path)
            sound_from, tries = None, tries + 1


def _clean(
    path: AnyPath,
    waiting: deque[int],
    num_frames: int,
    fps: float,
    max_height: int | None,
    from_the_start: bool,
) -> Iterator["np.ndarray | VideoError"]:
    """Takes clips off `waiting` as they come. Raises: Damaged when ffmpeg complains before the next one is complete."""
    first, last = waiting[0], waiting[-1]
    window: deque[np.ndarray] = deque(maxlen=num_frames)
    seen = 0  # frames from `first` on
    with contextlib.closing(
        _frames(path, first, last + num_frames - first, fps, max_height, not from_the_start)
    ) as all_:
        for frame, is_clean in all_:
            _check_memory(path, frame, num_frames)
            window.append(frame)
            seen += 1
            while waiting and waiting[0] + num_frames == first + seen:
                if not is_clean():
                    raise Damaged(waiting[0], num_frames, fps, path)
                waiting.popleft()
                yield np.stack(list(window))
    if waiting:
        total = first + seen if seen else _count_by_decoding(path, fps)
        yield from (_too_short(path, total, start, num_frames, fps) for start in waiting)
        waiting.clear()


def _cut_out(cutter: Cutter, start: int, num_frames: int, fps: float, max_height: int | None) -> np.ndarray | None:
    """The clip from its own packets alone; None where some of them are missing, or ffmpeg complains of one.

    Raises: VideoError when ffmpeg stalls or the clip is too large for memory.
    """
    cut = cutter.cut(start, num_frames)
    if cut is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = cutter.write(cut, folder)
        return None if file is None else _whole_cut(cutter.info, file, cut, num_frames, fps, max_height)


def _whole_cut(
    info: VideoInfo, file: Path, cut: Cut, num_frames: int, fps: float, max_height: int | None
) -> np.ndarray | None:
    """The last `num_frames` frames of a cut of the video `info`; None where ffmpeg complains of any packet of it."""
    width, height, scaler = _fit(info, max_height)
    shape = (num_frames, height, width, 3)
    _check_memory(info.path, np.broadcast_to(np.uint8(0), shape[1:]), num_frames)
    # A key frame that is none, as an index may call it, is found out by its type: unknown or I (0 or 1), else not.
    is_key = "if(eq(n,0),st(0,lte(pict_type,1)),ld(0))"
    node = (
        command.input_node(file, threads=1)["V:0"]
        .filter("select", is_key)  # all frames or none
        .filter("setpts", f"PTS-STARTPTS+round({cut.first_pts_s.numerator}/{cut.first_pts_s.denominator}/TB)")
        .filter("fps", fps=fps)
        .filter("tpad", stop=num_frames, stop_mode="clone")  # the last frame's time may end in a packet that is not cut
        .filter("trim", start_frame=cut.skipped, end_frame=cut.skipped + num_frames)
        .filter("setpts", "N/FRAME_RATE/TB")
        .filter("scale", width, height, flags=scaler)
        .output("pipe:1", format="rawvideo", pix_fmt="rgb24")
    )
    timeout_s = command.COMMAND_TIMEOUT_S + FRAME_TIMEOUT_S * cut.count
    with command.Running(info.path, command.ffmpeg_args(file, node), timeout_s=timeout_s) as running:
        raw = running.read(int(np.prod(shape)))
        is_clean = running.wait() == 0 and not command.complaints(bytes(running.messages))
    return np.frombuffer(raw, np.uint8).reshape(shape) if is_clean and len(raw) == np.prod(shape) else None


class Damaged(VideoError):
    """A clip that cannot be decoded as it was, in a file of which other parts can."""

    def __init__(self, start_frame: int, num_frames: int, fps: float, path: AnyPath) -> None:
        self.start_s, self.end_s = start_frame / fps, (start_frame + num_frames) / fps
        super().__init__(str(damage(path, self.start_s, self.end_s, 1)))


def damage(path: AnyPath, start_s: float, end_s: float, clips: int) -> VideoError:
    """The one line that tells of a damaged part of a video."""
    what = "the clip" if clips == 1 else f"{clips} clips"
    cause = f"is damaged between {start_s:.1f} s and {end_s:.1f} s, where {what} cannot be decoded"
    return video_error(path, cause, "copy or export it again; what is before and after is used")


def _check(start_frame: int, num_frames: int, fps: float, max_height: int | None) -> None:
    if start_frame < 0 or num_frames < 1 or not 0 < fps < 1e6 or (max_height is not None and max_height < 1):
        raise ValueError(
            f"start_frame >= 0, num_frames >= 1, fps > 0 and max_height >= 1 are needed, got "
            f"start_frame={start_frame}, num_frames={num_frames}, fps={fps}, max_height={max_height}"
        )


def _too_short(path: AnyPath, total: int, start_frame: int, needed: int, fps: float) -> VideoError:
    there = f"has only {total} frame{'' if total == 1 else 's'} at {fps:g} FPS"
    cause = f"{there}, and {needed} from frame {start_frame} on are needed"
    return video_error(path, cause, "give a longer video or an earlier start")


def _too_long(path: AnyPath, frames: str, fps: float) -> VideoError:
    return video_error(path, f"has {frames} frames at {fps:g} FPS, {MAX_FRAMES} are the most", "cut it into parts")


def _check_memory(path: AnyPath, frame: np.ndarray, count: int) -> None:
    if frame.nbytes * count > MAX_CLIP_BYTES:
        height, width, _ = frame.shape
        cause = f"{count} frames of {width}x{height} pixels are more than {MAX_CLIP_BYTES >> 30} GiB"
        raise video_error(path, cause, "take fewer frames or a smaller max_height")


def _fit(info: VideoInfo, max_height: int | None) -> tuple[int, int, str]:
    """Width, height and scaler: `area` is right for shrinking, bicubic for stretched pixels."""
    if max_height is None or info.height <= max_height:
        return info.width, info.height, "bicubic+accurate_rnd+full_chroma_int"
    width = max(1, round_half_up(Fraction(info.width * max_height, info.height)))
    return width, max_height, "area+accurate_rnd+full_chroma_int"


def _frames(
    path: AnyPath, start: int, count: int | None, fps: float, max_height: int | None, seek: bool = False
) -> Generator[tuple[np.ndarray, Callable[[], bool]], None, None]:
    """Frames start .. start + count one by one, each (H, W, 3) uint8; fewer where the video ends. With each, what tells
    whether it is one of the video's: ffmpeg has had nothing to complain of up to it.

    Args: seek: begin at the last key frame a little before `start`, and not at the video's beginning; with one thread,
        which complains of no frame that is still to come. Where that second holds one picture only, ffmpeg has filled a
        hole with the first frame behind it, so these are not the video's; nor, then, are those of a still.
    """
    info = probe(path)
    width, height, scaler = _fit(info, max_height)
    if os.path.isdir(path):
        stop = None if count is None else start + count
        for file in frame_files(path)[start:stop]:
            yield _image(file, info, width, height, scaler), lambda: True
        return
    lead = round(SEEK_MARGIN_S * fps) if seek else 0  # frames before `start` that are read, too
    skipped = max(0, start - lead) if seek else 0
    lead = min(lead, start)
    first = start - skipped - lead
    trim = {"start_frame": first} | ({} if count is None else {"end_frame": first + lead + count})
    options = {"ss": f"{skipped / fps:.6f}", "threads": 1} if skipped else {}
    node = (
        command.input_node(path, **options)["V:0"]
        .filter("fps", fps=fps, **({"start_time": 0} if skipped else {}))
        .filter("trim", **trim)
        .filter("setpts", "N/FRAME_RATE/TB")  # else the rawvideo writer fills the time before `start` with copies
        .filter("scale", width, height, flags=scaler)
        .output("pipe:1", format="rawvideo", pix_fmt="rgb24")
    )
    size = width * height * 3
    timeout_s = command.COMMAND_TIMEOUT_S + FRAME_TIMEOUT_S * (start + (count or 0))
    with command.Running(path, command.ffmpeg_args(path, node), timeout_s=timeout_s) as running:
        before = [running.read(size) for _ in range(lead)]
        is_filled = skipped > 0 and all(frame == before[0] for frame in before)
        while len(raw := running.read(size)) == size:  # half a last frame is no frame: ffmpeg then says why
            yield (
                np.frombuffer(raw, np.uint8).reshape(height, width, 3),
                lambda: not (is_filled or running.complained()),
            )
        if running.wait():
            raise read_failure(path, bytes(running.messages))


def _image(file: Path, first: VideoInfo, width: int, height: int, scaler: str) -> np.ndarray:
    """One frame of a folder; the header printed in passing shows whether its size is the first one's."""
    node = (
        command.input_node(file)["V:0"]
        .filter("scale", width, height, flags=scaler)
        .output("pipe:1", format="rawvideo", pix_fmt="rgb24", frames=1)
    )
    size = width * height * 3
    done = command.run(file, command.ffmpeg_args(file, node, loglevel="info"), max_bytes=size)
    header = from_ffmpeg(done.stderr.decode("utf-8", "replace"))
    if header is None:
        raise read_failure(file, done.stderr)
    (w, h), (first_w, first_h) = header.displayed_size, (first.width, first.height)
    if header.stored_height and (w, h) != (first_w, first_h):
        cause = f"is {w}x{h} but the first frame is {first_w}x{first_h}"
        raise video_error(file, cause, "give all frames of a folder the same size")
    if done.returncode or len(done.stdout) != size:
        raise video_error(file, "is an image that ffmpeg cannot read to its end", "copy or export it again")
    return np.frombuffer(done.stdout, np.uint8).reshape(height, width, 3)

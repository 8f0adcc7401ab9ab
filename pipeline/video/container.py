"""What a file's container says: its picture stream, the first frame's shape, and the time of every packet.

PyAV reads it, in a process of its own within the limits of any other command: a file that crashes or stalls the reader
costs only itself. The process stays for the next file. This module is both ends: `read` and `undecodable` ask, `serve`
answers. What comes back is JSON and plain int64, whatever the file did to the reader.
"""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.video import ffmpeg as command
from pipeline.video.animation import readable
from pipeline.video.errors import video_error
from pipeline.video.ffmpeg import AnyPath
from pipeline.video.losses import TS_DISCONT, behind_missing_fragments, is_torn, watches
from pipeline.video.mpeg2 import PictureNumbers, evened
from pipeline.video.orientation import boxes

NO_TIME = -(1 << 63)
# Flags of a packet. Unseen: an edit list leaves it out, or no picture comes of it. Lost: not all there, or others are
# gone beside it. Guessed: ffmpeg may give its picture another time.
KEY, UNSEEN, LOST, GUESSED = 1, 2, 4, 8
BT601, UNNAMED = 5, (0, 2, 3)  # numbers of colours, by ITU-T H.273
BRIEF_CS, USUAL_CS = 2, 10  # a GIF's picture that lasts less than the first is shown for the second, as browsers do
FILLED_BYTES = 6144  # an M2TS is filled up to a multiple of it, and an ASF has less than it behind its packets
# Formats in which there is little behind the last packet, so that much is a part that is not read.
ENDING_WITH_PACKETS = frozenset({"mpegts", "flv", "asf", "ivf", "gif", "ogg", "nut", "rm", "yuv4mpegpipe", "apng"})
UNTIMED_IN_AVI = frozenset({"h264", "hevc"})  # codecs whose pictures come there in the order of their packets' dts
MAX_PACKETS = 6_000_000  # a day at 60 FPS and some
FIRST_FRAME_PACKETS = 600  # in which a picture has to come
_CODE = "import sys; sys.path[:] = sys.argv[1:]; from pipeline.video import container; container.serve()"
# What decoders call an error and is none: how sound streams of some encoders are made.
HARMLESS = re.compile(r"mmco: unref short failure|number of reference frames|co located POCs unavailable")
# Units that hold no picture. A decoder that stops at every error stops at errors in them, too.
_NO_PICTURE = {"h264": "6|9|12|14-31", "hevc": "35|38-63"}


# ---- the end that asks


def read(path: AnyPath) -> tuple[dict[str, Any], np.ndarray]:
    """Header (see `_header`), and int64 (5, packets) in the order of storage: pts, dts, duration, flags, and how much
    later it is than pts and dts say, as an AVI counts its packets, of which some may be gone. All times in ticks.

    Without a picture stream, or of a file that cannot be opened, the header has but "error" and "messages".
    """
    return _ask(path, {"ask": "read"})


def undecodable(path: AnyPath, stream: int, first: int, stop: int) -> tuple[set[int], set[int]]:
    """Which of the packets first .. stop - 1 hold a picture that cannot be decoded as it was, and the times (ticks)
    of the pictures that come of them. The first one should be a key frame.
    """
    head, values = _ask(path, {"ask": "decode", "stream": stream, "first": first, "stop": stop})
    if "bad" not in head:  # the file cannot be read once more
        return set(range(first, stop)), set()
    bad = int(head["bad"])
    flat = values.reshape(-1).tolist()
    return set(flat[:bad]), set(flat[bad:])


_lock = threading.Lock()
_readers: dict[int, command.Running] = {}  # by process: one that was forked has none yet


def _ask(path: AnyPath, question: Mapping[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    with _lock:
        file = os.path.abspath(readable(path))
        reader = _readers.get(os.getpid())
        if reader is None:
            args = [sys.executable, "-c", _CODE, *sys.path]
            reader = command.Running(path, args, timeout_s=0, stdin=subprocess.PIPE)
            _readers.clear()
            _readers[os.getpid()] = reader
        reader.renew(path, command.COMMAND_TIMEOUT_S)
        is_whole = False
        try:
            asked = json.dumps({**question, "path": os.fsencode(file).hex()}).encode() + b"\n"
            reader.write(memoryview(asked))
            sizes = np.frombuffer(reader.read(16).ljust(16, b"\0"), np.int64)
            text, numbers = reader.read(int(sizes[0])), reader.read(8 * int(sizes[1]))
            is_whole = 0 < len(text) == sizes[0] and len(numbers) == 8 * sizes[1]
        finally:
            if not is_whole:  # also when it is interrupted: the next answer would be this one's rest
                reader.__exit__()
                del _readers[os.getpid()]
        if not is_whole:
            raise video_error(path, "makes the reader of containers crash", "convert it to mp4")
        values = np.frombuffer(numbers, np.int64)
        return json.loads(bytes(text)), values.reshape(5, -1) if question["ask"] == "read" else values


# ---- the end that answers


def serve() -> None:
    """Answer the questions on stdin until it ends."""
    import av

    av.logging.set_skip_repeated(False)
    out = sys.stdout.buffer
    for line in sys.stdin.buffer:
        av.logging.set_level(av.logging.WARNING)
        question = json.loads(line)
        path = os.fsdecode(bytes.fromhex(question["path"]))
        with av.logging.Capture() as logs:
            try:
                head, values = (
                    _read(path, logs)
                    if question["ask"] == "read"
                    else _decode(path, question["stream"], question["first"], question["stop"], logs)
                )
            except (av.error.FFmpegError, OSError, LookupError, ValueError, MemoryError, OverflowError) as error:
                said = [text.strip() for level, _, text in logs if level <= av.logging.ERROR]
                last = "Cannot allocate memory" if isinstance(error, MemoryError) else getattr(error, "strerror", "")
                head, values = {"error": True, "messages": [*said[:50], last or type(error).__name__]}, np.zeros(0)
        text = json.dumps(head).encode()
        out.write(np.array([len(text), values.size], np.int64).tobytes() + text + values.astype(np.int64).tobytes())
        out.flush()


def _open(path: str, **options: str) -> Any:
    """A container of PyAV, which reads this file and no other."""
    import av

    allowed = {"protocol_whitelist": "file", "format_whitelist": command.FORMATS, "max_pixels": str(command.MAX_PIXELS)}
    return av.open(_File(path), options=allowed | options, buffer_size=1 << 18)


class _File(io.FileIO):
    """A file for a reader that looks at places which a damaged header names, and that takes a refusal."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:
            return -(error.errno or 1)


def _read(path: str, logs: Sequence[tuple[int, str, str]]) -> tuple[dict[str, Any], np.ndarray]:
    import av

    with _open(path) as container:
        said = len(logs)
        if container.format.name == "nut":  # which tells of what it skips in this way alone
            av.logging.set_level(av.logging.DEBUG)
        head: dict[str, Any] = {"audio": bool(container.streams.audio), "messages": [text for *_, text in logs][:50]}
        stream = _main_stream(container)
        if stream is None:
            return head | {"error": True}, np.zeros(0)
        context = stream.codec_context
        context.thread_count = 1
        colors = _colors(context)
        if context.name in ("vp8", "webp", "theora") and colors[0] in UNNAMED:
            colors[0] = BT601  # by their specifications
        is_avi = container.format.name == "avi"
        index = {one.pos + 8: (one.timestamp, one.size) for one in stream.index_entries} if is_avi else {}
        rows: list[list[int]] = []
        complaints: list[int] = []
        frame = None
        end = 0
        ends = [0 for _ in container.streams]  # ticks of each stream
        is_mp4 = container.format.name.startswith("mov")
        ends_with_packets = container.format.name in ENDING_WITH_PACKETS
        behind_missing = behind_missing_fragments(path) if is_mp4 else []
        watching = watches(path, container, stream, index)
        beside = [other for other in container.streams if ends_with_packets and other.type != "video"]
        for packet in _packets(container, [stream, *beside]):
            torn = is_torn(container, packet)
            end = end if torn else max(end, (packet.pos or 0) + packet.size)
            if packet.pts is not None:
                ends[packet.stream.index] = max(ends[packet.stream.index], packet.pts + (packet.duration or 0))
            if packet.stream.index != stream.index:
                continue
            if (
                frame is None
                and len(rows) < FIRST_FRAME_PACKETS
                and context.width * context.height <= command.MAX_PIXELS
            ):
                frame = next(iter(_decoded(packet)), None)
            if any(name == container.format.name for _, name, _ in logs[said:]):
                complaints.append(len(rows))
            said = len(logs)
            if not packet.size:
                continue
            while behind_missing and behind_missing[0] < (packet.pos or 0):
                complaints.append(len(rows))
                del behind_missing[0]
            times = [NO_TIME if time is None else time for time in (packet.pts, packet.dts, packet.duration)]
            late = 0
            if packet.pos in index and times[1] != NO_TIME:
                late = index[packet.pos][0] - times[1]
            for watch in watching:
                watch.see(len(rows), packet)
            unseen = packet.is_discard or (context.name == "vp8" and not memoryview(packet)[0] & 0x10)
            flags = UNSEEN if _is_header(packet) else KEY * packet.is_keyframe + UNSEEN * unseen
            rows.append([*times, flags | LOST * torn, late])
            if len(rows) > MAX_PACKETS:
                raise ValueError("too many packets")
        if is_avi and context.name in UNTIMED_IN_AVI:
            _time_as_stored(rows)
        for watch in watching:
            for number in watch.lost():
                rows[number][3] |= LOST
        if complaints[-1:] == [len(rows)] and is_mp4:  # it is cut off
            late = int(np.median([row[0] - row[1] for row in rows])) if rows else 0
            lost = [entry.timestamp for entry in stream.index_entries[len(rows) :]]
            rows += [[time + late, time, 0, LOST, 0] for time in lost]
        head |= _header(container, stream, frame, colors)
        if is_mp4:
            head["unused"] = _joined(path, end)
        else:
            filled = FILLED_BYTES if container.format.name in ("mpegts", "asf") else 0
            head["unused"] = max(0.0, 1 - (end + filled) / container.size) if ends_with_packets and end else 0.0
        if rows and rows[0][0] != NO_TIME and not is_mp4:  # it counts from 0
            head["announced_s"] -= float((rows[0][0] + rows[0][4]) * stream.time_base)
        others_end_s = max((float(ends[other.index] * other.time_base) for other in beside), default=0.0)
        head["announced_s"] -= max(0.0, others_end_s - float(ends[stream.index] * stream.time_base))
        # What is said of a header is no damage of packets. Where there is no header, the first packets are read for it.
        is_hurt = complaints or (head["jumps"] and any(name == container.format.name for _, name, _ in logs))
        head["complaints"] = complaints if is_hurt else None
        values = np.array(rows, np.int64).reshape(-1, 5).T
        if container.format.name == "gif":
            values[2] = np.where(values[2] < BRIEF_CS, USUAL_CS, values[2])
            values[:2] = np.cumsum(values[2]) - values[2]
        shown = next((one.shown() for one in watching if isinstance(one, PictureNumbers)), [])
        if container.format.name == "mpegvideo":  # which has no times: the guessed ones of decoding have no gaps
            values[0] = values[1]
            values[0, shown] = values[1, sorted(shown)]
        elif container.format.name == "mpeg" and shown:
            _even(values, shown)
        elif container.format.name == "mpeg" and (values[0] == NO_TIME).any():  # of several in a packet one has a time
            values[:2] = NO_TIME
        head["in_order"] = container.format.name in ("gif", "mpegvideo") or _has_times_of_storage(
            container, stream, values
        )
        return head, values


def _even(values: np.ndarray, shown: Sequence[int]) -> None:
    """Mend the times of a program stream.

    Args: shown: its packets in the order in which their pictures are shown; one whose beginning is gone is left out.
    """
    pts, dts, lasts, flags, _ = values
    if (lasts > 0).all() and not (values[:2] == NO_TIME).any():
        times = evened(pts[shown], lasts[shown])
        flags[np.array(shown)[times != pts[shown]]] |= GUESSED
        pts[shown] = times
        stored = sorted(shown)
        dts[stored] = evened(dts[stored], lasts[stored])


def _has_times_of_storage(container: Any, stream: Any, values: np.ndarray) -> bool:
    """Whether its pictures are reordered and its times are not: it was copied from where there are no times.

    An AVI, which counts its packets in any case, is none of these.
    """
    is_reordered = stream.codec_context.has_b_frames and container.format.name != "avi"
    return bool(is_reordered and (values[0] == values[1]).all())


def _packets(container: Any, streams: Iterable[Any]) -> Iterator[Any]:
    """The packets of streams up to where ffmpeg stops reading, too. Raises: FFmpegError if that is before the first.

    Behind the last one PyAV may fail, where another stream first appeared on the way.
    """
    import av

    is_any = is_read = False
    while not is_read:
        try:
            for packet in container.demux(*streams):
                is_any = True
                yield packet
            is_read = True
        except av.error.BlockingIOError:  # it has skipped as much as it does at once, and goes on when asked again
            continue
        except IndexError:
            is_read = True
        except av.error.FFmpegError:
            if not is_any:
                raise
            is_read = True


def _joined(path: str, end: int) -> float:
    """The part of an mp4 behind its first file, where another one was joined to it; 0.0 if packets are read of it."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        starts = [begin for kind, (begin, _) in boxes(file, 0, size) if kind == b"ftyp"]
    return 1 - starts[1] / size if len(starts) > 1 and end <= starts[1] else 0.0


def _time_as_stored(rows: list[list[int]]) -> None:
    """Show the pictures of an AVI when its packets are decoded. ffmpeg writes a delay of all behind the first one."""
    for row in rows:
        row[0] = row[1]
    if len(rows) > 1:
        steps = np.diff([dts for _, dts, *_ in rows])
        rows[0][4] += max(0, int(steps[0] - np.median(steps)))


def _is_header(packet: Any) -> bool:
    """Whether it is a header of Theora, which comes amid the pictures where files are joined (specification, 6.1)."""
    return packet.stream.codec_context.name == "theora" and packet.size > 0 and bool(memoryview(packet)[0] & 0x80)


def _main_stream(container: Any) -> Any:
    """The video stream that players show: no cover, the default one, else the largest."""
    from av.stream import Disposition

    hidden = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & hidden]
    return max(
        streams,
        key=lambda s: (bool(s.disposition & Disposition.default), s.codec_context.width * s.codec_context.height),
        default=None,
    )


def _colors(shown: Any) -> list[int]:
    """Matrix, primaries and transfer of a frame, or what a container says of them; numbers of ITU-T H.273."""
    return [int(shown.colorspace), int(shown.color_primaries), int(shown.color_trc)]


def _header(container: Any, stream: Any, frame: Any, colors: Sequence[int]) -> dict[str, Any]:
    context = stream.codec_context
    shown = context if frame is None else frame
    sar = stream.sample_aspect_ratio or context.sample_aspect_ratio or 1
    rates = [stream.average_rate, stream.base_rate, stream.guessed_rate, context.framerate]
    if container.duration is None:  # no container: the rate that the codec says
        rates.reverse()
    rate = next(filter(None, rates), 25)
    named = [one if one not in UNNAMED else other for one, other in zip(_colors(shown), colors)]
    lasts_s = 0.0
    if stream.duration and not container.format.name.startswith("matroska"):
        lasts_s = float(stream.duration * stream.time_base)
    elif len(container.streams) == 1:  # Matroska says but how long all streams together last
        lasts_s = (container.duration or 0) / 1e6
    return {
        "stream": stream.index,
        "announced_s": 0.0 if container.format.flags & TS_DISCONT else lasts_s,
        "format": container.format.name,
        "jumps": bool(container.format.flags & TS_DISCONT),
        "pix_fmt": (context.pix_fmt if frame is None else frame.format.name) or "unknown",
        "codec": context.name,
        # WebM keeps it beside the pictures, where a decoder for it alone finds it.
        "has_alpha": _has_alpha(shown.format) or stream.metadata.get("alpha_mode") == "1",
        "width": shown.width or 0,
        "height": shown.height or 0,
        "sar": [sar.numerator, sar.denominator],
        "fps": [rate.numerator, rate.denominator],
        "tick": [stream.time_base.numerator, stream.time_base.denominator],
        "display": _display_matrix(frame),
        "interlaced": frame is not None and bool(frame.interlaced_frame),
        "field_order": int(getattr(context, "field_order", None) or 0),  # of PyAV 18, which needs Python 3.11
        **dict(zip(("matrix", "primaries", "transfer"), named)),
    }


def _has_alpha(form: Any) -> bool:
    """Whether pixels of a format may be transparent, as those of a palette may."""
    return form is not None and (form.has_palette or any(part.is_alpha for part in form.components))


def _display_matrix(frame: Any) -> list[int] | None:
    """The four numbers a b c d that turn and mirror a frame, each -1, 0 or 1: x' = a x + c y, y' = b x + d y."""
    from av.sidedata.sidedata import Type

    if frame is None:
        return None
    with contextlib.suppress(ValueError):  # of a type that PyAV does not know
        if matrix := frame.side_data.get(Type.DISPLAYMATRIX):
            values = np.frombuffer(bytes(matrix), np.int32)[[0, 1, 3, 4]] / (1 << 16)
            return [round(value / (np.abs(values).max() or 1)) for value in values]
    turned: dict[int, list[int]] = {90: [0, -1, 1, 0], 180: [-1, 0, 0, -1], 270: [0, 1, -1, 0]}
    return turned.get(round(frame.rotation) % 360)


def _decoded(packet: Any) -> Iterator[Any]:
    import av

    with contextlib.suppress(av.error.FFmpegError, ValueError):
        yield from packet.decode()


def _decode(
    path: str, index: int, first: int, stop: int, logs: Sequence[tuple[int, str, str]]
) -> tuple[dict[str, Any], np.ndarray]:
    import av

    bad: list[int] = []
    came: list[int] = []
    with _open(path) as container:
        stream = container.streams[index]
        context = stream.codec_context
        context.thread_count, context.options = 1, {"err_detect": "explode"}
        strip = None
        if units := _NO_PICTURE.get(context.name):
            strip = av.bitstream.BitStreamFilterContext(f"filter_units=remove_types={units}", stream, stream)
        number = -1
        for packet in _packets(container, [stream]):
            number += bool(packet.size)
            if packet.size and not first <= number < stop:
                if number < stop:
                    continue
                break
            said = len(logs)
            try:
                parts = [packet] if strip is None or not packet.size else strip.filter(packet)
                came += [frame.pts for part in parts for frame in context.decode(part) if frame.pts is not None]
            except av.error.FFmpegError:
                if not _is_header(packet) and (
                    logs[said:] == [] or any(not HARMLESS.search(text) for *_, text in logs[said:])
                ):
                    bad.append(number)
            else:
                if context.name == "gif" and any(level <= av.logging.ERROR for level, *_ in logs[said:]):
                    bad.append(number)  # its decoder goes on in any case
        with contextlib.suppress(av.error.FFmpegError, ValueError):
            came += [frame.pts for frame in context.decode(None) if frame.pts is not None]
    if context.name == "hevc":  # whose decoder does not see damage that begins amid a picture, but in the next one
        bad = sorted({max(first, number - behind) for number in bad for behind in (0, 1)})
    return {"bad": len(bad)}, np.array([*bad, *came], np.int64)

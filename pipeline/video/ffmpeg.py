"""ffmpeg within limits: time, memory, messages, pixels, formats and protocols. Nothing else runs it.

The binary inside imageio-ffmpeg's wheel is used or, where it has none, the one on PATH. Commands are put together by
ffmpeg-python and run here, because its own runners take neither a closed stdin nor a limit. A path is always passed
as `file:PATH` with only the file protocol allowed: a name that begins with '-' or reads like 'concat:' or 'http:' is
a file name and nothing else. Formats that name other files or addresses inside (playlists, SDP, SVG) are not read.
"""

import contextlib
import fcntl
import os
import select
import shutil
import subprocess
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pipeline.video.animation import MAX_FRAME_PIXELS, AnyPath, head, is_animation, is_foreign, readable
from pipeline.video.errors import VideoError, video_error

ANSWER_TIMEOUT_S = 60.0  # for what it can
COMMAND_TIMEOUT_S = 600.0  # for one command; decoding has some more for each frame
MAX_MEMORY_BYTES = 4 << 30  # of one process; 8K video on 16 threads needs about 2 GiB
MAX_PIXELS = MAX_FRAME_PIXELS  # of one frame; also of frames that turn out larger than the header says
PIPE_BYTES = 1 << 20  # between a command and this process: fewer, larger reads
MAX_MESSAGES_BYTES = 1 << 20  # kept of what a command prints to stderr; the rest is read and dropped

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"}
    | {".heic", ".heif", ".hif", ".avif"}
)
FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,gif,yuv4mpegpipe,mxf,image2,"  # what the suffixes stand for
    "h264,hevc,m4v,obu,ivf,nut,dv,rm,wtv,apng,mjpeg,vc1,h263,"  # and other plain containers and streams
    "png_pipe,jpeg_pipe,bmp_pipe,tiff_pipe,webp_pipe"  # images, where no name tells their kind
)

# How an image file begins, and what decodes it.
_STILLS = {b"\x89PNG": "png", b"\xff\xd8": "mjpeg", b"RIFF": "webp", b"II*\0": "tiff", b"MM\0*": "tiff", b"BM": "bmp"}

# `ulimit` before `exec` limits the command alone and needs no code between fork and exec. -d counts the memory that
# a process may write to, so that address space which threads only reserve is free. macOS takes it and does nothing.
_LIMITED = 'ulimit -d "$1" 2>/dev/null; shift; exec "$@"'


def ffmpeg_exe() -> str:
    """Path of the ffmpeg to use: the one in imageio-ffmpeg's wheel or, if that lacks something, the first on PATH.

    The wheel's is of one version on all machines, and starts in a fifth of the time of one of many shared libraries.
    The environment variable IMAGEIO_FFMPEG_EXE names the only one that may be used.

    Raises VideoError if none will do.
    """
    if named := os.environ.get("IMAGEIO_FFMPEG_EXE"):
        if cause := lacks(named):
            raise video_error(named, cause, "unset IMAGEIO_FFMPEG_EXE, or name another there")
        return named
    import imageio_ffmpeg

    found, cause = shutil.which("ffmpeg"), "is not there"
    with contextlib.suppress(RuntimeError):  # no binary for this machine
        given = str(imageio_ffmpeg.get_ffmpeg_exe())
        if not (cause := lacks(given)):
            return given
        found = found or given
    if found and not (cause := lacks(found)):
        return found
    raise video_error(found or "ffmpeg", cause, "pip install imageio-ffmpeg, whose own will do")


@cache
def lacks(exe: str) -> str:
    """What of all that is needed here an ffmpeg lacks, as the end of a sentence about it; "" for none."""
    answers = []
    for words in (["-encoders"], ["-h", "long"]):
        try:
            done = subprocess.run(
                [exe, "-v", "error", *words], capture_output=True, stdin=subprocess.DEVNULL, timeout=ANSWER_TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired):
            return "does not run"
        answers.append(done.stdout)
    encoders, options = answers
    if b" libx264 " not in encoders:
        return "cannot write H.264 (no encoder libx264)"
    return "" if b"-fps_mode" in options else "is older than 5.1 (no option -fps_mode)"


@cache
def has(exe: str, kind: str, name: str) -> bool:
    """Whether this ffmpeg was built with one of the "filters", or one of the "decoders"."""
    done = run(exe, [exe, "-hide_banner", "-v", "error", f"-{kind}"])
    return name.encode() in done.stdout.split()


def url(path: AnyPath) -> str:
    """A path as ffmpeg takes it for a file name, whatever is in it."""
    return f"file:{os.fspath(path)}"


FILE = url("FILE")  # the one file of a graph, read or written: `ffmpeg_args` puts its path there


def is_still(path: AnyPath) -> bool:
    """Whether ffmpeg reads it as an image: it is one by its name, does not move, and is not read from a copy."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES and not is_animation(path) and not is_foreign(path)


def input_options(path: AnyPath) -> dict[str, str]:
    """Options that ffmpeg gets before it opens `path`."""
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS, "max_pixels": str(MAX_PIXELS)}
    if is_still(path):
        options |= {"f": "image2", "pattern_type": "none"}  # else '%' in the name is read as a number pattern
        if decoder := next((name for begin, name in _STILLS.items() if head(path, 4).startswith(begin)), None):
            options["c:v"] = decoder  # else by the suffix, which may be wrong
        if options.get("c:v") == "png":
            options["err_detect"] = "crccheck+explode"  # else checksums are not looked at
    return options


def input_node(path: AnyPath, **more: Any) -> Any:
    """`path` as the input of an ffmpeg-python graph. It cannot take the path itself: not every one is UTF-8.

    Args: more: options of the input, such as ss (seconds to begin at).
    """
    import ffmpeg

    return ffmpeg.input(FILE, **input_options(path), **more)


def ffmpeg_args(path: AnyPath, node: Any, loglevel: str = "error") -> list[str]:
    """The command line of an ffmpeg-python graph whose FILE is `path`."""
    args = [url(readable(path)) if word == FILE else word for word in node.get_args()]
    return [ffmpeg_exe(), "-hide_banner", "-nostdin", "-y", "-v", loglevel, *args]


R = TypeVar("R", bound="Running")


class Running:
    """A command on `path` that has been started; the `with` block that holds it ends with its death.

    Args: stdin: `subprocess.PIPE` to `write` to it.

    Raises: VideoError from `read`, `write` and `wait` when they have waited `timeout_s` in all.
    """

    def __init__(self, path: AnyPath, args: list[str], *, timeout_s: float, stdin: int = subprocess.DEVNULL) -> None:
        self.messages = bytearray()  # stderr, complete after `wait`
        self._path, self._timeout_s, self._left_s = path, timeout_s, timeout_s
        limited = ["/bin/sh", "-c", _LIMITED, "sh", str(MAX_MEMORY_BYTES >> 10), *args]
        self._process = subprocess.Popen(limited, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with contextlib.suppress(AttributeError, OSError):  # of Linux, and only as large as it allows
            fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # type: ignore[arg-type]
        self._drain = threading.Thread(target=self._keep_messages, daemon=True)
        self._drain.start()

    def __enter__(self: R) -> R:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._drain.join()
        assert self._process.stdout is not None and self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()
        if self._process.stdin:
            self._process.stdin.close()

    def renew(self, path: AnyPath, timeout_s: float) -> None:
        """Give it another file to work on, and this time for it."""
        self._path, self._timeout_s, self._left_s = path, timeout_s, timeout_s

    def read(self, size: int) -> bytearray:
        """The next `size` bytes of stdout; fewer at its end."""
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        raw, count = bytearray(size), 0
        with memoryview(raw) as place:
            while count < size:
                self._await(fd, select.POLLIN)
                if not (got := os.readv(fd, [place[count:]])):
                    break
                count += got
        del raw[count:]
        return raw

    def write(self, data: memoryview) -> bool:
        """Give the command's stdin these bytes; False if it has stopped reading, `wait` then tells why."""
        assert self._process.stdin is not None
        fd = self._process.stdin.fileno()
        os.set_blocking(fd, False)
        while data:
            self._await(fd, select.POLLOUT)
            try:
                data = data[os.write(fd, data[: 1 << 20]) :]
            except BrokenPipeError:
                return False
        return True

    def wait(self) -> int:
        """The exit status, once the command has ended by itself. Its stdin ends here, its stdout has been read."""
        if self._process.stdin:
            self._process.stdin.close()
        assert self._process.stdout is not None
        self._await(self._process.stdout.fileno(), 0)  # until its end: `subprocess` alone looks at long intervals
        try:
            status = self._process.wait(max(self._left_s, 1.0))
        except subprocess.TimeoutExpired:
            raise self._stalled() from None
        self._drain.join()
        return status

    def _await(self, fd: int, event: int) -> None:
        """Return when the command has something to read or room to write, or has ended; VideoError when the time is up.

        Args: event: of `select`; 0: only its end.
        """
        poll = select.poll()
        poll.register(fd, event)
        started = time.monotonic()
        ready = poll.poll(1000 * max(self._left_s, 0))
        self._left_s -= time.monotonic() - started
        if not ready:
            raise self._stalled()

    def _stalled(self) -> VideoError:
        return video_error(self._path, f"ffmpeg was not done after {self._timeout_s:g} s", "re-encode the file")

    def _keep_messages(self) -> None:
        assert self._process.stderr is not None
        poll = select.poll()
        poll.register(self._process.stderr, select.POLLIN)
        while poll.poll():
            block = os.read(self._process.stderr.fileno(), 1 << 16)
            self._told(block)
            if not block:
                break

    def _told(self, block: bytes) -> None:
        """Takes what it printed to stderr, as it comes; b"" at the end."""
        self.messages += block[: MAX_MESSAGES_BYTES - len(self.messages)]


def run(
    path: AnyPath,
    args: list[str],
    *,
    max_bytes: int = 1 << 20,
    timeout_s: float = COMMAND_TIMEOUT_S,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command on `path` to its end, whatever its exit status.

    Raises: VideoError when it takes longer than `timeout_s`, or prints more than `max_bytes` to stdout.
    """
    with Running(path, args, timeout_s=timeout_s) as command:
        out = command.read(max_bytes + 1)
        if len(out) > max_bytes:
            raise video_error(path, f"makes ffmpeg print more than {max_bytes} bytes", "re-encode the file")
        status = command.wait()
        return subprocess.CompletedProcess(args, status, bytes(out), bytes(command.messages))

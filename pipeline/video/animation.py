"""Image files that move: which they are, and a copy as a video of those that ffmpeg cannot read in every version.

ffmpeg reads GIF and APNG. Pillow reads WebP and AVIF, and their pictures go into a .mov without loss. So does the one
picture of a frame that ffmpeg does not read as it is seen, such as a HEIC or one with an ICC profile.
"""

import atexit
import functools
import hashlib
import os
import re
import shutil
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.video.errors import VideoError, video_error

AnyPath = str | os.PathLike[str]
HEAD_BYTES = 1 << 16
MAX_FRAME_PIXELS = 1 << 26  # of one picture, 8192 x 8192
MAX_PIXELS = 1 << 34  # of all pictures together: 8,000 of 1920x1080, and 64 GiB to write at the most
KEPT = 4  # copies of a process
TICKS = 1000  # a second: both formats count thousandths
BRIEF, USUAL = 10, 100  # ms: what lasts no longer than the first is shown for the second, as browsers do


def is_animation(path: AnyPath) -> bool:
    """Whether it is a PNG, WebP or AVIF, by its content, whose header says that it moves; False if it is unreadable."""
    begin = head(path, HEAD_BYTES)
    return _png_moves(begin) or _webp_moves(begin) or _avif_moves(begin)


def is_foreign(path: AnyPath) -> bool:
    """Whether it is a still image, by its content, that not every ffmpeg reads, or reads with the colours of its ICC
    profile."""
    begin = head(path, HEAD_BYTES)
    if begin.startswith(_USUAL):
        return _is_beyond_ffmpeg(path)
    is_heif = begin[4:8] == b"ftyp" and begin[8:12] in _HEIF and not _avif_moves(begin)
    return is_heif or bool(re.match(rb"P[1-6]\s", begin))


def _is_beyond_ffmpeg(path: AnyPath) -> bool:
    """By an ICC profile, or how a TIFF is packed: ffmpeg gives black for JPEG. Of more than 8 bits a TIFF is ffmpeg's
    in any case."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG", "JPEG", "WEBP", "TIFF"]) as image:
            is_deep = max(getattr(image, "tag_v2", {}).get(_BITS, (1,))) > 8
            is_hard = image.info.get("icc_profile") or image.info.get("compression") in _PACKINGS
            return bool(is_hard) and not is_deep and not is_animation(path)
    except Exception:  # Pillow's readers raise of all kinds
        return False


def head(path: AnyPath, size: int) -> bytes:
    """The first `size` bytes of a file; b"" if it is no file or cannot be read."""
    if not os.path.isfile(path):  # opening a pipe would wait
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except (OSError, ValueError):
        return b""


def readable(path: AnyPath) -> str:
    """The file that ffmpeg reads in place of `path`: itself, or a copy of its pictures. Raises: VideoError."""
    begin = head(path, HEAD_BYTES)
    if not (_webp_moves(begin) or _avif_moves(begin) or is_foreign(path)):
        return os.fspath(path)
    status = os.stat(path)
    return str(_copy(os.path.abspath(path), status.st_mtime_ns, status.st_size))


def _png_moves(begin: bytes) -> bool:
    return begin.startswith(b"\x89PNG") and b"acTL" in begin.partition(b"IDAT")[0]


def _webp_moves(begin: bytes) -> bool:
    """By the flag of the extended header (WebP container specification)."""
    return begin[:4] == b"RIFF" and begin[8:16] == b"WEBPVP8X" and bool(begin[20:21]) and bool(begin[20] & 2)


def _avif_moves(begin: bytes) -> bool:
    """By its brands (ISO/IEC 14496-12): "avis" is an image sequence."""
    size = int.from_bytes(begin[:4], "big")
    return begin[4:8] == b"ftyp" and b"avis" in (begin[i : i + 4] for i in (8, *range(16, min(size, len(begin)), 4)))


_PACKINGS = ("jpeg", "tiff_jpeg", "lzma", "webp", "zstd")  # Pillow's names
_BITS = 258  # tag of TIFF 6.0
_USUAL = (b"\x89PNG", b"\xff\xd8", b"RIFF", b"II*\0", b"MM\0*")  # how files begin that ffmpeg reads, as a rule
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"avif")  # brands of stills (ISO/IEC 23008-12)


@functools.cache
def _folder(process: int) -> Path:
    """A folder for the copies of this process, which is removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix=f"hp-vae-gan-animations-{process}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


_copies: list[Path] = []  # those that are kept, the oldest first


def _name(*parts: object) -> str:
    said = repr(parts).encode("utf-8", "surrogateescape")
    return hashlib.sha1(said, usedforsecurity=False).hexdigest()


def _copy(path: str, mtime_ns: int, size: int) -> Path:
    """The pictures of an image file, each with its duration, as PNG in a .mov."""
    from PIL import Image

    from pipeline.video import pillow  # which imports Pillow: readers of containers start without it

    place = _folder(os.getpid()) / f"{_name(path, mtime_ns, size)}.mov"
    if place.is_file():
        return place
    try:
        if is_foreign(path):
            with Image.open(path, formats=pillow.formats()) as image:
                if image.width * image.height > MAX_FRAME_PIXELS:
                    cause = f"is {image.height}×{image.width} px (H×W), {MAX_FRAME_PIXELS} in all are the most"
                    raise video_error(path, cause, "give a smaller image")
                picture = pillow.seen(image, path)
            _write(place, picture, 1)
            return _kept(place)
        with Image.open(path, formats=["WEBP", "AVIF"]) as image:
            count = int(getattr(image, "n_frames", 1))
            if image.width * image.height * count > MAX_PIXELS:
                cause = f"is an animation of {count} pictures of {image.height}×{image.width} px (H×W)"
                raise video_error(path, f"{cause}, {MAX_PIXELS} px in all are the most", "cut it into parts")
            _write(place, image, count)
    except VideoError:
        raise
    except Exception as error:  # Pillow's readers raise of all kinds
        place.unlink(missing_ok=True)
        what = "an image" if is_foreign(path) else "an animation"
        cause = f"is {what} that cannot be read to its end{pillow.said(error)}"
        raise video_error(path, cause, "export it again") from None
    return _kept(place)


def _kept(place: Path) -> Path:
    """The same copy; the oldest one goes if there are too many."""
    _copies.append(place)
    if len(_copies) > KEPT:
        _copies.pop(0).unlink(missing_ok=True)  # an ffmpeg that reads it has it open
    return place


def _write(place: Path, image: Any, count: int) -> None:
    import av

    has_alpha = image.has_transparency_data
    with av.open(str(place), "w", format="mov") as container:
        stream = container.add_stream(
            "png", rate=Fraction(TICKS), options={"compression_level": "1" if count > 1 else "0"}
        )
        stream.width, stream.height = image.size
        stream.pix_fmt = "rgba" if has_alpha else "rgb24"
        stream.codec_context.time_base = stream.time_base = Fraction(1, TICKS)
        now = 0
        for number in range(count):
            image.seek(number)
            image.load()
            lasts = round(image.info.get("duration") or 0)
            lasts = lasts if lasts > BRIEF else USUAL
            pixels = np.array(image.convert("RGBA" if has_alpha else "RGB"))
            frame = av.VideoFrame.from_ndarray(pixels, stream.pix_fmt)
            frame.pts, frame.time_base = now, Fraction(1, TICKS)
            for packet in stream.encode(frame):
                packet.duration = lasts
                container.mux(packet)
            now += lasts
        container.mux(stream.encode(None))

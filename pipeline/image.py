"""Image files, which are clips of one frame: `probe` reads the header of one, `read` and `read_rgba` its pixels.

`check` tells of one that cannot be read to its end.

Pillow decodes them (video/pillow.py). What it would read wrongly, of TIFF files, ffmpeg decodes.
"""

import io
import logging
import os
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from infra.errors import counted
from pipeline import video
from pipeline.video import animation, pillow
from pipeline.video.errors import VideoError, video_error
from pipeline.video.info import MAX_SIDE_PX, check_file, is_text, shrunk

IMAGE_SUFFIXES = video.IMAGE_SUFFIXES
# What is an image to other programs and is not read here: drawings, projects, and what cameras' sensors saw.
OTHER_SUFFIXES = frozenset(
    {".svg", ".svgz", ".eps", ".psd", ".xcf", ".jp2", ".j2k", ".jxl", ".jxr", ".tga", ".exr", ".hdr", ".pfm", ".dds"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".dpx", ".cin"}
)
_MOVING = ("PNG", "WEBP", "GIF", "AVIF")  # those that may hold an animation
_PROFILE = 0x8773  # a tag of TIFF
_BANDS, _PLANAR, _SAMPLES = 277, 284, 339  # tags of TIFF 6.0
_HDR = re.compile(rb"colrnclx..\x00[\x10\x12]|cICP.[\x10\x12]", re.DOTALL)  # transfer 16 or 18 of ITU-T H.273

# Of strange tags and large sizes; what matters is an error here. Their default shows them to the user.
warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class ImageInfo:
    """What an image file says of itself. Sizes in pixels as displayed: turned as its EXIF says."""

    path: str
    width: int
    height: int
    pictures: int = 1  # pages of a TIFF, pictures of a HEIC; the first or main one is the image
    is_hdr: bool = False  # whether it says that its colours are PQ or HLG, which are read as if they were SDR's


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an image by its name; one that may be an animation, or that has no suffix, by its content."""
    suffix = Path(path).suffix.lower()
    if os.path.isdir(path):
        return False
    if suffix in ("", ".gif", ".apng") or (suffix in IMAGE_SUFFIXES and video.is_animation(path)):
        try:
            with _opened(path):
                return True
        except VideoError:
            return False
    return suffix in IMAGE_SUFFIXES | OTHER_SUFFIXES


def probe(path: str | os.PathLike[str]) -> ImageInfo:
    """Read an image file's header.

    Raises: VideoError when the path is missing, empty, no image that is read here, an animation, or has more pixels
    than may be decoded.
    """
    with _opened(path) as image:
        width, height = image.size
        if image.format != "TIFF" and pillow.orientation(image) >= 5:  # of a TIFF, Pillow tells and gives it upright
            width, height = height, width
        pictures = getattr(image, "n_frames", 1) if image.format in ("TIFF", "HEIF") else 1
        is_hdr = image.format in ("PNG", "HEIF", "AVIF") and _is_hdr(path)
        return ImageInfo(os.fspath(path), width, height, pictures, is_hdr)


def read(path: str | os.PathLike[str], max_height: int | None = None) -> np.ndarray:
    """The pixels of an image as they are seen: sRGB, upright, on white where they are transparent.

    Args: max_height: px; a higher image is shrunk to it, by the mean of the pixels that become one. None: as it is.

    Returns: uint8 (1, H, W, 3) RGB.
    Raises: VideoError as `probe` does, and for one that is cut off, damaged, or has no colours that can be shown.
    """
    seen = _seen(path)
    if seen.mode == "RGBA":
        white = Image.new("RGB", seen.size, (255, 255, 255))
        white.paste(seen, mask=seen.getchannel("A"))
        seen = white
    return np.array(_shrunk(seen, max_height))[None]


def check(path: str | os.PathLike[str]) -> None:
    """Read an image to its end, and keep nothing of it.

    Raises: VideoError as `read` does.
    """
    with _opened(path) as image:
        image.draft(None, (1, 1))  # of a JPEG an eighth of each side: two thirds of the time, and little memory
        pillow.load(image, path)


def read_rgba(path: str | os.PathLike[str], max_height: int | None = None) -> np.ndarray:
    """The pixels of an image with their alpha: sRGB, upright.

    Args: max_height: px; as of `read`. What is transparent has no part in the colours of a shrunk image.

    Returns: uint8 (1, H, W, 4) RGBA, straight alpha from 0, transparent, to 255, which it is where the file has none.
    Raises: VideoError as `read` does.
    """
    return np.array(_shrunk(_seen(path).convert("RGBA"), max_height))[None]


def _seen(path: str | os.PathLike[str]) -> Image.Image:
    """An image as it is seen, of mode RGB or RGBA. Raises: VideoError."""
    with _opened(path) as image:
        return pillow.seen(image, path)


def _shrunk(image: Image.Image, max_height: int | None) -> Image.Image:
    if max_height is None or image.height <= max_height:
        return image
    return image.resize(shrunk(image.width, image.height, max_height), Image.Resampling.BOX)


# -- files


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """An image whose header was read, and whose size may be decoded. Raises: VideoError."""
    head = check_file(path, "an image")
    if Path(path).suffix.lower() in OTHER_SUFFIXES:
        raise video_error(path, "is in no image format that is read here", "export it as png")
    if is_text(head) and head[:2] not in (b"P1", b"P2", b"P3"):
        raise video_error(path, "is a text file, not an image", "give an image file")
    with open(path, "rb") as file:
        image = _header(path, file, head)
        _check_size(path, *image.size)
        if image.format in _MOVING and (count := _count(image)) > 1:
            cause = f"is an animation of {counted(count, 'picture')}, which is not read from {image.format}"
            raise video_error(path, cause, "convert it to mp4")
        if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
            raise _no_colours(path)
        if image.format == "TIFF" and _is_misread(image):
            image = _by_ffmpeg(path)
        yield image


def _header(path: str | os.PathLike[str], file: io.BufferedReader, head: bytes) -> Image.Image:
    """What Pillow's reader of the file's format makes of it. Not Image.open: it stops at sizes without telling them."""
    said = ""
    for name in pillow.formats():
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(head[:16]) is not True:
            continue
        try:
            file.seek(0)
            return factory(file, os.fspath(path))
        except Exception as error:  # Pillow's readers raise of all kinds
            if name == "TIFF":
                return _by_ffmpeg(path)
            said = said or pillow.said(error)
    if said and _is_cut_off(file, head):
        raise video_error(path, "is an image that cannot be read to its end", "copy or export it again")
    raise video_error(path, f"is not an image that can be read{said}", "check it, or export it as png")


def _is_cut_off(file: io.BufferedReader, head: bytes) -> bool:
    """Whether a WebP, AVIF or HEIC is shorter than its chunk or its boxes say that it is."""
    end, place = file.seek(0, os.SEEK_END), 0
    if head[:4] == b"RIFF":
        return 8 + int.from_bytes(head[4:8], "little") > end
    while head[4:8] == b"ftyp" and place + 8 <= end:
        file.seek(place)
        size = int.from_bytes(file.read(4), "big")
        if size < 8:  # to the end of the file, or longer than 4 GiB
            break
        place += size
    return place > end


def _is_hdr(path: str | os.PathLike[str]) -> bool:
    """By the first colours in the header of a HEIC, an AVIF or a PNG; what comes later is of its gain map."""
    begin = animation.head(path, animation.HEAD_BYTES).partition(b"IDAT")[0]
    first = re.search(b"colr|cICP", begin)
    return first is not None and bool(_HDR.match(begin, first.start()))


def _check_size(path: str | os.PathLike[str], width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE_PX or width * height > video.MAX_PIXELS:
        most = f"{MAX_SIDE_PX} a side and {video.MAX_PIXELS} in all are the most"
        raise video_error(path, f"is {height}×{width} px (H×W), {most}", "give a smaller image")


def _count(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # what comes after the first picture is of no use
        return 1


# -- TIFF


def _is_misread(image: Image.Image) -> bool:
    """Whether Pillow gives this TIFF wrong pixels: colours of 16 bits that are stored one after the other."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    return tags.get(_PLANAR, 1) == 2 and max(tags.get(pillow.BITS, (1,))) > 8 and len(image.getbands()) > 1


def _by_ffmpeg(path: str | os.PathLike[str]) -> Image.Image:
    """A TIFF's pixels by ffmpeg, with the tags that go with them. Raises: VideoError."""
    try:
        with open(path, "rb") as file:
            tags = ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
        kinds, photometric = set(tags.get(_SAMPLES, (1,))), tags.get(pillow.PHOTOMETRIC)
        bands = tags.get(_BANDS, 1)
        profile, orientation = tags.get(_PROFILE), tags.get(pillow.ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, KeyError, struct.error, TypeError) as error:
        cause = f"is not an image that can be read{pillow.said(error)}"
        raise video_error(path, cause, "check it, or export it as png") from None
    if kinds != {1} or photometric not in (0, 1, 2):
        raise _no_colours(path)
    if bands > 4:
        raise video_error(path, f"has {bands} bands, and 4, colours and alpha, are the most", "export it in RGB")
    image = Image.fromarray(video.decode_stored(path))
    image.info["icc_profile"] = profile
    image.getexif()[pillow.ORIENTATION] = orientation
    return image


def _no_colours(path: str | os.PathLike[str]) -> VideoError:
    cause = "holds numbers that are no colours of 8 or 16 bits, such as those of a measurement"
    return video_error(path, cause, "export it with 8 or 16 bits a colour")

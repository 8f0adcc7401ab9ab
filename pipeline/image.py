"""Image files, which are clips of one frame: `probe` reads the header of one, `read` and `read_rgba` its pixels.

Pillow decodes them, here and nowhere else. What it would read wrongly, of TIFF files, ffmpeg decodes.
"""

import functools
import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from infra.errors import counted
from pipeline import video
from pipeline.video import animation
from pipeline.video.errors import VideoError, video_error
from pipeline.video.info import MAX_SIDE_PX, check_file, is_text, round_half_up

IMAGE_SUFFIXES = video.IMAGE_SUFFIXES
# What is an image to other programs and is not read here: drawings, projects, and what cameras' sensors saw.
OTHER_SUFFIXES = frozenset(
    {".svg", ".svgz", ".eps", ".psd", ".xcf", ".jp2", ".j2k", ".jxl", ".jxr", ".tga", ".exr", ".hdr", ".pfm", ".dds"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"}
)
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "AVIF", "HEIF")  # of Pillow
_MOVING = ("PNG", "WEBP", "GIF", "AVIF")  # those that may hold an animation
_ORIENTATION, _PROFILE = 0x0112, 0x8773  # tags of EXIF and TIFF
_BITS, _PHOTOMETRIC, _PLANAR, _SAMPLES = 258, 262, 284, 339  # tags of TIFF 6.0
_HDR = re.compile(rb"colrnclx..\x00[\x10\x12]|cICP.[\x10\x12]", re.DOTALL)  # transfer 16 or 18 of ITU-T H.273
_UPRIGHT = {  # EXIF 2.3, tag Orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of ICC profiles: the modes that are in them

# Of strange tags and large sizes; what matters is an error here. Their default shows them to the user.
warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\.")


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
        if image.format != "TIFF" and _orientation(image) >= 5:  # of a TIFF, Pillow tells and gives it upright
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


def read_rgba(path: str | os.PathLike[str], max_height: int | None = None) -> np.ndarray:
    """The pixels of an image with their alpha: sRGB, upright.

    Args: max_height: px; as of `read`. What is transparent has no part in the colours of a shrunk image.

    Returns: uint8 (1, H, W, 4) RGBA, straight alpha from 0, transparent, to 255, which it is where the file has none.
    Raises: VideoError as `read` does.
    """
    return np.array(_shrunk(_seen(path).convert("RGBA"), max_height))[None]


def _seen(path: str | os.PathLike[str]) -> Image.Image:
    """An image as it is seen: sRGB, upright, of mode RGB, or RGBA if it may be transparent. Raises: VideoError."""
    with _opened(path) as image:
        if image.format == "PNG":
            _check_sums(path)
        orientation = 1 if image.format == "TIFF" else _orientation(image)
        try:
            image.load()
        except Exception as error:  # Pillow's readers raise of all kinds
            cause = f"is an image that cannot be read to its end{_said(error)}"
            raise video_error(path, cause, "copy or export it again") from None
        seen = _colours(image)
        return seen.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else seen


def _shrunk(image: Image.Image, max_height: int | None) -> Image.Image:
    if max_height is None or image.height <= max_height:
        return image
    width = max(1, round_half_up(Fraction(image.width * max_height, image.height)))
    return image.resize((width, max_height), Image.Resampling.BOX)


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
    for name in _formats():
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(head[:16]) is not True:
            continue
        try:
            file.seek(0)
            return factory(file, os.fspath(path))
        except Exception as error:  # Pillow's readers raise of all kinds
            if name == "TIFF":
                return _by_ffmpeg(path)
            said = said or _said(error)
    raise video_error(path, f"is not an image that can be read{said}", "check it, or export it as png")


@functools.cache
def _formats() -> tuple[str, ...]:
    import pillow_heif

    Image.init()
    pillow_heif.register_heif_opener()
    return _FORMATS


def _is_hdr(path: str | os.PathLike[str]) -> bool:
    """By the first colours in the header of a HEIC, an AVIF or a PNG; what comes later is of its gain map."""
    begin = animation.head(path, animation.HEAD_BYTES).partition(b"IDAT")[0]
    first = re.search(b"colr|cICP", begin)
    return first is not None and bool(_HDR.match(begin, first.start()))


def _check_sums(path: str | os.PathLike[str]) -> None:
    """Raises: VideoError for a PNG one of whose critical chunks is not as its checksum says. Pillow looks at few."""
    with open(path, "rb") as file:
        file.seek(8)
        while len(begin := file.read(8)) == 8:
            left, kind = struct.unpack(">I4s", begin)
            found = zlib.crc32(kind)
            while left and (part := file.read(min(left, 1 << 20))):
                left, found = left - len(part), zlib.crc32(part, found)
            said = file.read(4)
            if kind.isupper() and len(said) == 4 and found != int.from_bytes(said, "big"):
                raise video_error(path, "is a damaged image (a checksum is wrong)", "copy or export it again")
            if kind == b"IEND":
                break


def _check_size(path: str | os.PathLike[str], width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE_PX or width * height > video.MAX_PIXELS:
        most = f"{MAX_SIDE_PX} a side and {video.MAX_PIXELS} in all are the most"
        raise video_error(path, f"is {width}x{height} pixels, {most}", "give a smaller image")


def _count(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # what comes after the first picture is of no use
        return 1


def _said(error: Exception) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return f" ({video.printable(line)[:200].rstrip('.')})"


def _orientation(image: Image.Image) -> int:
    """As EXIF says; 1, which is upright, where it says nothing that can be read."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # of any kind: it is of no use then
        return 1
    return found if found in _UPRIGHT else 1


# -- TIFF


def _is_misread(image: Image.Image) -> bool:
    """Whether Pillow gives this TIFF wrong pixels: colours of 16 bits that are stored one after the other."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    return tags.get(_PLANAR, 1) == 2 and max(tags.get(_BITS, (1,))) > 8 and len(image.getbands()) > 1


def _by_ffmpeg(path: str | os.PathLike[str]) -> Image.Image:
    """A TIFF's pixels by ffmpeg, with the tags that go with them. Raises: VideoError."""
    try:
        with open(path, "rb") as file:
            tags = ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
        kinds, photometric = set(tags.get(_SAMPLES, (1,))), tags.get(_PHOTOMETRIC)
        profile, orientation = tags.get(_PROFILE), tags.get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, KeyError, struct.error, TypeError) as error:
        cause = f"is not an image that can be read{_said(error)}"
        raise video_error(path, cause, "check it, or export it as png") from None
    if kinds != {1} or photometric not in (0, 1, 2):
        raise _no_colours(path)
    image = Image.fromarray(video.decode_stored(path))
    image.info["icc_profile"] = profile
    image.getexif()[_ORIENTATION] = orientation
    return image


def _no_colours(path: str | os.PathLike[str]) -> VideoError:
    cause = "holds numbers that are no colours of 8 or 16 bits, such as those of a measurement"
    return video_error(path, cause, "export it with 8 or 16 bits a colour")


# -- colours


def _colours(image: Image.Image) -> Image.Image:
    """Of mode RGB and in sRGB; of mode RGBA if it may be transparent."""
    image = _of_8_bits(image)
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if image.mode not in ("CMYK", "LAB"):
        image = image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
    seen = _srgb(image)
    if alpha is not None:
        seen.putalpha(alpha)
    return seen


def _of_8_bits(image: Image.Image) -> Image.Image:
    """Gray of more bits as L or LA, by the whole range of its bits; colours are so already."""
    if not image.mode.startswith("I"):
        return image
    tags: Any = getattr(image, "tag_v2", {})
    most = (1 << tags.get(_BITS, (16,))[0]) - 1
    levels = np.asarray(image).astype(np.uint32)
    gray = ((np.minimum(levels, most) * 255 + most // 2) // most).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero
        gray = 255 - gray
    result = Image.fromarray(gray)
    result.info["icc_profile"] = image.info.get("icc_profile")
    if isinstance(clear := image.info.get("transparency"), int):
        result.putalpha(Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8)))
    return result


def _srgb(image: Image.Image) -> Image.Image:
    """An image of mode L, RGB, CMYK or LAB as RGB, by its ICC profile; by none if that is broken."""
    try:
        if image.mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        else:
            source = ImageCms.ImageCmsProfile(io.BytesIO(image.info.get("icc_profile") or b""))
            space = _SPACES.get(source.profile.xcolor_space.strip())
            if (image.mode, space) == ("L", "RGB"):
                image = image.convert("RGB")
            if image.mode != space:
                return image.convert("RGB")
        to = ImageCms.createProfile("sRGB")
        seen = ImageCms.profileToProfile(image, source, to, outputMode="RGB")
        assert seen is not None  # it is None where the image itself is changed
        return seen
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image.convert("RGB")

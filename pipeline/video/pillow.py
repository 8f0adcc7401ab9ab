"""Images as Pillow decodes them, as they are seen: sRGB, upright, of 8 bits a colour."""

import functools
import io
import os
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from infra.errors import printable
from pipeline.video.errors import video_error

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "AVIF", "HEIF")  # of Pillow
ORIENTATION, BITS, PHOTOMETRIC = 0x0112, 258, 262  # tags of EXIF and TIFF 6.0
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


@functools.cache
def formats() -> tuple[str, ...]:
    """The names of the formats that are read, which Pillow knows from now on."""
    import pillow_heif

    Image.init()
    pillow_heif.register_heif_opener()
    return FORMATS


def seen(image: Image.Image, path: str | os.PathLike[str]) -> Image.Image:
    """An opened image as it is seen: of mode RGB, or RGBA if it may be transparent.

    Args: path: of its file. Raises: VideoError for one that is cut off or damaged.
    """
    turned = 1 if image.format == "TIFF" else orientation(image)  # Pillow gives a TIFF upright
    load(image, path)
    shown = _colours(image)
    return shown.transpose(_UPRIGHT[turned]) if turned in _UPRIGHT else shown


def load(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Read an opened image to its end. path: of its file. Raises: VideoError for one that is cut off or damaged."""
    if image.format == "PNG":
        _check_sums(path)
    try:
        image.load()
    except Exception as error:  # Pillow's readers raise of all kinds
        cause = f"is an image that cannot be read to its end{said(error)}"
        raise video_error(path, cause, "copy or export it again") from None


def orientation(image: Image.Image) -> int:
    """As EXIF says; 1, which is upright, where it says nothing that can be read."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # of any kind: it is of no use then
        return 1
    return found if found in _UPRIGHT else 1


def said(error: Exception) -> str:
    """What an error of Pillow's says, in brackets, for a line of text."""
    line = " ".join(str(error).split()) or type(error).__name__
    return f" ({printable(line)[:200].rstrip('.')})"


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
    most = (1 << tags.get(BITS, (16,))[0]) - 1
    levels = np.asarray(image).astype(np.uint32)
    gray = ((np.minimum(levels, most) * 255 + most // 2) // most).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == 0:  # white is zero
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

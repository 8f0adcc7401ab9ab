"""Image files as clips of one frame: formats, colours, orientation, and what is refused."""

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tifffile
from orientations import STORED
from PIL import Image, ImageCms

from pipeline import image, shards, video
from pipeline.clips import ClipPlan, ClipSpec, plan
from pipeline.prepare import prepare

pillow_heif.register_heif_opener()
RED, GREEN, BLUE, GRAY = (200, 30, 40), (20, 180, 60), (30, 50, 220), (120, 120, 120)
CORNERS = np.array([[RED, GREEN], [BLUE, GRAY]], np.uint8)


def blocks(colours=CORNERS, height=32, width=48):
    """Four flat quarters."""
    return np.asarray(colours).repeat(height // 2, 0).repeat(width // 2, 1)


def corners(frames):
    """The colour in the middle of each quarter."""
    assert frames.dtype == np.uint8 and len(frames) == 1 and frames.shape[3] == 3
    _, height, width, _ = frames.shape
    return frames[0][[height // 4, 3 * height // 4]][:, [width // 4, 3 * width // 4]].astype(int)


def is_like(frames, colours, within=0):
    return np.abs(corners(frames) - np.asarray(colours)).max() <= within


def refusal(path):
    with pytest.raises(video.VideoError) as caught:
        image.read(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line and "; " in line
    with pytest.raises(video.VideoError) as checked:
        image.check(path)
    assert str(checked.value) == line
    return line


def packed(kind, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(header, content):
    return b"\x89PNG\r\n\x1a\n" + packed(b"IHDR", header) + packed(b"IDAT", content) + packed(b"IEND", b"")


def of(path, spec=None):
    return plan([str(path)], spec or ClipSpec())


# ---- formats


@pytest.mark.parametrize(
    ("name", "options", "within"),
    [
        *((name, {}, 0) for name in ("a.png", "a.BMP", "a.tif", "a.tiff", "a.ppm")),
        *((name, {"quality": 95, "format": "JPEG", "subsampling": 0}, 4) for name in ("a.jpg", "a.JPEG", "a.jfif")),
        ("a.webp", {"lossless": True}, 0),
        ("b.webp", {"quality": 95}, 12),
        ("a.heic", {"quality": 95, "format": "HEIF"}, 12),
        ("a.avif", {"quality": 95}, 12),
        ("jpeg in disguise.png", {"quality": 95, "format": "JPEG", "subsampling": 0}, 4),
        ("no suffix", {"format": "PNG"}, 0),
    ],
)
def test_a_format_gives_its_pixels(tmp_path, name, options, within):
    path = tmp_path / name
    Image.fromarray(blocks()).save(path, **options)
    assert image.is_image(path)
    assert (image.probe(path).width, image.probe(path).height) == (48, 32)
    frames = image.read(path)
    assert frames.shape == (1, 32, 48, 3) and is_like(frames, CORNERS, within)
    (clip,) = of(path).clips
    assert (clip.start_frame, clip.num_frames, clip.fps, clip.is_image) == (0, 1, 24.0, True)


def test_what_may_move_is_an_image_if_it_does_not(tools, tmp_path):
    frames = [Image.fromarray(np.full((32, 48, 3), 8 * n, np.uint8)) for n in range(30)]
    for name in ("still.gif", "still.png"):
        frames[3].save(tmp_path / name)
    moving = {"save_all": True, "append_images": frames[1:], "duration": 40}
    for name in ("moving.gif", "moving.png", "webp.webp", "avif.avif"):
        frames[0].save(tmp_path / name, **moving)
    animation = packed(b"acTL", struct.pack(">II", 1, 0))  # of one frame, for ever: the picture itself
    frame = packed(b"fcTL", struct.pack(">5I2H2B", 0, 48, 32, 0, 0, 1, 25, 0, 0))
    raw = (tmp_path / "still.png").read_bytes()
    (tmp_path / "one.apng").write_bytes(raw[:33] + animation + frame + raw[33:])
    planned = of(tmp_path)
    found = {Path(clip.source).name: clip.num_frames for clip in planned.clips}
    moving = dict.fromkeys(("moving.gif", "moving.png", "webp.webp", "avif.avif"), 13)
    assert found == {**moving, "one.apng": 1, "still.gif": 1, "still.png": 1} and not planned.failures
    assert is_like(image.read(tmp_path / "one.apng"), [[[24] * 3] * 2] * 2)


@pytest.mark.parametrize("name", ["100% [a].webp", "a.avif"])
def test_an_animation_is_a_video_with_the_times_of_its_pictures(tools, tmp_path, name):
    levels, lasts_ms = [10, 60, 110, 160, 210, 210], [40, 200, 120, 5, 40, 140]  # 5 ms are 100, as in browsers
    path = tmp_path / name
    first, *rest = (Image.fromarray(np.full((32, 48, 3), level, np.uint8)) for level in levels)
    options = {"lossless": True, "minimize_size": False} if path.suffix == ".webp" else {"quality": 100}
    first.save(path, save_all=True, append_images=rest, duration=lasts_ms, **options)
    shown_until = np.cumsum([40, 200, 120, 100, 40, 140])
    wanted = [levels[np.searchsorted(shown_until, 40 * n, side="right")] for n in range(int(shown_until[-1]) // 40)]
    info = video.probe(path)
    assert (info.width, info.height, info.duration_s, info.path) == (48, 32, 0.64, str(path))
    for frames in (video.decode(path, fps=25), video.decode(path, start_frame=3, num_frames=13, fps=25)):
        assert np.ptp(frames, axis=(1, 2, 3)).max() <= 2
        assert np.abs(frames[:, 0, 0, 0].astype(int) - wanted[-len(frames) :]).max() <= 2
    whole = video.decode(path, fps=None)
    assert np.abs(whole[:, 0, 0, 0].astype(int) - levels[: len(whole)]).max() <= 2 and len(whole) >= 5


def test_an_animation_is_known_by_what_is_in_it(tools, tmp_path, numbered, levels_of):
    first, *rest = (Image.fromarray(frame) for frame in numbered(14))
    forms = {"WEBP": ("gif", "mp4", "png"), "AVIF": ("gif", "mp4", "webp"), "PNG": ("gif", "jpg", "mp4")}
    options = {"save_all": True, "append_images": rest, "duration": 42, "lossless": True, "quality": 100}
    for form, suffixes in forms.items():
        for suffix in suffixes:
            first.save(tmp_path / f"{form}.{suffix}", form, **options)
    planned = of(tmp_path)
    assert len(planned.clips) == 9 and not planned.failures and {clip.num_frames for clip in planned.clips} == {13}
    for clip in planned.clips:
        assert levels_of(video.decode(clip.source, fps=None), 14) == list(range(14)), clip.source


def test_an_animation_keeps_its_alpha(tools, tmp_path):
    half = np.full((32, 48, 4), 90, np.uint8)
    half[:, 24:, 3] = 0
    first, second = Image.fromarray(half), Image.fromarray(half[:, ::-1].copy())
    first.save(tmp_path / "a.webp", save_all=True, append_images=[second], duration=40, lossless=True)
    frames = video.decode(tmp_path / "a.webp", fps=None, alpha=True)
    assert np.array_equal(frames[..., 3], [half[..., 3], half[:, ::-1, 3]])
    assert np.all(frames[frames[..., 3] > 0] == 90)  # what is transparent loses its colour when it is saved


@pytest.mark.parametrize("name", ["a.webp", "a.avif"])
def test_an_animation_that_is_cut_off_says_so(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3), np.uint8)
    first, *rest = map(Image.fromarray, noise)
    first.save(tmp_path / name, save_all=True, append_images=rest, duration=40)
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[: len(raw) * 2 // 3])
    (failure,) = of(tmp_path / name).failures
    assert failure.reason.startswith(f"{tmp_path / name}: is an animation that cannot be read to its end (")
    assert failure.reason.endswith("); export it again")


def test_pages_and_pictures(tmp_path):
    first, second = (Image.fromarray(blocks(colours)) for colours in (CORNERS, CORNERS[::-1]))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second] * 2)
    first.save(tmp_path / "burst.heic", save_all=True, append_images=[second], quality=95)
    first.save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    planned = of(tmp_path)
    assert len(planned.clips) == 3 and not planned.failures
    lines = [note.line for note in planned.notes]
    assert [line.partition(":")[2].split(",")[0] for line in lines] == [" holds 2 pictures", " holds 3 pictures"]
    assert all(is_like(image.read(clip.source), CORNERS, 12) for clip in planned.clips)


# ---- geometry


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.heic", "a.avif"])
def test_orientations(tmp_path, name):
    path = tmp_path / name
    for orientation, stored in STORED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(stored(blocks()))).save(path, quality=95, exif=exif.tobytes())
        info, frames = image.probe(path), image.read(path)
        assert (info.width, info.height) == (48, 32) and frames.shape == (1, 32, 48, 3), orientation
        assert is_like(frames, CORNERS, 14), orientation


def test_an_orientation_that_cannot_be_read_is_none(tmp_path):
    Image.fromarray(blocks()).save(tmp_path / "a.jpg", quality=95, exif=b"Exif\0\0MM\0*\0\0\xff\xff" + b"x" * 40)
    assert is_like(image.read(tmp_path / "a.jpg"), CORNERS, 12)


def test_a_high_image_is_shrunk_by_means(tmp_path):
    stripes = np.zeros((600, 900, 3), np.uint8)
    stripes[::2] = 200  # in each pair of rows one is 200
    Image.fromarray(stripes).save(tmp_path / "a.png")
    frames = image.read(tmp_path / "a.png", 300)
    assert frames.shape == (1, 300, 450, 3) and (frames == 100).all()
    assert image.read(tmp_path / "a.png", 601).shape == image.read(tmp_path / "a.png").shape == (1, 600, 900, 3)


# ---- colours


def test_what_is_transparent_lies_on_white(tmp_path):
    half = np.dstack([blocks(), np.full((32, 48), 128, np.uint8)])
    on_white = np.round(CORNERS * (128 / 255) + 255 * (127 / 255))
    Image.fromarray(half).save(tmp_path / "rgba.png")
    Image.fromarray(half).save(tmp_path / "rgba.webp", lossless=True)
    Image.fromarray(half).save(tmp_path / "rgba.tif")
    for name in ("rgba.png", "rgba.webp", "rgba.tif"):
        assert is_like(image.read(tmp_path / name), on_white, 1), name
    gray = half[..., [0, 3]]
    Image.fromarray(gray).save(tmp_path / "la.png")
    assert is_like(image.read(tmp_path / "la.png"), on_white[..., :1].repeat(3, -1), 1)
    palette = Image.fromarray(blocks(np.array([[0, 1], [2, 3]], np.uint8)))
    palette.putpalette(CORNERS.tobytes())
    palette.save(tmp_path / "p.png")
    palette.save(tmp_path / "clear.png", transparency=2)
    palette.save(tmp_path / "clear.gif", transparency=2)
    assert is_like(image.read(tmp_path / "p.png"), CORNERS)
    for name in ("clear.png", "clear.gif"):
        assert is_like(image.read(tmp_path / name), [[RED, GREEN], [(255, 255, 255), GRAY]]), name


def test_one_channel(tmp_path):
    levels = np.array([[0, 80], [160, 255]], np.uint8)
    Image.fromarray(blocks(levels)).save(tmp_path / "l.png")
    assert is_like(image.read(tmp_path / "l.png"), levels[..., None].repeat(3, -1))
    Image.fromarray(blocks(levels > 100)).save(tmp_path / "bits.png")
    assert is_like(image.read(tmp_path / "bits.png"), (levels > 100)[..., None].repeat(3, -1) * 255)


def test_sixteen_bits_are_scaled(tmp_path):
    """65535 is 255; a reader that cuts at 255 gives white for nearly all of these."""
    gray = np.array([[0, 12850], [32896, 65535]], np.uint16)  # 0, 50, 128 and 255 times 257
    eight = np.array([[0, 50], [128, 255]])[..., None].repeat(3, -1)
    colours = np.stack([gray, gray[::-1], gray[:, ::-1]], -1)
    in_eight = np.stack([eight[..., 0], eight[::-1, :, 0], eight[:, ::-1, 0]], -1)
    Image.fromarray(blocks(gray)).save(tmp_path / "g.png")
    (tmp_path / "g.pgm").write_bytes(b"P5\n48 32\n65535\n" + blocks(gray).astype(">u2").tobytes())
    tifffile.imwrite(tmp_path / "g.tif", blocks(gray), photometric="minisblack")
    tifffile.imwrite(tmp_path / "w.tif", 65535 - blocks(gray), photometric="miniswhite")
    for name in ("g.png", "g.pgm", "g.tif", "w.tif"):
        assert is_like(image.read(tmp_path / name), eight), name
    half = blocks(np.dstack([gray, np.full_like(gray, 32896)]))
    tifffile.imwrite(tmp_path / "ga.tif", half, photometric="minisblack", extrasamples=["unassalpha"])
    assert is_like(image.read(tmp_path / "ga.tif"), np.round(eight * 128 / 255 + 127), 1)  # which Pillow cannot read

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in blocks(colours))
    header, content = struct.pack(">IIBBBBB", 48, 32, 16, 2, 0, 0, 0), zlib.compress(rows)
    (tmp_path / "c.png").write_bytes(png(header, content))
    for name, order, packing in (("c.tif", "<", None), ("be.tif", ">", None), ("z.tif", "<", "zlib")):
        pixels = blocks(colours)
        tifffile.imwrite(tmp_path / name, pixels, photometric="rgb", byteorder=order, compression=packing)
    planes = np.ascontiguousarray(np.moveaxis(blocks(colours), -1, 0))
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    for name in ("c.png", "c.tif", "be.tif", "z.tif", "planes.tif"):
        assert is_like(image.read(tmp_path / name), in_eight, 1), name


def test_a_tiff_that_ffmpeg_reads_is_turned_too(tmp_path):
    stored = np.ascontiguousarray(np.moveaxis(np.rot90(blocks().astype(np.uint16) * 257, 1), -1, 0))
    tags = [(274, 3, 1, 6, True)]
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig="separate", extratags=tags)
    assert (image.probe(tmp_path / "a.tif").width, image.probe(tmp_path / "a.tif").height) == (48, 32)
    assert is_like(image.read(tmp_path / "a.tif"), CORNERS, 1)


def test_cmyk_and_lab(tmp_path):
    inks = np.array([[[0, 255, 255, 0], [255, 0, 255, 0]], [[255, 255, 0, 0], [0, 0, 0, 255]]], np.uint8)
    shown = [[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (0, 0, 0)]]
    picture = Image.fromarray(blocks(inks), "CMYK")
    picture.save(tmp_path / "a.tif")
    picture.save(tmp_path / "adobe.jpg", quality=98)  # Pillow writes Adobe's marker, and the inks inverted
    assert b"Adobe" in (tmp_path / "adobe.jpg").read_bytes()
    for name in ("a.tif", "adobe.jpg"):
        assert is_like(image.read(tmp_path / name), shown, 10), name
    # 2.55 L, a, b: sRGB's red is 54.3, 80.8, 69.9 under D50, and its middle gray 53.6, 0, 0
    lab = np.array([[[138, 81, 70], [255, 0, 0]], [[0, 0, 0], [137, 0, 0]]], np.uint8)
    tifffile.imwrite(tmp_path / "lab.tif", blocks(lab), photometric="cielab")
    assert is_like(image.read(tmp_path / "lab.tif"), [[(255, 0, 0), (255,) * 3], [(0,) * 3, (128,) * 3]], 8)


def profile(primaries_xyz, gamma):
    """An ICC profile (version 2) of a display: XYZ of its red, green and blue (D50), and one exponent."""

    def xyz(values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78 + 1)
    tags = {b"desc": text + bytes(-len(text) % 4), b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"cprt": b"text\0\0\0\0none"}
    for name, primary in zip("rgb", primaries_xyz, strict=True):
        tags |= {f"{name}XYZ".encode(): xyz(primary), f"{name}TRC".encode(): curve}
    at, table, content = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(content), len(data))
        content += data
    size = 128 + len(table) + len(content)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + table + content


SRGB_XYZ = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))  # D50, of IEC 61966-2-1


def encoded(linear):
    """sRGB's curve."""
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_colour_profiles_become_srgb(tmp_path):
    linear = profile(SRGB_XYZ, 1.0)
    swapped = profile((SRGB_XYZ[2], SRGB_XYZ[1], SRGB_XYZ[0]), 1.0)  # its red is blue
    shown = encoded(CORNERS / 255)
    for name, options in {"a.png": {}, "a.tif": {}, "a.webp": {"lossless": True}, "a.jpg": {"quality": 98}}.items():
        Image.fromarray(blocks()).save(tmp_path / name, icc_profile=linear, **options)
        assert is_like(image.read(tmp_path / name), shown, 12 if name == "a.jpg" else 2), name
    Image.fromarray(blocks()).save(tmp_path / "s.png", icc_profile=swapped)
    assert is_like(image.read(tmp_path / "s.png"), shown[..., ::-1], 2)
    Image.fromarray(blocks()[..., 0]).save(tmp_path / "gray.png", icc_profile=linear)  # one of colours, too
    assert is_like(image.read(tmp_path / "gray.png"), shown[..., :1].repeat(3, -1), 2)
    clear = np.dstack([blocks(), np.full((32, 48), 255, np.uint8)])
    Image.fromarray(clear).save(tmp_path / "rgba.png", icc_profile=linear)
    assert is_like(image.read(tmp_path / "rgba.png"), shown, 2)
    standard = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, given in (("same.png", standard), ("cut.png", standard[:200]), ("none.png", b"no profile")):
        Image.fromarray(blocks()).save(tmp_path / name, icc_profile=given)
        assert is_like(image.read(tmp_path / name), CORNERS, 1), name


def test_hdr_images_are_told_of(tmp_path):
    for transfer in (13, 16, 18):  # sRGB, PQ and HLG
        nclx = {
            "color_primaries": 9,
            "transfer_characteristics": transfer,
            "matrix_coefficients": 9,
            "full_range_flag": 1,
        }
        pillow_heif.from_pillow(Image.fromarray(blocks())).save(str(tmp_path / f"{transfer}.heic"), **nclx)
        Image.fromarray(blocks()).save(tmp_path / "a.png")
        raw = (tmp_path / "a.png").read_bytes()
        (tmp_path / f"{transfer}.png").write_bytes(raw[:33] + packed(b"cICP", bytes([9, transfer, 0, 1])) + raw[33:])
        Image.fromarray(blocks()).save(tmp_path / "a.avif")
        raw = (tmp_path / "a.avif").read_bytes()
        at = raw.index(b"colrnclx") + 8
        (tmp_path / f"{transfer}.avif").write_bytes(raw[: at + 2] + bytes([0, transfer]) + raw[at + 4 :])
    planned = of(tmp_path)
    assert len(planned.clips) == 11 and not planned.failures
    names = [f"{transfer}.{suffix}" for transfer in (16, 18) for suffix in ("avif", "heic", "png")]
    said = "is an HDR image, which is not turned into SDR: its colours will be pale; export it in SDR"
    assert [note.line for note in planned.notes] == [f"{tmp_path / name}: {said}" for name in names]


def test_frames_have_the_colours_of_their_profile(tools, tmp_path):
    linear, shown = profile(SRGB_XYZ, 1.0), encoded(CORNERS / 255)
    for name, options in {"png": {}, "tif": {}, "webp": {"lossless": True}, "jpg": {"quality": 98}}.items():
        for number in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(blocks()).save(tmp_path / name / f"{number}.{name}", icc_profile=linear, **options)
        frames = video.decode(tmp_path / name)
        assert frames.shape == (2, 32, 48, 3) and is_like(frames[1:], shown, 12 if name == "jpg" else 2), name


# ---- what is refused


def bomb(width, height):
    return png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), zlib.compress(b""))


def test_each_bad_image_is_one_line_and_the_rest_is_there(tmp_path):
    root = tmp_path / "in"
    (root / "folder.png").mkdir(parents=True)
    Image.fromarray(blocks()).save(root / "good.png")
    (root / "bomb.png").write_bytes(bomb(30_000, 30_000))
    (root / "large.png").write_bytes(bomb(9_000, 9_000))  # of which Pillow itself would only warn
    Image.fromarray(blocks()[:1, :1]).save(root / "dot.png")
    Image.fromarray(blocks()[:15]).save(root / "low.png")
    Image.new("RGB", (64, 1100)).save(root / "high.png")
    (root / "text.png").write_text("dear reader\n" * 100)
    (root / "page.jpg").write_text("<html></html>")
    (root / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' width='64' height='48'/>")
    (root / "empty.jpg").touch()
    (root / "noise.webp").write_bytes(np.random.default_rng(1).bytes(4000))
    os.mkfifo(root / "pipe.png")
    os.symlink("nowhere.png", root / "gone.png")
    tifffile.imwrite(root / "float.tif", np.ones((32, 48), np.float32))
    tifffile.imwrite(root / "floats.tif", np.ones((32, 48, 3), np.float32), photometric="rgb")
    planned = of(root)
    assert [Path(clip.source).name for clip in planned.clips] == ["good.png"] and not planned.notes
    said = {Path(failure.source).name: failure.reason for failure in planned.failures}
    expected = {
        "bomb.png": "is 30000×30000 px (H×W), 16384 a side and 67108864 in all are the most; give a smaller image",
        "large.png": "is 9000×9000 px (H×W), 16384 a side",
        "dot.png": "is 1×1 px (H×W), 16×16 is the least; give a larger image",
        "high.png": "is 1100×64 px (H×W), kept at 256×15, and 16×16 is the least; crop it",
        "low.png": "is 15×48 px (H×W)",
        "text.png": "is a text file, not an image; give an image file",
        "page.jpg": "is a text file, not an image",
        "drawing.svg": "is in no image format that is read here; export it as png",
        "empty.jpg": "is empty (0 bytes); copy it again",
        "noise.webp": "is not an image that can be read; check it, or export it as png",
        "pipe.png": "is not a regular file; give an image file or a folder",
        "gone.png": "no such file; check the path",
        "float.tif": "holds numbers that are no colours of 8 or 16 bits",
        "floats.tif": "holds numbers that are no colours of 8 or 16 bits",
    }
    assert set(said) == set(expected)
    for name, words in expected.items():
        if name not in ("dot.png", "low.png", "high.png"):  # which can be read, but are too small for a clip
            assert refusal(root / name) == said[name]
        assert said[name].startswith(f"{root / name}: {words}"), said[name]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "heic", "tif", "bmp", "gif", "ppm"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_an_image_that_is_cut_off_is_told_so_whatever_its_format(tmp_path, suffix, share):
    whole, part = tmp_path / f"whole.{suffix}", tmp_path / f"part.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)).save(whole)
    part.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    told = f"{part}: is an image that cannot be read to its end"
    assert refusal(part).startswith(told) and refusal(part).endswith("; copy or export it again")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_of_too_many_bands_is_told_so(tmp_path, kind, capfd):
    for bands in (5, 7):
        path = tmp_path / f"{bands}.tif"
        tifffile.imwrite(path, np.zeros((32, 48, bands), kind), photometric="minisblack", planarconfig="contig")
        assert refusal(path) == f"{path}: has {bands} bands, and 4, colours and alpha, are the most; export it in RGB"
    assert capfd.readouterr().err == ""


def test_a_bomb_is_refused_before_it_is_decoded_and_without_pillows_words(tmp_path):
    Image.new("RGB", (9_000, 9_000)).save(tmp_path / "large.png")
    Image.fromarray(blocks()).save(tmp_path / "odd.tif", tiffinfo={700: b"?"})
    code = (
        "import sys, resource; from pipeline.clips import plan, ClipSpec; from pipeline import image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(plan(sys.argv[1:], ClipSpec()).failures[0].reason)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", code, tmp_path / "large.png", tmp_path / "odd.tif"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    line, grown = done.stdout.splitlines()
    assert "is 9000×9000 px" in line and done.stderr == ""
    assert int(grown) < 100_000 * (1 if sys.platform == "linux" else 1024)  # its pixels are 243 MB


@pytest.mark.parametrize("name", ["a.jpg", "progressive.jpg", "a.png", "a.webp", "a.tif", "a.bmp", "a.heic", "a.avif"])
def test_cut_off(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    path = tmp_path / name
    Image.fromarray(noise).save(path, **({"progressive": True} if name[0] == "p" else {}))
    raw = path.read_bytes()
    for part in (0.3, 0.7, 0.95):
        path.write_bytes(raw[: int(len(raw) * part)])
        refusal(path)
    written = prepare([str(path)], tmp_path / "shards", ClipSpec())
    assert not written.entries and len(written.failures) == 1


def test_a_png_whose_pixels_are_not_as_its_checksum_says(tools, tmp_path):
    """It is not packed, so that another bit gives another colour and no error."""
    folder, alone = tmp_path / "frames", tmp_path / "a.png"
    save(folder, *(f"{n}.png" for n in range(14)))
    Image.fromarray(blocks()).save(alone, compress_level=0)
    raw = bytearray(alone.read_bytes())
    raw[raw.index(b"IDAT") + 2000] ^= 64
    for path in (alone, folder / "7.png"):
        path.write_bytes(raw)
    assert refusal(alone) == f"{alone}: is a damaged image (a checksum is wrong); copy or export it again"
    with pytest.raises(video.VideoError, match=r"7\.png: is an image that ffmpeg cannot read to its end"):
        video.decode(folder)


def test_no_permission(tmp_path):
    path = tmp_path / "locked.png"
    Image.fromarray(blocks()).save(path)
    path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.chmod(tmp_path, 0o755)
        for parent in tmp_path.parents[:3]:
            os.chmod(parent, 0o755)
        os.seteuid(65534)
    try:
        assert "may not be read (permission denied); change its permissions" in of(path).failures[0].reason
    finally:
        if is_root:
            os.seteuid(0)


def test_a_stride_is_of_videos_only(tmp_path):
    Image.fromarray(blocks()).save(tmp_path / "a.png")
    (clip,) = of(tmp_path / "a.png", ClipSpec(stride=13)).clips
    assert clip.is_image and clip.num_frames == 1
    with pytest.raises(ValueError, match="num_frames must be 2 or more"):
        ClipSpec(num_frames=1)


# ---- folders and manifests


def save(folder, *names, size=(48, 32)):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(blocks(width=size[0], height=size[1])).save(folder / name)


def names_of(planned):
    return [(Path(clip.source).name, clip.num_frames) for clip in planned.clips]


def test_numbered_images_are_frames_if_many_and_of_one_size(tmp_path):
    save(tmp_path / "few", *(f"{n}.png" for n in range(7)))
    save(tmp_path / "many", *(f"{n}.png" for n in range(14)))
    save(tmp_path / "sizes", *(f"IMG_{n:04d}.jpg" for n in range(14)))
    save(tmp_path / "sizes", "IMG_0007.jpg", size=(32, 48))
    save(tmp_path / "album", *(f"{n}.png" for n in range(9)), *(f"day {chr(65 + n)}.png" for n in range(11)))
    save(tmp_path / "names", "beach.png", "hill.png", "cover.png")
    planned = of(tmp_path)
    by_folder = {name: [] for name in ("few", "many", "sizes", "album", "names")}
    for clip in planned.clips:
        source = Path(clip.source)
        by_folder[source.name if source.is_dir() else source.parent.name].append(clip.num_frames)
    assert by_folder == {"few": [1] * 7, "many": [13], "sizes": [1] * 14, "album": [1] * 20, "names": [1] * 3}
    (note,) = planned.notes
    assert note.line.startswith(f"{tmp_path / 'many'}: its 14 numbered images 0.png to 13.png are the frames of one")
    assert not planned.failures


def test_images_beside_videos(tmp_path, lavfi):
    save(tmp_path / "in", "photo.jpg", "a.jpg", "b.mp4.png", "a-poster.jpg", "Folder.jpg", "AlbumArtSmall.jpg", "x.png")
    save(tmp_path / "in" / "thumbs", "x.png")
    for name in ("a.mp4", "b.mp4"):
        lavfi(tmp_path / "in" / name, "testsrc=s=64x48:r=24", 13)
    planned = of(tmp_path / "in")
    assert names_of(planned) == [("a.mp4", 13), ("b.mp4", 13), ("photo.jpg", 1), ("x.png", 1)]
    thumbs, covers = sorted(note.line for note in planned.notes)
    assert covers.startswith(
        f"{tmp_path / 'in'}: AlbumArtSmall.jpg, Folder.jpg, a-poster.jpg and 2 more left out as cov"
    )
    assert "thumbs: left out as small copies" in thumbs and not planned.failures


def test_artwork_of_media_servers_beside_videos(tmp_path, lavfi):
    art = (
        "backdrop.jpg",
        "characterart.png",
        "clearart.png",
        "clearlogo.png",
        "disc.png",
        "discart.png",
        "fanart1.jpg",
    )
    art += (
        "extrafanart.jpg",
        "keyart.jpg",
        "logo.png",
        "season01-poster.jpg",
        "season-all-banner.jpg",
        "a-clearlogo.png",
    )
    save(tmp_path / "in", *art, "season.jpg", "logos at night.png", "season01.jpg")
    lavfi(tmp_path / "in" / "a.mkv", "testsrc=s=64x48:r=24", 13)
    planned = of(tmp_path / "in")
    assert names_of(planned) == [("a.mkv", 13), ("logos at night.png", 1), ("season.jpg", 1), ("season01.jpg", 1)]
    (note,) = planned.notes
    assert f"and {len(art) - 3} more left out as covers of what lies beside them" in note.line


def test_ids_have_no_frame_number(tmp_path):
    import hashlib

    save(tmp_path / "pics", "My Cat.png", "My Cat.jpg")
    planned = of(tmp_path / "pics")
    digests = [hashlib.sha1(f"pics/My Cat.{s}".encode()).hexdigest()[:6] for s in ("jpg", "png")]
    assert [clip.clip_id for clip in planned.clips] == [f"my-cat-{digest}" for digest in digests]
    again = plan([str(tmp_path / "pics")] * 2, ClipSpec())
    assert again.clips == planned.clips and not again.failures


def test_manifest_rows(tmp_path, lavfi):
    save(tmp_path, *(f"{n}.png" for n in range(9)))
    lavfi(tmp_path / "v.mp4", "testsrc=s=64x48:r=24", 13)
    (tmp_path / "m.csv").write_text(
        "clip_id,path,start_s,duration_s\n"
        "a,0.png,,\nb,1.png,0,\nc,v.mp4,0,\nd,2.png,1.5,\ne,3.png,,2\nf,gone.png,,\ng,v.mp4,,\nh,4.png,0,0\n"
    )
    planned = of(tmp_path / "m.csv")
    assert [(c.clip_id, c.num_frames) for c in planned.clips] == [("a", 1), ("b", 1), ("c", 13), ("h", 1)]
    assert planned.clips[0] == ClipPlan("a", str(tmp_path / "0.png"), 0, 1, 24.0)
    rows = {failure.source[-1]: failure.reason for failure in planned.failures}
    times = "is an image, which has no times; leave start_s and duration_s empty"
    assert rows["5"] == f"{tmp_path / 'm.csv'} row 5: 2.png {times}"
    assert rows["6"].endswith(f"3.png {times}") and "gone.png: no such file" in rows["7"]
    assert "start_s '' is not a time" in rows["8"] and len(rows) == 4


# ---- shards


def test_both_kinds_lie_in_one_folder_each_in_shards_of_its_own(tmp_path, lavfi):
    folder, out = tmp_path / "in", tmp_path / "shards"
    folder.mkdir()
    lavfi(folder / "v.mp4", "testsrc=s=64x48:r=24", 13)
    prepare([str(folder)], out, ClipSpec(max_height=24))  # as before there were images
    (before,) = out.glob("*.json")
    content = before.read_bytes()
    save(folder, "high.png", size=(60, 100))
    save(folder, "low.png")
    save(folder, "photo.heic")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0")
    done = []
    spec = ClipSpec(max_height=24, max_image_height=40)
    prepared = prepare([str(folder)], out, spec, lambda *count: done.append(count))
    assert done == [(n, 4) for n in range(1, 5)]
    assert prepared.written.skipped == 1 and len(prepared.failures) == 1 and before.read_bytes() == content
    sizes = {e.source: (e.num_frames, e.height, e.width, e.is_image) for e in prepared.entries}
    assert sizes == {
        f"{folder}/v.mp4": (13, 24, 32, False),
        f"{folder}/high.png": (1, 40, 24, True),
        f"{folder}/low.png": (1, 32, 48, True),
        f"{folder}/photo.heic": (1, 32, 48, True),
    }
    settings = [json.loads(path.read_text())["settings"] for path in sorted(out.glob("*.json"))]
    assert settings == [{"max_height": 24}, {"max_image_height": 40}]
    frames = {clip.meta["source"]: clip.frames_thwc for clip in shards.read(out)}
    assert is_like(frames["low.png"], CORNERS) and is_like(frames["high.png"], CORNERS)
    again = prepare([str(folder)], out, spec)
    assert again.written.skipped == 4 and not again.written.shards
    with pytest.raises(
        shards.ShardError, match=r"was made with {'max_image_height': 40}, not {'max_image_height': 50}"
    ):
        prepare([str(folder)], out, ClipSpec(max_height=24, max_image_height=50))


def test_an_image_behind_a_uri(tmp_path):
    from infra.remote import fetch

    save(tmp_path / "bucket", "a.png", "b.jpg")
    for uri in ((tmp_path / "bucket").as_uri(), (tmp_path / "bucket" / "a.png").as_uri()):
        planned = of(fetch(uri, tmp_path / "cache"))
        assert planned.clips and all(clip.is_image for clip in planned.clips) and not planned.failures

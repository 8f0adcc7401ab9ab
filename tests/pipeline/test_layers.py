"""What users draw and edit, against the pixels that were painted: layers with alpha, masks, key frames."""

import subprocess

import numpy as np
import pytest
from PIL import Image

from pipeline import image, video
from pipeline.layers import read_keyframes, read_layer, read_mask

SIZE = HEIGHT, WIDTH = 32, 48


def ramps(frames=5):
    """RGBA: alpha rises from left to right, blue from top to bottom, green from frame to frame."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")
    return np.stack([0 * t + 200, 40 + 20 * t, 4 * y, np.minimum(6 * x, 255)], -1).astype(np.uint8)


def square(frames=5):
    """RGBA: an opaque red square that moves over nothing."""
    clip = np.zeros((frames, *SIZE, 4), np.uint8)
    for t, frame in enumerate(clip):
        frame[8:16, 4 + 6 * t : 12 + 6 * t] = (200, 30, 40, 255)
    return clip


def written(path, frames_thwc, *codec):
    """A video of exactly these RGB or RGBA frames at 24 FPS, by the ffmpeg that the pipeline would use."""
    exe = video.ffmpeg_exe()
    if "-c:v" in codec:
        encoder = codec[codec.index("-c:v") + 1]
        known = subprocess.run([exe, "-v", "error", "-encoders"], capture_output=True, check=True).stdout.split()
        if encoder.encode() not in known:
            pytest.skip(f"this ffmpeg has no encoder {encoder}")
    pixels = {3: "rgb24", 4: "rgba"}[frames_thwc.shape[3]]
    given = ["-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{frames_thwc.shape[2]}x{frames_thwc.shape[1]}"]
    command = [exe, "-v", "error", "-y", *given, "-framerate", "24", "-i", "pipe:0", *codec, f"file:{path}"]
    done = subprocess.run(command, input=frames_thwc.tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return path


def folder_of(path, frames, name="{}.png", first=1):
    path.mkdir()
    for number, frame in enumerate(frames, first):
        Image.fromarray(frame).save(path / name.format(number))
    return path


def layer(path, num_frames=None, fps=24.0, max_height=None, start_frame=0):
    read = read_layer(path, num_frames=num_frames, fps=fps, max_height=max_height, start_frame=start_frame)
    assert read.dtype == np.uint8 and read.ndim == 4 and read.shape[3] == 4
    return read


def mask(path, num_frames=None, fps=24.0, max_height=None, start_frame=0):
    read = read_mask(path, num_frames=num_frames, fps=fps, max_height=max_height, start_frame=start_frame)
    assert read.dtype == np.uint8 and read.ndim == 3
    return read


def farthest(one, other):
    return int(np.abs(one.astype(int) - other).max())


def refusal(path, read, *arguments, **options):
    with pytest.raises(video.VideoError) as caught:
        read(*arguments or (path,), **options)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line and "; " in line
    return line.removeprefix(f"{path}: ")


# ---- layers: images


@pytest.mark.parametrize(
    ("name", "options"), [("a.png", {}), ("a.webp", {"lossless": True, "exact": True}), ("a.tif", {})]
)
def test_an_image_keeps_its_colours_and_its_alpha(tmp_path, name, options):
    Image.fromarray(ramps()[0]).save(tmp_path / name, **options)
    assert np.array_equal(layer(tmp_path / name, num_frames=13), ramps()[:1])  # also the colours of what is transparent


def test_an_image_without_alpha_is_opaque_and_has_the_colours_that_are_trained_on(tmp_path):
    Image.fromarray(ramps()[0, ..., :3]).save(tmp_path / "a.jpg")
    read = layer(tmp_path / "a.jpg", max_height=16)
    assert read.shape == (1, 16, 24, 4) and (read[..., 3] == 255).all()
    assert np.array_equal(read[..., :3], image.read(tmp_path / "a.jpg", 16))


def test_an_image_is_turned_with_its_alpha(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # EXIF 2.3: to be turned clockwise by 90 degrees
    Image.fromarray(ramps()[0]).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(layer(tmp_path / "a.png")[0], np.rot90(ramps()[0], -1))


def test_palette_and_gray_images_may_be_transparent(tmp_path):
    palette = Image.fromarray((np.indices(SIZE)[1] // 24).astype(np.uint8))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.save(tmp_path / "palette.png", transparency=0)
    gray = np.stack([np.full(SIZE, 90), np.indices(SIZE)[1]], -1).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    read = layer(tmp_path / "palette.png")[0]
    assert (read[:, :24] == (10, 20, 30, 0)).all() and (read[:, 24:] == (200, 100, 50, 255)).all()
    read = layer(tmp_path / "gray.png")[0]
    assert (read[..., :3] == 90).all() and np.array_equal(read[..., 3], gray[..., 1])


# ---- layers: videos


@pytest.mark.parametrize(
    ("name", "codec", "within"),
    [
        ("a.mov", ["-c:v", "qtrle", "-pix_fmt", "argb"], 0),
        ("b.mov", ["-c:v", "png", "-pix_fmt", "rgba"], 0),
        ("c.mov", ["-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le"], 2),
        ("a.apng", ["-c:v", "apng", "-pix_fmt", "rgba", "-plays", "0"], 0),
        ("a.png", ["-c:v", "apng", "-pix_fmt", "rgba", "-plays", "0", "-f", "apng"], 0),
        ("vp9.webm", ["-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-crf", "4", "-b:v", "0"], 6),
        ("vp8.webm", ["-c:v", "libvpx", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0", "-b:v", "4M"], 6),
    ],
)
def test_a_video_keeps_its_colours_and_its_alpha(tools, tmp_path, name, codec, within):
    # WebM's encoders write yuva420p from RGBA; yuv420p would drop alpha.
    path = written(tmp_path / name, ramps(6), *codec)
    read = layer(path)
    assert read.shape == (6, *SIZE, 4) and farthest(read, ramps(6)) <= within
    assert np.array_equal(layer(path, num_frames=3), read[:3])
    # By hand: three pictures become one frame, and picture n is due at frame n / 3, rounded. The last one due wins.
    assert np.array_equal(layer(path, num_frames=2, fps=8), read[[1, 4]])
    # By hand: of two equal columns and rows, alpha's mean. In the middle, of 2 x 2 pixels.
    shrunk, means = layer(path, max_height=16), ramps(6).reshape(6, 16, 2, 24, 2, 4).mean((2, 4))
    assert shrunk.shape == (6, 16, 24, 4) and farthest(shrunk[..., 3], means[..., 3].round()) <= within + 1
    assert farthest(shrunk[..., 12:, :3], means[..., 12:, :3].round()) <= within + 3


def test_a_gif_is_opaque_or_transparent(tools, tmp_path):
    first, *others = map(Image.fromarray, square())
    path = tmp_path / "a.gif"
    first.save(path, save_all=True, append_images=others, duration=40, disposal=2)
    read = layer(path, num_frames=5, fps=None)
    assert np.array_equal(read[..., 3], square()[..., 3])
    inside = square()[..., 3] == 255
    assert (read[inside] == (200, 30, 40, 255)).all()


def test_a_video_without_alpha_is_opaque_and_has_the_colours_that_are_trained_on(tools, tmp_path):
    path = written(tmp_path / "a.mp4", ramps(13)[..., :3], "-pix_fmt", "yuv420p")
    read = layer(path, num_frames=13, max_height=20)
    assert read.shape == (13, 20, 30, 4) and (read[..., 3] == 255).all()
    assert np.array_equal(read[..., :3], video.decode(path, max_height=20))


@pytest.mark.parametrize("name", ["a.png", "a.mov"])
def test_what_is_transparent_does_not_colour_the_edge_of_a_shrunk_layer(tools, tmp_path, name):
    clip = square(1)
    clip[clip[..., 3] == 0] = (0, 255, 0, 0)
    clip[0, 8:16, 5] = (0, 255, 0, 0)  # half of a pixel of the shrunk layer
    path = tmp_path / name
    if name == "a.png":
        Image.fromarray(clip[0]).save(path)
    else:
        written(path, clip, "-c:v", "qtrle", "-pix_fmt", "argb")
    read = layer(path, max_height=16)[0]
    assert farthest(read[4:8, 2], (200, 30, 40, 128)) <= 2  # red, and half of it
    assert (read[4:8, 3:6] == (200, 30, 40, 255)).all() and (read[:4, :, 3] == 0).all()


def test_a_webm_with_alpha_needs_a_decoder_for_it(tmp_path, monkeypatch):
    path = written(tmp_path / "a.webm", ramps(), "-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p")
    monkeypatch.setattr(video.decoder.command, "has", lambda exe, kind, name: False)
    assert refusal(path, layer) == (
        "has an alpha channel, which this ffmpeg cannot decode (no decoder libvpx-vp9); "
        "use an ffmpeg with libvpx, or export it as a .mov"
    )
    assert video.decode(path).shape == (5, *SIZE, 3)


# ---- layers: folders, and lengths


def test_a_folder_gives_its_images_in_the_order_of_their_numbers(tools, tmp_path):
    folder = folder_of(tmp_path / "frames", ramps(11))  # 10.png comes after 9.png
    for fps in (24.0, 3.0, None):
        assert np.array_equal(layer(folder, fps=fps), ramps(11))
    assert np.array_equal(layer(folder, num_frames=2), ramps(2))


def test_a_folder_may_hold_images_with_and_without_alpha(tools, tmp_path):
    folder = folder_of(tmp_path / "frames", [ramps()[0, ..., :3], ramps()[1]])
    read = layer(folder)
    assert (read[0, ..., 3] == 255).all() and np.array_equal(read[0, ..., :3], ramps()[0, ..., :3])
    assert np.array_equal(read[1], ramps()[1])


def test_too_few_frames(tools, tmp_path):
    folder = folder_of(tmp_path / "frames", ramps())
    assert refusal(folder, layer, num_frames=13) == "has 5 frames, 13 are needed; add the missing images"
    path = written(tmp_path / "a.mov", ramps(), "-c:v", "qtrle", "-pix_fmt", "argb")
    assert refusal(path, layer, num_frames=13) == "has 5 frames at 24 FPS, 13 are needed; give a longer video"
    assert refusal(path, mask, num_frames=6, fps=None) == "has 5 frames, 6 are needed; give a longer video"
    later = "5 are needed from frame 1 on"
    assert refusal(folder, layer, num_frames=5, start_frame=1) == f"has 5 frames, {later}; add the missing images"
    mend = "give a longer video, or an earlier start"
    assert refusal(path, mask, num_frames=5, start_frame=1) == f"has 5 frames at 24 FPS, {later}; {mend}"
    assert len(layer(path, num_frames=5)) == 5


@pytest.mark.parametrize("options", [{"num_frames": 0}, {"max_height": 0}])
def test_numbers_out_of_range(tmp_path, options):
    Image.fromarray(ramps()[0]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="are needed, got"):
        layer(tmp_path / "a.png", **options)


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("a.png", b"a letter\n", "is a text file, not an image"),
        ("a.mov", b"a letter\n", "is a text file, not a video"),
        ("a.txt", b"a letter\n", "is a text file, not a video"),
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0", "is not an image that can be read"),
        ("a.webm", bytes(range(256)) * 9, "is not a video that ffmpeg can read"),
        ("a.png", b"", "is empty"),
        ("a.mov", None, "no such file"),
        ("a.psd", b"8BPS\0\1", "is in no image format that is read here"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path, name, content, cause):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for read in (layer, mask):
        assert refusal(path, read, num_frames=13).startswith(cause)


def test_a_folder_that_cannot_be_read(tools, tmp_path):
    folder = folder_of(tmp_path / "frames", ramps(3))
    Image.new("RGBA", (20, 20)).save(folder / "2.png")
    assert refusal(folder / "2.png", layer, folder).startswith("is 20×20 px (H×W) but the first frame is 32×48; ")
    (folder / "2.png").write_bytes((folder / "1.png").read_bytes()[:-40])
    refusal(folder / "2.png", layer, folder)
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty", layer).startswith("holds no numbered frames; ")


def test_a_cut_off_image(tmp_path):
    Image.fromarray(ramps()[0]).save(tmp_path / "whole.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "whole.png").read_bytes()[:90])
    assert refusal(tmp_path / "a.png", layer).startswith("is an image that cannot be read to its end")


# ---- masks


def test_a_mask_is_the_gray_level_of_an_opaque_picture(tools, tmp_path):
    gray = np.indices(SIZE)[1].astype(np.uint8) * 5
    for name, pixels in (
        ("a.png", gray),
        ("b.png", np.dstack([gray] * 3)),
        ("c.png", np.dstack([gray, gray * 0 + 255])),
    ):
        Image.fromarray(pixels).save(tmp_path / name)
        assert np.array_equal(mask(tmp_path / name, num_frames=13), gray[None])
    colours = np.zeros((*SIZE, 3), np.uint8)
    colours[:, :16, 0] = colours[:, 16:32, 1] = colours[:, 32:, 2] = 255
    Image.fromarray(colours).save(tmp_path / "d.png")
    assert mask(tmp_path / "d.png")[0, 0, ::16].tolist() == [76, 150, 29]  # 255 times 0.299, 0.587 and 0.114
    levels = np.broadcast_to(gray[..., None], (4, *SIZE, 3)) // np.arange(1, 5, dtype=np.uint8)[:, None, None, None]
    path = written(tmp_path / "a.mov", levels, "-c:v", "png", "-pix_fmt", "rgb24")
    assert np.array_equal(mask(path, num_frames=4), levels[..., 0])


def test_what_is_transparent_is_black_in_a_mask(tmp_path):
    levels = np.array(
        [[[255, 255, 255, 255], [255, 255, 255, 0], [255, 255, 255, 102], [100, 100, 100, 204]]], np.uint8
    )
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert mask(tmp_path / "a.png")[0, 0].tolist() == [255, 0, 102, 80]


# ---- key frames


def test_key_frames_are_named_by_their_frames(tmp_path):
    for name, frame in (("frame_12.png", 2), ("006.png", 1), ("0.png", 0), ("take 2 at 9.tif", 3)):
        Image.fromarray(ramps()[frame]).save(tmp_path / name)
    (tmp_path / "notes 3.txt").write_text("to do")
    (tmp_path / ".6.png").write_text("hidden")
    drawings = read_keyframes(tmp_path)
    assert list(drawings) == [0, 6, 9, 12]
    for drawing, frame in zip(drawings.values(), (0, 1, 3, 2), strict=True):
        assert drawing.dtype == np.uint8 and np.array_equal(drawing, ramps()[frame])


def test_key_frames_without_alpha_are_opaque(tmp_path):
    Image.fromarray(ramps()[0, ..., :3]).save(tmp_path / "7.png")
    (drawing,) = read_keyframes(tmp_path).values()
    assert drawing.shape == (*SIZE, 4) and (drawing[..., 3] == 255).all()


def test_key_frames_that_cannot_be_used(tmp_path):
    def folder(name, **sizes):
        (tmp_path / name).mkdir()
        for stem, size in sizes.items():
            Image.new("RGBA", size).save(tmp_path / name / f"{stem.removeprefix('_')}.png")
        return tmp_path / name

    def line(where, path):
        return refusal(path, read_keyframes, where)

    where = folder("name", _1=(20, 30), sky=(20, 30))
    assert line(where, where / "sky.png").startswith("has no number in its name; name it by the frame")
    where = folder("twice", _3=(20, 30), _003=(20, 30))
    assert line(where, where / "3.png") == "is for frame 3, as 003.png is; keep one of the two"
    where = folder("sizes", _10=(40, 30), _2=(20, 30))
    assert line(where, where / "10.png").startswith("is 30×40 px (H×W) but 2.png is 30×20; ")
    where = folder("empty")
    assert line(where, where).startswith("holds no images; ")
    assert line(tmp_path / "none", tmp_path / "none").startswith("cannot be listed (No such file or directory); ")
    where = folder("damaged")
    (where / "4.png").write_text("a letter")
    assert line(where, where / "4.png").startswith("is a text file, not an image; ")
    (where / "3.psd").write_bytes(b"8BPS\0\1")
    assert line(where, where / "3.psd").startswith("is in no image format that is read here; ")

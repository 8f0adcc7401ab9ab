"""The scale ladder against tables written by hand; the pyramid against torch's interpolation."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from model import presets
from model.config import ConfigError
from model.pyramid import Pyramid, ScaleSize, augmented_copies, build, ladder, training_pyramids

PAPER, OFFICIAL = presets.paper(), presets.official()

# 32 * 1.33^n = 32, 42.56, 56.60, 75.28, 100.13, 133.17, 177.11, 235.56, then the cap of 256.
# The width is height * aspect.
PAPER_16_9 = [
    (4, 32, 57),
    (4, 43, 76),
    (4, 57, 101),
    (5, 75, 133),
    (5, 100, 178),
    (5, 133, 236),
    (7, 177, 315),
    (7, 236, 420),
    (7, 256, 455),
    (13, 256, 455),
]
PAPER_4_3 = [
    (4, 32, 43),
    (4, 43, 57),
    (4, 57, 76),
    (5, 75, 100),
    (5, 100, 133),
    (5, 133, 177),
    (7, 177, 236),
    (7, 236, 315),
    (7, 256, 341),
    (13, 256, 341),
]
# What the authors' code prints for a 256 x 144 clip.
OFFICIAL_16_9 = [
    (4, 18, 33),
    (4, 23, 41),
    (4, 28, 51),
    (5, 36, 65),
    (5, 45, 81),
    (5, 57, 102),
    (7, 72, 129),
    (7, 91, 162),
    (7, 114, 204),
    (13, 144, 256),
]


@pytest.mark.parametrize(
    ("clip", "config", "table"),
    [
        ((720, 1280), PAPER, PAPER_16_9),
        ((144, 256), PAPER, PAPER_16_9),
        ((480, 640), PAPER, PAPER_4_3),
        ((144, 256), OFFICIAL, OFFICIAL_16_9),
    ],
)
def test_ladders_are_the_written_tables(clip, config, table):
    assert ladder(config, *clip) == tuple(ScaleSize(*row) for row in table)


def geometric(num_scales, min_size=16, max_size=64):
    """A ladder along the height without a factor."""
    return replace(PAPER, min_size=min_size, max_size=max_size, scale_factor=None, num_scales=num_scales, vae_levels=1)


def test_geometric_height_ladder_and_single_scale():
    assert [s.height for s in ladder(geometric(5), 72, 128)] == [16, 23, 32, 45, 64]
    assert [s.width for s in ladder(geometric(5), 72, 128)] == [28, 41, 57, 80, 114]
    assert ladder(geometric(1), 72, 128) == (ScaleSize(13, 64, 114),)
    shorter = replace(geometric(5), ladder_side="shorter")
    assert ladder(shorter, 72, 128) == ladder(geometric(5), 72, 128)
    upright = ladder(shorter, 128, 72)
    assert [s.width for s in upright] == [16, 23, 32, 45, 64] and [s.height for s in upright] == [28, 41, 57, 80, 114]
    assert [s.frames for s in ladder(geometric(4), 72, 128)] == [4, 5, 7, 13]


def test_clips_without_a_ladder_are_one_line():
    with pytest.raises(ValueError, match=r"scale 0 of a clip of 100×1000 px .* would be 3×33: .*too extreme") as caught:
        ladder(OFFICIAL, 100, 1000)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="too extreme"):
        ladder(PAPER, 1000, 100)
    with pytest.raises(ValueError, match="a clip of 100×0 px"):
        ladder(PAPER, 100, 0)


def test_a_scale_that_is_smaller_than_what_a_critic_without_padding_sees_is_refused():
    bare = replace(presets.image_paper(), critic_padded=False, min_size=10)
    assert ladder(bare, 200, 200)[0] == (1, 10, 10)  # a VAE scale, which no critic sees
    with pytest.raises(ValueError, match=r"a scale of 1×10×10 is smaller than the 1×11×11 .* set critic_padded=true"):
        ladder(replace(bare, vae_levels=0), 200, 200)
    with pytest.raises(ValueError, match=r"a scale of 4×32×32 is smaller than the 11×11×11"):
        ladder(replace(PAPER, critic_padded=False, vae_levels=0), 200, 200)


@pytest.mark.parametrize(
    "change", [{"num_frames": 12}, {"ladder_side": "depth"}, {"max_size": 31}, {"scale_factor": 1.0}, {"min_size": 0}]
)
def test_a_config_holds_no_bad_ladder(change):
    with pytest.raises(ConfigError) as caught:
        replace(PAPER, **change)
    assert "\n" not in str(caught.value) and next(iter(change)) in str(caught.value)


def test_build_is_torch_interpolation():
    frames = np.random.default_rng(0).integers(0, 256, (13, 70, 123, 3), np.uint8)
    sizes = ladder(geometric(5, min_size=11, max_size=97), 70, 123)
    levels = build(frames, sizes)
    assert [level.shape for level in levels] == [(3, s.frames, s.height, s.width) for s in sizes]
    for level, size, rate in zip(levels, sizes, [4, 4, 3, 2, 1], strict=True):
        assert level.dtype == np.float32 and level.flags.c_contiguous
        video = torch.from_numpy(frames[::rate].copy()).permute(0, 3, 1, 2).double() / 127.5 - 1  # (T, 3, H, W)
        for dtype, tolerance in ((torch.float64, 2e-6), (torch.float32, 1e-4)):
            expected = torch.nn.functional.interpolate(
                video.to(dtype), (size.height, size.width), mode="bilinear", align_corners=True
            )
            np.testing.assert_allclose(level, expected.permute(1, 0, 2, 3).numpy(), atol=tolerance)


def picture(height, width):
    """Every grey level, steep and smooth, in integers."""
    y, x, c = np.ogrid[:height, :width, :3]
    return ((x * x * 7 + y * y * 13 + x * y * 5 + c * 29 + (x * y * y) // 11) % 256).astype(np.uint8)


# First digits of the sha256 of what OpenCV 5.0 makes of `picture`, sizes (height, width):
# hashlib.sha256(cv2.resize(picture(*source), (width, height), interpolation=cv2.INTER_LINEAR).tobytes()).hexdigest()
OF_OPENCV = {
    ((144, 256), (18, 33)): "8c39e0d0e5cad6a7",
    ((1080, 1440), (192, 256)): "dcf28466120cd1ea",
    ((1080, 1440), (23, 32)): "e4c60e04ce82522b",
    ((100, 77), (45, 41)): "74cd62d6aeaf26d5",
    ((288, 512), (144, 256)): "1fbb838a2325638f",
    ((50, 70), (51, 140)): "03049cc5daa4e6af",
}


@pytest.mark.parametrize(("sizes", "digits"), OF_OPENCV.items(), ids=str)
def test_resizing_as_opencv_is_opencvs_to_the_bit(sizes, digits):
    source, (height, width) = sizes
    (made,) = build(picture(*source)[None], [ScaleSize(1, height, width)], "opencv")
    levels = np.rint((made[:, 0].transpose(1, 2, 0) + 1) * 127.5)
    assert (levels / np.float32(127.5) - np.float32(1) == made[:, 0].transpose(1, 2, 0)).all()  # of whole levels
    assert hashlib.sha256(levels.astype(np.uint8).tobytes()).hexdigest()[:16] == digits
    # and that is interpolation between the centres of pixels, which torch calls align_corners=False, rounded
    planes = torch.from_numpy(picture(*source)).permute(2, 0, 1)[None].double()
    exact = torch.nn.functional.interpolate(planes, (height, width), mode="bilinear", align_corners=False)
    assert np.abs(levels - exact[0].permute(1, 2, 0).numpy()).max() < 0.8


def test_a_pyramid_as_opencv_takes_the_frames_that_the_other_takes():
    frames = np.stack([np.full((20, 30, 3), 10 * t, np.uint8) for t in range(13)])
    for size in (ScaleSize(4, 10, 15), ScaleSize(5, 11, 15), ScaleSize(13, 20, 30)):
        (one,), (other,) = build(frames, [size], "opencv"), build(frames, [size])
        assert one.shape == other.shape and one.dtype == np.float32 and one.flags.c_contiguous
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_official_pyramid_is_of_the_source_and_the_others_as_they_were():
    frames = np.random.default_rng(1).integers(0, 256, (13, 108, 144, 3), np.uint8)
    sizes = ladder(OFFICIAL, 108, 144)
    assert sizes[-1] == (13, 192, 256) == ladder(OFFICIAL, 1080, 1440)[-1]
    for config, other in ((OFFICIAL, "opencv"), (PAPER, "corners")):
        (pyramid,) = training_pyramids([frames], config, sizes)
        for scale, expected in zip(pyramid, build(frames, sizes, other), strict=True):
            np.testing.assert_array_equal(scale, expected)


def test_build_keeps_ends_range_and_originals():
    frames = np.zeros((13, 20, 30, 3), np.uint8)
    frames[:] = (np.arange(13, dtype=np.uint8) * 20)[:, None, None, None]
    frames[0] = 255
    coarse, fine = build(frames, [ScaleSize(4, 10, 15), ScaleSize(13, 20, 30)])
    assert np.allclose(coarse[0, :, 0, 0], np.array([255, 80, 160, 240]) / 127.5 - 1, atol=1e-6)
    assert np.array_equal(fine, frames.transpose(3, 0, 1, 2) / np.float32(127.5) - np.float32(1))
    assert fine.min() == -1 + 20 / np.float32(127.5) and fine.max() == 1
    with pytest.raises(ValueError, match="cannot be sub-sampled evenly to 6"):
        build(frames, [ScaleSize(6, 10, 15)])
    with pytest.raises(ValueError, match="uint8"):
        build(frames.astype(np.float32), [ScaleSize(4, 10, 15)])


# -- augmented copies: what is mirrored, what is cut out, and that nothing is copied

FRAMES = np.random.default_rng(0).integers(0, 256, (13, 40, 60, 3), dtype=np.uint8)


def test_without_augmentation_there_is_the_clip_alone() -> None:
    (only,) = augmented_copies(FRAMES, flip=False, crops=0, seed=0)
    assert only is FRAMES


def test_a_flip_mirrors_left_and_right() -> None:
    clip, mirrored = augmented_copies(FRAMES, flip=True, crops=0, seed=0)
    np.testing.assert_array_equal(mirrored[:, :, 0], clip[:, :, 59])
    np.testing.assert_array_equal(np.flip(mirrored, axis=2), clip)


def test_crops_are_nine_tenths_of_the_frame_anywhere_in_it_and_the_same_for_a_seed() -> None:
    _, *crops = augmented_copies(FRAMES, flip=False, crops=200, seed=3)
    _, *again = augmented_copies(FRAMES, flip=False, crops=200, seed=3)
    places = set()
    for crop, same in zip(crops, again, strict=True):
        assert crop.shape == (13, 36, 54, 3) and np.shares_memory(crop, FRAMES)
        np.testing.assert_array_equal(crop, same)
        (place,) = [
            (y, x) for y in range(5) for x in range(7) if np.array_equal(crop, FRAMES[:, y : y + 36, x : x + 54])
        ]
        places.add(place)
    assert {y for y, _ in places} == set(range(5)) and {x for _, x in places} == set(range(7))


def test_a_pyramid_of_a_copy_has_the_clips_sizes() -> None:
    sizes = [ScaleSize(4, 10, 15), ScaleSize(13, 40, 60)]
    for frames in augmented_copies(FRAMES, flip=True, crops=1, seed=0):
        made = Pyramid(frames, sizes)
        assert [scale.shape for scale in made] == [(3, 4, 10, 15), (3, 13, 40, 60)]
        for scale, built in zip(made, build(np.ascontiguousarray(frames), sizes), strict=True):
            np.testing.assert_array_equal(scale, built)

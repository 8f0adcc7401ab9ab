"""The scale ladder against tables written by hand; the pyramid against torch's interpolation."""

import numpy as np
import pytest
import torch

from pipeline.pyramid import ScaleSize, build, ladder

PAPER = {"side": "height", "min_size": 32, "max_size": 256, "num_scales": 10, "factor": 1.33}
OFFICIAL = {"side": "width", "min_size": 32, "max_size": 256, "num_scales": 10, "factor": None}

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
    ("clip", "settings", "table"),
    [
        ((720, 1280), PAPER, PAPER_16_9),
        ((144, 256), PAPER, PAPER_16_9),
        ((480, 640), PAPER, PAPER_4_3),
        ((144, 256), OFFICIAL, OFFICIAL_16_9),
    ],
)
def test_ladders_are_the_written_tables(clip, settings, table):
    assert ladder(*clip, **settings) == tuple(ScaleSize(*row) for row in table)


def test_geometric_height_ladder_and_single_scale():
    small = {"side": "height", "min_size": 16, "max_size": 64, "factor": None}
    assert [s.height for s in ladder(72, 128, num_scales=5, **small)] == [16, 23, 32, 45, 64]
    assert [s.width for s in ladder(72, 128, num_scales=5, **small)] == [28, 41, 57, 80, 114]
    assert ladder(72, 128, num_scales=1, **small) == (ScaleSize(13, 64, 114),)
    assert [s.frames for s in ladder(72, 128, num_scales=4, **small)] == [4, 5, 7, 13]


def test_bad_ladders_are_one_line():
    with pytest.raises(ValueError, match="multiple of every rate") as caught:
        ladder(144, 256, **PAPER, num_frames=12)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"scale 0 of a clip of 1000x100 px would be 33x3 px.*too extreme"):
        ladder(100, 1000, **OFFICIAL)
    with pytest.raises(ValueError, match="too extreme"):
        ladder(1000, 100, **PAPER)
    with pytest.raises(ValueError, match="side must be"):
        ladder(100, 100, **(PAPER | {"side": "depth"}))
    with pytest.raises(ValueError, match="min_size <= max_size"):
        ladder(100, 100, **(PAPER | {"max_size": 31}))


def test_build_is_torch_interpolation():
    frames = np.random.default_rng(0).integers(0, 256, (13, 70, 123, 3), np.uint8)
    sizes = ladder(70, 123, side="height", min_size=11, max_size=97, num_scales=5, factor=None)
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

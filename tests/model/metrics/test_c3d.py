"""C3D features of files in the layouts people have, against a plain network fed by hand."""

import copy
import math
import re

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from torch import nn

from model.metrics.c3d import C3dFeatures
from model.metrics.option import from_option
from model.metrics.svfid import RealClip, svfid
from model.metrics.weight_files import FeaturesError

# The three projects' names of the convolutions, in the order of the network.
PLAIN = ["conv1", "conv2", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b"]
LETTERED = ["conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b"]
POSITIONS = [0, 3, 6, 8, 11, 13, 16, 18]  # in R-C3D's Sequential


def plain_network():
    """C3D to conv5b, as a list of layers; seeded weights that keep the activations' size."""
    torch.manual_seed(0)
    layers, channels = [], 3
    for width in (64, "1x2x2", 128, "2x2x2", 256, 256, "2x2x2", 512, 512, "2x2x2", 512, 512):
        if isinstance(width, str):
            layers.append(nn.MaxPool3d(tuple(map(int, width.split("x")))))
            continue
        conv = nn.Conv3d(channels, width, (3, 3, 3), padding=(1, 1, 1))
        nn.init.normal_(conv.weight, std=math.sqrt(2 / (27 * channels)))
        nn.init.normal_(conv.bias, std=1.0)
        layers += [conv, nn.ReLU()]
        channels = width
    return nn.Sequential(*layers).requires_grad_(False)


@pytest.fixture(scope="module")
def network():
    return plain_network()


def state(network, names, weight=".weight", bias=".bias"):
    convs = [layer for layer in network if isinstance(layer, nn.Conv3d)]
    tensors = {}
    for name, conv in zip(names, convs, strict=True):
        tensors |= {name + weight: conv.weight, name + bias: conv.bias}
    return {name: tensor.detach() for name, tensor in tensors.items()}


def davide(network, path):
    """c3d.pickle: a bare state dict of 487 classes, in the format of torch before 1.6."""
    tensors = {**state(network, PLAIN), "fc8.weight": torch.zeros(487, 4), "fc8.bias": torch.zeros(487)}
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


def jfzhang(network, path):
    tensors = {**state(network, PLAIN), "fc8.weight": torch.zeros(101, 4), "fc8.bias": torch.zeros(101)}
    torch.save({"epoch": 100, "state_dict": tensors, "opt_dict": {"param_groups": [{"lr": 1e-3}]}}, path)


def mmaction_pretrain(network, path):
    torch.save(state(network, [f"{name}.conv" for name in LETTERED]) | {"fc6.weight": torch.zeros(4, 4)}, path)


def mmaction_finetuned(network, path):
    tensors = state(network, [f"backbone.{name}.conv" for name in LETTERED])
    tensors |= {"cls_head.fc_cls.weight": torch.zeros(101, 4), "cls_head.fc_cls.bias": torch.zeros(101)}
    torch.save({"meta": {"mmcv_version": "1.1.4"}, "state_dict": tensors}, path)


def chainer(network, path):
    arrays = {name: tensor.numpy() for name, tensor in state(network, LETTERED, "/W", "/b").items()}
    with open(path, "wb") as file:
        np.savez(file, **arrays, **{"fc8/W": np.zeros((101, 4), np.float32), "fc8/b": np.zeros(101, np.float32)})


def sequential(network, path):
    torch.save(state(network, [f"features.{i}" for i in POSITIONS]) | {"classifier.0.bias": torch.zeros(4)}, path)


def fed_by_hand(clip_cthw, channels, mean, low, high):
    """A clip (3, 16, 112, 112) in [-1, 1] → channels picked from R, G, B and mapped to [low, high], minus the mean."""
    picked = np.stack(["RGB".index(channel) for channel in channels])
    levels = low + (clip_cthw[picked] + 1.0) / 2.0 * (high - low)
    return levels - np.array(mean)[:, None, None, None]


# writer, what the name says, the conventions of the project
FILES = {
    "davide": (davide, "c3d_sports1m_", ("BGR", (90.25164795, 97.65701294, 101.4083252), 0, 255)),
    "jfzhang": (jfzhang, "c3d_ucf101_", ("BGR", (90, 98, 102), 0, 255)),
    "mmaction-pretrain": (mmaction_pretrain, "c3d_sports1m_", ("RGB", (104, 117, 128), 0, 255)),
    "mmaction-finetuned": (mmaction_finetuned, "c3d_ucf101_", ("RGB", (104, 117, 128), 0, 255)),
    "chainer": (chainer, "c3d_ucf101_", ("BGR", (90.25164795, 97.65701294, 101.4083252), 0, 256)),
    "sequential": (sequential, "c3d_caffe_", ("BGR", (90, 98, 102), 0, 255)),
}


def load(write, network, folder):
    """The features of such a file, which is not kept: 110 MB each."""
    path = folder / "weights"
    write(network, path)
    try:
        return C3dFeatures(path)
    finally:
        path.unlink()


@pytest.fixture(scope="module")
def every(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("c3d")
    return {name: load(write, network, folder) for name, (write, *_) in FILES.items()}


def coloured(frames=5, height=24, width=40):
    """A clip whose channels differ much, float32 (3, frames, height, width)."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (3, frames, height, width))
    return (noise + np.array([0.7, 0.0, -0.6])[:, None, None, None]).astype(np.float32)


def resized(video_cthw):
    """Trilinear to 16 x 112 x 112, corner to corner, by scipy."""
    grid = [np.arange(n) for n in video_cthw.shape[1:]]
    wanted = [np.linspace(0, n - 1, m) for n, m in zip(video_cthw.shape[1:], (16, 112, 112), strict=True)]
    points = np.stack(np.meshgrid(*wanted, indexing="ij"), axis=-1)
    return np.stack([RegularGridInterpolator(grid, channel)(points) for channel in video_cthw.astype(np.float64)])


@pytest.mark.slow
# One of each pair of files with the same weights, fed alike: the test of names says which are.
@pytest.mark.parametrize("name", ["davide", "jfzhang", "mmaction-pretrain", "chainer"])
def test_features_are_those_of_the_plain_network_fed_as_its_project_feeds_it(name, network, every):
    _, _, (channels, mean, low, high) = FILES[name]
    features, video = every[name], coloured()
    fed = fed_by_hand(resized(video), channels, mean, low, high)
    with torch.inference_mode():
        maps = network(torch.from_numpy(fed).float()[None])[0]
    assert maps.shape == (512, 2, 7, 7)
    expected = maps.permute(1, 2, 3, 0).reshape(98, 512).double().numpy()
    vectors = features(video)
    assert vectors.dtype == np.float64
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-4 * expected.max())


def test_names_say_what_was_trained_on_and_differ_with_the_numbers(every, network, tmp_path):
    digits = {}
    for name, (_, prefix, _) in FILES.items():
        assert re.fullmatch(prefix + "[0-9a-f]{6}", every[name].name)
        digits[name] = every[name].name.removeprefix(prefix)
    assert digits["mmaction-pretrain"] == digits["mmaction-finetuned"]
    assert digits["jfzhang"] == digits["sequential"]
    assert len(set(digits.values())) == 4
    assert load(jfzhang, network, tmp_path).name == every["jfzhang"].name
    with torch.no_grad():
        network[0].bias[0] += 1e-3
    try:
        assert load(jfzhang, network, tmp_path).name != every["jfzhang"].name
    finally:
        with torch.no_grad():
            network[0].bias[0] -= 1e-3


@pytest.fixture(scope="module")
def davides(every):
    """The vectors of the coloured clip."""
    return every["davide"](coloured())


def test_callers_precision_threads_and_layout_change_nothing(every, davides):
    reversed_view = coloured()[:, ::-1].copy()[:, ::-1]
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            vectors = every["davide"](reversed_view)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(vectors, davides)


def test_svfid_takes_them_although_their_covariance_is_singular(every, davides):
    result = svfid(RealClip([coloured()], every["davide"]), [coloured()])
    assert result.mean <= 1e-9 * np.sum(davides.var(0))
    assert result.features == every["davide"].name


@pytest.mark.parametrize("video", [torch.zeros(3, 13, 32, 32, dtype=torch.uint8), torch.full((3, 13, 32, 32), 255.0)])
def test_refuses_what_is_no_video(every, video):
    with pytest.raises((TypeError, ValueError)):
        every["davide"](video)


# -- whether mmaction2's Sports-1M network is fed R, G, B or B, G, R


def turned(network):
    """The same network fed the other way round."""
    other = copy.deepcopy(network)
    other[0].weight.copy_(network[0].weight.flip(1))
    return other


@pytest.fixture(scope="module")
def pair(network, tmp_path_factory):
    """c3d.pickle and mmaction2's file of the same training."""
    folder = tmp_path_factory.mktemp("pair")
    davide(network, folder / "c3d.pickle")
    mmaction_pretrain(network, folder / "same.pth")
    mmaction_pretrain(turned(network), folder / "turned.pth")
    mmaction_finetuned(network, folder / "ucf101.pth")
    yield folder
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.slow
def test_the_first_convolution_tells_the_order_of_the_colours(network, every, pair):
    """The same weights as c3d.pickle's are fed B, G, R as that is, minus mmaction2's means; turned ones R, G, B."""
    same, other = (from_option(f"c3d:{pair / name},{pair / 'c3d.pickle'}") for name in ("same.pth", "turned.pth"))
    video = coloured()
    for features, net, channels in ((same, network, "BGR"), (other, turned(network), "RGB")):
        fed = fed_by_hand(resized(video), channels, (104, 117, 128), 0, 255)
        with torch.inference_mode():
            maps = net(torch.from_numpy(fed).float()[None])[0]
        expected = maps.permute(1, 2, 3, 0).reshape(98, 512).double().numpy()
        np.testing.assert_allclose(features(video), expected, rtol=0, atol=1e-4 * expected.max())
    assert same.name != every["mmaction-pretrain"].name and same.name.startswith("c3d_sports1m_")
    assert other.name == C3dFeatures(pair / "turned.pth").name  # as it is taken without a reference


def test_a_reference_that_tells_nothing_is_one_line(network, pair, tmp_path):
    stranger = copy.deepcopy(network)
    stranger[0].weight.normal_(generator=torch.Generator().manual_seed(1))
    mmaction_pretrain(stranger, tmp_path / "stranger.pth")
    for first, second, cause in (
        (tmp_path / "stranger.pth", pair / "c3d.pickle", "of another training; leave out"),
        (pair / "ucf101.pth", pair / "c3d.pickle", "what it is fed is known; leave out"),
        (pair / "same.pth", pair / "ucf101.pth", "not c3d.pickle"),
        (pair / "same.pth", tmp_path / "none", "no such file"),
    ):
        with pytest.raises(FeaturesError, match=re.escape(cause)) as caught:
            from_option(f"c3d:{first},{second}")
        assert "\n" not in str(caught.value)
    stranger[0].weight.copy_(network[0].weight.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1, -1))  # grey
    mmaction_pretrain(stranger, tmp_path / "stranger.pth")
    with pytest.raises(FeaturesError, match="in both orders"):
        C3dFeatures(tmp_path / "stranger.pth", pair / "c3d.pickle")
    (tmp_path / "stranger.pth").unlink()


def test_a_comma_in_a_name_is_no_reference(network, tmp_path):
    path = tmp_path / "of, all names.pth"
    jfzhang(network, path)
    assert from_option(f"c3d:{path}").name == C3dFeatures(path).name
    path.unlink()

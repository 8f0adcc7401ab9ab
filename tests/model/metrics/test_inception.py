"""Inception features of synthetic files, against a plain network of torch's own layers."""

import numpy as np
import pytest
import torch
from torch import nn

from model.metrics.inception import InceptionFeatures, shapes
from model.metrics.svfid import RealClip, svfid


def plain_network():
    """The stem to the first pooling, with seeded weights and statistics, in evaluation mode."""
    torch.manual_seed(0)
    layers = []
    for into, out, stride, padding in ((3, 32, 2, 0), (32, 32, 1, 0), (32, 64, 1, 1)):
        norm = nn.BatchNorm2d(out, eps=0.001)
        nn.init.normal_(norm.weight, 1.0, 0.1)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 1e-3, 2.0)  # the smallest are where eps counts
        layers += [nn.Conv2d(into, out, 3, stride, padding, bias=False), norm, nn.ReLU()]
    return nn.Sequential(*layers).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network():
    return plain_network()


def write(network, path, classes):
    tensors = {"fc.weight": torch.zeros(classes, 4), "fc.bias": torch.zeros(classes)}
    for i, name in enumerate(("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3")):
        tensors |= {f"{name}.conv.weight": network[3 * i].weight}
        tensors |= {f"{name}.bn.{key}": value for key, value in network[3 * i + 1].state_dict().items()}
    torch.save(tensors, path)


def image(seed, height=41, width=64):
    return np.random.default_rng(seed).uniform(-1, 1, (3, 1, height, width)).astype(np.float32)


@pytest.mark.parametrize(("classes", "prefix"), [(1008, "inception_fid_"), (1000, "inception_torchvision_")])
def test_features_are_those_of_the_plain_network_on_the_image_as_it_is(network, tmp_path, classes, prefix):
    write(network, tmp_path / "weights.pth", classes)
    features = InceptionFeatures(tmp_path / "weights.pth")
    assert features.name.startswith(prefix)
    with torch.no_grad():
        maps = network(torch.from_numpy(image(0)).transpose(0, 1))[0]
    assert maps.shape == (64, 18, 29)
    expected = maps.permute(1, 2, 0).reshape(-1, 64).double().numpy()
    np.testing.assert_allclose(features(image(0)), expected, rtol=0, atol=1e-5 * expected.max())


def test_sifid_of_an_image(network, tmp_path):
    write(network, tmp_path / "weights.pth", 1000)
    features = InceptionFeatures(tmp_path / "weights.pth")
    result = svfid(RealClip([image(0)], features), [image(0), image(1), 0.5 * image(1)])
    itself, alike, paler = result.per_sample
    assert itself <= 1e-9 * np.sum(features(image(0)).var(0))
    assert itself < alike < paler
    assert result.features == features.name


@pytest.mark.parametrize(
    ("video", "words"),
    [
        (np.zeros((3, 2, 32, 32), np.float32), "of one image, got 2 frames"),
        (
            np.zeros((3, 1, 32, 6), np.float32),
            r"0 vectors of 32×6 px \(H×W\), and 65 are needed; take 23×23 px or more, or --features lite0",
        ),
        (np.zeros((3, 1, 16, 21), np.float32), r"40 vectors of 16×21 px \(H×W\), and 65 are needed; take 23×23"),
    ],
)
def test_refuses(network, tmp_path, video, words):
    write(network, tmp_path / "weights.pth", 1000)
    features = InceptionFeatures(tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=words):
        features(video)


@pytest.mark.parametrize(("dims", "side", "count"), [(64, 23, 81), (192, 71, 196)])
def test_the_size_that_is_named_is_the_smallest_square_that_will_do(tmp_path, dims, side, count):
    weights = {name: torch.ones(shape) for name, shape in shapes(dims).items()}
    torch.save({**weights, "fc.bias": torch.zeros(1000)}, tmp_path / "weights.pth")
    features = InceptionFeatures(tmp_path / "weights.pth", dims)
    assert features(np.zeros((3, 1, side, side), np.float32)).shape == (count, dims)
    with pytest.raises(ValueError, match=f"and {dims + 1} are needed; take {side}×{side} px or more"):
        features(np.zeros((3, 1, side - 1, side - 1), np.float32))

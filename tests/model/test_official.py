"""The authors' checkpoints: an imported stack computes what their network does, and nothing wrong gets past `load`.

The reference is written here from facts about their networks_3d.py, with torch's own Conv3d, BatchNorm3d in training
mode and spectral_norm of the first kind; nothing of model/ is in it. Its state_dict has their names.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model import official
from model.checkpoint import CheckpointError
from model.loading import load as load_model
from model.presets import official as preset
from model.pyramid import ladder
from model.sampling.sample import reconstruct
from model.sampling.sampler import NetworkSampler, random_videos

from .float64 import in_float64

# What the authors' code prints, four of ten scales of a 256×144 clip; test_pyramid.py has the whole table.
SIZES = ((4, 18, 33), (4, 23, 41), (4, 28, 51), (5, 36, 65))
AMPS = [1, 0.04, 0.03, 0.02]
ARGS = {
    "ar": 144 / 256,
    "batch_size": 1,
    "checkname": "DEBUG",
    "img_size": 256,
    "min_size": 32,
    "org_fps": 24.0,
    "sampling_rates": [4, 3, 2, 1],
    "scale_factor": (32 / 256) ** (1 / 9),
    "stop_scale": 9,
    "stop_scale_time": 9,
    "vae_levels": 3,
    "video_path": "data/vids/a clip: one.mp4",
}


def block(a, b):
    return nn.Sequential(
        OrderedDict(conv=nn.Conv3d(a, b, 3, padding=1), norm=nn.BatchNorm3d(b), lrelu=nn.LeakyReLU(0.2))
    )


def generator(a, width, blocks):
    layers = [("head", block(a, width)), *((f"block{i}", block(width, width)) for i in range(blocks))]
    return nn.Sequential(OrderedDict([*layers, ("tail", nn.Conv3d(width, 3, 3, padding=1))]))


def spectral_block(a, b):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch prefers its second kind
        conv = nn.utils.spectral_norm(nn.Conv3d(a, b, 3, padding=1))
    return nn.Sequential(OrderedDict(conv=conv, lrelu=nn.LeakyReLU(0.2)))


class Reference(nn.Module):
    def __init__(self, width=6, latent=5, blocks=5, features=3, scales=4, sizes=SIZES):
        super().__init__()
        self.sizes = sizes
        self.encode = nn.Module()
        chain = [(f"conv_block_{i}", spectral_block(3 if i == 0 else width, width)) for i in range(features)]
        self.encode.features = nn.Sequential(OrderedDict(chain))
        for head in ("mu", "logvar"):
            setattr(self.encode, head, nn.Sequential(OrderedDict(conv=nn.Conv3d(width, latent, 3, padding=1))))
        self.decoder = generator(latent, width, blocks)
        self.body = nn.ModuleList(generator(3, width, blocks) for _ in range(scales - 1))

    def forward(self, z, noises=()):
        """z → x of the finest scale; `noises`: (scale, what is added to the input of that scale's generator)."""
        x = torch.tanh(self.decoder(z))
        for n, g in enumerate(self.body, start=1):
            up = F.interpolate(x, size=self.sizes[n], mode="trilinear", align_corners=True)
            x = torch.tanh(g(up + dict(noises).get(n, 0)) + up)
        return x


@pytest.fixture(scope="module")
def reference():
    """Random weights, with every part that an import could lose or confuse away from its default."""
    torch.manual_seed(0)
    net = Reference()
    for name, tensor in net.state_dict().items():
        if name.endswith((".running_mean", ".norm.bias")):
            tensor.normal_()
        elif name.endswith((".running_var", ".norm.weight")):
            tensor.uniform_(0.5, 2)
    net.encode.features(torch.randn(1, 3, *SIZES[0]))  # in training mode: power iteration moves u and v
    return net


@pytest.fixture
def folder(reference, tmp_path):
    """What their training leaves: the files of a finished fourth scale."""
    return write(tmp_path, reference.state_dict())


def write(folder, state, amps=AMPS, args=ARGS, **options):
    optimizer = {"state": {0: {"step": 7, "exp_avg": torch.zeros(2)}}, "param_groups": [{"betas": (0.5, 0.999)}]}
    record = {"scale": len(SIZES) - 1, "state_dict": state, "optimizer": optimizer, "noise_amps": amps}
    torch.save(record, folder / "netG.pth", **options)
    torch.save({"data": amps}, folder / "Noise_Amps.pth", **options)
    if args:
        (folder / "args.txt").write_text("".join(f"{name}: {value}\n" for name, value in sorted(args.items())))
    return folder


def load(folder):
    return official.load(folder, preset().with_overrides(["precision=float32"]))


def imported(folder):
    published = load(folder)
    sizes = tuple((s.frames, s.height, s.width) for s in ladder(published.config, *published.aspect))
    return published.stack(sizes)


@torch.no_grad()
def test_without_noise_the_output_is_that_of_the_original(reference, folder):
    stack = imported(folder)
    stack.noise_amps = [0.0] * len(SIZES)
    z = torch.randn(1, 5, *SIZES[0], generator=torch.Generator().manual_seed(1))
    expected = reference.train()(z)
    got = stack.sample(z, torch.Generator())
    assert got.shape == (1, 3, *SIZES[-1]) and got.dtype == torch.float32
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    running_statistics = reference.eval()(z)
    assert (got - running_statistics).abs().max() > 0.1  # the reference could have told


@torch.no_grad()
def test_ten_scales_are_those_of_the_original_but_for_rounding(tmp_path):
    """In float64 to twelve digits, so in float32 only rounding differs: no more than theirs itself is off by."""
    config = replace(preset(), max_size=64)
    sizes = ladder(config, 9, 16)
    torch.manual_seed(3)
    theirs = Reference(scales=10, sizes=sizes).train()
    for name, tensor in theirs.state_dict().items():
        if name.endswith(".norm.weight"):
            tensor.uniform_(0.5, 2)
    options = {"img_size": 64, "ar": 9 / 16}
    stack = load(write(tmp_path, theirs.state_dict(), amps=[1] * 10, args=ARGS | options)).stack(sizes)
    stack.noise_amps = [0.0] * 10
    z = torch.randn(1, 5, *sizes[0])
    got, expected = stack.sample(z, torch.Generator()), theirs(z)
    with in_float64():
        exact = stack.double().sample(z.double(), torch.Generator())
    theirs.double()
    assert exact.dtype == torch.float64 and (exact - theirs(z.double())).abs().max() < 1e-10  # measured 2e-13
    rounding = (expected - exact).abs().max()
    assert (got - expected).abs().max() < min(3 * rounding, 1e-3)  # measured 5e-5 to 8e-5, rounding 5e-5 to 1.3e-4


@torch.no_grad()
def test_z_of_13_frames_as_their_eval_video_draws_it(reference, folder):
    """The first enlargement, to the size of scale 1, also brings 13 frames to its 4."""
    for frames in (13, None):
        model = load_model(str(folder), latent_frames=frames)
        sampler = model.sampler([], torch.device("cpu"))
        sampler.stack.noise_amps = [0.0] * len(SIZES)
        ladder_to = sampler.ladder_to(sampler.size)
        assert ladder_to[0] == (frames or 4, 18, 33) and tuple(ladder_to[1:]) == SIZES[1:]
        got = torch.cat(list(sampler.parts(ladder_to, 7, 2)), dim=2)
        (seed,) = np.random.SeedSequence([7, 2]).generate_state(1, np.uint64)
        z = torch.randn(1, 5, frames or 4, 18, 33, generator=torch.Generator().manual_seed(int(seed)))
        torch.testing.assert_close(got, reference.train()(z).clamp(-1, 1), atol=1e-4, rtol=0)
        wide = (5, 36, 130)
        assert torch.cat(list(sampler.parts(sampler.ladder_to(wide), 7, 2)), dim=2).shape[2:] == wide


def test_videos_of_the_authors_networks_are_computed_in_float32(folder):
    for asked, used in ((None, "float32"), ("bf16", "bf16"), ("auto", "auto")):
        model = load_model(str(folder), precision=asked)
        assert model.config.precision == model.stack.config.precision == used


@torch.no_grad()
def test_noise_enters_at_gan_scales_with_the_amplitude_of_the_file(reference, folder):
    stack = imported(folder)
    z = torch.randn(1, 5, *SIZES[0], generator=torch.Generator().manual_seed(1))
    noise = torch.randn(1, 3, *SIZES[3], generator=torch.Generator().manual_seed(2))
    got = stack.sample(z, torch.Generator().manual_seed(2))
    torch.testing.assert_close(got, reference.train()(z, [(3, AMPS[3] * noise)]), atol=1e-4, rtol=0)
    assert stack.noise_amps == [0, 0, 0, AMPS[3]]


@torch.no_grad()
def test_the_encoder_is_that_of_the_original(reference, folder):
    stack = imported(folder)
    x = torch.rand(1, 3, *SIZES[0], generator=torch.Generator().manual_seed(1)) * 2 - 1
    features = reference.encode.eval().features(x)  # eval: u and v as they are stored
    posterior = stack.encoder(x)
    torch.testing.assert_close(posterior.mu, reference.encode.mu(features), atol=1e-5, rtol=0)
    torch.testing.assert_close(posterior.logvar, reference.encode.logvar(features), atol=1e-5, rtol=0)
    expected = reference.train()(reference.encode.mu(features))
    torch.testing.assert_close(reconstruct(stack, x), expected, atol=1e-4, rtol=0)


def test_sampling_needs_the_stack_only(folder):
    stack = imported(folder)
    assert not any(p.requires_grad for p in stack.parameters())
    assert random_videos(NetworkSampler(stack), 2, 0).shape == (2, 3, *SIZES[-1])


def test_the_config_is_what_the_files_say(folder):
    published = load(folder)
    config = published.config
    assert (config.channels, config.latent_dim) == (6, 5)
    assert (config.encoder_convs, config.generator_convs, config.tanh_after_sum) == (3, 7, True)
    assert (config.num_scales, config.vae_levels) == (10, 3)
    assert published.aspect == (9, 16) and config.fps == 24.0
    stack = imported(folder)
    assert stack.num_scales == 4 and tuple(stack.sizes[:4]) == SIZES and stack.sizes[9] == (13, 144, 256)


def test_other_networks_and_another_ladder(tmp_path):
    options = {"ar": 1080 / 1920 * 2, "stop_scale": 1, "stop_scale_time": 1, "vae_levels": 1, "img_size": 64}
    options |= {"min_size": 16, "sampling_rates": [3, 1]}
    state = Reference(width=4, latent=7, blocks=2, features=2, scales=2).state_dict()
    published = load(write(tmp_path, state, amps=[1, 0.5], args=ARGS | options))
    config = published.config
    assert (config.channels, config.latent_dim, config.encoder_convs, config.generator_convs) == (4, 7, 2, 4)
    assert (config.num_scales, config.vae_levels, config.num_frames) == (2, 1, 4)
    assert [(s.frames, s.height, s.width) for s in ladder(config, *published.aspect)] == [(2, 18, 16), (4, 72, 64)]


def test_the_rate_of_the_file_is_that_of_the_clip(reference, tmp_path):
    rates = {23.976023976023978: 23.976023976023978, 0.0: None}
    for theirs, ours in rates.items():
        published = load(write(tmp_path, reference.state_dict(), args=ARGS | {"org_fps": theirs}))
        assert published.config.fps == ours


def test_without_args_txt(reference, tmp_path):
    published = load(write(tmp_path, reference.state_dict(), args=None))
    assert (published.aspect, published.config.num_scales, published.config.vae_levels) == (None, 4, 3)


def test_other_ways_the_files_are_written(reference, folder, tmp_path):
    """PyTorch 1.4's format, a bare state dict, names of DataParallel, amplitudes as tensors: all give the same."""
    expected = load(folder)
    state = reference.state_dict()
    write(tmp_path, state, _use_new_zipfile_serialization=False)
    same(load(tmp_path), expected)
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "netG.pth")
    torch.save(torch.tensor(AMPS, dtype=torch.float64), tmp_path / "Noise_Amps.pth")
    same(load(tmp_path), expected)
    torch.save({"data": [torch.tensor(amp, dtype=torch.float64) for amp in AMPS]}, tmp_path / "Noise_Amps.pth")
    same(load(tmp_path), expected)


def same(got, expected):
    assert got.config == expected.config and got.noise_amps == expected.noise_amps
    assert got.generators.keys() == expected.generators.keys()
    assert all(torch.equal(got.generators[name], value) for name, value in expected.generators.items())


def refused(folder, file, cause):
    with pytest.raises(CheckpointError, match=re.escape(cause)) as caught:
        load(folder)
    assert str(folder / file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["netG.pth", "Noise_Amps.pth"])
def test_a_missing_or_torn_file(folder, file):
    content = (folder / file).read_bytes()
    for torn in (b"", content[: len(content) // 2]):
        (folder / file).write_bytes(torn)
        refused(folder, file, "not a readable file")
    (folder / file).unlink()
    refused(folder, file, "no such file")


class Bomb:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("file", ["netG.pth", "Noise_Amps.pth"])
def test_code_in_a_file_is_not_executed(folder, file, zipped):
    marker = folder / "executed"
    record = torch.load(folder / file, weights_only=True)
    torch.save(record | {"scale": Bomb(marker)}, folder / file, _use_new_zipfile_serialization=zipped)
    refused(folder, file, "not a readable file")
    assert not marker.exists()
    torch.load(folder / file, weights_only=False)  # the bomb is live: an unguarded reader sets it off
    assert marker.exists()


def test_code_in_args_txt_is_not_executed(folder):
    marker = folder / "executed"
    (folder / "args.txt").write_text(f"ar: __import__('os').mkdir({str(marker)!r})\n")
    refused(folder, "args.txt", "ar: __import__")
    assert not marker.exists()


NAME = "decoder.block1.conv.weight"
CHANGES = {
    "another part": (
        lambda s: {**s, "encode.bern.conv.weight": s[NAME], "z": s[NAME]},
        "tensor encode.bern.conv.weight",
    ),
    "nothing like a generator": (lambda s: {"head.conv.weight": s[NAME]}, "no weights encode.features"),
    "a tensor less": (lambda s: {k: v for k, v in s.items() if k != NAME}, f"no tensor {NAME}"),
    "a scale less": (lambda s: {k: v for k, v in s.items() if "body.1." not in k}, "unexpected tensor body.2."),
    "kernel of 1": (lambda s: {**s, NAME: s[NAME][..., :1]}, f"{NAME} is (6, 6, 3, 3, 1), not (6, 6, 3, 3, 3)"),
    "images": (
        lambda s: {k: v[..., 0] if v.ndim == 5 else v for k, v in s.items()},
        "is (6, 3, 3, 3), not (6, 3, 3, 3, 3)",
    ),
    "a number": (lambda s: {**s, "encode.mu.conv.weight": torch.tensor(1.0)}, "no weights encode.mu"),
    "no channels": (lambda s: {k: v[:0] if v.ndim else v for k, v in s.items()}, "channels=0"),
    "no tensor": (lambda s: {**s, NAME: 1.0}, f"unexpected entry '{NAME}'"),
    "no names": (lambda s: {0: s[NAME]}, "unexpected entry 0"),
    "a list": (lambda s: list(s.values()), "no state_dict"),
}


@pytest.mark.parametrize(("change", "cause"), CHANGES.values(), ids=CHANGES)
def test_networks_of_another_kind(reference, folder, change, cause):
    write(folder, change(dict(reference.state_dict())))
    refused(folder, "netG.pth", cause)


def test_the_amplitude_that_a_resumed_training_repeats(reference, folder):
    write(folder, reference.state_dict(), amps=[1, 0.04, 0.03, 0.029, 0.02])
    refused(
        folder, "Noise_Amps.pth", "5 noise amplitudes for 4 scales: the authors' code adds one again when it resumes"
    )


@pytest.mark.parametrize(
    ("record", "cause"),
    [
        ({"data": AMPS[:3]}, "not 4 numbers"),
        ({"data": [1, 0.1, 0.1, float("nan")]}, "not 4 numbers"),
        ({"data": [1, 0.1, 0.1, -0.1]}, "not 4 numbers"),
        ({"data": [1, 0.1, 0.1, "x"]}, "no list of numbers"),
        ({"data": None}, "no list of numbers"),
        ({"amps": AMPS}, "no list of numbers"),
        (1.0, "no list of numbers"),
        ([torch.zeros(2)] * 4, "no list of numbers"),
    ],
)
def test_wrong_amplitudes(folder, record, cause):
    torch.save(record, folder / "Noise_Amps.pth")
    refused(folder, "Noise_Amps.pth", cause)


@pytest.mark.parametrize(
    ("option", "cause"),
    [
        ({"ar": 0.0}, "ar=0.0"),
        ({"ar": "wide"}, "ar: wide is no float"),
        ({"ar": "[" * 9999}, "is no float"),
        ({"ar": "NaN"}, "NaN"),
        ({"org_fps": -1.0}, "fps=-1.0"),
        ({"org_fps": 30}, "org_fps: 30 is no float"),
        ({"ar": "Infinity"}, "Infinity"),
        ({"vae_levels": 0}, "vae_levels=0"),
        ({"stop_scale": None}, "stop_scale: None is no int"),
        ({"stop_scale_time": 4}, "stop_scale_time=4"),
        ({"img_size": 16}, "max_size=16"),
        ({"sampling_rates": []}, "frame_rates"),
        ({"sampling_rates": ["a"]}, "is no list"),
        ({"sampling_rates": 3}, "sampling_rates: 3 is no list"),
    ],
)
def test_wrong_options(reference, folder, option, cause):
    write(folder, reference.state_dict(), args=ARGS | option)
    refused(folder, "args.txt", cause)


def test_options_missing_or_of_a_shorter_training(reference, folder):
    write(folder, reference.state_dict(), args={name: value for name, value in ARGS.items() if name != "ar"})
    refused(folder, "args.txt", "no option ar")
    write(folder, reference.state_dict(), args=ARGS | {"stop_scale": 2, "stop_scale_time": 2})
    refused(folder, "netG.pth", "4 scales, args.txt says 3")

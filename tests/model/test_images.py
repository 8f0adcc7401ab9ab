"""Models of images: kernels of 1×k×k on one frame; an iteration equals the plain float64 reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model import checkpoint as ckpt
from model.config import ConfigError
from model.metrics.lite0 import Lite0FrameFeatures
from model.metrics.nnf import coherence, nearest_neighbour_field, nnfdiv
from model.metrics.scores import nearest_chunk, score, score_of_novelty
from model.metrics.svfid import RealClip
from model.networks import blocks
from model.networks.generators import GeneratorStack
from model.patches.vgpnn import Vgpnn, vgpnn_ladder
from model.presets import OTHER_KIND, PRESETS, demo, image_demo, image_official, image_paper, official, paper
from model.pyramid import ladder, training_pyramids
from model.sampling.sample import stretched_ladder
from model.sampling.sampler import random_videos, sampler_of
from model.training.loop import train_clip

from . import reference
from .conftest import one_thread, real_pyramid, synthetic_clip, train
from .float64 import in_float64
from .test_one_iteration import EXACT, ZERO_GRADIENT, moments_of, names_in_order

SIZES = ((1, 9, 12), (1, 11, 15), (1, 14, 19), (1, 16, 22))
CPU = torch.device("cpu")


def tiny(preset=image_official, **changes):
    settings = {"num_scales": 4, "channels": 4, "latent_dim": 8, "iters_per_scale": 2, "seed": 5, "vae_levels": 2}
    settings |= {"checkpoint_every": 1, "log_every": 1, "precision": "float32"}
    return replace(preset(), **{**settings, **changes})


@pytest.fixture(scope="module", params=["official", "paper"])
def exact(request, tmp_path_factory):
    """A whole training in float64; official has a batch of two, and noise at VAE scales."""
    path = tmp_path_factory.mktemp("image") / "checkpoint.pt"
    config = tiny({"official": image_official, "paper": image_paper}[request.param])
    reals = real_pyramid(SIZES, synthetic_clip()[:, :1])
    with one_thread(), in_float64():
        recorder = train(config, path, reals)
    return config, reals, recorder, ckpt.load(path)


@pytest.mark.parametrize("n", range(4))
def test_iteration_equals_the_reference(exact, n):
    """Two draws of the one image are two samples whose losses are averaged, where those of a video are summed."""
    config, reals, recorder, final = exact
    before, after = recorder.before[n, 2], recorder.before.get((n + 1, 1), final)
    w, names = reference.double(before.generators), names_in_order(before, n, config)
    real = [torch.from_numpy(each)[None].double() for each in reals]
    samples = [(real, reference.Draws(config.seed, n, 2, 0, torch.float64, again=k)) for k in range(config.batch_size)]
    size, share = before.sizes, 1 / config.batch_size
    averaged = replace(
        config,
        rec_weight=config.rec_weight * share,
        kl_weight=config.kl_weight * share,
        adv_weight=config.adv_weight * share,
    )
    moments = moments_of(before.optimizers[0], names)
    if n < config.vae_levels:
        losses, found = reference.vae_iteration(n, w, moments, samples, size, averaged)
        pairs = [(after.optimizers[0], found, names)]
    else:
        c = reference.double(before.critic)
        critic = [name for name in c if not name.endswith((".u", ".v"))]
        # The reference sums D's two losses where ours averages them. Adam does not see the factor, but for its 1e-8.
        times = config.batch_size
        earlier = moments_of(before.optimizers[1], critic)
        critic_moments = {name: (step, times * m, times**2 * v) for name, (step, m, v) in earlier.items()}
        losses, found, _ = reference.gan_iteration(
            n, w, c, moments, critic_moments, before.noise_amps, samples, size, averaged
        )
        pairs = [(after.optimizers[0], found, names)]
    for name, value in losses.items():
        # the gradient of D's last bias is 0 but for rounding, of which Adam makes a step
        loose = config.lr if name == "adv_loss" else EXACT
        assert recorder.losses()[n, 2][name] == pytest.approx(value.item(), rel=loose, abs=loose), name
    for optimizer, theirs, of in pairs:
        for name, (_, m, _) in moments_of(optimizer, of).items():
            if name != ZERO_GRADIENT:
                limit = (1e-4 if n >= config.vae_levels and config.batch_size > 1 else EXACT) * theirs[name][
                    1
                ].abs().max()
                assert (m - theirs[name][1]).abs().max() <= limit, name


def test_one_frame_is_convolved_as_an_image():
    weight, bias = torch.randn(5, 4, 1, 3, 3), torch.randn(5)
    x = torch.randn(2, 4, 1, 7, 9)
    expected = torch.nn.functional.conv3d(x, weight, bias, padding=(0, 1, 1))
    torch.testing.assert_close(blocks.convolve(x, weight, bias), expected)
    smaller = torch.nn.functional.conv3d(x, weight, bias)
    torch.testing.assert_close(blocks.convolve(x, weight, bias, padded=False), smaller)


def test_networks_have_kernels_of_one_frame():
    stack = GeneratorStack(tiny(), SIZES)
    stack.grow()
    kernels = {tuple(p.shape[2:]) for p in stack.parameters() if p.ndim == 5}
    assert kernels == {(1, 3, 3)}
    assert [size.frames for size in stretched_ladder(stack, (1, 30, 40))] == [1, 1]
    with pytest.raises(ValueError, match="2 frames of an image, which has one; give 1x30x40"):
        stretched_ladder(stack, (2, 30, 40))


def test_noise_at_vae_scales_is_the_official_2d_code_s():
    draw = torch.Generator().manual_seed(0)
    for config, noisy in (
        (tiny(vae_levels=3), [False, True, True, True]),
        (tiny(image_paper, vae_levels=3), [False] * 3 + [True]),
    ):
        stack = GeneratorStack(config, SIZES)
        while stack.num_scales < 4:
            stack.grow()
        assert [stack.noise(n, 1, draw) is not None for n in range(4)] == noisy


def test_presets_of_images_are_those_of_videos_with_one_frame():
    for image, video in ((image_paper(), paper()), (image_official(), official())):
        own = {"dims": 2, "num_frames": 1, "frame_rates": (1,), "fps": None, "patch_size": (1, 7, 7)}
        assert {name: getattr(image, name) for name in own} == own
        theirs = {"iters_per_scale": 5_000, "batch_size": 2, "vae_noise": True, "noise_amp": 0.05}
        changed = own | (theirs if video == official() else {})
        assert replace(image, **{name: getattr(video, name) for name in changed}) == video
    assert {OTHER_KIND[OTHER_KIND[name]] for name in PRESETS if name != "fast"} == PRESETS.keys() - {"fast"}
    assert all(PRESETS[name]().dims != PRESETS[other]().dims for name, other in OTHER_KIND.items())


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("num_frames=13", "num_frames=13: of an image it is 1"),
        ("frame_rates=4,1", "frame_rates=.*: of an image it is"),
        ("stride=13", "stride=13: of an image it is None"),
        ("patch_size=3,7,7", "an image has one frame; write 1,7,7"),
        ("dims=4", "dims=4: write 2 or 3"),
        ("dims=3", "dims=3: goes with the preset; leave it out, and give one of videos, such as demo"),
    ],
)
def test_settings_of_videos_are_refused(setting, words):
    with pytest.raises(ConfigError, match=words):
        image_demo().with_overrides([setting])


def test_dims_goes_with_the_preset():
    told = "dims=2: goes with the preset; leave it out, and give one of images, such as image_demo"
    with pytest.raises(ConfigError, match=told):
        demo().with_overrides(["num_frames=1", "dims=2"])
    assert image_demo().with_overrides(["dims=2"]) == image_demo()


def picture(height=47, width=63):
    """Colours that turn and blobs: uint8 (1, H, W, 3)."""
    frames = synthetic_clip(height, width)[:, :1].transpose(1, 2, 3, 0)
    return np.ascontiguousarray(np.rint((frames + 1) * 127.5).astype(np.uint8))


@pytest.mark.parametrize("method", ["hpvaegan", "vgpnn"])
def test_an_image_is_trained_and_finished_with_patches(method, tmp_path):
    config = tiny(image_demo, max_size=40, num_scales=3, patch_scale=1, vae_levels=1, iters_per_scale=3, method=method)
    pyramids, path = training_pyramids([picture()], config), tmp_path / "checkpoint.pt"
    scales = list(train_clip(config, pyramids, clip_id="x", path=path, log=lambda point: None))
    sampler = sampler_of(config, scales[-1].stack if scales else None, pyramids, CPU)
    images = random_videos(sampler, 3, seed=1)
    finest = ladder(config, 47, 63)[-1]
    assert images.shape == (3, 3, *finest) and finest[:2] == (1, 40)
    assert not torch.equal(images[0], images[1])
    real = RealClip([pyramids[0][2]], Lite0FrameFeatures())
    nearest = nearest_chunk(images[0], real)
    assert nearest is not None
    figures = {**score(images, real), **score_of_novelty(nearest[1])}
    assert figures.keys() == {"sifid_lite0_frames", "diversity_n3", "nn_distance", "nnfdiv", "coherence"}
    wide = sampler.ladder_to((1, 40, 90))
    assert next(iter(sampler.parts(wide, 0, 0))).shape == (1, 3, 1, 40, 90)


def test_patches_of_an_image_are_of_one_frame():
    """The field of an image moved by (2, 3) pixels is that displacement wherever the image holds the patch."""
    image = np.random.default_rng(0).uniform(-1, 1, (3, 1, 20, 24)).astype(np.float32)
    moved = np.ascontiguousarray(image[:, :, 2:, 3:])
    field = nearest_neighbour_field(moved, image)
    assert field.distance.shape == (1, 16, 19)
    assert (field.displacement == np.array([0, 2, 3])[:, None, None, None]).all() and field.nn_distance == 0
    assert coherence(field) == 1 and nnfdiv(field) < 0.05
    with pytest.raises(ValueError, match="need a larger video"):
        nearest_neighbour_field(image[:, :, :2], image)


def test_gpnn_shrinks_by_a_quarter_to_14_px_and_gives_back_an_image_without_noise():
    sizes = vgpnn_ladder((1, 54, 96))
    assert sizes[0] == (1, 14, 25) and sizes[-1] == (1, 54, 96)
    assert [h for _, h, _ in sizes[1:]] == [round(54 * 0.75**k) for k in range(len(sizes) - 2, -1, -1)]
    clip = torch.from_numpy(synthetic_clip(30, 40)[:, :1])[None]
    gpnn = Vgpnn(clip, CPU)
    assert torch.allclose(gpnn.sample(gpnn.sizes, torch.Generator().manual_seed(0), noisy=False), clip, atol=1e-3)
    one, two = (gpnn.sample(gpnn.sizes, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert one.shape == clip.shape and not torch.equal(one, two)

"""SinGAN and ConSinGAN: an iteration equals a plain float64 reference; samples, tiles and checkpoints are as ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model import checkpoint as ckpt
from model.config import ConfigError
from model.networks.singan import ConsinganStack, SinganStack
from model.networks.stacks import new_stack
from model.presets import PRESETS, image_official, of_method, official
from model.pyramid import ladder
from model.sampling.sample import reconstruct, sample_in_parts, stretched_ladder
from model.training.loop import train_clip

from . import reference, rivals_reference
from .conftest import one_thread, real_pyramid, sample, several_pyramids, train
from .float64 import in_float64
from .test_one_iteration import EXACT, moments_of

SIZES = ((4, 9, 12), (5, 10, 14), (7, 12, 16))  # fewer and smaller than other tests have
IMAGES = tuple((1, h, w) for _, h, w in SIZES)


def rival(method, sizes=SIZES, **changes):
    preset = image_official() if sizes is IMAGES else official()
    settings = {
        "num_scales": len(sizes),
        "channels": 4,
        "generator_convs": 5,
        "critic_convs": 4,
        "iters_per_scale": 2,
        "checkpoint_every": 1,
        "log_every": 1,
        "precision": "float32",
        "seed": 5,
        "vae_noise": False,
    }
    return of_method(replace(preset, vae_levels=0, **{**settings, **changes}), method)


ZERO = 1e-13  # a gradient that is 0, but for rounding: D's last bias cancels in E[D(fake)] − E[D(real)], others may too
# What the rivals' own papers and codes have otherwise than the re-implementation.
BOTH = {"generator_convs": 5, "critic_convs": 4, "critic_spectral": False, "critic_padded": False, "enlarging": "cubic"}
SINGAN = {"tanh_after_sum": False, "latent_dim": 1, "channels_double": 2, "random_border": "zeros", "gan_steps": 3}
SINGAN |= BOTH | {"critic_norm": True}
CONSINGAN = {"fixed_code": "clip", "generator_norm": False, "leak": 0.05} | BOTH
CASES = {
    "singan": ("singan", SIZES, {}),
    "consingan": ("consingan", SIZES, {}),
    "singan of three steps": ("singan", IMAGES, {"gan_steps": 3}),
    "consingan of images": ("consingan", IMAGES, {"train_depth": 2}),
    "singan as in its own paper": ("singan", IMAGES, SINGAN),
    "consingan as in its own paper": ("consingan", IMAGES, CONSINGAN),
}


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def exact(request, tmp_path_factory):
    """A whole training in float64: (config, sizes, Recorder, final checkpoint)."""
    method, sizes, changes = CASES[request.param]
    config, path = rival(method, sizes), tmp_path_factory.mktemp("rival") / "checkpoint.pt"
    config = replace(config, **changes)
    clip = real_pyramid(SIZES)
    reals = [real[:, : size[0]] for real, size in zip(clip, sizes, strict=True)]
    with one_thread(), in_float64():
        recorder = train(config, path, reals)
    return config, sizes, reals, recorder, ckpt.load(path)


@pytest.mark.parametrize("n", range(3))
def test_iteration_equals_the_reference(exact, n):
    """Of three scales ConSinGAN trains all three together, SinGAN one at a time."""
    config, sizes, reals, recorder, final = exact
    before, after = recorder.before[n, 2], recorder.before.get((n + 1, 1), final)
    w, c = reference.double(before.generators), reference.double(before.critic)
    names = list(rivals_reference.rates_of(reference.double(before.generators), n, config))
    critic_names = [name for name in c if not name.endswith((".u", ".v"))]
    draws = [
        [
            reference.Draws(config.seed, n, 2, 0, torch.float64, again=step * config.batch_size + place)
            for place in range(config.batch_size)
        ]
        for step in range(config.gan_steps)
    ]
    clip = [torch.from_numpy(real)[None].double() for real in reals]
    moments = moments_of(before.optimizers[0], names), moments_of(before.optimizers[1], critic_names)
    losses, after_g, after_d = rivals_reference.iteration(
        n, w, c, *moments, before.noise_amps, clip, draws, sizes, config
    )
    for name, value in losses.items():
        assert recorder.losses()[n, 2][name] == pytest.approx(value.item(), rel=EXACT, abs=EXACT), name
    for ours, theirs in (
        (moments_of(after.optimizers[0], names), after_g),
        (moments_of(after.optimizers[1], critic_names), after_d),
    ):
        for name, (step, m, _) in ours.items():
            assert step == theirs[name][0] == 2 * config.gan_steps
            if theirs[name][1].abs().max() > ZERO:
                assert (m - theirs[name][1]).abs().max() <= EXACT * theirs[name][1].abs().max(), name
    rates = rivals_reference.rates_of(reference.double(before.generators), n, config)
    for name, weight in w.items():
        if name in rates:
            assert (after.generators[name] - weight.detach()).abs().max() <= EXACT * rates[name], name
            assert (weight.detach() - before.generators[name]).abs().max() > 1e-4 * rates[name], name
        else:
            assert torch.equal(after.generators[name], before.generators[name]), name
    zero = {name for name, (_, m, _) in after_d.items() if m.abs().max() <= ZERO}  # of which Adam makes whole steps
    assert "tail.bias" in zero and len(zero) <= 2
    for name, weight in c.items():
        if name not in zero:
            assert (after.critic[name] - weight.detach()).abs().max() <= EXACT * config.lr, name


def test_the_noise_amplitude_is_of_the_reconstruction_s_error(exact):
    """Of the scales that begin with a copy of the generator below: no checkpoint holds the weights of a fresh one."""
    config, sizes, reals, recorder, final = exact
    copied = [n for n in (1, 2) if config.width(n) == config.width(n - 1)]
    assert 1 in copied
    for n in copied:
        w = reference.double(recorder.before[n, 2].generators)
        before = reference.double(recorder.before[n, 1].generators)  # with it the amplitude was measured
        grown = {name: before[name.replace(f"generators.{n}.", f"generators.{n - 1}.")] for name in w}
        clip = [torch.from_numpy(real)[None].double() for real in reals]
        fixed = clip[0] if config.fixed_code == "clip" else w["encoder.z"]
        x = rivals_reference.make(grown, n, fixed, None, final.noise_amps, sizes, config)
        error = ((x - clip[n]) ** 2).mean().sqrt().item()
        assert final.noise_amps[n] == pytest.approx(0.05 * error, rel=1e-6), n


@pytest.mark.parametrize(("method", "kind"), [("singan", SinganStack), ("consingan", ConsinganStack)])
@pytest.mark.parametrize(
    ("sizes", "own"), [(SIZES, False), (IMAGES, False), (IMAGES, True)], ids=["video", "image", "own paper's"]
)
@in_float64()
def test_samples_depend_on_the_seed_and_tiles_give_the_same(method, kind, sizes, own):
    torch.manual_seed(0)
    changes = {"singan": SINGAN, "consingan": CONSINGAN}[method] if own else {}
    stack = new_stack(replace(rival(method, sizes), **changes), sizes).requires_grad_(False)
    assert isinstance(stack, kind)
    while stack.num_scales < 3:
        stack.grow()
    stack.noise_amps = [1.0, 0.4, 0.3]
    first, again = (sample(stack, 2, seed=7) for _ in range(2))
    assert first.shape == (2, 3, *sizes[-1]) and torch.equal(first, again)
    assert (first[0] - first[1]).abs().max() > 1e-8
    rest = reconstruct(stack, torch.zeros(1, 3, *sizes[0]))
    same = torch.equal(rest, reconstruct(stack, torch.ones(1, 3, *sizes[0])))
    assert rest.shape == (1, 3, *sizes[-1]) and same is (stack.config.fixed_code == "noise")
    wide = stretched_ladder(stack, (sizes[-1][0], 24, 40))
    limits = (10**9, 6000 if sizes is SIZES else 600)
    whole, tiles = (torch.cat(list(sample_in_parts(stack, wide, 3, 0, limit=limit)), dim=2) for limit in limits)
    assert whole.shape[2:] == (sizes[-1][0], 24, 40)
    torch.testing.assert_close(tiles, whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["singan", "consingan"])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_has_its_rivals(preset, method):
    config = of_method(PRESETS[preset](), method)
    assert (config.trained_scales, config.made_of_patches, config.vae_levels) == (config.num_scales, False, 0)
    stack = new_stack(replace(config, channels=2), ladder(config, 144, 256))
    assert stack.latent_shape(1)[1] == 3


def test_settings_that_are_not_a_rival_s_are_told():
    for changes, words in (
        ({"vae_levels": 1}, "method=singan: needs vae_levels=0"),
        ({"latent_dim": 8}, "method=singan: needs latent_dim=3"),
        ({"gan_crop": 0.5}, "method=singan: needs gan_crop=1.0"),
        ({"latent_dim": 1, "fixed_code": "clip"}, "fixed_code=clip: needs vae_levels=0 and latent_dim=3"),
        ({"method": "consingan", "latent_dim": 1}, "method=consingan: needs latent_dim=3"),
        ({"method": "consingan", "tanh_after_sum": False}, "method=consingan: needs tanh_after_sum=true"),
        ({"method": "consingan", "channels_double": 4}, "method=consingan: needs channels_double=none"),
        (
            {"critic_spectral": False, "critic_last_spectral": True},
            "critic_spectral=false: goes with critic_last_spectral",
        ),
        ({"critic_norm": True}, "critic_norm=true: goes with critic_spectral=false"),
        ({"leak": 1.0}, "leak=1.0: from 0 to below 1"),
        ({"method": "hpvaegan", "random_border": "zeros"}, "method=hpvaegan: needs random_border=noise"),
    ):
        with pytest.raises(ConfigError, match=words):
            replace(rival("singan"), **changes)


@pytest.mark.parametrize(("method", "changes"), [("singan", SINGAN), ("consingan", CONSINGAN)])
def test_the_settings_of_a_rival_s_own_paper_are_written_as_any_other(method, changes):
    written = [f"{name}={str(value).lower()}" for name, value in changes.items()]
    assert rival(method).with_overrides(written) == replace(rival(method), **changes)


def test_channels_double_after_every_four_scales_up_to_128_and_a_training_resumes_at_each_width(tmp_path):
    config = of_method(image_official(), "singan").with_overrides(["channels=32", "channels_double=4", "latent_dim=1"])
    assert [config.width(n) for n in range(10)] == [32] * 4 + [64] * 4 + [128] * 2
    assert replace(config, num_scales=20).width(19) == 128 and replace(config, channels=200).width(9) == 200
    config = replace(rival("singan", IMAGES, iters_per_scale=1), channels_double=1, latent_dim=1)
    reals = [real[:, :1] for real in real_pyramid(SIZES)]
    recorder = train(config, tmp_path / "whole.pt", reals)
    whole = ckpt.load(tmp_path / "whole.pt")
    assert [whole.generators[f"generators.{n}.blocks.1.conv.weight"].shape[0] for n in range(3)] == [4, 8, 16]
    assert [recorder.before[n + 1, 1].critic["blocks.1.weight"].shape[0] for n in range(2)] == [4, 8]
    for n in (1, 2):  # goes on from the end of the scale before
        path = tmp_path / f"from_{n}.pt"
        ckpt.save(recorder.before[n, 1], path)
        train(config, path, reals)
        resumed = ckpt.load(path)
        assert all(torch.equal(weight, whole.generators[name]) for name, weight in resumed.generators.items())
        assert all(torch.equal(weight, whole.critic[name]) for name, weight in resumed.critic.items())


def test_the_rescaling_of_consingan_is_that_of_its_code():
    """x_n = x_N · r^((S − 1) / log S · log(S − n) + 1), by hand for six scales from 25 to 250 px."""
    config = replace(of_method(PRESETS["image_small"](), "consingan"), rescaling="consingan")
    config = replace(config, num_scales=6, min_size=25, max_size=250, iters_per_scale=1)
    heights = [size.height for size in ladder(config, 250, 250)]
    assert heights == [25, 32, 45, 71, 158, 250]


@pytest.mark.parametrize("method", ["singan", "consingan"])
def test_every_chunk_is_reconstructed_from_a_code_of_its_own(method, tmp_path):
    config, path = rival(method, iters_per_scale=1), tmp_path / "checkpoint.pt"
    chunks = [[real[:, :t, :h, :w] for real, (t, h, w) in zip(chunk, SIZES)] for chunk in several_pyramids(3)]
    scales = [done.n for done in train_clip(config, chunks, clip_id="c", path=path, log=lambda _: None)]
    final = ckpt.load(path)
    assert scales == [0, 1, 2] and final.samples == 3
    encoder = final.stack().encoder
    first, second, third = (encoder.of_examples([number], config.seed).mu for number in range(3))
    assert torch.equal(first, encoder.z) and first.shape == (1, 3, *SIZES[0])
    assert min((a - b).abs().mean() for a, b in ((first, second), (first, third), (second, third))) > 0.5  # mostly 1.13
    assert torch.equal(encoder.of_examples([2, 0, 2], config.seed).mu, torch.cat([third, first, third]))

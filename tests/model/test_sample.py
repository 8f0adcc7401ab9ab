"""Videos from a checkpoint and a seed."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from model import checkpoint as ckpt
from model.device import resolve
from model.networks.generators import GeneratorStack
from model.sampling.sample import (
    count_convolutions,
    frames_per_second,
    reconstruct,
    sample_in_parts,
    stretched_ladder,
)
from model.training.loop import train_clip

from .conftest import CLIP_ID, SIZES, ladder_16_9, one_thread, real_pyramid, sample, tiny, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint file, and the stack that training itself ended with."""
    path = tmp_path_factory.mktemp("trained") / "checkpoint.pt"
    config = tiny(iters_per_scale=(60, 40, 40, 30, 20), lr=3e-3, checkpoint_every=1000, log_every=1000)
    with one_thread():
        *_, last = train_clip(config, [real_pyramid()], clip_id=CLIP_ID, path=path, log=lambda _: None)
    return path, last.stack


def test_samples_come_from_the_file_alone_and_from_the_seed(trained):
    path, stack = trained
    torch.manual_seed(1)
    first = sample(ckpt.load(path).stack(), 2, seed=7)
    torch.manual_seed(2)
    again = sample(ckpt.load(path).stack(), 2, seed=7)
    assert torch.equal(first, again)
    assert torch.equal(first, sample(stack, 2, seed=7))
    assert first.shape == (2, 3, *SIZES[-1])
    assert first.dtype == torch.float32


def test_samples_and_seeds_differ(trained):
    stack = ckpt.load(trained[0]).stack()
    a, b = sample(stack, 2, seed=7)
    (c,) = sample(stack, 1, seed=8)
    assert min((a - b).abs().mean(), (a - c).abs().mean(), (b - c).abs().mean()) > 0.01


def test_sample_i_does_not_depend_on_what_is_asked_for_beside_it(trained):
    stack = ckpt.load(trained[0]).stack()
    five = sample(stack, 5, seed=3)
    assert torch.equal(sample(stack, 2, seed=3), five[:2])
    assert torch.equal(sample(stack, 2, seed=3, first=3), five[3:])
    assert torch.equal(sample(stack, 1, seed=3, first=4), five[4:])


def test_sample_is_the_recursion_with_the_seeds_noise(trained):
    """z and z_n are standard normal, z_n times the amplitude: without amplitudes a sample is another one."""
    stack = ckpt.load(trained[0]).stack()
    with_noise = sample(stack, 1, seed=0)
    assert min(stack.noise_amps[3:]) > 0
    stack.noise_amps = [0.0] * len(SIZES)
    assert not torch.equal(sample(stack, 1, seed=0), with_noise)
    assert torch.equal(sample(stack, 1, seed=0, last=2), sample(ckpt.load(trained[0]).stack(), 1, seed=0, last=2))


def test_values_stay_in_range_even_where_the_residuals_add_up(trained):
    stack = ckpt.load(trained[0]).stack()
    for generator in stack.generators:
        generator.tail.bias.fill_(3.0)  # the paper's sum of tanhs leaves [-1, 1]
    for video in (sample(stack, 1, seed=0), reconstruct(stack, torch.from_numpy(real_pyramid()[0])[None])):
        assert video.min() >= -1 and video.max() == 1
        assert video.isfinite().all()
    video = sample(ckpt.load(trained[0]).stack(), 3, seed=1)
    assert -1 <= video.min() < -0.2 and 0.2 < video.max() <= 1


def test_every_scale_can_be_sampled(trained):
    stack = ckpt.load(trained[0]).stack()
    for n, size in enumerate(SIZES):
        assert sample(stack, 1, seed=0, last=n).shape == (1, 3, *size)


@pytest.mark.parametrize(("stop_at", "n"), [((0, 3), 0), ((2, 3), 2), ((4, 2), 4)])
def test_unfinished_checkpoint_samples_at_its_scale(tmp_path, stop_at, n):
    path = tmp_path / "checkpoint.pt"
    train(tiny(), path, stop_at=stop_at)
    saved = ckpt.load(path)
    assert not saved.done
    stack = saved.stack()
    assert sample(stack, 1, seed=0).shape == (1, 3, *SIZES[n])
    assert reconstruct(stack, torch.from_numpy(real_pyramid()[0])[None]).shape == (1, 3, *SIZES[n])


def test_frames_of_every_scale_last_as_long_as_the_clip(trained):
    # 12 gaps at 24 FPS = half a second: 3, 3, 4, 6 and 12 gaps in half a second
    stack = ckpt.load(trained[0]).stack()
    assert [frames_per_second(stack.config, size.frames) for size in stack.sizes] == [6.0, 6.0, 8.0, 12.0, 24.0]
    assert frames_per_second(replace(stack.config, fps=30.0), 13) == 30.0
    assert frames_per_second(replace(stack.config, fps=None), 13) == 24.0  # a file whose rate nobody knows


def test_reconstruction_repeats_and_is_close_to_the_clip(trained):
    stack = ckpt.load(trained[0]).stack()
    reals = [torch.from_numpy(real)[None] for real in real_pyramid()]
    for n in (0, 4):
        rec = reconstruct(stack, reals[0], last=n)
        assert torch.equal(rec, reconstruct(stack, reals[0], last=n))
        error = (rec - reals[n]).square().mean()
        assert error < 0.25 * reals[n].var()  # the best constant picture has an error of 1 variance
    assert torch.equal(reconstruct(stack, reals[0]), reconstruct(stack, reals[0], last=4))
    mirrored = (reconstruct(stack, reals[0]).flip(4) - reals[4]).square().mean()
    assert mirrored > 0.25 * reals[4].var()


@pytest.mark.skipif(resolve("auto", torch.device("cpu")) != "bf16", reason="needs bf16 hardware")
def test_bf16_samples_are_the_float32_ones_but_for_rounding(trained):
    stack = ckpt.load(trained[0]).stack()
    full = sample(stack, 1, seed=0)
    stack.config = replace(stack.config, precision="bf16")
    rounded = sample(stack, 1, seed=0)
    assert not torch.equal(full, rounded)
    assert (full - rounded).abs().mean() < 0.02


# -- another size


def fresh(preset, sizes, **changes):
    """A stack that is not trained, with noise at the GAN scales."""
    torch.manual_seed(3)
    stack = GeneratorStack(tiny(preset, num_scales=len(sizes), **changes), sizes)
    while stack.num_scales < len(sizes):
        stack.grow()
    stack.noise_amps = [0.0, 0.0, 0.0, *[0.3] * (len(sizes) - 3)]
    return stack.requires_grad_(False)


@pytest.mark.parametrize(
    ("size", "ladder"),
    [
        (SIZES[-1], SIZES),
        ((25, 32, 44), ((7, 18, 24), (7, 20, 28), (9, 24, 32), (13, 28, 38), (25, 32, 44))),
        ((13, 16, 88), ((4, 9, 48), (4, 10, 56), (5, 12, 64), (7, 14, 76), (13, 16, 88))),
        ((121, 21, 22), ((31, 12, 12), (31, 13, 14), (41, 16, 16), (61, 18, 19), (121, 21, 22))),
    ],
)
def test_the_ladder_is_stretched(size, ladder):
    assert stretched_ladder(fresh("paper", SIZES), size) == list(ladder)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((14, 16, 22), "14 frames cannot be divided among the scales; give 1 + a multiple of 12, such as 13x16x22"),
        ((24, 16, 22), "such as 25x16x22"),
        ((1, 16, 22), "13x16x20 is the least"),
        ((13, 15, 22), "13x16x20 is the least"),  # 9 · 15 / 16 = 8.4, where the clip has 9
        ((13, 16, 19), "13x16x20 is the least"),  # 12 · 19 / 22 = 10.4, where 11 are seen
        ((13, 0, 22), "13x16x20 is the least"),
    ],
)
def test_sizes_that_are_none_are_one_line_that_says_what_would_do(size, told):
    stack = fresh("paper", SIZES)
    with pytest.raises(ValueError, match=re.escape(told)) as refused:
        stretched_ladder(stack, size)
    assert "\n" not in str(refused.value)
    assert stretched_ladder(stack, (13, 16, 20))[0] == (4, 9, 11)


def test_frames_that_are_possible_follow_from_the_ladder():
    """9 frames, sampled at 2 and 1: 5 and 9 frames; so any odd number from 9 on."""
    stack = fresh("paper", ((5, 16, 16), (9, 20, 20)), num_frames=9, frame_rates=(2, 1), vae_levels=1)
    assert [stretched_ladder(stack, (t, 20, 20))[0][0] for t in (9, 11, 13)] == [5, 6, 7]
    with pytest.raises(ValueError, match="multiple of 2, such as 9x20x20"):
        stretched_ladder(stack, (10, 20, 20))
    with pytest.raises(ValueError, match="9x14x14 is the least"):  # 16 · 14 / 20 = 11.2
        stretched_ladder(stack, (7, 20, 20))


def test_an_unfinished_checkpoint_is_stretched_to_its_finest_scale(tmp_path):
    train(tiny(), tmp_path / "checkpoint.pt", stop_at=(2, 3))
    stack = ckpt.load(tmp_path / "checkpoint.pt").stack()
    sizes = stretched_ladder(stack, (9, 24, 16))
    assert sizes == [(7, 18, 12), (7, 20, 14), (9, 24, 16)]
    assert torch.cat(list(sample_in_parts(stack, sizes, 0, 0)), dim=2).shape == (1, 3, 9, 24, 16)


def test_a_preset_at_the_papers_larger_size():
    """256×192 px → 1024×256 (§4.2), on the whole ladder of `paper`."""
    from model.presets import paper

    sizes = [(t, h, round(h * 4 / 3)) for t, h, _ in ladder_16_9(replace(paper(), scale_factor=None))]
    sizes[-1] = (13, 192, 256)
    stack = fresh("paper", sizes, channels=1, latent_dim=1)
    assert stretched_ladder(stack, (13, 256, 1024))[0] == (4, round(32 * 256 / 192), 172)


@pytest.mark.parametrize("preset", ["paper", "official"])
@pytest.mark.parametrize("size", [(13, 16, 80), (37, 16, 22)])
def test_large_videos_are_the_recursion_on_the_stretched_ladder(preset, size):
    """In tiles, against a plain stack of that size; with the amplitudes and the noise of the seed."""
    stack, told = fresh(preset, SIZES), []
    sizes = stretched_ladder(stack, size)
    runs = list(sample_in_parts(stack, sizes, 7, 1, limit=6000, tick=told.append))
    assert (
        sum(told)
        == count_convolutions(stack, sizes, limit=6000)
        > count_convolutions(stack, sizes)
        == len(SIZES) * stack.config.generator_convs
    )
    plain = fresh(preset, sizes)
    plain.load_state_dict(stack.state_dict())
    (state,) = np.random.SeedSequence([7, 1]).generate_state(1, np.uint64)
    stream = torch.Generator().manual_seed(int(state))
    whole = plain.sample(plain.draw(1, stream), stream).clamp(-1, 1)
    torch.testing.assert_close(torch.cat(runs, dim=2), whole, rtol=0, atol=2e-4)
    torch.testing.assert_close(torch.cat(list(sample_in_parts(stack, sizes, 7, 1)), dim=2), whole, rtol=0, atol=0)
    assert stack.sizes == list(SIZES)


def test_the_clips_own_size_gives_the_same_sample_bit_for_bit(trained):
    stack = ckpt.load(trained[0]).stack()
    sizes = stretched_ladder(stack, SIZES[-1])
    (run,) = sample_in_parts(stack, sizes, 7, 1, limit=1)
    assert torch.equal(run, sample(stack, 1, seed=7, first=1))
    (state,) = np.random.SeedSequence([7, 1]).generate_state(1, np.uint64)
    stream = torch.Generator().manual_seed(int(state))
    assert torch.equal(run, stack.sample(stack.draw(1, stream), stream).clamp(-1, 1))


@pytest.mark.parametrize(
    "changes", [{"latent": "patchvae"}, {"vae_levels": 0}, {"vae_kernel": 1}, {"low_memory": True}]
)
def test_every_kind_of_model_makes_large_videos(changes):
    stack = fresh("paper", SIZES, **changes)
    runs = list(sample_in_parts(stack, stretched_ladder(stack, (25, 16, 66)), 0, 0, limit=1))
    video = torch.cat(runs, dim=2)
    assert video.shape == (1, 3, 25, 16, 66) and video.isfinite().all() and video.std() > 0.01

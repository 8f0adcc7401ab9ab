"""Videos from a checkpoint and a seed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model import checkpoint as ckpt
from model.precision import resolve
from model.sample import frames_per_second, reconstruct, sample
from model.train import train_clip

from .conftest import CLIP_ID, SIZES, one_thread, real_pyramid, tiny, train


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
    assert [frames_per_second(stack, n) for n in range(5)] == [6.0, 6.0, 8.0, 12.0, 24.0]
    assert frames_per_second(stack, 4, fps=30.0) == 30.0


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

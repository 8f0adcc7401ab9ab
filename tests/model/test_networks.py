"""Blocks, encoder, generators and critic against other implementations, hand counts and measured receptive fields."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from model.interpolation import interpolated
from model.networks.blocks import NormBlock, SpectralConv, convolve
from model.networks.critic import Critic
from model.networks.encoder import Encoder
from model.networks.generators import Generator, GeneratorStack
from model.networks.patchvae import PatchEncoder
from model.presets import official, paper

from .conftest import SIZES, tiny
from .reference import upsample

CONFIGS = {"paper": paper, "official": official}


def stack_of(preset="paper", scales=5, **changes):
    torch.manual_seed(1)
    stack = GeneratorStack(tiny(preset, **changes), SIZES)
    while stack.num_scales < scales:
        stack.grow()
    return stack.requires_grad_(False)


def video(n, batch=1, seed=0):
    return torch.rand((batch, 3, *SIZES[n]), generator=torch.Generator().manual_seed(seed)) * 2 - 1


# -- from a scale to the next


@pytest.mark.parametrize("by", ["linear", "cubic"])
@pytest.mark.parametrize("size", [(9, 11, 14), (2, 3, 4), (5, 7, 20)], ids=["larger", "smaller", "wider"])
@pytest.mark.parametrize("frames", [5, 1])
def test_another_size_is_that_of_matrices_which_keep_both_ends(frames, size, by):
    x = torch.randn((2, 3, frames, 7, 9), dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    y = interpolated(x, size, by)
    torch.testing.assert_close(y, upsample(x, size, by))
    torch.testing.assert_close(
        y[:, :, [0, -1]][..., [0, -1], :][..., [0, -1]], x[:, :, [0, -1]][..., [0, -1], :][..., [0, -1]]
    )


# -- blocks


@pytest.mark.parametrize("leak", [None, 0.2, 0.05])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("inputs", "outputs", "size"),
    [
        (3, 5, (5, 7, 9)),  # from RGB
        (5, 3, (5, 7, 9)),  # to RGB
        (5, 1, (4, 7, 9)),
        (5, 6, (5, 7, 9)),  # between features, small: torch has a slow kernel for one such sample
        (5, 6, (5, 1024, 4)),  # and large
    ],
)
def test_every_way_to_convolve_is_torchs_conv3d_with_its_gradients(inputs, outputs, size, batch, padded, leak):
    torch.manual_seed(3)
    x = torch.randn((batch, inputs, *size), dtype=torch.float64, requires_grad=True)
    weight = torch.randn((outputs, inputs, 3, 3, 3), dtype=torch.float64, requires_grad=True)
    bias = torch.randn(outputs, dtype=torch.float64, requires_grad=True)
    expected = F.conv3d(x, weight, bias, padding=int(padded))
    expected = expected if leak is None else F.leaky_relu(expected, leak)
    y = convolve(x, weight, bias, padded=padded, leak=leak)
    torch.testing.assert_close(y, expected)
    upstream = torch.randn_like(y)
    for ours, theirs in zip(
        torch.autograd.grad(y, (x, weight, bias), upstream), torch.autograd.grad(expected, (x, weight, bias), upstream)
    ):
        torch.testing.assert_close(ours, theirs)


def test_norm_block_is_batch_norm_in_train_mode_at_batch_one():
    torch.manual_seed(0)
    block = NormBlock(3, 5)
    nn.init.normal_(block.weight)
    nn.init.normal_(block.bias)
    conv = nn.Conv3d(3, 5, 3, padding=1)  # with a bias, which the normalisation takes out again
    nn.init.normal_(conv.bias)
    norm = nn.BatchNorm3d(5)
    with torch.no_grad():
        conv.weight.copy_(block.conv.weight)
        norm.weight.copy_(block.weight)
        norm.bias.copy_(block.bias)
    reference = nn.Sequential(conv, norm, nn.LeakyReLU(0.2)).train()
    x = torch.randn(2, 3, 4, 7, 6) + 2
    expected = torch.cat([reference(x[:1]), reference(x[1:])])
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)
    block.eval()  # no running statistics: evaluation is the same function
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_spectral_conv_divides_by_the_largest_singular_value():
    torch.manual_seed(0)
    conv = SpectralConv(6, 8)
    for _ in range(200):
        conv.refine()
    weight = conv.normalized()
    # 200 power iterations: what is left of the second singular vector is (s2 / s1)^400
    assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1.0, abs=1e-4)
    assert torch.linalg.svdvals(conv.weight.flatten(1))[0].item() != pytest.approx(1.0, abs=0.05)


def test_spectral_conv_starts_near_the_leading_vectors():
    torch.manual_seed(3)
    weight = SpectralConv(16, 16).normalized()
    assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1.0, abs=0.1)


def test_spectral_conv_equals_torchs_from_the_same_vectors_with_its_gradient():
    torch.manual_seed(0)
    conv = SpectralConv(4, 6)
    other = nn.Conv3d(4, 6, 3, padding=1)
    with torch.no_grad():
        other.weight.copy_(conv.weight)
    other = spectral_norm(other).eval()  # eval: the vectors stay
    parametrization = other.parametrizations.weight[0]
    conv.u.copy_(F.normalize(torch.randn(6), dim=0))  # far from converged, where a wrong formula shows
    conv.v.copy_(F.normalize(torch.randn(4 * 27), dim=0))
    parametrization._u.copy_(conv.u)
    parametrization._v.copy_(conv.v)
    ours, theirs = conv.normalized(), other.weight
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    probe = torch.randn_like(ours)
    (ours * probe).sum().backward()
    (theirs * probe).sum().backward()
    torch.testing.assert_close(conv.weight.grad, other.parametrizations.weight.original.grad, rtol=1e-4, atol=1e-4)


def test_one_refinement_is_one_power_iteration():
    torch.manual_seed(0)
    conv = SpectralConv(3, 5)
    conv.u.copy_(F.normalize(torch.randn(5), dim=0))
    matrix, u = conv.weight.detach().numpy().reshape(5, -1).astype(np.float64), conv.u.numpy().astype(np.float64)
    v = matrix.T @ u / np.linalg.norm(matrix.T @ u)
    sigma = np.linalg.norm(matrix @ v)  # = u'·W·v with u' = W·v / ‖W·v‖
    conv.refine()
    np.testing.assert_allclose(conv.normalized().detach().numpy(), conv.weight.detach().numpy() / sigma, rtol=1e-5)
    np.testing.assert_allclose(conv.u.numpy(), matrix @ v / sigma, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("preset", "field"), [("paper", 11), ("official", 15)])
def test_receptive_field_of_the_critic(preset, field):
    torch.manual_seed(0)
    critic = Critic(tiny(preset, channels=4), 3).double()
    side = field + 6
    x = torch.randn(1, 3, side, side, side, dtype=torch.float64, requires_grad=True)
    critic.fixed()(x)[0, 0, side // 2, side // 2, side // 2].backward()
    seen = x.grad.abs().amax(dim=(0, 1)) > 0
    for axis in range(3):
        along = seen.flatten(1).any(1) if axis == 0 else seen.transpose(0, axis).flatten(1).any(1)
        assert along.nonzero().flatten().tolist() == list(range(side // 2 - field // 2, side // 2 + field // 2 + 1))


# -- counts and shapes


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_parameter_counts_by_hand(preset):
    k = 3 * 3 * 3
    affine = 64 + 64
    tail = 64 * k * 3 + 3
    heads = 2 * (64 * k * 128 + 128)  # M and S
    if preset == "paper":
        encoder = (3 * k * 64 + 64) + 4 * (64 * k * 64 + 64) + heads
        g_zero = 128 * k * 64 + 3 * (64 * k * 64) + 4 * affine + tail
        g_n = 3 * k * 64 + 3 * (64 * k * 64) + 4 * affine + tail
        critic = (3 * k * 64 + 64) + 3 * (64 * k * 64 + 64) + (64 * k + 1)
    else:
        encoder = (3 * k * 64 + 64) + 2 * (64 * k * 64 + 64) + heads
        g_zero = 128 * k * 64 + 5 * (64 * k * 64) + 6 * affine + tail
        g_n = 3 * k * 64 + 5 * (64 * k * 64) + 6 * affine + tail
        critic = (3 * k * 64 + 64) + 5 * (64 * k * 64 + 64) + (64 * k + 1)
    config = CONFIGS[preset]()
    stack = GeneratorStack(config, SIZES)
    stack.grow()
    assert count(stack.encoder) == encoder
    assert count(stack.generators[0]) == g_zero
    assert count(stack.generators[1]) == g_n
    assert count(Critic(config, 3)) == critic


def test_every_network_keeps_frames_height_and_width():
    size = (3, 5, 9)
    x = torch.randn(2, 3, *size)
    config = tiny(channels=4, latent_dim=7, encoder_convs=2, critic_convs=3)
    q = Encoder(config)(x)
    assert q.mu.shape == q.logvar.shape == (2, 7, *size)
    assert Generator(7, 4, 3)(q.mu).shape == (2, 3, *size)
    assert Critic(config, 3).fixed()(x).shape == (2, 1, *size)


def test_a_checkpoint_calls_the_weights_what_it_always_did():
    spectral, plain, block = {"weight", "bias", "u", "v"}, {"weight", "bias"}, {"conv.weight", "weight", "bias"}
    config = tiny(encoder_convs=1, critic_convs=3)
    rivals = replace(config, critic_spectral=False, critic_last_spectral=False)
    for network, parts in (
        (Encoder(config), {"blocks.0": spectral, "mu": plain, "logvar": plain}),
        (PatchEncoder(config), {"blocks.0": spectral, "mu": plain, "logvar": plain, "occupancy": plain}),
        (Critic(config, 3), {"blocks.0": spectral, "blocks.1": spectral, "tail": spectral}),
        (Critic(rivals, 0), {"blocks.0": plain, "blocks.1": plain, "tail": plain}),
        (Critic(replace(rivals, critic_norm=True), 0), {"blocks.0": block, "blocks.1": block, "tail": plain}),
    ):
        assert network.state_dict().keys() == {f"{part}.{name}" for part, names in parts.items() for name in names}


def test_sample_and_reconstruction_have_the_ladders_sizes():
    stack = stack_of()
    z = torch.randn(stack.latent_shape(2))
    assert z.shape == (2, 8, *SIZES[0])
    for n, size in enumerate(SIZES):
        assert stack.sample(z, torch.Generator(), last=n).shape == (2, 3, *size)
        assert stack.reconstruct(stack.decode(z), 0, n).shape == (2, 3, *size)
    assert stack.sample(z, torch.Generator()).shape == (2, 3, *SIZES[-1])


def test_upsampling_keeps_the_corners_and_is_linear_in_time():
    stack = stack_of(scales=1)
    t, h, w = SIZES[2]
    ramp = torch.linspace(0, 1, t).view(1, 1, t, 1, 1) + torch.linspace(0, 3, w).view(1, 1, 1, 1, w)
    up = stack.upsample(ramp.expand(1, 3, t, h, w), 4)
    t, h, w = SIZES[4]
    expected = torch.linspace(0, 1, t).view(1, 1, t, 1, 1) + torch.linspace(0, 3, w).view(1, 1, 1, 1, w)
    torch.testing.assert_close(up, expected.expand(1, 3, t, h, w), rtol=0, atol=1e-5)


# -- the stack


def test_refinement_of_the_paper_adds_a_tanh_and_of_the_official_code_takes_the_tanh_of_the_sum():
    up = video(1)
    for preset, formula in {
        "paper": lambda u, g: u + torch.tanh(g),
        "official": lambda u, g: torch.tanh(u + g),
    }.items():
        stack = stack_of(preset, scales=2)
        torch.testing.assert_close(stack.level(up, 1), formula(up, stack.generators[1](up)), rtol=0, atol=0)
    z = torch.randn(stack.latent_shape(1))
    torch.testing.assert_close(stack.decode(z), torch.tanh(stack.generators[0](z)), rtol=0, atol=0)


def test_noise_is_for_gan_scales_only_and_has_the_scales_amplitude():
    stack = stack_of(vae_levels=3)
    stack.noise_amps = [9.0, 9.0, 9.0, 0.25, 0.5]
    draw = torch.Generator().manual_seed(0)
    assert [stack.noise(n, 1, draw) for n in range(3)] == [None, None, None]
    for n, amplitude in ((3, 0.25), (4, 0.5)):
        noise = stack.noise(n, 4, draw)
        assert noise.shape == (4, 3, *SIZES[n])
        # 22,000 numbers or more: the standard error of the deviation is under 0.5 %
        assert noise.std().item() == pytest.approx(amplitude, rel=0.02)
        assert noise.mean().item() == pytest.approx(0, abs=0.03 * amplitude)
        assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_noise_enters_the_generator_and_not_the_sum(preset):
    stack = stack_of(preset)
    up, noise = video(3), 0.3 * video(3, seed=1)
    assert (stack.level(up, 3, noise) - stack.level(up, 3)).abs().max() > 1e-3
    stack.generators[3].tail.weight.zero_()
    stack.generators[3].tail.bias.zero_()
    torch.testing.assert_close(stack.level(up, 3, noise), up if preset == "paper" else torch.tanh(up))


def test_sampling_without_amplitudes_is_reconstruction_and_with_them_is_not():
    stack = stack_of()
    z = torch.randn(stack.latent_shape(1))
    plain = stack.reconstruct(stack.decode(z), 0, 4)
    torch.testing.assert_close(stack.sample(z, torch.Generator().manual_seed(0)), plain, rtol=0, atol=1e-6)
    stack.noise_amps[3] = 0.2
    assert (stack.sample(z, torch.Generator().manual_seed(0)) - plain).abs().max() > 1e-3
    stack.noise_amps = [5.0, 5.0, 5.0, 0.0, 0.0]  # VAE scales stay without noise whatever is written there
    torch.testing.assert_close(stack.sample(z, torch.Generator().manual_seed(0)), plain, rtol=0, atol=1e-6)


def test_a_grown_generator_is_a_copy_of_the_one_before_from_the_second_on():
    stack = stack_of(scales=2)
    for parameter in stack.parameters():
        parameter.normal_()
    stack.grow()
    assert (stack.num_scales, len(stack.noise_amps)) == (3, 3)
    before, grown = stack.generators[1].state_dict(), stack.generators[2].state_dict()
    assert before.keys() == grown.keys()
    for name in before:
        assert torch.equal(before[name], grown[name]), name
        assert before[name].data_ptr() != grown[name].data_ptr(), name
    assert stack.generators[1].blocks[0].conv.in_channels == 3  # G¹ sees RGB, G⁰ the latent
    assert stack.generators[0].blocks[0].conv.in_channels == 8


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_a_batch_of_two_equals_each_alone(preset):
    stack = stack_of(preset)
    for parameter in stack.parameters():
        if parameter.ndim == 1:
            parameter.normal_()
    x, noise = torch.cat([video(0), 0.1 * video(0, seed=1) + 0.5]), 0.2 * video(4, batch=2, seed=2)

    def run(x, noise):
        q = stack.encoder(x)
        x = stack.reconstruct(stack.decode(q.mu + q.logvar), 0, 3)
        return stack.level(x, 4, noise)

    together = run(x, noise)
    alone = torch.cat([run(x[:1], noise[:1]), run(x[1:], noise[1:])])
    assert (alone[0] - alone[1]).abs().max() > 0.1
    # float32 through some thirty layers, other kernels for other batch sizes
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-4)


def test_the_critic_for_the_generators_step_gives_gradient_to_its_input_only():
    critic = Critic(tiny(channels=4, critic_convs=3), 3)
    x = video(0).requires_grad_()
    frozen, trainable = critic.fixed(trainable=False), critic.fixed()
    torch.testing.assert_close(frozen(x), trainable(x), rtol=0, atol=0)
    frozen(x).mean().backward()
    assert x.grad.abs().max() > 0
    assert all(p.grad is None for p in critic.parameters())
    trainable(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in critic.parameters())


def test_the_critics_last_convolution_is_normalised_in_the_paper_only():
    for preset, spectral in (("paper", True), ("official", False)):
        critic = Critic(tiny(preset, channels=4), 3)
        x = video(0)
        before = critic.fixed()(x)
        with torch.no_grad():
            critic.tail.weight *= 3
            critic.tail.bias *= 0
        after = critic.fixed()(x)
        changed = (after - after.mean()).std() / (before - before.mean()).std()
        assert changed.item() == pytest.approx(1.0 if spectral else 3.0, rel=1e-3)

"""The loss terms against torch.distributions, closed forms and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from model.networks.critic import Critic
from model.networks.encoder import Posterior
from model.training.losses import gradient_penalty, kl_divergence

from .conftest import tiny


def rand(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kl_equals_torch_distributions():
    mu, logvar = rand(0, 2, 4, 3, 5, 6), 2 * rand(1, 2, 4, 3, 5, 6)
    expected = torch_kl(Normal(mu, torch.exp(0.5 * logvar)), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_divergence(Posterior(mu, logvar)), expected, rtol=1e-12, atol=0)


def test_kl_of_the_prior_is_zero():
    zero = torch.zeros(1, 2, 3, 4, 5)
    assert kl_divergence(Posterior(zero, zero)).item() == 0


def test_posterior_sample_has_the_posteriors_moments():
    shape = (1, 1, 50, 50, 50)
    q = Posterior(torch.full(shape, 3.0), torch.full(shape, 2 * torch.log(torch.tensor(0.5)).item()))
    z = q.sample(torch.Generator().manual_seed(0))
    # 125,000 draws: the standard error of mean and of deviation is 0.0014 and 0.001
    assert z.mean().item() == pytest.approx(3.0, abs=0.01)
    assert z.std().item() == pytest.approx(0.5, abs=0.01)


def by_autograd(critic):
    """x → ∇ of the critic's sum, by torch."""

    def input_gradient(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0]

    return input_gradient


@pytest.mark.parametrize("weights", [(3.0, 4.0, 12.0), (0.5, 0.0, 0.0), (0.6, 0.0, 0.8)])
def test_penalty_of_a_linear_critic_is_the_distance_of_its_colour_norm_from_one(weights):
    w = torch.tensor(weights, dtype=torch.float64)

    def critic(x):
        return torch.einsum("bcthw,c->bthw", x, w)[:, None] + 7

    real, fake = rand(2, 1, 3, 2, 4, 5), rand(3, 1, 3, 2, 4, 5)
    penalty = gradient_penalty(by_autograd(critic), real, fake, torch.full((1, 1, 1, 1, 1), 0.3, dtype=torch.float64))
    assert penalty.item() == pytest.approx((sum(v * v for v in weights) ** 0.5 - 1) ** 2, abs=1e-12)


def test_penalty_of_a_nonlinear_critic_equals_finite_differences():
    kernel = rand(4, 1, 3, 3, 3, 3) / 3

    def critic(x):
        return torch.sin(torch.nn.functional.conv3d(x, kernel, padding=1)) + (x**3).sum(1, keepdim=True) / 9

    real, fake = rand(5, 2, 3, 2, 3, 3), rand(6, 2, 3, 2, 3, 3)
    epsilon = torch.tensor([0.2, 0.9], dtype=torch.float64).view(2, 1, 1, 1, 1)  # one a sample

    mixed = torch.stack([0.2 * real[0] + 0.8 * fake[0], 0.9 * real[1] + 0.1 * fake[1]])
    slope = torch.empty_like(mixed)
    h = 1e-6
    for i in range(mixed.numel()):
        step = torch.zeros(mixed.numel(), dtype=torch.float64)
        step[i] = h
        step = step.view_as(mixed)
        slope.view(-1)[i] = (critic(mixed + step).sum() - critic(mixed - step).sum()) / (2 * h)
    red, green, blue = slope.unbind(1)
    expected = (((red**2 + green**2 + blue**2) ** 0.5 - 1) ** 2).mean()
    penalty = gradient_penalty(by_autograd(critic), real, fake, epsilon)
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("last_spectral", [True, False])
def test_gradient_of_the_penalty_in_the_critics_weights_equals_finite_differences(last_spectral):
    torch.manual_seed(7)
    critic = Critic(tiny(channels=4, critic_convs=3, critic_last_spectral=last_spectral), 3).double()
    real, fake = rand(8, 1, 3, 3, 5, 6), rand(9, 1, 3, 3, 5, 6)
    epsilon = torch.full((1, 1, 1, 1, 1), 0.4, dtype=torch.float64)

    def penalty():
        return gradient_penalty(critic.fixed().input_gradient, real, fake, epsilon)

    penalty().backward()
    gradients = {name: weight.grad for name, weight in critic.named_parameters()}
    for k, (name, weight) in enumerate(critic.named_parameters()):
        if name.endswith("bias"):
            continue  # LeakyReLU is piecewise linear: a bias only moves the kinks
        direction = rand(10 + k, *weight.shape)
        h, values = 1e-7, []
        for shift in (h, -2 * h):
            weight.data += shift * direction
            values.append(penalty().item())
        weight.data += h * direction
        above, below = values
        slope = (gradients[name] * direction).sum().item()
        assert abs(slope) > 1e-6, name
        assert slope == pytest.approx((above - below) / (2 * h), rel=1e-4, abs=1e-8), name


@pytest.mark.parametrize("last_spectral", [True, False])
def test_input_gradient_equals_autograds(last_spectral):
    torch.manual_seed(14)
    critic = Critic(tiny(channels=6, critic_convs=4, critic_last_spectral=last_spectral), 3).double().fixed()
    x = rand(15, 2, 3, 4, 5, 6)
    torch.testing.assert_close(critic.input_gradient(x), by_autograd(critic)(x), rtol=1e-9, atol=1e-12)


def test_penalty_sends_no_gradient_into_the_fake():
    fake = rand(11, 1, 3, 2, 4, 4).requires_grad_()
    w = rand(12, 3).requires_grad_()
    penalty = gradient_penalty(
        by_autograd(lambda x: torch.einsum("bcthw,c->bthw", x**2, w)[:, None]),
        rand(13, 1, 3, 2, 4, 4),
        fake,
        torch.tensor(0.5),
    )
    penalty.backward()
    assert fake.grad is None
    assert w.grad.abs().min() > 0

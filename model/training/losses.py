"""The loss terms of paper §3: KL divergence, gradient penalty. All are means over elements."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model.networks.patchvae import AnyPosterior, PatchPosterior, kl_bernoulli


def kl_divergence(q: AnyPosterior) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, I)) in nats, mean over all elements of the latent map: a scalar, 0 or more (eq. 3).

    The paper sums over positions; the mean, as in the authors' code, keeps β_vae independent of the clip's size.
    Of PatchVAE: the same of the appearance, plus that of the occupancy map to its Bernoulli prior (A.4), as means.
    """
    if isinstance(q, PatchPosterior):
        return kl_divergence(q.appearance) + kl_bernoulli(q.logits)
    return 0.5 * (q.mu.square() + q.logvar.exp() - q.logvar - 1).mean()


def gradient_penalty(input_gradient: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, epsilon: Tensor) -> Tensor:
    """E[(‖∇D(x̂)‖₂ − 1)²] with x̂ = ε·real + (1 − ε)·fake: a scalar, differentiable in the critic's weights (eq. 10).

    The norm is over the RGB axis at every position, the gradient that of the sum of D's map (authors' code; WGAN-GP has
    one norm a sample). input_gradient: `FixedCritic.input_gradient`. real, fake: (B, 3, T, H, W); epsilon:
    (B, 1, 1, 1, 1) uniform in [0, 1], one a sample. No gradient reaches real or fake.
    """
    gradient = input_gradient((epsilon * real + (1 - epsilon) * fake).detach())
    return (torch.linalg.vector_norm(gradient, dim=1) - 1).square().mean()

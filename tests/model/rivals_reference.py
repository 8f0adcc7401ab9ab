"""One iteration of SinGAN and of ConSinGAN, slow and plain, in float64, as the authors of hp-VAE-GAN have them.

Nothing of model/ is used; what the methods share with hp-VAE-GAN is that of reference.py: critic, Adam, interpolation.
Reconstruction and random samples are passes of their own, each draw of a batch too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from . import reference
from .reference import adam, criticise, gradients_of, leaky, upsample


def block(w, prefix, x, config, padded):
    """Convolution, normalisation over the positions of the one sample, affine, LeakyReLU; or no normalisation."""
    y = reference.conv(x, w[f"{prefix}.conv.weight"], w.get(f"{prefix}.conv.bias"), padded)
    if f"{prefix}.weight" in w:
        y = reference.normalised(y, w[f"{prefix}.weight"], w[f"{prefix}.bias"])
    return leaky(y, config.leak)


def level(w, n, entering, config):
    """What the networks of level n make of what enters them, without padding."""
    stages = config.generator_convs - 1 if config.method == "singan" else config.generator_convs - 2
    for i in range(stages):
        entering = block(w, f"generators.{n}.blocks.{i}", entering, config, padded=False)
    if config.method == "consingan":
        return entering
    return F.conv3d(entering, w[f"generators.{n}.tail.weight"], w[f"generators.{n}.tail.bias"])


def make(w, n, z, noises, amps, sizes, config):
    """The video of scale n from z; noises: of every level above 0, None for a reconstruction."""
    convs = config.generator_convs - (2 if config.method == "consingan" else 0)
    around = [convs * (side // 2) for side in config.kernel(3)]

    def zeros_around(x):
        t, h, w = around
        return F.pad(x, (w, w, h, h, t, t))

    if config.method == "consingan":
        z = block(w, "head", z, config, padded=True)
    else:
        z = torch.cat([z] * (3 // z.shape[1]), dim=1)
    x = level(w, 0, zeros_around(z), config)
    for k in range(1, n + 1):
        if config.method == "singan" and (config.tanh_after_sum or k == 1):
            x = torch.tanh(x)
        up = upsample(x, sizes[k], config.enlarging)
        if noises is None:
            entering = zeros_around(up)
        elif config.random_border == "zeros":
            entering = zeros_around(up + amps[k] * noises[k - 1])
        else:
            entering = upsample(x, noises[k - 1].shape[2:], config.enlarging) + amps[k] * noises[k - 1]
        residual = level(w, k, entering, config)
        x = up + (residual if config.tanh_after_sum else torch.tanh(residual))
    if config.method == "consingan":
        x = reference.conv(x, w["tail.weight"], w["tail.bias"])
    return torch.tanh(x) if config.tanh_after_sum or n == 0 else x


def rates_of(w, n, config):
    """Name → learning rate of what scale n trains: the last levels, each at 0.2 of the next one's; head and tail."""
    first = max(0, n - config.train_depth + 1)
    rates = {f"generators.{k}.": config.lr * 0.2 ** (n - k) for k in range(first, n + 1)}
    if config.method == "consingan":
        rates |= {"head.": config.lr * 0.2**n} if n < config.train_depth else {}
        rates["tail."] = config.lr
    return {name: rate for prefix, rate in rates.items() for name in reference.trained(w, prefix)}


def iteration(n, w, c, moments, critic_moments, amps, reals, draws, sizes, config):
    """`gan_steps` steps of Dⁿ, then of Gⁿ; losses are means over a batch.

    draws: by step and place in the batch, Draws. Changes w and c; returns losses, means over the steps, and new
    moments.
    """
    convs = config.generator_convs - (2 if config.method == "consingan" else 0)
    around = [0 if config.random_border == "zeros" else 2 * convs * (side // 2) for side in config.kernel(3)]
    enlarged = [[side + more for side, more in zip(size, around, strict=True)] for size in sizes]
    fixed = reals[0] if config.fixed_code == "clip" else w["encoder.z"]
    channels = config.channels if config.method == "consingan" else 3
    rates, critic_names = rates_of(w, n, config), reference.trained(c, "blocks.", "tail.")
    for prefix in [name.removesuffix(".u") for name in c if name.endswith(".u")]:
        reference.power_iteration(c, prefix)
    losses, real = {}, reals[n]

    def drawn(draw):
        draw.normal(fixed.shape)  # taken, and multiplied by a width of 0
        z = draw.normal((1, config.latent_dim, *sizes[0]))
        return z, [draw.normal((1, channels, *enlarged[k])) for k in range(1, n + 1)], draw.uniform()

    def mean(name, terms):
        value = sum(terms) / len(terms)
        losses[name] = losses.get(name, 0.0) + value / config.gan_steps
        return value

    for step in draws:
        inputs = [drawn(draw) for draw in step]
        critic_terms, penalties = [], []
        for z, noises, epsilon in inputs:
            fake = make(w, n, z, noises, amps, sizes, config).detach()
            mixed = (epsilon * real + (1 - epsilon) * fake).requires_grad_()
            (slope,) = torch.autograd.grad(criticise(c, mixed, config).sum(), mixed, create_graph=True)
            critic_terms.append(criticise(c, fake, config).mean() - criticise(c, real, config).mean())
            penalties.append(((torch.sqrt((slope**2).sum(dim=1)) - 1) ** 2).mean())
        total = mean("critic_loss", critic_terms) + config.gp_weight * mean("gp_loss", penalties)
        gradients = gradients_of(total, c, critic_names)
        critic_moments = adam(c, gradients, critic_moments, dict.fromkeys(critic_names, config.lr), config)
        reference.trained(c, "blocks.", "tail.")

    for _ in draws:
        reconstruction = make(w, n, fixed, None, amps, sizes, config)
        fakes = [make(w, n, z, noises, amps, sizes, config) for z, noises, _ in inputs]
        rec = mean("rec_loss", [((reconstruction - real) ** 2).mean()])
        adv = mean("adv_loss", [-criticise(c, fake, config).mean() for fake in fakes])
        gradients = gradients_of(10.0 * rec + adv, w, list(rates))
        moments = adam(w, gradients, moments, rates, config)
        for name in rates:
            w[name].requires_grad_()
    return losses, moments, critic_moments

"""One training iteration of hp-VAE-GAN and its ablations, slow and plain, in float64, from the paper (§3, A.1).

Nothing of model/ is used: weights come as dictionaries of tensors (the names of a checkpoint), every pass is a call of
its own, gradients are torch.autograd.grad's, normalisation, interpolation, clipping and Adam are written out.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F


def double(tensors):
    return {name: value.detach().double().clone() for name, value in tensors.items()}


def leaky(x, slope=0.2):
    return torch.where(x > 0, x, slope * x)


def conv(x, weight, bias=None, padded=True):
    return F.conv3d(x, weight, bias, padding=[side // 2 if padded else 0 for side in weight.shape[2:]])


def normalised(y, weight, bias):
    """By the mean and the variance over the positions of the one sample, with an affine."""
    mean = y.mean(dim=(2, 3, 4), keepdim=True)
    variance = ((y - mean) ** 2).mean(dim=(2, 3, 4), keepdim=True)
    y = (y - mean) / torch.sqrt(variance + 1e-5)
    return y * weight.view(1, -1, 1, 1, 1) + bias.view(1, -1, 1, 1, 1)


def spectral(weight, u, v):
    return weight / (u @ weight.flatten(1) @ v)


def power_iteration(w, prefix):
    """One step, on the vectors in `w` (a dictionary of tensors)."""
    matrix = w[f"{prefix}.weight"].detach().flatten(1)
    v = matrix.T @ w[f"{prefix}.u"]
    w[f"{prefix}.v"] = v / v.norm()
    u = matrix @ w[f"{prefix}.v"]
    w[f"{prefix}.u"] = u / u.norm()


def features(w, x, convs):
    for i in range(convs):
        p = f"encoder.blocks.{i}"
        x = leaky(conv(x, spectral(w[f"{p}.weight"], w[f"{p}.u"], w[f"{p}.v"]), w[f"{p}.bias"]))
    return x


def head(w, name, x):
    return conv(x, w[f"encoder.{name}.weight"], w[f"encoder.{name}.bias"])


def encode(w, x, convs):
    x = features(w, x, convs)
    return head(w, "mu", x), head(w, "logvar", x)


def gaussian(mu, logvar, draw):
    """A sample of N(μ, σ²), and KL(N(μ, σ²) ‖ N(0, I)) as a mean."""
    kl = (0.5 * (torch.exp(logvar) + mu**2 - 1 - logvar)).mean()
    return mu + draw.normal(mu.shape) * torch.exp(logvar) ** 0.5, kl


def code(w, x, config, draw):
    """z ~ q(z|x) and KL(q ‖ p): of the method, of PatchVAE (A.4), or the sample's z* of a model without VAE scales."""
    if config.vae_levels == 0:
        draw.normal(w["encoder.z"].shape)  # taken, and multiplied by a width of 0
        return draw.code(w["encoder.z"]), None
    if config.latent == "gaussian":
        return gaussian(*encode(w, x, config.encoder_convs), draw)
    x = features(w, x, config.encoder_convs)
    p = 1 / (1 + torch.exp(-head(w, "occupancy", x)))
    mu, logvar = (head(w, name, p * x).mean(dim=(2, 3, 4), keepdim=True) for name in ("mu", "logvar"))
    appearance, kl = gaussian(mu, logvar, draw)
    u = draw.uniform(p.shape)
    odds = (p / (1 - p) * u / (1 - u)) ** (1 / 0.5)
    return appearance * odds / (1 + odds), kl + (p * torch.log(2 * p) + (1 - p) * torch.log(2 * (1 - p))).mean()


def prior(sizes, config, draw):
    """z ~ p(z)."""
    if config.latent == "gaussian":
        return draw.normal((1, config.latent_dim, *sizes[0]))
    return draw.normal((1, config.latent_dim, 1, 1, 1)) * (draw.uniform((1, 1, *sizes[0])) < 0.5)


def rates_of(w, n, config):
    """Name → learning rate of what scale n trains, in order (§3.2); without freezing every level up to n (§4.2)."""
    if not config.freeze:
        decay = config.vae_lr_decay if config.unfrozen_lr_decay is None else config.unfrozen_lr_decay
        rates = {"encoder.": config.lr * decay**n} if config.vae_levels > 0 else {}
        rates |= {f"generators.{k}.": config.lr * decay ** (n - k) for k in range(n + 1)}
    elif n < config.vae_levels:
        slow = config.lr * config.vae_lr_decay**n
        rates = {"encoder.": slow, "generators.0.": slow, f"generators.{n}.": config.lr}
    else:
        rates = {f"generators.{n}.": config.lr}
    return {name: rate for prefix, rate in rates.items() for name in trained(w, prefix)}


def generate(w, n, x, convs):
    """Gⁿ without its tanh: convolution, normalisation over the positions of the one sample, affine, LeakyReLU."""
    for i in range(convs - 1):
        p = f"generators.{n}.blocks.{i}"
        y = conv(x, w[f"{p}.conv.weight"])
        x = leaky(normalised(y, w[f"{p}.weight"], w[f"{p}.bias"]))
    return conv(x, w[f"generators.{n}.tail.weight"], w[f"generators.{n}.tail.bias"])


def line(length, size):
    """(size, length) matrix of linear interpolation that keeps both ends."""
    matrix = torch.zeros(size, length, dtype=torch.float64)
    if length == 1:
        return matrix + 1
    for i in range(size):
        at = i * (length - 1) / (size - 1)
        low = min(int(at), length - 2)
        matrix[i, low], matrix[i, low + 1] = 1 - (at - low), at - low
    return matrix


def cubic(length, size):
    """The same of cubic convolution (Keys 1981) with a = -0.75; beyond the ends are the ends themselves."""
    matrix, a = torch.zeros(size, length, dtype=torch.float64), -0.75
    for i in range(size):
        at = i * (length - 1) / (size - 1)
        for k in range(math.floor(at) - 1, math.floor(at) + 3):
            d = abs(at - k)
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * (d**3 - 5 * d**2 + 8 * d - 4)
            matrix[i, min(max(k, 0), length - 1)] += near if d <= 1 else far if d < 2 else 0.0
    return matrix


def upsample(x, size, by="linear"):
    of_space = {"linear": line, "cubic": cubic}[by]
    along = [kind(a, b) for kind, a, b in zip((line, of_space, of_space), x.shape[2:], size, strict=True)]
    return torch.einsum("bcthw,it,jh,kw->bcijk", x, *along)


def refine(w, n, up, noise, config):
    residual = generate(w, n, up + noise, config.generator_convs)
    return torch.tanh(up + residual) if config.tanh_after_sum else up + torch.tanh(residual)


def reconstruct(w, z, last, sizes, config):
    """x̄⁰ and x̄ of scale `last` (eq. 6)."""
    x_zero = x = torch.tanh(generate(w, 0, z, config.generator_convs))
    for n in range(1, last + 1):
        x = refine(w, n, upsample(x, sizes[n]), 0.0, config)
    return x_zero, x


def criticise(c, x, config):
    for i in range(config.critic_convs):
        p = f"blocks.{i}" if i < config.critic_convs - 1 else "tail"
        if f"{p}.conv.weight" in c:
            x = normalised(conv(x, c[f"{p}.conv.weight"], None, config.critic_padded), c[f"{p}.weight"], c[f"{p}.bias"])
        else:
            weight = c[f"{p}.weight"]
            if f"{p}.u" in c:
                weight = spectral(weight, c[f"{p}.u"], c[f"{p}.v"])
            x = conv(x, weight, c[f"{p}.bias"], config.critic_padded)
        x = x if p == "tail" else leaky(x, config.leak)
    return x


def adam(w, gradients, moments, rates, config):
    """One Adam step on the tensors of `w` named in `gradients`; moments: name → (step, m, v) before."""
    b1, b2 = config.adam_betas
    after = {}
    for name, g in gradients.items():
        step, m, v = moments[name]
        step += 1
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        w[name] = w[name].detach() - rates[name] * (m / (1 - b1**step)) / (torch.sqrt(v / (1 - b2**step)) + 1e-8)
        after[name] = (step, m, v)
    return after


def gradients_of(loss, w, names, clip=None):
    found = dict(zip(names, torch.autograd.grad(loss, [w[name] for name in names]), strict=True))
    norm = math.sqrt(sum(float((g**2).sum()) for g in found.values()))
    factor = min(1.0, clip / (norm + 1e-6)) if clip else 1.0  # PyTorch's clipping, as the authors'
    return {name: g * factor for name, g in found.items()}


def trained(w, *prefixes):
    """Names of the parameters (not the power iteration's vectors) below the prefixes; they record gradients now."""
    names = [name for name in w if name.startswith(prefixes) and not name.endswith((".u", ".v"))]
    for name in names:
        w[name].requires_grad_()
    return names


def add(totals, losses):
    for name, loss in losses.items():
        totals[name] = totals.get(name, 0.0) + loss


def vae_iteration(n, w, moments, samples, sizes, config):
    """L = MSE(x̄ⁿ, xⁿ) + MSE(x̄⁰, x⁰) + β·KL, summed over samples (eq. 5, 8); E, G⁰ and Gⁿ learn.

    Scale 0 has one MSE in the paper, eq. 5, and in the authors' code both, which are the same one twice.

    samples: (real pyramid, Draws) each. Changes w; returns losses, means over the samples, and new moments.
    """
    rates = rates_of(w, n, config)
    for i in range(config.encoder_convs):
        power_iteration(w, f"encoder.blocks.{i}")
    losses = {}
    for reals, draw in samples:
        z, kl = code(w, reals[0], config, draw)
        x_zero, x = reconstruct(w, z, n, sizes, config)
        add(losses, {"rec_loss": ((x - reals[n]) ** 2).mean(), "kl_loss": kl})
        if n > 0 or config.rec_zero_twice:
            add(losses, {"rec_zero_loss": ((x_zero - reals[0]) ** 2).mean()})
    total = config.rec_weight * losses["rec_loss"] + config.kl_weight * losses["kl_loss"]
    if "rec_zero_loss" in losses:
        total = total + config.rec_weight * losses["rec_zero_loss"]
    gradients = gradients_of(total, w, list(rates), config.grad_clip)
    return {name: loss / len(samples) for name, loss in losses.items()}, adam(w, gradients, moments, rates, config)


def gan_iteration(n, w, c, moments, critic_moments, amps, samples, sizes, config):
    """One step of Dⁿ, then one of Gⁿ, losses summed over samples (eq. 10, 11).

    samples: (real pyramid, Draws) each. Changes w and c; returns losses, means over the samples, and both new moments.
    """
    rates, critic_names = rates_of(w, n, config), trained(c, "blocks.", "tail.")
    if not config.freeze and config.vae_levels > 0:
        for i in range(config.encoder_convs):
            power_iteration(w, f"encoder.blocks.{i}")
    for prefix in [name.removesuffix(".u") for name in c if name.endswith(".u")]:
        power_iteration(c, prefix)
    losses, made = {}, []
    part = window(n, samples[0][1].place, sizes, config)
    for reals, draw in samples:
        z, _ = code(w, reals[0], config, draw)
        z_random = prior(sizes, config, draw)
        x_rec, x_random = z, z_random
        for k in range(n + 1):
            cut = part if k == n else lambda volume: volume
            if k == 0:
                x_rec, x_random = (
                    torch.tanh(generate(w, 0, cut(x), config.generator_convs)) for x in (x_rec, x_random)
                )
                continue
            noisy = k >= config.vae_levels or config.vae_noise
            noise = cut(amps[k] * draw.normal((1, 3, *sizes[k]))) if noisy else 0.0
            x_rec = refine(w, k, cut(upsample(x_rec, sizes[k])), 0.0, config)
            x_random = refine(w, k, cut(upsample(x_random, sizes[k])), noise, config)
        real = part(reals[n])
        made.append((real, x_rec, x_random))

        fake, epsilon = x_random.detach(), draw.uniform()
        mixed = (epsilon * real + (1 - epsilon) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(criticise(c, mixed, config).sum(), mixed, create_graph=True)
        add(losses, {"critic_loss": criticise(c, fake, config).mean() - criticise(c, real, config).mean()})
        add(losses, {"gp_loss": ((torch.sqrt((slope**2).sum(dim=1)) - 1) ** 2).mean()})
    gradients = gradients_of(losses["critic_loss"] + config.gp_weight * losses["gp_loss"], c, critic_names)
    critic_after = adam(c, gradients, critic_moments, dict.fromkeys(critic_names, config.lr), config)

    for real, x_rec, x_random in made:
        add(losses, {"rec_loss": ((x_rec - real) ** 2).mean(), "adv_loss": -criticise(c, x_random, config).mean()})
    total = config.rec_weight * losses["rec_loss"] + config.adv_weight * losses["adv_loss"]
    gradients = gradients_of(total, w, list(rates), config.grad_clip)
    means = {name: loss / len(samples) for name, loss in losses.items()}
    return means, adam(w, gradients, moments, rates, config), critic_after


def window(n, place, sizes, config):
    """What cuts the part of every frame that an iteration of a GAN scale trains on."""
    seed, scale, iteration = place
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(scale, iteration)))
    least = 2 * config.critic_convs + 1
    sides = [max(round(side * config.gan_crop), min(side, least)) for side in sizes[n][1:]]
    first = [int(rng.integers(0, side - part + 1)) for side, part in zip(sizes[n][1:], sides, strict=True)]
    return lambda volume: volume[:, :, :, first[0] : first[0] + sides[0], first[1] : first[1] + sides[1]]


class Draws:
    """The random numbers of one sample in one iteration (0: measuring the noise amplitude), as float64.

    They are draws, of the type that the training has, of a generator whose seed is a function of (seed, scale,
    iteration, sample).
    """

    def __init__(self, seed, scale, iteration, sample=0, dtype=torch.float32, again=0):
        """again: the number of a further draw of the sample in the same iteration."""
        self.place, self.sample = (seed, scale, iteration), sample
        self.generator = self._at(*(scale, iteration, sample, again)[: 4 if again else 3])
        self.dtype = dtype

    def _at(self, *key):
        place = np.random.SeedSequence(self.place[0], spawn_key=key)
        return torch.Generator().manual_seed(int(place.generate_state(1, np.uint64)[0]) // 2)

    def code(self, first):
        """z* of the sample: that of the first one, or a draw that depends on the seed and its number alone."""
        if self.sample == 0:
            return first
        return torch.randn(first.shape, generator=self._at(self.sample), dtype=self.dtype).double()

    def normal(self, shape):
        return torch.randn(tuple(shape), generator=self.generator, dtype=self.dtype).double()

    def uniform(self, shape=(1, 1, 1, 1, 1)):
        return torch.rand(tuple(shape), generator=self.generator, dtype=self.dtype).double()

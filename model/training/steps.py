"""One iteration of a scale, in the paper's order: (1) VAE, or (2) discriminator and (3) generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.device import adam_step, autocast
from model.networks.blocks import refine_spectral
from model.networks.critic import FixedCritic, checkpointed
from model.networks.patchvae import AnyPosterior
from model.training.losses import gradient_penalty, kl_divergence
from model.training.state import TrainState, posterior_of, sample_posterior
from model.training.training_set import Batch, TrainingSet
from model.training.workers import Workers


def iterate(state: TrainState, training_set: TrainingSet) -> dict[str, Tensor]:
    """One iteration of the scale being trained.

    Returns its losses by name, each a scalar on the device: the sum over this process's examples of the iteration.
    """
    batches = training_set.batches(state.scale, state.iteration + 1)
    step = _vae_step if state.scale < state.stack.config.vae_levels else _gan_step
    return step(state, batches, training_set)


def _vae_step(state: TrainState, batches: Sequence[Batch], training_set: TrainingSet) -> dict[str, Tensor]:
    """One iteration of a patch-VAE scale: E, G⁰ and Gⁿ learn, through the frozen generators between (eq. 5, 8).

    Without freezing those learn too, by the same loss.
    """
    stack, n, config = state.stack, state.scale, state.stack.config
    (optimizer,) = state.optimizers
    sums: dict[str, Tensor] = {}
    optimizer.zero_grad()
    refine_spectral(stack.encoder)
    for batch in batches:
        # (1) VAE: reconstruct the clip at scale n, and at scale 0
        with autocast(training_set.workers.device, config.precision):
            posterior = stack.encoder(batch.real(0))
            x0 = stack.decode(sample_posterior(posterior, batch.rngs()))
            x = stack.reconstruct(x0, 0, n)  # no method whose `to_video` changes it has VAE scales
        # Means over elements, as the authors' code; of equally large examples, so times their number it is their sum.
        rec_loss = len(batch) * F.mse_loss(x, batch.real(n))
        kl_loss = len(batch) * kl_divergence(posterior)
        losses = {"rec_loss": rec_loss, "kl_loss": kl_loss}
        if n > 0 or config.rec_zero_twice:
            losses["rec_zero_loss"] = len(batch) * F.mse_loss(x0, batch.real(0))
        total = config.rec_weight * (rec_loss + losses.get("rec_zero_loss", 0)) + config.kl_weight * kl_loss
        (training_set.weight * total).backward()
        _add(sums, losses)
    _step(optimizer, training_set.workers, config.grad_clip)
    return sums


def _gan_step(state: TrainState, batches: Sequence[Batch], training_set: TrainingSet) -> dict[str, Tensor]:
    """One iteration of a patch-GAN scale: `gan_steps` steps of Dⁿ, then of Gⁿ; all below is frozen (eq. 10, 11).

    Each step of Dⁿ has random samples of its own; those of Gⁿ have the last ones, computed again. Without freezing the
    levels below learn too, by the same loss: E through x̄, every generator through x̄ and x̃.
    Dⁿ sees all examples before Gⁿ does: with one micro-batch what the generators gave serves both steps; with more it
    is computed again for the second, from the same random numbers, so that only one micro-batch's activations are held.
    """
    stack, n, config, device = state.stack, state.scale, state.stack.config, training_set.workers.device
    optimizer_g, optimizer_d = state.optimizers
    critic = state.critic
    assert critic is not None
    criticise = checkpointed if config.low_memory else FixedCritic.__call__
    sums: dict[str, Tensor] = {}
    refine_spectral(critic)
    if not config.freeze:
        refine_spectral(stack.encoder)

    # (2) Discriminator: maximise E[D(x)] − E[D(x̃)] − λ·penalty; each part's graph is freed before the next is built
    for step in range(config.gan_steps):
        drawn = [batch.at_step(step) for batch in batches]
        optimizer_d.zero_grad()
        for batch in drawn:
            rngs = batch.rngs()
            with torch.set_grad_enabled(len(batches) == 1 and step == config.gan_steps - 1):
                x_rec, x_rand = _reconstruct_and_sample(state, batch, rngs)
            real = batch.window.cut(batch.real(n))
            with autocast(device, config.precision):
                scores = criticise(critic.fixed(), torch.cat([real, x_rand.detach()]))
            score_real, score_fake = scores.mean(dim=(1, 2, 3, 4)).split(len(batch))
            critic_loss = (score_fake - score_real).sum()
            (training_set.weight * critic_loss).backward()
            epsilon = torch.cat([torch.rand((1, 1, 1, 1, 1), generator=rng, device=device) for rng in rngs])
            with autocast(device, config.precision):
                gp_loss = len(batch) * gradient_penalty(critic.fixed().input_gradient, real, x_rand, epsilon)
            (training_set.weight * config.gp_weight * gp_loss).backward()
            _add(sums, {"critic_loss": critic_loss / config.gan_steps, "gp_loss": gp_loss / config.gan_steps})
        _step(optimizer_d, training_set.workers)

    # (3) Generator: minimise MSE(x̄, x) − β_adv·E[D(x̃)]; the critic's weights get no gradient
    for step in range(config.gan_steps):
        optimizer_g.zero_grad()
        for batch in drawn:
            if len(batches) > 1 or step > 0:
                x_rec, x_rand = _reconstruct_and_sample(state, batch, batch.rngs())
            with autocast(device, config.precision):
                adv_loss = -len(batch) * criticise(critic.fixed(trainable=False), x_rand).mean()
            rec_loss = len(batch) * F.mse_loss(x_rec, batch.window.cut(batch.real(n)))
            (training_set.weight * (config.rec_weight * rec_loss + config.adv_weight * adv_loss)).backward()
            _add(sums, {"rec_loss": rec_loss / config.gan_steps, "adv_loss": adv_loss / config.gan_steps})
        _step(optimizer_g, training_set.workers, config.grad_clip)
    return {name: sums[name] for name in ("rec_loss", "adv_loss", "critic_loss", "gp_loss")}


def _reconstruct_and_sample(state: TrainState, batch: Batch, rngs: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
    """Reconstruction x̄ⁿ and random sample x̃ⁿ of every example, (B, 3, T, H, W) each: of the iteration's window.

    They go through the generators as one batch: normalisation is per sample, so they do not see each other. Levels that
    are frozen record no gradient.
    """
    stack, n, config = state.stack, state.scale, state.stack.config

    def noise(k: int) -> Tensor | None:
        """z_k of the random samples, which are the last rows."""
        drawn = [z for rng in rngs if (z := stack.noise(k, 1, rng)) is not None]
        return torch.cat(drawn) if drawn else None

    with autocast(stack.device, config.precision):
        recording, first = torch.is_grad_enabled(), stack.first_trained(n)
        with torch.set_grad_enabled(recording and not config.freeze):
            x = torch.cat([sample_posterior(_posterior(state, batch), rngs), *(stack.draw(1, rng) for rng in rngs)])
        for k in range(n + 1):
            with torch.set_grad_enabled(recording and k >= first):
                x = stack.level(x, k, noise(k), batch.window.cut if k == n and config.gan_crop < 1 else None)
        x_rec, x_rand = stack.to_video(x).split(len(batch))
    return x_rec, x_rand


def _posterior(state: TrainState, batch: Batch) -> AnyPosterior:
    """q(z|x⁰) at a GAN scale: kept from iteration to iteration where E is frozen and the examples are the same."""
    if not state.stack.config.freeze:  # E learns at GAN scales too
        return posterior_of(state.stack, batch)
    if state.posterior is None or state.posterior[0] != batch.examples:
        state.posterior = batch.examples, posterior_of(state.stack, batch)
    return state.posterior[1]


def _add(sums: dict[str, Tensor], losses: dict[str, Tensor]) -> None:
    for name, loss in losses.items():
        sums[name] = sums[name] + loss.detach() if name in sums else loss.detach()


def _step(optimizer: torch.optim.Adam, workers: Workers, grad_clip: float | None = None) -> None:
    """Sum the gradients over the workers, clip their norm if they are to be, take the step."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    workers.sum_gradients(parameters)
    if grad_clip is not None:
        torch.nn.utils.clip_grad_norm_(parameters, grad_clip)
    adam_step(optimizer)

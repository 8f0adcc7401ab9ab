"""Training of one model, in the paper's order: `train_clip` loops over scales, `train_scale` over iterations.

Scales n < vae_levels are trained as patch-VAE, block (1) below; the others as patch-GAN, blocks (2) and (3).
It is trained on one clip or on several samples, whose losses are summed (reals.py), by one process or by several that
share the samples (team.py).

Everything that influences the result is in `TrainState` and so in the checkpoint: a run that is stopped goes on from
its last checkpoint as if it had not been: to the bit on a CPU; CUDA sums some gradients in no fixed order.

>>> for scale in train_clip(config, [pyramid], clip_id="bikes", path=Path("checkpoint.pt"), log=print):
...     print(scale.n, scale.train_s)  # a picture, a metric: whatever wants to see each finished scale
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model import checkpoint as ckpt
from model.blocks import refine_spectral
from model.config import TrainConfig
from model.losses import gradient_penalty, kl_divergence
from model.memory import OutOfMemory, is_out_of_memory, peak_gib
from model.networks import Critic, FixedCritic, GeneratorStack, Size, one_by_one
from model.precision import autocast, resolve
from model.reals import Batch, Pyramid, Reals
from model.team import Team
from model.variants import AnyPosterior

CHECKPOINT_S = 60.0  # a slow machine also saves after so many seconds, at the next logged iteration
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """One logged point: losses of scale n (means since the point before), sec_per_iter, peak_gib."""

    scale: int
    iteration: int  # finished iterations of the scale
    metrics: dict[str, float]


Log = Callable[[Progress], None]


class NonFiniteLoss(RuntimeError):
    """A loss became NaN or infinite; the message names scale, iteration and term."""


@dataclass(frozen=True)
class ScaleDone:
    """A finished scale: its index, the stack trained so far (on the training device), seconds of training so far."""

    n: int
    stack: GeneratorStack
    train_s: float


@dataclass
class TrainState:
    """All that training changes. `scale` is being trained, `iteration` of its iterations are done."""

    stack: GeneratorStack
    critic: Critic | None
    optimizers: tuple[torch.optim.Adam, ...]  # generator's, then the critic's at GAN scales
    scale: int
    iteration: int
    train_s: float = 0.0  # seconds of training so far, over all the processes that took part, one after the other
    # q(z|x⁰) of the samples a GAN scale had last, as E is frozen there; computed again when resumed
    posterior: tuple[tuple[int, ...], AnyPosterior] | None = None

    def snapshot(self, clip_id: str, samples: int) -> ckpt.Checkpoint:
        stack = self.stack
        return ckpt.Checkpoint(
            config=stack.config,
            sizes=tuple(stack.sizes),
            clip_id=clip_id,
            samples=samples,
            scale=self.scale,
            iteration=self.iteration,
            train_s=self.train_s,
            noise_amps=tuple(stack.noise_amps),
            generators=stack.state_dict(),
            critic=self.critic.state_dict() if self.critic else None,
            optimizers=tuple(optimizer.state_dict() for optimizer in self.optimizers),
        )


def train_clip(
    config: TrainConfig,
    pyramids: Sequence[Pyramid],
    *,
    clip_id: str,
    path: Path,
    log: Log,
    warn: Callable[[str], None] = logger.warning,
) -> Iterator[ScaleDone]:
    """Train every scale of one model, from `path` on if it holds a checkpoint; yields after each finished scale.

    Where several processes train it together, all call this with the same samples; the leading one alone reads and
    writes `path`, and calls `log` and `warn`.

    Args:
        pyramids: one a sample (reals.py); of a clip there is one.
        path: the checkpoint, written every config.checkpoint_every iterations and after each scale; the one before it
            is kept beside it, and used where `path` is damaged.
        log: called every config.log_every iterations, and before each checkpoint.
        warn: told, in one line, that the checkpoint before was used.

    Raises:
        NonFiniteLoss: a loss, or what a step made of the weights, is NaN or infinite; the last checkpoint is from
            before it.
        ValueError: the samples have not config.num_scales scales, or cannot be trained together.
        CheckpointError: no checkpoint is left that can be read, or it belongs to another config or other samples.
        StorageError: a checkpoint cannot be written; the ones before it are as they were.
        PeerLost: another process of those that train together is gone.
        OutOfMemory: says how many samples were in memory at once; micro_batch and low_memory make it less.
    """
    team = Team()
    device = team.device
    if device.type == "cuda" and resolve(config.precision, device) == "float32":
        torch.backends.cudnn.allow_tf32 = False  # else "float32" convolutions round their inputs to 10 bits
    reals = Reals(pyramids, config, team)
    saved = team.from_leader(ckpt.resume(path, warn) if team.leads else None)
    state = _restore(saved, reals, clip_id, path) if saved else first_state(config, reals.sizes, device)

    def save(state: TrainState) -> None:
        if team.leads:
            ckpt.save(state.snapshot(clip_id, len(reals)), path)

    while True:
        with _telling_how_many(reals, state.scale):
            train_scale(state, reals, log if team.leads else lambda _: None, save)
        yield ScaleDone(state.scale, state.stack, state.train_s)
        if state.scale == config.num_scales - 1:
            return
        with _telling_how_many(reals, state.scale + 1):
            state = next_scale(state, reals)


@contextlib.contextmanager
def _telling_how_many(reals: Reals, n: int) -> Iterator[None]:
    """Turns what is raised when memory does not suffice into an OutOfMemory with the samples in memory at once."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory(str(error), reals.at_once(n)) from error
        raise


def train_scale(state: TrainState, reals: Reals, log: Log, save: Callable[[TrainState], None]) -> None:
    """Iterate the current scale to its end. Losses stay on the device until they are logged: no sync an iteration."""
    config, n = state.stack.config, state.scale
    total = config.iterations[n]
    recent: list[dict[str, Tensor]] = []
    started = saved = time.perf_counter()
    while state.iteration < total:
        _set_learning_rate(state, total)
        recent.append(iterate(state, reals))
        state.iteration += 1
        saving = state.iteration % config.checkpoint_every == 0 or state.iteration == total
        logging = state.iteration % config.log_every == 0 or saving
        if logging:
            losses = _finite_means(recent, reals, n, state.iteration)  # waits for the device: the time is complete
            now = time.perf_counter()
            speed = {"sec_per_iter": (now - started) / len(recent), "peak_gib": peak_gib(reals.team.device)}
            log(Progress(n, state.iteration, {**losses, **speed}))
            recent = []
            state.train_s += now - started
            if saving or now - saved > CHECKPOINT_S:
                _check_weights(state)
                save(state)
                saved = now
            started = time.perf_counter()


def iterate(state: TrainState, reals: Reals) -> dict[str, Tensor]:
    """One iteration of the scale being trained.

    Returns its losses by name, each a scalar on the device: the sum over this process's samples of the iteration.
    """
    batches = reals.batches(state.scale, state.iteration + 1)
    step = _vae_step if state.scale < state.stack.config.vae_levels else _gan_step
    return step(state, batches, reals)


def _vae_step(state: TrainState, batches: Sequence[Batch], reals: Reals) -> dict[str, Tensor]:
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
        with autocast(reals.team.device, config.precision):
            posterior = stack.encoder(batch.real(0))
            x0 = stack.decode(_drawn(posterior, batch.streams()))
            x = stack.reconstruct(x0, 0, n)
        # Means over elements, as the authors' code; of equally large samples, so times their number it is their sum.
        rec_loss = len(batch) * F.mse_loss(x, batch.real(n))
        kl_loss = len(batch) * kl_divergence(posterior)
        losses = {"rec_loss": rec_loss, "kl_loss": kl_loss}
        if n > 0:
            losses["rec_zero_loss"] = len(batch) * F.mse_loss(x0, batch.real(0))
        total = config.rec_weight * (rec_loss + losses.get("rec_zero_loss", 0)) + config.kl_weight * kl_loss
        (reals.weight * total).backward()
        _add(sums, losses)
    _step(optimizer, reals.team, config.grad_clip)
    return sums


def _gan_step(state: TrainState, batches: Sequence[Batch], reals: Reals) -> dict[str, Tensor]:
    """One iteration of a patch-GAN scale: one step of Dⁿ, one of Gⁿ; all below is frozen (eq. 10, 11).

    Without freezing it learns too, by the same loss: E through x̄, every generator through x̄ and x̃.
    Dⁿ sees all samples before Gⁿ does: with one micro-batch what the generators made serves both steps; with more it
    is made again for the second, from the same random numbers, so that only one micro-batch's activations are held.
    """
    stack, n, config, device = state.stack, state.scale, state.stack.config, reals.team.device
    optimizer_g, optimizer_d = state.optimizers
    critic = state.critic
    assert critic is not None
    criticise = one_by_one if config.low_memory else FixedCritic.__call__
    sums: dict[str, Tensor] = {}
    refine_spectral(critic)
    if not config.freeze:
        refine_spectral(stack.encoder)

    # (2) Discriminator: maximise E[D(x)] − E[D(x̃)] − λ·penalty; each part's graph is freed before the next is built
    optimizer_d.zero_grad()
    for batch in batches:
        streams = batch.streams()
        with torch.set_grad_enabled(len(batches) == 1):
            x_rec, x_rand = _paths(state, batch, streams)
        real = batch.real(n)
        with autocast(device, config.precision):
            scores = criticise(critic.fixed(), torch.cat([real, x_rand.detach()]))
        score_real, score_fake = scores.mean(dim=(1, 2, 3, 4)).split(len(batch))
        critic_loss = (score_fake - score_real).sum()
        (reals.weight * critic_loss).backward()
        epsilon = torch.cat([torch.rand((1, 1, 1, 1, 1), generator=s, device=device) for s in streams])
        with autocast(device, config.precision):
            gp_loss = len(batch) * gradient_penalty(critic.fixed().input_gradient, real, x_rand, epsilon)
        (reals.weight * config.gp_weight * gp_loss).backward()
        _add(sums, {"critic_loss": critic_loss, "gp_loss": gp_loss})
    _step(optimizer_d, reals.team)

    # (3) Generator: minimise MSE(x̄, x) − β_adv·E[D(x̃)]; the critic's weights get no gradient
    optimizer_g.zero_grad()
    for batch in batches:
        if len(batches) > 1:
            x_rec, x_rand = _paths(state, batch, batch.streams())
        with autocast(device, config.precision):
            adv_loss = -len(batch) * criticise(critic.fixed(trainable=False), x_rand).mean()
        rec_loss = len(batch) * F.mse_loss(x_rec, batch.real(n))
        (reals.weight * (config.rec_weight * rec_loss + config.adv_weight * adv_loss)).backward()
        _add(sums, {"rec_loss": rec_loss, "adv_loss": adv_loss})
    _step(optimizer_g, reals.team, config.grad_clip)
    return {name: sums[name] for name in ("rec_loss", "adv_loss", "critic_loss", "gp_loss")}


def _paths(state: TrainState, batch: Batch, streams: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
    """Reconstruction x̄ⁿ and random sample x̃ⁿ of every sample, (B, 3, T, H, W) each.

    They go through the generators as one batch: normalisation is per sample, so they do not see each other. Only Gⁿ
    records a gradient, where what is below is frozen.
    """
    stack, n, config = state.stack, state.scale, state.stack.config

    def noise(k: int) -> Tensor | None:
        """None for the reconstructions, z_k for the random samples."""
        drawn = [z for s in streams if (z := stack.noise(k, 1, s)) is not None]
        return torch.cat([torch.zeros_like(z) for z in drawn] + drawn) if drawn else None

    with autocast(stack.device, config.precision):
        with torch.set_grad_enabled(torch.is_grad_enabled() and not config.freeze):
            x = torch.cat([_drawn(_posterior(state, batch), streams), *(stack.draw(1, s) for s in streams)])
            for k in range(n):
                x = stack.level(x, k, noise(k))
        x_rec, x_rand = stack.level(x, n, noise(n)).split(len(batch))
    return x_rec, x_rand


def _posterior(state: TrainState, batch: Batch) -> AnyPosterior:
    """q(z|x⁰) at a GAN scale: kept from iteration to iteration where E is frozen and the samples are the same."""
    encoder: Callable[[Tensor], AnyPosterior] = state.stack.encoder
    if not state.stack.config.freeze:  # E learns at GAN scales too
        return encoder(batch.real(0))
    if state.posterior is None or state.posterior[0] != batch.samples:
        state.posterior = batch.samples, encoder(batch.real(0))
    return state.posterior[1]


def _drawn(posterior: AnyPosterior, streams: Sequence[torch.Generator]) -> Tensor:
    """z ~ q(z|x⁰) of every sample from its own stream, (B, latent, T, H, W)."""
    parts: Sequence[AnyPosterior] = posterior.split()
    return torch.cat([q.sample(s) for q, s in zip(parts, streams, strict=True)])


def _add(sums: dict[str, Tensor], losses: dict[str, Tensor]) -> None:
    for name, loss in losses.items():
        sums[name] = sums[name] + loss.detach() if name in sums else loss.detach()


def _step(optimizer: torch.optim.Adam, team: Team, grad_clip: float = math.inf) -> None:
    """Sum the gradients over the team, clip their norm, take the step."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    team.sum_gradients(parameters)
    if grad_clip < math.inf:
        torch.nn.utils.clip_grad_norm_(parameters, grad_clip)
    optimizer.step()


# -- from scale to scale


def first_state(config: TrainConfig, sizes: Sequence[Size], device: torch.device) -> TrainState:
    """Before the first iteration of scale 0; sizes: (T, H, W) of every scale."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(config, 0))
        stack = GeneratorStack(config, sizes).to(device)
        critic = _new_critic(config, device) if config.vae_levels == 0 else None
    return TrainState(stack, critic, _optimizers(stack, critic, 0), 0, 0)


def next_scale(state: TrainState, reals: Reals) -> TrainState:
    """Grow the stack, carry the critic over and measure the noise amplitude of the new scale, over all samples."""
    stack, n, config, device = state.stack, state.scale + 1, state.stack.config, reals.team.device
    critic = state.critic
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(config, n))
        stack.grow()
        if n == config.vae_levels:
            critic = _new_critic(config, device)  # Dⁿ starts from Dⁿ⁻¹; the first one is fresh
    if n >= config.vae_levels:
        squares = torch.zeros((), device=device)
        for batch in reals.measuring(n):
            with torch.no_grad(), autocast(device, config.precision):
                z = _drawn(stack.encoder(batch.real(0)), batch.streams())
                x = stack.reconstruct(stack.decode(z), 0, n)
            squares += len(batch) * F.mse_loss(x, batch.real(n))
        stack.noise_amps[n] = config.noise_amp * math.sqrt(reals.team.sum(squares).item() / len(reals))
    return TrainState(stack, critic, _optimizers(stack, critic, n), n, 0, train_s=state.train_s)


def _restore(saved: ckpt.Checkpoint, reals: Reals, clip_id: str, path: Path) -> TrainState:
    config, device = reals.config, reals.team.device
    then = (saved.config.definition(), list(saved.sizes), saved.clip_id)
    if then != (config.definition(), reals.sizes, clip_id):
        raise ckpt.CheckpointError(f"{path}: of another clip or config; use another experiment name, or --fresh")
    if saved.samples != len(reals):
        cause = f"of {saved.samples} samples, there are {len(reals)} now"
        raise ckpt.CheckpointError(f"{path}: {cause}; use another experiment name, or --fresh")
    stack = saved.stack().to(device)
    stack.config = config
    critic = None
    if saved.critic is not None:
        critic = _new_critic(config, device)
        critic.load_state_dict(saved.critic)
    optimizers = _optimizers(stack, critic, saved.scale)
    for optimizer, optimizer_state in zip(optimizers, saved.optimizers, strict=True):
        optimizer.load_state_dict(optimizer_state)
    return TrainState(stack, critic, optimizers, saved.scale, saved.iteration, train_s=saved.train_s)


def _new_critic(config: TrainConfig, device: torch.device) -> Critic:
    return Critic(config.channels, config.critic_convs, last_spectral=config.critic_last_spectral).to(device)


def _optimizers(stack: GeneratorStack, critic: Critic | None, n: int) -> tuple[torch.optim.Adam, ...]:
    """Fresh Adams for what scale n trains; freezes everything else (§3.2)."""
    config = stack.config
    stack.requires_grad_(False)
    learning = {0, n} if n < config.vae_levels else {n}
    if not config.freeze:
        learning = set(range(n + 1))
    groups = []
    for k in sorted(learning):
        networks = [stack.generators[k]]
        if k == 0 and config.vae_levels > 0:
            networks.insert(0, stack.encoder)  # E learns where G⁰ does
        for network in networks:
            parameters = list(network.requires_grad_(True).parameters())
            groups.append({"params": parameters, "lr": config.lr * config.vae_lr_decay ** (n - k)})
    optimizers = [torch.optim.Adam(groups, betas=config.adam_betas, fused=True)]
    if critic is not None:
        optimizers.append(torch.optim.Adam(critic.parameters(), lr=config.lr, betas=config.adam_betas, fused=True))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return tuple(optimizers)


def _set_learning_rate(state: TrainState, total: int) -> None:
    """Half a cosine from lr to lr · lr_final over the scale; constant at lr_final = 1, as in the paper."""
    final = state.stack.config.lr_final
    factor = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * state.iteration / total))
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor


# -- figures


def _finite_means(recent: Sequence[dict[str, Tensor]], reals: Reals, n: int, iteration: int) -> dict[str, float]:
    """Mean over samples and recent iterations of each loss, `iteration` the last. One transfer from the device."""
    names = list(recent[0])
    sums = torch.stack([torch.stack([losses[name] for name in names]) for losses in recent]).float()
    table = reals.team.sum(sums).cpu() / reals.an_iteration(len(reals), reals.config)
    bad = (~table.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        place = f"scale {n}, iteration {iteration - len(recent) + row + 1}"
        value = table[row, column].item()
        raise NonFiniteLoss(f"{place}: {names[column]} is {value}; lower lr or set precision=float32")
    return dict(zip(names, table.mean(dim=0).tolist()))


def _check_weights(state: TrainState) -> None:
    """Losses are those before a step; a checkpoint must not hold weights that the last step broke."""
    trained = [p for optimizer in state.optimizers for group in optimizer.param_groups for p in group["params"]]
    if not all(bool(p.isfinite().all()) for p in trained):
        place = f"scale {state.scale}, iteration {state.iteration}"
        raise NonFiniteLoss(f"{place}: the weights after it are not finite; lower lr or set precision=float32")


def _seed(config: TrainConfig, *place: int) -> int:
    """A 63-bit seed of its own for each place in training."""
    return int(np.random.SeedSequence([config.seed, *place]).generate_state(1, np.uint64)[0] >> 1)

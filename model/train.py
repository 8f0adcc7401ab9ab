"""Training of one clip, in the paper's order: `train_clip` loops over scales, `train_scale` over iterations.

Scales n < vae_levels are trained as patch-VAE, block (1) below; the others as patch-GAN, blocks (2) and (3).
Everything that influences the result is in `TrainState` and so in the checkpoint: a run that is stopped goes on from
its last checkpoint as if it had not been: to the bit on a CPU; CUDA sums some gradients in no fixed order.

>>> for scale in train_clip(config, reals, clip_id="bikes", path=Path("checkpoint.pt"), log=print):
...     print(scale.n, scale.train_s)  # a picture, a metric: whatever wants to see each finished scale
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from model import checkpoint as ckpt
from model.config import TrainConfig
from model.losses import gradient_penalty, kl_divergence
from model.memory import peak_gib
from model.networks import Critic, FixedCritic, GeneratorStack, Size, one_by_one
from model.precision import autocast, resolve
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
    generator: torch.Generator  # draws ε, z, z_n
    scale: int
    iteration: int
    posterior: AnyPosterior | None = None  # q(z|x⁰) at GAN scales, where E is frozen; computed again when resumed
    train_s: float = 0.0  # seconds of training so far, over all the processes that took part

    def snapshot(self, clip_id: str) -> ckpt.Checkpoint:
        stack = self.stack
        return ckpt.Checkpoint(
            config=stack.config,
            sizes=tuple(stack.sizes),
            clip_id=clip_id,
            scale=self.scale,
            iteration=self.iteration,
            train_s=self.train_s,
            noise_amps=tuple(stack.noise_amps),
            generators=stack.state_dict(),
            critic=self.critic.state_dict() if self.critic else None,
            optimizers=tuple(optimizer.state_dict() for optimizer in self.optimizers),
            rng_state=self.generator.get_state(),
            device=self.generator.device.type,
        )


def train_clip(
    config: TrainConfig,
    reals: Sequence[np.ndarray],
    *,
    clip_id: str,
    path: Path,
    log: Log,
    warn: Callable[[str], None] = logger.warning,
) -> Iterator[ScaleDone]:
    """Train every scale of one clip, from `path` on if it holds a checkpoint; yields after each finished scale.

    Args:
        reals: the real pyramid, one float32 (3, T_n, H_n, W_n) in [-1, 1] a scale, coarsest first.
        path: the checkpoint, written every config.checkpoint_every iterations and after each scale; the one before it
            is kept beside it, and used where `path` is damaged.
        log: called every config.log_every iterations, and before each checkpoint.
        warn: told, in one line, that the checkpoint before was used.

    Raises:
        NonFiniteLoss: a loss, or what a step made of the weights, is NaN or infinite; the last checkpoint is from
            before it.
        ValueError: `reals` has not config.num_scales scales.
        CheckpointError: no checkpoint is left that can be read, or it belongs to another config or clip.
        StorageError: a checkpoint cannot be written; the ones before it are as they were.
    """
    if len(reals) != config.num_scales:
        raise ValueError(f"{len(reals)} scales in the pyramid, {config.num_scales} in the config")
    device = Accelerator(cpu=not torch.cuda.is_available()).device
    if device.type == "cuda" and resolve(config.precision, device) == "float32":
        torch.backends.cudnn.allow_tf32 = False  # else "float32" convolutions round their inputs to 10 bits
    # Kept on the device for the whole training: nothing is decoded, resized or copied in the loop.
    pyramid = [torch.from_numpy(real)[None].to(device) for real in reals]
    sizes: list[Size] = [(t, h, w) for _, t, h, w in (real.shape for real in reals)]
    saved = ckpt.resume(path, warn)
    if saved is None:
        state = first_state(config, sizes, device)
    else:
        state = _restore(saved, config, sizes, clip_id, path, device)
    while True:
        train_scale(state, pyramid, log, lambda s: ckpt.save(s.snapshot(clip_id), path))
        yield ScaleDone(state.scale, state.stack, state.train_s)
        if state.scale == len(sizes) - 1:
            return
        state = next_scale(state, pyramid)


def train_scale(state: TrainState, pyramid: Sequence[Tensor], log: Log, save: Callable[[TrainState], None]) -> None:
    """Iterate the current scale to its end. Losses stay on the device until they are logged: no sync an iteration."""
    config, n = state.stack.config, state.scale
    total = config.iterations[n]
    recent: list[dict[str, Tensor]] = []
    started = saved = time.perf_counter()
    while state.iteration < total:
        _set_learning_rate(state, total)
        recent.append(iterate(state, pyramid))
        state.iteration += 1
        saving = state.iteration % config.checkpoint_every == 0 or state.iteration == total
        logging = state.iteration % config.log_every == 0 or saving
        if logging:
            losses = _finite_means(recent, n, state.iteration)  # waits for the device: the time below is complete
            now = time.perf_counter()
            speed = {"sec_per_iter": (now - started) / len(recent), "peak_gib": peak_gib(pyramid[0].device)}
            log(Progress(n, state.iteration, {**losses, **speed}))
            recent = []
            state.train_s += now - started
            if saving or now - saved > CHECKPOINT_S:
                _check_weights(state)
                save(state)
                saved = now
            started = time.perf_counter()


def iterate(state: TrainState, pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
    """One iteration of the scale being trained; its losses by name, each a scalar on the device."""
    stack, config = state.stack, state.stack.config
    if state.scale < config.vae_levels:
        return _vae_step(state, pyramid)
    if not config.freeze:  # E learns at GAN scales too
        with autocast(pyramid[0].device, config.precision):
            posterior = stack.encoder(pyramid[0], refine=True)
        return _gan_step(state, pyramid, posterior)
    if state.posterior is None:
        with torch.no_grad(), autocast(pyramid[0].device, config.precision):
            state.posterior = stack.encoder(pyramid[0])
    return _gan_step(state, pyramid, state.posterior)


def _vae_step(state: TrainState, pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
    """One iteration of a patch-VAE scale: E, G⁰ and Gⁿ learn, through the frozen generators between (eq. 5, 8).

    Without freezing those learn too, by the same loss.
    """
    stack, n, config = state.stack, state.scale, state.stack.config
    (optimizer,) = state.optimizers

    # (1) VAE: reconstruct the clip at scale n, and at scale 0
    with autocast(pyramid[0].device, config.precision):
        posterior = stack.encoder(pyramid[0], refine=True)
        x0 = stack.decode(posterior.sample(state.generator))
        x = stack.reconstruct(x0, 0, n)
    rec_loss = F.mse_loss(x, pyramid[n])
    kl_loss = kl_divergence(posterior)
    losses = {"rec_loss": rec_loss, "kl_loss": kl_loss}
    if n > 0:
        losses["rec_zero_loss"] = F.mse_loss(x0, pyramid[0])
    total = config.rec_weight * (rec_loss + losses.get("rec_zero_loss", 0)) + config.kl_weight * kl_loss
    optimizer.zero_grad()
    total.backward()
    _clip_gradients(optimizer, config.grad_clip)
    optimizer.step()
    return {name: loss.detach() for name, loss in losses.items()}


def _gan_step(state: TrainState, pyramid: Sequence[Tensor], posterior: AnyPosterior) -> dict[str, Tensor]:
    """One iteration of a patch-GAN scale: one step of Dⁿ, one of Gⁿ; all below is frozen (eq. 10, 11).

    Without freezing it learns too, by the same loss: E through x̄, every generator through x̄ and x̃.
    """
    stack, n, config = state.stack, state.scale, state.stack.config
    optimizer_g, optimizer_d = state.optimizers
    critic, real = state.critic, pyramid[n]
    assert critic is not None
    device = real.device
    criticise = one_by_one if config.low_memory else FixedCritic.__call__

    # The reconstruction x̄ and the random sample x̃ go through the generators as one batch: normalisation is per
    # sample, so they do not see each other. Only Gⁿ records a gradient, where what is below is frozen.
    with autocast(device, config.precision):
        with torch.set_grad_enabled(not config.freeze):
            x = torch.cat([posterior.sample(state.generator), stack.draw(1, state.generator)])
            for k in range(n):
                x = stack.level(x, k, _noise_for_random(state, k))
        x_rec, x_rand = stack.level(x, n, _noise_for_random(state, n)).split(1)

    # (2) Discriminator: maximise E[D(x)] − E[D(x̃)] − λ·penalty; each part's graph is freed before the next is built
    optimizer_d.zero_grad()
    with autocast(device, config.precision):
        scores = criticise(critic.fixed(refine=True), torch.cat([real, x_rand.detach()]))
    score_real, score_fake = scores.mean(dim=(1, 2, 3, 4))
    critic_loss = score_fake - score_real
    critic_loss.backward()
    epsilon = torch.rand((1, 1, 1, 1, 1), generator=state.generator, device=device)
    with autocast(device, config.precision):
        gp_loss = gradient_penalty(critic.fixed().input_gradient, real, x_rand, epsilon)
    (config.gp_weight * gp_loss).backward()
    optimizer_d.step()

    # (3) Generator: minimise MSE(x̄, x) − β_adv·E[D(x̃)]; the critic's weights get no gradient
    with autocast(device, config.precision):
        adv_loss = -criticise(critic.fixed(trainable=False), x_rand).mean()
    rec_loss = F.mse_loss(x_rec, real)
    optimizer_g.zero_grad()
    (config.rec_weight * rec_loss + config.adv_weight * adv_loss).backward()
    _clip_gradients(optimizer_g, config.grad_clip)
    optimizer_g.step()
    return {
        "rec_loss": rec_loss.detach(),
        "adv_loss": adv_loss.detach(),
        "critic_loss": critic_loss.detach(),
        "gp_loss": gp_loss.detach(),
    }


def _noise_for_random(state: TrainState, n: int) -> Tensor | None:
    """Noise for a batch of (reconstruction, random): none for the first, z_n for the second."""
    noise = state.stack.noise(n, 1, state.generator)
    return None if noise is None else torch.cat([torch.zeros_like(noise), noise])


# -- from scale to scale


def first_state(config: TrainConfig, sizes: Sequence[Size], device: torch.device) -> TrainState:
    """Before the first iteration of scale 0; sizes: (T, H, W) of every scale."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(config, 0))
        stack = GeneratorStack(config, sizes).to(device)
        critic = _new_critic(config, device) if config.vae_levels == 0 else None
    generator = torch.Generator(device).manual_seed(_seed(config, len(sizes)))
    return TrainState(stack, critic, _optimizers(stack, critic, 0), generator, 0, 0)


def next_scale(state: TrainState, pyramid: Sequence[Tensor]) -> TrainState:
    """Grow the stack, carry the critic over and measure the noise amplitude of the new scale."""
    stack, n, config = state.stack, state.scale + 1, state.stack.config
    critic = state.critic
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(config, n))
        stack.grow()
        if n == config.vae_levels:
            critic = _new_critic(config, pyramid[0].device)  # Dⁿ starts from Dⁿ⁻¹; the first one is fresh
    if n >= config.vae_levels:
        with torch.no_grad(), autocast(pyramid[0].device, config.precision):
            z = stack.encoder(pyramid[0]).sample(state.generator)
            x = stack.reconstruct(stack.decode(z), 0, n)
        stack.noise_amps[n] = config.noise_amp * math.sqrt(F.mse_loss(x, pyramid[n]).item())
    return TrainState(stack, critic, _optimizers(stack, critic, n), state.generator, n, 0, train_s=state.train_s)


def _restore(
    saved: ckpt.Checkpoint,
    config: TrainConfig,
    sizes: Sequence[Size],
    clip_id: str,
    path: Path,
    device: torch.device,
) -> TrainState:
    """The state a checkpoint holds. Raises CheckpointError if it is not of this config and clip."""
    then = (saved.config.definition(), list(saved.sizes), saved.clip_id)
    if then != (config.definition(), list(sizes), clip_id):
        raise ckpt.CheckpointError(f"{path}: of another clip or config; use another experiment name, or --fresh")
    stack = saved.stack().to(device)
    stack.config = config
    critic = None
    if saved.critic is not None:
        critic = _new_critic(config, device)
        critic.load_state_dict(saved.critic)
    optimizers = _optimizers(stack, critic, saved.scale)
    for optimizer, optimizer_state in zip(optimizers, saved.optimizers, strict=True):
        optimizer.load_state_dict(optimizer_state)
    generator = torch.Generator(device)
    if saved.device == device.type:
        generator.set_state(saved.rng_state)
    else:  # another kind of device has another generator: same distribution, other numbers
        generator.manual_seed(_seed(config, saved.scale, saved.iteration))
    return TrainState(stack, critic, optimizers, generator, saved.scale, saved.iteration, train_s=saved.train_s)


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


def _clip_gradients(optimizer: torch.optim.Adam, limit: float) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, limit)


# -- figures


def _finite_means(recent: Sequence[dict[str, Tensor]], n: int, iteration: int) -> dict[str, float]:
    """Mean of each loss over the recent iterations, `iteration` being the last. One transfer from the device."""
    names = list(recent[0])
    table = torch.stack([torch.stack([losses[name] for name in names]) for losses in recent]).float().cpu()
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

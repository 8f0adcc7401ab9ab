"""What training changes, and how it goes on: from scale to scale, and from a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model import checkpoint as ckpt
from model.config import TrainConfig
from model.device import autocast, skip_compiler_import
from model.networks.critic import Critic
from model.networks.encoder import FixedCode
from model.networks.generators import GeneratorStack
from model.networks.patchvae import AnyPosterior
from model.networks.stacks import new_stack
from model.pyramid import ScaleSize
from model.training.training_set import Batch, TrainingSet


@dataclass
class TrainState:
    """All that training changes. `scale` is being trained, `iteration` of its iterations are done."""

    stack: GeneratorStack
    critic: Critic | None
    optimizers: tuple[torch.optim.Adam, ...]  # generator's, then the critic's at GAN scales
    scale: int
    iteration: int
    train_s: float = 0.0  # seconds of training so far, over all the processes that took part, one after the other
    # q(z|x⁰) of the examples a GAN scale had last, as E is frozen there; computed again when resumed
    posterior: tuple[tuple[int, ...], AnyPosterior] | None = None

    def snapshot(self, clip_id: str, examples: int) -> ckpt.Checkpoint:
        """All of it as a checkpoint. examples: how many the model is trained on."""
        stack = self.stack
        return ckpt.Checkpoint(
            config=stack.config,
            sizes=tuple((t, h, w) for t, h, w in stack.sizes),  # plain tuples: nothing else is read back
            clip_id=clip_id,
            samples=examples,
            scale=self.scale,
            iteration=self.iteration,
            train_s=self.train_s,
            noise_amps=tuple(stack.noise_amps),
            generators=stack.state_dict(),
            critic=self.critic.state_dict() if self.critic else None,
            optimizers=tuple(optimizer.state_dict() for optimizer in self.optimizers),
        )


def untrained(training_set: TrainingSet, clip_id: str) -> ckpt.Checkpoint:
    """What a method without networks keeps of a clip: its id and size, and the settings."""
    return ckpt.Checkpoint(
        config=training_set.config,
        sizes=tuple((t, h, w) for t, h, w in training_set.sizes),
        clip_id=clip_id,
        samples=len(training_set),
        scale=-1,
        iteration=0,
        train_s=0.0,
        noise_amps=(),
        generators={},
        critic=None,
        optimizers=(),
    )


def first_state(config: TrainConfig, sizes: Sequence[ScaleSize], device: torch.device) -> TrainState:
    """Before the first iteration of scale 0; sizes: (T, H, W) of every scale."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(config, 0))
        stack = new_stack(config, sizes).to(device)
        critic = Critic(config, 0).to(device) if config.vae_levels == 0 else None
    _compile(stack, 0)
    return TrainState(stack, critic, _optimizers(stack, critic, 0), 0, 0)


def next_scale(state: TrainState, training_set: TrainingSet) -> TrainState:
    """Grow the stack, carry the critic over and measure the noise amplitude of the new scale, over all examples."""
    stack, n, config, device = state.stack, state.scale + 1, state.stack.config, training_set.workers.device
    critic = state.critic
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(config, n))
        stack.grow()
        if n == config.vae_levels or (n > config.vae_levels and config.width(n) != config.width(n - 1)):
            critic = Critic(config, n).to(device)  # Dⁿ starts from Dⁿ⁻¹; the first of its width is fresh
    _compile(stack, n)
    if n >= config.vae_levels or config.vae_noise:
        squares = torch.zeros((), device=device)
        for batch in training_set.measuring(n):
            with torch.no_grad(), autocast(device, config.precision):
                z = sample_posterior(posterior_of(stack, batch), batch.rngs())
                x = stack.to_video(stack.reconstruct(stack.decode(z), 0, n))
            squares += len(batch) * F.mse_loss(x, batch.real(n))
        stack.noise_amps[n] = config.noise_amp * math.sqrt(training_set.workers.sum(squares).item() / len(training_set))
    return TrainState(stack, critic, _optimizers(stack, critic, n), n, 0, train_s=state.train_s)


def check_same(saved: ckpt.Checkpoint, training_set: TrainingSet, clip_id: str, path: Path) -> None:
    """Raises CheckpointError for a checkpoint of another clip, config or number of examples."""
    then = (saved.config.definition(), list(saved.sizes), saved.clip_id)
    if then != (training_set.config.definition(), training_set.sizes, clip_id):
        raise ckpt.CheckpointError(f"{path}: of another clip or config; use another experiment name, or --fresh")
    if saved.samples != len(training_set):
        cause = f"of {saved.samples} samples, there are {len(training_set)} now"
        raise ckpt.CheckpointError(f"{path}: {cause}; use another experiment name, or --fresh")


def restore(saved: ckpt.Checkpoint, training_set: TrainingSet, clip_id: str, path: Path) -> TrainState:
    """Where a checkpoint left off. Raises CheckpointError for one of another clip, config or number of examples."""
    config, device = training_set.config, training_set.workers.device
    check_same(saved, training_set, clip_id, path)
    stack = saved.stack()
    assert stack is not None  # of this config, which has networks
    stack = stack.to(device)
    stack.config = config
    _compile(stack, *range(stack.num_scales))
    critic = None
    if saved.critic is not None:
        critic = Critic(config, saved.scale).to(device)
        critic.load_state_dict(saved.critic)
    optimizers = _optimizers(stack, critic, saved.scale)
    for optimizer, optimizer_state in zip(optimizers, saved.optimizers, strict=True):
        optimizer.load_state_dict(optimizer_state)
    return TrainState(stack, critic, optimizers, saved.scale, saved.iteration, train_s=saved.train_s)


def posterior_of(stack: GeneratorStack, batch: Batch) -> AnyPosterior:
    """q(z|x⁰) of every example of the batch; without VAE scales the z* of each."""
    if isinstance(stack.encoder, FixedCode):
        return stack.encoder.of_examples(batch.examples, stack.config.seed)
    posterior: AnyPosterior = stack.encoder(batch.real(0))
    return posterior


def sample_posterior(posterior: AnyPosterior, rngs: Sequence[torch.Generator]) -> Tensor:
    """z ~ q(z|x⁰) of every example, from random numbers of its own: (B, latent, T, H, W)."""
    parts: Sequence[AnyPosterior] = posterior.split()
    return torch.cat([q.sample(rng) for q, rng in zip(parts, rngs, strict=True)])


def _optimizers(stack: GeneratorStack, critic: Critic | None, n: int) -> tuple[torch.optim.Adam, ...]:
    """Fresh Adams for what scale n trains; freezes everything else (§3.2)."""
    config = stack.config
    stack.requires_grad_(False)
    groups = [
        {"params": list(network.requires_grad_(True).parameters()), "lr": config.lr * rate}
        for network, rate in stack.trained(n)
    ]
    skip_compiler_import()
    optimizers = [torch.optim.Adam(groups, betas=config.adam_betas, fused=True)]
    if critic is not None:
        optimizers.append(torch.optim.Adam(critic.parameters(), lr=config.lr, betas=config.adam_betas, fused=True))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return tuple(optimizers)


def _compile(stack: GeneratorStack, *scales: int) -> None:
    """With `config.compile`, have generators compiled when they first run, for every size and use of each."""
    if stack.config.compile:
        import torch._dynamo

        torch._dynamo.config.recompile_limit = 256  # by default 8, and all generators share one `forward`
        for n in scales:
            stack.generator(n).compile(dynamic=False)


def set_learning_rate(state: TrainState, total: int) -> None:
    """From lr to lr · lr_final over the scale, by `lr_fall`; constant at lr_final = 1, as in the paper."""
    final = state.stack.config.lr_final
    if state.stack.config.lr_fall == "cosine":
        part = 0.5 * (1 + math.cos(math.pi * state.iteration / total))
    else:
        part = float(5 * state.iteration < 4 * total)
    factor = final + (1 - final) * part
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor


def _seed(config: TrainConfig, *place: int) -> int:
    """A 63-bit seed of its own for each place in training."""
    return int(np.random.SeedSequence([config.seed, *place]).generate_state(1, np.uint64)[0] >> 1)

"""How long iterations and samples take, and what they need: what jobs/benchmark.py prints.

Networks start untrained on a clip of noise: an iteration takes as long whatever the weights and the pixels are.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from threading import Barrier, BrokenBarrierError
from typing import Any

import torch
import torch.nn.functional as F

from model.config import TrainConfig
from model.device import keep_freed_memory, on_threads, peak_gib, resolve, training_device
from model.networks.blocks import convolve, refine_spectral
from model.networks.critic import FixedCritic
from model.pyramid import ScaleSize
from model.sampling.sampler import random_videos, sampler_of
from model.training.losses import gradient_penalty
from model.training.state import TrainState, first_state, next_scale
from model.training.steps import iterate
from model.training.training_set import TrainingSet
from model.training.workers import Workers

CONV_S = 1.0  # is enough for one convolution
SHORT_GFLOPS, ESTIMATE_S = 300.0, 0.5  # of an iteration that an estimate waits for, and how long it measures


@dataclass(frozen=True)
class Timed:
    """What one kind of iteration takes: seconds, and GiB of memory at its peak."""

    sec_per_iter: float  # median
    peak_gib: float


def needed_gflops(config: TrainConfig, sizes: Sequence[ScaleSize], n: int) -> float:
    """10⁹ operations that one iteration of scale n needs in its convolutions, whatever is executed.

    Each convolution counts 2 · K · in · out · T · H · W a sample, K the voxels of its kernel: once forward, once for
    the gradient of its weight, once for that of its input, where those are needed (E is not run at GAN scales, where
    it is frozen). Without freezing the gradient of G⁰'s input is counted for both samples, as they are one batch.
    Convolutions without padding count as those with it.
    """

    def convs(widths: Sequence[int], k: int, side: int = 3) -> list[float]:
        t, h, w = sizes[k]
        return [2 * math.prod(config.kernel(side)) * a * b * t * h * w / 1e9 for a, b in pairwise(widths)]

    c = config.channels

    def generator(k: int) -> list[float]:
        return convs(_generator_widths(config, k), k, config.generator_side(k))

    encoder = convs([3, *[c] * config.encoder_convs], 0, config.encoder_kernel)
    heads = 2 * sum(convs([c, config.latent_dim], 0, config.encoder_kernel))
    if config.latent == "patchvae":
        heads += sum(convs([c, 1], 0, config.encoder_kernel))
    learning_encoder = 3 * (sum(encoder) + heads) - encoder[0]  # no gradient of x⁰
    if n < config.vae_levels:
        total = learning_encoder + 3 * sum(generator(0))
        between = 2 if config.freeze else 3  # frozen: forward, and the gradient passed on
        total += sum(between * sum(generator(k)) for k in range(1, n))
        return total + (3 * sum(generator(n)) if n > 0 else 0)
    current, critic = generator(n), convs(_critic_widths(config, n), n)
    below = sum(sum(generator(k)) for k in range(n))
    if config.freeze:
        total = 2 * below + 2 * (3 * sum(current) - current[0])  # for reconstruction and random sample
    else:
        total = 2 * 3 * (below + sum(current))
        total += learning_encoder if config.vae_levels > 0 else -2 * generator(0)[0]  # no gradient of z*
    total += 2 * (3 * sum(critic) - critic[0])  # D on real and fake
    total += 4 * sum(critic) - 2 * critic[-1]  # penalty: D(x̂) but its last map, ∇D(x̂), gradients of both their factors
    if config.critic_norm:
        total += 2 * sum(critic)  # through its statistics the penalty has a gradient in D(x̂) too
    return total + 2 * sum(critic)  # D in the generator's step: forward, and the gradient of its input


def _generator_widths(config: TrainConfig, k: int) -> list[int]:
    """Channels of what enters Gᵏ, and of what each of its convolutions gives."""
    return [config.latent_dim if k == 0 else 3, *[config.width(k)] * (config.generator_convs - 1), 3]


def _critic_widths(config: TrainConfig, k: int) -> list[int]:
    """Likewise of Dᵏ."""
    return [3, *[config.width(k)] * (config.critic_convs - 1), 1]


def checkpoint_bytes(config: TrainConfig) -> int:
    """About how large a checkpoint is at the end: the weights of all networks, and of those that learn last Adam's two
    averages."""

    def weights(widths: Sequence[int], side: int) -> int:
        return sum(math.prod(config.kernel(side)) * a * b for a, b in pairwise(widths))

    c, last = config.channels, config.trained_scales - 1
    generators = [weights(_generator_widths(config, k), config.generator_side(k)) for k in range(config.trained_scales)]
    if not generators:
        return 0
    encoder = weights([3, *[c] * config.encoder_convs], config.encoder_kernel)
    encoder += 2 * weights([c, config.latent_dim], config.encoder_kernel)
    critic = 0
    if last >= config.vae_levels:
        critic = weights(_critic_widths(config, last), 3)
    learning = generators[-1] + (critic or encoder)
    return 4 * (sum(generators) + encoder + critic + 2 * learning)


def training_seconds(config: TrainConfig, sizes: Sequence[ScaleSize], cores: int) -> float:
    """About how long all iterations of one clip take on this device, on a CPU with so many cores.

    Measured are a few iterations of the coarsest scale and of the finest whose iterations are short; the others count
    by their operations.
    """
    gflops = [needed_gflops(config, sizes, n) for n in range(len(config.iterations))]
    if not gflops:
        return 0.0
    finest = max([n for n, each in enumerate(gflops) if each <= SHORT_GFLOPS], default=0)
    with on_threads(min(cores, torch.get_num_threads())):
        timed = {n: _timed(iterate, config, sizes, n, ESTIMATE_S).sec_per_iter for n in {0, finest}}
    speed = {n: gflops[n] / seconds for n, seconds in timed.items()}
    return sum(
        count * each / speed[0 if n < finest / 2 else finest]
        for n, (count, each) in enumerate(zip(config.iterations, gflops, strict=True))
    )


def measure(config: TrainConfig, sizes: Sequence[ScaleSize], n: int, seconds: float) -> Timed:
    """Time the iterations of scale n for about `seconds`; call it in a process of its own."""
    keep_freed_memory()
    return _timed(iterate, config, sizes, n, seconds)


def measure_beside(
    config: TrainConfig, sizes: Sequence[ScaleSize], seconds: float, together: int, start: Barrier
) -> list[float]:
    """Seconds an iteration of every scale, in one of `together` processes; on a CPU with its part of the cores.

    Args: start: where all of them wait for each other before every scale.
    """
    torch.set_num_threads(max(1, torch.get_num_threads() // together))
    found = []
    for n in range(len(config.iterations)):
        try:
            start.wait()
            found.append(measure(config, sizes, n, seconds).sec_per_iter)
        except Exception:
            start.abort()  # else the others wait for ever
            raise
    return found


def measure_chunks(config: TrainConfig, sizes: Sequence[ScaleSize], n: int, seconds: float, chunks: int) -> Timed:
    """The same of a video of so many chunks, all in one micro-batch."""
    keep_freed_memory()
    return _timed(iterate, config.with_overrides([f"micro_batch={chunks}"]), sizes, n, seconds, chunks)


def measure_plain(config: TrainConfig, sizes: Sequence[ScaleSize], n: int, seconds: float) -> Timed:
    """The same of `plain_iterate`, with the allocator as it comes; call it in a process of its own."""
    return _timed(plain_iterate, config.with_overrides(["precision=float32"]), sizes, n, seconds)


def _timed(
    iteration: Callable[[TrainState, TrainingSet], object],
    config: TrainConfig,
    sizes: Sequence[ScaleSize],
    n: int,
    seconds: float,
    examples: int = 1,
) -> Timed:
    state, training_set = state_at(config, sizes, n, examples)
    device = training_set.workers.device
    durations = times(lambda: iteration(state, training_set), seconds, device)
    return Timed(statistics.median(durations), peak_gib(device))


def state_at(
    config: TrainConfig, sizes: Sequence[ScaleSize], n: int, examples: int = 1
) -> tuple[TrainState, TrainingSet]:
    """Untrained networks at the start of scale n, and examples of noise."""
    noise = torch.Generator().manual_seed(0)
    pyramids = [[(torch.rand((3, *size), generator=noise) * 2 - 1).numpy() for size in sizes] for _ in range(examples)]
    training_set = TrainingSet(pyramids, config, Workers())
    state = first_state(config, sizes, training_set.workers.device)
    for _ in range(n):
        state = next_scale(state, training_set)
    return state, training_set


def conv_gflops_per_s(config: TrainConfig, size: ScaleSize, seconds: float) -> float:
    """10⁹ operations a second of one channels → channels convolution, forward, at this size; the best seen."""
    keep_freed_memory()
    device = training_device()
    dtype = torch.bfloat16 if resolve(config.precision, device) == "bf16" else torch.float32
    c, (t, h, w), best = config.channels, size, 0.0
    kernel = config.kernel(3)
    weight = torch.randn((c, c, *kernel), dtype=dtype, device=device).to(memory_format=torch.channels_last_3d)
    for batch in (1, 2):
        x = torch.randn((batch, c, t, h, w), dtype=dtype, device=device).to(memory_format=torch.channels_last_3d)
        with torch.no_grad():
            fastest = min(times(lambda x=x: convolve(x, weight), seconds, device))  # type: ignore[misc]
        best = max(best, 2 * math.prod(kernel) * c * c * batch * t * h * w / 1e9 / fastest)
    return best


def plain_iterate(state: TrainState, training_set: TrainingSet) -> None:
    """A GAN iteration the published code's way, in float32; at VAE scales `iterate` does the same."""
    stack, n, config = state.stack, state.scale, state.stack.config
    if n < config.vae_levels:
        iterate(state, training_set)
        return
    critic = state.critic
    assert critic is not None
    (batch,) = training_set.batches(n, state.iteration + 1)
    (rng,) = batch.rngs()
    real = batch.real(n)
    stack.generators.requires_grad_(True)  # theirs are frozen by the optimizer only
    z = stack.encoder(batch.real(0)).sample(rng)
    x_rec = stack.reconstruct(stack.decode(z), 0, n)
    x_rand = stack.sample(stack.draw(1, rng), rng)

    def refreshed() -> FixedCritic:
        refine_spectral(critic)
        return critic.fixed()

    critic_loss = refreshed()(x_rand.detach()).mean() - refreshed()(real).mean()
    epsilon = torch.rand((1, 1, 1, 1, 1), generator=rng, device=real.device)

    def by_autograd(x: torch.Tensor) -> torch.Tensor:
        score = refreshed()(x.requires_grad_()).sum()
        return torch.autograd.grad(score, x, create_graph=True)[0]

    gp_loss = gradient_penalty(by_autograd, real, x_rand, epsilon)
    state.optimizers[1].zero_grad()
    (critic_loss + config.gp_weight * gp_loss).backward()
    state.optimizers[1].step()

    loss = config.rec_weight * F.mse_loss(x_rec, real) - config.adv_weight * refreshed()(x_rand).mean()
    stack.generators.zero_grad()
    loss.backward()
    state.optimizers[0].step()


def measure_sampling(config: TrainConfig, sizes: Sequence[ScaleSize], count: int) -> float:
    """Seconds that `count` videos take from untrained networks and, where the config has them, patches of noise.

    The first video, not counted, warms up.
    """
    keep_freed_memory()
    state, training_set = state_at(config, sizes, config.trained_scales - 1)
    clip = [training_set.at(n, [0])[0].cpu().numpy() for n in range(len(sizes))]
    sampler = sampler_of(config, state.stack, [clip], training_set.workers.device)
    random_videos(sampler, 1, seed=0)
    started = time.perf_counter()
    random_videos(sampler, count, seed=1)
    return time.perf_counter() - started


def times(run: Callable[[], object], seconds: float, device: torch.device) -> list[float]:
    """Durations of single runs after one that is not counted: at least 2, and for about `seconds`."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    run()
    wait()
    durations: list[float] = []
    while len(durations) < 2 or sum(durations) < seconds:
        started = time.perf_counter()
        run()
        wait()
        durations.append(time.perf_counter() - started)
    return durations


def in_own_process(function: Callable[..., Any], *args: object) -> Any:
    """What `function` returns in a new process, whose peak memory is its own."""
    return _in_processes(1, function, *args)[0]


def _in_processes(count: int, function: Callable[..., Any], *args: object) -> list[Any]:
    """What `function` returns in each of so many new processes at once."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(function, *args) for _ in range(count)]
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, BrokenBarrierError)):
            raise error  # what broke the barrier, and not that it is broken
        return [future.result() for future in futures]


def clips_an_hour(config: TrainConfig, sizes: Sequence[ScaleSize], seconds: float, together: int) -> float:
    """How many clips a device trains to their end in an hour, so many at a time; their samples and scores not counted.

    A warm process each; on a GPU its memory must hold all of them.
    """
    with get_context("spawn").Manager() as manager:
        timed = _in_processes(together, measure_beside, config, sizes, seconds, together, manager.Barrier(together))
    of_scales = (statistics.mean(of_one) for of_one in zip(*timed, strict=True))
    clip_s = sum(count * seconds for count, seconds in zip(config.iterations, of_scales, strict=True))
    return 3600 * together / clip_s


@dataclass(frozen=True)
class ScaleTiming:
    """The measurements of a scale.

    Attributes:
        shape: (T, H, W).
        gflops: 10⁹ operations that one iteration needs.
        plain: of the plain float32 iteration; None if it was not measured.
    """

    scale: int
    shape: ScaleSize
    gflops: float
    conv_gflops_per_s: float
    ours: Timed
    plain: Timed | None

    @property
    def gflops_per_s(self) -> float:
        """10⁹ operations a second that an iteration reaches."""
        return self.gflops / self.ours.sec_per_iter

    @property
    def share_of_conv_peak(self) -> float:
        """Of what one convolution reaches, between 0 and 1."""
        return self.gflops_per_s / self.conv_gflops_per_s

    def to_dict(self) -> dict[str, Any]:
        """What --json writes."""
        row = {
            "scale": self.scale,
            "shape": self.shape,
            "sec_per_iter": self.ours.sec_per_iter,
            "gflops": self.gflops,
            "gflops_per_s": self.gflops_per_s,
            "conv_gflops_per_s": self.conv_gflops_per_s,
            "share_of_conv_peak": self.share_of_conv_peak,
            "peak_gib": self.ours.peak_gib,
        }
        if self.plain:
            row |= {"plain_sec_per_iter": self.plain.sec_per_iter, "plain_peak_gib": self.plain.peak_gib}
        return row


def time_scales(
    config: TrainConfig, sizes: Sequence[ScaleSize], scales: Sequence[int], seconds: float, compare: bool
) -> Iterator[ScaleTiming]:
    """Each of `scales` timed for about `seconds`; with `compare` also the plain float32 iteration."""
    for n in scales:
        yield ScaleTiming(
            scale=n,
            shape=sizes[n],
            gflops=needed_gflops(config, sizes, n),
            ours=in_own_process(measure, config, sizes, n, seconds),
            conv_gflops_per_s=in_own_process(conv_gflops_per_s, config, sizes[n], min(seconds, CONV_S)),
            plain=in_own_process(measure_plain, config, sizes, n, seconds) if compare else None,
        )

"""Seconds an iteration at each scale, and what share of this machine's own convolution speed that is.

    python jobs/benchmark.py --preset official --scales 0,3,9 --compare float32 --json bench.json

Networks start untrained on a clip of noise: an iteration takes as long whatever the weights and the pixels are. Each
measurement runs in a process of its own, so that its peak memory is its own. Columns:
    s/iter         seconds an iteration, median
    GFLOP/s        operations the algorithm needs (a multiplication and an addition are two), by that time
    conv GFLOP/s   what one channels → channels convolution of the scale's size reaches, forward, best of batch 1 and 2
    share          the first of these over the second
    peak GiB       memory: allocated on a GPU, resident in the process on a CPU
--compare float32 adds the plain iteration: float32, one video a pass, gradients recorded through every generator,
the critic's weight gradients in the generator's step too, torch's double backward: the published code's way of
computing the same thing, with these networks. Its peak over ours is the memory ratio.

Exit code: 0 done; 2 bad arguments.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from jobs.fit_clip import ladder
from jobs.presets import PRESETS
from model.config import ConfigError, TrainConfig
from model.memory import keep_freed_memory, peak_gib
from model.networks import GeneratorStack, Size
from model.precision import resolve
from model.sample import sample
from model.train import TrainState, first_state, iterate, next_scale


@dataclass(frozen=True)
class Row:
    """One measurement; --json writes these fields."""

    scale: int
    shape: Size  # (T, H, W)
    precision: str
    sec_per_iter: float
    gflops: float  # needed by one iteration
    gflops_per_s: float
    conv_gflops_per_s: float
    share_of_conv_peak: float
    peak_gib: float
    plain_sec_per_iter: float | None = None
    plain_peak_gib: float | None = None


def needed_gflops(config: TrainConfig, sizes: Sequence[Size], n: int) -> float:
    """10⁹ operations that one iteration of scale n needs in its convolutions, whatever is executed.

    Each convolution counts 2 · 27 · in · out · T · H · W a sample: once forward, once for the gradient of its weight,
    once for that of its input, where those are needed (PAPER.md §3; E is not run at GAN scales, where it is frozen).
    """

    def convs(widths: Sequence[int], k: int) -> list[float]:
        t, h, w = sizes[k]
        return [2 * 27 * a * b * t * h * w / 1e9 for a, b in pairwise(widths)]

    c = config.channels

    def generator(k: int) -> list[float]:
        return convs([config.latent_dim if k == 0 else 3, *[c] * (config.generator_convs - 1), 3], k)

    if n < config.vae_levels:
        encoder = convs([3, *[c] * config.encoder_convs], 0)
        heads = 2 * sum(convs([c, config.latent_dim], 0))
        total = 3 * (sum(encoder) + heads) - encoder[0]  # no gradient of x⁰
        total += 3 * sum(generator(0))
        total += sum(2 * sum(generator(k)) for k in range(1, n))  # frozen: forward, and the gradient passed on
        return total + (3 * sum(generator(n)) if n > 0 else 0)
    current, critic = generator(n), convs([3, *[c] * (config.critic_convs - 1), 1], n)
    total = 2 * sum(sum(generator(k)) for k in range(n))  # frozen, for reconstruction and random sample
    total += 2 * (3 * sum(current) - current[0])
    total += 2 * (3 * sum(critic) - critic[0])  # D on real and fake
    total += 4 * sum(critic) - 2 * critic[-1]  # penalty: D(x̂) but its last map, ∇D(x̂), gradients of both their factors
    return total + 2 * sum(critic)  # D in the generator's step: forward, and the gradient of its input


def measure(config: TrainConfig, sizes: Sequence[Size], n: int, seconds: float, plain: bool) -> Row:
    """Time scale n for about `seconds`; runs in a process of its own."""
    device = _device()
    if not plain:
        keep_freed_memory()
    elif device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    state, pyramid = state_at(config, sizes, n, device)
    run: Callable[[], object] = lambda: (plain_iterate if plain else iterate)(state, pyramid)  # noqa: E731
    sec_per_iter = statistics.median(_times(run, seconds, device))
    peak = peak_gib(device)
    conv = 0.0 if plain else conv_gflops_per_s(config, sizes[n], device)
    gflops = needed_gflops(config, sizes, n)
    return Row(
        scale=n,
        shape=sizes[n],
        precision=resolve(config.precision, device),
        sec_per_iter=sec_per_iter,
        gflops=gflops,
        gflops_per_s=gflops / sec_per_iter,
        conv_gflops_per_s=conv,
        share_of_conv_peak=gflops / sec_per_iter / conv if conv else 0.0,
        peak_gib=peak,
    )


def state_at(
    config: TrainConfig, sizes: Sequence[Size], n: int, device: torch.device
) -> tuple[TrainState, list[torch.Tensor]]:
    """Untrained networks at the start of scale n, and a pyramid of noise."""
    noise = torch.Generator().manual_seed(0)
    pyramid = [(torch.rand((1, 3, *size), generator=noise) * 2 - 1).to(device) for size in sizes]
    state = first_state(config, sizes, device)
    for _ in range(n):
        state = next_scale(state, pyramid)
    return state, pyramid


def conv_gflops_per_s(config: TrainConfig, size: Size, device: torch.device, seconds: float = 1.0) -> float:
    """10⁹ operations a second of one channels → channels convolution, forward, at this size; the best seen."""
    dtype = torch.bfloat16 if resolve(config.precision, device) == "bf16" else torch.float32
    c, (t, h, w), best = config.channels, size, 0.0
    weight = torch.randn((c, c, 3, 3, 3), dtype=dtype, device=device).to(memory_format=torch.channels_last_3d)
    for batch in (1, 2):
        x = torch.randn((batch, c, t, h, w), dtype=dtype, device=device).to(memory_format=torch.channels_last_3d)
        with torch.no_grad():
            fastest = min(_times(lambda x=x: F.conv3d(x, weight, padding=1), seconds, device))  # type: ignore[misc]
        best = max(best, 2 * 27 * c * c * batch * t * h * w / 1e9 / fastest)
    return best


def plain_iterate(state: TrainState, pyramid: Sequence[torch.Tensor]) -> None:
    """A GAN iteration the published code's way, in float32 (PAPER.md §6); at VAE scales `iterate` does the same."""
    stack, n, config = state.stack, state.scale, state.stack.config
    if n < config.vae_levels:
        iterate(state, pyramid)
        return
    critic, real = state.critic, pyramid[n]
    assert critic is not None
    stack.generators.requires_grad_(True)  # theirs are frozen by the optimizer only
    z = stack.encoder(pyramid[0]).sample(state.generator)
    x_rec = stack.reconstruct(stack.decode(z), 0, n)
    x_rand = stack.sample(torch.randn_like(z), state.generator)

    critic_loss = critic.fixed(refine=True)(x_rand.detach()).mean() - critic.fixed(refine=True)(real).mean()
    epsilon = torch.rand((1, 1, 1, 1, 1), generator=state.generator, device=real.device)
    mixed = (epsilon * real + (1 - epsilon) * x_rand.detach()).requires_grad_()
    score = critic.fixed(refine=True)(mixed).sum()
    (gradient,) = torch.autograd.grad(score, mixed, create_graph=True)
    gp_loss = (torch.linalg.vector_norm(gradient, dim=1) - 1).square().mean()
    state.optimizers[1].zero_grad()
    (critic_loss + config.gp_weight * gp_loss).backward()
    state.optimizers[1].step()

    loss = config.rec_weight * F.mse_loss(x_rec, real) - config.adv_weight * critic.fixed(refine=True)(x_rand).mean()
    stack.generators.zero_grad()
    loss.backward()
    state.optimizers[0].step()


def measure_sampling(config: TrainConfig, sizes: Sequence[Size], count: int) -> float:
    """Seconds that `count` videos take from untrained networks; the first video, not counted, warms up."""
    keep_freed_memory()
    device = _device()
    stack = GeneratorStack(config, sizes)
    while stack.num_scales < len(sizes):
        stack.grow()
    stack.to(device).requires_grad_(False)
    sample(stack, 1, seed=0)
    started = time.perf_counter()
    sample(stack, count, seed=1)
    return time.perf_counter() - started


def _times(run: Callable[[], object], seconds: float, device: torch.device) -> list[float]:
    """Durations of single runs after one that is not counted: at least 2, and for about `seconds`."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    run()
    wait()
    times: list[float] = []
    while len(times) < 2 or sum(times) < seconds:
        started = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - started)
    return times


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _in_own_process(function: Callable[..., Any], *args: object) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def measure_all(
    config: TrainConfig, sizes: Sequence[Size], scales: Sequence[int], seconds: float, compare: bool
) -> Iterator[Row]:
    """A row a scale."""
    for n in scales:
        row: Row = _in_own_process(measure, config, sizes, n, seconds, False)
        if compare:
            exact = config.with_overrides(["precision=float32"])
            plain: Row = _in_own_process(measure, exact, sizes, n, seconds, True)
            row = Row(**{**asdict(row), "plain_sec_per_iter": plain.sec_per_iter, "plain_peak_gib": plain.peak_gib})
        yield row


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmark.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=list(PRESETS), default="demo", help="default: demo")
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[])
    parser.add_argument("--scales", default="", help="such as 0,3,9 (default: all)")
    parser.add_argument("--clip-size", default="144x256", help="HxW of the clip, px (default: 144x256)")
    parser.add_argument("--seconds", type=float, default=5.0, help="to time each measurement for (default: 5)")
    parser.add_argument("--compare", choices=["float32"], help="also time the plain float32 iteration")
    parser.add_argument("--videos", type=int, default=0, help="also time sampling so many videos (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)  # a file: the table in one piece
    try:
        config = PRESETS[args.preset]().with_overrides(args.overrides)
        height, width = (int(part) for part in args.clip_size.split("x"))
        sizes: list[Size] = [(s.frames, s.height, s.width) for s in ladder(config, height, width)]
        scales = [int(n) for n in args.scales.split(",")] if args.scales else list(range(len(sizes)))
        if any(not 0 <= n < len(sizes) for n in scales):
            raise ConfigError(f"--scales {args.scales}: the preset's scales are 0 to {len(sizes) - 1}")
        if args.json:
            args.json.touch()  # now rather than after minutes of measuring
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 2

    device = _device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    console.print(f"{args.preset}, {resolve(config.precision, device)} on {name}", markup=False, highlight=False)
    columns = ["scale", "(T, H, W)", "s/iter", "GFLOP/s", "conv GFLOP/s", "share", "peak GiB"]
    columns += ["float32 s/iter", "times", "float32 GiB", "memory"] if args.compare else []
    table = Table(*columns, box=None)
    rows = []
    for row in measure_all(config, sizes, scales, args.seconds, bool(args.compare)):
        rows.append(row)
        cells = [str(row.scale), str(row.shape), f"{row.sec_per_iter:.3f}", f"{row.gflops_per_s:.0f}"]
        cells += [f"{row.conv_gflops_per_s:.0f}", f"{row.share_of_conv_peak:.0%}", f"{row.peak_gib:.2f}"]
        if row.plain_sec_per_iter and row.plain_peak_gib:
            cells += [f"{row.plain_sec_per_iter:.3f}", f"{row.plain_sec_per_iter / row.sec_per_iter:.1f}"]
            cells += [f"{row.plain_peak_gib:.2f}", f"{row.peak_gib / row.plain_peak_gib:.0%}"]
        table.add_row(*cells)
        if console.is_terminal:
            console.print(f"scale {row.scale} of {sizes[-1]}: {row.sec_per_iter:.3f} s an iteration", markup=False)
    console.print(table)
    report: dict[str, Any] = {"preset": args.preset, "device": name, "torch": torch.__version__}
    report["rows"] = [asdict(row) for row in rows]
    if args.videos:
        seconds = _in_own_process(measure_sampling, config, sizes, args.videos)
        report["sampling"] = {"videos": args.videos, "shape": sizes[-1], "seconds": seconds}
        line = f"{args.videos} videos of {sizes[-1]}: {seconds:.1f} s"
        if args.compare:
            exact = config.with_overrides(["precision=float32"])
            plain = _in_own_process(measure_sampling, exact, sizes, args.videos)
            report["sampling"]["plain_seconds"] = plain
            line += f"; in float32 {plain:.1f} s, {plain / seconds:.1f} times"
        console.print(line, markup=False, highlight=False)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

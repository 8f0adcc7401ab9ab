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
--together 1,2,4 tells how many clips an hour one device finishes if so many share it: all scales, each in as many
processes at once, on one GPU or on equal parts of the CPU's cores.
--chunks 1,2,4 tells how an iteration grows with the chunks of a long video that go through the networks at once.

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

from jobs.corpus import ladder
from jobs.presets import PRESETS
from model.blocks import refine_spectral
from model.config import ConfigError, TrainConfig
from model.losses import gradient_penalty
from model.memory import keep_freed_memory, peak_gib
from model.networks import FixedCritic, Size
from model.precision import best_device, resolve
from model.reals import Reals
from model.sample import sample
from model.team import Team
from model.train import TrainState, first_state, iterate, next_scale


@dataclass(frozen=True)
class Timed:
    """What one kind of iteration takes."""

    sec_per_iter: float  # median
    peak_gib: float


@dataclass(frozen=True)
class Row:
    """The measurements of a scale; plain is there with --compare."""

    scale: int
    shape: Size  # (T, H, W)
    gflops: float  # needed by one iteration
    conv_gflops_per_s: float
    ours: Timed
    plain: Timed | None

    @property
    def gflops_per_s(self) -> float:
        return self.gflops / self.ours.sec_per_iter

    @property
    def share_of_conv_peak(self) -> float:
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


def needed_gflops(config: TrainConfig, sizes: Sequence[Size], n: int) -> float:
    """10⁹ operations that one iteration of scale n needs in its convolutions, whatever is executed.

    Each convolution counts 2 · kernel³ · in · out · T · H · W a sample: once forward, once for the gradient of its
    weight, once for that of its input, where those are needed (PAPER.md §3; E is not run at GAN scales, where it is
    frozen). Without freezing the gradient of G⁰'s input is counted for both samples, as they are one batch.
    """

    def convs(widths: Sequence[int], k: int, kernel: int = 3) -> list[float]:
        t, h, w = sizes[k]
        return [2 * kernel**3 * a * b * t * h * w / 1e9 for a, b in pairwise(widths)]

    c = config.channels

    def generator(k: int) -> list[float]:
        widths = [config.latent_dim if k == 0 else 3, *[c] * (config.generator_convs - 1), 3]
        return convs(widths, k, config.generator_kernel(k))

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
    current, critic = generator(n), convs([3, *[c] * (config.critic_convs - 1), 1], n)
    below = sum(sum(generator(k)) for k in range(n))
    if config.freeze:
        total = 2 * below + 2 * (3 * sum(current) - current[0])  # for reconstruction and random sample
    else:
        total = 2 * 3 * (below + sum(current))
        total += learning_encoder if config.vae_levels > 0 else -2 * generator(0)[0]  # no gradient of z*
    total += 2 * (3 * sum(critic) - critic[0])  # D on real and fake
    total += 4 * sum(critic) - 2 * critic[-1]  # penalty: D(x̂) but its last map, ∇D(x̂), gradients of both their factors
    return total + 2 * sum(critic)  # D in the generator's step: forward, and the gradient of its input


def measure(config: TrainConfig, sizes: Sequence[Size], n: int, seconds: float) -> Timed:
    """Time scale n for about `seconds`; runs in a process of its own."""
    keep_freed_memory()
    return _timed(iterate, config, sizes, n, seconds)


def measure_beside(config: TrainConfig, sizes: Sequence[Size], n: int, seconds: float, others: int) -> Timed:
    """The same in one of `others` + 1 processes that are measured at once; on a CPU with its part of the cores."""
    torch.set_num_threads(max(1, torch.get_num_threads() // (others + 1)))
    return measure(config, sizes, n, seconds)


def measure_chunks(config: TrainConfig, sizes: Sequence[Size], n: int, seconds: float, chunks: int) -> Timed:
    """The same of a video of so many chunks."""
    keep_freed_memory()
    return _timed(iterate, config.with_overrides([f"micro_batch={chunks}"]), sizes, n, seconds, chunks)


def measure_plain(config: TrainConfig, sizes: Sequence[Size], n: int, seconds: float) -> Timed:
    """The same of `plain_iterate`, with the allocator as it comes; runs in a process of its own."""
    torch.backends.cudnn.allow_tf32 = False
    return _timed(plain_iterate, config.with_overrides(["precision=float32"]), sizes, n, seconds)


def _timed(
    iteration: Callable[[TrainState, Reals], object],
    config: TrainConfig,
    sizes: Sequence[Size],
    n: int,
    seconds: float,
    samples: int = 1,
) -> Timed:
    state, reals = state_at(config, sizes, n, samples)
    device = reals.team.device
    times = _times(lambda: iteration(state, reals), seconds, device)
    return Timed(statistics.median(times), peak_gib(device))


def state_at(config: TrainConfig, sizes: Sequence[Size], n: int, samples: int = 1) -> tuple[TrainState, Reals]:
    """Untrained networks at the start of scale n, and samples of noise."""
    noise = torch.Generator().manual_seed(0)
    pyramids = [[(torch.rand((3, *size), generator=noise) * 2 - 1).numpy() for size in sizes] for _ in range(samples)]
    reals = Reals(pyramids, config, Team())
    state = first_state(config, sizes, reals.team.device)
    for _ in range(n):
        state = next_scale(state, reals)
    return state, reals


def conv_gflops_per_s(config: TrainConfig, size: Size, seconds: float = 1.0) -> float:
    """10⁹ operations a second of one channels → channels convolution, forward, at this size; the best seen."""
    keep_freed_memory()
    device = best_device()
    dtype = torch.bfloat16 if resolve(config.precision, device) == "bf16" else torch.float32
    c, (t, h, w), best = config.channels, size, 0.0
    weight = torch.randn((c, c, 3, 3, 3), dtype=dtype, device=device).to(memory_format=torch.channels_last_3d)
    for batch in (1, 2):
        x = torch.randn((batch, c, t, h, w), dtype=dtype, device=device).to(memory_format=torch.channels_last_3d)
        with torch.no_grad():
            fastest = min(_times(lambda x=x: F.conv3d(x, weight, padding=1), seconds, device))  # type: ignore[misc]
        best = max(best, 2 * 27 * c * c * batch * t * h * w / 1e9 / fastest)
    return best


def plain_iterate(state: TrainState, reals: Reals) -> None:
    """A GAN iteration the published code's way, in float32 (PAPER.md §6); at VAE scales `iterate` does the same."""
    stack, n, config = state.stack, state.scale, state.stack.config
    if n < config.vae_levels:
        iterate(state, reals)
        return
    critic = state.critic
    assert critic is not None
    (batch,) = reals.batches(n, state.iteration + 1)
    (stream,) = batch.streams()
    real = batch.real(n)
    stack.generators.requires_grad_(True)  # theirs are frozen by the optimizer only
    z = stack.encoder(batch.real(0)).sample(stream)
    x_rec = stack.reconstruct(stack.decode(z), 0, n)
    x_rand = stack.sample(stack.draw(1, stream), stream)

    def refreshed() -> FixedCritic:
        refine_spectral(critic)
        return critic.fixed()

    critic_loss = refreshed()(x_rand.detach()).mean() - refreshed()(real).mean()
    epsilon = torch.rand((1, 1, 1, 1, 1), generator=stream, device=real.device)

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


def measure_sampling(config: TrainConfig, sizes: Sequence[Size], count: int) -> float:
    """Seconds that `count` videos take from untrained networks; the first video, not counted, warms up."""
    keep_freed_memory()
    stack = state_at(config, sizes, len(sizes) - 1)[0].stack
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


def _in_own_process(function: Callable[..., Any], *args: object) -> Any:
    return _in_processes(1, function, *args)[0]


def _in_processes(count: int, function: Callable[..., Any], *args: object) -> list[Any]:
    """What `function` returns in each of so many new processes at once."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        return [future.result() for future in [pool.submit(function, *args) for _ in range(count)]]


def clips_an_hour(config: TrainConfig, sizes: Sequence[Size], seconds: float, together: int) -> float:
    """How many clips a device trains to their end in an hour, so many at a time; their samples and scores not counted.

    A warm process each; on a GPU its memory must hold all of them.
    """
    clip_s = 0.0
    for n, iterations in enumerate(config.iterations):
        timed = _in_processes(together, measure_beside, config, sizes, n, seconds, together - 1)
        clip_s += iterations * statistics.mean(one.sec_per_iter for one in timed)
    return 3600 * together / clip_s


def measure_all(
    config: TrainConfig, sizes: Sequence[Size], scales: Sequence[int], seconds: float, compare: bool
) -> Iterator[Row]:
    """A row a scale."""
    for n in scales:
        yield Row(
            scale=n,
            shape=sizes[n],
            gflops=needed_gflops(config, sizes, n),
            ours=_in_own_process(measure, config, sizes, n, seconds),
            conv_gflops_per_s=_in_own_process(conv_gflops_per_s, config, sizes[n]),
            plain=_in_own_process(measure_plain, config, sizes, n, seconds) if compare else None,
        )


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
    parser.add_argument("--together", default="", help="such as 1,2,4: clips an hour with so many on one device")
    parser.add_argument(
        "--chunks", default="", help="such as 1,2,4: also time the last of --scales with so many chunks"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    return parser.parse_args(argv)


def _numbers(flag: str, text: str, separator: str, count: int | None = None) -> list[int]:
    parts = text.split(separator)
    if not all(part.isdecimal() for part in parts) or len(parts) != (count or len(parts)):
        raise ConfigError(f"{flag} {text}: write whole numbers with {separator!r} between them, see --help")
    return [int(part) for part in parts]


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)  # a file: the table in one piece
    try:
        config = PRESETS[args.preset]().with_overrides(args.overrides)
        height, width = _numbers("--clip-size", args.clip_size, "x", count=2)
        sizes: list[Size] = [(s.frames, s.height, s.width) for s in ladder(config, height, width)]
        scales = _numbers("--scales", args.scales, ",") if args.scales else list(range(len(sizes)))
        if any(not 0 <= n < len(sizes) for n in scales):
            raise ConfigError(f"--scales {args.scales}: the preset's scales are 0 to {len(sizes) - 1}")
        together, chunks = (_numbers(f"--{name}", text, ",") if text else [] for name, text in (
            ("together", args.together), ("chunks", args.chunks)))  # fmt: skip
        if 0 in together + chunks:
            raise ConfigError("--together and --chunks take numbers from 1")
        if args.json:
            args.json.touch()  # now rather than after minutes of measuring
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 2

    device = best_device()
    precision = resolve(config.precision, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    console.print(f"{args.preset}, {precision} on {name}", markup=False, highlight=False)
    columns = ["scale", "(T, H, W)", "s/iter", "GFLOP/s", "conv GFLOP/s", "share", "peak GiB"]
    columns += ["float32 s/iter", "times", "float32 GiB", "memory"] if args.compare else []
    table = Table(*columns, box=None)
    rows = []
    for row in measure_all(config, sizes, scales, args.seconds, bool(args.compare)):
        rows.append(row)
        ours, plain = row.ours, row.plain
        cells = [str(row.scale), str(row.shape), f"{ours.sec_per_iter:.3f}", f"{row.gflops_per_s:.0f}"]
        cells += [f"{row.conv_gflops_per_s:.0f}", f"{row.share_of_conv_peak:.0%}", f"{ours.peak_gib:.2f}"]
        if plain:
            cells += [f"{plain.sec_per_iter:.3f}", f"{plain.sec_per_iter / ours.sec_per_iter:.1f}"]
            cells += [f"{plain.peak_gib:.2f}", f"{ours.peak_gib / plain.peak_gib:.0%}"]
        table.add_row(*cells)
        if console.is_terminal:
            console.print(f"scale {row.scale} of {sizes[-1]}: {ours.sec_per_iter:.3f} s an iteration", markup=False)
    console.print(table)
    report: dict[str, Any] = {"preset": args.preset, "device": name, "torch": torch.__version__}
    report |= {"precision": precision, "rows": [row.to_dict() for row in rows]}
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
    for count in chunks:
        n = scales[-1]
        timed = _in_own_process(measure_chunks, config, sizes, n, args.seconds, count)
        report.setdefault("chunks", []).append({"scale": n, "chunks": count, **asdict(timed)})
        line = f"scale {n}, {count} chunks: {timed.sec_per_iter:.3f} s an iteration, {timed.peak_gib:.2f} GiB"
        console.print(line, markup=False, highlight=False)
    for count in together:
        per_hour = clips_an_hour(config, sizes, args.seconds, count)
        report.setdefault("together", []).append({"clips": count, "clips_an_hour": per_hour})
        console.print(f"{count} clips at once: {per_hour:.1f} clips an hour", markup=False, highlight=False)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

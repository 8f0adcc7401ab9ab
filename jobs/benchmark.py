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
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.timing import (
    Timed,
    _in_own_process,
    clips_an_hour,
    conv_gflops_per_s,
    measure,
    measure_chunks,
    measure_plain,
    measure_sampling,
    needed_gflops,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rich.console import Console
from rich.table import Table

from model.config import ConfigError, TrainConfig
from model.device import best_device, resolve
from model.presets import PRESETS
from model.pyramid import ScaleSize, ladder


@dataclass(frozen=True)
class Row:
    """The measurements of a scale; plain is there with --compare."""

    scale: int
    shape: ScaleSize  # (T, H, W)
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


def measure_all(
    config: TrainConfig, sizes: Sequence[ScaleSize], scales: Sequence[int], seconds: float, compare: bool
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
        sizes: list[ScaleSize] = [(s.frames, s.height, s.width) for s in ladder(config, height, width)]
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

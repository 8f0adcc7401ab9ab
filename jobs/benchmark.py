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
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import counted
from jobs import command_line
from jobs.command_line import BAD_ARGUMENTS, DONE
from model.config import ConfigError


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("benchmark.py", __doc__)
    add = parser.add_argument
    command_line.add_preset(parser, default="demo")
    command_line.add_set(parser)
    add("--scales", help="such as 0,3,9 (default: all)")
    add("--clip-size", default="144x256", help="HxW of the clip, px")
    add("--seconds", type=command_line.number, default=5.0, help="to time each measurement for")
    add("--compare", choices=["float32"], help="also time the plain float32 iteration")
    add("--videos", type=int, default=0, help="also time sampling so many videos")
    add("--together", help="such as 1,2,4: clips an hour with so many on one device")
    add("--chunks", help="such as 1,2,4: also time the last of --scales with so many chunks")
    add("--json", type=command_line.local_path, metavar="FILE", help="also write the rows there")
    return parser.parse(argv)


def _numbers(flag: str, text: str, separator: str, count: int | None = None) -> list[int]:
    parts = text.split(separator)
    if not all(part.isdecimal() for part in parts) or len(parts) != (count or len(parts)):
        raise ConfigError(f"{flag} {text}: write whole numbers with {separator!r} between them, see --help")
    return [int(part) for part in parts]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    return command_line.exit_code(lambda: run(args), command_line.console(), stopped="stopped")


def run(args: argparse.Namespace) -> int:
    """Measure. Returns the exit code."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from model import timing
    from model.device import best_device, resolve
    from model.pyramid import ladder

    width = None if sys.stdout.isatty() else 140  # a file: the table in one piece
    console = Console(soft_wrap=True, width=width, markup=False, highlight=False)
    try:
        config = command_line.config_of(args)
        sizes = ladder(config, *_numbers("--clip-size", args.clip_size, "x", count=2))
        scales = _numbers("--scales", args.scales, ",") if args.scales else list(range(config.trained_scales))
        if config.trained_scales == 0:
            raise ConfigError(f"method={config.method}: trains no scale, there is nothing to measure")
        if any(not 0 <= n < config.trained_scales for n in scales):
            all_of_them = "; set patch_scale=none to train all" if config.made_of_patches else ""
            trained = f"the scales that are trained are 0 to {config.trained_scales - 1}"
            raise ConfigError(f"--scales {args.scales}: {trained}{all_of_them}")
        together = _numbers("--together", args.together, ",") if args.together else []
        chunks = _numbers("--chunks", args.chunks, ",") if args.chunks else []
        if 0 in together + chunks:
            raise ConfigError("--together and --chunks take numbers from 1")
        if args.json:
            args.json.touch()  # now rather than after minutes of measuring
    except (ValueError, OSError) as error:
        command_line.print_error(console, error)
        return BAD_ARGUMENTS

    device = best_device()
    precision = resolve(config.precision, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    console.print(f"{args.preset}, {precision} on {name}")
    columns = ["scale", "(T, H, W)", "s/iter", "GFLOP/s", "conv GFLOP/s", "share", "peak GiB"]
    columns += ["float32 s/iter", "times", "float32 GiB", "memory"] if args.compare else []
    table = Table(*columns, box=None)
    rows = []
    for row in timing.time_scales(config, sizes, scales, args.seconds, bool(args.compare)):
        rows.append(row)
        ours, plain = row.ours, row.plain
        cells = [str(row.scale), str(tuple(row.shape)), f"{ours.sec_per_iter:.3f}", f"{row.gflops_per_s:.0f}"]
        cells += [f"{row.conv_gflops_per_s:.0f}", f"{row.share_of_conv_peak:.0%}", f"{ours.peak_gib:.2f}"]
        if plain:
            cells += [f"{plain.sec_per_iter:.3f}", f"{plain.sec_per_iter / ours.sec_per_iter:.1f}"]
            cells += [f"{plain.peak_gib:.2f}", f"{ours.peak_gib / plain.peak_gib:.0%}"]
        table.add_row(*cells)
        if console.is_terminal:
            console.print(f"scale {row.scale} of {tuple(sizes[-1])}: {ours.sec_per_iter:.3f} s an iteration")
    console.print(table)
    report: dict[str, Any] = {"preset": args.preset, "device": name, "torch": torch.__version__}
    report |= {"precision": precision, "rows": [row.to_dict() for row in rows]}
    if args.videos:
        seconds = timing.in_own_process(timing.measure_sampling, config, sizes, args.videos)
        report["sampling"] = {"videos": args.videos, "shape": sizes[-1], "seconds": seconds}
        line = f"{counted(args.videos, 'video')} of {tuple(sizes[-1])}: {seconds:.1f} s"
        if args.compare:
            exact = config.with_overrides(["precision=float32"])
            plain = timing.in_own_process(timing.measure_sampling, exact, sizes, args.videos)
            report["sampling"]["plain_seconds"] = plain
            line += f"; in float32 {plain:.1f} s, {plain / seconds:.1f} times"
        console.print(line)
    for count in chunks:
        n = scales[-1]
        timed = timing.in_own_process(timing.measure_chunks, config, sizes, n, args.seconds, count)
        report.setdefault("chunks", []).append({"scale": n, "chunks": count, **asdict(timed)})
        line = (
            f"scale {n}, {counted(count, 'chunk')}: {timed.sec_per_iter:.3f} s an iteration, {timed.peak_gib:.2f} GiB"
        )
        console.print(line)
    for count in together:
        per_hour = timing.clips_an_hour(config, sizes, args.seconds, count)
        report.setdefault("together", []).append({"clips": count, "clips_an_hour": per_hour})
        console.print(f"{counted(count, 'clip')} at once: {per_hour:.1f} clips an hour")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return DONE


if __name__ == "__main__":
    sys.exit(main())

"""Check one GPU: whether it computes what the CPU computes, and how fast. Paste what it prints.

    python jobs/gpu_check.py --json gpu.json
    python jobs/gpu_check.py --device cpu --quick    # a rehearsal on a machine without a GPU

Ten minutes at most. Each part runs in a process of its own and has a time limit of its own; one that fails is a line of
the report, and the others go on. The report is Markdown of 80 columns. Parts:
    machine   the GPU, cuDNN, which kernel convolves, the speed of a product of matrices
    parity    losses and gradients of one iteration against the CPU in float32: in float32 without TF32, and in bf16
    range     the largest values in bf16, the norms of gradients, how many values are not finite
    cap       the memory limit of --gpus-per-clip, and what a process takes beside it
    halving   a training that does not fit into memory: it must finish with fewer examples at once
    workers   two processes that train one model: over NCCL on two GPUs; on one GPU NCCL refuses, and gloo is taken
    compile   the setting compile=true: whether an iteration stays the same, and what it gains
    scales    seconds an iteration at every scale of `paper`, with the share of the peak
    together  clips an hour with 1, 2 and 4 clips on the GPU

Exit code: 0 all passed, or not possible on this machine; 1 some failed; 2 bad arguments, or no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import UsageError
from jobs import command_line
from jobs.command_line import DONE, SOME_FAILED

PARTS = ("machine", "parity", "range", "cap", "halving", "workers", "compile", "scales", "together")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("gpu_check.py", __doc__)
    add = parser.add_argument
    add("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a rehearsal")
    add("--quick", action="store_true", help="tiny networks and sizes, whose figures mean nothing")
    add("--only", metavar="PARTS", help="such as parity,range (default: all)")
    add("--minutes", type=command_line.number, default=10.0, help="for all parts together")
    add("--json", type=command_line.local_path, metavar="FILE", help="also write the figures there")
    return parser.parse(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    console = command_line.console()

    def run() -> int:
        names = PARTS if args.only is None else args.only.split(",")
        unknown = [name for name in names if name not in PARTS]
        if unknown or args.minutes <= 0:
            raise UsageError(f"--only {args.only}: parts are {', '.join(PARTS)}" if unknown else "--minutes: above 0")
        if args.json:
            args.json.touch()  # now rather than after minutes
        from jobs.gpu.parity import without_gpu  # these import torch, which --help must not wait for
        from jobs.gpu.run import check

        with without_gpu() if args.device == "cpu" else contextlib.nullcontext():
            passed, report = check(args.device, args.quick, names, 60 * args.minutes, console)
        if args.json:
            args.json.write_text(json.dumps(report, indent=2) + "\n")
        return DONE if passed else SOME_FAILED

    return command_line.exit_code(run, console, OSError, stopped="stopped")


if __name__ == "__main__":
    sys.exit(main())

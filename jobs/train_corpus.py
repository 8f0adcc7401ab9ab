"""START HERE. A corpus of videos in; one trained generator a clip out, each in its own Ray task.

    python jobs/train_corpus.py --corpus demo --preset demo
    python jobs/train_corpus.py --corpus my_videos/ --preset small --set iters_per_scale=2000
    ray job submit --address http://HEAD:8265 --working-dir . -- \\
        python jobs/train_corpus.py --corpus /nfs/clips --preset paper --storage /nfs/runs

Running the same command again finishes what is missing. Exit code: 0 all clips done; 1 some failed, the table names
them and why; 2 bad arguments or nothing to do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.ray_cluster import check_cluster
from jobs import command_line
from jobs.command_line import DONE, SOME_FAILED
from jobs.training.request import TrainRequest
from model.presets import ABLATIONS


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("train_corpus.py", __doc__)
    add = parser.add_argument
    command_line.add_corpus(parser, "shards, a video file, a folder of videos, a CSV manifest, their URI, or demo")
    start = parser.add_mutually_exclusive_group()
    command_line.add_preset(start)
    start.add_argument(
        "--config",
        type=command_line.path,
        metavar="FILE",
        help="one as JSON: an experiment.json, or best.json of a sweep",
    )
    command_line.add_set(parser)
    command_line.add_method(parser)
    add("--ablation", choices=sorted(ABLATIONS), help="one of the paper's alternatives, applied last")
    command_line.add_storage(
        parser, "name of this corpus in storage and MLflow (default: corpus, preset, rival, ablation)"
    )
    add("--long", action="store_true", help="train each video whole: one model on all its chunks, losses summed")
    stride = "with --long, frames or seconds from one chunk's start to the next (default: 13 frames, no overlap)"
    add("--stride", type=command_line.length, metavar="FRAMES", help=stride)
    add("--as-is", action="store_true", help="each picture of a file is one frame, whatever its rate: fps=none")
    together = "with --long: how many processes train one video together, each with the resources of a clip"
    add("--workers-per-video", type=int, default=1, help=together)
    command_line.add_share(parser)
    command_line.add_decode_tasks(parser)
    add("--n", type=int, default=10, help="samples to score and keep for each clip, at least 2")
    resume = parser.add_mutually_exclusive_group()
    resume.add_argument("--resume", action="store_true", help="finish what is missing (the default)")
    resume.add_argument("--fresh", action="store_true", help="forget these clips' earlier work and start again")
    add(
        "--dry-run",
        action="store_true",
        help="check everything, print clips, ladders, iterations, minutes and disk; do nothing",
    )
    return command_line.with_start(parser.parse(argv))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    console = command_line.console(live=True)

    def run() -> int:
        command_line.print_storage(args.storage, console)
        request = TrainRequest.from_args(args)
        check_cluster()
        from jobs.training import corpus_job, plan  # import torch, Ray and MLflow, which --help must not wait for

        if args.dry_run:
            return SOME_FAILED if plan.preview(request, console) else DONE
        return SOME_FAILED if corpus_job.run(request, console) else DONE

    stopped = "stopped; the same command goes on from the last checkpoints"
    return command_line.exit_code(run, console, stopped=stopped)


if __name__ == "__main__":
    sys.exit(main())

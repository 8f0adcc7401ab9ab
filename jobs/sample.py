"""Videos from a checkpoint: everything they need is in that one file.

    python jobs/sample.py runs/demo/bikes-…/checkpoint.pt --n 10 --seed 0 --out samples/

Sample i of a seed is the same video whatever --n is. Exit code: 0 done; 2 bad arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sample.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="checkpoint.pt of a clip; of an unfinished one, its finest scale so far")
    parser.add_argument("--n", type=int, default=10, help="number of videos (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="0 or more (default: 0)")
    parser.add_argument("--out", required=True, help="folder for sample_NNN.mp4 and .gif")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    import torch
    from rich.console import Console
    from rich.progress import track

    from jobs.pictures import to_frames
    from model import checkpoint
    from model.sample import frames_per_second, sample
    from pipeline import video

    console = Console(soft_wrap=True)
    try:
        if args.n < 1 or args.seed < 0:
            raise ValueError("--n must be 1 or more, --seed 0 or more")
        saved = checkpoint.load(args.checkpoint)
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 2
    stack = saved.stack().to("cuda" if torch.cuda.is_available() else "cpu")
    fps = frames_per_second(stack, saved.scale)
    for index in track(range(args.n), description="sampling", console=console, disable=not console.is_terminal):
        (made,) = sample(stack, 1, args.seed, first=index)
        frames = to_frames(made.numpy())
        for suffix in (".mp4", ".gif"):
            video.encode(frames, out / f"sample_{index:03d}{suffix}", fps=fps)
    size = "×".join(map(str, stack.sizes[saved.scale]))
    console.print(f"{args.n} videos of {size} (T×H×W) of {saved.clip_id}, seed {args.seed}, in {out}", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

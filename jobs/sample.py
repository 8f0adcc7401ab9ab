"""Videos from a checkpoint: everything they need is in that one file.

    python jobs/sample.py runs/demo/bikes-…/checkpoint.pt --n 10 --seed 0 --out samples/

A folder is read as one of the authors' published code: netG.pth, Noise_Amps.pth and the args.txt saved with them,
which holds the clip's aspect and the number of VAE scales (without it: 16:9 and 3).

Sample i of a seed is the same video whatever --n is. Exit code: 0 done; 2 bad arguments.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if TYPE_CHECKING:
    from rich.console import Console

    from model.networks import GeneratorStack


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sample.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkpoint",
        help="checkpoint.pt of a clip, a path or URI; or a folder of the authors' code. Unfinished: its finest scale",
    )
    parser.add_argument("--n", type=int, default=10, help="number of videos (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="0 or more (default: 0)")
    parser.add_argument("--out", required=True, help="folder for sample_NNN.mp4 and .gif")
    return parser.parse_args(argv)


def load(path: str, console: Console) -> tuple[GeneratorStack, str]:
    """The generators of a checkpoint file, or of a folder of the authors' code, and their clip's name; on the CPU.

    Args:
        path: or its URI.

    Raises CheckpointError for what cannot be read, ValueError for a clip too narrow for the ladder.
    """
    from model import checkpoint, official
    from pipeline import clips

    with tempfile.TemporaryDirectory() as cache:
        try:
            local = clips.fetch(path, Path(cache))
        except (ValueError, OSError) as error:
            raise checkpoint.CheckpointError(str(error)) from error
        if not Path(local).is_dir():
            saved = checkpoint.load(local)
            return saved.stack(), saved.clip_id
        from jobs import presets
        from jobs.corpus import ladder

        published = official.load(local, presets.official())
    if published.aspect is None:
        levels = published.config.vae_levels
        console.print(f"no args.txt in {path}: taken as a 16:9 clip with {levels} VAE scales", markup=False)
    sizes = ladder(published.config, *(published.aspect or (9, 16)))
    return published.stack([(size.frames, size.height, size.width) for size in sizes]), path


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    from rich.console import Console
    from rich.progress import track

    from jobs.pictures import to_frames
    from model.memory import keep_freed_memory
    from model.precision import best_device
    from model.sample import frames_per_second, sample
    from pipeline import video

    console = Console(soft_wrap=True)
    try:
        if args.n < 1 or args.seed < 0:
            raise ValueError("--n must be 1 or more, --seed 0 or more")
        stack, name = load(args.checkpoint, console)
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 2
    keep_freed_memory()
    stack = stack.to(best_device())
    scale = stack.num_scales - 1
    fps = frames_per_second(stack, scale)
    for index in track(range(args.n), description="sampling", console=console, disable=not console.is_terminal):
        (made,) = sample(stack, 1, args.seed, first=index)
        frames = to_frames(made.numpy())
        for suffix in (".mp4", ".gif"):
            video.encode(frames, out / f"sample_{index:03d}{suffix}", fps=fps)
    size = "×".join(map(str, stack.sizes[scale]))
    console.print(f"{args.n} videos of {size} (T×H×W) of {name}, seed {args.seed}, in {out}", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

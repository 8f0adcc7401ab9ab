"""Videos from a checkpoint: everything they need is in that one file.

    python jobs/sample.py runs/demo/bikes-…/checkpoint.pt --n 10 --seed 0 --out samples/

A folder is read as one of the authors' published code: netG.pth, Noise_Amps.pth and the args.txt saved with them,
which holds the clip's aspect and the number of VAE scales (without it: 16:9 and 3).

Sample i of a seed is the same video whatever --n is. --size makes videos of another size or length than the clip's:
wider, higher, or of more frames, which play longer. Theirs are .mp4 only, written as they are made.

Exit code: 0 done; 1 a video could not be written; 2 bad arguments.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if TYPE_CHECKING:
    from rich.console import Console

    from model.networks.generators import GeneratorStack
    from model.pyramid import ScaleSize


VOLUMES = 3  # of the whole output that the host holds: what is below, its noise, the residual


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
    parser.add_argument(
        "--size",
        help="frames x height x width of the videos, such as 13x256x1024 (default: the clip's)",
        metavar="TxHxW",
    )
    parser.add_argument("--out", required=True, help="folder for sample_NNN.mp4 and, of the clip's size, .gif")
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
        from model import presets
        from model.pyramid import ladder

        published = official.load(local, presets.official())
    if published.aspect is None:
        levels = published.config.vae_levels
        console.print(f"no args.txt in {path}: taken as a 16:9 clip with {levels} VAE scales", markup=False)
    sizes = ladder(published.config, *(published.aspect or (9, 16)))
    return published.stack([(size.frames, size.height, size.width) for size in sizes]), path


def size_from(text: str) -> ScaleSize:
    """13x256x1024, or with ×, as (T, H, W). Raises ValueError, one line."""
    from pipeline.video import ffmpeg as command

    found = re.fullmatch("([0-9]{1,6})[x×]([0-9]{1,6})[x×]([0-9]{1,6})", text)
    if not found:
        raise ValueError(f"--size {text}: write frames x height x width, such as 13x256x1024")
    frames, height, width = map(int, found.groups())
    if height * width > command.MAX_PIXELS:
        raise ValueError(f"--size {text}: more than {command.MAX_PIXELS:,} pixels a frame; make it smaller")
    return (frames, height, width)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    from rich.console import Console
    from rich.progress import Progress

    from model.device import best_device, host_bytes, keep_freed_memory
    from model.pyramid import to_frames
    from model.sampling.sample import count_convolutions, frames_per_second, sample_in_parts, stretched_ladder
    from pipeline.video import VideoError
    from pipeline.video.encoder import writing

    console = Console(soft_wrap=True)
    try:
        if args.n < 1 or args.seed < 0:
            raise ValueError("--n must be 1 or more, --seed 0 or more")
        asked = None if args.size is None else size_from(args.size)
        stack, name = load(args.checkpoint, console)
        trained = stack.sizes[stack.num_scales - 1]
        sizes = stretched_ladder(stack, asked or trained)
        needed, there = VOLUMES * 12 * math.prod(sizes[-1]), host_bytes()  # float32 RGB
        if needed > there:
            told = f"needs {needed / 2**30:.0f} GiB of memory, {there / 2**30:.0f} are there"
            raise ValueError(f"--size {args.size}: {told}; make it smaller")
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 2
    if sizes[-1] == trained:
        keep_freed_memory()  # would nearly double the peak of a large video, whose tiles leave gaps
    stack = stack.to(best_device())
    fps = frames_per_second(stack, len(sizes) - 1)
    _, height, width = sizes[-1]
    suffixes = (".mp4", ".gif") if sizes[-1] == trained else (".mp4",)  # a GIF's palette needs all frames at once
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=args.n * count_convolutions(stack, sizes))
        try:
            for index in range(args.n):
                progress.update(bar, description=f"video {index + 1} of {args.n}")
                with ExitStack() as files:
                    writers = [
                        files.enter_context(writing(out / f"sample_{index:03d}{suffix}", height, width, fps=fps))
                        for suffix in suffixes
                    ]
                    for made in sample_in_parts(
                        stack, sizes, args.seed, index, tick=lambda done: progress.advance(bar, done)
                    ):
                        for write in writers:
                            write(to_frames(made[0].numpy()))
        except (VideoError, OSError) as error:
            console.print(f"error: {error}", style="red", markup=False, highlight=False)
            return 1
    told = "×".join(map(str, sizes[-1]))
    console.print(f"{args.n} videos of {told} (T×H×W) of {name}, seed {args.seed}, in {out}", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

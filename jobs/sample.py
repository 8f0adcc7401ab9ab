"""Videos, or images, from a checkpoint.

    python jobs/sample.py runs/demo/bikes-…/checkpoint.pt --n 10 --seed 0 --out samples/

Where the clip's patches make the fine scales (patch_scale, --method vgpnn), the clip's frames are read from the
experiment around the checkpoint; --real names the video where there is none. Else the one file is enough.

A folder is read as one of the authors' published code: netG.pth, Noise_Amps.pth and the args.txt saved with them,
which holds the clip's aspect and the number of VAE scales (without it: 16:9 and 3).

Sample i of a seed is the same video whatever --n is. --size makes videos of another size or length than the clip's:
wider, higher, or of more frames, which play longer. Theirs are .mp4 only, written as they are made. A model of an image
gives images: .png, and sheet.png of all of them; their --size is HxW.

Exit code: 0 done; 1 a video could not be written; 2 bad arguments.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import UsageError, printable
from jobs import command_line
from jobs.command_line import BAD_ARGUMENTS, DONE, SOME_FAILED

ON_SHEET = 50  # images of sheet.png at most

if TYPE_CHECKING:
    import numpy as np

    from model.loading import LoadedModel


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("sample.py", __doc__)
    add = parser.add_argument
    checkpoint = (
        "checkpoint.pt of a clip, a path or URI; or a folder of the authors' code. Unfinished: its finest scale"
    )
    add("checkpoint", type=command_line.path, help=checkpoint)
    add("--n", type=int, default=10, help="number of videos or images")
    add("--seed", type=int, default=0, help="0 or more")
    size = "frames x height x width of the videos, such as 13x256x1024; HxW of images (default: the clip's)"
    add("--size", help=size, metavar="[Tx]HxW")
    add(
        "--real",
        type=command_line.path,
        metavar="CLIP",
        help="the clip's video or image, for a checkpoint outside its experiment: of a video its first frames",
    )
    add(
        "--out",
        type=command_line.path,
        required=True,
        help="folder for sample_NNN.mp4 and, of the clip's size, .gif; of images .png",
    )
    command_line.add_sampling(parser)
    return parser.parse(argv)


def size_from(text: str, dims: int) -> tuple[int, int, int]:
    """13x256x1024, or with ×, as (T, H, W); of images (dims 2) 256x1024 too. Raises ValueError, one line."""
    from pipeline.video import MAX_PIXELS

    found = re.fullmatch("(?:([0-9]{1,6})[x×])?([0-9]{1,6})[x×]([0-9]{1,6})", text)
    if not found or (found[1] is None and dims == 3):
        raise ValueError(
            f"--size {text}: write "
            + ("height x width, such as 256x1024" if dims == 2 else "frames x height x width, such as 13x256x1024")
        )
    frames, height, width = (int(part or 1) for part in found.groups())
    if height * width > MAX_PIXELS:
        raise ValueError(f"--size {text}: more than {MAX_PIXELS:,} pixels a frame; make it smaller")
    return (frames, height, width)


def frames_for(checkpoint: str, real: str | None, loaded: LoadedModel) -> list[np.ndarray]:
    """The clip that a checkpoint's videos are made of, uint8 (T, H, W, 3) a chunk.

    Raises ValueError, one line, if it is nowhere, VideoError for a --real that cannot be read.
    """
    from infra.store import Store
    from jobs.experiment.corpus import frames_of_source
    from jobs.experiment.models import chunks_of_checkpoint
    from pipeline import shards

    if not loaded.needs_clip:
        if real is not None:
            raise ValueError("--real: a model of networks alone needs no clip; leave it out")
        return []
    if real is not None:
        return frames_of_source(real, loaded.config)
    entries = chunks_of_checkpoint(Store.open(checkpoint, "CHECKPOINT"), loaded.name)
    if not entries:
        cause = f"its videos are made of patches of the clip {loaded.name}, whose frames no experiment around it has"
        raise ValueError(f"{checkpoint}: {cause}; give --real CLIP")
    return [shards.read_clip(entry).frames_thwc for entry in entries]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    from rich.progress import Progress

    from jobs.reports.pictures import SHEET, contact_sheet, write_png
    from model.device import HOST, best_device, keep_freed_memory
    from model.loading import load
    from model.pyramid import to_frames
    from model.sampling.sample import frames_per_second
    from model.sampling.sampler import check_bytes
    from pipeline.shards import ShardError
    from pipeline.video import VideoError, writing

    console = command_line.console(live=True)
    try:
        if args.n < 1 or args.seed < 0:
            raise ValueError("--n must be 1 or more, --seed 0 or more")
        command_line.check_z_frames(args.z_frames)
        loaded = load(args.checkpoint, precision=args.precision, latent_frames=args.z_frames)
        asked = None if args.size is None else size_from(args.size, loaded.config.dims)
        if loaded.note:
            console.print(printable(loaded.note), soft_wrap=True)
        chunks = frames_for(args.checkpoint, args.real, loaded)
        sampler = loaded.sampler(chunks, best_device())
        sizes = sampler.ladder_to(asked or sampler.size)
        on = best_device() if loaded.needs_clip else HOST
        check_bytes(
            f"a video of {sizes[-1]}",
            sampler.needed_bytes(sizes),
            on,
            lambda share: f"make it smaller, {share:.1%} of its pixels fit",
        )
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError, UsageError, VideoError, ShardError) as error:
        command_line.print_error(console, error)
        return BAD_ARGUMENTS
    if sizes[-1] == sampler.size:
        keep_freed_memory()  # would nearly double the peak of a large video, whose tiles leave gaps
    # twice the gaps between frames play twice as long
    fps = frames_per_second(loaded.config, sampler.size.frames)
    _, height, width = sizes[-1]
    suffixes = (".mp4", ".gif") if sizes[-1] == sampler.size else (".mp4",)  # a GIF's palette needs all frames at once
    is_image, images, what = loaded.config.dims == 2, {}, "image" if loaded.config.dims == 2 else "video"
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=args.n * sampler.steps(sizes))

        def tick(done: int) -> None:
            progress.advance(bar, done)

        try:
            for index in range(args.n):
                progress.update(bar, description=f"{what} {index + 1} of {args.n}")
                if is_image:
                    name = f"sample_{index:03d}"
                    (part,) = sampler.parts(sizes, args.seed, index, tick)
                    picture = to_frames(part[0].numpy())[0]
                    write_png(picture, out / f"{name}.png")
                    if index < ON_SHEET:
                        images[name] = picture
                    continue
                with ExitStack() as files:
                    writers = [
                        files.enter_context(writing(out / f"sample_{index:03d}{suffix}", height, width, fps=fps))
                        for suffix in suffixes
                    ]
                    for part in sampler.parts(sizes, args.seed, index, tick):
                        for write in writers:
                            write(to_frames(part[0].numpy()))
            if images:
                write_png(contact_sheet(images), out / SHEET)
        except (VideoError, OSError) as error:
            command_line.print_error(console, error)
            return SOME_FAILED
    done = f"{args.n} {what}s of {sizes[-1]} (T×H×W) of {loaded.name}, seed {args.seed}, in {out}"
    console.print(printable(done), soft_wrap=True)
    return DONE


if __name__ == "__main__":
    sys.exit(main())

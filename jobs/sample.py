"""Videos, or images, from a checkpoint: new ones, or what the model makes of a given one.

    python jobs/sample.py runs/demo/bikes-…/checkpoint.pt --n 10 --seed 0 --out samples/
    python jobs/sample.py CHECKPOINT --inject edited.png --scale auto --mask mask.png --out edited/
    python jobs/sample.py CHECKPOINT --fill --mask mask.png --out removed/
    python jobs/sample.py CHECKPOINT --extend 36 --out longer/
    python jobs/sample.py CHECKPOINT --loop --out loop/

Where the clip's patches make the fine scales (patch_scale, --method vgpnn), the clip's frames are read from the
experiment around the checkpoint; --real names the video where there is none. Else the one file is enough for samples;
most applications need the clip.

A folder is read as one of the authors' published code: netG.pth, Noise_Amps.pth and the args.txt saved with them,
which holds the clip's aspect and the number of VAE scales (without it: 16:9 and 3).

Sample i of a seed is the same video whatever --n is. --size makes videos of another size or length than the clip's:
wider, higher, or of more frames, which play longer. Theirs are .mp4 only, written as they are made. A model of an image
gives images: .png, and sheet.png of all of them; their --size is HxW. --keep N draws four times as many and keeps N.

One application at a time. What several results have in common is seen on sheet.png.

Exit code: 0 done; 1 a video could not be written; 2 bad arguments.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra import clip_folder
from infra.errors import UsageError, printable
from jobs import command_line
from jobs.command_line import BAD_ARGUMENTS, DONE, SOME_FAILED
from jobs.sampling import request as requests

ON_SHEET = 50  # images of sheet.png at most
DRAWN = 4  # samples of each that --keep keeps

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from jobs.sampling.request import ApplicationRequest
    from model.loading import LoadedModel
    from model.pyramid import ScaleSize
    from model.sampling.sampler import Sampler


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("sample.py", __doc__)
    add = parser.add_argument
    checkpoint = (
        "checkpoint.pt of a clip, a path or URI; or a folder of the authors' code. Unfinished: its finest scale"
    )
    add("checkpoint", type=command_line.path, help=checkpoint)
    add("--n", type=int, help="number of videos or images (default: 10; of an application 1, of --fix-… 4)")
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
    add("--keep", type=int, metavar="N", help="draw 4N samples, keep N: of the better half those that differ most")
    command_line.add_sampling(parser)
    requests.add_options(parser)
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


def frames_for(checkpoint: str, real: str | None, loaded: LoadedModel, *, needed: bool = True) -> list[np.ndarray]:
    """The clip that a checkpoint's videos are made of, uint8 (T, H, W, 3) a chunk.

    Args: needed: whether it is an error if it is nowhere; else there are no chunks then.

    Raises ValueError, one line, if it is nowhere, VideoError for a --real that cannot be read.
    """
    from infra.store import Store
    from jobs.experiment.corpus import frames_of_source
    from jobs.experiment.models import chunks_of_checkpoint
    from pipeline import shards

    if real is not None:
        return frames_of_source(real, loaded.config)
    entries = chunks_of_checkpoint(Store.open(checkpoint, "CHECKPOINT"), loaded.name)
    if not entries and needed:
        cause = f"the clip {loaded.name} is needed, whose frames no experiment around it has"
        raise ValueError(f"{checkpoint}: {cause}; give --real CLIP")
    return [shards.read_clip(entry).frames_thwc for entry in entries]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    console = command_line.console(live=True)
    try:
        if args.seed < 0 or (args.n is not None and args.n < 1) or (args.keep is not None and args.keep < 1):
            raise UsageError("--n and --keep must be 1 or more, --seed 0 or more")
        if args.keep is not None and args.n is not None:
            raise UsageError("--keep and --n: --keep N draws 4N; leave out --n")
        request = requests.from_args(args)
        if args.keep is not None and request:
            raise UsageError("--keep: is of plain samples; leave it out")
        command_line.check_z_frames(args.z_frames)
    except (UsageError, ValueError) as error:
        command_line.print_error(console, error)
        return BAD_ARGUMENTS
    from model.loading import load
    from pipeline.shards import ShardError
    from pipeline.video import VideoError

    try:
        loaded = load(args.checkpoint, precision=args.precision, latent_frames=args.z_frames)
        asked = None if args.size is None else size_from(args.size, loaded.config.dims)
        if loaded.note:
            console.print(printable(loaded.note), soft_wrap=True)
        if request:
            return _apply(request, args, loaded, asked, console)
        return _sample(args, loaded, asked, console)
    except (ValueError, OSError, UsageError, VideoError, ShardError) as error:
        command_line.print_error(console, error)
        return BAD_ARGUMENTS


def _sample(args: argparse.Namespace, loaded: LoadedModel, asked: tuple[int, int, int] | None, console: Console) -> int:
    """Plain samples. Returns the exit code; raises what is wrong before the first of them."""
    from rich.progress import Progress

    from jobs.reports.pictures import contact_sheet, write_png
    from model.device import HOST, best_device, keep_freed_memory
    from model.sampling.sampler import check_video
    from pipeline.video import VideoError

    if args.real is not None and not loaded.needs_clip and args.keep is None:
        raise ValueError("--real: a model of networks alone needs no clip; leave it out")
    wanted = loaded.needs_clip or args.keep is not None
    chunks = frames_for(args.checkpoint, args.real, loaded) if wanted else []
    sampler = loaded.sampler(chunks, best_device())
    sizes = sampler.ladder_to(asked or sampler.size)
    on = best_device() if loaded.needs_clip else HOST
    check_video(sizes[-1], sampler.needed_bytes(sizes), on)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if sizes[-1] == sampler.size:
        keep_freed_memory()  # would nearly double the peak of a large video, whose tiles leave gaps
    is_image, images, what = loaded.config.dims == 2, {}, "image" if loaded.config.dims == 2 else "video"
    indices: Sequence[int] = range(args.n or 10)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)

        def tick(done: int) -> None:
            progress.advance(bar, done)

        try:
            if args.keep is not None:
                progress.update(bar, description="choosing", total=DRAWN * args.keep * sampler.steps(sizes))
                indices = _chosen(args, loaded, chunks, sampler, sizes, tick)
            progress.update(bar, completed=0, total=len(indices) * sampler.steps(sizes))
            for place, index in enumerate(indices):
                progress.update(bar, description=f"{what} {place + 1} of {len(indices)}")
                name, parts = f"sample_{index:03d}", sampler.parts(sizes, args.seed, index, tick)
                if not is_image:
                    _write_parts(out / name, parts, sizes[-1], sampler.size, loaded)
                    continue
                (part,) = parts
                picture = _frames(part)[0]
                write_png(picture, out / f"{name}.png")
                if place < ON_SHEET:
                    images[name] = picture
            if images:
                write_png(contact_sheet(images), out / clip_folder.SHEET)
        except (VideoError, OSError) as error:
            command_line.print_error(console, error)
            return SOME_FAILED
    done = f"{len(indices)} {what}s of {sizes[-1]} (T×H×W) of {loaded.name}, seed {args.seed}, in {out}"
    console.print(printable(done), soft_wrap=True)
    return DONE


def _frames(part: object) -> np.ndarray:
    """(1, 3, t, H, W) → uint8 (t, H, W, 3)."""
    from model.pyramid import to_frames

    return to_frames(part[0].numpy())  # type: ignore[index]


def _write_parts(path: Path, parts: Iterable[object], size: ScaleSize, own: ScaleSize, loaded: LoadedModel) -> None:
    """A video as it is made: .mp4, and of the clip's size .gif, whose palette needs all frames at once."""
    from model.sampling.sample import frames_per_second
    from pipeline.video import writing

    # twice the gaps between frames play twice as long
    fps = frames_per_second(loaded.config, own.frames)
    with ExitStack() as files:
        writers = [
            files.enter_context(writing(path.with_name(path.name + suffix), size.height, size.width, fps=fps))
            for suffix in ((".mp4", ".gif") if size == own else (".mp4",))
        ]
        for part in parts:
            for write in writers:
                write(_frames(part))


def _chosen(
    args: argparse.Namespace,
    loaded: LoadedModel,
    chunks: Sequence[np.ndarray],
    sampler: Sampler,
    sizes: Sequence[ScaleSize],
    tick: Callable[[int], None],
) -> list[int]:
    """Which samples --keep keeps, best first."""
    import torch

    from model.metrics.option import features_for
    from model.metrics.svfid import RealClip, svfid
    from model.pyramid import to_video, training_pyramids
    from model.sampling.variations import diverse

    if sizes[-1] != loaded.sizes[-1]:
        raise ValueError(f"--keep: scores samples of {loaded.sizes[-1]}, these are of {sizes[-1]}; leave --size out")
    loaded.check_size(chunks[0])
    clip = training_pyramids(chunks, loaded.config, loaded.sizes)
    real = RealClip([pyramid[-1] for pyramid in clip], features_for(loaded.config.dims))
    videos = [
        _frames(torch.cat(list(sampler.parts(sizes, args.seed, index, tick)), dim=2))
        for index in range(DRAWN * args.keep)
    ]
    return diverse(videos, svfid(real, (to_video(video) for video in videos)).per_sample, args.keep)


def _apply(
    request: ApplicationRequest,
    args: argparse.Namespace,
    loaded: LoadedModel,
    asked: tuple[int, int, int] | None,
    console: Console,
) -> int:
    """An application. Returns the exit code; raises what is wrong before its first result."""
    from rich.progress import Progress

    from jobs.reports.pictures import side_by_side, write_png
    from jobs.sampling import given as inputs
    from jobs.sampling.applications import count, results
    from model.device import best_device, keep_freed_memory
    from model.pyramid import ScaleSize
    from model.sampling.sample import frames_per_second
    from pipeline.video import VideoError, encode

    keep_freed_memory()
    chunks = frames_for(args.checkpoint, args.real, loaded, needed=loaded.needs_clip)
    applications = loaded.applications(chunks, best_device(), request.finish)
    given = inputs.read(request, loaded.config, applications, lambda line: console.print(line, soft_wrap=True))
    fps = frames_per_second(loaded.config, loaded.config.num_frames)  # as the clip plays
    n = args.n or (4 if request.application in ("fix_layout", "fix_detail") else 1)
    size = ScaleSize(*asked) if asked else None
    made = results(request, applications, given, seed=args.seed, n=n, size=size)
    total = count(request, applications, n)
    out = Path(args.out)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(request.name.replace("_", " "), total=total if total > 1 else None)
        first = next(made)  # what cannot be is found here, before anything is written
        out.mkdir(parents=True, exist_ok=True)
        shown = inputs.shown(request, applications, given, first.frames)
        try:
            for result in chain([first], made):
                progress.advance(bar)
                if loaded.config.dims == 2:
                    write_png(result.frames[0], out / f"{result.name}.png")
                else:
                    for suffix in (".mp4", ".gif"):
                        encode(result.frames, out / f"{result.name}{suffix}", fps=fps)
                if len(shown) < ON_SHEET:
                    shown[result.label] = result.frames
                if result.note:
                    console.print(printable(result.note), soft_wrap=True)
            write_png(side_by_side(shown), out / clip_folder.SHEET)
        except (VideoError, OSError) as error:
            command_line.print_error(console, error)
            return SOME_FAILED
    what = f"{total} result{'s' if total > 1 else ''} of {request.name.replace('_', ' ')}"
    line = f"{what}, {ScaleSize(*first.frames.shape[:3])} (T×H×W), of {loaded.name}, seed {args.seed}, in {out}"
    console.print(printable(line), soft_wrap=True)
    return DONE


if __name__ == "__main__":
    sys.exit(main())

"""What `sample.py` was asked for, from the model to the files: plain samples, or an application."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from infra import clip_folder
from infra.errors import counted, printable
from jobs import command_line
from jobs.command_line import Length
from jobs.experiment.models import frames_of_model
from jobs.reports.pictures import contact_sheet, side_by_side, write_png
from jobs.sampling.output import COMPARED, Output
from jobs.sampling.request import ApplicationRequest, SampleRequest
from model.config import TrainConfig
from model.device import best_device, concurrently, keep_freed_memory
from model.loading import LoadedModel, load
from model.pyramid import ScaleSize, SizeError, build, to_frames, to_video
from model.sampling.sample import frames_per_second
from model.sampling.sampler import Sampler, check_sample
from model.sampling.variations import check_kept, kept, steps_to_keep
from pipeline.video import MAX_PIXELS, VideoError, encode, writing

PLAIN = 10  # samples by default
ON_SHEET = 50  # images of a sheet at most
STEM, COMPARISON = clip_folder.SHEET.removesuffix(".png"), "compare"


class _NotWritten(Exception):
    """A result that could not be written, in one line."""


def run(request: SampleRequest, console: Console) -> bool:
    """Make what was asked for. Returns whether a file could not be written, which was said.

    Raises ValueError, OSError, UsageError, VideoError, ShardError, one line each, for what is wrong before that.
    """
    loaded = load(request.model, precision=request.precision, latent_frames=request.latent_frames)
    if loaded.note:
        console.print(printable(loaded.note), soft_wrap=True)
    size = None if request.size is None else size_from(request.size, loaded.config)
    try:
        with naming_size(size):
            if request.application:
                line = _apply(request, request.application, loaded, size, console)
            else:
                line = _sample(request, loaded, size, console)
    except _NotWritten as error:
        command_line.print_error(console, error)
        return True
    console.print(line, soft_wrap=True)
    return False


def size_from(text: str, config: TrainConfig) -> ScaleSize:
    """13x256x1024, or with ×, or 2sx256x1024, as (T, H, W); of images 256x1024 too. Raises ValueError, one line, for
    another form and for more than MAX_PIXELS a frame.

    Seconds become the nearest number of frames that the model's scales can divide.
    """
    found = re.fullmatch("(?:([0-9.]{1,13}s|[0-9]{1,18})[x×])?([0-9]{1,18})[x×]([0-9]{1,18})", text)
    if not found or (found[1] is None and config.dims == 3):
        raise ValueError(
            f"--size {printable(text)}: write "
            + (
                "height x width, such as 256x1024"
                if config.dims == 2
                else "frames x height x width, such as 13x256x1024, or seconds first, such as 2sx256x1024"
            )
        )
    height, width = int(found[2]), int(found[3])
    if height * width > MAX_PIXELS:
        raise ValueError(f"--size {text}: more than {MAX_PIXELS:,} pixels a frame; make it smaller")
    if not (found[1] or "").endswith("s"):
        return ScaleSize(int(found[1] or 1), height, width)
    try:
        return ScaleSize(_divisible(command_line.length(found[1]), config), height, width)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--size {error}") from error


@contextmanager
def naming_size(given: ScaleSize | None) -> Iterator[None]:
    """An error about a size names the option, if one was given: what `size_from` returned."""
    try:
        yield
    except SizeError as error:
        raise ValueError(f"--size: {error}" if given else str(error)) from error


def _divisible(long: Length, config: TrainConfig) -> int:
    step = math.lcm(*config.frame_rates)
    gaps = long.frames(frames_per_second(config, config.num_frames)) - 1
    return 1 + step * max(1, round(gaps / step)) if config.dims == 3 else 1


def _frames_for(request: SampleRequest, loaded: LoadedModel, *, needed: bool = True) -> list[np.ndarray]:
    """See `frames_of_model`."""
    return frames_of_model(request.model, loaded.name, loaded.config, request.real, needed=needed)


# -- plain samples


def _sample(request: SampleRequest, loaded: LoadedModel, asked: ScaleSize | None, console: Console) -> str:
    """Write them. Returns what to say then."""
    wanted = loaded.needs_clip or request.keep is not None or request.compare
    if request.real is not None and not wanted:
        raise ValueError("--real: a model of networks alone needs no clip; leave it out")
    chunks = _frames_for(request, loaded) if wanted else []
    sampler = loaded.sampler(chunks, best_device())
    sizes = sampler.ladder_to(asked or sampler.size)
    check_sample(sampler, sizes, best_device())
    indices: Sequence[int] = range(PLAIN) if request.indices is None else request.indices
    out = Output.named(request.out, loaded.config.dims, request.keep or len(indices), request.one_result)
    out.check_apart(request.files)
    if request.keep is not None:
        if sizes[-1] != sampler.size:
            raise ValueError(f"--keep: scores samples of {sampler.size}, these are of {sizes[-1]}; leave --size out")
        check_kept(sampler, request.keep)
    compared = _clip_and_reconstruction(out, loaded, chunks, sampler, sizes[-1]) if request.compare else {}
    out.make_folder()
    if sizes[-1] == sampler.size:
        keep_freed_memory()  # would nearly double the peak of a large video, whose tiles leave gaps
    what, images = "image" if out.dims == 2 else "video", {}
    fps = frames_per_second(loaded.config, sampler.size.frames)  # twice the gaps between frames play twice as long
    with Progress(console=console, disable=not console.is_terminal) as progress, _writing():
        bar = progress.add_task("", total=None)

        def tick(done: int) -> None:
            progress.advance(bar, done)

        chosen: dict[int, np.ndarray] = {}
        if request.keep is not None:
            progress.update(bar, description="choosing", total=steps_to_keep(sampler, request.keep))
            real = loaded.real_clip(chunks)
            chosen = kept(sampler, lambda made: real.distance(to_video(made)), request.seed, request.keep, tick)
            indices = list(chosen)
        progress.update(bar, completed=0, total=len(indices) * sampler.steps(sizes))
        together = sampler.at_once(sizes)

        def frames_of(index: int) -> Iterable[np.ndarray]:
            if index in chosen:
                tick(sampler.steps(sizes))
                return [chosen[index]]
            parts = (_frames(part) for part in sampler.parts(sizes, request.seed, index, tick))
            return parts if together == 1 else list(parts)

        for place, (index, parts) in enumerate(zip(indices, concurrently(frames_of, indices, together))):
            progress.update(bar, description=f"{what} {place + 1} of {len(indices)}")
            paths = out.paths(f"sample_seed{request.seed}_{index:03d}", gif=sizes[-1] == sampler.size)
            if out.dims == 2:
                ((picture,),) = parts
                write_png(picture, paths[0])
                if place < ON_SHEET:
                    images[f"sample {index}"] = picture
                continue
            if place < COMPARED and compared:
                whole = np.concatenate(list(parts))
                compared[f"sample {index}"] = whole
                parts = [whole]
            _write_parts(paths, parts, sizes[-1], fps)
        if images:
            out.picture(f"{STEM}_seed{request.seed}", contact_sheet(images))
        if compared:
            out.comparison(f"{COMPARISON}_seed{request.seed}", compared, fps)
    made = f"{counted(len(indices), what)} of {sizes[-1]} (T×H×W)"
    return f"{made} of {printable(loaded.name)}, seed {request.seed}, in {out}"


def _frames(part: Tensor) -> np.ndarray:
    """(1, 3, t, H, W) → uint8 (t, H, W, 3)."""
    return to_frames(part[0].numpy())


def _write_parts(paths: Sequence[Path], parts: Iterable[np.ndarray], size: ScaleSize, fps: float) -> None:
    """A video as it is made; a .gif's palette needs all frames at once. parts: uint8 (t, H, W, 3)."""
    with ExitStack() as files:
        writers = [files.enter_context(writing(path, size.height, size.width, fps=fps)) for path in paths]
        for part in parts:
            for write in writers:
                write(part)


def _clip_and_reconstruction(
    out: Output, loaded: LoadedModel, chunks: Sequence[np.ndarray], sampler: Sampler, size: ScaleSize
) -> dict[str, np.ndarray]:
    """What --compare shows before the samples. Raises UsageError, ValueError where it cannot."""
    out.check_comparison()
    if size != sampler.size:
        raise ValueError(f"--compare: shows samples beside the clip, which is of {sampler.size}; leave --size out")
    loaded.check_frames(chunks)
    clip = build(chunks[0], [size], loaded.config.resizing)[0]
    return {"original": to_frames(clip), "reconstruction": _frames(sampler.reconstruction())}


# -- applications


def _apply(
    request: SampleRequest,
    application: ApplicationRequest,
    loaded: LoadedModel,
    size: ScaleSize | None,
    console: Console,
) -> str:
    """Write its results. Returns what to say then; raises what is wrong before the first of them."""
    from jobs.sampling import given as inputs  # these import scipy, which plain samples must not wait for
    from jobs.sampling.applications import count, results

    keep_freed_memory()
    chunks = _frames_for(request, loaded, needed=loaded.needs_clip)
    applications = loaded.applications(chunks, best_device(), application.finish)
    given = inputs.read(application, loaded.config, applications, lambda line: console.print(line, soft_wrap=True))
    fps = frames_per_second(loaded.config, loaded.config.num_frames)  # as the clip plays
    by_default = range(4 if application.application in ("fix_layout", "fix_detail") else 1)
    indices = by_default if request.indices is None else request.indices
    total = count(application, applications, indices)
    out = Output.named(request.out, loaded.config.dims, total, request.one_result)
    if request.compare:
        out.check_comparison()
    out.check_apart(request.files)
    made = results(application, applications, given, seed=request.seed, indices=indices, size=size)
    words = application.name.replace("_", " ")
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(words, total=total)
        applications.progress = lambda share: progress.advance(bar, share)
        first = next(made)  # what cannot be is found here, before anything is written
        out.make_folder()
        shown = inputs.shown(application, applications, given, first.frames)
        with _writing():
            for result in chain([first], made):
                for path in out.paths(result.name):
                    if out.dims == 2:
                        write_png(result.frames[0], path)
                    else:
                        encode(result.frames, path, fps=fps)
                if len(shown) < ON_SHEET:
                    shown[result.label] = result.frames
                if result.note:
                    console.print(printable(result.note), soft_wrap=True)
            progress.update(bar, completed=total)
            out.picture(f"{STEM}_{application.stem(request.seed)}", side_by_side(shown))
            if request.compare:
                few = dict(list(shown.items())[: COMPARED + 2])
                out.comparison(f"{COMPARISON}_{application.stem(request.seed)}", few, fps)
    line = f"{counted(total, 'result')} of {words}, {ScaleSize(*first.frames.shape[:3])} (T×H×W)"
    return f"{line}, of {printable(loaded.name)}, seed {request.seed}, in {out}"


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except (VideoError, OSError) as error:
        raise _NotWritten(str(error)) from error

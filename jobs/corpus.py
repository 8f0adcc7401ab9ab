"""What --corpus names, as clips to train: a file, folder, manifest, URI, `demo`, or shards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model.config import ConfigError, TrainConfig
from model.files import StorageError
from pipeline.header import shown

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.clips import Failure
    from pipeline.pyramid import ScaleSize
    from pipeline.shards import ShardEntry

FPS = 24.0  # of every clip (paper §3.2)


class UsageError(Exception):
    """Arguments that cannot work; the message is one line. Exit code 2."""


def one_line(error: BaseException) -> str:
    """An error's message as one line of at most 500 characters, for a table or a tag."""
    return " ".join(str(error).split())[:500]


def exit_code(job: Callable[[], int], console: Console, *expected: type[Exception], stopped: str) -> int:
    """What a job returns; 2 after one line for arguments that cannot work, 130 after one for Ctrl-C.

    Args:
        expected: errors that are told as one line too.
        stopped: what is told after Ctrl-C.
    """
    told: tuple[type[Exception], ...] = (UsageError, ConfigError, StorageError, *expected)
    try:
        return job()
    except told as error:
        console.print(f"error: {shown(str(error))}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print(stopped, highlight=False)
        return 130


@dataclass(frozen=True)
class Work:
    """A clip that can be trained."""

    clip_id: str
    source: str  # fit for one line of text, whatever the file's name holds
    height: int  # px
    width: int  # px
    num_frames: int
    fps: float
    entry: ShardEntry | None  # where its frames are; None in a dry run, which reads none


@dataclass(frozen=True)
class Corpora:
    """What was found in --corpus: clips to train, and sources that are no clips with the reason."""

    works: tuple[Work, ...]
    failures: tuple[tuple[str, str], ...]  # (source, one line)
    dropped: Mapping[str, int]  # source → frames no clip uses


def find(corpus: str, base: Path, config: TrainConfig) -> Corpora:
    """The clips of --corpus. Videos are decoded once, into shards in `base`, the experiment's folder.

    Raises UsageError for a corpus that cannot be fetched and for shards that cannot be used or written.
    """
    from pipeline import clips, shards

    local = _fetch(corpus, base / ".fetched")
    try:
        if shards.is_corpus(local):
            return _without_misfits(Corpora(_from_shards(local), (), {}), config)
        planned = clips.plan([local], num_frames=config.num_frames)
        failures = list(planned.failures)
        works: tuple[Work, ...] = ()
        if planned.clips:
            failures += shards.write(planned.clips, base / ".shards", max_height=max_height(config)).failures
            wanted = {plan.clip_id for plan in planned.clips}
            works = tuple(work for work in _from_shards(base / ".shards") if work.clip_id in wanted)
    except (shards.ShardError, OSError) as error:
        raise UsageError(one_line(error)) from error
    return _without_misfits(_told(works, failures, planned.dropped), config)


def peek(corpus: str, config: TrainConfig, cache: Path) -> Corpora:
    """What `find` would find, from the headers of the files alone. `cache` is for a corpus behind a URI."""
    from pipeline import clips, shards, video

    local = _fetch(corpus, cache)
    try:
        if shards.is_corpus(local):
            return _without_misfits(Corpora(_from_shards(local), (), {}), config)
    except shards.ShardError as error:
        raise UsageError(str(error)) from error
    planned = clips.plan([local], num_frames=config.num_frames)
    infos = [(plan, video.probe(plan.source)) for plan in planned.clips]
    works = tuple(
        Work(plan.clip_id, shown(plan.source), info.height, info.width, plan.num_frames, plan.fps, None)
        for plan, info in infos
    )
    return _without_misfits(_told(works, planned.failures, planned.dropped), config)


def frames_of(base: Path, corpus: str) -> dict[str, ShardEntry]:
    """By clip id, where the frames of an experiment's clips lie: in its .shards, or in the shards it was trained on.

    Raises UsageError for shards that cannot be used.
    """
    from pipeline import clips, shards

    folders = [base / ".shards"]
    with contextlib.suppress(ValueError, OSError):  # a corpus that is gone; what was cut from it is in .shards
        folders.insert(0, Path(clips.fetch(corpus, base / ".fetched")))
    try:
        return {e.clip_id: e for folder in folders if shards.is_corpus(folder) for e in shards.index(folder)}
    except shards.ShardError as error:
        raise UsageError(str(error)) from error


def _told(works: tuple[Work, ...], failures: Sequence[Failure], dropped: Mapping[str, int]) -> Corpora:
    """Names and reasons as they can be printed: a file's name may hold line ends and commands to a terminal."""
    told = tuple((shown(failure.source), shown(failure.reason)) for failure in failures)
    return Corpora(works, told, {shown(source): frames for source, frames in dropped.items()})


def _fetch(corpus: str, cache: Path) -> str:
    from pipeline import clips

    try:
        return clips.fetch(corpus, cache)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def _from_shards(folder: str | Path) -> tuple[Work, ...]:
    from pipeline import shards

    return tuple(
        Work(e.clip_id, shown(e.source), e.height, e.width, e.num_frames, e.fps, e) for e in shards.index(folder)
    )


def _without_misfits(corpora: Corpora, config: TrainConfig) -> Corpora:
    """Clips of another length or speed, and clips too narrow for the ladder, become failures before anything starts."""
    works, failures = [], list(corpora.failures)
    for work in corpora.works:
        try:
            if (work.num_frames, work.fps) != (config.num_frames, FPS):
                wanted = f"{config.num_frames} at {FPS:g} are needed; make its shard with these"
                raise ValueError(f"has {work.num_frames} frames at {work.fps:g} FPS, {wanted}")
            ladder(config, work.height, work.width)
            works.append(work)
        except ValueError as error:
            failures.append((work.source, f"{work.clip_id}: {error}"))
    return Corpora(tuple(works), tuple(failures), corpora.dropped)


def ladder(config: TrainConfig, height: int, width: int) -> tuple[ScaleSize, ...]:
    """The scale ladder of `config` for a clip of this size. Raises ValueError for a clip too narrow for it."""
    from pipeline import pyramid

    return pyramid.ladder(
        height,
        width,
        side=config.ladder_side,
        min_size=config.min_size,
        max_size=config.max_size,
        num_scales=config.num_scales,
        factor=config.scale_factor,
        num_frames=config.num_frames,
        rates=config.frame_rates,
    )


def max_height(config: TrainConfig) -> int:
    """Height in px that decoding keeps: enough for the finest scale, also of portrait videos on a width ladder."""
    return max(256, config.max_size if config.ladder_side == "height" else 2 * config.max_size)

"""What --corpus names, as clips to train: a file, folder, manifest, URI, `demo`, or shards."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import UsageError, one_line, printable
from model.config import TrainConfig
from model.pyramid import ladder

if TYPE_CHECKING:
    from pipeline.clips import Failure
    from pipeline.shards import ShardEntry
    from pipeline.sources import Video

FPS = 24.0  # of every clip (paper §3.2)
FIRST_FRAME = re.compile(r"-\d{6}$")  # of a clip's id: what pipeline/clips.py adds where a video has several


@dataclass(frozen=True)
class Work:
    """A clip that can be trained, or a long video: its chunks."""

    clip_id: str
    source: str  # fit for one line of text, whatever the file's name holds
    height: int  # px
    width: int  # px
    num_frames: int
    fps: float
    entries: tuple[ShardEntry, ...]  # where the frames of each chunk are; none in a dry run, which reads none
    chunks: int = 1


@dataclass(frozen=True)
class Corpora:
    """What was found in --corpus: clips to train, and sources that are no clips with the reason."""

    works: tuple[Work, ...]
    failures: tuple[tuple[str, str], ...]  # (source, one line)
    dropped: Mapping[str, int]  # source → frames no clip uses


def find(corpus: str, base: Path, config: TrainConfig, *others: TrainConfig) -> Corpora:
    """The clips of --corpus. Videos are decoded once, into shards in `base`, the experiment's folder.

    Without a stride in `config` each clip is one to train. With k, chunks begin every k frames, and those of a video
    are trained as one; of shards, the clips of a video are its chunks, whatever the stride was.

    Args:
        others: more that the clips are trained with, of the same `num_frames` and `stride`: frames are kept as high as
            any needs, and a clip is left out if it fits none.

    Raises UsageError for a corpus that cannot be fetched and for shards that cannot be used or written.
    """
    from pipeline import clips, shards

    local = _fetch(corpus, base / ".fetched")
    try:
        if shards.is_corpus(local):
            return _without_misfits(Corpora(_gathered(_from_shards(local), config.stride), (), {}), config, *others)
        planned = clips.plan([local], num_frames=config.num_frames, stride=config.stride)
        failures = list(planned.failures)
        works: tuple[Work, ...] = ()
        if planned.clips:
            height = max(map(max_height, (config, *others)))
            failures += shards.write(planned.clips, base / ".shards", max_height=height).failures
            wanted = {plan.clip_id for plan in planned.clips}
            works = tuple(work for work in _from_shards(base / ".shards") if work.clip_id in wanted)
    except (shards.ShardError, OSError) as error:
        raise UsageError(one_line(error)) from error
    return _without_misfits(_told(_gathered(works, config.stride), failures, planned.dropped), config, *others)


def peek(corpus: str, config: TrainConfig, cache: Path) -> Corpora:
    """What `find` would find, from the headers of the files alone. `cache` is for a corpus behind a URI."""
    from pipeline import clips, shards, video

    local = _fetch(corpus, cache)
    try:
        if shards.is_corpus(local):
            return _without_misfits(Corpora(_gathered(_from_shards(local), config.stride), (), {}), config)
    except shards.ShardError as error:
        raise UsageError(str(error)) from error
    planned = clips.plan([local], num_frames=config.num_frames, stride=config.stride)
    infos = {source: video.probe(source) for source in {plan.source for plan in planned.clips}}
    works = tuple(
        Work(plan.clip_id, printable(plan.source), info.height, info.width, plan.num_frames, plan.fps, ())
        for plan in planned.clips
        for info in [infos[plan.source]]
    )
    return _without_misfits(_told(_gathered(works, config.stride), planned.failures, planned.dropped), config)


def frames_of(base: Path, corpus: str, stride: int | None) -> dict[str, tuple[ShardEntry, ...]]:
    """Where the frames of an experiment's clips lie: in its .shards, or in the shards it was trained on. By the id of
    each clip, and of each video those of all its chunks.

    Args: stride: the experiment's; .shards may hold chunks of another one, from before `--fresh`.

    Raises UsageError for shards that cannot be used.
    """
    from pipeline import clips, shards

    cut, folders = base / ".shards", [base / ".shards"]
    with contextlib.suppress(ValueError, OSError):  # a corpus that is gone; what was cut from it is in .shards
        folders.insert(0, Path(clips.fetch(corpus, base / ".fetched")))
    try:
        found = [work for folder in folders if shards.is_corpus(folder) for work in _from_shards(folder)]
    except shards.ShardError as error:
        raise UsageError(str(error)) from error
    works = list({work.clip_id: work for work in found}.values())
    frames = {work.clip_id: work.entries for work in [*_gathered(works, 1), *works]}
    if stride is None:
        return frames
    return {
        clip_id: _of_stride(entries, stride) if Path(entries[0].shard).parent == cut else entries
        for clip_id, entries in frames.items()
    }


def _of_stride(chunks: Sequence[ShardEntry], stride: int) -> tuple[ShardEntry, ...]:
    """Those that begin a multiple of the stride behind the first one."""
    numbers = [FIRST_FRAME.search(chunk.clip_id) for chunk in chunks]
    starts = [int(number.group()[1:]) if number else 0 for number in numbers]
    return tuple(chunk for chunk, start in zip(chunks, starts, strict=True) if (start - min(starts)) % stride == 0)


def samples_of(videos: Sequence[Video]) -> list[Video]:
    """Those that are samples, in a folder of them: one of files that differ in their ending only, as the .mp4 and .gif
    of jobs/sample.py, and not `real` and `reconstruction`, which lie beside the samples of a trained clip."""
    by_stem: dict[str, Video] = {}
    for found in sorted(videos, key=lambda found: (found.path.lower().endswith(".gif"), found.path)):
        path = Path(found.path)
        if path.is_dir():  # of frames
            by_stem[found.path] = found
        elif path.stem not in ("real", "reconstruction"):
            by_stem.setdefault(str(path.with_suffix("")), found)
    return sorted(by_stem.values(), key=lambda found: found.path)


def _told(works: tuple[Work, ...], failures: Sequence[Failure], dropped: Mapping[str, int]) -> Corpora:
    """Names and reasons as they can be printed: a file's name may hold line ends and commands to a terminal."""
    told = tuple((printable(failure.source), printable(failure.reason)) for failure in failures)
    return Corpora(works, told, {printable(source): frames for source, frames in dropped.items()})


def _fetch(corpus: str, cache: Path) -> str:
    from pipeline import clips

    try:
        return clips.fetch(corpus, cache)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def _from_shards(folder: str | Path) -> tuple[Work, ...]:
    from pipeline import shards

    return tuple(
        Work(e.clip_id, printable(e.source), e.height, e.width, e.num_frames, e.fps, (e,)) for e in shards.index(folder)
    )


def _gathered(works: Sequence[Work], stride: int | None) -> tuple[Work, ...]:
    """With a stride, clips whose ids differ in the number of their first frame only, as one: the chunks of a video."""
    if stride is None:
        return tuple(works)
    by_video: dict[tuple[object, ...], list[Work]] = {}
    for work in works:  # of one size, so that they can be one batch: the video's, unless shards say otherwise
        video = FIRST_FRAME.sub("", work.clip_id)
        by_video.setdefault((video, work.source, work.height, work.width, work.num_frames, work.fps), []).append(work)
    return tuple(
        replace(
            chunks[0],
            clip_id=FIRST_FRAME.sub("", chunks[0].clip_id),
            entries=tuple(entry for chunk in chunks for entry in chunk.entries),
            chunks=len(chunks),
        )
        if len(chunks) > 1
        else chunks[0]
        for chunks in by_video.values()
    )


def _without_misfits(corpora: Corpora, *configs: TrainConfig) -> Corpora:
    """Clips of another length or speed, and clips too narrow for every ladder, become failures before anything
    starts."""
    works, failures = [], list(corpora.failures)
    for work in corpora.works:
        misfits = [misfit for config in configs if (misfit := _misfit(work, config))]
        if len(misfits) < len(configs):
            works.append(work)
        else:
            failures.append((work.source, f"{work.clip_id}: {misfits[0]}"))
    return Corpora(tuple(works), tuple(failures), corpora.dropped)


def _misfit(work: Work, config: TrainConfig) -> str:
    """Why a clip cannot be trained so; '' if it can."""
    if (work.num_frames, work.fps) != (config.num_frames, FPS):
        wanted = f"{config.num_frames} at {FPS:g} are needed; make its shard with these"
        return f"has {work.num_frames} frames at {work.fps:g} FPS, {wanted}"
    try:
        ladder(config, work.height, work.width)
    except ValueError as error:
        return str(error)
    return ""


def max_height(config: TrainConfig) -> int:
    """Height in px that decoding keeps: enough for the finest scale, also of portrait videos on a width ladder."""
    return max(256, config.max_size if config.ladder_side == "height" else 2 * config.max_size)

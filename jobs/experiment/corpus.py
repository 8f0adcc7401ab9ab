"""What --corpus names, as clips to train: a file, folder, manifest, URI, `demo`, or shards."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from infra.errors import UsageError, one_line, printable
from jobs.experiment.experiment import Experiment
from model.config import TrainConfig
from model.pyramid import ladder
from pipeline import clips, shards, video
from pipeline.clips import ClipSpec
from pipeline.prepare import fetch_all, prepare
from pipeline.shards import ShardEntry
from pipeline.sources import Failure

FPS = clips.FPS  # of a video that goes with no model
ANY_HEIGHT = 1 << 14  # px, that no video has more of: none is shrunk
FIRST_FRAME = re.compile(r"-\d{6}$")  # of a clip's id: what pipeline/clips.py adds where a video has several


@dataclass(frozen=True)
class Clip:
    """A clip that can be trained, or a long video.

    Attributes:
        source: fit for one line of text, whatever the file's name holds.
        height, width: px.
        chunks: where the frames of each chunk are, of a clip one; none in a preview, which reads no frames.
        num_chunks: how many there are, in a preview too.
    """

    clip_id: str
    source: str
    height: int
    width: int
    num_frames: int
    fps: float
    chunks: tuple[ShardEntry, ...]
    num_chunks: int = 1

    def settings(self, config: TrainConfig) -> TrainConfig:
        """Those of its model: `config` with the clip's own rate, where `config` names none."""
        return config if config.fps else replace(config, fps=self.fps)


@dataclass(frozen=True)
class Corpus:
    """What --corpus holds.

    Attributes:
        failures: (source, one line) of what is no clip.
        dropped: source → frames that no clip uses.
        notes: lines on videos that are used, and on files that are left out.
    """

    clips: tuple[Clip, ...]
    failures: tuple[tuple[str, str], ...]
    dropped: Mapping[str, int]
    notes: tuple[str, ...] = ()


def clip_spec(config: TrainConfig) -> ClipSpec:
    """How a model's clips are cut. Frames are kept as high as its finest scale needs, also of portrait videos on a
    width ladder; as high as the source's where the pyramid is made of those."""
    height = max(256, config.max_size if config.ladder_side == "height" else 2 * config.max_size)
    height = ANY_HEIGHT if config.resizing == "opencv" else height
    return ClipSpec(config.num_frames, config.fps, config.stride, height)


def read_corpus(given: str, experiment: Experiment, config: TrainConfig, *others: TrainConfig) -> Corpus:
    """The clips of --corpus. Videos are decoded once, into the experiment's shards.

    Without a stride in `config` each clip is one to train. With stride k, chunks begin every k frames, and the chunks
    of a video are trained as one model. Clips of a video that come in shards are its chunks, whatever their stride was.

    Args:
        others: more configs that the clips are trained with, of the same `num_frames`, `fps`, `stride` and `resizing`.
            Frames are kept as high as any needs, and a clip is left out if it fits none.

    Raises UsageError for a corpus that cannot be fetched and for shards that cannot be used or written.
    """
    local = _fetched(given, experiment.fetched)
    try:
        if shards.is_corpus(local):
            found = Corpus(_joined(_clips(shards.index(local)), config.stride), (), {})
        else:
            height = max(clip_spec(each).max_height for each in (config, *others))
            spec = replace(clip_spec(config), max_height=height)
            prepared = prepare([local], experiment.shards, spec)
            whole = _joined(_clips(prepared.entries), config.stride)
            failures, dropped = _printable_failures(prepared.failures), _printable_sources(prepared.dropped)
            found = Corpus(whole, failures, dropped, tuple(printable(note.line) for note in prepared.notes))
    except (shards.ShardError, OSError) as error:
        raise UsageError(one_line(error)) from error
    return _without_misfits(found, config, *others)


def preview_corpus(given: str, config: TrainConfig, cache: Path) -> Corpus:
    """What `read_corpus` would read, from the headers of the files alone. cache: for a corpus behind a URI."""
    local = _fetched(given, cache)
    try:
        if shards.is_corpus(local):
            return _without_misfits(Corpus(_joined(_clips(shards.index(local)), config.stride), (), {}), config)
    except shards.ShardError as error:
        raise UsageError(str(error)) from error
    planned = clips.plan([local], clip_spec(config))
    infos = {source: video.probe(source) for source in {plan.source for plan in planned.clips}}
    found = tuple(
        Clip(plan.clip_id, printable(plan.source), info.height, info.width, plan.num_frames, plan.fps, ())
        for plan in planned.clips
        for info in [infos[plan.source]]
    )
    dropped = _printable_sources(planned.dropped)
    notes = tuple(printable(note.line) for note in planned.notes)
    whole = Corpus(_joined(found, config.stride), _printable_failures(planned.failures), dropped, notes)
    return _without_misfits(whole, config)


def frames_of_video(path: str, config: TrainConfig) -> list[np.ndarray]:
    """What a model is trained on if `path` is its video: the first clip, or with a stride all chunks.

    uint8 (T, H, W, 3) RGB each. Raises VideoError.
    """
    spec = clip_spec(config)
    if spec.stride is None:
        return [video.decode(path, num_frames=spec.num_frames, fps=spec.fps, max_height=spec.max_height)]
    whole = video.decode(path, fps=spec.fps, max_height=spec.max_height)
    starts = range(0, max(1, len(whole) - spec.num_frames + 1), spec.stride)
    return [whole[start : start + spec.num_frames] for start in starts]


def clip_frames(experiment: Experiment, corpus: str, stride: int | None) -> dict[str, tuple[ShardEntry, ...]]:
    """Where the frames of an experiment's clips are: in its own shards, or in those it was trained on.

    Args: stride: the experiment's; its shards may hold chunks of another one, from before `--fresh`.

    Returns: by the id of each clip its shard entry, and by that of each video those of all its chunks.
    Raises UsageError for shards that cannot be used.
    """
    own = experiment.shards
    local, _ = fetch_all([corpus], experiment.fetched)  # the corpus may be gone; what was cut from it is in `own`
    try:
        entries = [e for folder in [*map(Path, local), own] if shards.is_corpus(folder) for e in shards.index(folder)]
    except shards.ShardError as error:
        raise UsageError(str(error)) from error
    found = list({clip.clip_id: clip for clip in _clips(entries)}.values())
    frames = {clip.clip_id: clip.chunks for clip in [*_joined(found, 1), *found]}
    if stride is None:
        return frames
    return {
        clip_id: chunks_at_stride(chunks, stride) if Path(chunks[0].shard).parent == own else chunks
        for clip_id, chunks in frames.items()
    }


def chunks_at_stride(chunks: Sequence[ShardEntry], stride: int) -> tuple[ShardEntry, ...]:
    """Those that begin a multiple of the stride behind the first one."""
    first = min(chunk.start_frame for chunk in chunks)
    return tuple(chunk for chunk in chunks if (chunk.start_frame - first) % stride == 0)


def _fetched(given: str, cache: Path) -> str:
    """--corpus on this machine. Raises UsageError."""
    local, failures = fetch_all([given], cache)
    if failures:
        raise UsageError(failures[0].reason)
    return local[0]


def _clips(entries: Sequence[ShardEntry]) -> tuple[Clip, ...]:
    return tuple(
        Clip(entry.clip_id, printable(entry.source), entry.height, entry.width, entry.num_frames, entry.fps, (entry,))
        for entry in entries
    )


def _joined(found: Sequence[Clip], stride: int | None) -> tuple[Clip, ...]:
    """With a stride, clips whose ids differ in the number of their first frame only, as one: the chunks of a video."""
    if stride is None:
        return tuple(found)
    by_video: dict[tuple[object, ...], list[Clip]] = {}
    for clip in found:  # of one size, so that they can be one batch: the video's, unless shards say otherwise
        name = FIRST_FRAME.sub("", clip.clip_id)
        by_video.setdefault((name, clip.source, clip.height, clip.width, clip.num_frames, clip.fps), []).append(clip)
    return tuple(
        replace(
            parts[0],
            clip_id=FIRST_FRAME.sub("", parts[0].clip_id),
            chunks=tuple(chunk for part in parts for chunk in part.chunks),
            num_chunks=len(parts),
        )
        if len(parts) > 1
        else parts[0]
        for parts in by_video.values()
    )


def _without_misfits(corpus: Corpus, *configs: TrainConfig) -> Corpus:
    """Clips of another length or speed, and clips too narrow for every ladder, become failures."""
    fitting, failures = [], list(corpus.failures)
    for clip in corpus.clips:
        misfits = [misfit for config in configs if (misfit := _misfit(clip, config))]
        if len(misfits) < len(configs):
            fitting.append(clip)
        else:
            failures.append((clip.source, f"{clip.clip_id}: {misfits[0]}"))
    return replace(corpus, clips=tuple(fitting), failures=tuple(failures))


def _misfit(clip: Clip, config: TrainConfig) -> str:
    """Why a clip cannot be trained so; '' if it can."""
    if (clip.num_frames, clip.fps) != (config.num_frames, config.fps or clip.fps):
        rate = f" at {config.fps:g}" if config.fps else ""
        wanted = f"{config.num_frames}{rate} are needed; make its shard with these"
        return f"has {clip.num_frames} frames at {clip.fps:g} FPS, {wanted}"
    try:
        ladder(config, clip.height, clip.width)
    except ValueError as error:
        return str(error)
    return ""


# -- names and reasons as they can be printed: a file's name may hold line ends and commands to a terminal


def _printable_failures(failures: Sequence[Failure]) -> tuple[tuple[str, str], ...]:
    return tuple((printable(failure.source), printable(failure.reason)) for failure in failures)


def _printable_sources(dropped: Mapping[str, int]) -> dict[str, int]:
    return {printable(source): frames for source, frames in dropped.items()}

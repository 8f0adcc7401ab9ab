"""What --corpus names, as clips to train: a file, folder, manifest, URI, `demo`, or shards."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from infra.errors import UsageError, counted, one_line, printable
from jobs.experiment.experiment import Experiment
from model.config import TrainConfig
from model.pyramid import ladder
from pipeline import clips, image, shards, video
from pipeline.clips import ClipSpec
from pipeline.prepare import fetch_all, prepare
from pipeline.shards import Decode, ShardEntry, in_turn
from pipeline.sources import split_start

FPS = clips.FPS  # of a video that goes with no model
ANY_HEIGHT = 1 << 14  # px, that no video has more of: none is shrunk
FIRST_FRAME = re.compile(r"-\d{6}$")  # of a clip's id: what pipeline/clips.py adds where a video has several


@dataclass(frozen=True)
class Clip:
    """A clip that can be trained, or a long video.

    Attributes:
        source: where its video or image is found again: an absolute path, or a URI below that of --corpus; of shards
            the name in them. Fit for one line of text, whatever the file's name holds.
        height, width: px, of its frames as they are kept: shrunk where the file's are higher than is needed.
        chunks: where the frames of each chunk are, of a clip one; none in a preview, which reads no frames.
        num_chunks: how many there are, in a preview too.
        start_frame: of the first chunk, at `fps`.
    """

    clip_id: str
    source: str
    height: int
    width: int
    num_frames: int
    fps: float
    chunks: tuple[ShardEntry, ...]
    num_chunks: int = 1
    start_frame: int = 0

    @property
    def dims(self) -> int:
        """2 of an image, which is a clip of one frame; 3 of a video."""
        return 2 if self.num_frames == 1 else 3

    def settings(self, config: TrainConfig) -> TrainConfig:
        """Those of its model: `config` with the clip's own rate, where `config` names none."""
        return config if config.fps or config.dims == 2 else replace(config, fps=self.fps)


@dataclass(frozen=True)
class Corpus:
    """What --corpus holds.

    Attributes:
        failures: (source, one line) of what is no clip; the source as of a clip.
        dropped: source → frames that no clip uses.
        notes: lines on videos that are used, and on files that are left out.
    """

    clips: tuple[Clip, ...]
    failures: tuple[tuple[str, str], ...]
    dropped: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def check(self, given: str) -> None:
        """Raises UsageError if there is no clip. given: as --corpus names it."""
        if not self.clips:
            raise UsageError(f"{printable(given)}: no clip that can be trained")


def clip_spec(*configs: TrainConfig) -> ClipSpec:
    """How the clips of models are cut: videos and images, each as the configs of its kind say.

    Args: configs: those of videos of the same `num_frames`, `fps`, `stride` and `resizing`.
    """
    videos, images = ([config for config in configs if config.dims == dims] for dims in (3, 2))
    spec = ClipSpec(max_image_height=max(map(_height, images), default=ClipSpec.max_image_height))
    if not videos:
        return spec
    num_frames, fps, stride = videos[0].num_frames, videos[0].fps, videos[0].stride
    height = max(map(_height, videos))
    return replace(spec, num_frames=num_frames, fps=fps, stride=stride, max_height=height)


def _height(config: TrainConfig) -> int:
    """Px that frames are kept at: what a model's finest scale needs, also of portrait videos on a width ladder; that of
    the source where the pyramid is made of it."""
    if config.resizing == "opencv":
        return ANY_HEIGHT
    return max(256, config.max_size if config.ladder_side == "height" else 2 * config.max_size)


def read_corpus(
    given: str,
    experiment: Experiment,
    *configs: TrainConfig,
    advance: Callable[[int, int], None] = lambda done, total: None,
    decode: Decode = in_turn,
    misfit: str = "",
) -> Corpus:
    """The clips of --corpus. Videos and images are decoded once, into the experiment's shards.

    Without a stride each clip is one to train. With stride k, chunks begin every k frames, and the chunks of a video
    are trained as one model. Clips of a video that come in shards are its chunks, whatever their stride was.

    Args:
        configs: that the clips are trained with, those of videos of the same `num_frames`, `fps`, `stride` and
            `resizing`. Frames are kept as high as any needs, and a clip is left out if it fits none.
        advance, decode: as of `pipeline.prepare.prepare`.
        misfit: as of `ModelSettings`, told of clips of a kind that none of the configs is for.

    Raises UsageError for a corpus that cannot be fetched and for shards that cannot be used or written.
    """
    local = _fetched(given, experiment.fetched)
    spec = clip_spec(*configs)
    try:
        if shards.is_corpus(local):
            found = Corpus(_joined(_clips(shards.index(local)), spec.stride), (), {})
        else:
            prepared = prepare([local], experiment.shards, spec, advance, decode)
            place = partial(_place, given, local)
            entries = [replace(entry, source=place(entry.source)) for entry in prepared.entries]
            whole = _joined(_clips(entries), spec.stride)
            failures = tuple((place(failure.source), printable(failure.reason)) for failure in prepared.failures)
            dropped = _printable_sources(prepared.dropped)
            found = Corpus(whole, failures, dropped, tuple(printable(note.line) for note in prepared.notes))
    except (shards.ShardError, OSError) as error:
        raise UsageError(one_line(error)) from error
    return _without_misfits(found, *configs, misfit=misfit)


def preview_corpus(
    given: str,
    cache: Path,
    *configs: TrainConfig,
    done: Callable[[Sequence[str]], Collection[str]] = lambda clip_ids: (),
    advance: Callable[[int, int], None] = lambda done, total: None,
    misfit: str = "",
) -> Corpus:
    """What `read_corpus` would read, from the headers of videos, and from images, which are tried.

    Args:
        cache: for a corpus behind a URI.
        done: which of some clips have nothing left to do: their images are not tried.
        advance: called with how many images were tried, and of how many.
        misfit: as of `read_corpus`.
    """
    local = _fetched(given, cache)
    spec = clip_spec(*configs)
    try:
        if shards.is_corpus(local):
            found = Corpus(_joined(_clips(shards.index(local)), spec.stride), (), {})
            return _without_misfits(found, *configs, misfit=misfit)
    except shards.ShardError as error:
        raise UsageError(str(error)) from error
    planned = clips.plan([local], spec)
    images = [plan for plan in planned.clips if plan.is_image]
    ended = done([plan.clip_id for plan in images])
    waiting = [plan for plan in images if plan.clip_id not in ended]
    planned = planned.without(clips.unreadable(waiting, advance))
    by_source = {plan.source: plan for plan in planned.clips}
    sizes = {
        source: video.shrunk(info.width, info.height, spec.max_image_height if plan.is_image else spec.max_height)
        for source, plan in by_source.items()
        for info in [image.probe(source) if plan.is_image else video.probe(source)]
    }
    place = partial(_place, given, local)
    previewed = tuple(
        Clip(
            plan.clip_id,
            place(plan.source),
            height,
            width,
            plan.num_frames,
            plan.fps,
            (),
            start_frame=plan.start_frame,
        )
        for plan in planned.clips
        for width, height in [sizes[plan.source]]
    )
    dropped = _printable_sources(planned.dropped)
    notes = tuple(printable(note.line) for note in planned.notes)
    failures = tuple((place(failure.source), printable(failure.reason)) for failure in planned.failures)
    whole = Corpus(_joined(previewed, spec.stride), failures, dropped, notes)
    return _without_misfits(whole, *configs, misfit=misfit)


def frames_of_source(path: str, config: TrainConfig) -> list[np.ndarray]:
    """What a model is trained on if `path` is its image or video: of that the first clip, or with a stride all chunks.

    Args: path: a video's begins where it says, clip.mp4@2.5 at 2.5 s.

    uint8 (T, H, W, 3) RGB each. Raises VideoError, also for an image where a video is needed, and for a video where an
    image is.
    """
    spec = clip_spec(config)
    path, start_s = split_start(path)
    if image.is_image(path) != (config.dims == 2):
        kinds = ("an image", "videos") if config.dims == 3 else ("no image", "images")
        raise video.video_error(path, f"is {kinds[0]}, and the model is of {kinds[1]}", "give one of its kind")
    if config.dims == 2:
        return [image.read(path, spec.max_image_height)]
    first = round(start_s * (spec.fps or video.probe(path).fps)) if start_s else 0
    decode = partial(video.decode, path, start_frame=first, fps=spec.fps, max_height=spec.max_height)
    if spec.stride is None:
        return [decode(num_frames=spec.num_frames)]
    whole = decode()
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
    try:
        named, start_s = split_start(local[0])
    except video.VideoError as error:
        raise UsageError(str(error)) from None
    if start_s is not None and shards.is_corpus(named):
        cause = f"shards are cut already, and cannot begin at {start_s:g} s"
        raise UsageError(f"{printable(named)}: {cause}; give --start to make_shards.py")
    return local[0]


def _place(given: str, local: str, source: str) -> str:
    """Where a source is found again, whatever folder this runs in; fit for one line.

    Args: given: --corpus; local: the same on this machine, as `_fetched` returned it.
    """
    root = split_start(local)[0]
    if given != local and source.startswith(root):
        uri = given if root == local else split_start(given)[0]
        return printable(uri.rstrip("/") + source.removeprefix(root))
    return printable(os.path.abspath(source))


def _clips(entries: Sequence[ShardEntry]) -> tuple[Clip, ...]:
    return tuple(
        Clip(
            entry.clip_id,
            printable(entry.source),
            entry.height,
            entry.width,
            entry.num_frames,
            entry.fps,
            (entry,),
            start_frame=entry.start_frame,
        )
        for entry in entries
    )


def _video_of(clip: Clip) -> str:
    """The id of a clip's video, without the number of the clip's first frame; an image has none."""
    return clip.clip_id if clip.dims == 2 else FIRST_FRAME.sub("", clip.clip_id)


def _joined(found: Sequence[Clip], stride: int | None) -> tuple[Clip, ...]:
    """With a stride, clips whose ids differ in the number of their first frame only, as one: the chunks of a video."""
    if stride is None:
        return tuple(found)
    by_video: dict[tuple[object, ...], list[Clip]] = {}
    for clip in found:  # of one size, so that they can be one batch: the video's, unless shards say otherwise
        name = _video_of(clip)
        by_video.setdefault((name, clip.source, clip.height, clip.width, clip.num_frames, clip.fps), []).append(clip)
    return tuple(
        replace(
            parts[0],
            clip_id=_video_of(parts[0]),
            chunks=tuple(chunk for part in parts for chunk in part.chunks),
            num_chunks=len(parts),
        )
        if len(parts) > 1
        else parts[0]
        for parts in by_video.values()
    )


def _without_misfits(corpus: Corpus, *configs: TrainConfig, misfit: str) -> Corpus:
    """Clips of another length or speed, and clips too narrow for every ladder, become failures: one a file."""
    fitting: list[Clip] = []
    failures: dict[str, tuple[str, str]] = {}  # by the id of the video
    for clip in corpus.clips:
        own = [config for config in configs if config.dims == clip.dims]
        lines = [line for config in own if (line := _misfit(clip, config))]
        if not own:
            lines = [_no_kind(clip, configs, misfit)]
        if len(lines) < len(own):
            fitting.append(clip)
        else:
            failures[_video_of(clip)] = clip.source, f"{clip.source}: {lines[0]}"
    return replace(corpus, clips=tuple(fitting), failures=(*corpus.failures, *failures.values()))


def _no_kind(clip: Clip, configs: Sequence[TrainConfig], misfit: str) -> str:
    """Why a clip of a kind that none of the configs is for cannot be trained."""
    if misfit:
        kind = "a video" if clip.dims == 3 else "an image"
        return f"is {kind}, which these settings do not fit ({misfit}); leave that out, or train it by itself"
    if clip.dims == 3:
        return "is a video, and these settings are of images; give a preset of videos"
    if any(config.stride for config in configs):
        return "is an image, which has no length; train it without --long"
    return "is an image, and these settings are of videos; give a preset of images, such as image_demo"


def _misfit(clip: Clip, config: TrainConfig) -> str:
    """Why a clip cannot be trained so; '' if it can."""
    if clip.dims == 3 and (clip.num_frames, clip.fps) != (config.num_frames, config.fps or clip.fps):
        rate = f" at {config.fps:g}" if config.fps else ""
        wanted = f"{config.num_frames}{rate} are needed; make its shard with these"
        return f"has {counted(clip.num_frames, 'frame')} at {clip.fps:g} FPS, {wanted}"
    try:
        coarsest = ladder(config, clip.height, clip.width)[0]
    except ValueError as error:
        return str(error)
    if clip.dims == 2 and (coarsest.height > clip.height or coarsest.width > clip.width):
        mend = "give a larger image, or set a smaller min_size"
        if clip.height >= _height(config):  # shrunk to it, and so narrow that the ladder is higher
            mend = "crop it, or set a smaller min_size"
        cause = f"is kept at {clip.height}×{clip.width} px (H×W), and its coarsest scale would be"
        return f"{cause} {coarsest.height}×{coarsest.width}; {mend}"
    return ""


# -- names and reasons as they can be printed: a file's name may hold line ends and commands to a terminal


def _printable_sources(dropped: Mapping[str, int]) -> dict[str, int]:
    return {printable(source): frames for source, frames in dropped.items()}

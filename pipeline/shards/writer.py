"""Clips in webdataset tars: 000000.tar with {clip_id}.frames.npy and {clip_id}.json; a sidecar 000000.json.

A shard is finished when its sidecar is there, which is written last; whatever else lies in the folder does
not count. Written here with webdataset, and readable by it; read by pipeline/shards/reader.py.
"""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any

from infra.errors import printable
from pipeline.clips import ClipPlan
from pipeline.shards.batch import Batch, Decode, OnClip, Written, in_turn
from pipeline.shards.reader import ShardError, sidecars
from pipeline.shards.shard_file import shard_errors, source_bytes
from pipeline.sources import Failure

_CUT_KEYS = ("num_frames", "fps", "start_frame", "as_is", "source_bytes")  # what an id stands for in a folder of shards


def write(
    clips: Sequence[ClipPlan],
    out_dir: str | os.PathLike[str],
    *,
    max_height: int = 256,
    max_image_height: int = 256,
    clips_per_shard: int = 64,
    on_clip: OnClip = lambda clip_id: None,
    decode: Decode = in_turn,
) -> Written:
    """Decode clips into shards in `out_dir`.

    Clips that finished shards hold are left as they are; new ones go to shard numbers that are free, so running the
    same command again does what is missing. Images go to shards of their own.

    Args:
        max_height: px; higher videos are shrunk to it.
        max_image_height: px; higher images are shrunk to it.
        clips_per_shard: the most. As many whole videos share a shard as fit; one with more clips has several.
        on_clip: called with each clip's id when it is written, failed, or found to be there.
        decode: decodes the batches; it returns what became of each.

    A clip that cannot be decoded, or that finished shards hold of another file of the same name, is a Failure and the
    others go on. Raises: ShardError when the folder holds
    a damaged shard or shards made with other settings, or cannot be written: finished shards are then as they
    were, and no half one is left; ValueError for numbers out of range; OSError for a source that is gone.
    """
    if clips_per_shard < 1:
        raise ValueError(f"clips_per_shard must be positive, got {clips_per_shard}")
    out_dir = Path(out_dir)
    of_videos, of_images = _settings(max_height, max_image_height)
    with shard_errors(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
    finished = sidecars(out_dir)
    todo, changed = _missing(clips, finished, (of_videos, of_images))
    wanted = set(todo)
    for clip in clips:
        if clip not in wanted:
            on_clip(clip.clip_id)
    taken = {int(path.stem) for path in finished}
    free = (number for number in count() if number not in taken)
    batches = [
        Batch(group, out_dir, tuple(islice(free, -(-len(group) // clips_per_shard))), clips_per_shard, settings)
        for settings, are_images in ((of_videos, False), (of_images, True))
        for group in _groups([clip for clip in todo if clip.is_image == are_images], clips_per_shard)
    ]
    parts = list(decode(batches, on_clip))
    return Written(
        tuple(shard for part in parts for shard in part.shards),
        tuple(clip_id for part in parts for clip_id in part.clip_ids),
        (*changed.values(), *(failure for part in parts for failure in part.failures)),
        len(clips) - len(todo) - len(changed),
        frozenset(changed),
    )


def missing(
    clips: Sequence[ClipPlan], out_dir: str | os.PathLike[str], *, max_height: int = 256, max_image_height: int = 256
) -> list[ClipPlan]:
    """The clips that `write` would decode. Raises as it does for what the folder holds, and for sizes out of range."""
    finished = sidecars(Path(out_dir)) if os.path.isdir(out_dir) else {}
    return _missing(clips, finished, _settings(max_height, max_image_height))[0]


def _settings(max_height: int, max_image_height: int) -> tuple[dict[str, int], dict[str, int]]:
    """That the sidecars of videos keep, and those of images. Raises ValueError."""
    if min(max_height, max_image_height) < 1:
        raise ValueError(f"max_height and max_image_height must be positive, got {max_height}, {max_image_height}")
    return {"max_height": max_height}, {"max_image_height": max_image_height}


def _groups(clips: Sequence[ClipPlan], most: int) -> Iterator[tuple[ClipPlan, ...]]:
    """Clips in their order: as many whole videos together as have `most` clips in all, or one that has more."""
    group: list[ClipPlan] = []
    for _, same_source in groupby(clips, lambda clip: clip.source):
        of_source = list(same_source)
        if group and len(group) + len(of_source) > most:
            yield tuple(group)
            group = []
        group += of_source
    if group:
        yield tuple(group)


def _missing(
    clips: Sequence[ClipPlan], finished: Mapping[Path, Mapping[str, Any]], settings: Sequence[Mapping[str, Any]]
) -> tuple[list[ClipPlan], dict[str, Failure]]:
    """The clips that are not there yet; and by id those that are there of another file, which has their name no more.

    Raises ShardError for shards of other settings, and for clips that are there, cut otherwise.
    """
    there: dict[str, tuple[Any, ...]] = {}
    for path, content in finished.items():
        made_with = content.get("settings")
        if made_with not in settings:
            same_kind = [each for each in settings if isinstance(made_with, dict) and made_with.keys() == each.keys()]
            raise ShardError(
                f"{printable(path)}: was made with {made_with}, not {(same_kind or settings)[0]}; "
                f"give the same settings or another --out"
            )
        there |= {clip["clip_id"]: tuple(clip.get(key) for key in _CUT_KEYS) for clip in content["clips"]}
    changed: dict[str, Failure] = {}
    size_of = functools.cache(source_bytes)  # that of a folder of frames is asked of each of them
    for clip in clips:
        now = (clip.num_frames, clip.fps, clip.start_frame, clip.as_is or None, size_of(clip.source))
        before = there.get(clip.clip_id, now)
        if before[:-1] == now[:-1] and before[-1] != now[-1]:
            cause = f"is another file than clip {clip.clip_id} was cut from ({before[-1]} bytes, now {now[-1]})"
            reason = f"{printable(clip.source)}: {cause}; rename it, or use another experiment or folder for it"
            changed[clip.clip_id] = Failure(clip.source, reason)
        elif before != now:
            changes = zip(_CUT_KEYS, there[clip.clip_id], now)
            words = ", ".join(f"{key} {old} is now {new}" for key, old, new in changes if old != new)
            raise ShardError(f"{clip.clip_id}: is there, cut otherwise ({words}); use another name or folder for it")
    return [clip for clip in clips if clip.clip_id not in there], changed

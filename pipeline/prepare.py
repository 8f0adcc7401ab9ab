"""From sources to clips whose frames can be read: fetch what is remote, plan, decode into shards, index."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from infra.remote import fetch
from pipeline import shards
from pipeline.clips import ClipSpec, plan
from pipeline.shards import Decode, ShardEntry, Written, in_turn
from pipeline.sources import Failure, Note, split_start


@dataclass(frozen=True)
class Prepared:
    """What `prepare` found and wrote.

    Attributes:
        entries: where the frames of each planned clip are, in the order of the shards; their sources are paths.
        written: what was decoded this time.
        failures: sources and clips that cannot be used.
        dropped: source → frames that no clip uses.
        notes: what is to be said of videos and images that are used, and of files that are left out.
    """

    entries: tuple[ShardEntry, ...]
    written: Written
    failures: tuple[Failure, ...]
    dropped: Mapping[str, int]
    notes: tuple[Note, ...] = ()


def prepare(
    sources: Sequence[str],
    folder: Path,
    spec: ClipSpec,
    advance: Callable[[int, int], None] = lambda done, total: None,
    decode: Decode = in_turn,
) -> Prepared:
    """Cut sources on this machine into clips, and decode into shards in `folder` what is not there yet.

    Args:
        sources: as `clips.plan` takes them; see `fetch_all`.
        advance: called with how many clips are written, failed or found to be there, and of how many.
        decode: as of `shards.write`.

    Raises ShardError and OSError as `shards.write` does. Without a clip nothing is written.
    """
    planned = plan(sources, spec)
    if not planned.clips:
        return Prepared((), Written((), (), (), 0), planned.failures, planned.dropped, planned.notes)
    sources_of, finished = {clip.clip_id: clip.source for clip in planned.clips}, 0

    def count(_clip_id: str) -> None:
        nonlocal finished
        finished += 1
        advance(finished, len(planned.clips))

    written = shards.write(
        planned.clips,
        folder,
        max_height=spec.max_height,
        max_image_height=spec.max_image_height,
        on_clip=count,
        decode=decode,
    )
    wanted = sources_of.keys() - written.changed
    found = (entry for entry in shards.index(folder) if entry.clip_id in wanted)
    entries = tuple(replace(entry, source=sources_of[entry.clip_id]) for entry in found)
    return Prepared(entries, written, (*planned.failures, *written.failures), planned.dropped, planned.notes)


def fetch_all(
    sources: Sequence[str], cache: Path, only: Collection[str] | None = None
) -> tuple[list[str], list[Failure]]:
    """Sources with URIs replaced by local copies in `cache`, and the ones that could not be copied.

    Args: only: as of `infra.remote.fetch`.
    """
    local: list[str] = []
    failures: list[Failure] = []
    for source in sources:
        try:
            local.append(_fetched(source, cache, only))
        except (ValueError, OSError) as error:
            failures.append(Failure(source, str(error)))
    return local, failures


def _fetched(source: str, cache: Path, only: Collection[str] | None) -> str:
    """A source on this machine. What a URI names as a whole comes before what it names without @SECONDS."""
    try:
        return fetch(source, cache, only)
    except ValueError:
        named, start_s = split_start(source)
        if start_s is None:
            raise
        return f"{fetch(named, cache, only)}@{start_s:g}"

"""--train and --test: a folder of videos, or a text file that lists them, such as UCF-101's trainlist01.txt."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.errors import UsageError
from jobs.evaluation.sample_folder import list_videos
from pipeline.sources import Video

LABEL = re.compile(r"\s+\d+$")  # of the class: trainlist01.txt has one a line, testlist01.txt none
MAX_BYTES = 1 << 26  # of a list
NAMED = 3  # lines of a list that are named one by one
MEND = "give a folder of videos, or a text file with the path of one a line, such as trainlist01.txt"


@dataclass(frozen=True)
class VideoSet:
    """Videos of a folder or a list.

    Attributes:
        name: the folder or list, as the user wrote it.
        videos: with absolute paths; each once.
        failures: what is no video, a line each.
    """

    name: str
    videos: Sequence[Video]
    failures: Sequence[str]


def video_set(source: str, videos: str | None = None) -> VideoSet:
    """The videos of a folder, or of a list.

    A line of a list that names no file costs that line.

    Args: videos: the folder where the paths in a list start; None: the first of `_places` that holds one of them.

    Raises UsageError for what is neither, and where there is no video.
    """
    if os.path.isdir(source):
        return VideoSet(source, *list_videos(source))
    names = _names(source)
    if videos is not None and not os.path.isdir(videos):
        raise UsageError(f"--videos {videos}: no such folder; give the one where the paths in {source} start")
    places = _places(source) if videos is None else [videos]
    root = next((place for place in places if any(os.path.isfile(os.path.join(place, name)) for name in names)), None)
    if root is None:
        mend = "give the folder where its paths start as --videos"
        raise UsageError(f"{source}: none of its {len(names)} lines names a file in {', '.join(places)}; {mend}")
    found: dict[str, Video] = {}
    missing: list[str] = []
    for name in names:
        path = os.path.abspath(os.path.join(root, name))
        if not os.path.isfile(path):
            missing.append(name)
        elif path not in found:
            found[path] = Video(path, _clip_id(name), numbered=True)
    failures = [f"{source}: {name}: no such file in {root}; its line is left out" for name in missing[:NAMED]]
    if len(missing) > NAMED:
        failures.append(f"{source}: {len(missing) - NAMED} more of its {len(names)} lines name no file there")
    return VideoSet(source, list(found.values()), failures)


def _names(path: str) -> list[str]:
    """The paths in a list, without labels. Raises UsageError, one line."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); {MEND}") from error
    if b"\0" in content or len(content) == MAX_BYTES:
        raise UsageError(f"{path}: is no text in UTF-8; {MEND}")
    lines = [os.fsdecode(line).strip() for line in content.removeprefix(codecs.BOM_UTF8).splitlines()]
    names = [LABEL.sub("", line) for line in lines if line]
    if not names:
        raise UsageError(f"{path}: is empty; {MEND}")
    return names


def _places(path: str) -> list[str]:
    """Where the paths in a list may start: its folder, the one above, and UCF-101/ in either, as the archives have it.

    UCF101.rar holds UCF-101/Class/…, the archive of the lists ucfTrainTestlist/trainlist01.txt.
    """
    folder = Path(os.path.abspath(path)).parent
    return [str(place) for above in (folder, folder.parent) for place in (above, above / "UCF-101")]


def _clip_id(name: str) -> str:
    """Readable, and distinct by the path in the list; fit for file names."""
    stem = re.sub(r"[^a-z0-9]+", "-", Path(name).stem.lower()).strip("-")[:40] or "clip"
    return f"{stem}-{hashlib.sha1(os.fsencode(name), usedforsecurity=False).hexdigest()[:6]}"

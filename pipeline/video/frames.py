"""Folders of numbered frames: which files are the frames, and what is to be said of the others."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from infra.errors import printable
from pipeline.video.errors import video_error
from pipeline.video.ffmpeg import IMAGE_SUFFIXES, AnyPath

FRAME_SUFFIXES = IMAGE_SUFFIXES | {".gif"}
# In a name, a second of the day, or one since 1970.
TIME = re.compile(r"(?<!\d)(([01]\d|2[0-3])[-_.:h ][0-5]\d[-_.:m ][0-5]\d|1\d{9})(?!\d)")
NAMED = 3  # files that are left out and named one by one


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which "2.png" comes before "10.png"."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def frame_files(folder: AnyPath) -> list[Path]:
    """The numbered images of a folder (1.png .. 10.png, frame_001.jpg ..), in natural order: its longest sequence.

    Raises: VideoError when there is none, two have the same number, or the folder may not be read.
    """
    files, _ = numbered_images(folder)
    if not files:
        raise video_error(folder, "holds no numbered frames", "name them 1.png, 2.png, ...")
    for before, after in pairwise(files):
        if natural_key(before.stem) == natural_key(after.stem):
            raise video_error(after, f"has the same number as {printable(before.name)}", "keep one of the two")
    return files


def frame_notes(folder: AnyPath) -> Iterator[str]:
    """One line each on images of the folder that are no frames of it, and on numbers that are missing."""
    files, others = numbered_images(folder)
    if others:
        used = f"the {len(files)} frames {printable(files[0].name)} to {printable(files[-1].name)} are one clip's"
        yield str(video_error(folder, f"{listed(others)} left out, {used}", "give other frames a folder of their own"))
    numbers = _numbers(files)
    steps = [abs(after - before) for before, after in pairwise(numbers)]  # what is below 0 counts down
    gaps = [place for place, step in enumerate(steps) if step != min(steps)]
    if gaps and 2 * len(gaps) < len(steps):  # else the numbers are times of day, or of no order
        where = f"between {printable(files[gaps[0]].name)} and {printable(files[gaps[0] + 1].name)}"
        times = "" if len(gaps) == 1 else f" and in {len(gaps) - 1} more places"
        yield str(video_error(folder, f"lacks numbers {where}{times}", "add the missing frames, or cut it there"))


def listed(files: Sequence[Path]) -> str:
    """The names of the first files, and how many there are more."""
    names = ", ".join(printable(file.name) for file in files[:NAMED])
    return names + (f" and {len(files) - NAMED} more" if len(files) > NAMED else "")


def files_of(folder: AnyPath, suffixes: Collection[str]) -> list[Path]:
    """The files of a folder with these suffixes in natural order, hidden ones left out. Raises: VideoError."""
    try:
        files = [
            file
            for file in Path(folder).iterdir()
            if file.suffix.lower() in suffixes and not file.name.startswith(".") and os.path.isfile(file)
        ]
    except OSError as error:
        raise video_error(folder, f"cannot be listed ({error.strerror})", "check the folder") from None
    return sorted(files, key=lambda file: (natural_key(file.stem), file.name))


def numbered_images(folder: AnyPath) -> tuple[list[Path], list[Path]]:
    """The longest sequence of numbered images of a folder, and its other images. Raises: VideoError."""
    images = files_of(folder, FRAME_SUFFIXES)
    sequences: dict[str, list[Path]] = defaultdict(list)
    for file in images:
        if re.search(r"\d", file.stem):
            sequences[re.sub(r"\d+", "#", file.stem)].append(file)
    parts = (
        _from_below_zero(part, sequences.get(re.sub(r"#(\D*)$", r"-#\1", name), []))
        for name, same in sequences.items()
        for one in _by_suffix(same)
        for part in _parted(one)
    )
    frames = max(parts, key=len, default=[])
    chosen = set(frames)
    return frames, [file for file in images if file not in chosen]


def _from_below_zero(files: list[Path], others: Sequence[Path]) -> list[Path]:
    """A sequence that begins at 0, with others of its name before it, whose dash is then a minus sign."""
    below = [file for file in others if file.suffix == files[0].suffix]
    is_of_both = below and _last_number(files[0]) == 0 and all(map(_last_number, below))
    return [*reversed(below), *files] if is_of_both else files


def _last_number(file: Path) -> int:
    return int(re.findall(r"\d+", file.stem)[-1])


def _by_suffix(files: Sequence[Path]) -> list[list[Path]]:
    """Names of one pattern as sequences: 1.jpg and 1.png are of two, the jpgs before their masks."""
    if len({natural_key(file.stem) for file in files}) == len(files):
        return [list(files)]
    same: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(files, key=lambda file: file.suffix.lower() not in (".jpg", ".jpeg")):
        same[file.suffix.lower()].append(file)
    return list(same.values())


def _parted(files: Sequence[Path]) -> list[list[Path]]:
    """Names of one pattern as sequences: cam1_001 and cam2_001 are of two, as the last number is there twice."""
    by_beginning: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        by_beginning[re.sub(r"\d+(?=\D*$)", "#", file.stem)].append(file)
    parts = [part for part in by_beginning.values() if len(part) > 1]
    last = [{re.findall(r"\d+", file.stem)[-1] for file in part} for part in parts]
    if len(parts) > 1 and any(not one.isdisjoint(other) for one, other in pairwise(last)) and not _are_seconds(parts):
        return parts
    return [list(files)]


def _are_seconds(parts: Sequence[Sequence[Path]]) -> bool:
    """Whether parts are the seconds of one clip, by names that are times: shot_00_00_01_040, 1305031102.175304.

    With a date, as in 20230101101501-02, one second has to follow the other; without, the last numbers may not count.
    """
    names = [part[0].stem for part in parts]
    seconds = [int(found[0]) for name in names if (found := re.findall(r"\d{14}", name))]
    if len(seconds) == len(names):
        steps = [after - before for before, after in pairwise(seconds)]
        return 2 * steps.count(1) > len(steps)
    counts = [[_last_number(file) for file in part] for part in parts]
    is_counted = all(after - before == 1 for count in counts for before, after in pairwise(count))
    return not is_counted and bool(TIME.search(names[0]))


def _numbers(files: Sequence[Path]) -> list[int]:
    """The number of each file that tells it from the one before: of several in its name, the last that is not fixed."""
    rows = [[int(number) for number in re.findall(r"\d+", file.stem)] for file in files]
    columns = [column for column in zip(*rows) if len(set(column)) > 1]
    return list(columns[-1]) if columns and len(columns) == 1 else []

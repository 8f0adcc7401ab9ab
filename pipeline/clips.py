"""Sources (files, folders, folders of frames, CSV manifests, "demo") -> plans of clips with stable ids.

An image is a clip of one frame.

planned = plan(["my_videos/"], ClipSpec(stride=13))
planned.clips      # what shards.write takes
planned.failures   # what cannot be used, one line each
planned.dropped    # frames that no clip uses, by source
planned.notes      # what is to be said of videos and images that are used
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from infra.errors import counted, printable
from pipeline import image, video
from pipeline.sources import Failure, Note, Still, Video, expand

MIN_SIDE_PX = 16
FPS = 24.0  # of the paper, §3.2
FEW_PICTURES = 4  # in a clip: of fewer a note says so
CHECKED_AT_ONCE = 8  # images; the largest that are read take 256 MiB each


@dataclass(frozen=True)
class ClipSpec:
    """How videos are cut into clips, and what becomes of images, which are clips of one frame.

    Attributes:
        num_frames: of a video's clip, 2 or more.
        fps: frames a second that videos are resampled to (paper §3.2); None: each picture of a file is one frame.
        stride: frames from one clip's start to the next; None: one clip a video, its first.
        max_height: px; higher videos are shrunk to it.
        max_image_height: px; higher images are shrunk to it.
    """

    num_frames: int = 13
    fps: float | None = FPS
    stride: int | None = None
    max_height: int = 256
    max_image_height: int = 256

    def __post_init__(self) -> None:
        counts = (self.num_frames, self.stride or 1, self.max_height, self.max_image_height)
        if self.num_frames == 1:
            raise ValueError("a clip of 1 frame is an image; num_frames must be 2 or more")
        if min(counts) < 1 or self.stride == 0 or not (self.fps is None or 0 < self.fps < 1e6):
            raise ValueError(f"num_frames, fps, stride and maximum heights must be positive, got {self}")


@dataclass(frozen=True)
class ClipPlan:
    """One clip to cut: `num_frames` frames of `source` from `start_frame` on, all counted at `fps`.

    Of an image: one frame from 0 on; `fps` means nothing.
    """

    clip_id: str
    source: str
    start_frame: int
    num_frames: int = 13
    fps: float = 24.0
    as_is: bool = False  # counted in pictures of the file instead, which are shown at `fps`

    @property
    def is_image(self) -> bool:
        """Whether the source is an image. A video's clip has 2 frames or more."""
        return self.num_frames == 1


@dataclass(frozen=True)
class Planned:
    """What `plan` read in its sources: clips to cut, and what cannot be used."""

    clips: tuple[ClipPlan, ...]
    failures: tuple[Failure, ...]
    dropped: Mapping[str, int]  # source -> frames (at fps) that no clip uses; sources without any are left out
    notes: tuple[Note, ...] = ()

    def without(self, failures: Sequence[Failure]) -> Planned:
        """The same, of whose clips those of some sources are failures."""
        gone = {failure.source for failure in failures}
        kept = tuple(clip for clip in self.clips if clip.source not in gone)
        return replace(self, clips=kept, failures=(*self.failures, *failures))


def plan(sources: Sequence[str], spec: ClipSpec) -> Planned:
    """What to cut from `sources`, in their order. Reads headers only (and counts frames where there is none).

    Args:
        sources: video or image file; folder of these (recursive); folder of numbered frames; CSV manifest with
            columns clip_id,path,start_s[,duration_s] (paths relative to the manifest); or "demo". Any but a manifest
            with @SECONDS behind it, where its videos begin.

    A manifest row without a stride gives one clip, at its start_s. Nothing in a source raises: what cannot be used is
    a Failure.
    """
    clips: list[ClipPlan] = []
    failures: list[Failure] = []
    notes: dict[str, Note] = {}  # by line
    owners: dict[str, Video | Still] = {}  # by clip id
    totals: dict[str, int] = {}
    used: dict[str, list[range]] = {}  # frames of a source, a clip each
    for found in (item for source in sources for item in expand(source)):
        if isinstance(found, Failure):
            failures.append(found)
            continue
        if isinstance(found, Note):
            notes[found.line] = found
            continue
        owner = owners.setdefault(found.clip_id, found)
        if owner is not found:
            if not _same(owner, found):
                failures.append(_same_id(found, owner, found.clip_id))
                continue
            if _start(owner) == _start(found):  # the very same video given twice needs no second clip
                continue
        try:
            cut, total, lines = _image(found, spec) if isinstance(found, Still) else _video(found, spec)
        except video.VideoError as error:
            failures.append(Failure(found.named_as or found.path, _blame(found, str(error))))
            continue
        totals[found.path] = total
        notes |= {line: Note(found.path, line) for line in lines}
        if taken := [clip.clip_id for clip in cut if owners.setdefault(clip.clip_id, found) is not found]:
            failures.append(_same_id(found, owners[taken[0]], taken[0]))
            continue
        clips += cut
        for clip in cut:
            used.setdefault(found.path, []).append(range(clip.start_frame, clip.start_frame + clip.num_frames))
    unused = {path: totals[path] - _covered(parts) for path, parts in used.items()}
    dropped = {path: frames for path, frames in unused.items() if frames > 0}
    return Planned(tuple(clips), tuple(failures), dropped, tuple(notes.values()))


def unreadable(
    planned: Sequence[ClipPlan], advance: Callable[[int, int], None] = lambda done, total: None
) -> list[Failure]:
    """The images of planned clips that cannot be read to their end, which their headers do not tell.

    Args: advance: called with how many images were read, and of how many.
    """
    paths = [clip.source for clip in planned if clip.is_image]
    failures = []
    with ThreadPoolExecutor(min(CHECKED_AT_ONCE, os.cpu_count() or 1)) as pool:
        for done, (path, reason) in enumerate(zip(paths, pool.map(_damage, paths)), start=1):
            advance(done, len(paths))
            if reason:
                failures.append(Failure(path, reason))
    return failures


def _damage(path: str) -> str:
    """Why an image cannot be read to its end; "" if it can."""
    try:
        image.check(path)
    except video.VideoError as error:
        return str(error)
    return ""


def _covered(parts: Sequence[range]) -> int:
    """How many numbers are in at least one of the ranges."""
    count, end = 0, 0
    for part in sorted(parts, key=lambda part: part.start):
        count += max(0, part.stop - max(part.start, end))
        end = max(end, part.stop)
    return count


def _image(found: Still, spec: ClipSpec) -> tuple[list[ClipPlan], int, list[str]]:
    """The clip of an image, its number of frames, and lines to tell. Raises: VideoError."""
    info = image.probe(found.path)
    _check_sides(info, "image", spec.max_image_height)
    lines = []
    if info.pictures > 1:
        cause = f"holds {info.pictures} pictures, and the first or main one is taken"
        lines.append(str(video.video_error(found.path, cause, "save each as a file of its own to train it")))
    if info.is_hdr:
        cause = "is an HDR image, which is not turned into SDR: its colours will be pale"
        lines.append(str(video.video_error(found.path, cause, "export it in SDR")))
    return [ClipPlan(found.clip_id, found.path, 0, 1, FPS)], 1, lines


def _video(found: Video, spec: ClipSpec) -> tuple[list[ClipPlan], int, list[str]]:
    """The clips of a video, its number of frames, and lines to tell. Raises: VideoError."""
    info = video.probe(found.path)
    total = _usable_frames(info, spec)
    return _cut(found, info, total, spec), total, [*video.notes(info), *_few_pictures(info, total, spec)]


def _check_sides(info: video.VideoInfo | image.ImageInfo, what: str, max_height: int) -> None:
    """Raises VideoError for one that is too small, or too narrow once it is as high as it may be."""
    least, cause = f"{MIN_SIDE_PX}×{MIN_SIDE_PX} is the least", f"is {info.height}×{info.width} px (H×W)"
    if min(info.width, info.height) < MIN_SIDE_PX:
        raise video.video_error(info.path, f"{cause}, {least}", f"give a larger {what}")
    width, height = video.shrunk(info.width, info.height, max_height)
    if min(width, height) < MIN_SIDE_PX:
        raise video.video_error(info.path, f"{cause}, kept at {height}×{width}, and {least}", "crop it")


def _usable_frames(info: video.VideoInfo, spec: ClipSpec) -> int:
    _check_sides(info, "video", spec.max_height)
    total = video.count_frames(info, spec.fps)
    if total == 0:
        mend = "copy it again, or join the parts of a stream to one file"
        raise video.video_error(info.path, "holds no frame, as one that was cut off or begins a stream of parts", mend)
    if total < spec.num_frames:
        cause = f"has only {counted(total, 'frame')}{_at(spec)}, {spec.num_frames} are needed"
        raise video.video_error(info.path, cause, "give a longer video")
    return total


def _few_pictures(info: video.VideoInfo, total: int, spec: ClipSpec) -> Iterator[str]:
    """A line on a video of so low a rate that a clip's frames are nearly all equal, such as a time lapse."""
    pictures = len(info.timeline) * spec.num_frames / total
    if spec.fps is not None and pictures < FEW_PICTURES:
        shown = f"{spec.num_frames} frames at {spec.fps:g} FPS show {max(1, round(pictures))} of its pictures"
        cause = f"has {info.fps:g} frames a second, so a clip's {shown}"
        yield str(video.video_error(info.path, cause, "give --as-is to take each picture as one frame"))


def _at(spec: ClipSpec) -> str:
    return "" if spec.fps is None else f" at {spec.fps:g} FPS"


def _cut(found: Video, info: video.VideoInfo, total: int, spec: ClipSpec) -> list[ClipPlan]:
    num_frames, fps = spec.num_frames, spec.fps or info.fps
    first = round(found.start_s * fps)
    stop = total if found.duration_s is None else min(total, first + round(found.duration_s * fps))
    if stop - first < num_frames:
        cause = f"{counted(max(stop - first, 0), 'frame')} between {found.start_s:g} s and "
        cause += "its end" if stop == total else f"{found.start_s + (found.duration_s or 0):g} s"
        mend = f"start earlier or take longer ({counted(total, 'frame')}{_at(spec)} there, a clip has {num_frames})"
        raise video.video_error(found.path, f"has only {cause}", mend)
    starts = range(first, stop - num_frames + 1, spec.stride or total)  # total: only the first one fits
    numbered = found.numbered or len(starts) > 1
    return [
        ClipPlan(
            found.clip_id + (f"-{start:06d}" if numbered else ""), found.path, start, num_frames, fps, spec.fps is None
        )
        for start in starts
    ]


def _same(one: Video | Still, other: Video | Still) -> bool:
    """Whether the two are one file, given twice. Two rows of a manifest never are."""
    if one.named_as or other.named_as:
        return False
    return os.path.realpath(one.path) == os.path.realpath(other.path)


def _start(found: Video | Still) -> float:
    return found.start_s if isinstance(found, Video) else 0.0


def _same_id(found: Video | Still, owner: Video | Still, clip_id: str) -> Failure:
    cause = f"its clip id {clip_id} is already that of {printable(owner.named_as or owner.path)}"
    mend = "rename one" if found.named_as else "rename one, or give the folder that holds both"
    reason = str(video.video_error(found.path, cause, mend))
    return Failure(found.named_as or found.path, _blame(found, reason))


def _blame(found: Video | Still, reason: str) -> str:
    return f"{found.named_as}: {reason}" if found.named_as else reason

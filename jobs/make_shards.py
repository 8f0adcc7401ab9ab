"""Cut videos into clips and write them as shards that training reads.

    python jobs/make_shards.py my_videos/ --out shards/
    python jobs/make_shards.py one.mp4@2.5 two.mp4@0 --stride 1s --out shards/

Running the same command again writes only the clips that are missing. Exit code: 0 all done; 1 some sources
or clips failed (listed, with the reason); 2 bad arguments, or no usable clip.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import counted, printable
from jobs import command_line
from jobs.command_line import BAD_ARGUMENTS, DONE, SOME_FAILED, Length

if TYPE_CHECKING:
    from pipeline.clips import ClipSpec
    from pipeline.prepare import Prepared
    from pipeline.sources import Failure, Note

MEASURED = 8  # clips of the longest video that a dry run decodes


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("make_shards.py", __doc__)
    add = parser.add_argument
    sources = (
        "video or image file, folder of these, folder of numbered frames, CSV manifest "
        "(clip_id,path,start_s[,duration_s]), s3:// or other URI, or the word demo"
    )
    add("sources", nargs="+", type=command_line.path, metavar="SOURCE", help=sources)
    add("--out", required=True, type=command_line.local_path, metavar="DIR", help="folder for the shards")
    start = "where the videos begin, in seconds (default: 0); of one source also SOURCE@SECONDS"
    add("--start", type=command_line.seconds, metavar="SECONDS", help=start)
    frames = "frames a clip, 2 or more, or seconds, such as 2s"
    add("--frames", type=command_line.length, default=Length(13), help=f"{frames} (default: 13)")
    add("--fps", type=_rate, default=24.0, help="frames a second that videos are resampled to")
    stride = "frames or seconds from one clip's start to the next"
    add("--stride", type=command_line.length, default=Length(13), help=f"{stride} (default: 13)")
    add("--max-height", type=_count, default=256, help="px; higher videos are shrunk")
    add("--max-image-height", type=_count, default=256, help="px; higher images are shrunk")
    add("--as-is", action="store_true", help="each picture of a file is one frame, whatever its rate (time lapses)")
    add("--dry-run", action="store_true", help="print how many clips, how long and how much room; write nothing")
    args = parser.parse(argv)
    if args.as_is and (args.frames.in_seconds or args.stride.in_seconds):
        parser.error("--as-is: pictures as they are have no rate; give --frames and --stride in frames")
    args.frames, args.stride = args.frames.frames(args.fps), args.stride.frames(args.fps)
    if args.frames < 2 or args.stride < 1:
        parser.error(f"--frames is {args.frames}, --stride {args.stride} frames; 2 and 1 are the least")
    if args.start is not None:
        args.sources = [f"{source.rstrip('/')}@{args.start:g}" for source in args.sources]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    stopped = "stopped; finished shards are kept, and the same command writes the rest"
    return command_line.exit_code(lambda: run(args), command_line.console(), stopped=stopped)


def run(args: argparse.Namespace) -> int:
    """Write the shards, or say what would be written. Returns the exit code."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from pipeline.clips import ClipSpec
    from pipeline.prepare import fetch_all, prepare
    from pipeline.shards import ShardError

    spec = ClipSpec(args.frames, None if args.as_is else args.fps, args.stride, args.max_height, args.max_image_height)
    if args.dry_run:
        return preview(args.sources, args.out, spec)
    sources, failures = fetch_all(args.sources, args.out / ".fetched")
    columns = (TextColumn("clips"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            bar = progress.add_task("clips", total=None)
            prepared = prepare(
                sources, args.out, spec, lambda done, total: progress.update(bar, completed=done, total=total)
            )
    except (ShardError, OSError) as error:
        print(f"make_shards: {printable(str(error))}", file=sys.stderr)
        return BAD_ARGUMENTS
    failures += prepared.failures
    report(args.out, prepared, failures)
    if not prepared.written.clip_ids and not prepared.written.skipped:
        return BAD_ARGUMENTS
    return SOME_FAILED if failures else DONE


def preview(given: Sequence[str], out: Path, spec: ClipSpec) -> int:
    """Print what `main` would do; a few clips are decoded, to say how long it takes. Returns the exit code."""
    from pipeline.clips import plan, unreadable
    from pipeline.prepare import fetch_all
    from pipeline.shards import ShardError, missing, write

    with tempfile.TemporaryDirectory() as nowhere:
        sources, failures = fetch_all(given, Path(nowhere) / "fetched")
        high, high_image = spec.max_height, spec.max_image_height
        planned = plan(sources, spec)
        try:
            todo = missing(planned.clips, out, max_height=high, max_image_height=high_image)
            planned = planned.without(unreadable(todo))
            todo = missing(planned.clips, out, max_height=high, max_image_height=high_image)
            longest = max(Counter(clip.source for clip in todo).items(), key=lambda item: item[1], default=("", 0))[0]
            some = [clip for clip in todo if clip.source == longest][:MEASURED]
            begun = time.monotonic()
            made = write(some, Path(nowhere) / "shards", max_height=high, max_image_height=high_image)
            seconds = time.monotonic() - begun
        except (ShardError, OSError) as error:
            print(f"make_shards: {printable(str(error))}", file=sys.stderr)
            return BAD_ARGUMENTS
        costs = ""
        if made.clip_ids:
            each, room = len(todo) / len(some), sum(path.stat().st_size for path in made.shards)
            costs = f": about {each * seconds:.0f} s, {each * room / 1e6:.0f} MB"
    print(f"{'clips to write':<16}{len(todo):>6}  in {printable(out)}{costs}")
    print(f"{'already there':<16}{len(planned.clips) - len(todo):>6}")
    failures += planned.failures
    report_sources(planned.dropped, failures, planned.notes)
    if not planned.clips:
        return BAD_ARGUMENTS
    return SOME_FAILED if failures else DONE


def report(out: Path, prepared: Prepared, failures: Sequence[Failure]) -> None:
    """Print how many clips were written, were there, are dropped and failed."""
    written = prepared.written
    shards = f"in {counted(len(written.shards), 'new shard')} in {printable(out)}"
    print(f"{'clips written':<16}{len(written.clip_ids):>6}  {shards}")
    print(f"{'already there':<16}{written.skipped:>6}")
    report_sources(prepared.dropped, failures, prepared.notes)


def report_sources(dropped: Mapping[str, int], failures: Sequence[Failure], notes: Sequence[Note]) -> None:
    """Print what no clip uses, what cannot be used, and what else is to be said."""
    print(f"{'frames dropped':<16}{sum(dropped.values()):>6}")
    for source, frames in dropped.items():
        print(f"{'':<16}{frames:>6}  {printable(source)}")
    print(f"{'failed':<16}{len(failures):>6}")
    for failure in failures:
        print(f"  {printable(failure.reason)}")
    if notes:
        print(f"{'notes':<16}{len(notes):>6}")
    for note in notes:
        print(f"  {printable(note.line)}")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a frame rate")
    return value


if __name__ == "__main__":
    sys.exit(main())

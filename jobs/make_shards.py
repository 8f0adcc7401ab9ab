"""Cut videos into clips and write them as shards that training reads.

    python jobs/make_shards.py my_videos/ --out shards/

Running the same command again writes only the clips that are missing. Exit code: 0 all done; 1 some sources
or clips failed (listed, with the reason); 2 bad arguments, or no usable clip.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infra.errors import printable
from pipeline import clips, shards


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; exits with code 2 on a bad one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="video file, folder of videos, folder of numbered frames, CSV manifest "
        "(clip_id,path,start_s[,duration_s]), s3:// or other URI, or the word demo",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the shards")
    parser.add_argument("--frames", type=_count, default=13, help="frames a clip (default: %(default)s)")
    parser.add_argument("--fps", type=_rate, default=24.0, help="frames a second (default: %(default)s)")
    parser.add_argument(
        "--stride",
        type=_count,
        default=13,
        help="frames from one clip's start to the next (default: %(default)s)",
    )
    parser.add_argument(
        "--max-height", type=_count, default=256, help="px; higher videos are shrunk (default: %(default)s)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns: the exit code."""
    args = parse_args(argv)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    sources, failures = fetch_all(args.sources, args.out / ".fetched")
    planned = clips.plan(sources, num_frames=args.frames, fps=args.fps, stride=args.stride)
    failures += planned.failures
    try:
        columns = (TextColumn("clips"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            bar = progress.add_task("clips", total=len(planned.clips))
            written = shards.write(
                planned.clips,
                args.out,
                max_height=args.max_height,
                on_clip=lambda _clip_id: progress.advance(bar),
            )
    except (shards.ShardError, OSError) as error:
        print(f"make_shards: {error}", file=sys.stderr)
        return 2
    failures += written.failures
    report(args.out, written, planned, failures)
    if not written.clip_ids and not written.skipped:
        return 2
    return 1 if failures else 0


def fetch_all(sources: Sequence[str], cache_dir: Path) -> tuple[list[str], list[clips.Failure]]:
    """Sources with URIs replaced by local copies, and the ones that could not be copied."""
    local: list[str] = []
    failures: list[clips.Failure] = []
    for source in sources:
        try:
            local.append(clips.fetch(source, cache_dir))
        except (ValueError, OSError) as error:
            reason = str(error) if isinstance(error, ValueError) else f"{printable(source)}: {error}; check the URI"
            failures.append(clips.Failure(source, reason))
    return local, failures


def report(out: Path, written: shards.Written, planned: clips.Planned, failures: Sequence[clips.Failure]) -> None:
    """Print what was made, what was there, what is dropped and what failed."""
    made = f"in {len(written.shards)} new shard(s) in {printable(out)}"
    print(f"{'clips written':<16}{len(written.clip_ids):>6}  {made}")
    print(f"{'already there':<16}{written.skipped:>6}")
    print(f"{'frames dropped':<16}{sum(planned.dropped.values()):>6}")
    for source, frames in planned.dropped.items():
        print(f"{'':<16}{frames:>6}  {printable(source)}")
    print(f"{'failed':<16}{len(failures):>6}")
    for failure in failures:
        print(f"  {printable(failure.reason)}")


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

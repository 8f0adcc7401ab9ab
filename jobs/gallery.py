"""The gallery: a page that shows every clip of an experiment beside what its model made of it, in any browser.

    python jobs/gallery.py runs/demo                                # into runs/demo/gallery.html
    python jobs/gallery.py demo --storage runs                      # the same
    python jobs/gallery.py runs/demo runs/demo-vgpnn --out both.html   # the same clips side by side, playing in step

It takes experiments of train_corpus.py, finished or not, and sweeps of tune.py, whose combinations stand side by side.
The page is one file as long as its videos are at most 64 MB together; if they are more, they lie in a folder beside it,
gallery.media for gallery.html. It asks no network for anything. Exit code: 0 written; 1 written, and the files that
could not be read are named; 2 bad arguments.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import UsageError, counted, printable
from infra.files import MAX_NAME_BYTES
from jobs import command_line
from jobs.command_line import DONE, SOME_FAILED
from jobs.experiment.experiment import Experiment


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("gallery.py", __doc__)
    add = parser.add_argument
    given = "folder of train_corpus.py or tune.py, its URI, or its name below --storage"
    add("given", nargs="+", type=command_line.path, metavar="EXPERIMENT", help=given)
    add("--storage", type=command_line.path, help="where names are looked up: a path or a URI (default: runs)")
    out = "the page (default: gallery.html in the folder of the first experiment)"
    add("--out", type=command_line.path, metavar="FILE.html", help=out)
    return parser.parse(argv)


def page_of(given: str) -> Path:
    """--out as an absolute path. Raises UsageError for one that is no page on this machine."""
    out = Path(given)
    if (
        command_line.SCHEME.match(given)
        or out.suffix != ".html"
        or len(os.fsencode(out.name)) > MAX_NAME_BYTES
        or out.is_dir()
    ):
        raise UsageError(f"--out {printable(out)}: is no page on this machine; give a FILE.html")
    return Path(os.path.abspath(out))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    from jobs.experiment.gallery import write_gallery  # imports the page's templates, which --help must not wait for

    console = command_line.console()

    def run() -> int:
        experiments = [Experiment.given(given, args.storage) for given in args.given]
        command_line.check_once("experiment", [experiment.uri for experiment in experiments])
        gallery = write_gallery(experiments, page_of(args.out) if args.out else None)
        for line in gallery.damaged:
            console.print(f"damaged  {printable(line)}", style="red")
        beside = f", with {printable(gallery.media_uri)}" if gallery.media_uri else ""
        size = f"{counted(gallery.clips, 'clip')}, {gallery.bytes / 1e6:.1f} MB"
        console.print(f"gallery: {printable(gallery.uri)}{beside} ({size})")
        return SOME_FAILED if gallery.damaged else DONE

    return command_line.exit_code(run, console, stopped="stopped; the page is not written")


if __name__ == "__main__":
    sys.exit(main())

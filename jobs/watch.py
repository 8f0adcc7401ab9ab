"""How far an experiment is: the board of a corpus job or a sweep, from the files of its storage alone.

    python jobs/watch.py runs/my_videos-small
    python jobs/watch.py my_videos-small --storage s3://bucket/runs

It runs in another terminal or on another machine, and disturbs nothing. It ends when the job has ended, and Ctrl-C ends
it before; the job goes on. Exit code: 0 the job has ended, or was left; 2 nothing to watch.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs import command_line
from jobs.command_line import DONE
from jobs.experiment.experiment import Experiment

if TYPE_CHECKING:
    from rich.console import Console

# Seconds between two looks at the files, at those of an object store, and between two prints without a terminal.
LOOK_S, REMOTE_LOOK_S, LINE_S = 2.0, 15.0, 60.0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("watch.py", __doc__)
    parser.add_argument("experiment", type=command_line.path, help="its folder or URI, or its name in --storage")
    storage = "where names are looked up: a path or a URI (default: runs)"
    parser.add_argument("--storage", type=command_line.path, help=storage)
    parser.add_argument("--once", action="store_true", help="print the board once")
    return parser.parse(argv)


def watch(experiment: Experiment, console: Console, *, once: bool) -> None:
    """Draw the board until the job has ended; on a terminal in place, elsewhere a few lines a minute."""
    from rich.live import Live

    from jobs.training.watching import Watch  # imports torch, which --help must not wait for

    watched = Watch(experiment)
    board = watched.look()
    if once or not watched.is_running:
        console.print(board.draw(console.width) if console.is_terminal else board.text())
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        printed = -LINE_S
        while watched.is_running:
            board = watched.look()
            if console.is_terminal:
                live.update(board.draw(*console.size), refresh=True)
            elif time.monotonic() - printed >= LINE_S:
                printed = time.monotonic()
                console.print(board.text(), soft_wrap=True)
            time.sleep(LOOK_S if experiment.store.is_local else REMOTE_LOOK_S)
    console.print(watched.look().text(), soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    console = command_line.console(live=True)

    def run() -> int:
        watch(Experiment.given(args.experiment, args.storage), console, once=args.once)
        return DONE

    return command_line.exit_code(run, console, stopped="no longer watching; the job goes on")


if __name__ == "__main__":
    sys.exit(main())

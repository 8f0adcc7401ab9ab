"""All jobs as one command: what pip installs as hp-vae-gan, for where the source tree is not.

    hp-vae-gan train --corpus my_videos/ --preset small
    hp-vae-gan train --help
    ray job submit --address http://HEAD:8265 -- hp-vae-gan train --corpus /nfs/clips --storage /nfs/runs

A command is a file of jobs/: train is train_corpus.py. Exit code: its own.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import infra
from infra.errors import printable
from jobs import command_line, invocation


def first_sentence(module: str) -> str:
    """Of a module's docstring, read and not imported."""
    docstring = ast.get_docstring(ast.parse((Path(__file__).parent / f"{module}.py").read_text())) or ""
    line = " ".join(docstring.partition("\n\n")[0].split()).removeprefix("START HERE. ")
    return re.split(r"\. (?=[A-Z])", line)[0].rstrip(".:")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    found = {command: job for job, command in invocation.COMMANDS.items()}

    def command(text: str) -> str:
        if text in found:
            return text
        near = difflib.get_close_matches(text, [*found, *invocation.COMMANDS], n=1)
        mend = f"did you mean {invocation.COMMANDS.get(near[0], near[0])}?" if near else "--help lists them"
        raise argparse.ArgumentTypeError(f"no command {printable(text)!r}; {mend}")

    column, width = max(map(len, found)) + 4, shutil.get_terminal_size().columns - 2
    rows = [
        textwrap.fill(
            first_sentence(module), width, initial_indent=f"  {name}".ljust(column), subsequent_indent=" " * column
        )
        for name, module in found.items()
    ]
    description = "\n".join([__doc__ or "", "commands:", *rows])
    parser = command_line.Parser(invocation.PROGRAM, description)
    parser.add_argument("--version", action="version", version=f"{invocation.PROGRAM} {infra.__version__}")
    parser.add_argument("command", nargs="?", type=command, metavar="COMMAND", help="one of those above")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="its own; --help lists them")
    args = parser.parse(argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        sys.exit(command_line.BAD_ARGUMENTS)
    args.module = found[args.command]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    return int(importlib.import_module(f"jobs.{args.module}").main(args.arguments))


if __name__ == "__main__":
    sys.exit(main())

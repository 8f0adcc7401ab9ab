"""What the commands share: exit codes, help, the console, one line for what cannot work, and common options."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, get_args

from infra.errors import StorageError, UsageError, cannot_write, printable
from infra.ray_cluster import ClipShare
from jobs import invocation
from model.config import ConfigError, Method, Precision, TrainConfig
from model.metrics.names import FEATURES, is_features
from model.presets import PRESETS, of_method

if TYPE_CHECKING:
    from rich.console import Console

METHODS: tuple[str, ...] = get_args(Method)
RIVALS = METHODS[1:]  # of the project's own method
UNTRAINED = ("vgpnn",)  # without networks
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # that a URI begins with; one letter would be a drive
DONE, SOME_FAILED, BAD_ARGUMENTS, STOPPED, TERMINATED = 0, 1, 2, 130, 143


class Parser(argparse.ArgumentParser):
    """Of a command: the description as written, and files whose names begin with a dash."""

    def __init__(self, prog: str, description: str | None) -> None:
        if invocation.by_program() and prog.endswith(".py"):
            prog = " ".join(invocation.start_of(prog.removesuffix(".py")))
        description = description and invocation.as_here(description)
        super().__init__(prog=prog, description=description, formatter_class=HelpFormatter)

    def error(self, message: str) -> NoReturn:
        """One line for what argparse refuses; --help has the usage."""
        self.exit(BAD_ARGUMENTS, f"error: {printable(message.removeprefix('argument '))}\n")

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """The command line, None for the process's own; ends the process with code 2 on a bad one."""
        args = self.parse_args([_no_option(word) for word in (sys.argv[1:] if argv is None else argv)])
        for action in self._actions:
            value = getattr(args, action.dest, None)
            if action.option_strings and (value == "" or (isinstance(value, list) and "" in value)):
                self.error(f"{action.option_strings[0]} '': is empty; give a value, or leave it out")
        return args


def _no_option(word: str) -> str:
    """A word that is a file here, such as -JfC9w_aBc0.mp4, as a path that does not begin with a dash."""
    is_file = word.startswith("-") and word not in ("-h", "--help") and os.path.lexists(word)
    return f".{os.sep}{word}" if is_file else word


def shown(text: str) -> str:
    """What was given to an option, for the one line that refuses it: an empty word, as of a shell's variable, too."""
    return printable(text) or "''"


def path(text: str) -> str:
    """type= of an argument that names a file, a folder or a URI: `~` and `~user` are home folders, which a shell leaves
    as they are in --storage=~/x."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name a file, a folder or a URI")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~") and not os.path.lexists(text):
        raise argparse.ArgumentTypeError(f"{printable(text)}: no user of that name has a home here; write the path out")
    return expanded


def local_path(text: str) -> Path:
    """type= of an argument that names a file or folder of this machine, as `path`."""
    if SCHEME.match(text):
        raise argparse.ArgumentTypeError(f"{printable(text)}: is no path on this machine; give one")
    return Path(path(text))


@dataclass(frozen=True)
class Length:
    """A part of a video, in frames or in seconds."""

    value: float
    in_seconds: bool = False

    def frames(self, fps: float) -> int:
        """How many, at so many frames a second."""
        return round(self.value * fps) if self.in_seconds else int(self.value)


def length(text: str) -> Length:
    """type= of every option that takes frames: 48, or seconds: 2s, 0.5s."""
    if not re.fullmatch(r"-?[0-9]{1,9}|[0-9]{1,6}(\.[0-9]{1,6})?s", text):
        raise argparse.ArgumentTypeError(f"{shown(text)}: write frames, such as 48, or seconds, such as 2s")
    return Length(float(text.removesuffix("s")), text.endswith("s"))


def check_once(what: str, names: Sequence[str]) -> None:
    """Raises UsageError for one of several that was given twice. what: each is, in words."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{printable(twice[0])}: is given twice; give each {what} once")


def number(text: str) -> float:
    """type= of every option that takes a number with a fraction: 0.25. Words that Python takes for one, nan and inf,
    are none."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{printable(text)}: write a finite number")
    return value


def features(text: str) -> str:
    """type= of --features: KIND, KIND:FILE or KIND:FILE,REFERENCE; a comma may be in the FILE's name."""
    if not is_features(text):
        raise argparse.ArgumentTypeError(f"no features {printable(text)!r}; give {FEATURES}")
    kind, separator, file = text.partition(":")
    first, comma, reference = file.rpartition(",")
    if comma and not os.path.exists(os.path.expanduser(file)):
        return f"{kind}:{path(first)},{path(reference)}"
    return f"{kind}:{path(file)}" if separator else text


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """The description as written, and the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_one = not (action.default is None or action.default is False or action.default in ([], argparse.SUPPRESS))
        if action.help and has_one and "default" not in action.help:
            return f"{action.help} (default: %(default)s)"
        return action.help


def console(*, live: bool = False) -> Console:
    """Where a command prints: plain text, whose lines a terminal wraps.

    Args:
        live: a progress display is drawn on it too, so on a terminal long lines are wrapped here.
    """
    from jobs.reports.console import CopyingConsole

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path may hold bytes that are no text: they are escaped
            stream.reconfigure(errors="backslashreplace")
    return CopyingConsole(soft_wrap=not (live and sys.stdout.isatty()), markup=False, highlight=False)


def exit_code(command: Callable[[], int], console: Console, *expected: type[Exception], stopped: str) -> int:
    """What a command returns; 2 after one line for arguments that cannot work, 130 after one for Ctrl-C, 143 after the
    same one, which names it, for SIGTERM, as `ray job stop`, scancel and an eviction send it.

    Args:
        expected: errors that get one line too, beside UsageError, ConfigError and StorageError.
        stopped: the line after Ctrl-C.
    """

    terminated = threading.Event()

    def terminate(*_: object) -> None:
        terminated.set()  # Ray's calls raise a plain KeyboardInterrupt in place of any other, as for Ctrl-C
        raise KeyboardInterrupt

    one_liners: tuple[type[Exception], ...] = (UsageError, ConfigError, StorageError, *expected)
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, terminate)
    try:
        return command()
    except one_liners as error:
        print_error(console, error)
        return BAD_ARGUMENTS
    except KeyboardInterrupt:
        console.print(f"SIGTERM: {stopped}" if terminated.is_set() else stopped)
        return TERMINATED if terminated.is_set() else STOPPED
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def print_error(console: Console, error: Exception) -> None:
    """The one line of an error."""
    console.print(f"error: {printable(str(error))}", style="red", soft_wrap=True)


# -- options that several commands have


def add_preset(to: argparse._ActionsContainer, default: str = "small") -> None:
    """--preset. to: a parser, or a group of one."""
    to.add_argument("--preset", choices=sorted(PRESETS), default=default, help="a configuration (model/presets.py)")


def add_corpus(parser: argparse.ArgumentParser, text: str) -> None:
    """--corpus, and --start, which `with_start` joins to it. text: the help of the first."""
    parser.add_argument("--corpus", required=True, type=path, help=text)
    start = "where its videos begin, in seconds (default: 0); of one video also clip.mp4@2.5"
    parser.add_argument("--start", type=seconds, metavar="SECONDS", help=start)


def seconds(text: str) -> float:
    """type= of a time in a video: 2, 2.5 or 2.5s."""
    if not re.fullmatch(r"[0-9]{1,8}(\.[0-9]{1,6})?s?", text):
        raise argparse.ArgumentTypeError(f"{shown(text)}: write seconds, such as 2.5")
    return float(text.removesuffix("s"))


def amount(text: str) -> float:
    """type= of a time or another amount that must be above 0: 10 or 0.5."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{printable(text)}: write a number above 0, such as 10 or 0.5")
    return value


def add_report(parser: argparse.ArgumentParser, what: str) -> None:
    """--json: `check_report` and `write_report` take it. what: is written there."""
    parser.add_argument("--json", type=local_path, metavar="FILE", help=f"also write the {what} there")


def check_report(path: Path | None) -> None:
    """Raises UsageError for a --json that cannot be written, before minutes of measuring. It leaves no new file."""
    if path is None:
        return
    there = os.path.lexists(path)
    try:
        with open(path, "ab"):
            pass
    except OSError as error:
        raise UsageError(f"--json {cannot_write(path, error)}") from error
    if not there:
        path.unlink()


def write_report(path: Path | None, report: Mapping[str, object]) -> None:
    """Write --json, if it was given. Raises UsageError if it cannot be written."""
    if path is None:
        return
    try:
        path.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"--json {cannot_write(path, error)}") from error


def with_start(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with --start in --corpus, as the sources of the pipeline have it: my_videos@2.5."""
    if args.start is not None:
        args.corpus = f"{args.corpus.rstrip('/')}@{args.start:g}"
    return args


def add_set(parser: argparse.ArgumentParser) -> None:
    """--set."""
    overrides = "override a setting; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=overrides)


def add_method(parser: argparse.ArgumentParser) -> None:
    """--method."""
    text = (
        "singan, consingan: the paper's rivals; vgpnn: no training, videos are made of the clip's patches alone "
        "(default: the preset's, hpvaegan)"
    )
    parser.add_argument("--method", choices=METHODS, help=text)


def rival_of(args: argparse.Namespace) -> str:
    """--method where it is not the project's own, for the name of an experiment; else ''."""
    return args.method if args.method in RIVALS else ""


def config_of(args: argparse.Namespace) -> TrainConfig:
    """The preset, as one of --method, with its overrides. Raises ConfigError."""
    return with_method(PRESETS[args.preset](), args).with_overrides(args.set)


def with_method(config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """The config as one of --method, if that was given. Raises ConfigError."""
    method: Method | None = vars(args).get("method")
    return of_method(config, method) if method else config


def add_model(parser: argparse.ArgumentParser) -> None:
    """The trained model that a command takes, as `args.model`."""
    what = "folder or checkpoint.pt of a clip; or a folder of the authors' code; paths or URIs"
    parser.add_argument("model", type=path, metavar="CLIP", help=what)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """--precision and --z-frames: how videos are computed from a checkpoint."""
    precision = "of the convolutions (default: as in the training; float32 for the authors' checkpoints)"
    parser.add_argument("--precision", choices=get_args(Precision), help=precision)
    frames = (
        "of z, at scale 0, for videos of networks alone (default: those of scale 0, as in the training; 13 is what the "
        "authors' eval_video.py draws)"
    )
    parser.add_argument("--z-frames", type=int, metavar="T", help=frames)


def check_z_frames(count: int | None) -> None:
    """Raises UsageError for a --z-frames that is none."""
    if count is not None and not 1 <= count <= 1000:
        raise UsageError(f"--z-frames {count}: from 1 to 1000")


def add_storage(parser: argparse.ArgumentParser, experiment: str) -> None:
    """--storage, --experiment and --tracking-uri. experiment: the help of the second, its default included."""
    storage = (
        "where everything goes: a path all nodes share, or s3://, gs:// (default: runs; of a Ray job "
        "~/hp-vae-gan-runs on the node that runs it)"
    )
    parser.add_argument("--storage", type=path, help=storage)
    parser.add_argument("--experiment", help=experiment)
    add_tracking_uri(parser)


def print_storage(given: str | None, console: Console) -> None:
    """The first line of a Ray job without --storage: where its files are, as its working folder is thrown away."""
    from infra.store import default_folder, host, in_ray_job

    if given is None and in_ray_job():
        where = f"{printable(default_folder())} on {host().rpartition('-')[0]}"
        console.print(f"storage: {where}, as no --storage is given", soft_wrap=True)


def add_tracking_uri(parser: argparse.ArgumentParser) -> None:
    """--tracking-uri."""
    uri = "MLflow (default: $MLFLOW_TRACKING_URI, else a sqlite file in the storage folder)"
    parser.add_argument("--tracking-uri", help=uri)


def add_share(parser: argparse.ArgumentParser, of: str = "clip") -> None:
    """--gpus-per-clip, --cpus-per-clip, --max-gpus: `share_of` reads them. of: what takes them, a clip or a trial."""
    gpus = f"GPUs a {of}; 0.25: four on one (default: 1 where the cluster has any, else none)"
    cpus = f"CPU cores a {of}, where it has no GPU (default: cores / {of}s, at least 1)"
    parser.add_argument("--gpus-per-clip", type=number, help=gpus)
    parser.add_argument("--cpus-per-clip", type=int, help=cpus)
    most = "how many GPUs a cluster that starts nodes by itself may grow to (default: those it has now)"
    parser.add_argument("--max-gpus", type=int, metavar="N", help=most)


def share_of(args: argparse.Namespace) -> ClipShare:
    """What a clip may take of the cluster. Raises UsageError for what no cluster has."""
    share = ClipShare(args.gpus_per_clip, args.cpus_per_clip, args.max_gpus)
    share.check()
    return share


def add_decode_tasks(parser: argparse.ArgumentParser) -> None:
    """--decode-tasks: `decode_tasks_of` reads it."""
    text = "videos decoded at once, each by a Ray task; 0: on the driver (default: the cluster's cores)"
    parser.add_argument("--decode-tasks", type=int, metavar="N", help=text)


def decode_tasks_of(args: argparse.Namespace) -> int | None:
    """How many Ray tasks decode at once; None: as many as the cluster has cores; 0: the driver does.

    Raises UsageError.
    """
    tasks: int | None = args.decode_tasks
    if tasks is not None and tasks < 0:
        raise UsageError(f"--decode-tasks {tasks}: 0, or how many decode at once")
    return tasks


def check_samples(count: int) -> None:
    """Raises UsageError for an --n that is too small."""
    if count < 2:
        raise UsageError(f"--n {count}: at least 2 samples are needed to measure diversity")

"""What is wrong in a command that a file has run on a cluster: Ray, MLflow and this project's jobs parse their own.

Nothing is run. A program that is none of these is not looked at.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from infra.cluster import check_schema

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGE = "/app/"  # where the image has this folder
REDIRECTION = re.compile(r"&?(?:>{1,2}|<{1,3}|<>)[&|]?")  # the word behind it is a file, or &1
NAME = re.compile(r"[a-z][\w-]*")
ADDRESS = re.compile(rf"({NAME.pattern}):(?:\d+|\*)")  # head:6379
URL = re.compile(rf"\b(?:https?|ray|redis|postgresql(?:\+\w+)?)://(?:[^/@]*@)?({NAME.pattern})(?=[:/?]|$)")  # no s3:
# Variables of programs that have no list of theirs to ask. A name that is nearly one of them is taken for misspelt.
KNOWN = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"),
    "AWS_ENDPOINT_URL",
    *("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGDATA"),
    *("POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB", "POSTGRES_INITDB_ARGS"),
    *("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"),
    *("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_USAGE_STATS_ENABLED"),
)
OF_SERVICE = "AWS_ENDPOINT_URL_"  # and the name of a service of AWS, of which there are hundreds
NEARLY = 0.9  # as difflib counts: a letter or two
NUMBER = re.compile(r"(?<![^\s;&|()])\d+(?=[<>])")  # the 2 of 2>
# Of a job: its arguments are parsed by the job itself, in a process of its own, as this room imports no job.
PARSE = "import sys; from importlib import import_module; import_module(sys.argv.pop(1)).parse(None)"


def mistakes(words: Sequence[str]) -> Iterator[str]:
    """Why a program would refuse its arguments: nothing, or one line. words: the program, and each argument.

    What stands for a $ in a word is not known here: then only options that the program does not have are mistakes.
    """
    if any("`" in word for word in words):  # which words are arguments is not known either
        return
    program, arguments = Path(words[0]).name if words else "", [*words[1:]]
    if program in ("ray", "mlflow"):
        yield from _refused_by_click(_ray() if program == "ray" else _mlflow(), program, arguments)
    elif program.startswith("python") and arguments:
        path = arguments[0].removeprefix(IMAGE)
        if path.startswith("jobs/") and path.endswith(".py") and not any("$" in word for word in words):
            yield from _refused_by_job(path, arguments[1:])


def in_shell(line: str) -> Iterator[str]:
    """What is wrong in the commands of a shell's lines, which ; and && part.

    Of the variables that a command sets before it only the names are looked at. Redirections are left out.
    """
    parted = line.replace("\\\n", "").replace("\n", "\n;")
    lexer = shlex.shlex(NUMBER.sub("", parted), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    redirected = False
    try:
        for word in [*lexer, ";"]:
            if redirected or REDIRECTION.fullmatch(word):
                redirected = not redirected
            elif word and set(word) <= set(";&|()<>"):
                yield from mistakes(words)
                words = []
            elif words or "=" not in word:
                words.append(word)
            else:
                yield from (wrong for _, wrong in unknown_variables([word.partition("=")[0]]))
    except ValueError as error:
        yield f"no shell reads it ({error})"


def ray_start(options: Mapping[str, Any], head: bool) -> Iterator[str]:
    """What is wrong in KubeRay's rayStartParams, of which it makes the options of `ray start`."""
    flags = {name for option in _ray().commands["start"].params if option.is_flag for name in option.opts}
    words = ["ray", "start", *(["--head"] if head else ["--address", "head:6379"])]
    for name, value in options.items():
        bare = f"--{name}" in flags and str(value) in ("true", "false")
        words += [f"--{name}"] * (value == "true") if bare else [f"--{name}={value}"]
    return mistakes(words)


def unknown_variables(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The variables that nothing knows, and what to say of each: those that are nearly one of KNOWN, and those that are
    meant for MLflow."""
    names = [*names]
    for name in names:
        if name in KNOWN or name.startswith(OF_SERVICE):
            continue
        if close := difflib.get_close_matches(name, KNOWN, n=1, cutoff=NEARLY):
            yield name, f"nothing here knows {name}; did you mean {close[0]}?"
    if meant := [name for name in names if name.startswith("MLFLOW_")]:
        import mlflow.environment_variables

        known = [name for name in vars(mlflow.environment_variables) if name.startswith("MLFLOW_")]
        yield from (
            (one, f"MLflow knows no {one}{check_schema.meant(one, known)}") for one in meant if one not in known
        )


def hosts(name: str, text: str) -> list[str]:
    """The machines that the value of a variable, or a word, names; not those with a dot, which are elsewhere."""
    addresses = [found[1] for part in re.split("[,=]", text) if (found := ADDRESS.fullmatch(part))]
    return URL.findall(text) + addresses + [text] * bool(name.endswith("HOST") and NAME.fullmatch(text))


def _ray() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydantic, about Ray Serve
        from ray.scripts.scripts import cli
    return cli


def _mlflow() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sqlalchemy, about MLflow's store
        from mlflow.cli import cli
    return cli


def _refused_by_click(command: click.Command, program: str, arguments: list[str]) -> list[str]:
    words = arguments
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # of --help and --version
            while isinstance(command, click.Group):
                context = click.Context(command, info_name=program)
                words = click.Command.parse_args(command, context, [*words]) if words else []  # from its command on
                if not words:
                    return [f"{program}: no command is given"]
                named = command.get_command(context, words[0])
                if named is None:
                    close = check_schema.meant(words[0], command.list_commands(context))
                    return [] if "$" in words[0] else [f"{program} has no {words[0]}{close}"]
                program, command, words = f"{program} {words[0]}", named, words[1:]
            command.make_context(program, [*words])
    except click.exceptions.Exit:
        return []
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption) or not any("$" in word for word in arguments):
            return [f"{program}: {error.format_message()}"]
    return []


def _refused_by_job(path: str, arguments: list[str]) -> Iterator[str]:
    if not (ROOT / path).is_file():
        known = [f"jobs/{job.name}" for job in (ROOT / "jobs").glob("*.py")]
        yield f"there is no {path}{check_schema.meant(path, known)}"
        return
    module = path.removesuffix(".py").replace("/", ".")
    command = [sys.executable, "-c", PARSE, module, *arguments]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    if done.returncode:
        yield f"{path}: {(done.stderr.splitlines() or ['?'])[-1].partition('error: ')[2]}"

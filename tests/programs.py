"""How each program that a page calls understands its arguments: by its own parser, which runs nothing.

argparse of jobs/ and of modules that have `parse`, click of Ray and MLflow, the Makefile's targets, setup.cfg's extras.
"""

from __future__ import annotations

import ast
import configparser
import importlib
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import click
from packaging.requirements import Requirement

from jobs import command_line
from jobs.exporting.request import ExportRequest
from jobs.sampling.request import SampleRequest
from jobs.training.request import TrainRequest
from jobs.tuning.request import SweepRequest
from tests.pages import CHECKED, OTHERS, ROOMS, ROOT, Typed

MODULES_OF_OTHERS = ("build", "pip", "venv")
SECRETS = ".env"  # of files that a page has people make
ELLIPSIS = "…"
MAKEFILE = (ROOT / "Makefile").read_text()


def job(module: str, arguments: list[str], storage: Path) -> None:
    """The command's own parser; and where a request is made of that without looking at files, the request."""
    args = importlib.import_module(f"jobs.{module}").parse(arguments)
    if "storage" in args:
        args.storage = str(storage)
    if module == "train_corpus" and not args.config:
        TrainRequest.from_args(args)
    elif module == "tune":
        SweepRequest.from_args(args)
    elif module == "sample":
        SampleRequest.from_args(args)
    elif module == "export":
        ExportRequest.from_args(args)
    elif "set" in args and not vars(args).get("config"):
        command_line.config_of(args)


def python(typed: Typed, words: list[str], storage: Path) -> None:
    """A job, pytest, a module or a file. In the text a job without arguments is a name, which needs none."""
    match words:
        case [path, *arguments] if re.fullmatch(r"jobs/\w+\.py", path):
            assert (ROOT / path).is_file()
            if ELLIPSIS not in " ".join(arguments) and (arguments or not typed.inline):
                job(Path(path).stem, arguments, storage)
        case ["-m", "pytest", *arguments]:
            for argument in (word for word in arguments if not word.startswith("-")):
                path, _, test = argument.partition("::")
                assert f"def {test}(" in (ROOT / path).read_text() if test else (ROOT / path).exists(), argument
        case ["-m", "pip", *arguments]:
            pip(typed, arguments, storage)
        case ["-m", module, *arguments] if module.split(".")[0] in (*ROOMS, "tests"):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
            if hasattr(own := importlib.import_module(module), "parse"):
                own.parse(arguments)
        case ["-m", module, *_]:
            assert module in MODULES_OF_OTHERS
        case ["-c", code, *_]:
            ast.parse(code)
        case [path, *_]:
            assert (ROOT / typed.folder / path).is_file()
        case _:
            raise AssertionError("python alone")


def make(typed: Typed, words: list[str], storage: Path) -> None:
    targets = [word for word in words if "=" not in word and word not in ("-n", "-s", "-j")]
    assert targets
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:.*?## ", MAKEFILE, flags=re.MULTILINE), f"no target {target}"
    for name in (word.partition("=")[0] for word in words if "=" in word):
        assert re.search(rf"^{name} \?= ", MAKEFILE, flags=re.MULTILINE), f"the Makefile has no {name}"


def pip(typed: Typed, words: list[str], storage: Path) -> None:
    assert words[0] == "install"
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    there = set(config["options.extras_require"])
    wanted = [word for word in words[1:] if not word.startswith("-") and ELLIPSIS not in word]
    for word in wanted:
        own, _, extras = re.sub(r"^(\S*\.whl|\.)(?=\[|$)", "hp-vae-gan", word).partition("[")
        if own == "hp-vae-gan":
            assert set(filter(None, extras.rstrip("]").split(","))) <= there, f"no such extra: {word}"
        elif not re.search(r"\.(whl|txt|toml)$|/", word):
            Requirement(word)


def understood_by(group: click.Command, words: list[str], inline: bool) -> None:
    """Has click parse a command line. In the text `ray status` is a name, which needs no arguments."""
    while isinstance(group, click.Group) and words:
        named = group.get_command(click.Context(group), words[0])
        assert named is not None, f"{group.name} has no {words[0]}"
        group, words = named, words[1:]
    if (not words and inline) or ELLIPSIS in words:
        return
    try:
        group.make_context(str(group.name), list(words))
    except click.exceptions.Exit as ended:  # --help
        assert ended.exit_code == 0
    except click.ClickException as error:
        raise AssertionError(error.format_message()) from error


def ray(typed: Typed, words: list[str], storage: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydantic, about Ray Serve
        from ray.scripts.scripts import cli

    if words[:2] == ["job", "submit"] and "--" in words:
        at = words.index("--")
        if rest := [word for word in words[at + 1 :] if word != ELLIPSIS]:
            check(Typed(typed.page, tuple(rest), typed.folder), storage)
        words = words[:at] if ELLIPSIS in words else words
    understood_by(cli, words, typed.inline)


def local_head(typed: Typed, words: list[str], storage: Path) -> None:
    """What follows it goes to `ray start`."""
    ray(typed, ["start", "--head", *words], storage)


def sbatch(typed: Typed, words: list[str], storage: Path) -> None:
    """What follows the script of Slurm goes to jobs/train_corpus.py, with the corpus and storage of the environment."""
    script = next((at for at, word in enumerate(words) if word.endswith("train_corpus.sbatch")), len(words))
    if rest := words[script + 1 :]:
        job("train_corpus", ["--corpus", "demo", "--max-gpus", "1", *rest], storage)


def mlflow(typed: Typed, words: list[str], storage: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sqlalchemy, about MLflow's store
        from mlflow.cli import cli

    understood_by(cli, words, typed.inline)


def hp_vae_gan(typed: Typed, words: list[str], storage: Path) -> None:
    """`hp-vae-gan train …`, what an installed package has in place of `python jobs/train_corpus.py …`."""
    if ELLIPSIS in words or "--help" in words or "--version" in words:
        return
    args = importlib.import_module("jobs.hp_vae_gan").parse(words)
    if args.arguments or not typed.inline:
        job(args.module, args.arguments, storage)


PROGRAMS: dict[str, Callable[[Typed, list[str], Path], None]] = {
    "python": python,
    "make": make,
    "pip": pip,
    "ray": ray,
    "mlflow": mlflow,
    "hp-vae-gan": hp_vae_gan,
}
assert set(PROGRAMS) == set(CHECKED)
# Those whose further arguments go to another program.
SCRIPTS = {"infra/cluster/local_head.sh": local_head, "sbatch": sbatch}


def check(typed: Typed, storage: Path) -> None:
    """Raises AssertionError, SystemExit or the project's own errors for a command that would not work."""
    program, *words = typed.words
    name = re.sub(r"^python3?(\.\d+)?$", "python", program.removeprefix(".venv/bin/"))
    for word in words:
        path = word.removeprefix("./").partition("::")[0]
        if path.startswith(tuple(f"{room}/" for room in (*ROOMS, "tests"))) and not path.endswith(SECRETS):
            assert (ROOT / typed.folder / path).exists(), f"{word} is not there"
    if name in PROGRAMS:
        PROGRAMS[name](typed, words, storage)
    elif "/" in name:
        assert os.access(ROOT / typed.folder / name, os.X_OK), f"{name} is no program"
    else:
        assert name in OTHERS.split(), f"no test knows {name}: add it to tests/pages.py"
    if name in SCRIPTS:
        SCRIPTS[name](typed, words, storage)

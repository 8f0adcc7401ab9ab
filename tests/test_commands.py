"""Every command of every page is one that works: its options, settings, targets, extras, files and names are there.

What a test can run at no cost it runs; the rest goes through the parser of the very command: argparse of jobs/, click
of Ray and MLflow, `bash -n` for what a shell makes of it. tests/jobs/ runs each job, as tiny as it goes.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import importlib
import os
import re
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from packaging.requirements import Requirement

from jobs import command_line
from jobs.sampling.request import SampleRequest
from jobs.training.request import TrainRequest
from jobs.tuning.request import SweepRequest
from model.config import ConfigError
from tests.pages import (
    CHECKED,
    OTHERS,
    PAGES,
    ROOMS,
    ROOT,
    Typed,
    begins_a_command,
    parts_of,
    simple_commands,
    typed_in,
)

TYPED = sorted({typed for page in PAGES for typed in typed_in(page)}, key=str)
MODULES_OF_OTHERS = ("build", "pip", "venv")
DEPLOYMENT_FILE = re.compile(r"\S+\.(ya?ml|sh|sbatch|slurm|toml|ini|conf)|\S*Dockerfile\S*")
ELLIPSIS = "…"
# Options that a page names and that are of another program, with the page that says so.
OPTIONS_OF_OTHERS = {"--node-ip-address", "--num-gpus", "--train-all", "--niter", "--dist", "--durations"}

# How a test runs a job; and the one that none runs, as its Ray has many nodes: it measures what train_corpus.py does.
RUN = (r"\"(?:jobs/)?(\w+)\.py\"", r"\b(\w+)\.main\(", r"from jobs\.(\w+) import main")
NOT_RUN = {"simulate_scale"}


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


EXTRAS = set(setup_cfg()["options.extras_require"])
MAKEFILE = (ROOT / "Makefile").read_text()


# -- each program's way to understand its arguments


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
        case ["-m", module, *_] if module.split(".")[0] in (*ROOMS, "tests"):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
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
    wanted = [word for word in words[1:] if not word.startswith("-") and ELLIPSIS not in word]
    for word in wanted:
        own, _, extras = re.sub(r"^(\S*\.whl|\.)(?=\[|$)", "hp-vae-gan", word).partition("[")
        if own == "hp-vae-gan":
            assert set(filter(None, extras.rstrip("]").split(","))) <= EXTRAS, f"no such extra: {word}"
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


def check(typed: Typed, storage: Path) -> None:
    """Raises AssertionError, SystemExit or the project's own errors for a command that would not work."""
    program, *words = typed.words
    name = re.sub(r"^python3?(\.\d+)?$", "python", program.removeprefix(".venv/bin/"))
    if name in PROGRAMS:
        PROGRAMS[name](typed, words, storage)
    elif "/" in name:
        assert os.access(ROOT / typed.folder / name, os.X_OK), f"{name} is no program"
    else:
        assert name in OTHERS.split(), f"no test knows {name}: add it to tests/pages.py"
        for word in words:
            here = (ROOT / typed.folder / word, (ROOT / typed.page).parent / word)
            ours = word.removeprefix("./").startswith(tuple(f"{room}/" for room in ROOMS))
            if DEPLOYMENT_FILE.fullmatch(word) and (ours or name in ("docker", "kubectl", "sbatch")):
                assert any(place.exists() for place in here), f"{word} is not there"


# -- the tests


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_understood(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = []
    for typed in (typed for typed in TYPED if typed.page == page):
        try:
            check(typed, tmp_path / "runs")
        except (Exception, SystemExit) as error:
            said = capsys.readouterr().err.strip().splitlines() or [str(error)]
            wrong.append(f"{typed}\n    {said[-1]}")
    assert not wrong, "\n".join(["", *wrong])


@pytest.mark.parametrize(
    "line",
    [
        "python jobs/train_corpus.py --corpus x --prest demo",
        "python jobs/train_corpus.py --corpus x --set itters=3",
        "python jobs/train_corpu.py --corpus x",
        "python jobs/tune.py --corpus x --preset demo --sweep vae_levels=1,2",  # needs patch_scale=none
        "python -m tests.jobs.no_such_module",
        "make no-such-target",
        "make ui NOSUCH=1",
        "pip install '.[nosuch]'",
        "ray job submit --adress http://HEAD:8265 -- python jobs/watch.py x",
        "ray job submit -- python jobs/watch.py x --twice",
        "infra/cluster/no_such.sh",
        "sbatch infra/cluster/no_such.sbatch",
        "nosuchprogram --all",
    ],
)
def test_a_wrong_command_is_found(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (words,) = simple_commands(line)
    with pytest.raises((AssertionError, SystemExit, ImportError, ConfigError)):
        check(Typed("README.md", tuple(words)), tmp_path / "runs")


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_are_commands_or_output(page: str) -> None:
    """A shell takes the commands. Output has a block of its own, or its commands stand behind `$ `."""
    _, blocks = parts_of(page)
    script = "".join(block.script for block in blocks)
    read = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert read.returncode == 0, read.stderr
    for block in blocks:
        if block.is_python:
            ast.parse(block.text)
        elif not block.script and block.language == "":
            lines = [
                line for line in block.text.splitlines() if line.split(" ")[0] in CHECKED and begins_a_command(line)
            ]
            assert not lines, f"a command within output: {lines[0]}"


def test_the_pages_have_commands() -> None:
    jobs = {(t.page, Path(word).stem) for t in TYPED for word in t.words if word.startswith("jobs/")}
    assert {name for page, name in jobs if page == "README.md"} >= {"train_corpus", "sample", "evaluate", "tune"}
    assert {page for page, _ in jobs} >= {"infra/cluster/README.md", "model/RESULTS.md", "jobs/README.md"}
    assert ("README.md", "train_corpus") in {
        (t.page, Path(word).stem) for t in TYPED if t.words[0] == "ray" for word in t.words
    }


def test_tests_run_every_job_that_a_page_names() -> None:
    sources = "".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))
    run = {name for pattern in RUN for name in re.findall(pattern, sources)}
    named = {Path(word).stem for typed in TYPED for word in typed.words if re.fullmatch(r"jobs/\w+\.py", word)}
    assert named - NOT_RUN <= run
    commands = {path.stem for path in (ROOT / "jobs").glob("*.py") if "\ndef parse(" in path.read_text()}
    assert commands - {"hp_vae_gan"} == named


def test_options_that_a_page_names_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the text: `--preset`, `--set lr=…`. Of the pages that are about the jobs alone."""
    known = set(OPTIONS_OF_OTHERS)

    class Seen(Exception):
        pass

    def look(parser: argparse.ArgumentParser, *_: Any) -> None:
        known.update(parser._option_string_actions)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for each in action.choices.values():
                    known.update(each._option_string_actions)
        raise Seen

    monkeypatch.setattr(command_line.Parser, "parse", look)
    for path in (ROOT / "jobs").glob("*.py"):
        if hasattr(module := importlib.import_module(f"jobs.{path.stem}"), "parse"):
            with pytest.raises(Seen):
                module.parse([])
    wrong = [
        f"{page}: {option}"
        for page in PAGES
        if not page.startswith(("infra/", "tests/"))
        for option in re.findall(r"`(--[a-z][a-z-]*[a-z])[ =`]", parts_of(page)[0])
        if option not in known
    ]
    assert not wrong

"""Every command of every page is one that works: its options, settings, targets, extras, files and names are there.

A page's commands go through the parsers of `programs.py`, and its blocks through `bash -n`. tests/jobs/ runs each job,
as tiny as it goes.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from infra.errors import UsageError
from jobs import command_line
from model.config import ConfigError
from tests.pages import CHECKED, PAGES, ROOT, Typed, begins_a_command, parts_of, simple_commands, typed_in
from tests.programs import check

TYPED = sorted({typed for page in PAGES for typed in typed_in(page)}, key=str)
OPTIONS_OF_OTHERS = {"--train-all"}  # that a page names: of the authors' code
# How a test runs a job; and the one that none runs, as its Ray has many nodes: it measures what train_corpus.py does.
RUN = (r"\"(?:jobs/)?(\w+)\.py\"", r"\b(\w+)\.main\(", r"from jobs\.(\w+) import main")
NOT_RUN = {"simulate_scale"}


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
        "python jobs/export.py CLIP --to onnx --out x.pt2",
        "python jobs/evaluate.py runs/demo --features c3e:FILE",
        "python -m tests.jobs.no_such_module",
        "python -m infra.cluster.check --crts crds",
        "make no-such-target",
        "make ui NOSUCH=1",
        "pip install '.[nosuch]'",
        "ray job submit --adress http://HEAD:8265 -- python jobs/watch.py x",
        "ray job submit -- python jobs/watch.py x --twice",
        "infra/cluster/no_such.sh",
        "infra/cluster/local_head.sh --num-gpu 4",
        "sbatch infra/cluster/no_such.sbatch",
        "sbatch infra/cluster/slurm/train_corpus.sbatch --prest paper",
        "sbatch --ntasks=8 infra/cluster/slurm/train_corpus.sbatch --preset paper --set itters=3",
        "nosuchprogram --all",
    ],
)
def test_a_wrong_command_is_found(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (words,) = simple_commands(line)
    with pytest.raises((AssertionError, SystemExit, ImportError, ConfigError, UsageError)):
        check(Typed("README.md", tuple(words)), tmp_path / "runs")


COMMANDS = [path.stem for path in sorted((ROOT / "jobs").glob("*.py")) if "\ndef parse(" in path.read_text()]
WRONG = [
    ("sample", ["CLIP", "--out", "o", "--extend", "nan"], "--extend: nan: write frames, such as 48, or seconds"),
    ("sample", ["CLIP", "--out", "o", "--extend", "1e9s"], "--extend: 1e9s: write frames, such as 48, or seconds"),
    ("sample", ["CLIP", "--out", "o", "--extend", ""], "--extend: '': write frames, such as 48, or seconds"),
    ("sample", ["CLIP", "--out", "o", "--n", "x"], "--n: invalid int value: 'x'"),
    ("train_corpus", ["--corpus", "c", "--start", ""], "--start: '': write seconds, such as 2.5"),
    ("train_corpus", ["--corpus", "c", "--experiment", ""], "--experiment '': is empty; give a value, or leave it out"),
    ("train_corpus", ["--corpus", "c", "--set", "lr=1e-3", "--set", ""], "--set '': is empty"),
    ("benchmark", ["--scales", ""], "--scales '': is empty"),
    *(
        ("sample", ["CLIP", "--out", "o", option, ""], f"{option} '': is empty")
        for option in ("--strength", "--scale", "--only", "--size")
    ),
    ("study", ["make", "--no-such-option"], "the following arguments are required"),
    *((name, ["--no-such-option", "a\nb"], "") for name in COMMANDS),
]


@pytest.mark.parametrize(("command", "words", "told"), WRONG)
def test_what_the_parser_refuses_is_one_line(
    command: str, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"jobs.{command}").parse(words)
    said = capsys.readouterr()
    (line,) = (said.out + said.err).splitlines()
    assert ended.value.code == 2 and line.startswith(f"error: {told}")


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

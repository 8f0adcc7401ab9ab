"""What is released: the wheel, where the source tree is not; one version; lock files with what setup.cfg asks for."""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import infra
from jobs.invocation import COMMANDS
from tests import closure
from tests.jobs.conftest import ROOT, TINY, _own_ray, make_video  # noqa: F401  a Ray of these tests' own
from tests.ports import free_port

LOCK = ROOT / "infra" / "lock"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix"}
MAC = {"sys_platform": "darwin", "platform_machine": "arm64", "platform_system": "Darwin", "os_name": "posix"}
OF_CUDA = re.compile(r"torch|triton|cuda-\w+|nvidia-[\w-]+")


def outside(**more: str) -> dict[str, str]:
    """An environment that does not lead to the source tree."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")} | more


# -- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of the source archive, so that archive has all that a wheel needs."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(build, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout
    (archive,) = out.glob("*.tar.gz")
    assert archive.name == f"hp_vae_gan-{infra.__version__}.tar.gz"
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """hp-vae-gan of a venv that has the wheel and the packages that the wheel requires: others that this interpreter
    has are not there, and neither is the source tree."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = venv.glob("lib/python3*/site-packages")
    install = [sys.executable, "-m", "pip", "--quiet", "--python", str(venv / "bin" / "python"), "install"]
    subprocess.run([*install, "--no-deps", "--no-index", "--ignore-installed", str(wheel)], env=outside(), check=True)
    (installed,) = importlib.metadata.distributions(name="hp-vae-gan", path=[str(site)])
    closure.link([text for text in installed.requires or () if "extra ==" not in text], site)
    return venv / "bin" / "hp-vae-gan"


def run(program: Path, *arguments: str, cwd: Path) -> str:
    """What it prints; it must end well, outside the source tree."""
    done = subprocess.run(
        [str(program), *arguments],
        cwd=cwd,
        env=outside(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_wheel_has_all_files_of_the_rooms_that_the_code_opens_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"hp_vae_gan-{infra.__version__}.dist-info/METADATA").decode()
    opened = {
        str(path.relative_to(ROOT))
        for room in ("infra", "pipeline", "model", "jobs")
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".j2", ".css", ".js", ".html") and not path.is_relative_to(ROOT / "infra" / "cluster")
    }
    assert len(opened) > 150 and opened <= names, opened - names
    assert {name.split("/")[0] for name in names} == {"infra", "pipeline", "model", "jobs", metadata_folder(names)}
    assert f"{metadata_folder(names)}/licenses/LICENSE" in names
    assert "\nLicense: Apache-2.0\n" in metadata and "Requires-Python: >=3.10" in metadata


def metadata_folder(names: set[str]) -> str:
    return next(name.split("/")[0] for name in names if ".dist-info/" in name)


def test_each_job_is_a_command() -> None:
    shared = {"__init__", "command_line", "hp_vae_gan", "invocation"}
    assert set(COMMANDS) == {file.stem for file in (ROOT / "jobs").glob("*.py")} - shared
    assert len(set(COMMANDS.values())) == len(COMMANDS)


@pytest.mark.slow
def test_beside_the_wheel_is_what_it_requires_and_nothing_else(program: Path, tmp_path: Path) -> None:
    """So that a package that the code imports and setup.cfg does not ask for is missed by the test below."""
    look = "from importlib.metadata import distributions\nprint(*{found.name.lower() for found in distributions()})"
    there = set(run(program.with_name("python"), "-I", "-c", look, cwd=tmp_path).split())
    assert {"hp-vae-gan", "torch", "ray", "mlflow", "waitress"} <= there
    assert not there & {"pytest", "ruff", "onnx", "optuna", "s3fs", "moto", "selenium"}


@pytest.mark.slow
def test_a_corpus_by_the_wheel_alone(program: Path, tmp_path: Path) -> None:
    """Ray's workers import the wheel, the gallery finds its template, and the lines say hp-vae-gan."""
    listed = run(program, "--help", cwd=tmp_path)
    for name in COMMANDS.values():
        assert re.search(rf"^  {name} ", listed, re.MULTILINE), name
    assert run(program, "--version", cwd=tmp_path) == f"hp-vae-gan {infra.__version__}\n"
    told = run(program, "train", "--help", cwd=tmp_path)
    assert told.startswith("usage: hp-vae-gan train [-h] --corpus") and "python jobs/" not in told
    assert run(program, "study", "make", "--help", cwd=tmp_path).startswith("usage: hp-vae-gan study make [-h]")

    make_video(tmp_path / "clip.mp4", size="48x48")
    done = run(program, "train", "--corpus", "clip.mp4", *TINY, "--experiment", "wheel", cwd=tmp_path)
    (clip,) = (tmp_path / "runs" / "wheel").glob("clip-*")
    assert f"next:    hp-vae-gan sample {clip} --out samples/" in done
    assert f"MLflow:  hp-vae-gan ui --storage {tmp_path / 'runs'}" in done
    assert f"hp-vae-gan sample {clip}" in (tmp_path / "runs" / "wheel" / "gallery.html").read_text()


# -- one version


def test_the_changelog_and_the_citation_are_of_this_version() -> None:
    first = re.search(r"^## (\S+) - (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text()
    assert first and first[1] == infra.__version__
    assert f"\nversion: {infra.__version__}\n" in citation and f'date-released: "{first[2]}"' in citation


# -- the lock files


def asked(*extras: str) -> list[Requirement]:
    """What setup.cfg asks for, with these extras."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    texts = [config["options"]["install_requires"], *(config["options.extras_require"][name] for name in extras)]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def locked(name: str) -> list[Requirement]:
    """The packages of a lock file. Each has a hash, and there is nothing else in it."""
    text = (LOCK / f"requirements-{name}.txt").read_text()
    blocks = re.findall(r"^[a-z0-9].*(?:\n    --hash=.*)*", text, re.MULTILINE)
    assert all(re.search(r" \\\n    --hash=sha256:[0-9a-f]{64}", block) for block in blocks)
    rest = [line for line in text.splitlines() if line and not line.startswith(("#", "    --hash=sha256:"))]
    assert len(rest) == len(blocks) and "://" not in text
    return [Requirement(line.removesuffix("\\")) for line in rest]


@pytest.mark.parametrize(("name", "extras"), [("cuda", ()), ("cpu", ()), ("dev", ("dev",))])
def test_a_lock_file_has_what_setup_cfg_asks_for(name: str, extras: tuple[str, ...]) -> None:
    packages = locked(name)
    for python in PYTHONS:
        for system in (LINUX, MAC):
            place = {**system, "python_version": python, "python_full_version": f"{python}.1"}
            there = {p.name.lower(): p for p in packages if p.marker is None or p.marker.evaluate(place)}
            for wanted in asked("s3", "gs", "postgres", "tune", "export", *extras):
                if wanted.marker and not wanted.marker.evaluate(place):
                    continue
                if name == "cuda" or not OF_CUDA.fullmatch(wanted.name):
                    assert there[wanted.name.lower()].specifier == wanted.specifier, (wanted, place)
            cuda = {package for package in there if OF_CUDA.fullmatch(package)}
            assert cuda if name == "cuda" else not cuda
            assert "nvidia-cudnn-cu13" not in cuda or system is LINUX


def test_the_cpu_lock_is_the_cuda_lock_without_torch() -> None:
    cuda, cpu = ({str(package) for package in locked(name)} for name in ("cuda", "cpu"))
    assert cpu == {package for package in cuda if not OF_CUDA.match(f"{package.split('=')[0]}")}


def test_a_check_without_a_registry_says_so() -> None:
    unreachable = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_NO_CACHE": "1", "UV_HTTP_RETRIES": "0"}
    uv = Path(sys.executable).parent / "uv"
    command = [str(LOCK / "lock.sh"), "--check"]
    done = subprocess.run(command, env={**os.environ, **unreachable, "UV": str(uv)}, text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (0, "the lock files are not checked: no package registry answers\n")


# -- make setup, which installs them


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the Makefile, setup.cfg and lock files of the project, and no .venv."""
    shutil.copytree(LOCK, tmp_path / "infra" / "lock")
    for name in ("Makefile", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def made(project: Path, *words: str, **more: str) -> tuple[int, str, str]:
    """make: its exit code, what it printed, and the lines of errors that are not its own."""
    plain = {name: value for name, value in outside().items() if not name.startswith(("PIP_", "UV_", "MAKE", "MFLAGS"))}
    done = subprocess.run(["make", *words], cwd=project, env=plain | more, text=True, capture_output=True, check=False)
    errors = "".join(line for line in done.stderr.splitlines(True) if not line.startswith("make"))
    return done.returncode, done.stdout, errors


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("asked", "installed"),
    [
        (["setup", "setup"], ["cpu"]),
        (["setup", "setup LOCK=cuda", "setup LOCK=cuda"], ["cpu", "cuda"]),
        (["setup LOCK=cuda", "setup", "dev"], ["cuda", "cpu dev"]),  # what cuda brings is all of cpu
        (["dev", "dev LOCK=cuda", "setup LOCK=cuda", "dev"], ["cpu dev", "cuda dev"]),
        (["dev", "setup", "setup LOCK=cuda", "dev"], ["cpu dev", "cuda"]),
    ],
)
def test_each_lock_is_installed_when_it_is_first_asked_for(
    project: Path, asked: list[str], installed: list[str]
) -> None:
    executable(project / "infra" / "lock" / "install.sh", '#!/bin/sh\nmkdir -p .venv; shift; echo "$*" >>calls\n')
    for words in asked:
        assert made(project, *words.split())[0] == 0
    assert (project / "calls").read_text().splitlines() == installed


@pytest.mark.parametrize(
    ("python", "line"),
    [
        ("python9", "python9: is not there, or is no Python; give one of 3.10 or newer: make PYTHON=python3.11 setup"),
        ("false", "false: is not there, or is no Python; give one of 3.10 or newer: make PYTHON=python3.11 setup"),
        ("./old", "./old: is older than Python 3.10; give a newer one: make PYTHON=python3.11 setup"),
    ],
)
def test_a_python_that_cannot_serve_is_one_line(project: Path, python: str, line: str) -> None:
    executable(project / "old", "#!/bin/sh\necho False\n")
    assert made(project, "setup", f"PYTHON={python}") == (2, "", f"{line}\n")
    assert not (project / ".venv").exists()


@pytest.mark.slow
def test_a_registry_that_does_not_answer_is_one_line_and_leaves_no_venv(project: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}/simple"
    settings = {"PIP_INDEX_URL": away, "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    code, told, errors = made(project, "setup", f"PYTHON={sys.executable}", **settings)
    assert (code, told.count("\n")) == (2, 1)
    line = "no package registry answers there; run this again when one does, or set PIP_INDEX_URL"
    assert errors == f"{away}/uv/: {line}\n"
    assert not (project / ".venv").exists()


def test_pip_draws_no_bars_where_make_setup_prints_a_line_a_minute(project: Path) -> None:
    """pip draws them in spite of -qq, if it writes a log."""
    executable(project / ".venv" / "bin" / "python", '#!/bin/sh\necho "$*" >>calls\n')
    executable(project / ".venv" / "bin" / "uv", "#!/bin/sh\n")
    assert made(project, "setup")[0] == 0
    installs = [line for line in (project / "calls").read_text().splitlines() if " install " in line]
    assert len(installs) == 2 and all(" -qq --progress-bar off " in line for line in installs), installs


@pytest.mark.parametrize(
    ("lock", "torch", "again"),
    [("cuda", "2.13.0+cpu", True), ("cuda", "2.13.0", False), ("cpu", "2.13.0+cpu", False)],
)
def test_the_locked_torch_takes_the_place_of_another_build(project: Path, lock: str, torch: str, again: bool) -> None:
    """uv takes 2.13.0+cpu for 2.13.0."""
    executable(project / ".venv" / "bin" / "python", "#!/bin/sh\n")
    executable(project / ".venv" / "bin" / "uv", f'#!/bin/sh\necho "torch=={torch}"\necho "$*" >>calls\n')
    assert made(project, "setup", f"LOCK={lock}")[0] == 0
    (install,) = [line for line in (project / "calls").read_text().splitlines() if line.startswith("pip install ")]
    assert f"requirements-{lock}.txt" in install
    assert ("--reinstall-package torch" in install) == again

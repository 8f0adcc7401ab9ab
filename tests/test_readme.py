"""What the pages say can be done, can be done: their commands, targets, files, modules and presets exist and work.

A page is a Markdown file of the root, of a room or of tests/. A room's page has a table row for each of its modules,
`| `store.py` | …`, relative to the page's folder.
"""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from infra.tracking import runs
from infra.tracking.uri import default_uri
from model.presets import ABLATIONS, PRESETS
from tests.jobs.conftest import (  # noqa: F401  a Ray of these tests' own
    ROOT,
    _own_ray,
    make_video,
    run_job,
    run_process,
)
from tests.ports import free_port
from tests.test_doors import LOOPBACK, listening

ROOMS = ("infra", "pipeline", "model", "jobs")
FOLDERS = (ROOT, *(ROOT / name for name in (*ROOMS, "tests")))
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for folder in FOLDERS
    for path in sorted(folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
}
README = PAGES["README.md"]
MAX_README_LINES = 160
STARTS = ("python ", "ray job submit ", "make ")


def blocks_of(page: str) -> list[str]:
    """The fenced blocks of a page."""
    return re.findall(r"^```\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


def commands_of(page: str) -> list[list[str]]:
    """What a page says to type, in fenced blocks and in the text; a line that ends in a backslash goes on."""
    fenced = [line for block in blocks_of(page) for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    inline = [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose)]
    return [shlex.split(line, comments=True) for line in fenced + inline if line.startswith(STARTS)]


COMMANDS = sorted({(page, *command) for page, text in PAGES.items() for command in commands_of(text)})
JOBS = [command for command in COMMANDS if any(word.startswith("jobs/") for word in command[1:])]
MAKES = [command for command in COMMANDS if command[1] == "make"]
OTHERS = [command for command in COMMANDS if command not in JOBS and command not in MAKES]


def job_of(command: tuple[str, ...]) -> tuple[str, list[str]]:
    """(train_corpus, arguments) of `python jobs/train_corpus.py …`, alone or behind `ray job submit … --`."""
    start = next(i for i, word in enumerate(command) if i and word.startswith("jobs/"))
    return Path(command[start]).stem, list(command[start + 1 :])


def anchors_of(page: str) -> set[str]:
    """What `#…` of a link to the page may name: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_room_has_a_page() -> None:
    assert {f"{room}/README.md" for room in (*ROOMS, "tests")} <= set(PAGES)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= MAX_README_LINES


def test_the_pages_have_commands() -> None:
    assert len({command[2] for command in MAKES if command[0] == "README.md"}) >= 2
    assert {job_of(c)[0] for c in JOBS if c[0] == "README.md"} >= {"train_corpus", "sample", "evaluate", "tune"}
    assert {command[0] for command in JOBS} >= {"infra/cluster/README.md", "model/RESULTS.md", "jobs/README.md"}


@pytest.mark.parametrize("command", JOBS, ids=" ".join)
def test_every_job_command_is_understood(command: tuple[str, ...]) -> None:
    job, arguments = job_of(command)
    importlib.import_module(f"jobs.{job}").parse(arguments)


@pytest.mark.parametrize("command", MAKES, ids=" ".join)
def test_every_make_target_exists(command: tuple[str, ...]) -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    targets = [word for word in command[2:] if "=" not in word]
    assert targets
    for target in targets:
        assert f"make {target} " in listed


@pytest.mark.parametrize("command", OTHERS, ids=" ".join)
def test_every_other_command_names_what_exists(command: tuple[str, ...]) -> None:
    """`python -m pytest FILE::TEST`, and `python -m MODULE` of this project."""
    _, python, minus_m, module, *arguments = command
    assert (python, minus_m) == ("python", "-m")
    if module != "pytest":
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
        return
    for argument in arguments:
        if not argument.startswith("-"):
            path, _, test = argument.partition("::")
            assert f"def {test}(" in (ROOT / path).read_text() if test else (ROOT / path).exists(), argument


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_page_names_every_module_and_nothing_else(room: str) -> None:
    named = re.findall(r"^\| `([\w/]+\.py)` \|", PAGES[f"{room}/README.md"], flags=re.MULTILINE)
    modules = [path for path in (ROOT / room).rglob("*.py") if path.name != "__init__.py"]
    assert sorted(named) == sorted(str(path.relative_to(ROOT / room)) for path in modules)


def test_the_readme_names_every_room() -> None:
    rooms = re.findall(r"^\| \[(\w+)/\]\(\w+/README\.md\) \|", README, flags=re.MULTILINE)
    assert sorted(rooms) == sorted((*ROOMS, "tests"))


@pytest.mark.parametrize("page", PAGES)
def test_files_of_the_project_that_a_page_names_exist(page: str) -> None:
    """In the text, `room/…/file.py`, from the root, from the page's folder or from its room."""
    places = (ROOT, (ROOT / page).parent, ROOT / Path(page).parts[0])
    for name in re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|sh|json|png|md))`", PAGES[page]):
        if not re.search(r"NAME|NOUN|^samples/", name):
            assert any((place / name).exists() for place in places), name


def test_the_table_of_presets_is_complete() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGES["model/README.md"], flags=re.MULTILINE)
    assert sorted(rows) == sorted(PRESETS)


def test_the_table_of_ablations_is_complete() -> None:
    rows = re.findall(r"^\|.*\| `--ablation (\w+)` \|$", PAGES["model/README.md"], flags=re.MULTILINE)
    assert sorted(rows) == sorted(ABLATIONS)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_exist(page: str) -> None:
    prose = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)]+)\)", prose):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors_of(PAGES[str(file.relative_to(ROOT))]), target


@pytest.mark.slow
def test_the_steps_for_own_videos(tmp_path: Path) -> None:
    """ "Your own videos", as written but for the size of the networks."""
    videos = tmp_path / "my_videos"
    videos.mkdir()
    make_video(videos / "clip.mp4")
    block = next(block for block in blocks_of(README) if "--dry-run" in block)
    plan, train, sample = (shlex.split(line, comments=True) for line in block.strip().splitlines())
    tiny = [f"--set={s}" for s in ("channels=4", "latent_dim=4", "iters_per_scale=1", "max_size=24")]
    assert run_job(Path(plan[1]).name, *plan[2:], *tiny, cwd=tmp_path).returncode == 0
    done = run_process(Path(train[1]).name, *train[2:], *tiny, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    (clip,) = (tmp_path / "runs" / "my_videos-small").glob("clip-*")
    made = run_job(Path(sample[1]).name, *[word.replace("CLIP", clip.name) for word in sample[2:]], cwd=tmp_path)
    assert made.returncode == 0, made.stdout
    assert len(list((tmp_path / "samples").glob("sample_*.mp4"))) == 10


@pytest.mark.slow
def test_make_ui_serves_the_store(tmp_path: Path) -> None:
    runs.open_parent(default_uri(tmp_path), "mixed", tmp_path, {})
    port = free_port()
    command = ["make", "ui", f"STORAGE={tmp_path}", f"PORT={port}"]
    server = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name?experiment_name=mixed"
                answer = urllib.request.urlopen(address, timeout=5).read().decode()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, "the server did not come up"
                time.sleep(0.5)
        assert '"mixed"' in answer
        ports = listening(server.pid)
        assert ports and {address for _, address in ports} <= LOOPBACK, ports
    finally:
        if server.poll() is None:
            family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
            for member in family:
                member.kill()
            psutil.wait_procs(family, timeout=20)

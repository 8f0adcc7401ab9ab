"""What the pages say is there: modules, files, presets, links. Their commands are in test_commands.py.

A room's page has a table row for each of its modules, `| `store.py` | …`, relative to the page's folder.
"""

from __future__ import annotations

import re
import subprocess
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from infra.tracking import runs
from infra.tracking.uri import default_uri
from model.presets import ABLATIONS, PRESETS
from tests.jobs.conftest import _own_ray  # noqa: F401  a home of these tests' own
from tests.pages import PAGES, ROOMS, ROOT, anchors_of, parts_of
from tests.ports import free_port
from tests.test_doors import LOOPBACK, listening

README = PAGES["README.md"]
MAX_README_LINES = 160


def test_every_room_has_a_page() -> None:
    assert {f"{room}/README.md" for room in (*ROOMS, "tests")} <= set(PAGES)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("page", PAGES)
def test_a_head_of_a_table_names_how_many_samples_a_diversity_is_of(page: str) -> None:
    lines = PAGES[page].splitlines()
    heads = [head for head, rule in pairwise(lines) if re.match(r"\|[-:| ]+$", rule) or "  svfid_lite0  " in head]
    assert not [head for head in heads if re.search(r"\bdiversity\b(?! change)", head)]


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
    for target in re.findall(r"\]\(([^)]+)\)", parts_of(page)[0]):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors_of(str(file.relative_to(ROOT))), target


def test_pictures_are_shown_and_small() -> None:
    shown = {
        ((ROOT / page).parent / target).resolve()
        for page, text in PAGES.items()
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    }
    sizes = {path: path.stat().st_size for room in ROOMS for path in (ROOT / room).rglob("pictures/*")}
    assert sizes.keys() <= shown
    assert max(sizes.values()) <= 150_000, sizes
    assert sum(sizes.values()) <= 1_200_000, sizes


def test_each_application_has_a_picture() -> None:
    sections = re.split(r"^##+ ", PAGES["model/sampling/README.md"], flags=re.MULTILINE)[1:]
    with_commands = {part.splitlines()[0]: part for part in sections if "jobs/sample.py CLIP" in part}
    del with_commands["Random samples"]
    assert len(with_commands) >= 9
    assert [title for title, part in with_commands.items() if "](pictures/" not in part] == []


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

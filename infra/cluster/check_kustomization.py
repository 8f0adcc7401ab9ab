"""A kustomization.yaml: whether the files that it names lie beside it, and which secrets it makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.cluster.check_schema import mappings

NAME = "kustomization.yaml"


def mistakes(document: dict[str, Any], folder: Path, found: Any) -> Iterator[str]:
    """Every file that is not there, and notes in `found` (`check.Found`) what was not checked."""
    found.against.append("the files that it names")
    found.unchecked.append("its fields; kubectl kustomize FOLDER reads them")
    resources = document.get("resources")
    for name in resources if isinstance(resources, list) else ():
        if isinstance(name, str) and "//" not in name and not (folder / name).exists():
            yield f"resources: {name} does not lie beside it"
    for generator in mappings(document, "secretGenerator"):
        for name in _texts(generator, "envs"):
            if not (folder / name).is_file():
                found.unchecked.append(f"{name}, which does not lie beside it yet; kubectl apply needs it")


def secrets(document: dict[str, Any], folder: Path) -> dict[str, set[str]]:
    """The keys of each secret that it makes; none, where the files that hold them do not lie beside it."""
    made: dict[str, set[str]] = {}
    for generator in mappings(document, "secretGenerator"):
        pairs = _texts(generator, "literals") + [Path(one).name for one in _texts(generator, "files")]
        files = [folder / name for name in _texts(generator, "envs")]
        lines = [line for file in files if file.is_file() for line in file.read_text(errors="replace").splitlines()]
        all_there = all(file.is_file() for file in files)
        keys = {one.partition("=")[0].strip() for one in pairs + lines if one.strip() and not one.startswith("#")}
        made[str(generator.get("name"))] = keys if all_there else set()
    return made


def _texts(generator: dict[str, Any], key: str) -> list[str]:
    found = generator.get(key)
    return [str(one) for one in found] if isinstance(found, list) else []

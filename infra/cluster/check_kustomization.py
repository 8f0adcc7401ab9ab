"""A kustomization.yaml: its fields, whether the files that it names lie beside it, and which secrets it makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.cluster import check_schema
from infra.cluster.check_schema import mappings, texts

NAME = "kustomization.yaml"


def _object(texts: str = "", lists: str = "", switches: str = "", **others: dict[str, Any]) -> dict[str, Any]:
    """A schema of an object that has these fields, which are parted by spaces, and no other."""
    properties: dict[str, Any] = {name: {"type": "string"} for name in texts.split()}
    properties |= {name: {"type": "array", "items": {"type": "string"}} for name in lists.split()}
    properties |= {name: {"type": "boolean"} for name in switches.split()}
    return {"type": "object", "properties": properties | others, "additionalProperties": False}


def _all(one: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": one}


ANY: dict[str, Any] = {"type": "object"}
OPTIONS = _object(switches="disableNameSuffixHash immutable", labels=ANY, annotations=ANY)
GENERATOR = "name namespace behavior env"
SCHEMA = _object(  # the fields of kustomize 5, the old ones that it still reads among them
    "apiVersion kind namespace namePrefix nameSuffix",
    "resources bases components crds configurations generators transformers validators buildMetadata"
    " patchesStrategicMerge",
    metadata=ANY,
    images=_all(_object("name newName newTag digest tagSuffix")),
    replicas=_all(_object("name", count={"type": "integer"})),
    secretGenerator=_all(_object(f"{GENERATOR} type", "envs files literals", options=OPTIONS)),
    configMapGenerator=_all(_object(GENERATOR, "envs files literals", options=OPTIONS)),
    generatorOptions=OPTIONS,
    labels=_all(_object(switches="includeSelectors includeTemplates", pairs=ANY, fields=_all(ANY))),
    patches=_all(_object("path patch", target=ANY, options=ANY)),
    commonLabels=ANY,
    commonAnnotations=ANY,
    openapi=ANY,
    sortOptions=ANY,
    helmGlobals=ANY,
    patchesJson6902=_all(ANY),
    replacements=_all(ANY),
    vars=_all(ANY),
    helmCharts=_all(ANY),
    helmChartInflationGenerator=_all(ANY),
)


def mistakes(document: dict[str, Any], folder: Path, found: Any) -> Iterator[str]:
    """Every file that is not there, and notes in `found` (`check.Found`) what was not checked."""
    found.against += ["kustomize's fields", "the files that it names"]
    yield from check_schema.mistakes(document, SCHEMA)
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

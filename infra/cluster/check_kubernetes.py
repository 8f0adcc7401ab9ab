"""What is wrong in an object for Kubernetes: by Kubernetes' own schemas, KubeRay's kinds also by their definitions."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from infra.cluster import check_schema
from infra.cluster.check_schema import Place, below, mappings

QUICK = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the former where PyYAML was built with libyaml
DEFINED_IN = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}
KUBERNETES = "1.34"  # or the newest that is known before it


def mistakes(document: dict[str, Any], crds: Path | None, found: Any) -> Iterator[str]:
    """Every mistake in an object, and notes in `found` (`check.Found`) what it was checked against.

    Args:
        crds: folder of KubeRay's definitions; None: its own fields are not checked, and `found` says so.
    """
    kind, version = document.get("kind"), document.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(version, str):
        yield "apiVersion and kind: missing; every object has them"
    elif kind in DEFINED_IN:
        yield from _not_as_defined(document, kind, version, crds, found)
        for at, template in _pod_templates(document):
            pod = {"apiVersion": "v1", "kind": "Pod", **template}
            yield from _refused_by_kubernetes(pod, at, found)
    else:
        yield from _refused_by_kubernetes(document, (), found)


def _not_as_defined(document: dict[str, Any], kind: str, version: str, crds: Path | None, found: Any) -> Iterator[str]:
    file = crds / DEFINED_IN[kind] if crds else None
    if file is None or not file.is_file():
        where = f"{file} does not exist" if file else "--crds is not given"
        found.unchecked.append(f"{kind}'s own fields, as {where}; KubeRay's repository has {DEFINED_IN[kind]}")
        return
    try:
        schemas = _definition(file)
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        yield f"--crds: {file} is no CustomResourceDefinition; KubeRay's repository has {DEFINED_IN[kind]}"
        return
    if version not in schemas:
        yield f"apiVersion: {version} is not one of {', '.join(schemas)}"
        return
    found.against.append(f"KubeRay's {kind}")
    yield from check_schema.mistakes(document, schemas[version])


@functools.cache
def _definition(file: Path) -> dict[str, Any]:
    """The strict schema of each apiVersion that a CustomResourceDefinition serves."""
    spec = yaml.load(file.read_bytes(), QUICK)["spec"]
    return {
        f"{spec['group']}/{version['name']}": check_schema.strict(version["schema"]["openAPIV3Schema"])
        for version in spec["versions"]
        if version["served"]
    }


def _pod_templates(document: dict[str, Any]) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The templates of pods in a RayCluster or a RayJob, and where they lie: KubeRay's definition of them is older."""
    at: Place = ("spec",)
    spec = below(document, "spec")
    if template := below(spec, "submitterPodTemplate"):
        yield (*at, "submitterPodTemplate"), template
    if "rayClusterSpec" in spec:
        at, spec = (*at, "rayClusterSpec"), below(spec, "rayClusterSpec")
    groups: list[tuple[Place, dict[str, Any]]] = [((*at, "headGroupSpec"), below(spec, "headGroupSpec"))]
    groups += [((*at, "workerGroupSpecs", i), group) for i, group in enumerate(mappings(spec, "workerGroupSpecs"))]
    for place, group in groups:
        if template := below(group, "template"):
            yield (*place, "template"), template


def _refused_by_kubernetes(document: dict[str, Any], at: Place, found: Any) -> Iterator[str]:
    try:
        validate: Any = importlib.import_module("kubernetes_validate")
    except ImportError:
        found.unchecked.append("Kubernetes' own fields; run: pip install kubernetes-validate")
        return
    try:
        version = validate.validate(document, KUBERNETES, strict=True)
    except validate.ValidationError as error:
        yield from check_schema.reported(error, at)
    except validate.SchemaNotFoundError:
        yield f"kind: Kubernetes has no {document['kind']} of {document['apiVersion']}"
    else:
        found.against.append(f"Kubernetes {version}")

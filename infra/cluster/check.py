"""Whether the files that describe a cluster are right, as far as a machine without that cluster can tell.

    python -m infra.cluster.check                                 # the files of this folder
    python -m infra.cluster.check infra/cluster/ray_up/aws.yaml   # one that you have changed

It prints one line for each mistake, which names the file and the field, and one for each file that has none. Unknown
fields are mistakes: a cloud ignores or refuses them. Commands in the files are parsed, and not run. Exit code: 0 no
mistake; 1 some; 2 bad arguments.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from infra.cluster import (
    check_cloudformation,
    check_compose,
    check_kubernetes,
    check_kustomization,
    check_objects,
    check_ray_up,
    check_schema,
)
from infra.errors import one_line, printable

HERE = Path(__file__).resolve().parent
OURS = ("ray_up/aws.yaml", "ray_up/gcp.yaml", "kuberay/raycluster.yaml", "kuberay/rayjob.yaml", "kuberay/mlflow.yaml",
        "compose.yaml", "compose.gpu.yaml", "ray_up/aws_access.yaml", "kuberay/kustomization.yaml")  # fmt: skip
CLOUDFORMATION = re.compile(rb"^(AWSTemplateFormatVersion|Resources):", re.MULTILINE)


@dataclass
class Found:
    """What was found in a file: a line for each mistake, what it was checked against, and what could not be checked."""

    mistakes: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a field that stands twice is an error: the first one would silently be dropped."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        merge = "tag:yaml.org,2002:merge"  # << may stand several times
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        line = node.start_mark.line + 1
        if twice:
            raise yaml.YAMLError(f"{', '.join(twice)}: stands twice in what begins at line {line}")
        if other := [key for key in keys if not isinstance(key, str)]:
            raise yaml.YAMLError(f"{other[0]}: a field's name is no text in what begins at line {line}; quote it")
        return super().construct_mapping(node, deep)


def documents(text: bytes) -> list[Any]:
    """The documents of a YAML file. Raises ValueError, of one line, for what is none."""
    try:
        found = [document for document in yaml.load_all(text, _UniqueKeys) if document is not None]
        json.dumps(found, default=str)  # refuses what holds itself
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"is no YAML ({one_line(error)})") from error
    return found


def check(path: Path, crds: Path | None) -> Found:
    """What is wrong in a file: one for `ray up`, for Docker Compose, for CloudFormation, for kubectl's kustomize, or
    Kubernetes objects, KubeRay's among them."""
    found = Found()
    try:
        text = path.read_bytes()
        if CLOUDFORMATION.search(text):  # it has tags of its own, such as !Ref
            _add(found, path, "", check_cloudformation.mistakes(text, found))
            return found
        parts = documents(text)
    except OSError as error:
        _add(found, path, "", [f"cannot be read ({error.strerror})"])
        return found
    except ValueError as error:
        _add(found, path, "", [str(error)])
        return found
    if not parts or not all(isinstance(part, dict) for part in parts):
        asked = "give a file for ray up, Docker Compose or CloudFormation, or Kubernetes objects"
        _add(found, path, "", [f"holds no fields; {asked}"])
    elif "cluster_name" in parts[0] or "provider" in parts[0]:
        _add(found, path, "", check_ray_up.mistakes(parts[0], found))
    elif "services" in parts[0] or path.name.startswith(("compose", "docker-compose")):
        _add(found, path, "", check_compose.mistakes(parts[0], found))
    elif parts[0].get("kind") == "Kustomization":
        _add(found, path, "", check_kustomization.mistakes(parts[0], path.parent, found))
    else:
        made = _secrets(path.parent, parts)
        for part in parts:
            name = f"{part.get('kind', 'no kind')}/{check_schema.below(part, 'metadata').get('name', 'no name')}: "
            _add(found, path, name, check_kubernetes.mistakes(part, crds, found))
            _add(found, path, name, check_objects.mistakes(part, parts, made, found))
    return found


def _secrets(folder: Path, parts: list[dict[str, Any]]) -> dict[str, set[str]] | None:
    """The keys of each secret that there will be: those of the file, and of a kustomization.yaml that lies beside it;
    None without one that can be read."""
    try:
        (beside,) = documents((folder / check_kustomization.NAME).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(beside, dict):
        return None
    below = check_schema.below
    own = {
        str(below(part, "metadata").get("name")): {*below(part, "data"), *below(part, "stringData")}
        for part in parts
        if part.get("kind") == "Secret"
    }
    return own | check_kustomization.secrets(beside, folder)


def _add(found: Found, path: Path, name: str, mistakes: Iterable[str]) -> None:
    found.mistakes += [f"{printable(path)}: {name}{one_line(mistake)}" for mistake in mistakes]


def lines(path: Path, found: Found) -> Iterator[str]:
    """What to print of a file."""
    yield from dict.fromkeys(found.mistakes)  # a pod of KubeRay's is checked by two schemas
    for reason in dict.fromkeys(found.unchecked):
        yield f"{printable(path)}: not checked: {reason}"
    if not found.mistakes:
        yield f"{printable(path)}: no mistake, by {', '.join(dict.fromkeys(found.against)) or 'nothing'}"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = argparse.ArgumentParser("check.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: those of this folder")
    crds = "folder of KubeRay's ray.io_rayclusters.yaml and ray.io_rayjobs.yaml, by which its objects are checked"
    parser.add_argument("--crds", type=Path, metavar="FOLDER", help=crds)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    failed = False
    for path in args.files or [HERE / name for name in OURS]:
        found = check(path, args.crds)
        failed |= bool(found.mistakes)
        print(*lines(path, found), sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

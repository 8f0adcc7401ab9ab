"""The packages that some requirements bring along, out of all that this interpreter has."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


def closure(requirements: Iterable[str]) -> dict[str, Distribution]:
    """What pip would install for them, by its name. Raises PackageNotFoundError for what is not installed here."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    left = [(Requirement(text), "") for text in requirements]
    while left:
        wanted, of_extra = left.pop()
        if wanted.marker and not wanted.marker.evaluate({"extra": of_extra}):
            continue
        for extra in ("", *wanted.extras):
            if (wanted.name, extra) not in seen:
                seen.add((wanted.name, extra))
                found[wanted.name] = distribution(wanted.name)
                left += [(Requirement(text), extra) for text in found[wanted.name].requires or ()]
    return found


def link(requirements: Iterable[str], site: Path) -> None:
    """Have a folder of packages lead to those of `closure`, and to no other package."""
    for package in closure(requirements).values():
        for name in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not name.endswith(".pth") and not (site / name).exists():
                (site / name).symlink_to(Path(str(package.locate_file(name))))

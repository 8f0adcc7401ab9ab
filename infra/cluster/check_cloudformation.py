"""What is wrong in a template for CloudFormation, by cfn-lint, which has AWS' own descriptions of its resources."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from infra.cluster import check_schema


def mistakes(text: bytes, found: Any) -> Iterator[str]:
    """Every mistake, warnings too, and notes in `found` (`check.Found`) what it was checked against."""
    try:
        lint = importlib.import_module("cfnlint.api").lint
    except ImportError:
        found.unchecked.append("a template for CloudFormation; run: pip install cfn-lint")
        return
    found.against.append("cfn-lint")
    for match in lint(text.decode(errors="replace")):
        yield f"{check_schema.field(tuple(match.path)) or f'line {match.linenumber}'}: {match.message}"

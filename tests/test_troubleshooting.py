"""jobs/README.md, "Troubleshooting": the lines that it quotes are ones that the code prints."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.pages import PAGES, ROOMS, ROOT

LEAST_LINES = 20
# Where a line is put together: "FILE: CAUSE; MEND", with what differs in brackets.
JOINTS = re.compile(r"…|; |: | \(|\)|, (?=then )")
LEAST_CHARS = 5  # of a part that tells something


def quoted_lines() -> list[str]:
    """What stands in the first column of the tables, but of the last one, whose symptoms have no line."""
    section = PAGES["jobs/README.md"].split("\n## Troubleshooting\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]*) \|", section.split("\n### Without a line\n")[0], flags=re.MULTILINE)
    return [line for row in rows for line in re.findall(r"`([^`]+)`", row)]


def texts_of_the_code() -> Iterator[str]:
    """Every text in the code of the rooms, one between two values that an f-string fills in. No docstring is one."""
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                    node.value.value = None
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_every_quoted_line_is_in_the_code() -> None:
    lines = quoted_lines()
    assert len(lines) >= LEAST_LINES and len(set(lines)) == len(lines)
    said = "\n".join(texts_of_the_code())
    missing = []
    for line in lines:
        parts = [part for part in (each.strip() for each in JOINTS.split(line)) if len(part) >= LEAST_CHARS]
        assert max(map(len, parts), default=0) >= 10, f"too little to find it by: {line}"
        missing += [f"{part} (of {line})" for part in parts if part not in said]
    assert not missing, "\n".join(missing)

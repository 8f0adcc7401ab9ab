"""Tables: as text for a terminal, as Markdown, as CSV. Cells are strings; the first row of each is the heads."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

PAGE_COLUMNS = 240  # of a text table: wide enough for whole links

Row = Sequence[str]


def text_table(title: str, heads: Row, rows: Iterable[Row], *, numbers: Iterable[str]) -> str:
    """A framed table for a terminal. numbers: the heads of the columns that stand to the right."""
    table, right = Table(title=title, title_justify="left"), set(numbers)
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    text = io.StringIO()
    Console(file=text, width=PAGE_COLUMNS).print(table)
    return text.getvalue()


def markdown_table(rows: Sequence[Row], *, numbers: bool = False) -> list[str]:
    """The lines of a Markdown table that is as readable in a terminal.

    Args: numbers: all columns but the first stand to the right.
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        placed = [
            cell.rjust(width) if numbers and place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(placed)} |")
    rule = "|".join("-" * (width + 1) + (":" if numbers and place else "-") for place, width in enumerate(widths))
    return [lines[0], f"|{rule}|", *lines[1:]]


def csv_table(rows: Iterable[Sequence[object]]) -> bytes:
    """Rows as CSV; numbers with all their digits."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode(errors="backslashreplace")

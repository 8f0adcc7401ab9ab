"""Tables: as text for a terminal, as Markdown, as CSV. Cells are strings; the first row of each is the heads."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

PAGE_COLUMNS = 240  # of a text that is kept in a file
HEAD_COLUMNS = 9  # of a line of a head that is folded
NAME_COLUMNS = 32  # of the first column, beyond which its cells are folded before others are left out
GAP = 2  # columns between two columns

Row = Sequence[str]


class TextTable:
    """A table for a terminal of any width.

    Where it is too wide, heads are folded at their underscores, dashes and spaces; then columns are left out, in the
    order of `dropped_first`, and a line below names them; then cells of the first column are folded, likewise.

    Args:
        numbers: the heads of the columns that stand to the right.
        dropped_first: heads.
    """

    def __init__(
        self, title: str, heads: Row, rows: Iterable[Row], *, numbers: Iterable[str], dropped_first: Row = ()
    ) -> None:
        self._title, self._heads, self._rows = title, list(heads), [list(row) for row in rows]
        self._right = set(numbers)
        self._dropped_first = [head for head in dropped_first if head in self._heads]

    def print(self, console: Console, links: Mapping[str, str] | None = None) -> None:
        """Print it as wide as the console is.

        Args: links: first cell → where a click on it leads, in terminals that can.
        """
        table, left_out = self._fit(console.width, links or {})
        console.print(table)
        for line in left_out_line(left_out):
            console.print(line, soft_wrap=True)

    def _fit(self, width: int, links: Mapping[str, str]) -> tuple[Table, list[str]]:
        """The table at a width, and the heads of the columns that are left out."""
        heads = {head: head for head in self._heads}
        left_out: list[str] = []
        if self._width(heads) > width:
            heads = {head: _folded(head, HEAD_COLUMNS) for head in self._heads}
            for head in self._dropped_first:
                if self._width(heads) <= width:
                    break
                left_out.append(head)
                del heads[head]
        table = Table(
            title=self._title,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=(0, GAP - 1, 0, 0),  # and one column for the line that is none
            pad_edge=False,
        )
        for number, (head, shown) in enumerate(heads.items()):
            # Parts of names are folded between letters where there is no room; figures never are.
            table.add_column(
                shown, justify="right" if head in self._right else "left", overflow="fold", no_wrap=number > 0
            )
        places = [self._heads.index(head) for head in heads]
        room = width - sum(GAP + column for column in self._widths(heads)[1:])
        for row in self._rows:
            others = [Text(row[place]) for place in places[1:]]
            first = Text(_folded(row[0], room))
            if link := links.get(row[0]):
                first.stylize(Style(link=link))
            table.add_row(first, *others)
        return table, left_out

    def text(self, width: int = PAGE_COLUMNS) -> str:
        """The same as text, and below it a line for the columns that are left out."""
        table, left_out = self._fit(width, {})
        text = io.StringIO()
        Console(file=text, width=width).print(table)
        lines = [line.rstrip() for line in text.getvalue().splitlines()]
        return "\n".join([*lines, *left_out_line(left_out)]) + "\n"

    def _width(self, heads: Mapping[str, str]) -> int:
        """Columns of the terminal that the table takes with these heads, if a long first one is folded."""
        first, *others = self._widths(heads)
        return min(first, NAME_COLUMNS) + sum(GAP + column for column in others)

    def _widths(self, heads: Mapping[str, str]) -> list[int]:
        """How wide each column is with these heads."""
        columns = [self._heads.index(head) for head in heads]
        longest = [max([cell_len(line) for line in shown.splitlines()], default=0) for shown in heads.values()]
        cells = [max([cell_len(row[place]) for row in self._rows], default=0) for place in columns]
        return list(map(max, longest, cells))


def left_out_line(heads: Sequence[str]) -> list[str]:
    """The line, if any, on columns for which a terminal is too narrow."""
    return [f"columns that do not fit: {', '.join(heads)}"] if heads else []


def _folded(text: str, columns: int) -> str:
    """A head or a name in lines of so many columns, or as wide as the longest of its parts before a _, - or space."""
    lines = [""]
    for word in re.findall(r"[^-_ ]+[-_ ]?|[-_ ]", text):
        if lines[-1] and cell_len(lines[-1] + word.rstrip()) > columns:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip(" ") for line in lines)


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

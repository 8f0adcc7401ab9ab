"""A console that can copy what it prints, for the log of a job."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from rich.console import Console

from jobs.reports.table import PAGE_COLUMNS


class CopyingConsole(Console):
    """rich's, which remembers what is printed until somebody wants a copy, and copies to that what is printed then."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._copy: Callable[[str], None] | None = None
        self._before: list[str] = []

    def copy_to(self, copy: Callable[[str], None] | None) -> None:
        """Copy to a function of plain text, from what was printed before on; None ends it."""
        self._copy = copy
        if copy is not None:
            for text in self._before:
                copy(text)
            self._before = []

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's."""
        super().print(*objects, **options)
        text = io.StringIO()
        Console(file=text, width=PAGE_COLUMNS, markup=False, highlight=False).print(*objects, soft_wrap=True)
        if not text.getvalue().strip():  # the cursor of a display
            return
        if self._copy:
            self._copy(text.getvalue())
        else:
            self._before.append(text.getvalue())

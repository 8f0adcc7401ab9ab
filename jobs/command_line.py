"""NEW."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from infra.errors import StorageError, UsageError, printable
from model.config import ConfigError


def exit_code(job: Callable[[], int], console: Console, *expected: type[Exception], stopped: str) -> int:
    """What a job returns; 2 after one line for arguments that cannot work, 130 after one for Ctrl-C.

    Args:
        expected: errors that are told as one line too.
        stopped: what is told after Ctrl-C.
    """
    told: tuple[type[Exception], ...] = (UsageError, ConfigError, StorageError, *expected)
    try:
        return job()
    except told as error:
        console.print(f"error: {printable(str(error))}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print(stopped, highlight=False)
        return 130

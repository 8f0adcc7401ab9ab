"""How long something takes, for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour; 3 d 4 h from two days on."""
    whole = max(0, round(seconds))
    if whole >= 2 * 86400:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"

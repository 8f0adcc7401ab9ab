"""Parts of a check that only end in one way or another; light, as each runs in a process of its own."""

from __future__ import annotations

import time

from jobs.gpu.part import Found, NotPossible, Setting


def fine(setting: Setting) -> Found:
    return Found(True, ["| a |"], {"number": 1})


def slow(setting: Setting) -> Found:
    time.sleep(300)
    return Found(True, [])


def broken(setting: Setting) -> Found:
    raise ValueError("no\nsuch thing")


def absent(setting: Setting) -> Found:
    raise NotPossible("not on a CPU")

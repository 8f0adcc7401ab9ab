"""Processes that tests start, fork-fast: a server that has imported everything forks them, before it has any thread."""

from __future__ import annotations

import multiprocessing

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.model.conftest"])

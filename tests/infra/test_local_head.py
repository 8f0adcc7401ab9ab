"""infra/cluster/local_head.sh: what it tells and what it starts, with a `ray` that only prints its arguments."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.jobs.conftest import ROOT

FAKE = '#!/bin/sh\necho "ray $*"\n'


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A copy of the script in a project whose environment has the other `ray`."""
    (tmp_path / "infra" / "cluster").mkdir(parents=True)
    ray = tmp_path / ".venv" / "bin" / "ray"
    ray.parent.mkdir(parents=True)
    ray.write_text(FAKE)
    ray.chmod(0o755)
    return Path(shutil.copy(ROOT / "infra" / "cluster" / "local_head.sh", tmp_path / "infra" / "cluster"))


@pytest.mark.parametrize("ports", [("6379", "8265"), ("7001", "7002")])
def test_it_prints_what_a_client_needs_before_it_starts(script: Path, ports: tuple[str, str]) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    chosen = {"RAY_PORT": ports[0], "RAY_DASHBOARD_PORT": ports[1]} if ports[0] != "6379" else {}
    done = subprocess.run([script, "--num-gpus", "4"], env=plain | chosen, capture_output=True, text=True, check=True)
    told, start = done.stdout[: done.stdout.index("ray start")], done.stdout[done.stdout.index("ray start") :]
    assert f"ray start --head --block --port {ports[0]} " in start and "--num-gpus 4" in start
    lines = [line.strip() for line in told.splitlines()]
    assert str(script.parent.parent.parent) in lines[0]
    assert "export RAY_AUTH_MODE=token RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0" in lines
    assert f"ray status --address 127.0.0.1:{ports[0]}" in lines
    (submit,) = [line for line in lines if line.startswith("ray job submit ")]
    assert f"--address http://127.0.0.1:{ports[1]} " in submit

"""infra/cluster/local_head.sh: what it tells and what it starts, with a `ray` that only prints its arguments."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.jobs.conftest import ROOT
from tests.ports import free_port

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
    with socket.socket() as probe:
        if any(probe.connect_ex(("127.0.0.1", int(port))) == 0 for port in ports):
            pytest.skip(f"one of the ports {', '.join(ports)} is taken on this machine")
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


@pytest.mark.parametrize("taken", ["RAY_PORT", "RAY_DASHBOARD_PORT"])
def test_a_port_that_is_taken_is_one_line(script: Path, taken: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        env = os.environ | {"RAY_PORT": str(free_port()), "RAY_DASHBOARD_PORT": str(free_port())} | {taken: port}
        done = subprocess.run([script], env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines() == [
        f"port {port} is taken; end what listens there, or set RAY_PORT and RAY_DASHBOARD_PORT to free ones"
    ]


@pytest.mark.parametrize("port", ["abc", "0", "-1", "99999", "6379 ", "1e3"])
@pytest.mark.parametrize("name", ["RAY_PORT", "RAY_DASHBOARD_PORT"])
def test_a_port_that_is_none_is_one_line(script: Path, name: str, port: str) -> None:
    done = subprocess.run([script], env=os.environ | {name: port}, capture_output=True, text=True)
    line = f"{name}={port}: is no port; give one from 1 to 65535\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)

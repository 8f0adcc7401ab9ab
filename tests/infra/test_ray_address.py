"""What RAY_ADDRESS names: joined with the code alone, or refused in one line within seconds; and where Ray's sockets
are."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from infra.errors import UsageError
from infra.ray_address import ANSWER_S, cluster_address
from infra.ray_cluster import ROOMS, ROOT, _session_folder, ray_session
from jobs import train_corpus
from jobs.command_line import TERMINATED, exit_code
from tests.ports import free_port, ray_head

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}


def test_sigterm_while_ray_starts_ends_as_sigterm_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sets a handler of its own, which ends the process, before it has started."""

    def init(**_: object) -> None:
        raise SystemExit(15)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # by tests before this one
    monkeypatch.setattr("ray.init", init)

    def run() -> int:
        with ray_session():
            return 0

    assert exit_code(run, Console(quiet=True), stopped="stopped") == TERMINATED


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The address of a Ray head that asks for TOKEN."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus", "1"]
    command += ["--port", str(port), "--include-dashboard", "false", "--dashboard-agent-listen-port", "0"]
    with ray_head(command, os.environ | TOKEN, port):
        yield f"127.0.0.1:{port}"


def refusal(address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The one line for an address."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    started = time.monotonic()
    with pytest.raises(UsageError) as refused:
        cluster_address()
    assert time.monotonic() - started < ANSWER_S + 5
    assert "\n" not in str(refused.value) and "; " in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://10.0.0.1:8265", "submit the job: ray job submit --address http://10.0.0.1:8265 --working-dir ."),
        ("https://head/", "submit the job: ray job submit --address https://head "),
        ("ray://head:10001", "set RAY_ADDRESS=head:6379 on a node of the cluster, or submit the job"),
        ("ray://me:hidden@head:10001", "RAY_ADDRESS ray://***@head:10001: "),
        ("head", "is no HOST:PORT"),
        ("head:", "is no HOST:PORT"),
        (":6379", "is no HOST:PORT"),
        ("head:6379x", "is no HOST:PORT"),
        ("head:99999", "is no HOST:PORT"),
        ("127.0.0.1:9", "no Ray head answers there"),
        ("no-such-host.invalid:6379", "no Ray head answers there"),
    ],
)
def test_an_address_that_cannot_be_joined_is_one_line(
    address: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refusal(address, monkeypatch)
    assert words in line and "hidden" not in line


def test_what_listens_and_is_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        assert "no Ray head answers" in refusal(f"127.0.0.1:{deaf.getsockname()[1]}", monkeypatch)
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert "no Ray head answers" in refusal(f"127.0.0.1:{server.server_port}", monkeypatch)
        server.shutdown()


def test_auto_without_a_ray_here_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ray._private import services

    monkeypatch.setattr(services, "find_gcs_addresses", set)  # Ray itself looks at every process of the machine
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert "no Ray runs on this machine" in refusal("auto", monkeypatch)


@pytest.mark.parametrize("address", ["", "local", " local "])
def test_an_address_of_no_cluster_starts_ray_here(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert cluster_address() is None


def test_the_command_refuses_before_it_makes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # by tests before this one
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert train_corpus.main(["--corpus", "demo", "--storage", str(tmp_path / "runs")]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("error: RAY_ADDRESS 127.0.0.1:9: no Ray head answers") and not list(tmp_path.iterdir())


# -- a real head

ASKED = """
import sys
from infra.ray_cluster import ray_session

def look():
    import os
    found = {os.path.join(folder, name) for folder, _, names in os.walk(".") for name in names}
    import jobs.training.task  # which leaves compiled files there

    return os.path.realpath(jobs.training.task.__file__), os.path.realpath("."), sorted(found)

with ray_session():
    import json, ray
    print(json.dumps(ray.get(ray.remote(look).remote())))
"""


@pytest.mark.slow
def test_a_head_gets_the_code_alone_and_a_stranger_no_entry(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "asks for a token" in refusal(head, monkeypatch) and "RAY_AUTH_MODE=token" in refusal(head, monkeypatch)

    checkout = tmp_path / "checkout"
    for room in ROOMS:
        shutil.copytree(ROOT / room, checkout / room, ignore=shutil.ignore_patterns("__pycache__"))
    for place in (checkout / "videos", checkout / "jobs" / "clips", checkout):
        place.mkdir(exist_ok=True)
        with open(place / "film.mp4", "wb") as film:
            film.truncate(540 << 20)  # of zeros, which take no room here
    environment = os.environ | TOKEN | {"RAY_ADDRESS": head, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-c", ASKED], cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    module, cwd, sent = json.loads(done.stdout.splitlines()[-1])
    assert module == f"{cwd}/jobs/training/task.py"
    assert sent == sorted(f"./{path.relative_to(checkout)}" for path in checkout.rglob("*.py"))

    for token, words in (("", "there is no token to show it"), ("f" * 64, "was shown none or another")):
        settings = {"RAY_AUTH_TOKEN": token, "HOME": str(tmp_path)}
        command = [sys.executable, str(ROOT / "jobs" / "train_corpus.py"), "--corpus", "demo"]
        refused = subprocess.run(
            command, cwd=tmp_path, env=environment | settings, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=60,
        )  # fmt: skip
        (line,) = refused.stdout.splitlines()
        assert refused.returncode == 2 and words in line, line


# -- where a Ray that is started here keeps its sockets


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_ray_keeps_its_sockets_in_a_short_folder_that_can_be_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    usual = Path("/tmp") / f"hp{os.getpid()}"
    long = tmp_path / ("l" * 97)
    long.mkdir()
    file = tmp_path / "file"
    file.touch()
    for given in (long, file, file / "below", Path("/proc/nothing"), tmp_path / ("ü" * 50)):
        monkeypatch.setenv(name, str(given))
        with _session_folder() as folder:
            assert folder.startswith("/tmp/") and len(folder) < 30 and Path(folder).is_dir()
        assert not Path(folder).exists()
    monkeypatch.setenv(name, str(usual))  # Ray makes it
    with _session_folder() as folder:
        assert folder == f"{usual}/ray"
    shutil.rmtree(usual)


def test_no_folder_for_sockets_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/nothing")
    monkeypatch.setattr("infra.ray_cluster.SHORT_FOLDER", "/proc")
    with (
        pytest.raises(UsageError, match=r"nothing can be written in /proc/nothing/ray or /proc .*; set RAY_TMPDIR"),
        _session_folder(),
    ):
        pass

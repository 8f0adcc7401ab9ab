"""The image: its Dockerfile and what Docker is sent, read, and its health check, run.

Each check is tried on a copy with the fault that it is for.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tests.infra.compose import CLUSTER
from tests.infra.test_compose import PINNED, ROOT, SECRET
from tests.ports import free_port

# -- Dockerfile


def instructions(text: str) -> list[tuple[str, str]]:
    """(FROM, python:3.12 AS base) …"""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [
        (found[0], found[1]) for found in re.findall(r"^([A-Z]+) (.*)$", "\n".join(lines).replace("\\\n", ""), re.M)
    ]


def dockerfile_complaints(text: str) -> list[str]:
    """What is wrong with a Dockerfile."""
    found, stages, user = [], dict[str, str](), ""
    torch = re.search(r"torch==\S+", (ROOT / "setup.cfg").read_text())
    for instruction, rest in instructions(text):
        words = shlex.split(rest)
        if instruction == "FROM":
            base, _, stage = words
            user = stages.get(base, "root")
            if base not in stages and not PINNED.fullmatch(base):
                found.append(f"{base} has no version")
        elif instruction == "USER":
            user = words[0]
        elif instruction in ("COPY", "ADD"):
            found += [f"{source} does not exist" for source in words[:-1] if not (ROOT / source).exists()]
            found += [f"{source} is not sent" for source in words[:-1] if source != "." and not is_sent(source)]
        elif instruction == "HEALTHCHECK":
            found += [
                f"{word} does not exist" for word in re.findall(r"[\w/]+\.\w+", rest) if not (ROOT / word).exists()
            ]
        elif instruction in ("ENV", "ARG") and SECRET.search(rest):
            found.append(f"{rest} is in the image")
        elif instruction == "RUN":
            for install in re.findall(r"pip install [^&]*", rest):
                if "--require-hashes" not in install and (not torch or torch[0] not in install):
                    found.append("a package is not that of the lock file or of setup.cfg")
        if instruction != "FROM" or words[2] not in stages:
            stages[stage] = user
    found += [f"{target} is root" for target in ("cpu", "cuda") if stages.get(target, "root") in ("root", "0")]
    if "HEALTHCHECK" not in dict(instructions(text)):
        found.append("no health check")
    return found


DOCKERFILE_FAULTS = {
    "has no version": ("FROM python:3.11.14-slim-bookworm", "FROM python:latest"),
    "cpu is root": ("USER 1000", ""),
    "requirements-cpus.txt does not exist": ("requirements-cpu.txt /opt", "requirements-cpus.txt /opt"),
    "a package is not": ("--require-hashes ", ""),
    "not that of the lock file or of setup.cfg": ("torch==2.13.0+cpu", "torch==2.12.0+cpu"),
    "is in the image": ("ENV PYTHONPATH=/app", "ENV RAY_AUTH_TOKEN=x PYTHONPATH=/app"),
    "infra/cluster/health.py does not exist": ("infra/cluster/healthy.py", "infra/cluster/health.py"),
    "no health check": ("HEALTHCHECK", "# HEALTHCHECK"),
    "README.md is not sent": ("COPY . .", "COPY README.md ."),
}


def test_the_dockerfile_has_no_fault() -> None:
    assert dockerfile_complaints((CLUSTER / "Dockerfile").read_text()) == []


@pytest.mark.parametrize("fault", DOCKERFILE_FAULTS)
def test_a_fault_in_the_dockerfile_is_found(fault: str) -> None:
    right, wrong = DOCKERFILE_FAULTS[fault]
    text = (CLUSTER / "Dockerfile").read_text()
    assert right in text
    assert any(fault in complaint for complaint in dockerfile_complaints(text.replace(right, wrong)))


# -- what Docker is sent


def is_sent(path: str) -> bool:
    """Whether Dockerfile.dockerignore lets Docker have a file: the last line that fits it, or its folder, counts."""
    sent = True
    lines = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    for line in (line for line in lines if line and not line.startswith("#")):
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{pattern}(?:/.*)?", path):
            sent = line.startswith("!")
    return sent


def test_the_image_holds_the_code_and_what_it_opens_and_nothing_else() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True)
    files = listed.stdout.split() or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
    opened = r"(infra|pipeline|model|jobs)/.*\.py|jobs/.*\.(j2|css|js|html)|infra/lock/requirements-(cpu|cuda|dev)\.txt"
    wanted = [file for file in files if re.fullmatch(rf"{opened}|infra/cluster/mlflow_auth\.ini", file)]
    assert len(wanted) > 100
    assert [file for file in files if is_sent(file)] == wanted


@pytest.mark.parametrize(
    "name", [".env", "secrets.env", "key.pem", "id_rsa", "credentials.json", "weights.pth", "x.mp4"]
)
@pytest.mark.parametrize(
    "folder", ["", "infra/cluster/", "infra/cluster/kuberay/", "infra/lock/", "jobs/", "model/runs/"]
)
def test_what_lies_beside_the_code_stays_here(folder: str, name: str) -> None:
    assert not is_sent(f"{folder}{name}")


@pytest.mark.parametrize(
    "path", [".git/config", "runs/demo/result.json", ".venv/bin/x.py", "build/jobs/x.py", "jobs/.x/y.py"]
)
def test_hidden_and_made_folders_stay_here(path: str) -> None:
    assert not is_sent(path)


def test_git_ignores_the_secrets() -> None:
    ignored = subprocess.run(["git", "check-ignore", "infra/cluster/.env"], cwd=ROOT, capture_output=True, text=True)
    assert ignored.returncode in (0, 128), "infra/cluster/.env is not in .gitignore"  # 128: no repository here
    assert "/infra/cluster/.env" in (ROOT / ".gitignore").read_text().splitlines()


# -- the health check


class Answers(BaseHTTPRequestHandler):
    """A server that answers every request with `status`."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def is_healthy(*words: str) -> bool:
    """What the check says of a process with these words in its command line, which does nothing."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)", *words]) as process:
        try:
            check = [sys.executable, str(CLUSTER / "healthy.py"), str(process.pid)]
            return subprocess.run(check, check=False).returncode == 0
        finally:
            process.kill()


def test_the_health_check_asks_what_the_container_runs() -> None:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        mlflow = ("mlflow", "server", f"--port={server.server_port}")
        assert is_healthy(*mlflow)
        Answers.status = 503
        assert not is_healthy(*mlflow)
        server.shutdown()
    assert not is_healthy("/bin/mlflow", "server", "--port", str(free_port()))
    assert not is_healthy("ray", "start", "--address", f"127.0.0.1:{free_port()}", "--block")
    assert is_healthy("jobs/train_corpus.py", "--corpus", "demo")

"""Whether what a container runs works: the health check of the image, by the command of the container's first process.

python infra/cluster/healthy.py [PID]  # exit code 0: a Ray node or an MLflow server works; a job needs only to run
"""

from __future__ import annotations

import http.client
import socket
import sys
from collections.abc import Sequence
from pathlib import PurePath

import psutil

ANSWER_S = 5.0  # what does not answer for so long is not healthy


def is_healthy(process: psutil.Process) -> bool:
    """Of a Ray node: it has its raylet, and its head can be reached; a head takes jobs too. MLflow answers."""
    words = process.cmdline()
    names = [PurePath(word).name for word in words]
    if "mlflow" in names and "server" in names:
        return _speaks_http(int(_option(words, "--port", "5000")), "/health")
    if "ray" in names and "start" in names:
        is_head = "--head" in words
        head = f"127.0.0.1:{_option(words, '--port', '6379')}" if is_head else _option(words, "--address", "")
        children = {child.name() for child in process.children(recursive=True)}
        takes_jobs = not is_head or _speaks_http(int(_option(words, "--dashboard-port", "8265")), "/api/version")
        return "raylet" in children and takes_jobs and _is_open(head)
    return True


def _option(words: Sequence[str], name: str, default: str) -> str:
    """What a command line gives as `--name value` or `--name=value`."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return default


def _is_open(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_S):
            return True
    except OSError:
        return False


def _speaks_http(port: int, path: str) -> bool:
    """Whether a server on this machine answers: also if it refuses who shows no token."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if is_healthy(psutil.Process(int(sys.argv[1]) if len(sys.argv) > 1 else 1)) else 1)

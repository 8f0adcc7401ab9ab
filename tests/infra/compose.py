"""infra/cluster/compose.yaml on this machine: its commands and environment, with the addresses that they have here."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

CLUSTER = Path(__file__).resolve().parent.parent.parent / "infra" / "cluster"
HEALTHY_S = 240.0  # in which a service must be, also on a busy machine


def compose() -> dict[str, Any]:
    """The file as a dictionary, with its anchors filled in."""
    content: dict[str, Any] = yaml.safe_load((CLUSTER / "compose.yaml").read_text())
    return content


def filled_in(text: str, variables: Mapping[str, str]) -> str:
    """What docker compose makes of ${NAME:-default} and ${NAME:?what to do}."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        assert variables.get(name) or kind == "-", f"required variable {name} is missing a value: {rest}"
        return variables.get(name) or rest

    return re.sub(r"\$\{(\w+):([-?])([^}]*)\}", value, text)


@dataclass
class Services:
    """Services of the file, started as processes. What a container would have to itself they have too: no variable of
    this process reaches them.

    Attributes:
        folder: for their logs.
        secrets: what .env holds.
        here: what stands in the file → what takes its place on this machine, as whole words.
        image: the variables that the image sets.
        instead: variables that are different on this machine.
    """

    folder: Path
    secrets: Mapping[str, str]
    here: Mapping[str, str]
    image: Mapping[str, str]
    instead: Mapping[str, str]
    running: dict[str, psutil.Popen] = field(default_factory=dict)

    def words(self, name: str) -> list[str]:
        """The command of a service."""
        return [self._placed(word) for word in compose()["services"][name]["command"]]

    def variables(self, name: str) -> dict[str, str]:
        """The environment of a service."""
        given = {key: self._placed(value) for key, value in compose()["services"][name]["environment"].items()}
        return {**self.image, **given, **self.instead}

    def _placed(self, text: str) -> str:
        words = "|".join(re.escape(word) for word in sorted(self.here, key=len, reverse=True))
        return filled_in(re.sub(rf"(?<![\w.])(?:{words})(?!\w)", lambda found: self.here[found[0]], text), self.secrets)

    def start(self, name: str, command: list[str], **options: Any) -> None:
        """Start it; what it prints goes to `folder / {name}.log`."""
        with open(self.folder / f"{name}.log", "ab") as log:
            self.running[name] = psutil.Popen(
                command, env=self.variables(name), cwd=self.folder, stdout=log, stderr=log, **options
            )

    def wait(self, name: str, check: list[str]) -> None:
        """Until a health check of a service ends with 0. Prints how long that took."""
        start = time.monotonic()
        while True:
            alive = self.running[name].poll() is None and time.monotonic() < start + HEALTHY_S
            done = subprocess.run(check, env=self.variables(name), cwd=CLUSTER.parent.parent, capture_output=True)
            if alive and done.returncode == 0:
                print(f"{name:<8} healthy after {time.monotonic() - start:4.1f} s", flush=True)
                return
            assert alive, (self.folder / f"{name}.log").read_text() + done.stderr.decode()
            time.sleep(0.5)

    def stop(self) -> None:
        """End all of them, the last one first, as Docker does: SIGTERM, and then SIGKILL."""
        for process in reversed(self.running.values()):
            with contextlib.suppress(psutil.NoSuchProcess):
                family = [process, *process.children(recursive=True)]
                process.terminate()
                for member in psutil.wait_procs(family, timeout=3)[1]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        member.kill()
                psutil.wait_procs(family, timeout=20)

    def commands(self) -> Iterator[str]:
        """The command line of every process that runs, which any user of the machine may read."""
        for process in self.running.values():
            for member in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    yield " ".join(member.cmdline())


def image_variables(home: Path, sockets: Path) -> dict[str, str]:
    """What the image sets, for this machine. sockets: a short folder for Ray's."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    folders = {"PYTHONPATH": str(CLUSTER.parent.parent), "HOME": str(home), "RAY_TMPDIR": str(sockets)}
    return {"PATH": path, "PYTHONUNBUFFERED": "1", **folders}

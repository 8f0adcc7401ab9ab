"""A real MLflow server that tests start and kill, and what its store holds, read without MLflow."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs import ui
from tests.ports import free_port


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path | None = None) -> None:
    """Until MLflow answers there."""
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).read()
            return
        except OSError:
            in_time = process.poll() is None and time.monotonic() < deadline
            assert in_time, log.read_text() if log else "the server did not come up"
            time.sleep(0.2)


@contextlib.contextmanager
def ui_server(storage: Path) -> Iterator[str]:
    """The address of MLflow over a storage folder, served as jobs/ui.py does."""
    port = free_port()
    process = subprocess.Popen(
        ui.server_command(str(storage), port),
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Server:
    """What `mlflow server --artifacts-destination` serves, on a port of its own. `log` is all it ever said.

    That command is a process which imports MLflow, and starts the one that is started here, which does too.
    """

    def __init__(self, folder: Path, database: str) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.artifacts, self.log = folder / "artifacts", folder / "server.log"
        command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(self.port)]
        self._command = [*command, "mlflow.server.fastapi_app:app"]
        self._env = os.environ | {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "_MLFLOW_SERVER_FILE_STORE": database,
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(self.artifacts),
        }
        if database.startswith("postgresql"):  # as the README says
            self._env["MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"] = "64"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        wait_for(self.uri, self._process, self.log)

    def kill(self) -> None:
        """At once, with its workers."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


POINTS = """SELECT tags.value, metrics.key, metrics.step, metrics.value, metrics.timestamp FROM metrics
    JOIN tags ON tags.run_uuid = metrics.run_uuid AND tags.key = 'clip_id'
    WHERE metrics.key NOT LIKE 'system/%'"""  # the load of the host, when it happened to be looked at
RUNS = """SELECT tags.value, runs.status FROM runs
    JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'clip_id'"""
# Everything but times of runs, which a second upload may change.
EVERYTHING = (
    "SELECT run_uuid, key, step, value, timestamp FROM metrics",
    "SELECT run_uuid, key, value FROM params",
    "SELECT run_uuid, key, value FROM tags",
    "SELECT run_uuid, lifecycle_stage, status FROM runs",
)


def rows(connection: Any, query: str) -> list[tuple[Any, ...]]:
    """What a query of a database (PEP 249) gives, sorted."""
    cursor = connection.cursor()
    cursor.execute(query)
    return sorted(map(tuple, cursor.fetchall()))


def files(folder: Path) -> dict[str, list[str]]:
    """run id → sorted paths of its artifacts, below a folder that holds …/{run id}/artifacts/…

    Without those of logged models, …/models/{model id}/artifacts/…
    """
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and "models" not in parts:
            at = parts.index("artifacts")
            found.setdefault(parts[at - 1], []).append("/".join(parts[at + 1 :]))
    return found


def assert_files_are_there_once(folder: Path, stored: list[str]) -> None:
    """`stored`: the artifacts of the run of the finished clip in `folder`."""
    kept = [path.name for path in (folder / "samples").iterdir() if not path.name.startswith("scale_")]
    described = "sizes_thw" in json.loads((folder / "config.json").read_text())  # then its checkpoint is a logged model
    assert [name for name in stored if not name.startswith("images/")] == sorted(
        [
            "config.json",
            "metrics.json",
            *([] if described else ["checkpoint.pt"]),
            *(f"samples/{name}" for name in kept),
        ]
    )
    pictures = [(name.split("+step+")[1].split("+")[0], Path(name).suffix) for name in stored if "+step+" in name]
    scales = [str(int(path.stem.removeprefix("scale_"))) for path in (folder / "samples").glob("scale_*.png")]
    assert scales and sorted(pictures) == sorted((scale, kind) for scale in scales for kind in (".png", ".webp"))


def logged(folder: Path) -> list[tuple[Any, ...]]:
    """What POINTS should give of a finished clip: every line of its metrics.jsonl, and its final figures."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    every = json.loads((folder / "config.json").read_text())["config"]["iters_per_scale"]
    wanted = []
    for point in lines:
        scale, values = point["scale"], point["metrics"]
        if point["iteration"] is None:
            prefix, step = "train/after_scale", scale
        else:  # one curve over the iterations of all scales
            before = sum(every[:scale]) if isinstance(every, list) else scale * every
            prefix, step, values = "train", before + point["iteration"], {**values, "scale": scale}
        wanted += [(folder.name, f"{prefix}/{name}", step, value, point["time_ms"]) for name, value in values.items()]
    scores = json.loads((folder / "metrics.json").read_text())
    final = {f"score/{name}": value for name, value in scores.items() if name not in ("num_samples", "seed", "time_ms")}
    final["train/minutes"] = json.loads((folder / "result.json").read_text())["minutes"]
    when = scores.get("time_ms", lines[-1]["time_ms"])
    wanted += [(folder.name, name, 0, value, when) for name, value in final.items()]
    return sorted(wanted)

"""infra/cluster/slurm/train_corpus.sbatch, with an `srun` and a `scontrol` that run what they are told on this machine.

The Ray nodes, the training and the signals are real; what Slurm does with a job is not.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import EmptyStore
from tests.jobs.conftest import ROOT, TINY, make_video

SCRIPT = ROOT / "infra" / "cluster" / "slurm" / "train_corpus.sbatch"
STAND_INS = {
    # One process a task, each with its number. USR2 goes to all, and TERM kills them, as with Slurm's own.
    "srun": """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
trap 'kill -USR2 $(jobs -p) 2>/dev/null' USR2
end() { # every process of the step, as Slurm does, whoever its parent is
  kill -KILL $(jobs -p) 2>/dev/null
  for line in /proc/[0-9]*/cmdline; do
    if grep -qs "hpv-$SLURM_JOB_ID-[0-9]*/" "$line"; then line=${line#/proc/}; kill -KILL "${line%/*}"; fi
  done
}
trap end TERM
for ((task = 0; task < SLURM_NTASKS; task++)); do SLURM_PROCID=$task "$@" & done
while [ -n "$(jobs -pr)" ]; do wait; done
""",
    "scontrol": """#!/bin/bash
case "$1 $2" in
"show hostnames") echo 127.0.0.1 ;;
"show job") echo "JobId=$3 JobState=${STATE:-RUNNING}" ;;
*) echo "$*" >>"$CALLED" ;;
esac
""",
    "nvidia-smi": "#!/bin/sh\necho GPU 0\n",
}


class Slurm:
    """A job's environment: stand-ins, a corpus of two clips, a storage folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.called = folder, folder / "called"
        for name, text in STAND_INS.items():
            (folder / "bin").mkdir(exist_ok=True)
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        self.storage, self.corpus = folder / "runs", folder / "clips"
        for name in ("one", "two"):
            self.corpus.mkdir(exist_ok=True)
            make_video(self.corpus / f"{name}.mp4", size="48x48")
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_ENABLE", "RAY_AUTH"))}
        self.environment = plain | {
            "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NODELIST": "127.0.0.1",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_NTASKS": "2",
            "SLURM_CPUS_PER_TASK": "1",
            "SLURM_SUBMIT_DIR": str(ROOT),
            "CORPUS": str(self.corpus),
            "STORAGE": str(self.storage),
            "CALLED": str(self.called),
        }

    @property
    def token(self) -> Path:
        return self.folder / ".ray" / f"hp-vae-gan-{os.getpid()}"

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """The script as sbatch runs it; its output in `stdout`."""
        return subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def refused(self, *arguments: str, **environment: str) -> str:
        """The one line with which the script ends with code 2."""
        process = self.start(*arguments, **environment)
        told = process.communicate(timeout=60)[0]
        assert process.returncode == 2, told
        (line,) = told.splitlines()
        assert line.startswith("train_corpus.sbatch: ")
        return line.removeprefix("train_corpus.sbatch: ")


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    job = Slurm(tmp_path)
    yield job
    left = [
        one for one in psutil.process_iter(["cmdline"]) if f"hpv-{os.getpid()}-" in " ".join(one.info["cmdline"] or ())
    ]
    for process in left:
        process.kill()
    assert not left, left


def test_it_is_clean_by_shellcheck() -> None:
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not found:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([found, str(SCRIPT)], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_cannot_work_is_one_line(slurm: Slurm, tmp_path: Path) -> None:
    assert slurm.refused(SLURM_JOB_ID="").startswith("this is no Slurm job; submit it: sbatch ")
    assert slurm.refused(CORPUS="") == "CORPUS is not set; export what --corpus takes, such as CORPUS=/nfs/clips"
    assert slurm.refused(STORAGE="").startswith("STORAGE is not set; export a folder that all nodes share")
    assert slurm.refused(CORPUS="/none").startswith("CORPUS=/none: does not exist on ")
    assert slurm.refused(STORAGE="runs").startswith("STORAGE=runs: not absolute; give a folder that all nodes share")
    assert (
        slurm.refused(SLURM_SUBMIT_DIR=str(tmp_path))
        == f"{tmp_path}: holds no jobs/train_corpus.py; submit from the project"
    )
    assert slurm.refused(SLURM_JOB_NUM_NODES="2").startswith("MLFLOW_TRACKING_URI is not set; the sqlite file")
    with socket.socket() as taken:
        taken.bind(("", 0))
        port = str(taken.getsockname()[1])
        taken_line = f"RAY_PORT={port}: cannot be had on 127.0.0.1 (Address already in use); unset it, "
        assert slurm.refused(RAY_PORT=port).startswith(taken_line)
    for none in ("abc", "99999", "-1", "6379 ", "1e3"):
        assert slurm.refused(RAY_PORT=none).startswith(f"RAY_PORT={none}: is no port; give one from 1 to 65535, or ")
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    process = slurm.start()
    lines = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 2
    assert len(lines) == 3 and lines[2] == "train_corpus.sbatch: no Ray came up; the lines above say why"  # two tasks
    assert all(
        "nvidia-smi finds no GPU; take a partition that has some, and --gpus-per-task=1" in line for line in lines[:2]
    )
    assert not slurm.token.exists() and not slurm.called.exists()


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 200
    while not (found := condition()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
    return found


@pytest.mark.slow
def test_a_preempted_corpus_is_queued_again_and_goes_on(slurm: Slurm, empty_store: EmptyStore) -> None:
    """Two Ray nodes of a GPU each (Ray is told of them) train two clips; SIGUSR1 comes in the midst of both."""
    empty_store(slurm.storage / "mlflow.db")
    # Scale 2 is long enough that both clips are in it, and has checkpoints.
    long = ("--set", "iters_per_scale=10,10,300,10", "--set", "checkpoint_every=20", "--set", "log_every=10")
    arguments = (*TINY, *long, "--experiment", "queued")

    def logs() -> dict[str, str] | None:
        """The log of each clip, by its name, if both are in scale 2."""
        found = {path.parent.name: path.read_text() for path in slurm.storage.glob("queued/*/metrics.jsonl")}
        return found if len(found) == 2 and all('"scale": 2' in text for text in found.values()) else None

    process = slurm.start(*arguments)
    before = wait_for(logs, process)
    assert slurm.token.stat().st_mode & 0o777 == 0o600 and len(slurm.token.read_text()) == 64
    folders = [*Path("/tmp").glob(f"hpv-{os.getpid()}-*")]
    assert len(folders) == 2 and {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}
    process.send_signal(signal.SIGUSR1)
    told = process.communicate(timeout=100)[0]
    assert "stopped; the same command goes on from the last checkpoints" in told
    assert "stopped by SIGUSR1; in the queue again" in told
    assert slurm.called.read_text() == f"requeue {os.getpid()}\n"
    assert not [*slurm.storage.glob("queued/*/result.json")]

    # The same job, from the queue. What both had logged is there once, as it was: nothing is trained twice.
    again = slurm.start(*arguments)
    told = again.communicate(timeout=300)[0]
    assert again.returncode == 0, told
    results = [json.loads(path.read_text()) for path in slurm.storage.glob("queued/*/result.json")]
    assert [result["status"] for result in results] == ["done"] * 2
    for name, log in before.items():
        after = (slurm.storage / "queued" / name / "metrics.jsonl").read_text()
        kept = [line for line in log.splitlines() if json.loads(line)["scale"] < 2]
        assert kept and after.splitlines()[: len(kept)] == kept
        points = [(point["scale"], point["iteration"]) for point in map(json.loads, after.splitlines())]
        assert len(set(points)) == len(points)
    assert slurm.called.read_text().count("requeue") == 1
    assert not slurm.token.exists() and not [*Path("/tmp").glob(f"hpv-{os.getpid()}-*")]


@pytest.mark.slow
def test_a_cancelled_job_is_not_queued_again(slurm: Slurm) -> None:
    """SIGTERM comes before Ray is up; it comes with a preemption, and with scancel, when the job is COMPLETING."""
    for state, calls in (("COMPLETING", ""), ("CANCELLED", ""), ("RUNNING", f"requeue {os.getpid()}\n")):
        process = slurm.start(*TINY, STATE=state)
        wait_for(slurm.token.exists, process)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=100)[0]
        assert (process.returncode, "ended by Slurm; " in told) == (143 if not calls else 0, not calls), told
        assert (slurm.called.read_text() if slurm.called.exists() else "") == calls
        assert not slurm.token.exists()

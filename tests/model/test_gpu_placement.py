"""Training, sampling and patches on a fake GPU (fake_gpu.py): nothing is on the wrong device, nothing makes the host
wait, and convolutions run in bf16."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.jobs.conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found():
    """Every case, in a process of its own: name → (what was waited for, the error)."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.model.fake_gpu"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    return {row["name"]: row for row in rows} | {"stderr": run.stderr}


TRAININGS = ("bf16", "several examples", "no_freezing", "patchvae", "consingan", "singan's critic")


@pytest.mark.parametrize("case", ["float32", *TRAININGS])
def test_an_iteration_stays_on_the_gpu_and_makes_the_host_wait_for_nothing(found, case):
    row = found[case]
    assert not row["error"], found["stderr"]
    convolved = {what: count for what, count in row["waits"].items() if "convolves" in what}
    assert row["waits"] == convolved and convolved
    wanted = "float32" if case == "float32" else "bfloat16"
    assert all(what.endswith(wanted) for what in convolved), convolved  # nothing is left out of autocast


def test_training_waits_once_a_logged_point_and_once_a_checkpoint(found):
    row = found["logging"]
    assert not row["error"], found["stderr"]
    assert row["waits"] == {"copy to cpu": 3, "number": 1}  # three points; whether all weights are finite


def test_samples_and_patches_stay_on_the_gpu_and_come_back_to_the_host(found):
    assert not found["sampling"]["error"], found["stderr"]


def test_the_fake_gpu_sees_what_it_is_to_see(found):
    assert found["a wait"]["waits"] == {"number": 1, "copy to cpu": 1, "mask": 1, "nonzero": 1}
    assert "two devices, fakegpu:0 and cpu" in found["two devices"]["error"]
    assert "a generator of fakegpu draws on cpu" in found["wrong generator"]["error"]

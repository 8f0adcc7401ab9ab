"""What a training takes of this process's memory, looked at from outside: each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ONE_GAN_ITERATION = """
import sys
import torch
from jobs.presets import paper
from model.memory import peak_gib
from model.reals import Reals
from model.team import Team
from model.train import first_state, iterate, next_scale

torch.set_num_threads(1)
low_memory, side = sys.argv[1], int(sys.argv[2])
config = paper().with_overrides([f"low_memory={low_memory}", "num_scales=2", "vae_levels=1", "precision=float32"])
sizes = [(4, 12, 12), (7, side, side)]
reals = Reals([[torch.zeros(3, *size).numpy() for size in sizes]], config, Team())
state = next_scale(first_state(config, sizes, torch.device("cpu")), reals)
iterate(state, reals)
print(peak_gib(torch.device("cpu")))
"""


def peak(low_memory: bool, side: int) -> float:
    """GiB of a process that makes one GAN iteration on 7 frames of side × side px."""
    command = [sys.executable, "-c", ONE_GAN_ITERATION, str(low_memory), str(side)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True, timeout=300)
    return float(done.stdout)


def test_low_memory_keeps_three_quarters_of_the_activations_at_most() -> None:
    usual, low, nothing = peak(False, 104), peak(True, 104), peak(False, 12)
    assert usual - nothing > 0.3, "too small to tell"
    assert (low - nothing) / (usual - nothing) < 0.75

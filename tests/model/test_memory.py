"""What a training holds in memory, as torch's profiler counts it: resident memory varies with the allocator's gaps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from model.presets import paper
from model.training.state import first_state, next_scale
from model.training.steps import iterate
from model.training.training_set import TrainingSet
from model.training.workers import Workers


def held(low_memory: bool, side: int, folder: Path) -> int:
    """Bytes of the tensors of one GAN iteration on 7 frames of side × side px, where they are most."""
    config = paper().with_overrides([f"low_memory={low_memory}", "num_scales=2", "vae_levels=1", "precision=float32"])
    sizes = [(4, 12, 12), (7, side, side)]
    reals = TrainingSet([[torch.zeros(3, *size).numpy() for size in sizes]], config, Workers())
    state = next_scale(first_state(config, sizes, torch.device("cpu")), reals)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        iterate(state, reals)
    trace = folder / f"{low_memory}-{side}.json"
    profile.export_chrome_trace(str(trace))
    events = [event["args"] for event in json.loads(trace.read_text())["traceEvents"] if event["name"] == "[memory]"]
    totals = [event["Total Allocated"] for event in events]
    return max(totals) - totals[0]


@pytest.mark.slow
def test_low_memory_holds_half_the_activations_at_most(tmp_path: Path) -> None:
    usual, low, nothing = held(False, 48, tmp_path), held(True, 48, tmp_path), held(False, 12, tmp_path)
    assert usual - nothing > 30 * 2**20, "too small to tell"
    assert (low - nothing) / (usual - nothing) < 0.5

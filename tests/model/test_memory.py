"""What a training and a search hold in memory, by torch's profiler: allocators leave gaps in resident memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.patches.field import PART
from model.patches.match import HOST_PAIRS, PAIRS
from model.patches.refine import EXACT_PAIRS, ClipPatches, Matching, Step, needed_bytes, refine
from model.presets import image_paper, paper
from model.timing import state_at
from model.training.memory import activation_bytes
from model.training.state import first_state, next_scale
from model.training.steps import iterate
from model.training.training_set import TrainingSet
from model.training.workers import Workers


def most_held(work: Callable[[], object], trace: Path) -> int:
    """Bytes of the tensors of some work, where they are most."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        work()
    profile.export_chrome_trace(str(trace))
    events = [event["args"] for event in json.loads(trace.read_text())["traceEvents"] if event["name"] == "[memory]"]
    totals = [event["Total Allocated"] for event in events]
    return max(totals) - totals[0]


def held(low_memory: bool, side: int, folder: Path) -> int:
    """Bytes of the tensors of one GAN iteration on 7 frames of side × side px, where they are most."""
    config = paper().with_overrides([f"low_memory={low_memory}", "num_scales=2", "vae_levels=1", "precision=float32"])
    sizes = [(4, 12, 12), (7, side, side)]
    reals = TrainingSet([[torch.zeros(3, *size).numpy() for size in sizes]], config, Workers())
    state = next_scale(first_state(config, sizes, torch.device("cpu")), reals)
    return most_held(lambda: iterate(state, reals), folder / f"{low_memory}-{side}.json")


@pytest.mark.slow
def test_low_memory_holds_half_the_activations_at_most(tmp_path: Path) -> None:
    usual, low, nothing = held(False, 48, tmp_path), held(True, 48, tmp_path), held(False, 12, tmp_path)
    assert usual - nothing > 30 * 2**20, "too small to tell"
    assert (low - nothing) / (usual - nothing) < 0.5


@pytest.mark.parametrize("norm", [False, True])
def test_the_estimate_of_an_example_is_twice_what_is_held_of_a_normalised_critic_too(
    norm: bool, tmp_path: Path
) -> None:
    sizes = [(1, 16, 16), (1, 96, 128)]
    config = image_paper().with_overrides(["num_scales=2", "vae_levels=1", "channels=32", "precision=float32"])
    spectral = [f"{name}={not norm}" for name in ("critic_last_spectral", "critic_spectral")]
    config = config.with_overrides([*spectral, f"critic_norm={norm}"])
    state, reals = state_at(config, sizes, 1)
    iterate(state, reals)
    most = most_held(lambda: iterate(state, reals), tmp_path / "trace.json")
    assert 1.9 < activation_bytes(config, state.stack.sizes, 1, torch.device("cpu")) / most < 2.4


@pytest.mark.parametrize("part", [PART, 2**15])  # the whole at once, and about a quarter of it
@pytest.mark.parametrize("first_pairs", [EXACT_PAIRS, 10**12])  # a search that begins at random, and one of all pairs
def test_patches_hold_what_is_asked_for_beforehand(
    first_pairs: int, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, which compares fewer pairs at once than what is asked for."""
    for module in ("field", "refine"):
        monkeypatch.setattr(f"model.patches.{module}.PART", part)
    clip, size = torch.rand(1, 3, 1, 40, 60, generator=torch.Generator().manual_seed(0)) * 2 - 1, (1, 300, 400)
    video = torch.nn.functional.interpolate(clip, size=size)

    def search() -> None:
        patches = ClipPatches([(1, 40, 60)], lambda n: clip)
        steps, random = [Step(0, size, 2)], torch.Generator().manual_seed(0)
        refine(video, patches, steps, Matching((1, 7, 7)), random, first_pairs=first_pairs)

    most, asked = most_held(search, tmp_path / "trace.json"), needed_bytes(300 * 400, 40 * 60)
    assert most <= asked - 3 * 4 * (PAIRS - HOST_PAIRS) < 3 * most

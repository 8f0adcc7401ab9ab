"""The check, from its parts to its report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console

from infra.errors import UsageError
from jobs.gpu import compiled, memory, parity, speed, workers
from jobs.gpu.part import Outcome, Part, Setting, outcome_of
from model.presets import paper
from model.pyramid import ladder

CLIP = (144, 256)  # px, height and width: the ladder of a 16:9 clip
QUICK = [
    *("num_scales=4", "min_size=12", "max_size=24", "scale_factor=none"),
    *("channels=8", "latent_dim=8", "generator_convs=3", "encoder_convs=2", "critic_convs=3"),
]
# With their limits, seconds: on one GPU each takes much less, and all of them no more than ten minutes.
PARTS = (
    Part("machine", "The machine", 45, speed.machine),
    Part("parity", "One iteration against the CPU", 120, parity.parity),
    Part("range", "Range of bf16", 60, parity.bf16_range),
    Part("cap", "Memory limit of a process", 60, memory.cap),
    Part("halving", "Out of memory", 120, memory.halving),
    Part("workers", "Two workers", 120, workers.two_workers),
    Part("compile", "torch.compile", 120, compiled.compiled),
    Part("scales", "Seconds an iteration", 150, speed.scales),
    Part("together", "Several clips at once", 180, speed.together),
)
REHEARSAL_S = 600.0  # that a part may take in a rehearsal on a CPU


def check(
    device: str, quick: bool, names: Sequence[str], seconds: float, console: Console
) -> tuple[bool, dict[str, Any]]:
    """Run the parts of these names, print each as it ends. Returns whether none failed, and the report as JSON.

    Raises UsageError where there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        cause = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees none"
        raise UsageError(
            f"no CUDA device: {cause}; run it on a machine with a GPU, or rehearse with --device cpu --quick"
        )
    config = paper().with_overrides(QUICK if quick else [])
    setting = Setting(
        device=device, config=config, sizes=ladder(config, *CLIP), seconds=0.1 if quick else 2.0, quick=quick
    )
    began = time.perf_counter()
    kind = "rehearsal, figures mean nothing" if quick else "preset paper, a 16:9 clip"
    console.print(f"# GPU check on {device} ({kind})")
    outcomes = []
    for part in PARTS:
        if part.name not in names:
            continue
        left = seconds - (time.perf_counter() - began)
        limit = min(left, REHEARSAL_S if device == "cpu" else part.limit_s)
        outcome = outcome_of(part, setting, max(1.0, limit))
        console.print("\n".join(_lines(outcome)))
        outcomes.append(outcome)
    counts = {status: sum(o.status == status for o in outcomes) for status in ("passed", "failed", "not possible")}
    total = time.perf_counter() - began
    console.print(f"\n{', '.join(f'{count} {status}' for status, count in counts.items())}, in {total / 60:.1f} min")
    parts = {o.part.name: {"status": o.status, "seconds": o.seconds, **o.figures} for o in outcomes}
    return counts["failed"] == 0, {"device": device, "quick": quick, "seconds": total, "parts": parts}


def _lines(outcome: Outcome) -> list[str]:
    return ["", f"## {outcome.part.title}: {outcome.status} ({outcome.seconds:.0f} s)", "", *outcome.lines]

"""The limit of a process's memory, and what a training does that meets it."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from infra.tracking.parent import ParentRun
from jobs.experiment.experiment import Experiment
from jobs.experiment.result import Result
from jobs.gpu.part import Found, NotPossible, Setting
from jobs.training.task import ClipTask, failure
from model.config import TrainConfig
from model.device import CONTEXT_BYTES, best_device, limit_memory, memory_bytes, peak_gib
from model.pyramid import ScaleSize
from model.timing import in_own_process
from model.training.loop import train_clip
from model.training.memory import OutOfMemory
from model.training.training_set import Pyramid

BLOCK_BYTES = 64 * 2**20
SHARE = 0.25  # as of --gpus-per-clip 0.25
EXAMPLES, FIT = 8, 2  # of the training that is too large, and how many of them fit
HALVING_SIDE, QUICK_SIDE = 96, 40  # px of the finest scale


def cap(setting: Setting) -> Found:
    """Whether a process that may have a quarter of the GPU gets that and no more, and what it takes beside it."""
    if setting.device != "cuda":
        raise NotPossible("not on a CPU: the limit is one of a GPU's memory")
    context = _context_bytes()
    got, limit, total = in_own_process(_fill, SHARE)
    of_one = got + context
    passed = limit - 2 * BLOCK_BYTES <= got <= limit and 1 / SHARE * of_one <= total
    lines = [
        f"Share {SHARE} of {total / 2**30:.1f} GiB: limit {limit / 2**30:.2f} GiB, got {got / 2**30:.2f} GiB.",
        f"Context: {context / 2**30:.2f} GiB a process; {CONTEXT_BYTES / 2**30:.2f} GiB are reckoned with.",
        f"{1 / SHARE:.0f} such processes take {of_one / SHARE / total:.0%} of the GPU.",
    ]
    return Found(passed, lines, {"limit": limit, "got": got, "context": context, "total": total})


def _fill(share: float) -> tuple[int, int, int]:
    """Bytes that this process got until there were no more, its limit, and what the GPU has."""
    limit_memory(share)
    device, held = best_device(), []
    try:
        while True:
            held.append(torch.empty(BLOCK_BYTES, dtype=torch.uint8, device=device))
    except torch.OutOfMemoryError:
        total = torch.cuda.get_device_properties(device).total_memory
        return torch.cuda.memory_reserved(device), int(memory_bytes(device)), total


def _context_bytes() -> int:
    """GPU memory that another process takes beside its tensors, once it has convolved and multiplied."""
    device = best_device()
    before, _ = torch.cuda.mem_get_info(device)
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_use, args=(there,), daemon=True)
    process.start()
    reserved = here.recv()
    after, _ = torch.cuda.mem_get_info(device)
    here.send("enough")
    process.join()
    return max(0, before - after - reserved)


def _use(answer: Connection) -> None:
    device = best_device()
    x = torch.randn((1, 64, 4, 32, 32), device=device, dtype=torch.bfloat16)
    weight = torch.randn((64, 64, 3, 3, 3), device=device, dtype=torch.bfloat16)
    torch.nn.functional.conv3d(x, weight, padding=1)
    matrix = torch.eye(64, device=device, dtype=torch.float64)
    torch.linalg.eigh(matrix @ matrix)
    torch.cuda.synchronize(device)
    answer.send(torch.cuda.memory_reserved(device))
    answer.recv()


def halving(setting: Setting) -> Found:
    """A training of eight examples at once, where memory holds fewer: whether it finishes with fewer at once.

    The attempts are those of the corpus job: each in a new process, after what the one before lacked. On a CPU the
    limit is one of the process's data, which Linux has.
    """
    if setting.device != "cuda" and not Path("/proc/self/status").exists():
        raise NotPossible("not on this system: the memory of a process cannot be limited")
    overrides = ["num_scales=2", "vae_levels=1", "iters_per_scale=2", "log_every=1", f"micro_batch={EXAMPLES}"]
    config = setting.config.with_overrides(overrides)
    side = QUICK_SIDE if setting.quick else HALVING_SIDE
    sizes = [ScaleSize(4, side // 2, side // 2), ScaleSize(13, side, side)]
    few, all_of_them = in_own_process(_peaks, config, sizes)
    limit = (few + all_of_them) // 2
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment.open(folder, "gpu-check")
        task: ClipTask | None = ClipTask("halving", "noise", config, experiment, ParentRun("", "", ""), num_samples=2)
        lines, tried = [f"Limit {limit / 2**30:.2f} GiB; {EXAMPLES} examples take {all_of_them / 2**30:.2f} GiB."], []
        while task is not None:
            tried.append(task.config.micro_batch)
            result = in_own_process(_attempt, task, sizes, Path(folder) / "checkpoint.pt", limit)
            if result is None:
                lines.append(f"Examples at once, an attempt each: {', '.join(map(str, tried))}; the last finished.")
                return Found(len(tried) > 1, lines, {"tried": tried})
            lines.append(f"{result.status}: {result.reason[:60]}")
            task = task.next_attempt(result)
    return Found(False, [*lines, f"Gave up after {tried}."], {"tried": tried})


def _noise(sizes: Sequence[ScaleSize]) -> list[Pyramid]:
    random = np.random.default_rng(0)
    shapes = [(3, *size) for size in sizes]
    return [[random.uniform(-1, 1, shape).astype(np.float32) for shape in shapes] for _ in range(EXAMPLES)]


def _attempt(task: ClipTask, sizes: Sequence[ScaleSize], path: Path, limit: int) -> Result | None:
    """Train in a process that may take `limit` bytes. Returns what it lacked, or None."""
    device = best_device()
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(limit / total, device)
    else:
        status = Path("/proc/self/status").read_text().splitlines()
        held = next(1024 * int(line.split()[1]) for line in status if line.startswith("VmData:"))
        resource.setrlimit(resource.RLIMIT_DATA, (held + limit, held + limit))
    try:
        for _ in train_clip(task.config, _noise(sizes), clip_id=task.clip_id, path=path, log=lambda progress: None):
            pass
    except Exception as error:
        if device.type == "cpu" and "could not create a" in str(error):  # all that oneDNN says of memory that it lacks
            return failure(task, OutOfMemory(str(error), task.config.micro_batch or 1))
        return failure(task, error)
    return None


def _peaks(config: TrainConfig, sizes: Sequence[ScaleSize]) -> list[int]:
    """Bytes that the training takes at its peak where nothing limits it: with FIT examples at once, and with all."""
    device, examples, found = best_device(), _noise(sizes), []
    before = 0.0 if device.type == "cuda" else peak_gib(device)
    for count in (FIT, EXAMPLES):
        with tempfile.TemporaryDirectory() as folder:
            path, tried = Path(folder) / "checkpoint.pt", config.with_overrides([f"micro_batch={count}"])
            for _ in train_clip(tried, examples, clip_id="peak", path=path, log=lambda progress: None):
                pass
        found.append(int((peak_gib(device) - before) * 2**30))  # it only rises: the smaller one comes first
    return found

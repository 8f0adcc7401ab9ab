"""Two processes that train one model together, over NCCL or gloo, against one process alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed

from infra.errors import one_line
from jobs.gpu.part import Found, Setting
from model.config import TrainConfig
from model.pyramid import ScaleSize
from model.training.loop import Progress, train_clip

SIZES = (ScaleSize(4, 24, 24), ScaleSize(5, 32, 32), ScaleSize(7, 40, 40))
WAIT_S = 40.0  # that a worker waits for the other one
# Relative difference of the losses of scale 0 to those of one process. Later scales magnify what rounding does.
SAME, ITERATIONS = 1e-3, 3
Losses = dict[str, float]


def two_workers(setting: Setting) -> Found:
    """Losses and weights of two workers: the same in both, and those of one process but for rounding."""
    overrides = ["num_scales=3", "vae_levels=2", f"iters_per_scale={ITERATIONS}", "log_every=1", "precision=float32"]
    config = setting.config.with_overrides(overrides)
    gpus = torch.cuda.device_count() if setting.device == "cuda" else 0
    with tempfile.TemporaryDirectory() as folder:
        alone, _ = _train(config, "", 0, 1, gpus, folder)
    lines: list[str] = []
    figures: dict[str, Any] = {}
    passed = True
    for backend, must in {0: [("gloo", True)], 1: [("nccl", False), ("gloo", True)]}.get(gpus, [("nccl", True)]):
        where = "the CPU" if gpus == 0 else f"{min(gpus, 2)} GPU" + ("s" if gpus > 1 else "")
        try:
            (ours, digest), (_, other) = _together(config, backend, 2, gpus)
        except Exception as error:
            refused = next((word for word in ("Duplicate GPU detected", "invalid usage") if word in str(error)), "")
            expected = not must and bool(refused)
            words = f"refused ({refused}), as it should" if expected else f"failed: {one_line(error)[:100]}"
            lines.append(f"- {backend}, two workers on {where}: {words}")
            figures[backend] = {"error": one_line(error)}
            passed = passed and expected
            continue
        apart = max(abs(ours[name] - alone[name]) / max(abs(alone[name]), 0.1) for name in alone)
        good = digest == other and apart <= SAME
        passed = passed and good
        equal = "equal" if digest == other else "NOT equal"
        lines.append(f"- {backend}, two workers on {where}: weights {equal}, losses within {apart:.1e}")
        figures[backend] = {"equal": digest == other, "apart": apart, "at_most": SAME}
    if gpus == 1:
        lines += ["", "Two workers need two GPUs: NCCL takes no GPU twice, and the corpus", "job refuses it too."]
    return Found(passed, lines, figures)


def _together(config: TrainConfig, backend: str, count: int, gpus: int) -> list[tuple[Losses, float]]:
    """What each of `count` processes returns. Raises what the first failure raised."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_train, config, backend, rank, count, gpus, folder) for rank in range(count)]
        return [job.result() for job in jobs]


def _train(config: TrainConfig, backend: str, rank: int, count: int, gpus: int, folder: str) -> tuple[Losses, float]:
    """Train as one of `count`. Returns the last losses of scale 0, which the first process has, and the sum of all
    weights of generators and encoder at the end."""
    if count > 1:
        local = rank % gpus if gpus else rank
        os.environ |= {"RANK": f"{rank}", "WORLD_SIZE": f"{count}", "LOCAL_RANK": f"{local}"}
        os.environ |= {"LOCAL_WORLD_SIZE": f"{count}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        if gpus:
            torch.cuda.set_device(local)
        torch.distributed.init_process_group(
            backend,
            init_method=f"file://{folder}/{backend}",
            rank=rank,
            world_size=count,
            timeout=timedelta(seconds=WAIT_S),
        )
    losses: Losses = {}

    def log(progress: Progress) -> None:
        kept = {name: value for name, value in progress.metrics.items() if name.endswith("_loss")}
        if progress.scale == 0:
            losses.update(kept)

    path, weights = Path(folder) / f"{rank}.pt", 0.0
    for done in train_clip(config, _clips(SIZES), clip_id="two", path=path, log=log):
        weights = float(sum(p.detach().double().sum() for p in done.stack.parameters()))
    return losses, weights


def _clips(sizes: Sequence[ScaleSize]) -> list[list[np.ndarray]]:
    random = np.random.default_rng(0)
    return [[random.uniform(-1, 1, (3, *size)).astype(np.float32) for size in sizes] for _ in range(2)]

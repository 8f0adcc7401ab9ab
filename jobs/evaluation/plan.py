"""What an evaluation would score, and how long that would take: --dry-run. Nothing is written."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console

from infra.errors import UsageError, counted, one_line, printable
from infra.store import Store
from jobs.evaluation.clip import ScoringOptions, ScoringTask, score_clip, searched
from jobs.evaluation.run import frames_of, resolved
from jobs.evaluation.targets import EvaluationRequest
from jobs.experiment.machine import check_share
from jobs.reports.duration import duration
from model.checkpoint import CheckpointError
from model.device import best_device
from model.loading import load
from model.metrics.scores import nn_seconds
from pipeline.shards import ShardError

FEW, MORE = 2, 4  # samples of the first clip that are scored, to measure what one takes, and what a clip takes besides


def preview(request: EvaluationRequest, console: Console) -> bool:
    """Make the checks of `run.run`, and print what it would score. Returns whether something cannot be scored.

    Raises UsageError, StorageError.
    """
    check_share(request.share)
    groups, failed = resolved(request, console)
    for group in groups:
        rows = counted(sum(not task.reason for task in group.tasks), "row")
        samples = counted(request.num_samples, "sample")
        console.print(f"{printable(group.name)}: {rows} of {samples}, into {printable(group.out.uri)}", soft_wrap=True)
        for task in group.tasks:
            if task.reason:
                failed = True
                console.print(f"not scored: {printable(task.row)}: {task.reason}", soft_wrap=True)
    todo = [task for group in groups for task in group.tasks if not task.reason]
    for line in _cost(request, todo):
        console.print(line, soft_wrap=True)
    return failed


def _cost(request: EvaluationRequest, todo: Sequence[ScoringTask]) -> Iterator[str]:
    """How long it takes here, if all clips take what the first one does. Raises UsageError if that cannot be scored."""
    if not todo:
        return
    task, cores = todo[0], request.share.cores(os.cpu_count() or 1, len(todo))
    os.environ.setdefault("OMP_NUM_THREADS", str(cores))  # as of the task of a clip
    try:
        chunks, loaded = frames_of(task), load(task.checkpoint)
        size = loaded.sizes[-1]
    except (ShardError, CheckpointError, ValueError, OSError) as error:
        raise UsageError(one_line(error)) from error
    _seconds(request, task, chunks, FEW)  # with what is slow the first time only
    few, more = (_seconds(request, task, chunks, count) for count in (FEW, MORE))
    a_sample = max(0.0, (more - few) / (MORE - FEW))
    nearest = searched(request.nn, max(1, len(chunks)), size)
    each = max(0.0, few - FEW * a_sample) + request.num_samples * a_sample
    each += nearest * max(1, len(chunks)) * nn_seconds(*size)
    on_cpu = best_device().type == "cpu"
    at_once = max(1, (os.cpu_count() or 1) // cores) if on_cpu else 1
    yield f"nearest neighbours: of {counted(nearest, 'sample')} a row"
    where = "this machine's CPU" if on_cpu else "this machine's GPU"
    whole = duration(each * len(todo) / at_once)
    yield f"time: about {duration(each)} a row, {whole} in all, on {where}, {at_once} at a time"


def _seconds(request: EvaluationRequest, task: ScoringTask, chunks: Sequence[np.ndarray], count: int) -> float:
    """Of scoring so many samples without neighbours. Raises UsageError with why they cannot be scored."""
    with tempfile.TemporaryDirectory() as nowhere:
        out = Store.open(nowhere, "--out")
        options = ScoringOptions(out, count, request.seed, 0, request.precision, request.latent_frames, keep=False)
        began = time.monotonic()
        row = score_clip(task, chunks, request.features, options)
    if row.complaints:
        raise UsageError(f"{printable(task.row)}: {row.complaints[0]}")
    return time.monotonic() - began

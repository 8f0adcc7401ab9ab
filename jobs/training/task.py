"""The body of a clip's Ray task: its process, its folder, its run in MLflow; a failure becomes the clip's result."""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray

from infra import clip_folder
from infra.clip_folder import ClipFolder
from infra.errors import TakenOver, is_ours, one_line, reason, without_secrets
from infra.files import append
from infra.tracking.parent import ParentRun
from jobs import USUAL_GARBAGE_THRESHOLD
from jobs.experiment.experiment import Experiment
from jobs.experiment.result import OutOfMemoryResult, Result, write_result
from jobs.training.fit_clip import ClipFrames, Hooks, Scoring, fit_clip
from jobs.training.progress import reporter
from model.config import RUN_SETTINGS, TrainConfig
from model.device import keep_freed_memory, limit_memory, use_assigned_threads
from model.training import memory
from model.training.workers import PeerLost

MAX_RESTARTS = 5  # of a task, or of the workers, whose process or node died; they go on from the checkpoint


@dataclass(frozen=True)
class ClipTask:
    """What a task needs beside the frames.

    Attributes:
        run: the experiment's in MLflow.
        workers: how many processes train it together.
        slot: what each of several takes: num_cpus, num_gpus.
        warning: a line for warnings.txt, which the clip's result repeats.
        tags: more tags of its run in MLflow.
        features: that its samples are scored with too, as --features names them.
    """

    clip_id: str
    source: str
    config: TrainConfig
    experiment: Experiment
    run: ParentRun
    num_samples: int
    workers: int = 1
    slot: Mapping[str, float] = field(default_factory=dict)
    warning: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    features: str = "lite0"

    def next_attempt(self, result: Result) -> ClipTask | None:
        """The task to run after one that ended so: with less memory, if that is what it lacked and can still do."""
        return self.with_less_memory(result) if isinstance(result, OutOfMemoryResult) else None

    def with_less_memory(self, result: OutOfMemoryResult) -> ClipTask | None:
        """The same with half the micro-batch or, where that was one example, with `low_memory`; None beyond that."""
        if result.micro_batch > 1:
            half = result.micro_batch // 2
            config, change = replace(self.config, micro_batch=half), f"micro_batch={half}"
        elif not self.config.low_memory:
            config, change = replace(self.config, low_memory=True), "low_memory"
        else:
            return None
        warning = f"{result.status} ({result.reason}); went on from its checkpoint with {change}"
        return replace(self, config=config, warning=warning)


def fit_task(task: ClipTask, chunks: Sequence[Any]) -> Result:
    """The body of a Ray task: `fit_in_folder`, which reports to the driver how far it is.

    Args: chunks: references to the frames in Ray's object store.
    """
    frames = ray.get(chunks)
    return fit_in_folder(task, frames, reporter(task.clip_id, task.config, frames[0].shape[1:3]))


def fit_in_folder(
    task: ClipTask,
    chunks: Sequence[np.ndarray],
    report: Callable[[Any], None] = lambda progress: None,
    scored: Callable[[int, Mapping[str, float]], None] = lambda scale, scores: None,
) -> Result:
    """`fit_clip` in the clip's folder and with its run in MLflow; whatever goes wrong becomes the clip's result.

    Args: chunks: uint8 (13, H, W, 3) each.

    Raises PeerLost if other workers train the clip too and one of them is gone.
    """
    from infra.tracking.forward import forwarding  # imports MLflow, which the workers beside the first one do without

    setup_process(task.config)
    try:
        with (
            ClipFolder(task.experiment.store, task.clip_id) as folder,
            forwarding(task.run, task.clip_id, folder.path, RUN_SETTINGS),
        ):
            try:
                _forget_failure(folder.path)
                _warn_once(folder.path / clip_folder.WARNINGS, task.warning)
                return fit_clip(
                    ClipFrames(task.clip_id, task.source, chunks, task.tags),
                    task.config,
                    folder.path,
                    Scoring(task.num_samples, task.features),
                    Hooks(folder.check, report, scored),
                )
            except (TakenOver, PeerLost):
                raise
            except Exception as error:  # the boundary where a failure becomes data: this clip's, and only its
                result = failure(task, error)
                if result.status == "failed":
                    details = f"{result.reason}\n" if is_ours(error) else traceback.format_exc()
                    keep_failure(task, folder.path, result, details)
                return result
    except TakenOver as error:  # nothing may be written: the folder is another's
        return failure(task, error)
    except PeerLost:
        raise
    except Exception as error:  # its storage, before or after training
        return keep_failure(task, None, failure(task, error))


def setup_process(config: TrainConfig) -> None:
    """Make this process the one of a clip: its threads, and its part of the GPU."""
    if not config.low_memory:
        keep_freed_memory()
    use_assigned_threads()
    gc.freeze()  # what is imported stays
    gc.set_threshold(*USUAL_GARBAGE_THRESHOLD)
    share = 1.0
    if ray.is_initialized() and (context := ray.get_runtime_context()).worker.mode == ray.WORKER_MODE:
        share = context.get_assigned_resources().get("GPU", 1)
    if share < 1:  # else the first clip there would take what the others need
        limit_memory(share)


def failure(task: ClipTask, error: Exception) -> Result:
    """What an error of a clip's training means: its result, or that it may be tried again with less memory."""
    why = reason(error)
    if isinstance(error, memory.OutOfMemory):
        lacking = OutOfMemoryResult(task.clip_id, reason=why, micro_batch=error.micro_batch)
    elif memory.is_out_of_memory(error):  # beside the training: in its samples or scores
        lacking = OutOfMemoryResult(task.clip_id, reason=why)
    else:
        return Result(task.clip_id, "failed", why)
    return lacking if task.with_less_memory(lacking) else Result(task.clip_id, "failed", why)


def _forget_failure(folder: Path) -> None:
    """Remove the result of an attempt that failed: the clip is in training again."""
    path = folder / clip_folder.RESULT
    with contextlib.suppress(FileNotFoundError):
        if Result.from_json(path.read_bytes()).status == "failed":
            path.unlink()


def _warn_once(path: Path, line: str) -> None:
    if line and not (path.exists() and line in path.read_text().splitlines()):
        append(path, line)


def keep_failure(task: ClipTask, folder: Path | None, result: Result, details: str = "") -> Result:
    """Write a failure into the clip's folder, from where it goes to MLflow; what cannot be written is in the table.

    Args:
        folder: the clip's on this machine; None outside the clip's task.
        details: for error.txt, the traceback or the line of an error that we word.
    """
    store = task.experiment.store
    local = folder or store.path / task.clip_id
    try:
        local.mkdir(parents=True, exist_ok=True)
        if details:
            (local / clip_folder.ERROR).write_text(without_secrets(details), "utf-8", "backslashreplace")
        write_result(local, result)
        if folder is None:
            clip_folder.push_clip(store, task.clip_id)
    except OSError as error:  # the disk itself may be what failed
        result = replace(result, reason=f"{result.reason} (and its folder did not take the failure: {one_line(error)})")
    return result

"""One video trained by several workers, each on a GPU of its own: Ray Train's TorchTrainer around the fit of a clip.

The first worker does what a clip's only process does, and alone writes: checkpoints, log, pictures, MLflow. The others
train beside it on their share of the chunks (model/training/workers.py). Ray Train places all workers at once or none.
When a process or node dies, it starts all of them again from the last checkpoint, MAX_RESTARTS times.

A failure of the clip itself would only repeat. The worker that meets it writes the outcome into the store and ends with
an error, so that Ray Train ends the others, which may wait in a reduction without it. Started again, all read the
outcome and stop.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch.distributed
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from infra.clip_folder import CHECKPOINT, OUTCOME
from infra.errors import one_line
from jobs.experiment.result import OUT_OF_MEMORY, OutOfMemoryResult, Result
from jobs.training.progress import reporter
from jobs.training.task import MAX_RESTARTS, ClipTask, failure, fit_in_folder, keep_failure, setup_process
from model.pyramid import training_pyramids
from model.training.loop import train_clip
from model.training.workers import PeerLost

STATE = ".train"  # what Ray Train keeps for itself, in the experiment's; never read
# The other workers wait as long for the first one's pictures and scores, hours for a large video. A worker that dies is
# seen by Ray Train, whatever they wait for.
TIMEOUT_S = 24 * 3600


def fit_together(task: ClipTask, chunks: Sequence[Any]) -> Result:
    """The body of the Ray task that leads the workers; it takes no resources itself. Arguments as of `fit_task`."""
    store, outcome = task.experiment.store, f"{task.clip_id}/{OUTCOME}"
    store.remove(outcome)
    share = {"CPU": task.slot["num_cpus"], "GPU": task.slot.get("num_gpus", 0)}
    trainer = TorchTrainer(
        _work,
        train_loop_config={"task": task, "chunks": list(chunks)},
        scaling_config=ScalingConfig(num_workers=task.workers, use_gpu=share["GPU"] > 0, resources_per_worker=share),
        torch_config=TorchConfig(timeout_s=TIMEOUT_S),
        run_config=RunConfig(
            name=f"{STATE}/{task.clip_id}",
            storage_path=store.location,
            failure_config=FailureConfig(max_failures=MAX_RESTARTS),
        ),
    )
    died = ""
    try:
        trainer.fit()
    except Exception as error:  # TrainingFailedError, or Ray Train's own trouble with the cluster
        died = one_line(error)
    found = store.read([outcome]).get(outcome)
    if found is None:
        reason = f"its {task.workers} workers ended without a result: {died or 'Ray Train gives no reason'}"
        return keep_failure(task, None, Result(task.clip_id, "failed", reason))
    values = json.loads(found)
    if values["status"] == OUT_OF_MEMORY:
        return OutOfMemoryResult(**values)
    result = Result(**values)
    # A first worker that was slow to start has removed the failure that another had written already.
    return result if result.status == "done" else keep_failure(task, None, result)


def _work(given: dict[str, Any]) -> None:
    """The body of each worker."""
    task: ClipTask = given["task"]
    store, outcome = task.experiment.store, f"{task.clip_id}/{OUTCOME}"
    if store.read([outcome]):
        return
    chunks = ray.get(given["chunks"])
    try:
        if ray.train.get_context().get_world_rank() == 0:
            report = reporter(task.clip_id, task.config, chunks[0].shape[1:3])
            result: Result | None = fit_in_folder(task, chunks, report)
        else:
            result = _fit_beside(task, chunks)
        if result is not None:
            store.write_json(outcome, asdict(result))
            if result.status != "done":
                raise RuntimeError(result.reason)
    except PeerLost:
        if not store.read([outcome]):  # it did not end, it died
            raise
    finally:
        # Whoever leaves early lets the others go: in their next reduction they see that it has left. NCCL would wait
        # here for the others, whom Ray Train ends.
        if torch.distributed.get_backend() != "nccl":
            torch.distributed.destroy_process_group()


def _fit_beside(task: ClipTask, chunks: Sequence[Any]) -> Result | None:
    """Train as another than the first worker. Returns a result only if it failed."""
    setup_process(task.config)
    try:
        pyramids = training_pyramids(chunks, task.config)
        with tempfile.TemporaryDirectory() as nowhere:
            path = Path(nowhere) / CHECKPOINT
            for _ in train_clip(task.config, pyramids, clip_id=task.clip_id, path=path, log=lambda progress: None):
                pass
    except PeerLost:
        raise
    except Exception as error:
        result = failure(task, error)
        return result if isinstance(result, OutOfMemoryResult) else keep_failure(task, None, result)
    return None

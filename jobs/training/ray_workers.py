"""One video trained by several workers, each on a GPU of its own: Ray Train's TorchTrainer around the fit of a clip.

The first worker does what a clip's only process does, and alone writes: checkpoints, log, pictures, MLflow. The others
train beside it on their share of the chunks (model/team.py). Ray Train places all workers at once or none, and when a
process or node dies it starts all of them again, from the last checkpoint, MAX_RESTARTS times. A failure of the clip
itself, which would only repeat, is left as the outcome in the store by whoever meets it. That worker then ends with an
error, so that Ray Train ends the others, which may be in a reduction without it; started again, all find the outcome.
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

from infra.errors import one_line
from jobs.experiment.result import OUT_OF_MEMORY, OutOfMemory, Result
from jobs.training.schedule import MAX_RESTARTS, Job, failure, fit_job, keep_failure, reporting, settle
from model.training.workers import PeerLost

OUTCOME = ".outcome.json"  # of a run of the workers, in the clip's folder in the store
STATE = ".train"  # what Ray Train keeps for itself, in the experiment's; never read
# The other workers wait as long for the first one's pictures and scores, hours for a large video. A worker that dies is
# seen by Ray Train, whatever they wait for.
TIMEOUT_S = 24 * 3600


def fit_together(job: Job, chunks: Sequence[Any], standings: Any) -> Result:
    """The body of the Ray task that leads the workers; it takes no resources itself."""
    outcome = f"{job.clip_id}/{OUTCOME}"
    job.store.remove(outcome)
    share = {"CPU": job.slot["num_cpus"], "GPU": job.slot.get("num_gpus", 0)}
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job, "chunks": list(chunks), "standings": standings},
        scaling_config=ScalingConfig(num_workers=job.workers, use_gpu=share["GPU"] > 0, resources_per_worker=share),
        torch_config=TorchConfig(timeout_s=TIMEOUT_S),
        run_config=RunConfig(
            name=f"{STATE}/{job.clip_id}",
            storage_path=job.store.uri,
            failure_config=FailureConfig(max_failures=MAX_RESTARTS),
        ),
    )
    died = ""
    try:
        trainer.fit()
    except Exception as error:  # TrainingFailedError, or Ray Train's own trouble with the cluster
        died = one_line(error)
    found = job.store.read([outcome]).get(outcome)
    if found is None:
        reason = f"its {job.workers} workers ended without a result: {died or 'Ray Train gives no reason'}"
        return keep_failure(job, None, Result(job.clip_id, "failed", reason))
    values = json.loads(found)
    return OutOfMemory(**values) if values["status"] == OUT_OF_MEMORY else Result(**values)


def _work(given: dict[str, Any]) -> None:
    """The body of each worker."""
    job: Job = given["job"]
    outcome = f"{job.clip_id}/{OUTCOME}"
    if job.store.read([outcome]):
        return
    chunks = ray.get(given["chunks"])
    try:
        if ray.train.get_context().get_world_rank() == 0:
            result: Result | None = fit_job(job, chunks, reporting(job, given["standings"]))
        else:
            result = _beside(job, chunks)
        if result is not None:
            job.store.write_json(outcome, asdict(result))
            if result.status != "done":
                raise RuntimeError(result.reason)
    except PeerLost:
        if not job.store.read([outcome]):  # it did not end, it died
            raise
    finally:
        # Whoever leaves early lets the others go: in their next reduction they see that it has left.
        torch.distributed.destroy_process_group()


def _beside(job: Job, chunks: Sequence[Any]) -> Result | None:
    """Train as another than the first worker. Returns a result only if it failed."""
    from jobs.training.fit_clip import Clip, real_pyramids
    from model.training.loop import train_clip

    settle(job.config)
    try:
        _, pyramids = real_pyramids(Clip(job.clip_id, job.source, chunks), job.config)
        with tempfile.TemporaryDirectory() as nowhere:
            path = Path(nowhere) / "checkpoint.pt"
            for _ in train_clip(job.config, pyramids, clip_id=job.clip_id, path=path, log=lambda progress: None):
                pass
    except PeerLost:
        raise
    except Exception as error:
        result = failure(job, error)
        return result if isinstance(result, OutOfMemory) else keep_failure(job, None, result)
    return None

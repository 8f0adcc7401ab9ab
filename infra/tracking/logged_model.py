"""A clip's checkpoint as a logged model of MLflow's, with the signature of what it makes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, Schema, TensorSpec

from infra.clip_folder import CHECKPOINT
from infra.files import sha256_of

PREFIX = ".model-"  # of a folder beside it, while it is sent
MODEL_TYPE = "hp-vae-gan"


def signature(about: Mapping[str, Any]) -> ModelSignature:
    """A seed and a number of samples in; RGB videos, of images pictures, of the clip's finest scale out.

    Args: about: the clip's config.json.
    """
    frames, height, width = about["sizes_thw"][-1]
    shape = (-1, height, width, 3) if frames == 1 else (-1, frames, height, width, 3)
    inputs = Schema([ColSpec("long", "seed"), ColSpec("long", "n")])
    return ModelSignature(inputs, Schema([TensorSpec(np.dtype(np.uint8), shape)]), ParamSchema([]))


def log_checkpoint(client: MlflowClient, run_id: str, checkpoint: Path, about: Mapping[str, Any]) -> None:
    """Log it as the run's model, once: a model of the same checkpoint stays, one of another is replaced.

    Raises what MLflow's client raises.
    """
    state = sha256_of(checkpoint)
    run = client.get_run(run_id)
    experiment_id = run.info.experiment_id
    for model in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        if model.status == LoggedModelStatus.READY and model.tags.get("checkpoint") == state:
            return
        client.delete_logged_model(model.model_id)
    tags = {"clip_id": about["clip_id"], "checkpoint": state}
    model = client.create_logged_model(experiment_id, _name(about), run_id, tags, model_type=MODEL_TYPE)
    for leftover in checkpoint.parent.glob(f"{PREFIX}*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=checkpoint.parent, prefix=PREFIX) as folder:
        try:
            os.link(checkpoint, Path(folder) / CHECKPOINT)
        except OSError:  # not every file system has second names
            shutil.copyfile(checkpoint, Path(folder) / CHECKPOINT)
        described = Model(run_id=run_id, signature=signature(about), model_id=model.model_id)
        described.save(str(Path(folder) / "MLmodel"))
        client.log_model_artifacts(model.model_id, folder)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, "READY")


def _name(about: Mapping[str, Any]) -> str:
    """A model's name may not hold / : . % " '."""
    name = "".join(" " if mark in "/:.%\"'" else mark for mark in str(about.get("title", about["clip_id"])))
    return name.strip()[:200] or about["clip_id"]

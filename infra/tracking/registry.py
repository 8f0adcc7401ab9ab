"""Models that leave: packed ones, as pyfuncs of MLflow's and versions in its model registry."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking._tracking_service.utils import _use_tracking_uri
from mlflow.types import ColSpec, Schema, TensorSpec

from infra.errors import UsageError, one_line, printable
from infra.tracking.logged_model import MODEL_TYPE
from infra.tracking.parent import client_of
from infra.tracking.runs import ERRORS, sqlite_lock, tracking_error
from infra.tracking.uri import artifact_location, check_connection, check_length, is_database, sqlite_file

EXPERIMENT = "exported-models"
logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it says what it does to the example
EXAMPLE = {"seed": 0, "n": 1}


@dataclass(frozen=True)
class Pyfunc:
    """What a packed model is to MLflow.

    Attributes:
        code, loader, data: the folder of its package, the module in that with `_load_pyfunc`, what that is given.
        requirements: as pip takes them.
        images: whether it makes these, and no videos.
        tags: of the model and of its version.
        description: of the version, Markdown.
    """

    code: Path
    loader: str
    data: Path
    requirements: list[str]
    images: bool
    tags: Mapping[str, str]
    description: str

    @property
    def signature(self) -> ModelSignature:
        """A seed, a number and a size, all of them optional; uint8 RGB of any size."""
        types: dict[str, Literal["long", "string"]] = {"seed": "long", "n": "long", "size": "string"}
        asked = [ColSpec(kind, name, required=False) for name, kind in types.items()]
        shape = (-1, -1, -1, 3) if self.images else (-1, -1, -1, -1, 3)
        return ModelSignature(Schema([*asked]), Schema([TensorSpec(np.dtype(np.uint8), shape)]))


@dataclass(frozen=True)
class Version:
    """A version in the registry. model_id: of the logged model behind it."""

    name: str
    number: str
    model_id: str

    @property
    def uri(self) -> str:
        """What `mlflow.pyfunc.load_model` takes."""
        return f"models:/{self.name}/{self.number}"


def check_registry(uri: str) -> None:
    """Raises UsageError, one line, if the tracking URI has no model registry that can be used."""
    try:
        check_connection(uri)
        with sqlite_lock(uri):
            client_of(uri).search_registered_models(max_results=1)
    except ERRORS as error:
        raise UsageError(str(tracking_error(uri, error))) from error


def register(uri: str, storage: Path, name: str, model: Pyfunc) -> Version:
    """Log a packed model and make it a version of a registered model, which is made if it is not there.

    Args:
        uri: of `tracking_uri`; its registry is the same store's.
        storage: where artifacts go, in a folder, if `uri` is a database that is no file; those of a file lie beside it.

    Raises UsageError, one line, if MLflow does not take it.
    """
    try:
        # The registry of a database asks the store of the whole process for the model.
        with sqlite_lock(uri), _use_tracking_uri(uri), tempfile.TemporaryDirectory() as folder:
            client = client_of(uri)
            experiment_id = _experiment(client, uri, storage)
            tags = dict(model.tags)
            logged = client.create_logged_model(experiment_id, name, tags=tags, model_type=MODEL_TYPE)
            mlflow.pyfunc.save_model(
                Path(folder) / "model",
                loader_module=model.loader,
                data_path=str(model.data),
                code_paths=[str(model.code)],
                mlflow_model=Model(model_id=logged.model_id),
                signature=model.signature,
                input_example=EXAMPLE,
                pip_requirements=model.requirements,
            )
            client.log_model_artifacts(logged.model_id, str(Path(folder) / "model"))
            client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            source = f"models:/{logged.model_id}"
            version = client.create_model_version(
                name, source, tags=tags, description=model.description, model_id=logged.model_id
            )
    except ERRORS as error:
        raise UsageError(
            f"{printable(uri)}: MLflow did not register the model ({one_line(error)}); see to it"
        ) from error
    return Version(name, version.version, logged.model_id)


def _experiment(client: MlflowClient, uri: str, storage: Path) -> str:
    """The id of EXPERIMENT, made if it is not there."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        if found.lifecycle_stage == LifecycleStage.DELETED:
            raise MlflowException(f"its experiment {EXPERIMENT!r} is deleted; restore it")
        return str(found.experiment_id)
    file = sqlite_file(uri)
    location = artifact_location(file.parent if file else storage, EXPERIMENT) if is_database(uri) else None
    check_length(uri, location or "")
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))

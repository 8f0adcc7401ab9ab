"""Where the runs of a corpus go in MLflow: `ParentRun` travels to every process of a clip.

Some of these never ask MLflow, whose import takes more than a second. So it is imported only where it is asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from infra.errors import printable
from infra.tracking.descriptions import VIEW_KEY

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class ParentRun:
    """Where the runs of a corpus go. Plain strings: it travels to the tasks.

    Attributes:
        uri: tracking URI, sqlite:///… or http(s)://…, with the password that it may hold: for MLflow alone.
        run_id: of the parent run.
        context: tags of every run: who ran which program, of which commit.
    """

    uri: str = field(repr=False)
    experiment_id: str
    run_id: str
    context: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def shown_uri(self) -> str:
        """The same without a password: fit to be shown and stored."""
        return printable(self.uri)

    def client(self) -> MlflowClient:
        """MLflow's own, of this store. Raises ERRORS."""
        return client_of(self.uri)

    @property
    def is_local(self) -> bool:
        """Whether its pages are there only while something serves the store: a sqlite file."""
        return self.uri.startswith("sqlite")

    @property
    def page(self) -> str:
        """Of the experiment's runs: on the tracking server, or where `make ui` serves a local store."""
        return f"{self._server}/{runs_page(self.experiment_id)}"

    def link(self, run_id: str) -> str:
        """The page of a run."""
        return f"{self._server}/{run_page(self.experiment_id, run_id)}"

    def comparison(self, run_ids: Sequence[str]) -> str:
        """The page that compares runs with each other."""
        compared, experiments = (
            quote(json.dumps(list(ids), separators=(",", ":"))) for ids in (run_ids, [self.experiment_id])
        )
        return f"{self._server}/#/compare-runs?runs={compared}&experiments={experiments}&workflowType=machine_learning"

    @property
    def _server(self) -> str:
        if self.uri.startswith("http"):
            return self.shown_uri.replace("***@", "", 1).partition("?")[0].rstrip("/")
        return "http://127.0.0.1:5000"


def runs_page(experiment_id: str) -> str:
    """The page of an experiment's runs, below a server's address. MLflow 3 opens an experiment in another view, which
    is for traces, where the address does not say otherwise."""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW_KEY}&workflowType=machine_learning"


def run_page(experiment_id: str, run_id: str) -> str:
    """The page of a run, likewise."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def client_of(uri: str) -> MlflowClient:
    """MLflow's client of a tracking URI. The model registry, which nothing here uses, is the same store's."""
    from mlflow import MlflowClient
    from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

    # MLflow remembers where a run's files go, by its id alone: a run that was moved or copied keeps its id.
    _artifact_repos_cache.clear()
    return MlflowClient(uri, registry_uri=uri)

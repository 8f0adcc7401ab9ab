"""The runs of a corpus in MLflow: one parent run, to which infra/tracking/forward.py adds a child run a clip."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sqlalchemy.exc import SQLAlchemyError

from infra.errors import one_line

SEARCHED = 1000  # runs in one page of a search
for _name in ("alembic", "mlflow.store.db.utils"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # the migration log of a new sqlite file
# A store or server that fails; uploads raise requests' errors, which are OSErrors.
ERRORS = (MlflowException, SQLAlchemyError, OSError)


@dataclass(frozen=True)
class ParentRun:
    """Where the runs of a corpus go. Plain strings: it travels to the tasks."""

    uri: str  # tracking URI: sqlite:///… or http(s)://…
    experiment_id: str
    run_id: str  # the parent run

    def link(self, run_id: str) -> str:
        """The page of a run: on the tracking server, or where `make ui` serves a local store."""
        server = self.uri.rstrip("/") if self.uri.startswith("http") else "http://127.0.0.1:5000"
        return f"{server}/#/experiments/{self.experiment_id}/runs/{run_id}"


def default_uri(storage: Path) -> str:
    """The sqlite store inside the storage folder."""
    return f"sqlite:///{storage / 'mlflow.db'}"


def tracking_uri(given: str | None, storage: Path) -> str:
    """What --tracking-uri means: itself, else the environment's, else the default."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(storage)


def open_parent(uri: str, experiment: str, storage: Path, tags: Mapping[str, str]) -> ParentRun:
    """The parent run of an experiment, made if it is not there. Called once in the driver, before any task starts:
    several processes that create the schema of one sqlite file at once break it.

    Raises ConnectionError with one line if the store cannot be used.
    """
    try:
        with sqlite_lock(uri):
            client = MlflowClient(uri)
            found = client.get_experiment_by_name(experiment)
            if found is None:
                # A server keeps artifacts itself; a local store keeps them in the storage folder, not in the cwd.
                location = None if uri.startswith("http") else (storage / "mlartifacts" / experiment).as_uri()
                experiment_id = client.create_experiment(experiment, artifact_location=location)
            else:
                experiment_id = found.experiment_id
            runs = run_ids(client, experiment_id, "tags.role = 'corpus'")
            run_id = next(iter(runs), None)
            if run_id is None:
                run = client.create_run(experiment_id, tags={"role": "corpus"}, run_name=experiment)
                run_id = run.info.run_id
            client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])  # a later submission may change them
            client.update_run(run_id, status="RUNNING")
    except ERRORS as error:
        raise tracking_error(uri, error) from error
    return ParentRun(uri, experiment_id, run_id)


def tracking_error(uri: str, error: Exception) -> ConnectionError:
    """The one line for a tracking URI that MLflow cannot use."""
    return ConnectionError(f"{uri}: MLflow cannot use it ({one_line(error)}); start it, or leave out --tracking-uri")


def close_parent(
    parent: ParentRun, *, failed: bool, metrics: Mapping[str, float], table: str, files: Collection[Path] = ()
) -> None:
    """End the parent run with the totals, those that changed, and as artifacts the table and `files`. Raises ERRORS."""
    with sqlite_lock(parent.uri):
        client = MlflowClient(parent.uri)
        _log_changed(client, parent.run_id, metrics)
        client.log_text(parent.run_id, table, "results.txt")
        for path in files:
            client.log_artifact(parent.run_id, str(path))
        client.set_terminated(parent.run_id, "FAILED" if failed else "FINISHED")


def find_parent(uri: str, experiment: str) -> ParentRun | None:
    """The parent run that `open_parent` made, None if there is none. Changes nothing. Raises ERRORS."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///").split("?")[0]).exists():
        return None  # MLflow would make the file
    with sqlite_lock(uri):
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
        runs = run_ids(client, found.experiment_id, "tags.role = 'corpus'") if found else []
    return ParentRun(uri, found.experiment_id, runs[0]) if found and runs else None


def log_evaluation(parent: ParentRun, run_id: str, metrics: Mapping[str, float], files: Mapping[str, bytes]) -> None:
    """Add the scores of jobs/evaluate.py to a run of `parent`, ended or not: figures, those that changed, and files by
    name, under evaluation/. Raises ERRORS."""
    with sqlite_lock(parent.uri), tempfile.TemporaryDirectory() as folder:
        client = MlflowClient(parent.uri)
        _log_changed(client, run_id, metrics)
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        client.log_artifacts(run_id, folder, "evaluation")


def _log_changed(client: MlflowClient, run_id: str, metrics: Mapping[str, float]) -> None:
    """Log the figures that are not the run's already: saying the same again adds no point."""
    known, now = client.get_run(run_id).data.metrics, time.time_ns() // 1_000_000
    changed = {name: value for name, value in metrics.items() if known.get(name) != value}
    client.log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in changed.items()])


def forget_clips(parent: ParentRun, clip_ids: Collection[str]) -> None:
    """Delete the clips' runs, as the MLflow UI does: they can be restored there. Raises ConnectionError."""
    wanted, page = set(clip_ids), None
    try:
        with sqlite_lock(parent.uri):
            client = MlflowClient(parent.uri)
            old = []
            while wanted:  # one search for all: a corpus may have many thousand clips
                query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.run_id}'"
                runs = client.search_runs([parent.experiment_id], query, max_results=SEARCHED, page_token=page)
                old += [run.info.run_id for run in runs if run.data.tags.get("clip_id") in wanted]
                page = runs.token
                if not page:
                    break
            for run_id in old:
                client.delete_run(run_id)
    except ERRORS as error:
        raise ConnectionError(f"{parent.uri}: MLflow did not delete the old runs ({one_line(error)})") from error


@contextlib.contextmanager
def sqlite_lock(uri: str) -> Iterator[None]:
    """Processes that use one sqlite file take turns, by a lock beside it; a server keeps its own order.

    sqlite lets them wait for each other too, but not in the order they came: of 25 at once some find no gap in the 20
    seconds that MLflow gives them ("database is locked").
    """
    if not uri.startswith("sqlite:///"):
        yield
        return
    path = Path(uri.removeprefix("sqlite:///").split("?")[0] + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        yield


def run_ids(client: MlflowClient, experiment_id: str, query: str) -> list[str]:
    """The runs that match, oldest first."""
    runs = client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"], max_results=10)
    return [run.info.run_id for run in runs]

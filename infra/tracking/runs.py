"""The runs of a corpus in MLflow: one parent run, to which infra/tracking/forward.py adds a child run a clip."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sqlalchemy.exc import SQLAlchemyError

from infra.errors import one_line, printable
from infra.tracking.moved import follow_storage
from infra.tracking.uri import artifact_location, check_connection, check_length, is_database, sqlite_file

SEARCHED = 1000  # runs in one page of a search
# The migration log of a new sqlite file, and what MLflow prints of a database that fails: ours is one line.
logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.ERROR)
# A store or server that fails; uploads raise requests' errors, which are OSErrors.
ERRORS = (MlflowException, SQLAlchemyError, OSError)


@dataclass(frozen=True)
class ParentRun:
    """Where the runs of a corpus go. Plain strings: it travels to the tasks.

    Attributes:
        uri: tracking URI, sqlite:///… or http(s)://…, with the password that it may hold: for MLflow alone.
        run_id: of the parent run.
    """

    uri: str = field(repr=False)
    experiment_id: str
    run_id: str

    @property
    def shown_uri(self) -> str:
        """The same without a password: fit to be shown and stored."""
        return printable(self.uri)

    def client(self) -> MlflowClient:
        """MLflow's own, of this store. Raises ERRORS."""
        return client_of(self.uri)

    def link(self, run_id: str) -> str:
        """The page of a run: on the tracking server, or where `make ui` serves a local store."""
        server = "http://127.0.0.1:5000"
        if self.uri.startswith("http"):
            server = self.shown_uri.replace("***@", "", 1).partition("?")[0].rstrip("/")
        return f"{server}/#/experiments/{self.experiment_id}/runs/{run_id}"


def client_of(uri: str) -> MlflowClient:
    """MLflow's client of a tracking URI. The model registry, which nothing here uses, is the same store's."""
    # MLflow remembers where a run's files go, by its id alone: a run that was moved or copied keeps its id.
    _artifact_repos_cache.clear()
    return MlflowClient(uri, registry_uri=uri)


def open_parent(uri: str, experiment: str, storage: Path, tags: Mapping[str, str]) -> ParentRun:
    """The parent run of an experiment, made if it is not there. Called once in the driver, before any task starts:
    several processes that create the schema of one sqlite file at once break it.

    Raises ConnectionError with one line if the store cannot be used.
    """
    try:
        check_connection(uri)
        with sqlite_lock(uri):
            client = client_of(uri)
            found = client.get_experiment_by_name(experiment)
            follow_storage(uri, storage, experiment)
            if found is None:
                location = artifact_location(storage, experiment) if is_database(uri) else None
                check_length(uri, location or "")
                experiment_id = client.create_experiment(experiment, artifact_location=location)
            else:
                experiment_id = found.experiment_id
                if found.lifecycle_stage == LifecycleStage.DELETED:  # in MLflow's UI
                    _restore(client, experiment_id)
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
    shown, cause = printable(uri), one_line(error)
    return ConnectionError(f"{shown}: MLflow cannot use it ({cause}); start it, or leave out --tracking-uri")


def close_parent(
    parent: ParentRun, *, failed: bool, metrics: Mapping[str, float], table: str, files: Collection[Path] = ()
) -> None:
    """End the parent run with the totals, those that changed, and as artifacts the table and `files`. Raises ERRORS."""
    with sqlite_lock(parent.uri):
        client = parent.client()
        _log_changed(client, parent.run_id, metrics)
        client.log_text(parent.run_id, table, "results.txt")
        for path in files:
            client.log_artifact(parent.run_id, str(path))
        client.set_terminated(parent.run_id, "FAILED" if failed else "FINISHED")


def find_parent(uri: str, experiment: str, storage: Path) -> ParentRun | None:
    """The parent run that `open_parent` made, None if there is none. Makes nothing. Raises ERRORS."""
    if (file := sqlite_file(uri)) and not file.exists():
        return None  # MLflow would make the file
    check_connection(uri)
    with sqlite_lock(uri):
        follow_storage(uri, storage, experiment)
        client = client_of(uri)
        found = client.get_experiment_by_name(experiment)
        runs = run_ids(client, found.experiment_id, "tags.role = 'corpus'") if found else []
    return ParentRun(uri, found.experiment_id, runs[0]) if found and runs else None


def log_evaluation(
    parent: ParentRun,
    run_id: str,
    metrics: Mapping[str, float],
    files: Mapping[str, bytes],
    folder: str = "evaluation",
) -> None:
    """Add the scores of a later job to a run of `parent`, ended or not: figures, those that changed, and files by name,
    as artifacts under `folder`. Raises ERRORS."""
    with sqlite_lock(parent.uri), tempfile.TemporaryDirectory() as local:
        client = parent.client()
        _log_changed(client, run_id, metrics)
        for name, content in files.items():
            (Path(local) / name).write_bytes(content)
        client.log_artifacts(run_id, local, folder)


def _log_changed(client: MlflowClient, run_id: str, metrics: Mapping[str, float]) -> None:
    """Log the figures that are not the run's already: saying the same again adds no point."""
    known, now = client.get_run(run_id).data.metrics, time.time_ns() // 1_000_000
    changed = {name: value for name, value in metrics.items() if known.get(name) != value}
    client.log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in changed.items()])


def forget_clips(parent: ParentRun, clip_ids: Collection[str]) -> None:
    """Delete the clips' runs, as the MLflow UI does: they can be restored there. Raises ConnectionError."""
    wanted = set(clip_ids)
    if not wanted:
        return
    try:
        with sqlite_lock(parent.uri):
            client = parent.client()
            query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.run_id}'"
            runs = _all_runs(client, parent.experiment_id, query)  # one search for all, ended before the first goes
            for run_id in [run.info.run_id for run in runs if run.data.tags.get("clip_id") in wanted]:
                client.delete_run(run_id)
    except ERRORS as error:
        raise ConnectionError(f"{parent.shown_uri}: MLflow did not delete the old runs ({one_line(error)})") from error


@contextlib.contextmanager
def sqlite_lock(uri: str) -> Iterator[None]:
    """Processes that use one sqlite file take turns, by a lock beside it; a server keeps its own order.

    sqlite lets them wait for each other too, but not in the order they came: of 25 at once some find no gap in the 20
    seconds that MLflow gives them ("database is locked").
    """
    file = sqlite_file(uri)
    if file is None:
        yield
        return
    path = file.with_name(f"{file.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        yield


def _restore(client: MlflowClient, experiment_id: str) -> None:
    """Bring back an experiment that was deleted in MLflow's UI.

    MLflow brings back its runs that were deleted before, by `forget_clips`, too: of those with one clip the newest
    that trained stays.
    """
    client.restore_experiment(experiment_id)
    newest: dict[str, str] = {}  # by clip; "" of the corpus
    for run in sorted(_all_runs(client, experiment_id), key=lambda run: (bool(run.data.params), run.info.start_time)):
        name = run.data.tags.get("clip_id", "")
        if name in newest:
            client.delete_run(newest[name])
        newest[name] = run.info.run_id


def _all_runs(client: MlflowClient, experiment_id: str, query: str = "") -> Iterator[Run]:
    """The runs that match, read page by page: a corpus may have many thousand clips."""
    page = None
    while True:
        runs = client.search_runs([experiment_id], query, max_results=SEARCHED, page_token=page)
        yield from runs
        page = runs.token
        if not page:
            return


def run_ids(client: MlflowClient, experiment_id: str, query: str) -> list[str]:
    """The runs that match, oldest first."""
    runs = client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"], max_results=10)
    return [run.info.run_id for run in runs]

"""The runs of a corpus in MLflow: one parent run, to which infra/tracking/forward.py adds a child run a clip."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)
from sqlalchemy.exc import SQLAlchemyError

from infra.errors import one_line, printable
from infra.tracking.descriptions import FIRST_SCORES, KIND, NOTE, TRAINING, VIEW, of_corpus, table_of_clips
from infra.tracking.moved import follow_storage
from infra.tracking.parent import ParentRun, client_of, runs_page
from infra.tracking.uri import artifact_location, check_connection, check_length, default_uri, is_database, sqlite_file

SEARCHED = 1000  # runs in one page of a search
STATUS = "status"  # a tag of a clip's run: training, done, failed, stopped
# The migration log of a new sqlite file, and what MLflow prints of a database that fails: ours is one line.
logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.ERROR)
# A store or server that fails; uploads raise requests' errors, which are OSErrors.
ERRORS = (MlflowException, SQLAlchemyError, OSError)


def experiments(uri: str) -> list[tuple[str, str]]:
    """(id, name) of the experiments that hold a run, that with the newest run first. Raises ERRORS."""
    client = client_of(uri)
    newest = [  # (when, id, name)
        (run.info.start_time, experiment.experiment_id, experiment.name)
        for experiment in client.search_experiments()
        for run in client.search_runs([experiment.experiment_id], max_results=1)
    ]
    return [(experiment_id, name) for _, experiment_id, name in sorted(newest, reverse=True)]


def open_parent(
    uri: str,
    experiment: str,
    storage: Path,
    tags: Mapping[str, str],
    params: Mapping[str, object] | None = None,
    *,
    anew: bool = False,
) -> ParentRun:
    """The parent run of an experiment, made if it is not there. Called once in the driver, before any task starts:
    several processes that create the schema of one sqlite file at once break it.

    Args:
        params: the settings.
        tags: with the experiment's `storage`, by which a server that several people share tells whose run it is.
        anew: whether nothing of an earlier run of this storage is kept: it is deleted, with those of its clips and
            files, and another one is made, as a param never changes.

    Raises ConnectionError with one line if the store cannot be used.
    """
    try:
        check_connection(uri)
        with sqlite_lock(uri):
            _create_database(sqlite_file(uri))
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
            if run_id is not None and anew and client.get_run(run_id).data.tags.get("storage") == tags.get("storage"):
                _delete(client, experiment_id, _all_runs(client, experiment_id, _children(run_id)))
                client.delete_run(run_id)
                run_id = None
            if run_id is None:
                run = client.create_run(experiment_id, tags={"role": "corpus"}, run_name=experiment)
                run_id = run.info.run_id
            context = source_tags()
            # A later submission may change them.
            said = {**(context if params is not None else {}), **tags}  # not of a job that sends what another left out
            client.log_batch(run_id, tags=[RunTag(k, v) for k, v in said.items()])
            known = client.get_run(run_id).data.params
            new = [Param(k, str(v)) for k, v in (params or {}).items() if k not in known]
            client.log_batch(run_id, params=new)
            client.update_run(run_id, status="RUNNING")
            if found is None or VIEW not in found.tags:
                client.set_experiment_tag(experiment_id, KIND, TRAINING)
                client.set_experiment_tag(experiment_id, VIEW, table_of_clips(FIRST_SCORES))
    except ERRORS as error:
        raise tracking_error(uri, error) from error
    return ParentRun(uri, experiment_id, run_id, context)


def _create_database(file: Path | None) -> None:
    """Create a sqlite file that is not there, whole: MLflow refuses one whose schema was made in part, by a process
    that was stopped meanwhile."""
    if file is None or file.exists():
        return
    file = file.resolve()  # of a link, where it leads
    with tempfile.TemporaryDirectory(prefix=".mlflow", dir=file.parent) as folder:
        uri = default_uri(Path(folder))
        client_of(uri).search_experiments(max_results=1)
        os.replace(Path(folder) / "mlflow.db", file)


def source_tags() -> dict[str, str]:
    """Who runs which program, of which commit, as MLflow itself tags runs."""
    known = {MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE, MLFLOW_GIT_COMMIT, MLFLOW_USER}
    tags = {name: value for name, value in resolve_tags().items() if name in known}
    tags[MLFLOW_SOURCE_NAME] = printable(Path(sys.argv[0]).name or "python")
    tags["host"] = socket.gethostname()
    return tags


def tracking_error(uri: str, error: Exception) -> ConnectionError:
    """The one line for a tracking URI that MLflow cannot use."""
    mend = "start it, or leave out --tracking-uri and unset MLFLOW_TRACKING_URI"
    if sqlite_file(uri):
        mend = "end other programs that use the file, see to its disk, and run the same command again"
    return ConnectionError(f"{printable(uri)}: MLflow cannot use it ({one_line(error)}); {mend}")


def close_parent(
    parent: ParentRun,
    *,
    failed: bool,
    metrics: Mapping[str, float],
    table: str,
    files: Collection[Path] = (),
    about: Mapping[str, str] | None = None,
) -> None:
    """End the parent run with the totals, those that changed, and as artifacts the table and `files`. Raises ERRORS.

    Args: about: what the descriptions of run and experiment say: corpus, preset, command …
    """
    with sqlite_lock(parent.uri):
        client = parent.client()
        _log_changed(client, parent.run_id, metrics)
        client.log_text(parent.run_id, table, "results.txt")
        for path in files:
            client.log_artifact(parent.run_id, str(path))
        if about:
            links = {"the runs": runs_page(parent.experiment_id)}
            text = of_corpus(
                parent.run_id, about, links, next((path.name for path in files if path.suffix == ".png"), "")
            )
            client.set_tag(parent.run_id, NOTE, text)
            client.set_experiment_tag(parent.experiment_id, NOTE, text)
            scores = [name.removesuffix("_mean") for name in metrics if name.startswith("score/")]
            client.set_experiment_tag(parent.experiment_id, VIEW, table_of_clips(scores or FIRST_SCORES))
        client.set_terminated(parent.run_id, "FAILED" if failed else "FINISHED")


def kill_unfinished(parent: ParentRun) -> None:
    """Mark the parent run and the runs of its clips that have not ended as KILLED, and these by their tag as stopped.

    Raises ERRORS.
    """
    with sqlite_lock(parent.uri):
        client = parent.client()
        query = f"{_children(parent.run_id)} and attributes.status = 'RUNNING'"
        for run in [*_all_runs(client, parent.experiment_id, query)]:
            client.set_tag(run.info.run_id, STATUS, "stopped")
            client.set_terminated(run.info.run_id, "KILLED")
        client.set_terminated(parent.run_id, "KILLED")


def log_failed_files(parent: ParentRun, failures: Sequence[tuple[str, str]]) -> None:
    """A run for each file that is no clip, in place of those of an earlier submission. Raises ERRORS.

    Args: failures: source, and why in one line.
    """
    with sqlite_lock(parent.uri):
        client = parent.client()
        query = f"{_children(parent.run_id)} and tags.role = 'file'"
        runs = [*_all_runs(client, parent.experiment_id, query)]
        there = {(run.data.tags.get("source", ""), run.data.tags.get("failure", "")): run for run in runs}
        wanted = dict.fromkeys((source, reason) for source, reason in failures)
        for said, run in there.items():
            if said not in wanted:
                client.delete_run(run.info.run_id)
        for source, reason in wanted.keys() - there.keys():
            tags = {**parent.context, "role": "file", "status": "failed", "failure": reason, "source": source}
            tags |= {MLFLOW_PARENT_RUN_ID: parent.run_id, MLFLOW_RUN_NAME: Path(source).name or source}
            run = client.create_run(parent.experiment_id, tags=tags)
            client.set_terminated(run.info.run_id, "FAILED")


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
            runs = _all_runs(client, parent.experiment_id, _children(parent.run_id))  # one search for all
            found = [run for run in runs if run.data.tags.get("clip_id") in wanted]
            _delete(client, parent.experiment_id, found)
    except ERRORS as error:
        raise ConnectionError(f"{parent.shown_uri}: MLflow did not delete the old runs ({one_line(error)})") from error


def _delete(client: MlflowClient, experiment_id: str, runs: Iterable[Run]) -> None:
    """Delete runs, with their logged models, once all are read: a search goes on from page to page."""
    for run_id in [run.info.run_id for run in runs]:
        for model in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
            client.delete_logged_model(model.model_id)
        client.delete_run(run_id)


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


def _children(run_id: str) -> str:
    """The query for the runs below a parent run."""
    return f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'"


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

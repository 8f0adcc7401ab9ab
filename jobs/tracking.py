"""MLflow: one parent run a corpus, one child run a clip. The only file that imports mlflow.

Losses never wait for the tracking server: training appends to `metrics.jsonl`, and a thread here forwards that file.
A point keeps the time it was written at, so forwarding it twice stores it once. Pictures and files go at once, between
scales.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Read by mlflow at import and at each call: no usage reports, and an absent server costs seconds instead of minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
for _name in ("alembic", "mlflow.store.db.utils"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # the migration log of a new sqlite file

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME  # noqa: E402

from jobs.corpus import one_line  # noqa: E402

FORWARD_S = 5.0  # seconds between two looks at metrics.jsonl
BATCH = 1000  # metrics in one log_batch: the server's limit
ERRORS = (MlflowException, OSError)  # a store or server that fails; uploads raise requests' errors, which are OSErrors
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
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


def open_corpus(uri: str, experiment: str, storage: Path, tags: Mapping[str, str]) -> Corpus:
    """The parent run of an experiment, made if it is not there. Called once in the driver, before any task starts:
    several processes that create the schema of one sqlite file at once break it.

    Raises ConnectionError with one line if the store cannot be used.
    """
    client = MlflowClient(uri)
    try:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            # A server keeps artifacts itself; a local store keeps them in the storage folder, not in the cwd.
            location = None if uri.startswith("http") else (storage / "mlartifacts" / experiment).as_uri()
            experiment_id = client.create_experiment(experiment, artifact_location=location)
        else:
            experiment_id = found.experiment_id
        run_id = _find_run(client, experiment_id, "tags.role = 'corpus'")
        if run_id is None:
            run = client.create_run(experiment_id, tags={"role": "corpus"}, run_name=experiment)
            run_id = run.info.run_id
        client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])  # a later submission may change them
        client.update_run(run_id, status="RUNNING")
    except ERRORS as error:
        raise ConnectionError(
            f"{uri}: MLflow cannot use it ({one_line(error)}); start it, or leave out --tracking-uri"
        ) from error
    return Corpus(uri, experiment_id, run_id)


def close_corpus(corpus: Corpus, *, failed: bool, metrics: Mapping[str, float], table: str) -> None:
    """End the parent run with the corpus means and the results table as an artifact."""
    client = MlflowClient(corpus.uri)
    for name, value in metrics.items():
        client.log_metric(corpus.run_id, name, value)
    client.log_text(corpus.run_id, table, "results.txt")
    client.set_terminated(corpus.run_id, "FAILED" if failed else "FINISHED")


def record_failure(corpus: Corpus, clip_id: str, reason: str) -> str:
    """Mark the clip's run (made if there is none) as failed, with the reason as a tag. Returns the run's id."""
    client = MlflowClient(corpus.uri)
    run_id = _clip_run(client, corpus, clip_id)
    client.set_tag(run_id, "failure", reason)
    client.set_terminated(run_id, "FAILED")
    return run_id


def forget_clips(corpus: Corpus, clip_ids: Sequence[str]) -> None:
    """Delete the clips' runs, as the MLflow UI does: they can be restored there. Raises ConnectionError."""
    client = MlflowClient(corpus.uri)
    try:
        for clip_id in clip_ids:
            run_id = _find_run(client, corpus.experiment_id, _clip_query(corpus, clip_id))
            if run_id is not None:
                client.delete_run(run_id)
    except ERRORS as error:
        raise ConnectionError(f"{corpus.uri}: MLflow did not delete the old runs ({one_line(error)})") from error


@contextlib.contextmanager
def clip_run(corpus: Corpus, clip_id: str, metrics_log: Path) -> Iterator[ClipRun]:
    """The run of one clip, resumed if it exists; forwards `metrics_log` in the background while the body runs."""
    client = MlflowClient(corpus.uri)
    run_id = _clip_run(client, corpus, clip_id)
    client.update_run(run_id, status="RUNNING")
    run = ClipRun(client, run_id, metrics_log)
    try:
        yield run
        run.finish()
    finally:
        run.stop()


class ClipRun:
    """One clip's run. Pictures and files go at once; metric points through the forwarding thread."""

    def __init__(self, client: MlflowClient, run_id: str, metrics_log: Path) -> None:
        self.run_id = run_id
        self._client = client
        self._log = metrics_log
        self._offset = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._forward_loop, name="mlflow-forward", daemon=True)
        self._thread.start()

    def params(self, values: Mapping[str, Any]) -> None:
        """What never changes in a run: MLflow refuses another value for a name."""
        self._client.log_batch(self.run_id, params=[Param(k, str(v)) for k, v in values.items()])

    def tags(self, values: Mapping[str, Any]) -> None:
        self._client.log_batch(self.run_id, tags=[RunTag(k, str(v)) for k, v in values.items()])

    def metrics(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self.run_id, name, value)

    def image(self, picture: np.ndarray, key: str, step: int) -> None:
        """picture: uint8 (H, W, 3)."""
        with _taken(f"picture {step} of {key}"):
            self._client.log_image(self.run_id, picture, key=key, step=step, synchronous=True)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        with _taken(str(path)):
            self._client.log_artifact(self.run_id, str(path), folder)

    def finish(self) -> None:
        """Forward the rest of the points and end the run as finished. Raises MlflowException if that fails."""
        self.stop()
        self._forward()
        if "failure" in self._client.get_run(self.run_id).data.tags:  # of an earlier attempt
            self._client.delete_tag(self.run_id, "failure")
        self._client.set_terminated(self.run_id, "FINISHED")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _forward_loop(self) -> None:
        while not self._stop.wait(FORWARD_S):
            try:
                self._forward()
            except ERRORS as error:
                log.warning("MLflow did not take the metrics, will try again: %s", one_line(error))

    def _forward(self) -> None:
        """Send the whole lines of metrics.jsonl that were not sent yet."""
        if not self._log.exists():
            return
        with open(self._log, "rb") as file:
            file.seek(self._offset)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        points = []
        for line in data.splitlines():
            point = json.loads(line)
            if point["iteration"] is None:  # of a finished scale: one curve over the scales
                prefix, step = "after_scale", point["scale"]
            else:
                prefix, step = f"scale_{point['scale']:02d}", point["iteration"]
            for name, value in point["metrics"].items():
                points.append(Metric(f"{prefix}/{name}", value, point["time_ms"], step))
        for start in range(0, len(points), BATCH):
            self._client.log_batch(self.run_id, metrics=points[start : start + BATCH])
        self._offset += len(data)


@contextlib.contextmanager
def _taken(what: str) -> Iterator[None]:
    """A disk or server that fails names no file: this says which one was not stored, and what to do."""
    try:
        yield
    except OSError as error:
        mend = "make room there or start it, then run the same command again"
        raise ConnectionError(f"{what}: MLflow's store did not take it ({one_line(error)}); {mend}") from error


def _clip_run(client: MlflowClient, corpus: Corpus, clip_id: str) -> str:
    """The id of the clip's child run, made if there is none; clip ids hold no quotes (pipeline/clips.py)."""
    run_id = _find_run(client, corpus.experiment_id, _clip_query(corpus, clip_id))
    if run_id is None:
        tags = {"clip_id": clip_id, "role": "clip", MLFLOW_PARENT_RUN_ID: corpus.run_id, MLFLOW_RUN_NAME: clip_id}
        run_id = client.create_run(corpus.experiment_id, tags=tags).info.run_id
    return run_id


def _clip_query(corpus: Corpus, clip_id: str) -> str:
    return f"tags.clip_id = '{clip_id}' and tags.`{MLFLOW_PARENT_RUN_ID}` = '{corpus.run_id}'"


def _find_run(client: MlflowClient, experiment_id: str, query: str) -> str | None:
    runs = client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"], max_results=1)
    return runs[0].info.run_id if runs else None

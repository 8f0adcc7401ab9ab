"""MLflow: one parent run a corpus, one child run a clip. The only file that imports mlflow.

Training never waits for the tracking server: it writes files, and a thread here brings the clip's run to the state of
the clip's folder. Forwarding twice stores everything once: a point keeps the time it was written at, of which MLflow
keeps one, and a file its name. What was not forwarded is forwarded later, by the driver or by jobs/upload.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

# Read by mlflow at import and at each call: no usage reports, and an absent server costs seconds instead of minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
for _name in ("alembic", "mlflow.store.db.utils"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # the migration log of a new sqlite file

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking.multimedia import compress_image_size  # noqa: E402
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME  # noqa: E402
from sqlalchemy.exc import SQLAlchemyError  # noqa: E402

from jobs.corpus import one_line  # noqa: E402
from jobs.results import read_result, write_json  # noqa: E402
from model.config import RUN_SETTINGS  # noqa: E402

FORWARD_S = 5.0  # seconds between two looks at a clip's folder
BATCH = 1000  # metrics in one log_batch: the server's limit
SEARCHED = 1000  # runs in one page of a search
CHUNK = 1 << 20  # bytes of metrics.jsonl read at once
LAST_TRIES = 2  # of bringing a finished clip in; each lasts some seconds where the server is away
PATIENCE_S = 60.0  # without an answer, before a finished clip is left for later
QUEUE_S = 600.0  # more, while it waits for its turn
PICTURES = "real_reconstruction_samples"  # their name in MLflow's image grid
# A store or server that fails; uploads raise requests' errors, which are OSErrors.
ERRORS = (MlflowException, SQLAlchemyError, OSError)
T = TypeVar("T")
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


def uri_of(given: str | None, storage: Path) -> str:
    """What --tracking-uri means: itself, else the environment's, else the default."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(storage)


def open_corpus(uri: str, experiment: str, storage: Path, tags: Mapping[str, str]) -> Corpus:
    """The parent run of an experiment, made if it is not there. Called once in the driver, before any task starts:
    several processes that create the schema of one sqlite file at once break it.

    Raises ConnectionError with one line if the store cannot be used.
    """
    try:
        with _turn(uri):
            client = MlflowClient(uri)
            found = client.get_experiment_by_name(experiment)
            if found is None:
                # A server keeps artifacts itself; a local store keeps them in the storage folder, not in the cwd.
                location = None if uri.startswith("http") else (storage / "mlartifacts" / experiment).as_uri()
                experiment_id = client.create_experiment(experiment, artifact_location=location)
            else:
                experiment_id = found.experiment_id
            runs = _run_ids(client, experiment_id, "tags.role = 'corpus'")
            run_id = next(iter(runs), None)
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
    """End the parent run with the totals, those that changed, and the results table as an artifact. Raises ERRORS."""
    with _turn(corpus.uri):
        client = MlflowClient(corpus.uri)
        known, now = client.get_run(corpus.run_id).data.metrics, time.time_ns() // 1_000_000
        changed = {name: value for name, value in metrics.items() if known.get(name) != value}
        client.log_batch(corpus.run_id, metrics=[Metric(name, value, now, 0) for name, value in changed.items()])
        client.log_text(corpus.run_id, table, "results.txt")
        client.set_terminated(corpus.run_id, "FAILED" if failed else "FINISHED")


def forget_clips(corpus: Corpus, clip_ids: Collection[str]) -> None:
    """Delete the clips' runs, as the MLflow UI does: they can be restored there. Raises ConnectionError."""
    wanted, page = set(clip_ids), None
    try:
        with _turn(corpus.uri):
            client = MlflowClient(corpus.uri)
            old = []
            while wanted:  # one search for all: a corpus may have many thousand clips
                query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{corpus.run_id}'"
                runs = client.search_runs([corpus.experiment_id], query, max_results=SEARCHED, page_token=page)
                old += [run.info.run_id for run in runs if run.data.tags.get("clip_id") in wanted]
                page = runs.token
                if not page:
                    break
            for run_id in old:
                client.delete_run(run_id)
    except ERRORS as error:
        raise ConnectionError(f"{corpus.uri}: MLflow did not delete the old runs ({one_line(error)})") from error


def run_of(corpus: Corpus, folder: Path) -> str | None:
    """The id of the run that holds all of a clip's folder; None if something was not forwarded to this corpus yet."""
    try:
        marker = json.loads((folder / "tracked.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    return marker["run_id"] if marker["corpus_run_id"] == corpus.run_id else None


@contextlib.contextmanager
def forwarding(corpus: Corpus, clip_id: str, folder: Path) -> Iterator[Forwarder]:
    """While the body runs, forward what it writes into the clip's folder; afterwards, the rest and the result.

    The body never waits and is never disturbed: a server that is away is tried again. After the body this waits as
    long as the server answers; if it does not, it gives up in seconds. `run_of` tells what came of it.
    """
    forwarder = Forwarder(corpus, clip_id, folder)
    try:
        yield forwarder
    finally:
        forwarder.close()


class Forwarder:
    """Brings one clip's run to the state of its folder, from a thread of its own, which is the only one to run here."""

    answered = False  # whether the server or store ever did
    error = ""  # why it fails at the moment, one line

    def __init__(self, corpus: Corpus, clip_id: str, folder: Path) -> None:
        self._corpus, self._clip_id, self._folder = corpus, clip_id, folder
        self._run_id = ""
        self._config = ""  # the text of config.json that was sent
        self._offset = 0  # bytes of metrics.jsonl that were sent
        self._time_ms = 0  # of the last point: that of the final figures too
        self._pictures: list[tuple[int, int]] = []  # (scale, time_ms) of those to send
        self._sent: set[str] = set()  # names of files
        self._heard = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-forward", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait until everything is there, or nothing answers."""
        self._heard = time.monotonic()
        self._stop.set()
        while self._thread.is_alive() and time.monotonic() - self._heard < PATIENCE_S:
            self._thread.join(1.0)

    def _work(self) -> None:
        self._try(self._forward)
        while not self._stop.wait(FORWARD_S):
            self._try(self._forward)
        for _ in range(LAST_TRIES):
            if self._try(self._finish):
                break

    def _try(self, step: Callable[[], None]) -> bool:
        """Whether `step` succeeded; one warning an outage."""
        try:
            step()
        except (*ERRORS, ValueError) as error:  # ValueError: a file that is damaged
            if not self.error:
                log.warning("%s: MLflow does not take it, will try again: %s", self._clip_id, one_line(error))
            self.error = one_line(error)
            return False
        self.error = ""
        return True

    def _call(self, method: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        self._heard = time.monotonic() + QUEUE_S
        with _turn(self._corpus.uri):
            self._heard = time.monotonic()
            answer = method(*arguments, **keywords)
        self._heard = time.monotonic()
        self.answered = True
        return answer

    # -- while the clip is trained

    def _forward(self) -> None:
        """Send what is new in the folder. Raises ERRORS; what was sent until then is not sent again."""
        if not self._run_id:
            (self._folder / "tracked.json").unlink(missing_ok=True)
            self._client = MlflowClient(self._corpus.uri)
            self._run_id = self._open_run()
            self._call(self._client.update_run, self._run_id, status="RUNNING")
        self._send_config()
        while data := self._new_lines():
            self._send_points(data)
        for scale, time_ms in list(self._pictures):
            path = self._folder / "samples" / f"scale_{scale:02d}.png"
            if path.exists():  # it is made soon after its point
                self._send_picture(path, scale, time_ms)
                self._pictures.remove((scale, time_ms))

    def _open_run(self) -> str:
        runs = self._runs()
        if runs:
            return runs[0]
        tags = {"clip_id": self._clip_id, "role": "clip", MLFLOW_RUN_NAME: self._clip_id}
        tags[MLFLOW_PARENT_RUN_ID] = self._corpus.run_id
        return self._call(self._client.create_run, self._corpus.experiment_id, tags=tags).info.run_id

    def _runs(self) -> list[str]:
        """The clip's runs; clip ids hold no quotes (pipeline/clips.py)."""
        query = f"tags.clip_id = '{self._clip_id}' and tags.`{MLFLOW_PARENT_RUN_ID}` = '{self._corpus.run_id}'"
        return self._call(_run_ids, self._client, self._corpus.experiment_id, query)

    def _send_config(self) -> None:
        """Settings as params, which MLflow never changes, so without those that may change in a run."""
        path = self._folder / "config.json"
        text = path.read_text() if path.exists() else ""
        if text == self._config:
            return
        about = json.loads(text)
        params = [Param(k, str(v)) for k, v in about["config"].items() if k not in RUN_SETTINGS]
        tags = [RunTag(name, about[name]) for name in ("source", "precision_used")]
        self._call(self._client.log_batch, self._run_id, params=params, tags=tags)
        self._call(self._client.log_artifact, self._run_id, str(path))
        self._config = text

    def _new_lines(self) -> bytes:
        """Whole lines of metrics.jsonl, at most CHUNK bytes; the last one may be being written."""
        try:
            with open(self._folder / "metrics.jsonl", "rb") as file:
                file.seek(self._offset)
                data = file.read(CHUNK)
        except FileNotFoundError:
            return b""
        return data[: data.rfind(b"\n") + 1]

    def _send_points(self, data: bytes) -> None:
        points, pictures = [], []
        for line in data.splitlines():
            point = json.loads(line)
            scale, time_ms = point["scale"], point["time_ms"]
            if point["iteration"] is None:  # of a finished scale: one curve over the scales
                prefix, step = "after_scale", scale
                pictures.append((scale, time_ms))
            else:
                prefix, step = f"scale_{scale:02d}", point["iteration"]
            points += [Metric(f"{prefix}/{name}", value, time_ms, step) for name, value in point["metrics"].items()]
        self._send_metrics(points)
        self._offset += len(data)
        self._time_ms = time_ms
        self._pictures += pictures

    def _send_metrics(self, points: list[Metric]) -> None:
        for start in range(0, len(points), BATCH):
            self._call(self._client.log_batch, self._run_id, metrics=points[start : start + BATCH])

    def _send_picture(self, path: Path, scale: int, time_ms: int) -> None:
        """What `MlflowClient.log_image` stores, but under names that are the same each time."""
        unique = uuid.uuid5(uuid.NAMESPACE_OID, f"{self._clip_id} {scale}")
        name = f"{PICTURES}+step+{scale}+timestamp+{time_ms}+{unique}"
        with tempfile.TemporaryDirectory() as folder:
            full, small = Path(folder) / f"{name}.png", Path(folder) / f"{name}+compressed.webp"
            shutil.copyfile(path, full)
            with Image.open(path) as picture:
                compress_image_size(picture).save(small)
            self._send_file(full, "images")
            self._send_file(small, "images")
        self._call(self._client.set_tag, self._run_id, MLFLOW_LOGGED_IMAGES, True)

    def _send_file(self, path: Path, folder: str | None = None) -> None:
        if path.name in self._sent or not path.exists():
            return
        try:
            self._call(self._client.log_artifact, self._run_id, str(path), folder)
        except OSError as error:  # a disk or server that fails names no file
            raise ConnectionError(f"{path}: MLflow's store did not take it ({one_line(error)})") from error
        self._sent.add(path.name)

    # -- when it has a result

    def _finish(self) -> None:
        """Send the rest; then end the run, and say so in the folder, last. Raises ERRORS."""
        self._forward()
        result = read_result(self._folder)
        if result is None:  # stopped: it goes on later
            return
        if result.status == "done":
            scores = json.loads((self._folder / "metrics.json").read_text())
            scores = {name: value for name, value in scores.items() if isinstance(value, float)}  # not the seed
            scores["train_minutes"] = result.minutes
            self._send_metrics([Metric(name, value, self._time_ms, 0) for name, value in scores.items()])
            for path in sorted((self._folder / "samples").iterdir()):
                if path.suffix in (".mp4", ".gif"):
                    self._send_file(path, "samples")
            for name in ("metrics.json", "warnings.txt", "checkpoint.pt"):
                self._send_file(self._folder / name)
            if "failure" in self._call(self._client.get_run, self._run_id).data.tags:  # of an earlier attempt
                self._call(self._client.delete_tag, self._run_id, "failure")
        else:
            self._send_file(self._folder / "warnings.txt")
            self._send_file(self._folder / "error.txt")
            self._call(self._client.set_tag, self._run_id, "failure", result.reason)
        self._call(self._client.set_terminated, self._run_id, "FINISHED" if result.status == "done" else "FAILED")
        for run_id in set(self._runs()) - {self._run_id}:  # made by a request that was lost on its way back
            self._call(self._client.delete_run, run_id)
        write_json(self._folder / "tracked.json", {"run_id": self._run_id, "corpus_run_id": self._corpus.run_id})


@contextlib.contextmanager
def _turn(uri: str) -> Iterator[None]:
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


def _run_ids(client: MlflowClient, experiment_id: str, query: str) -> list[str]:
    """The runs that match, oldest first."""
    runs = client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"], max_results=10)
    return [run.info.run_id for run in runs]

"""From a clip's folder to its run in MLflow, once, whatever happens to the server in between.

Training never waits for MLflow: it writes files, and a thread here brings the run to the state of the folder. What is
sent twice is stored once: a point keeps the time it was written at, and MLflow drops one that it has; a file keeps its
name. What a task could not send, the driver or jobs/upload.py sends later.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND, ErrorCode
from mlflow.tracking.multimedia import compress_image_size
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from PIL import Image

from infra import clip_folder
from infra.errors import one_line
from infra.files import write_json
from infra.store import Store
from infra.tracking.descriptions import NOTE, of_clip
from infra.tracking.inputs import HostMetrics, dataset_of
from infra.tracking.logged_model import log_checkpoint
from infra.tracking.parent import ParentRun
from infra.tracking.runs import ERRORS, STATUS, run_ids, sqlite_lock

FORWARD_S = 5.0  # seconds between two looks at a clip's folder
CHUNK = 1 << 20  # bytes of metrics.jsonl read at once
BATCH = 1000  # metrics in one log_batch: the server's limit
LAST_TRIES = 2  # of sending a finished clip; each lasts some seconds where the server is away
PATIENCE_S = 60.0  # without an answer, before a finished clip is left for later
QUEUE_S = 600.0  # more, while it waits for its turn
PICTURES = "real_reconstruction_samples"  # their name in MLflow's image grid
SCORE, TRAIN, AFTER_SCALE = "score", "train", "train/after_scale"  # what the names of metrics begin with
T = TypeVar("T")
log = logging.getLogger(__name__)


def runs_of(parent: ParentRun, store: Store, clip_ids: Iterable[str]) -> dict[str, str]:
    """clip_id → the id of the run that holds all of the clip's folder; without those not forwarded to `parent` yet."""
    names = {f"{clip_id}/{clip_folder.TRACKED}": clip_id for clip_id in clip_ids}
    runs = {}
    for name, content in store.read(names).items():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # one that is damaged is written again
            marker = json.loads(content)
            if marker["corpus_run_id"] == parent.run_id:
                runs[names[name]] = marker["run_id"]
    return runs


def run_of(parent: ParentRun, folder: Path) -> str | None:
    """The same of one clip's folder on this machine."""
    return runs_of(parent, Store(str(folder.parent)), [folder.name]).get(folder.name)


@contextlib.contextmanager
def forwarding(parent: ParentRun, clip_id: str, folder: Path, changing: Collection[str]) -> Iterator[Forwarder]:
    """While the body runs, forward what it writes into the clip's folder; afterwards, the rest and the result.

    The body never waits and is never disturbed: a server that is away is tried again. After the body this waits as
    long as the server answers; if it does not, it gives up in seconds. `runs_of` tells what came of it.

    Args:
        changing: settings that a resumed training may change: they are no params, as MLflow never changes a param.
    """
    forwarder = Forwarder(parent, clip_id, folder, changing)
    try:
        yield forwarder
    finally:
        forwarder.close()


class Forwarder:
    """Brings one clip's run to the state of its folder, from a thread of its own, which is the only one to run here."""

    answered = False  # whether the server or store ever did
    _measures = True  # the load of the host
    error = ""  # why it fails at the moment, one line

    def __init__(self, parent: ParentRun, clip_id: str, folder: Path, changing: Collection[str]) -> None:
        self._parent, self._clip_id, self._folder, self._changing = parent, clip_id, folder, changing
        self._run_id = ""
        self._config = ""  # the text of config.json that was sent
        self._about: dict[str, Any] = {}  # what it holds
        self._host: HostMetrics | None = None  # of the host where the clip is trained
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
            if self._try(self._forward) and self._measures:
                self._try(self._send_load)
        for _ in range(LAST_TRIES):
            if self._try(self._finish):
                break

    def _try(self, step: Callable[[], None]) -> bool:
        """Whether `step` succeeded; one warning an outage. This thread must live, whatever a file or a server holds."""
        try:
            step()
        except Exception as error:
            cause = one_line(error) if isinstance(error, ERRORS) else f"{type(error).__name__}: {one_line(error)}"
            if not self.error:
                log.warning("%s: MLflow does not take it, will try again: %s", self._clip_id, cause)
            self.error = cause
            return False
        self.error = ""
        return True

    def _call(self, method: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        self._heard = time.monotonic() + QUEUE_S
        with sqlite_lock(self._parent.uri):
            self._heard = time.monotonic()
            answer = method(*arguments, **keywords)
        self._heard = time.monotonic()
        self.answered = True
        return answer

    # -- while the clip is trained

    def _forward(self) -> None:
        """Send what is new in the folder. Raises ERRORS; what was sent until then is not sent again."""
        if not self._run_id:
            (self._folder / clip_folder.TRACKED).unlink(missing_ok=True)
            self._client = self._parent.client()
            self._run_id = self._open_run()
            self._call(self._client.update_run, self._run_id, status="RUNNING")
            self._call(self._client.set_tag, self._run_id, STATUS, "training")
        self._send_config()
        while data := self._new_lines():
            self._send_points(data)
        for scale, time_ms in list(self._pictures):
            path = self._folder / clip_folder.SAMPLES / f"scale_{scale:02d}.png"
            if path.exists():  # it is made soon after its point
                self._send_picture(path, scale, time_ms)
                self._pictures.remove((scale, time_ms))

    def _send_load(self) -> None:
        """Of the host on which the clip is trained. What cannot be measured costs these points alone."""
        try:
            self._host = self._host or HostMetrics()
            points = self._host.points()
        except Exception as error:  # of a driver's library, in words of its own
            log.warning("%s: the load of this host is not measured: %s", self._clip_id, one_line(error))
            self._measures = False
            return
        self._send_metrics(points)

    def _open_run(self) -> str:
        runs = self._runs()
        if runs:
            return runs[0]
        tags = {**self._parent.context, "clip_id": self._clip_id, "role": "clip", MLFLOW_RUN_NAME: self._clip_id}
        tags[MLFLOW_PARENT_RUN_ID] = self._parent.run_id
        return self._call(self._client.create_run, self._parent.experiment_id, tags=tags).info.run_id

    def _runs(self) -> list[str]:
        """The clip's runs; clip ids hold no quotes (pipeline/clips.py)."""
        query = f"tags.clip_id = '{self._clip_id}' and tags.`{MLFLOW_PARENT_RUN_ID}` = '{self._parent.run_id}'"
        return self._call(run_ids, self._client, self._parent.experiment_id, query)

    def _send_config(self) -> None:
        """Settings as params, what the clip is as tags, description and dataset."""
        path = self._folder / clip_folder.CONFIG
        text = path.read_text() if path.exists() else ""
        if text == self._config:
            return
        about = self._about = json.loads(text)
        params = [Param(k, str(v)) for k, v in about["config"].items() if k not in self._changing]
        named = {name: about[name] for name in ("source", "precision_used")} | about.get("tags", {})
        named |= {name: str(about["config"][name]) for name in ("method", "dims") if name in about["config"]}
        named |= {MLFLOW_RUN_NAME: about["title"]} if "title" in about else {}
        tags = [RunTag(name, value) for name, value in named.items()]
        self._call(self._client.log_batch, self._run_id, params=params, tags=tags)
        if "frames_sha256" in about:
            self._call(self._client.log_inputs, self._run_id, [dataset_of(about)])
        self._describe({})
        self._call(self._client.log_artifact, self._run_id, str(path))
        self._config = text

    def _new_lines(self) -> bytes:
        """Whole lines of metrics.jsonl, at most CHUNK bytes; the last one may be being written."""
        try:
            with open(self._folder / clip_folder.LOG, "rb") as file:
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
            values = dict(point["metrics"])
            if point["iteration"] is None:  # of a finished scale: one curve over the scales
                prefix, step = AFTER_SCALE, scale
                pictures.append((scale, time_ms))
            else:  # one curve over all iterations
                prefix, step = TRAIN, self._iterations_before(scale) + point["iteration"]
                values["scale"] = scale
            points += [Metric(f"{prefix}/{name}", value, time_ms, step) for name, value in values.items()]
        self._send_metrics(points)
        self._offset += len(data)
        self._time_ms = time_ms
        self._pictures += pictures

    def _iterations_before(self, scale: int) -> int:
        """Of the scales below it."""
        config = self._about.get("config", {})
        every = config.get("iters_per_scale", 0)
        return sum(every[:scale]) if isinstance(every, list) else scale * every

    def _describe(self, scores: Mapping[str, float]) -> None:
        if self._about.get("clip_size_thw"):
            sheet = self._folder / clip_folder.SAMPLES / clip_folder.SHEET
            text = of_clip(self._run_id, self._about, scores, has_sheet=bool(scores) and sheet.exists())
            self._call(self._client.set_tag, self._run_id, NOTE, text)

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

    def _send_checkpoint(self) -> None:
        """As a logged model; as a file of a clip from before config.json described its samples, and to a server of
        MLflow 2, which has no such models."""
        path = self._folder / clip_folder.CHECKPOINT
        if self._about.get("sizes_thw") and path.exists():
            try:
                return self._call(log_checkpoint, self._client, self._run_id, path, self._about)
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(ENDPOINT_NOT_FOUND):
                    raise
        self._send_file(path)

    # -- when it has a result

    def _finish(self) -> None:
        """Send the rest; then end the run, and say so in the folder, last. Raises ERRORS."""
        self._forward()
        try:
            result = json.loads((self._folder / clip_folder.RESULT).read_text())
            status, reason = result["status"], result.get("reason", "")
        except FileNotFoundError:  # stopped: it goes on later
            return
        if status == "done":
            scores = json.loads((self._folder / clip_folder.METRICS).read_text())
            # Scored again, with more samples, they are later: of one time MLflow would show the larger value.
            when = scores.get("time_ms", self._time_ms)
            scores = {name: value for name, value in scores.items() if isinstance(value, float)}  # not the seed
            points = [Metric(f"{SCORE}/{name}", value, when, 0) for name, value in scores.items()]
            points.append(Metric(f"{TRAIN}/minutes", result.get("minutes", 0.0), when, 0))
            self._send_metrics(points)
            for path in sorted((self._folder / clip_folder.SAMPLES).iterdir()):
                if path.suffix in (".mp4", ".gif", ".png") and not path.name.startswith("scale_"):
                    self._send_file(path, "samples")
            for name in (clip_folder.METRICS, clip_folder.WARNINGS):
                self._send_file(self._folder / name)
            self._send_checkpoint()
            self._describe(scores)
        else:
            self._send_file(self._folder / clip_folder.WARNINGS)
            self._send_file(self._folder / clip_folder.ERROR)
        tag = {"done": "", "stopped": "stopped"}.get(status, "failure")
        if tag:
            self._call(self._client.set_tag, self._run_id, tag, reason)
        for earlier in {"stopped", "failure"} & set(self._call(self._client.get_run, self._run_id).data.tags) - {tag}:
            self._call(self._client.delete_tag, self._run_id, earlier)
        self._call(self._client.set_tag, self._run_id, STATUS, status)
        end = {"done": "FINISHED", "stopped": "KILLED"}.get(status, "FAILED")
        self._call(self._client.set_terminated, self._run_id, end)
        for run_id in set(self._runs()) - {self._run_id}:  # made by a request that was lost on its way back
            self._call(self._client.delete_run, run_id)
        write_json(self._folder / clip_folder.TRACKED, {"run_id": self._run_id, "corpus_run_id": self._parent.run_id})

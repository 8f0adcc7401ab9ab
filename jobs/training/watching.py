"""The board of an experiment from the files of its store alone, on whatever machine."""

from __future__ import annotations

import json
from collections.abc import Sequence

from infra import clip_folder
from infra.errors import UsageError
from infra.lease import drivers
from jobs.experiment.experiment import Experiment, clip_folders
from jobs.training.board import Board, ClipProgress, Work
from model.config import TrainConfig
from model.pyramid import ScaleSize


class Watch:
    """An experiment, or a sweep, whose files are read again at every `look`.

    Raises UsageError for a folder that is neither.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._done: dict[str, float] = {}  # clip id → minutes
        self._work: dict[str, Work] = {}
        self._clip_ids()

    def look(self) -> Board:
        """How far it is now. Raises StorageError, UsageError."""
        clip_ids, failures = self._clip_ids()
        begun = clip_folders(self._experiment.names(), clip_ids)  # one listing, whatever the number of clips
        open_ = [clip_id for clip_id in clip_ids if clip_id in begun and clip_id not in self._done]
        results = self._experiment.results(open_)
        self._done |= {clip_id: result.minutes for clip_id, result in results.items() if result.status == "done"}
        ended = [result.status for result in results.values() if result.status != "done"]
        store = self._experiment.store
        logs = {f"{clip_id}/{clip_folder.LOG}": clip_id for clip_id in open_ if clip_id not in results}
        points = {logs[name]: content for name, content in store.read(logs).items()}
        clips = {clip_id: self._progress(clip_id, points.get(clip_id, b"")) for clip_id in logs.values()}
        seconds = 60 * sum(self._done.values()) / len(self._done) if self._done else None
        done, failed = len(self._done) + ended.count("stopped"), ended.count("failed") + failures
        total = len(clip_ids) + failures
        left = "ended" if done + failed == total else "no driver; the same command goes on"
        machine = ", ".join(drivers(store)) or left
        return Board(total, done, failed, clips, clip_s=seconds, machine=machine)

    @property
    def is_running(self) -> bool:
        """Whether a driver gave a sign of life lately."""
        return bool(drivers(self._experiment.store))

    def _clip_ids(self) -> tuple[Sequence[str], int]:
        """Clips of the last submission, or trials that have begun; and how many files are no clips."""
        if self._experiment.has_submission():
            submission = self._experiment.submission()
            return submission.clip_ids, len(submission.failures)
        if self._experiment.sweep() is None:
            mend = "give the --storage and the name of an experiment that a job has begun"
            raise UsageError(f"{self._experiment.uri}: holds no experiment; {mend}")
        return list(self._experiment.trials()), 0

    def _progress(self, clip_id: str, log: bytes) -> ClipProgress | None:
        """Of a clip without a result, by its last whole line that is of an iteration; None without one.

        Raises UsageError for a damaged file.
        """
        work = self._work.get(clip_id) or self._read_work(clip_id)
        try:
            for line in reversed(log[: log.rfind(b"\n") + 1].splitlines()):
                point = json.loads(line)
                if point["iteration"] is not None and work:
                    self._work[clip_id] = work
                    return work.progress(point["scale"], point["iteration"], point["metrics"])
        except (ValueError, LookupError, TypeError) as error:
            raise self._damaged(f"{clip_id}/{clip_folder.LOG}") from error
        return None

    def _read_work(self, clip_id: str) -> Work | None:
        name = f"{clip_id}/{clip_folder.CONFIG}"
        content = self._experiment.store.read([name]).get(name)
        if content is None:
            return None
        try:
            about = json.loads(content)
            return Work(TrainConfig.from_dict(about["config"]), [ScaleSize(*size) for size in about["sizes_thw"]])
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(name) from error

    def _damaged(self, name: str) -> UsageError:
        return UsageError(f"{self._experiment.uri}/{name}: cannot be read; delete the clip's folder")

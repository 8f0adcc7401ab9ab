"""An experiment: one folder of the storage, and all that is known of its layout.

experiment = Experiment.open(None, "demo")          # runs/demo
experiment.results(["bikes-1b0f76-000000"])         # by clip id, of those that have one

runs/
  mlflow.db, mlartifacts/        MLflow, where no server is named
  demo/                          an experiment of train_corpus.py
    experiment.json              the settings of its models
    submission.json              what the last submission of it found
    results.csv                  a line a clip
    .shards/, .fetched/          the clips' frames; local copies of a remote corpus
    bikes-1b0f76-000000/         a clip (infra/clip_folder.py)
    evaluation/                  what evaluate.py writes
  demo-vae_levels/               one of tune.py: sweep.json in place of the first two, and a folder a trial
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from infra import clip_folder
from infra.errors import UsageError, one_line
from infra.lease import Lease
from infra.store import Store, files_below
from jobs.experiment.names import check_name
from jobs.experiment.result import Result
from jobs.experiment.settings import ModelSettings
from model.config import TrainConfig

SETTINGS, SUBMISSION, SWEEP = "experiment.json", "submission.json", "sweep.json"
SHARDS, FETCHED = ".shards", ".fetched"
EVALUATION = "evaluation"
KINDS = {3: "videos", 2: "images"}  # of clips, by the dims of their models
Values = Mapping[str, str]  # of a trial: setting → value
Trials = Mapping[str, tuple[str, Values]]  # name of a trial → its clip and values


@dataclass(frozen=True)
class Submission:
    """What the last submission of an experiment found; `submission.json` holds these fields."""

    corpus: str  # without a password, if its URI has one
    preset: str
    clip_ids: Sequence[str]
    failures: Sequence[tuple[str, str]]  # (source, one line): what is no clip, and why
    command: str = ""  # the command line, without passwords; "" of one from before it was kept


@dataclass(frozen=True)
class Experiment:
    """One folder of the storage. Travels to tasks. Every method that reads or writes may raise StorageError."""

    store: Store

    @classmethod
    def open(cls, storage: str | None, name: str) -> Experiment:
        """Of --storage (None: the default) and --experiment.

        Raises UsageError for a storage that cannot be used, and for a name that is none of a folder.
        """
        store = Store.open(storage, "--storage")
        check_name("--experiment", name)
        return cls(store.below(name))

    @classmethod
    def given(cls, given: str, storage: str | None) -> Experiment:
        """What an argument names: a folder or URI; a name below the storage, if that is given or there is no such
        folder.

        Raises UsageError for one that cannot be used. Whether it holds an experiment is not asked.
        """
        is_name = "://" not in given and os.sep not in given.rstrip(os.sep)
        if is_name and (storage is not None or not os.path.isdir(given)):
            return cls.open(storage, given)
        return cls(Store.open(given, "EXPERIMENT"))

    @property
    def name(self) -> str:
        """Of the folder, and of the experiment in MLflow."""
        return self.store.name

    @property
    def uri(self) -> str:
        """An absolute path, or scheme://…"""
        return self.store.uri

    @property
    def storage(self) -> Store:
        """The folder of all experiments."""
        return self.store.parent

    def driver(self, notify: Callable[[str], None]) -> Lease:
        """The right to train this experiment, as a context: one driver at a time. notify: called with a line."""
        return Lease(self.store, notify)

    def check_writable(self) -> None:
        """Raises UsageError if nothing can be written there. Leaves nothing behind."""
        self.store.check_writable()

    def names(self) -> set[str]:
        """What lies directly in the folder: one listing, whatever the number of clips."""
        return self.store.names()

    def remove(self, name: str) -> None:
        """A file, or a folder and all that is in it."""
        self.store.remove(name)

    def write(self, name: str, content: bytes) -> None:
        """A file directly in the folder, atomic."""
        self.store.write(name, content)

    # -- what defines it

    def settings(self) -> ModelSettings | None:
        """Those of its models; None if it has none yet. Raises UsageError if they cannot be read."""
        found = self.store.read([SETTINGS]).get(SETTINGS)
        try:
            return ModelSettings.from_dict(json.loads(found)) if found else None
        except (ValueError, TypeError, AttributeError) as error:  # ConfigError is a ValueError
            mend = "delete it, or use --experiment NAME"
            raise UsageError(f"{self.uri}/{SETTINGS}: cannot be read ({one_line(error)}); {mend}") from error

    def check_definition(self, settings: ModelSettings, kept: Collection[str], discarded: Collection[str]) -> None:
        """Raises UsageError if it keeps models of another definition: two never share a name.

        Args:
            kept: clips that have a folder; discarded: those whose folder is about to go.
        """
        found = self.settings()
        if found is None:
            return
        changes = found.changes(settings)
        kinds = self._kinds(kept) if changes else set()
        lines = [f"{KINDS[dims]}: {', '.join(changed)}" for dims, changed in changes.items() if dims in kinds]
        if lines:
            mend = (
                f"use --experiment NAME, or delete {min(kept)} …" if discarded else "use --experiment NAME or --fresh"
            )
            raise UsageError(f"{self.uri}: holds models with other settings ({'; '.join(lines)}); {mend}")

    def _kinds(self, clip_ids: Iterable[str]) -> set[int]:
        """The dims of the models that clips have; all there are, for a clip whose config.json is damaged."""
        found = set()
        for content in self.store.read([f"{clip_id}/{clip_folder.CONFIG}" for clip_id in clip_ids]).values():
            try:
                found.add(json.loads(content)["config"]["dims"])
            except (ValueError, KeyError, TypeError):
                return set(KINDS)
        return found

    def submission(self) -> Submission:
        """Raises UsageError for a folder that is no experiment of train_corpus.py, and for a damaged file."""
        content = self.store.read([SUBMISSION]).get(SUBMISSION)
        if content is None:
            mend = "give the --storage and --experiment of train_corpus.py"
            raise UsageError(f"{self.uri}: holds no experiment of train_corpus.py; {mend}")
        try:
            return Submission(**json.loads(content))
        except (ValueError, TypeError) as error:
            mend = "run its train_corpus.py again, which writes it"
            raise UsageError(f"{self.uri}/{SUBMISSION}: cannot be read ({one_line(error)}); {mend}") from error

    def has_submission(self) -> bool:
        """Whether train_corpus.py has made it."""
        return bool(self.store.read([SUBMISSION]))

    def begin(self, settings: ModelSettings, submission: Submission) -> None:
        """Keep what is trained, and of what. Settings of a kind of clips that is not trained now stay."""
        before = self.settings()
        if before and settings.other is None:
            of_before = (config for config in before.kinds if config.dims != settings.main.dims)
            settings = replace(settings, other=next(of_before, None))
        self.store.write_json(SETTINGS, settings.to_dict())
        self.store.write_json(SUBMISSION, asdict(submission))

    def sweep(self) -> Mapping[str, Any] | None:
        """What defines its sweep: config, sweep, n, features, corpus, clips. None where there is none.

        Raises UsageError for a damaged file.
        """
        found = self.store.read([SWEEP]).get(SWEEP)
        try:
            read = json.loads(found) if found else None
            if read is not None and not {"config", "sweep", "n", "corpus", "clips"} <= read.keys():
                raise ValueError("of an earlier version, or damaged")
            if read is not None:
                TrainConfig.from_dict(read["config"])
                read = {"features": "lite0", **read}  # sweeps from before it was kept
        except (ValueError, TypeError, AttributeError) as error:  # ConfigError is a ValueError
            mend = "begin another sweep"
            raise UsageError(f"{self.uri}/{SWEEP}: cannot be read ({one_line(error)}); {mend}") from error
        return read

    def begin_sweep(self, definition: Mapping[str, Any]) -> None:
        """Keep what defines a sweep."""
        self.store.write_json(SWEEP, definition)

    # -- its clips, or trials

    def results(self, clip_ids: Iterable[str]) -> dict[str, Result]:
        """The results that clips have, by clip id; read in bulk.

        Raises UsageError for a file that this program did not write.
        """
        names = {f"{clip_id}/{clip_folder.RESULT}": clip_id for clip_id in clip_ids}
        results = {}
        for name, content in self.store.read(names).items():
            try:
                results[names[name]] = Result.from_json(content)
            except (ValueError, TypeError, AttributeError) as error:
                mend = "delete it, and the clip goes on from its checkpoint"
                raise UsageError(f"{self.uri}/{name}: cannot be read ({one_line(error)}); {mend}") from error
        return results

    def trials(self) -> Trials:
        """The trials that have a folder, in the order of their names. Raises UsageError for a damaged config.json."""
        names = {f"{folder}/{clip_folder.CONFIG}": folder for folder in sorted(clip_folders(self.names()))}
        found = {}
        for name, content in sorted(self.store.read(names).items()):
            try:
                values = dict(json.loads(content)["tags"])
                found[names[name]] = values.pop("clip"), values
            except (ValueError, KeyError, TypeError) as error:
                mend = "delete its folder, and its trial starts again"
                raise UsageError(f"{self.uri}/{name}: cannot be read ({one_line(error)}); {mend}") from error
        return found

    def checkpoint(self, clip_id: str) -> str:
        """Path or URI of a clip's checkpoint."""
        return f"{self.store.location}/{clip_id}/{clip_folder.CHECKPOINT}"

    # -- its frames

    @property
    def shards(self) -> Path:
        """The folder of its own shards on this machine."""
        return self.store.path / SHARDS

    @property
    def fetched(self) -> Path:
        """The folder of local copies of a remote corpus."""
        return self.store.path / FETCHED

    def pull_shards(self) -> None:
        """Bring its shards from an object store to this machine."""
        self.store.pull(SHARDS)

    def push_shards(self, shards: Iterable[Path] | None = None) -> None:
        """Bring its shards on this machine to an object store, each before its sidecar.

        Args: shards: their tars; None: all that are here.
        """
        if not self.store.is_local:
            tars = None if shards is None else [name for tar in shards for name in (tar.name, f"{tar.stem}.json")]
            names = files_below(self.shards) if tars is None else tars
            self.store.push(SHARDS, sorted(names, key=lambda name: not name.endswith(".tar")))


def clip_folders(names: Collection[str], clip_ids: Collection[str] = ()) -> set[str]:
    """Which of the names in an experiment's folder are those of clips or trials.

    Every name of the experiment's own has a dot, but for EVALUATION, which may be a clip of that id.
    """
    return {name for name in names if "." not in name} - ({EVALUATION} - set(clip_ids))

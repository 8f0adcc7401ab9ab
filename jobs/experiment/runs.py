"""An experiment in MLflow: its parent run, and what its folders hold and MLflow does not have yet."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from infra.clip_folder import ClipFolder
from infra.errors import StorageError, UsageError, one_line, printable
from infra.tracking import forward, runs, uri
from infra.tracking.parent import ParentRun
from jobs.experiment.experiment import Experiment, Submission
from jobs.experiment.gallery import GALLERY, MEDIA
from jobs.experiment.overview import CORPUS_PICTURE, corpus_picture
from jobs.experiment.summary import Summary
from jobs.invocation import start_of
from model.config import RUN_SETTINGS, TrainConfig

NO_ANSWER = "it does not answer"
TOTALS = "the totals"
SHOWN_FAILURES = 200  # files that are no clips and have a run each
BULK = 1000  # clips whose markers are read at once


def tracking_uri(experiment: Experiment, given: str | None) -> str:
    """given: --tracking-uri; else the environment's, else the sqlite file in the storage folder. Raises UsageError."""
    return uri.tracking_uri(given, experiment.storage.tracking_folder)


def open_parent_run(
    experiment: Experiment,
    given: str | None,
    tags: Mapping[str, str],
    config: TrainConfig | None = None,
    *,
    anew: bool = False,
) -> ParentRun:
    """The experiment's run in MLflow, made if it is not there, or anew. given: --tracking-uri. Raises UsageError."""
    folder = experiment.storage.tracking_folder
    shown = {name: printable(value) for name, value in tags.items()}
    try:
        params = config.definition() if config else None
        return runs.open_parent(tracking_uri(experiment, given), experiment.name, folder, shown, params, anew=anew)
    except ConnectionError as error:
        raise UsageError(str(error)) from error


def check_tracking(experiment: Experiment, given: str | None) -> None:
    """Raises UsageError if MLflow cannot be used. Makes nothing. given: --tracking-uri."""
    address = tracking_uri(experiment, given)
    try:
        find_parent_run(experiment, address)
    except runs.ERRORS as error:
        raise UsageError(str(runs.tracking_error(address, error))) from error


def find_parent_run(experiment: Experiment, address: str) -> ParentRun | None:
    """The experiment's run, None if there is none. address: what `tracking_uri` returned. Raises runs.ERRORS."""
    return runs.find_parent(address, experiment.name, experiment.storage.tracking_folder)


def forward_missing(
    parent: ParentRun, experiment: Experiment, clip_ids: Sequence[str], *, again: bool = False
) -> dict[str, str]:
    """Send the clips that have a result and are not in MLflow, or all again. Returns clip_id → why of those missing."""
    missing: dict[str, str] = {}
    away = False
    for start in range(0, len(clip_ids), BULK):
        some = clip_ids[start : start + BULK]
        there = set() if again else set(forward.runs_of(parent, experiment.store, some))
        for clip_id in experiment.results(clip_id for clip_id in some if clip_id not in there):
            if away:
                missing[clip_id] = NO_ANSWER
                continue
            try:
                with ClipFolder(experiment.store, clip_id) as folder:
                    with forward.forwarding(parent, clip_id, folder.path, RUN_SETTINGS) as forwarder:
                        pass
                    sent = forward.run_of(parent, folder.path)
            except StorageError as error:  # of this clip's folder
                missing[clip_id] = one_line(error)
                continue
            if sent is None:
                missing[clip_id] = forwarder.error or NO_ANSWER
                away = not forwarder.answered
    return missing


def run_ids(parent: ParentRun, experiment: Experiment) -> Callable[[Sequence[str]], Mapping[str, str]]:
    """A function: clip ids → their runs; a clip that is not in MLflow has none."""
    return lambda clip_ids: forward.runs_of(parent, experiment.store, clip_ids)


@contextlib.contextmanager
def killed_if_stopped(parent: ParentRun) -> Iterator[None]:
    """Where the body ends by Ctrl-C or SIGTERM, the runs that have not ended are KILLED, and not RUNNING for ever."""
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(*runs.ERRORS):
            runs.kill_unfinished(parent)
        raise


def close(
    parent: ParentRun, experiment: Experiment, submission: Submission, summary: Summary, missing: Mapping[str, str]
) -> dict[str, str]:
    """Send totals, table, picture, gallery and descriptions, and a run for each file that is no clip.

    Returns "the totals" → why if MLflow did not take them.
    """
    if NO_ANSWER in missing.values():
        return {TOTALS: NO_ANSWER}
    about = {
        "corpus": printable(submission.corpus),
        "preset": submission.preset,
        "clips": f"{summary.done} done, {summary.failed} failed",
        "command": submission.command,
    }
    try:
        picture = corpus_picture(experiment, summary.done_clips, summary.done)
        with tempfile.TemporaryDirectory() as folder:
            files = {CORPUS_PICTURE: picture} if picture else {}
            if MEDIA not in experiment.names():  # without that folder beside it the page would show nothing
                files |= experiment.store.read([GALLERY])
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            runs.log_failed_files(parent, submission.failures[:SHOWN_FAILURES])
            runs.close_parent(
                parent,
                failed=not summary.done,
                metrics=summary.metrics(),
                table=summary.page(parent.link),
                files=[Path(folder) / name for name in files],
                about=about,
            )
    except runs.ERRORS as error:
        return {TOTALS: one_line(error)}
    return {}


def upload_command(experiment: Experiment, parent: ParentRun) -> str:
    """The command line that sends what MLflow did not take, for a shell; *** stands for a password."""
    options = ["--storage", experiment.storage.uri, "--experiment", experiment.name]
    options += ["--tracking-uri", parent.shown_uri]
    return shlex.join([*start_of("upload"), *options])

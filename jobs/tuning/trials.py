"""The trials of a sweep in Ray Tune: one clip with one combination of values each, by the fit that a corpus clip gets.

A trial's folder is a clip's: its checkpoint, log and result say how far it is. What Tune keeps of its own accord, by
pickles, is never read. To go on, the same sweep runs again, and each trial first reports to Tune what its folder holds.
So ASHA and Optuna see everything that was done before, and nothing that is done is done twice.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray import tune

from infra import clip_folder
from infra.errors import StorageError, UsageError, counted, one_line
from infra.ray_cluster import Slots
from jobs.experiment.corpus import Clip
from jobs.experiment.experiment import Trials, Values
from jobs.experiment.result import Result, columns, is_diversity
from jobs.training.task import ClipTask, fit_in_folder
from jobs.tuning.axes import configured, trial_name
from jobs.tuning.request import MODES, Sweep
from jobs.tuning.search import AGAIN, FINAL, FINISHED, NAMED, SCALES, TRIAL, AshaPerClip, OptunaSearch
from jobs.tuning.summary import objective
from pipeline import shards

MAX_RESTARTS = 2  # of a trial whose process or node died; it goes on from its checkpoint
REUSE_ACTORS = False  # a process a trial, so that one trial's memory or crash is never another's
STATE = ".tune"  # Tune's folder in the experiment's
Frames = Mapping[str, tuple[Clip, Any]]  # clip id → the clip, and its chunks in Ray's object store


def put_frames(clips: Sequence[Clip]) -> Frames:
    """The frames of all clips, read once. Raises UsageError for a damaged shard."""
    frames = {}
    for clip in clips:
        try:
            chunks = [ray.put(shards.read_clip(entry).frames_thwc) for entry in clip.chunks]
        except shards.ShardError as error:
            raise UsageError(one_line(error)) from error
        frames[clip.clip_id] = clip, chunks
    return frames


def fit_trial(config: Mapping[str, Any], sweep: Sweep, frames: Frames) -> None:
    """The body of a trial. It reports to Tune the scores after each scale, then the final ones if it does not fail."""
    clip, values = config[TRIAL]
    name, reported, scales = trial_name(clip, values), -1, 0
    request, experiment = sweep.request, sweep.request.experiment
    result = experiment.results([name]).get(name)
    again = {AGAIN: result is not None and result.status == "done"}

    def report(scale: int, scores: Mapping[str, float]) -> None:
        nonlocal reported, scales
        if scale > reported:
            reported, scales = scale, scales + 1
            tune.report({**_figures(scores), **again, SCALES: scales, FINAL: math.nan, FINISHED: False})

    log = f"{name}/{clip_folder.LOG}"
    for line in experiment.store.read([log]).get(log, b"").split(b"\n")[:-1]:
        point = json.loads(line)
        if point["iteration"] is None:
            report(point["scale"], point["metrics"])
    if result is None:
        found, references = frames[clip]
        task = ClipTask(
            name,
            found.source,
            found.settings(configured(request.config, values)),
            experiment,
            sweep.parent,
            request.num_samples,
            tags={"clip": clip, **values},
            features=request.features,
        )
        chunks = ray.get(references)
        result = fit_in_folder(task, chunks, scored=report)
        while next_task := task.next_attempt(result):
            task = next_task
            result = fit_in_folder(task, chunks, scored=report)
    if result.status == "done":
        final = objective(result, request.metric)
        tune.report({**_figures(result.to_dict()), **again, SCALES: scales + 1, FINAL: final, FINISHED: True})
    elif not experiment.results([name]):  # the store did not take it: Tune tries again
        raise RuntimeError(result.reason)


def _figures(scores: Mapping[str, Any]) -> dict[str, Any]:
    """What Tune compares, by the names of MODES; and by those that say how many samples a figure is of."""
    named = {name: scores[name] for name in columns(MODES, [scores])}
    return {**{"diversity" if is_diversity(name) else name: value for name, value in named.items()}, NAMED: named}


class TrialReporter(tune.Callback):
    """Says how trials come along; writes the result of one that could not: its process died, or ASHA stopped it."""

    def __init__(self, sweep: Sweep, say: Callable[[str], None], total: int) -> None:
        """total: how many trials there are."""
        self._experiment, self._say = sweep.request.experiment, say
        self._ended, self._total = 0, total

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks, to go on with them in a way that is never taken here; a console has locks."""
        return {}

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """A trial has reported."""
        place = f"done  {self._count()}" if result[FINISHED] else f"after {counted(result[SCALES], 'scale')}"
        figures = "  ".join(f"{figure} {value:.4g}" for figure, value in result[NAMED].items())
        self._say(f"{_name(trial)}  {place}  {figures}")

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial has ended, or ASHA has stopped it."""
        if not trial.last_result.get(FINISHED):
            scales = trial.last_result.get(SCALES, 0)
            self._end(Result(_name(trial), "stopped", f"by ASHA after {counted(scales, 'scale')}"))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial's process has ended MAX_RESTARTS + 1 times."""
        self._end(
            Result(_name(trial), "failed", f"its process ended {counted(trial.num_failures, 'time')} without a result")
        )

    def _end(self, result: Result) -> None:
        """Written unless the trial wrote one itself."""
        name = result.clip_id
        try:
            if written := self._experiment.results([name]).get(name):
                result = written
            else:
                self._experiment.store.write_json(f"{name}/{clip_folder.RESULT}", result.to_dict())
        except (StorageError, UsageError) as error:
            self._say(one_line(error))
        self._say(f"{name}  {result.status}  {self._count()}: {result.reason}")

    def _count(self) -> str:
        """(k/N), with one more that has ended."""
        self._ended += 1
        return f"({self._ended}/{self._total})"


def _name(trial: Any) -> str:
    """Of one of Tune's trials."""
    return trial_name(*trial.config[TRIAL])


def run(sweep: Sweep, frames: Frames, slots: Slots, earlier: Sequence[Values], say: Callable[[str], None]) -> Trials:
    """Run trials to their end, each of which leaves its result. Ray must have been started.

    Args:
        earlier: the combinations that Optuna drew before.
        say: is called with a line for each step of a trial.

    Returns those that Optuna drew.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial that fails has a line of ours
    space: dict[str, Any] = {TRIAL: tune.grid_search(list(sweep.listed.values()))}
    settings: dict[str, Any] = {"scheduler": AshaPerClip(sweep) if sweep.request.asha else None}
    settings["reuse_actors"] = REUSE_ACTORS
    drawn: Trials = {}
    total = len(sweep.listed)
    if draws := sweep.request.draws:
        search = OptunaSearch(sweep, list(frames), earlier)
        space, drawn = {}, search.drawn
        total = max(draws, len(earlier)) * len(frames)
        settings |= {"search_alg": search, "num_samples": total}
    options = {"cpu": slots.options["num_cpus"], "gpu": slots.options.get("num_gpus", 0)}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(fit_trial, sweep=sweep, frames=frames), options),
        param_space=space,
        tune_config=tune.TuneConfig(**settings),
        run_config=tune.RunConfig(
            name=STATE,
            storage_path=sweep.request.experiment.store.location,
            verbose=0,
            callbacks=[TrialReporter(sweep, say, total)],
            failure_config=tune.FailureConfig(max_failures=MAX_RESTARTS),
        ),
    )
    tuner.fit()
    return drawn

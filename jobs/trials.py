"""The trials of a sweep in Ray Tune: one clip with one combination of values each, by the fit that a corpus clip gets.

A trial's folder is a clip's: its checkpoint, log and result say how far it is. What Tune keeps of its own accord, by
pickles, is never read: to go on, the same sweep runs again, and a trial tells Tune what its folder holds before it does
the rest. So the scheduler and Optuna see what they saw before, and nothing that is done is done twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# Read when ray.tune is imported: our files are the log, our lines the display, Ctrl-C is the driver's.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import Repeater
from ray.tune.search.repeater import TRIAL_INDEX

from jobs import schedule
from jobs.corpus import UsageError, Work, one_line
from jobs.results import OutOfMemory, Result, read_results
from jobs.storage import Store
from jobs.sweep import MODES, Axis, Trials, Values, configured, objective, trial_name
from jobs.tracking import Corpus
from model.config import TrainConfig
from pipeline import shards

MAX_RESTARTS = 2  # of a trial whose process or node died; it goes on from its checkpoint
REDUCTION = 2  # ASHA stops what is worse than the better half of those that came as far, at scales 1, 2, 4, …
TRIAL = "trial"  # in a trial's config: its clip and values; one that Optuna made has its values there, and TRIAL_INDEX
SCALES, FINAL, FINISHED = "scales_done", "final", "finished"  # of what a trial tells, beside its figures
STATE = ".tune"  # Tune's folder in the experiment's


@dataclass(frozen=True)
class Plan:
    """What all trials share."""

    config: TrainConfig
    axes: tuple[Axis, ...]
    store: Store  # of the experiment
    corpus: Corpus
    num_samples: int
    metric: str
    clips: Mapping[str, tuple[str, Any]]  # clip id → its source, and its chunks in Ray's object store

    def trial_of(self, config: Mapping[str, Any]) -> tuple[str, str, Values]:
        """A trial's name, clip and values, from the config that Tune gave it."""
        if TRIAL in config:
            clip, values = config[TRIAL]
        else:
            clip = list(self.clips)[config[TRIAL_INDEX]]
            values = {axis.key: _drawn(config[axis.key]) for axis in self.axes}
        return trial_name(clip, values), clip, values


def _drawn(value: Any) -> str:
    """Of a number that Optuna drew, six digits: a name must say it."""
    return format(value, ".6g") if isinstance(value, float) else str(value)


def put(works: Sequence[Work]) -> dict[str, tuple[str, Any]]:
    """The clips of a Plan. Raises UsageError for a damaged shard."""
    clips = {}
    for work in works:
        try:
            clips[work.clip_id] = work.source, [ray.put(shards.read_clip(e).frames_thwc) for e in work.entries]
        except shards.ShardError as error:
            raise UsageError(one_line(error)) from error
    return clips


def fit_trial(config: Mapping[str, Any], plan: Plan) -> None:
    """The body of a trial. It tells Tune the scores after each scale, then the final ones; raises if it fails."""
    name, clip, values = plan.trial_of(config)
    told = -1

    def tell(scale: int, scores: Mapping[str, float]) -> None:
        nonlocal told
        if scale > told:
            told = scale
            figures = {figure: scores[figure] for figure in MODES}
            tune.report({**figures, SCALES: scale + 1, FINAL: float("nan"), FINISHED: False})

    for line in plan.store.read([f"{name}/metrics.jsonl"]).get(f"{name}/metrics.jsonl", b"").split(b"\n")[:-1]:
        point = json.loads(line)
        if point["iteration"] is None:
            tell(point["scale"], point["metrics"])
    result = read_results(plan.store, [name]).get(name)
    if result is None:
        source, chunks = plan.clips[clip]
        job = schedule.Job(
            name, source, configured(plan.config, values), plan.store, plan.corpus, plan.num_samples,
            tags={"clip": clip, **values},
        )  # fmt: skip
        result = schedule.fit_job(job, ray.get(chunks), scored=tell)
        while isinstance(result, OutOfMemory) and (leaner := job.leaner(result)):
            job = leaner
            result = schedule.fit_job(job, ray.get(chunks), scored=tell)
    if result.status == "done":
        figures = {figure: getattr(result, figure) for figure in MODES}
        tune.report({**figures, SCALES: told + 2, FINAL: objective(result, plan.metric), FINISHED: True})
    elif result.status != "stopped":
        raise RuntimeError(result.reason)


class Told(tune.Callback):
    """Prints how trials come along; writes the result of one that could not: its process died, or ASHA stopped it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        name, _, _ = self._plan.trial_of(trial.config)
        place = "done" if result[FINISHED] else f"after {result[SCALES]} scales"
        print(f"{name}  {place}  " + "  ".join(f"{figure} {result[figure]:.4g}" for figure in MODES), flush=True)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        if not trial.last_result.get(FINISHED):
            name, _, _ = self._plan.trial_of(trial.config)
            scales = trial.last_result.get(SCALES, 0)
            self._write(Result(name, "stopped", f"by ASHA after {scales} scales"))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        name, _, _ = self._plan.trial_of(trial.config)
        self._write(Result(name, "failed", f"its process ended {trial.num_failures} times without a result"))

    def _write(self, result: Result) -> None:
        """Unless the trial wrote one itself."""
        if result.clip_id not in read_results(self._plan.store, [result.clip_id]):
            self._plan.store.write_json(f"{result.clip_id}/result.json", asdict(result))
            print(f"{result.clip_id}  {result.status}: {result.reason}", flush=True)


class AshaPerClip(FIFOScheduler):
    """An ASHA for each clip: scores compare within a clip only."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan
        self._schedulers: dict[str, ASHAScheduler] = {}

    def _of(self, trial: Any) -> ASHAScheduler:
        _, clip, _ = self._plan.trial_of(trial.config)
        if clip not in self._schedulers:
            metric, scales = self._plan.metric, self._plan.config.num_scales
            self._schedulers[clip] = ASHAScheduler(
                # not after the last scale, when everything but the final scores is done
                time_attr=SCALES, max_t=max(1, scales - 1), stop_last_trials=False,
                metric=metric, mode=MODES[metric], grace_period=1, reduction_factor=REDUCTION,
            )  # fmt: skip
        return self._schedulers[clip]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        return self._of(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_remove(tune_controller, trial)


def run(plan: Plan, listed: Trials, draws: int, earlier: Sequence[Values], slots: schedule.Slots, asha: bool) -> int:
    """Run trials to their end. Returns how many failed. Ray must have been started.

    Args:
        listed: the trials; none where Optuna draws.
        draws: combinations that Optuna draws, 0 for none.
        earlier: those it drew before.
    """
    space: dict[str, Any] = {TRIAL: tune.grid_search(list(listed.values()))}
    settings: dict[str, Any] = {"scheduler": AshaPerClip(plan) if asha else None}
    if draws:
        space = {}
        settings |= {"search_alg": _optuna(plan, earlier), "num_samples": draws * len(plan.clips)}
    options = {"cpu": slots.options["num_cpus"], "gpu": slots.options.get("num_gpus", 0)}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(fit_trial, plan=plan), options),
        param_space=space,
        tune_config=tune.TuneConfig(**settings),
        run_config=tune.RunConfig(
            name=STATE,
            storage_path=plan.store.uri,
            verbose=0,
            callbacks=[Told(plan)],
            failure_config=tune.FailureConfig(max_failures=MAX_RESTARTS),
        ),
    )
    return int(tuner.fit().num_errors)


def _optuna(plan: Plan, earlier: Sequence[Values]) -> Repeater:
    """Optuna sees a combination once, with the mean of what it scored on the clips."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space: dict[str, Any] = {}
    points: list[dict[str, Any]] = [dict(values) for values in earlier]
    for axis in plan.axes:
        if axis.ends is None:
            space[axis.key] = tune.choice(list(axis.values))
            continue
        low, high = axis.ends
        for point in points:
            point[axis.key] = float(point[axis.key])
        space[axis.key] = tune.loguniform(low, high) if low > 0 else tune.uniform(low, high)
    search = OptunaSearch(
        space, metric=FINAL, mode=MODES[plan.metric], points_to_evaluate=points or None,
        seed=plan.config.seed + len(points),  # other draws than before
    )  # fmt: skip
    return Repeater(search, repeat=len(plan.clips))

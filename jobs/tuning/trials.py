"""The trials of a sweep in Ray Tune: one clip with one combination of values each, by the fit that a corpus clip gets.

A trial's folder is a clip's: its checkpoint, log and result say how far it is. What Tune keeps of its own accord, by
pickles, is never read: to go on, the same sweep runs again, and a trial tells Tune what its folder holds before it does
the rest. So the scheduler and Optuna hear of all that was done before, and nothing that is done is done twice.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

# Read when ray.tune is imported: our files are the log, our lines the display, Ctrl-C is the driver's.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from infra.errors import StorageError, UsageError, one_line
from infra.store import Store
from infra.tracking.runs import Corpus
from jobs.experiment.corpus import Work
from jobs.experiment.result import OutOfMemory, Result, read_results
from jobs.training import schedule
from jobs.tuning.axes import MODES, Axis, Trials, Values, configured, objective, trial_name
from model.config import TrainConfig
from pipeline import shards

if TYPE_CHECKING:
    import optuna

MAX_RESTARTS = 2  # of a trial whose process or node died; it goes on from its checkpoint
REDUCTION = 2  # ASHA stops what is worse than the better half of those that came as far, at scales 1, 2, 4, …
TRIAL = "trial"  # in a trial's config: its clip and values
# Of what a trial tells, beside its figures. AGAIN: it was done before, and only tells again what it scored.
SCALES, FINAL, FINISHED, AGAIN = "scales_done", "final", "finished", "again"
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


def _name(trial: Any) -> str:
    """Of one of Tune's trials."""
    return trial_name(*trial.config[TRIAL])


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
    """The body of a trial. It tells Tune the scores after each scale, then the final ones if it does not fail."""
    clip, values = config[TRIAL]
    name, told = trial_name(clip, values), -1
    result = read_results(plan.store, [name]).get(name)
    again = {AGAIN: result is not None and result.status == "done"}

    def tell(scale: int, scores: Mapping[str, float]) -> None:
        nonlocal told
        if scale > told:
            told = scale
            figures = {figure: scores[figure] for figure in MODES}
            tune.report({**figures, **again, SCALES: scale + 1, FINAL: math.nan, FINISHED: False})

    for line in plan.store.read([f"{name}/metrics.jsonl"]).get(f"{name}/metrics.jsonl", b"").split(b"\n")[:-1]:
        point = json.loads(line)
        if point["iteration"] is None:
            tell(point["scale"], point["metrics"])
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
        tune.report({**figures, **again, SCALES: told + 2, FINAL: objective(result, plan.metric), FINISHED: True})
    elif not read_results(plan.store, [name]):  # the store did not take it: Tune tries again
        raise RuntimeError(result.reason)


class Told(tune.Callback):
    """Prints how trials come along; writes the result of one that could not: its process died, or ASHA stopped it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        place = "done" if result[FINISHED] else f"after {result[SCALES]} scales"
        figures = "  ".join(f"{figure} {result[figure]:.4g}" for figure in MODES)
        print(f"{_name(trial)}  {place}  {figures}", flush=True)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        if not trial.last_result.get(FINISHED):
            scales = trial.last_result.get(SCALES, 0)
            self._tell(Result(_name(trial), "stopped", f"by ASHA after {scales} scales"))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._tell(Result(_name(trial), "failed", f"its process ended {trial.num_failures} times without a result"))

    def _tell(self, result: Result) -> None:
        """Written unless the trial wrote one itself."""
        name = result.clip_id
        try:
            if written := read_results(self._plan.store, [name]).get(name):
                result = written
            else:
                self._plan.store.write_json(f"{name}/result.json", asdict(result))
        except (StorageError, UsageError) as error:
            print(one_line(error), flush=True)
        print(f"{name}  {result.status}: {result.reason}", flush=True)


class AshaPerClip(FIFOScheduler):
    """An ASHA for each clip: scores compare within a clip only. What was done before counts, and is not stopped."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan
        self._schedulers: dict[str, ASHAScheduler] = {}

    def _of(self, trial: Any) -> ASHAScheduler:
        clip, _ = trial.config[TRIAL]
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
        decision = self._of(trial).on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if result[AGAIN] else decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_remove(tune_controller, trial)


class Draws(Searcher):
    """Combinations that Optuna draws, each for all clips. It learns the mean of what one scored on them, once.

    A combination that was stopped or failed on a clip scored nothing, and ranks behind all that did: Optuna's PRUNED.

    Args: earlier: combinations to begin with, as they were drawn before.
    """

    def __init__(self, plan: Plan, earlier: Sequence[Values]) -> None:
        import optuna

        super().__init__(metric=FINAL, mode=MODES[plan.metric])
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._clips = list(plan.clips)
        self._space = {axis.key: _distribution(axis) for axis in plan.axes}
        direction = optuna.study.StudyDirection
        self._study = optuna.create_study(
            direction=direction.MINIMIZE if MODES[plan.metric] == "min" else direction.MAXIMIZE,
            sampler=optuna.samplers.TPESampler(seed=plan.config.seed + len(earlier)),  # other draws than before
        )
        for values in earlier:
            ranged = {axis.key for axis in plan.axes if axis.ends}
            self._study.enqueue_trial({key: float(v) if key in ranged else v for key, v in values.items()})
        self.drawn: dict[str, tuple[str, Values]] = {}  # all there were, by name
        self._open: dict[str, Draw] = {}  # by the ids of Tune's trials
        self._todo: list[tuple[str, Draw]] = []

    def suggest(self, trial_id: str) -> dict[str, Any]:
        if not self._todo:
            draw = Draw(self._study.ask(self._space))
            self._todo = [(clip, draw) for clip in self._clips]
        clip, draw = self._todo.pop(0)
        self._open[trial_id] = draw
        values = {key: _text(value) for key, value in draw.trial.params.items()}
        self.drawn[trial_name(clip, values)] = clip, values
        return {TRIAL: (clip, values)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        from optuna.trial import TrialState

        draw = self._open.pop(trial_id, None)
        if draw is None:
            return
        draw.scores.append((result or {}).get(FINAL, math.nan))
        if len(draw.scores) == len(self._clips):
            mean = sum(draw.scores) / len(draw.scores)
            ended = (None, TrialState.PRUNED) if math.isnan(mean) else (mean, TrialState.COMPLETE)
            self._study.tell(draw.trial, *ended)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the trials' folders tell (see above)."""


@dataclass
class Draw:
    """A combination, and what it scored on the clips that have ended: NaN where it did not finish."""

    trial: optuna.Trial
    scores: list[float] = field(default_factory=list)


def _distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    """Of a range the logarithm is uniform, where it begins above 0."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if axis.ends is None:
        return CategoricalDistribution(axis.values)
    low, high = axis.ends
    return FloatDistribution(low, high, log=low > 0)


def _text(value: Any) -> str:
    """Of a number that Optuna drew, six digits: a name must say it."""
    return format(value, ".6g") if isinstance(value, float) else str(value)


def run(plan: Plan, listed: Trials, draws: int, earlier: Sequence[Values], slots: schedule.Slots, asha: bool) -> Trials:
    """Run trials to their end, each of which leaves its result. Ray must have been started.

    Returns those that Optuna drew.

    Args:
        listed: the trials; none where Optuna draws.
        draws: combinations that Optuna draws, 0 for none.
        earlier: those it drew before.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial that fails has a line of ours
    space: dict[str, Any] = {TRIAL: tune.grid_search(list(listed.values()))}
    settings: dict[str, Any] = {"scheduler": AshaPerClip(plan) if asha else None}
    drawn: Trials = {}
    if draws:
        search = Draws(plan, earlier)
        space, drawn = {}, search.drawn
        settings |= {"search_alg": search, "num_samples": draws * len(plan.clips)}
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
    tuner.fit()
    return drawn

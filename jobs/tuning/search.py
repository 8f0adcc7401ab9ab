"""What decides about trials: an ASHA for each clip, and Optuna, which draws combinations from ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from jobs.experiment.experiment import Values
from jobs.tuning.axes import Axis, trial_name
from jobs.tuning.request import MODES, Sweep

if TYPE_CHECKING:
    import optuna

REDUCTION = 2  # ASHA stops what is worse than the better half of those that came as far, at scales 1, 2, 4, …
TRIAL = "trial"  # in a trial's config: its clip and values
# What a trial reports beside its figures. AGAIN: it was done before, and only reports again what it scored.
SCALES, FINAL, FINISHED, AGAIN, NAMED = "scales_done", "final", "finished", "again", "named"


class AshaPerClip(FIFOScheduler):
    """An ASHA for each clip: scores compare within a clip only. What was done before counts, and is not stopped."""

    def __init__(self, sweep: Sweep) -> None:
        super().__init__()
        self._sweep = sweep
        self._schedulers: dict[str, ASHAScheduler] = {}

    def _of(self, trial: Any) -> ASHAScheduler:
        clip, _ = trial.config[TRIAL]
        if clip not in self._schedulers:
            request = self._sweep.request
            metric, config = request.metric, request.config
            scales = config.trained_scales + config.made_of_patches  # patches make the others at once
            self._schedulers[clip] = ASHAScheduler(
                # not after the last scale, when everything but the final scores is done
                time_attr=SCALES, max_t=max(1, scales - 1), stop_last_trials=False,
                metric=metric, mode=MODES[metric], grace_period=1, reduction_factor=REDUCTION,
            )  # fmt: skip
        return self._schedulers[clip]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Tune has a new trial: its clip's ASHA gets it."""
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial failed."""
        self._of(trial).on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        """A trial has reported: whether it goes on."""
        decision = self._of(trial).on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if result[AGAIN] else decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial has ended by itself."""
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Tune has dropped a trial."""
        self._of(trial).on_trial_remove(tune_controller, trial)


class OptunaSearch(Searcher):
    """Combinations that Optuna draws, each for all clips. It learns the mean of what one scored on them, once.

    A combination that was stopped or failed on a clip scored nothing, and ranks behind all that did: Optuna's PRUNED.

    Args: earlier: combinations to begin with, as they were drawn before.
    """

    def __init__(self, sweep: Sweep, clip_ids: Sequence[str], earlier: Sequence[Values]) -> None:
        import optuna

        super().__init__(metric=FINAL, mode=MODES[sweep.request.metric])
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._clips = list(clip_ids)
        self._space = {axis.key: _distribution(axis) for axis in sweep.request.axes}
        direction = optuna.study.StudyDirection
        self._study = optuna.create_study(
            direction=direction.MINIMIZE if MODES[sweep.request.metric] == "min" else direction.MAXIMIZE,
            sampler=optuna.samplers.TPESampler(
                seed=sweep.request.config.seed + len(earlier)
            ),  # other draws than before
        )
        for values in earlier:
            ranged = {axis.key for axis in sweep.request.axes if axis.ends}
            self._study.enqueue_trial({key: float(v) if key in ranged else v for key, v in values.items()})
        self.drawn: dict[str, tuple[str, Values]] = {}  # all of them, by name
        self._open: dict[str, Draw] = {}  # by the ids of Tune's trials
        self._todo: list[tuple[str, Draw]] = []

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next trial: the next clip of the combination that was drawn last, or the first clip of a new one."""
        if not self._todo:
            draw = Draw(self._study.ask(self._space))
            self._todo = [(clip, draw) for clip in self._clips]
        clip, draw = self._todo.pop(0)
        self._open[trial_id] = draw
        values = {key: _text(value) for key, value in draw.trial.params.items()}
        self.drawn[trial_name(clip, values)] = clip, values
        return {TRIAL: (clip, values)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial has ended. Once its combination has ended on all clips, Optuna gets the mean of the scores."""
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
        """Nothing: the trials' folders hold it (see trials.py)."""


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

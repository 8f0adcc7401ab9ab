"""The command that makes an experiment, as its files tell it, for one whose submission.json does not have it."""

from __future__ import annotations

import shlex

from jobs.experiment.experiment import Experiment, Submission
from jobs.experiment.settings import ModelSettings
from jobs.invocation import start_of
from model.config import TrainConfig
from model.presets import PRESETS, of_method


def command_of(experiment: Experiment, submission: Submission, settings: ModelSettings) -> str:
    """The command that makes such an experiment, as far as its files tell it."""
    words = [*start_of("train_corpus"), "--corpus", submission.corpus]
    if (preset := PRESETS.get(submission.preset)) is None:  # of a file
        words += ["--config", f"{experiment.uri}/experiment.json"]
    else:
        base, config = preset(), settings.main
        words += ["--preset", submission.preset]
        if config.method != base.method:
            words += ["--method", config.method]
            base = of_method(base, config.method)
        words += _changes(base, config)
    return shlex.join([*words, "--storage", experiment.storage.uri, "--experiment", experiment.name])


def _changes(base: TrainConfig, config: TrainConfig) -> list[str]:
    """The options that make `config` of `base`."""
    words, before = [], base.to_dict()
    for name, value in config.to_dict().items():
        if value == before[name]:
            continue
        if name == "stride" and value is not None:
            words += ["--long", "--stride", str(value)]
        else:
            words += ["--set", f"{name}={as_set(value)}"]
    return words


def as_set(value: object) -> str:
    """A setting's value as --set takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(as_set, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)

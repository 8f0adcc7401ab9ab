"""A sweep: which settings take which values, and their combinations.

    vae_levels=1,2,3         these values
    adam_betas=0.5,0.999;0,0.9    where a value is itself a list
    lr=1e-4..1e-2            a range, from which Optuna draws: along the logarithm where it begins above 0
    ablation=none,gan_only   the paper's alternatives (model/presets.py); none is the method

A value stays the text that `--set` takes: so it is a tag, part of a name, and an option that Optuna can choose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from infra.errors import UsageError
from jobs.experiment.experiment import Values
from model.config import TrainConfig
from model.presets import ABLATIONS, ablated, of_method

ABLATION, METHOD = "ablation", "none"
RIVAL, OWN = "method", "hpvaegan"
NAME_LENGTH = 200  # of a trial, which names a folder


@dataclass(frozen=True)
class Axis:
    """A setting and its values; of a range the lower end, and both ends."""

    key: str
    values: tuple[str, ...]
    ends: tuple[float, float] | None = None


def read_axes(given: Sequence[str], config: TrainConfig) -> tuple[Axis, ...]:
    """The axes that `--sweep` names. Raises UsageError or ConfigError, with one line, for what cannot be swept."""
    axes = {}
    for text in given:
        key, equals, right = (part.strip() for part in text.partition("="))
        if not equals or not right.strip(",; "):
            raise UsageError(f"--sweep {text}: no values; write vae_levels=1,2,3 or lr=1e-4..1e-2")
        if key in axes:
            raise UsageError(f"--sweep {text}: {key} is there twice; give all its values at once")
        axes[key] = _range(key, right, config) if ".." in right else Axis(key, _values(key, right, config))
    if not axes:
        raise UsageError("nothing to sweep; give --sweep KEY=VALUES or --ablations")
    return tuple(axes.values())


def _values(key: str, text: str, config: TrainConfig) -> tuple[str, ...]:
    words = [word.strip() for word in text.split(";" if ";" in text else ",")]
    if key == ABLATION:
        for word in words:
            if word not in {METHOD, *ABLATIONS}:
                raise UsageError(f"--sweep {key}={text}: {word} is none of {METHOD}, {', '.join(ABLATIONS)}")
        return tuple(dict.fromkeys(words))
    return tuple(dict.fromkeys(_text(getattr(config.with_overrides([f"{key}={word}"]), key)) for word in words))


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _range(key: str, text: str, config: TrainConfig) -> Axis:
    words = [] if key == ABLATION or "..." in text else text.split("..")
    ends = [getattr(config.with_overrides([f"{key}={word.strip()}"]), key) for word in words]
    if len(ends) != 2 or not all(isinstance(end, float) for end in ends):
        need = "a range is LOW..HIGH of a setting that takes fractions"  # of whole numbers Optuna would repeat some
        raise UsageError(f"--sweep {key}={text}: {need}; list the values")
    low, high = ends
    if low >= high:
        raise UsageError(f"--sweep {key}={text}: {low} is not below {high}")
    return Axis(key, (str(low),), (low, high))


def configured(config: TrainConfig, values: Values) -> TrainConfig:
    """The configuration of a combination; the ablation last. Raises ConfigError for one that cannot be."""
    if rival := values.get(RIVAL):
        config = of_method(config, rival)  # type: ignore[arg-type]  # of --rivals, or refused by TrainConfig
    changed = config.with_overrides(f"{key}={value}" for key, value in values.items() if key not in (ABLATION, RIVAL))
    ablation = values.get(ABLATION, METHOD)
    return changed if ablation == METHOD else ablated(changed, ablation)


def combinations(config: TrainConfig, axes: Sequence[Axis], rivals: Sequence[str] = ()) -> list[Values]:
    """Every combination of values, each once, then every rival; a range stands with its lower end. Raises ConfigError.

    A setting that an ablation overrules is left out: gan_only is one trial a clip, whatever vae_levels is swept beside.
    """
    rows = [dict(zip([axis.key for axis in axes], row)) for row in product(*(axis.values for axis in axes))]
    finals = [configured(config, values) for values in rows]
    overruled = {
        (values.get(ABLATION), key)
        for values, final in zip(rows, finals)
        for key, value in values.items()
        if key != ABLATION and _text(getattr(final, key)) != value
    }
    found: dict[str, Values] = {}
    for values, final in zip(rows, finals):
        kept = {key: value for key, value in values.items() if (values.get(ABLATION), key) not in overruled}
        found.setdefault(json.dumps([values.get(ABLATION), final.to_dict()]), kept)
    beside: list[Values] = [{RIVAL: rival} for rival in rivals]
    for rival in beside:
        configured(config, rival)
    return [*found.values(), *beside]


def trial_name(clip_id: str, values: Values) -> str:
    """bikes-1b0f76--vae_levels-2: a folder's name and a clip id, of [a-z0-9_-] like every clip id.

    Raises UsageError for one too long.
    """
    parts = [f"{key}-{re.sub('[^a-z0-9_-]', '_', value.lower().replace('+', ''))}" for key, value in values.items()]
    name = "--".join([clip_id, *parts])
    if len(name) > NAME_LENGTH:
        raise UsageError(f"{name}: too long for a folder's name; sweep fewer settings at once")
    return name

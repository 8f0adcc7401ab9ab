"""A sweep: which settings take which values, their combinations on every clip, and what the trials add up to.

    vae_levels=1,2,3         these values
    adam_betas=0.5,0.999;0,0.9    where a value is itself a list
    lr=1e-4..1e-2            a range, from which Optuna draws: along the logarithm where it begins above 0
    ablation=none,gan_only   the paper's alternatives (jobs/presets.py); none is the method

A value stays the text that `--set` takes: so it is a tag, part of a name, and an option that Optuna can choose.
"""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.errors import UsageError, one_line
from infra.store import Store
from jobs.experiment.result import FIGURES, PAGE_COLUMNS, Result
from model.config import TrainConfig
from model.presets import ABLATIONS, ABLATIONS_IN_PAPER

DEFINITION = "sweep.json"  # in the experiment's folder: config, sweep, n, corpus, clips
ABLATION, METHOD = "ablation", "none"
NOTE = "A copy of the clip scores best in svfid; read it with diversity and nn_distance, which a copy has near 0."
MODES = {"svfid_lite0": "min", "diversity": "max", "nn_distance": "max"}  # figures of a scale too, by which is better
SHOWN = {name: spec for name, spec in FIGURES.items() if name != "svfid_lite0_blur"}
NAME_LENGTH = 200  # of a trial, which names a folder
Values = Mapping[str, str]  # setting → value
Trials = Mapping[str, tuple[str, Values]]  # name → clip, values


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
    changed = config.with_overrides(f"{key}={value}" for key, value in values.items() if key != ABLATION)
    ablation = values.get(ABLATION, METHOD)
    return changed if ablation == METHOD else ABLATIONS[ablation](changed)


def combinations(config: TrainConfig, axes: Sequence[Axis]) -> list[Values]:
    """Every combination of values, each once; a range stands with its lower end. Raises ConfigError.

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
    return list(found.values())


def trial_name(clip_id: str, values: Values) -> str:
    """bikes-1b0f76--vae_levels-2: a folder's name and a clip id, of [a-z0-9_-] like every clip id.

    Raises UsageError for one too long.
    """
    parts = [f"{key}-{re.sub('[^a-z0-9_-]', '_', value.lower().replace('+', ''))}" for key, value in values.items()]
    name = "--".join([clip_id, *parts])
    if len(name) > NAME_LENGTH:
        raise UsageError(f"{name}: too long for a folder's name; sweep fewer settings at once")
    return name


def definition(store: Store) -> Mapping[str, Any] | None:
    """What defines the sweep in a folder; None where there is none. Raises UsageError for a damaged file."""
    found = store.read([DEFINITION]).get(DEFINITION)
    try:
        read = json.loads(found) if found else None
        if read is not None and not {"config", "sweep", "n", "corpus", "clips"} <= read.keys():
            raise ValueError("of an earlier version, or damaged")
    except (ValueError, AttributeError) as error:
        mend = "begin another sweep"
        raise UsageError(f"{store.uri}/{DEFINITION}: cannot be read ({one_line(error)}); {mend}") from error
    return read


def begun(store: Store) -> Trials:
    """The trials whose folders are there, in the order of their names. Raises UsageError for a damaged config.json."""
    names = {f"{folder}/config.json": folder for folder in sorted(store.names()) if "." not in folder}
    found = {}
    for name, content in sorted(store.read(names).items()):
        try:
            values = dict(json.loads(content)["tags"])
            found[names[name]] = values.pop("clip"), values
        except (ValueError, KeyError, TypeError) as error:
            mend = "delete its folder, and its trial starts again"
            raise UsageError(f"{store.uri}/{name}: cannot be read ({one_line(error)}); {mend}") from error
    return found


# -- what came of it


@dataclass(frozen=True)
class Line:
    """One combination: its finished clips, and how many it was tried on."""

    values: Values
    done: Mapping[str, Result]  # by clip
    tried: int

    def figures(self, name: str) -> list[float]:
        return [value for result in self.done.values() if (value := getattr(result, name)) is not None]

    def mean(self, name: str) -> float:
        """Over the clips; NaN of none."""
        return statistics.fmean(self.figures(name)) if self.figures(name) else float("nan")

    def deviation(self, name: str) -> float:
        """Standard deviation over the clips; 0 of fewer than two."""
        figures = self.figures(name)
        return statistics.stdev(figures) if len(figures) > 1 else 0.0

    def objective(self, metric: str) -> float:
        """Mean of the objective over the clips that are done, at least one."""
        return statistics.fmean(objective(result, metric) for result in self.done.values())


def lines(trials: Trials, results: Mapping[str, Result]) -> list[Line]:
    """One a combination, in the order of the trials. results: by the names of the trials."""
    groups: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for name, (clip, values) in trials.items():
        groups.setdefault(tuple(values.items()), {})[clip] = name
    ended = {name: result for name, result in results.items() if result.status == "done"}
    return [
        Line(dict(values), {clip: ended[name] for clip, name in clips.items() if name in ended}, len(clips))
        for values, clips in groups.items()
    ]


def objective(result: Result, metric: str) -> float:
    """What is compared between combinations: svfid relative to that of the blurred clip, as svfid alone compares
    within a clip only; other metrics as they are."""
    value = getattr(result, metric)
    assert value is not None  # of a finished clip
    return float(value / result.svfid_lite0_blur if metric == "svfid_lite0" and result.svfid_lite0_blur else value)


def best(found: Sequence[Line], metric: str) -> Line | None:
    """The best mean objective among the combinations that finished on the most clips; None where none did."""
    most = max((len(line.done) for line in found), default=0)
    full = [line for line in found if most and len(line.done) == most]
    choose = min if MODES[metric] == "min" else max
    return choose(full, key=lambda line: line.objective(metric)) if full else None


def table(found: Sequence[Line], keys: Sequence[str]) -> str:
    """A row a combination: its figures, mean ± standard deviation over the clips that are done.

    With the method among ablations, also the change against it on the clips that both finished, and the paper's words.
    """
    method = {_others(line.values): line for line in found if line.values.get(ABLATION) == METHOD}
    shown = Table(title="sweep", title_justify="left")
    for key in (*keys, "clips"):
        shown.add_column(key)
    for name in SHOWN:
        shown.add_column(name, justify="right")
    shown.add_column("svfid of blur", justify="right")
    for name in ("svfid change", "diversity change", "in the paper") if method else ():
        shown.add_column(name, justify="left" if name == "in the paper" else "right")
    for line in found:
        cells = [line.values.get(key, "") for key in keys] + [f"{len(line.done)}/{line.tried}"]
        for name, spec in SHOWN.items():
            cells.append(f"{line.mean(name):{spec}} ± {line.deviation(name):{spec}}" if line.done else "")
        cells.append(f"{line.objective('svfid_lite0'):.2f}" if line.done else "")
        if method:
            against = method.get(_others(line.values))
            cells += [_change(line, against, name) for name in ("svfid_lite0", "diversity")]
            cells.append(ABLATIONS_IN_PAPER.get(line.values[ABLATION], ""))
        shown.add_row(*cells)
    text = io.StringIO()
    Console(file=text, width=PAGE_COLUMNS).print(shown)
    return text.getvalue()


def remarks(trials: Trials, results: Mapping[str, Result]) -> str:
    """What stands below the table: how to read it, and a line for every trial that is not done, with the reason."""
    text = f"mean ± standard deviation over the clips. {NOTE}\n"
    for name in trials:
        result = results.get(name, Result(name, "failed", "it has no result"))
        if result.status != "done":
            text += f"{result.status}  {name}: {result.reason}\n"
        text += "".join(f"warning  {name}: {line}\n" for line in result.warning.splitlines())
    return text


def _others(values: Values) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in values.items() if key != ABLATION)


def _change(line: Line, method: Line | None, name: str) -> str:
    both = line.done.keys() & method.done.keys() if method else set()
    if method is None or line is method or not both:
        return ""
    ours, theirs = (sum(getattr(of.done[clip], name) for clip in both) for of in (line, method))
    return f"{100 * (ours / theirs - 1):+.0f} %" if theirs else ""


def to_csv(trials: Trials, results: Mapping[str, Result], keys: Sequence[str]) -> bytes:
    """A line a trial: its clip, values and result."""
    text = io.StringIO()
    names = ["trial", "clip", *keys, *(name for name in asdict(Result("", "")) if name != "clip_id")]
    writer = csv.DictWriter(text, names, extrasaction="ignore")
    writer.writeheader()
    for name, (clip, values) in trials.items():
        fields = asdict(results[name]) if name in results else {}
        writer.writerow({**fields, **values, "trial": name, "clip": clip})
    return text.getvalue().encode()

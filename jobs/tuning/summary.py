"""What the trials of a sweep add up to: its table, its CSV, the best combination."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from infra.errors import counted
from jobs.experiment.experiment import Trials, Values
from jobs.experiment.result import (
    DROPPED_FIRST,
    FIGURES,
    SIFID,
    SVFID,
    Result,
    columns,
    is_diversity,
    is_realism,
    spec_of,
)
from jobs.reports.table import TextTable
from jobs.tuning.axes import ABLATION, METHOD, OWN, RIVAL
from jobs.tuning.request import MODES
from model.presets import ABLATIONS_IN_PAPER

SHOWN = [name for name in FIGURES if not name.endswith("_blur")]


@dataclass(frozen=True)
class CombinationResult:
    """One combination: its finished clips, and how many it was tried on."""

    values: Values
    done: Mapping[str, Result]  # by clip
    tried: int

    def figures(self, name: str) -> list[float]:
        """One a clip that is done."""
        rows = [{**result.to_dict(), "diversity": result.diversity} for result in self.done.values()]
        return [value for row in rows if (value := row.get(name)) is not None]

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


def lines(trials: Trials, results: Mapping[str, Result]) -> list[CombinationResult]:
    """One a combination, in the order of the trials. results: by the names of the trials."""
    groups: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for name, (clip, values) in trials.items():
        groups.setdefault(tuple(values.items()), {})[clip] = name
    ended = {name: result for name, result in results.items() if result.status == "done"}
    return [
        CombinationResult(
            dict(values), {clip: ended[name] for clip, name in clips.items() if name in ended}, len(clips)
        )
        for values, clips in groups.items()
    ]


def objective(result: Result, metric: str) -> float:
    """What is compared between combinations: svfid relative to that of the blurred clip, as svfid alone compares
    within a clip only; other metrics as they are."""
    value = getattr(result, metric)
    assert value is not None  # of a finished clip
    return float(value / ((is_realism(metric) and getattr(result, f"{metric}_blur")) or 1.0))


def best(found: Sequence[CombinationResult], metric: str) -> CombinationResult | None:
    """The best mean objective among the combinations that finished on the most clips; None where none did."""
    most = max((len(line.done) for line in found), default=0)
    full = [line for line in found if most and len(line.done) == most]
    choose = min if MODES[metric] == "min" else max
    return choose(full, key=lambda line: line.objective(metric)) if full else None


def verdict(found: Sequence[CombinationResult], metric: str) -> str:
    """Which combination is best, by what, and whether that is clear: one line.

    It is clear if the mean difference to the runner-up, clip by clip, is larger than its standard error over the clips.
    """
    chosen = best(found, metric)
    assert chosen is not None
    by = f"{metric.partition('_')[0]} of blur" if is_realism(metric) else metric_of(chosen.done.values(), metric)
    end, behind = ("lowest", "higher") if MODES[metric] == "min" else ("highest", "lower")
    name = f"{_written(chosen)} ({chosen.objective(metric):.3g})"
    done = f"done on {len(chosen.done)} of {counted(chosen.tried, 'clip')}"
    second = best([line for line in found if line is not chosen and line.done.keys() == chosen.done.keys()], metric)
    if second is None:
        return f"best by {by}: {name}, {done}"
    other = f"{_written(second)} ({second.objective(metric):.3g})"
    if len(chosen.done) == 1:
        return f"best by {by}: {name}, {done}; of one clip nobody knows how clear that is; the next is {other}"
    differences = [
        (objective(second.done[clip], metric) - objective(result, metric)) for clip, result in chosen.done.items()
    ]
    mean, error = abs(statistics.fmean(differences)), statistics.stdev(differences) / math.sqrt(len(differences))
    apart = f"{round(mean, 6):.2g} ± {round(error, 6):.2g} {behind}, clip by clip"  # without what rounding leaves of 0
    if mean > error:
        return f"best by {by}: {name}, {done}; the next, {other}, is {apart}"
    return f"no clear best by {by}: {name} is {end}, {done}, but {other} is only {apart}"


def _written(line: CombinationResult) -> str:
    return " ".join(f"{key}={value}" for key, value in line.values.items())


def realism_of(results: Iterable[Result]) -> str:
    """The name of svfid or sifid of a sweep's results, which are all of videos or all of images; svfid of none."""
    return SIFID if any(result.realism == SIFID for result in results) else SVFID


def diversity_of(results: Iterable[Result]) -> str:
    """The name of the diversity of a sweep's results, which are all of as many samples; results from before do not say
    of how many.
    """
    return columns(["diversity"], [result.to_dict() for result in results])[-1]


def metric_of(results: Iterable[Result], metric: str) -> str:
    """The name that --metric's figure has in a sweep's results."""
    return diversity_of(results) if metric == "diversity" else metric


def table(found: Sequence[CombinationResult], keys: Sequence[str]) -> TextTable:
    """A row a combination: its figures, mean ± standard deviation over the clips that are done.

    With the method among ablations, also the change against it on the clips that both finished.
    """
    method = {_others(line.values): line for line in found if line.values.get(ABLATION) == METHOD}
    done = [result for line in found for result in line.done.values()]
    realism = realism_of(done)
    asked = sorted({name for result in done for name in result.others if not name.endswith("_blur")})
    shown = columns([*SHOWN, *asked], [result.to_dict() for result in done])
    word = realism.partition("_")[0]
    heads = [*keys, "clips", *shown, f"{word} of blur"]
    changes = [f"{word} change", "diversity change"] if method else []
    rows = []
    for line in found:
        cells = [_value(line.values, key) for key in keys] + [f"{len(line.done)}/{line.tried}"]
        for name in shown:
            spec = spec_of(name)
            cells.append(f"{line.mean(name):{spec}} ± {line.deviation(name):{spec}}" if line.done else "")
        cells.append(f"{line.objective(realism):.2f}" if line.done else "")
        if method:
            against = method.get(_others(line.values))
            cells += [_change(line, against, name) for name in (realism, "diversity")]
        rows.append(cells)
    heads += changes
    numbers = [*shown, f"{word} of blur", *changes]
    dropped_first = columns(DROPPED_FIRST, [result.to_dict() for result in done])
    return TextTable("sweep", heads, rows, numbers=numbers, dropped_first=dropped_first)


def in_paper(found: Sequence[CombinationResult]) -> str:
    """A line for each ablation with the paper's words on it."""
    names = dict.fromkeys(line.values.get(ABLATION, "") for line in found)
    return "".join(f"in the paper, {name}: {words}\n" for name in names if (words := ABLATIONS_IN_PAPER.get(name)))


def notes_below_table(trials: Trials, results: Mapping[str, Result]) -> str:
    """What stands below the table: how to read it, and a line for every trial that is not done, with the reason."""
    word = realism_of(results.values()).partition("_")[0]
    text = f"mean ± standard deviation over the clips. A copy of the clip scores best in {word}; "
    text += "read it with diversity and nn_distance, which a copy has near 0.\n"
    for name in trials:
        result = results.get(name, Result(name, "failed", "it has no result"))
        if result.status != "done":
            text += f"{result.status}  {name}: {result.reason}\n"
        text += "".join(f"warning  {name}: {line}\n" for line in result.warning.splitlines())
    return text


def _others(values: Values) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in values.items() if key != ABLATION)


def _change(line: CombinationResult, method: CombinationResult | None, name: str) -> str:
    both = line.done.keys() & method.done.keys() if method else set()
    if method is None or line is method or not both:
        return ""
    ours, theirs = (sum(getattr(of.done[clip], name) for clip in both) for of in (line, method))
    return f"{100 * (ours / theirs - 1):+.0f} %" if theirs else ""


def to_csv(trials: Trials, results: Mapping[str, Result], keys: Sequence[str]) -> bytes:
    """A line a trial: its clip, values and result, with the figures of other features where they were asked for."""
    text = io.StringIO()
    diversity = diversity_of(results.values())  # that of trials from before is in its column
    records = {
        name: {diversity if is_diversity(key) else key: value for key, value in results[name].to_dict().items()}
        for name in trials
        if name in results
    }
    asked = sorted({figure for result in results.values() for figure in result.others})
    figures = [name for name in Result("", "").to_dict() if name != "clip_id"]
    names = ["trial", "clip", *keys, *columns([*figures, *asked], records.values())]
    writer = csv.DictWriter(text, names, extrasaction="ignore")
    writer.writeheader()
    for name, (clip, values) in trials.items():
        own = {key: _value(values, key) for key in keys}
        writer.writerow({**records.get(name, {}), **own, "trial": name, "clip": clip})
    return text.getvalue().encode()


def _value(values: Values, key: str) -> str:
    """Of a combination on an axis; the project's method beside the rivals, "" where it has none."""
    return values.get(key, OWN if key == RIVAL else "")

"""The paper's Fig. 5 of a sweep, as a PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jobs.experiment.result import Result
from jobs.tuning.axes import ABLATION, METHOD, RIVAL, Axis
from jobs.tuning.summary import CombinationResult, diversity_of, realism_of

OURS = "hp-VAE-GAN"
RIVALS = {"singan": "SinGAN", "consingan": "ConSinGAN", "vgpnn": "VGPNN"}


def figure(found: Sequence[CombinationResult], axes: Sequence[Axis], title: str) -> bytes:
    """SVFID, of images SIFID, and diversity against the first axis; error bars over clips.

    There is a line for each combination of the other axes. SVFID of other features, where they were asked for, has a
    panel of its own. A combination that has no value on the first axis, as a rival beside vae_levels, is a straight
    line across.
    An axis of words gets a tick each, and no line between them; nor is there one between draws from a range, of
    which axes other than the first have no sign of their own.
    """
    x, ranges = axes[0].key, {axis.key for axis in axes if axis.ends}
    done = [line for line in found if line.done]
    places = _places([line.values[x] for line in done if x in line.values], axes[0])
    numeric = all(place == _number(word) for word, place in places.items())
    results = [result for line in done for result in line.done.values()]
    panels = {name: f"{_words(name)},\nlower is better" for name in _realisms(results)}
    panels["diversity"] = f"{diversity_of(results)},\nhigher is better"
    methods: dict[str, list[CombinationResult]] = {}
    for line in done:
        methods.setdefault(_label(line, {x} | ranges), []).append(line)

    page = Figure(figsize=(5.5 * len(panels), 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(page)
    page.suptitle(title)
    for panel, (name, label_y) in zip(page.subplots(1, len(panels)), panels.items()):
        for i, (label, some) in enumerate(methods.items()):
            colour = f"C{i % 10}"
            points = sorted(((places[line.values[x]], line) for line in some if x in line.values), key=lambda p: p[0])
            if points:
                style = "o-" if numeric and not ranges else "o"
                at, means = [p for p, _ in points], [line.mean(name) for _, line in points]
                bars = [line.deviation(name) for _, line in points]
                panel.errorbar(at, means, bars, fmt=style, capsize=4, color=colour, label=label)
            for line in some:
                if x not in line.values:
                    mean, bar = line.mean(name), line.deviation(name)
                    panel.axhline(mean, linestyle="--", color=colour, label=label)
                    panel.axhspan(mean - bar, mean + bar, color=colour, alpha=0.1)
        if not numeric:
            words = [OURS if word == METHOD else word for word in places]
            panel.set_xticks(list(places.values()), words, rotation=20, ha="right")
        elif x in ranges:
            panel.set_xscale("log" if axes[0].ends and axes[0].ends[0] > 0 else "linear")
        else:
            panel.set_xticks(sorted(places.values()))
        panel.set(xlabel=x, ylabel=label_y)
        panel.grid(alpha=0.3)
        if len(methods) > 1 or OURS not in methods:
            panel.legend()
    png = io.BytesIO()
    page.savefig(png, format="png")
    return png.getvalue()


def _realisms(results: Sequence[Result]) -> list[str]:
    """Of the features that are always there, then of those that were asked for."""
    asked = {name for result in results for name in result.others if not name.endswith("_blur")}
    return [realism_of(results), *sorted(asked)]


def _words(name: str) -> str:
    """SVFID (Lite0) of svfid_lite0; of an image's frame features as well."""
    kind, _, features = name.partition("_")
    return f"{kind.upper()} ({features.removesuffix('_frames').replace('lite0', 'Lite0')})"


def _places(words: Sequence[str], axis: Axis) -> dict[str, float]:
    """Where each value stands on the axis: at itself if all are numbers, else in the order they were given."""
    numbers = {word: _number(word) for word in words}
    if not any(math.isnan(number) for number in numbers.values()):
        return numbers
    return {word: float(i) for i, word in enumerate(word for word in axis.values if word in numbers)}


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def _label(line: CombinationResult, drawn: Collection[str]) -> str:
    """The values of the axes that are not drawn otherwise; the method itself by its name."""
    others = {key: value for key, value in line.values.items() if key not in drawn}
    ablation, method = others.pop(ABLATION, METHOD), others.pop(RIVAL, "")
    name = RIVALS.get(method, OURS) if ablation == METHOD else ablation
    return ", ".join([name, *(f"{key}={value}" for key, value in others.items())])

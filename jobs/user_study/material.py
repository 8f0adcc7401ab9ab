"""What is given to a study → its methods, and of each the clips that it finished, with their samples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from infra.errors import UsageError, counted
from infra.store import Store
from jobs.command_line import check_once
from jobs.experiment.experiment import Experiment
from jobs.experiment.samples import Viewable, viewable
from jobs.reports.paper import differences
from jobs.tuning.axes import configured
from jobs.tuning.study import FOLDER, INDEX, SAMPLES, method_name
from model.config import ConfigError, TrainConfig

KINDS = {".mp4": "videos", ".png": "images"}  # of clips, by the files of their samples
UNKNOWN = dict.fromkeys(KINDS.values(), "settings that are not known")  # of a method, by kind


@dataclass(frozen=True)
class Method:
    """A method as somebody trained it.

    Attributes:
        method: of the settings, whatever the name.
        experiment: that trained it, without a password; "" if it is not known.
        store: where the files lie that `clips` names.
        clips: those that it finished, with five samples or more.
        unusable: clip → why it cannot be shown, of the others.
        differs: by kind, what of its settings is not the paper's, in words; "" where nothing is.
    """

    name: str
    method: str
    experiment: str
    store: Store
    clips: Mapping[str, Viewable]
    unusable: Mapping[str, str]
    differs: Mapping[str, str]


def methods_of(given: Sequence[str]) -> list[Method]:
    """Of all arguments, each with a name of its own. Raises UsageError, StorageError."""
    found = [method for argument in given for method in _methods(argument)]
    for another in (lambda m: f"{m.name} ({Store(m.experiment).name})", lambda m: f"{m.name} ({m.experiment})"):
        counts = Counter(method.name for method in found)
        found = [replace(m, name=another(m)) if counts[m.name] > 1 and m.experiment else m for m in found]
    check_once("method", [method.name for method in found])
    return found


def _methods(given: str) -> list[Method]:
    """Of an experiment one; of a sweep, or the folder of its material, as many as it has."""
    store = Store.open(given, "EXPERIMENT")
    experiment = Experiment(store)
    if experiment.has_submission():
        return [_of_experiment(experiment)]
    if experiment.sweep():
        return _of_sweep(store.below(FOLDER), experiment)
    if INDEX in store.names():
        return _of_sweep(store, Experiment(store.parent.parent))
    mend = "give the folder of one, or evaluation/study/ of a sweep with --rivals"
    raise UsageError(f"{given}: no experiment of train_corpus.py or tune.py; {mend}")


def _of_experiment(experiment: Experiment) -> Method:
    settings, clip_ids = experiment.settings(), experiment.submission().clip_ids
    if settings is None:
        raise UsageError(f"{experiment.uri}: has no experiment.json; run its train_corpus.py again")
    results = experiment.results(clip_ids)
    clips: dict[str, Viewable] = {}
    unusable: dict[str, str] = {}
    for clip in clip_ids:
        if clip not in results or results[clip].status != "done":
            unusable[clip] = "is not finished"
            continue
        clips[clip] = viewable(experiment, clip)
        if reason := _too_little(clips[clip]):
            unusable[clip] = reason
            del clips[clip]
    differs = UNKNOWN | {_kind(config): differences(config, rival=True) for config in settings.kinds}
    method = settings.main.method
    return Method(method, method, experiment.uri, experiment.store, clips, unusable, differs)


def _kind(config: TrainConfig) -> str:
    """Of the clips that it is for."""
    return "images" if config.dims == 2 else "videos"


def _too_little(files: Viewable) -> str:
    if not files.original:
        return "has no original among its samples; train it again"
    if (count := len(files.samples)) < SAMPLES:
        return f"has {counted(count, 'sample')}, and {SAMPLES} are shown; train it with --n {SAMPLES} or more"
    return ""


def _of_sweep(material: Store, sweep: Experiment) -> list[Method]:
    """material: what jobs/tuning/study.py laid out. sweep: the experiment around it, if it is one."""
    content = material.read([INDEX]).get(INDEX)
    if content is None:
        raise UsageError(f"{material.uri}: is not there; run the sweep with --rivals, to its end")
    defined = sweep.sweep()
    differs: dict[str, Mapping[str, str]] = {}
    if defined is not None:
        for _, values in sweep.trials().values():
            try:
                config = configured(TrainConfig.from_dict(defined["config"]), values)
            except ConfigError:
                continue  # of a trial that could not be
            differs[method_name(values)] = UNKNOWN | {_kind(config): differences(config, rival=True)}
    try:
        index = json.loads(content)
        return [
            Method(
                name,
                name.partition("--")[0],  # as `method_name` makes it
                sweep.uri if defined is not None else "",
                material,
                {
                    clip: Viewable(files["original"], tuple(files["samples"][name]))
                    for clip, files in index["clips"].items()
                },
                {},
                differs.get(name, UNKNOWN),
            )
            for name in index["methods"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{material.uri}/{INDEX}: cannot be read; run the sweep again with --restore") from error

"""The material of a user study (Table 3 of the paper): of every clip the original and five samples of every method.

evaluation/study/
  index.json                      clips, methods, and the files of each
  bikes-1aacf5-000000/
    original.mp4
    hpvaegan/ 1.mp4 … 5.mp4
    singan/   1.mp4 … 5.mp4
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from infra.errors import counted
from jobs.experiment.experiment import EVALUATION, Experiment, Trials, Values
from jobs.experiment.result import Result
from jobs.experiment.samples import viewable
from jobs.tuning.axes import OWN, RIVAL

SAMPLES = 5  # of a method, beside the original (§4.2)
FOLDER = f"{EVALUATION}/study"
INDEX = "index.json"


def lay_out(experiment: Experiment, trials: Trials, results: Mapping[str, Result]) -> str:
    """Copy the samples of all trials that are done, of clips that every method is done on.

    Returns a line that says what is where, "" if there is nothing. Raises StorageError.
    """
    methods: dict[str, dict[str, str]] = {}  # method → clip → trial
    for name, (clip, values) in trials.items():
        if name in results and results[name].status == "done":
            methods.setdefault(method_name(values), {})[clip] = name
    clips = sorted(set.intersection(*(set(of) for of in methods.values()))) if methods else []
    index: dict[str, Any] = {"methods": sorted(methods), "clips": {}}
    for clip in clips:
        found = {method: viewable(experiment, of[clip]) for method, of in methods.items()}
        original = next(iter(found.values())).original
        if not original or any(len(one.samples) < SAMPLES for one in found.values()):
            continue
        files: dict[str, Any] = {"original": _copy(experiment, original, f"{clip}/original"), "samples": {}}
        for method, one in found.items():
            files["samples"][method] = [
                _copy(experiment, sample, f"{clip}/{method}/{place}")
                for place, sample in enumerate(one.samples[:SAMPLES], start=1)
            ]
        index["clips"][clip] = files
    if not index["clips"]:
        return ""
    experiment.store.write_json(f"{FOLDER}/{INDEX}", index)
    count = f"{counted(len(index['clips']), 'clip')}, {SAMPLES} samples of each of {counted(len(methods), 'method')}"
    return f"for a user study: {count} in {experiment.uri}/{FOLDER}\n"


def method_name(values: Values) -> str:
    """The method of a trial, with the settings that tell it from others."""
    settings = [f"{key}-{value}" for key, value in values.items() if key != RIVAL]
    return "--".join([values.get(RIVAL, OWN), *settings])


def _copy(experiment: Experiment, file: str, name: str) -> str:
    """A file of the experiment under another name, without its suffix. Returns that name with the suffix."""
    name += PurePosixPath(file).suffix
    experiment.store.write(f"{FOLDER}/{name}", experiment.store.read([file])[file])
    return name

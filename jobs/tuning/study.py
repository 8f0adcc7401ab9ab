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
from typing import Any

from infra import clip_folder
from jobs.experiment.experiment import EVALUATION, Experiment, Trials, Values
from jobs.experiment.result import Result
from jobs.tuning.axes import RIVAL

SAMPLES = 5  # of a method, beside the original (§4.2)
FOLDER = f"{EVALUATION}/study"


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
        found = {method: _samples(experiment, of[clip]) for method, of in methods.items()}
        originals = _files(experiment, next(iter(methods.values()))[clip], "real")
        if not originals or any(len(samples) < SAMPLES for samples in found.values()):
            continue
        files: dict[str, Any] = {"original": _copy(experiment, originals, f"{clip}/original"), "samples": {}}
        for method, samples in found.items():
            files["samples"][method] = [
                _copy(experiment, sample, f"{clip}/{method}/{place}") for place, sample in enumerate(samples, start=1)
            ]
        index["clips"][clip] = files
    if not index["clips"]:
        return ""
    experiment.store.write_json(f"{FOLDER}/index.json", index)
    count = f"{len(index['clips'])} clips, {SAMPLES} samples of each of {len(methods)} methods"
    return f"for a user study: {count} in {experiment.uri}/{FOLDER}\n"


def method_name(values: Values) -> str:
    """The method of a trial, with the settings that tell it from others."""
    settings = [f"{key}-{value}" for key, value in values.items() if key != RIVAL]
    return "--".join([values.get(RIVAL, "hpvaegan"), *settings])


def _samples(experiment: Experiment, trial: str) -> list[dict[str, bytes]]:
    found = [_files(experiment, trial, f"sample_{place:02d}") for place in range(SAMPLES)]
    return [files for files in found if files]


def _files(experiment: Experiment, trial: str, stem: str) -> dict[str, bytes]:
    """By suffix the first of a sample's files that is there: a video's mp4, an image's png."""
    names = {f"{trial}/{clip_folder.SAMPLES}/{stem}{suffix}": suffix for suffix in (".mp4", ".png")}
    return {names[name]: content for name, content in experiment.store.read(names).items()}


def _copy(experiment: Experiment, files: Mapping[str, bytes], name: str) -> str:
    ((suffix, content),) = files.items()
    experiment.store.write(f"{FOLDER}/{name}{suffix}", content)
    return f"{name}{suffix}"

"""What a finished model left to look at: the clip as it was trained on, and samples, as files."""

from __future__ import annotations

from dataclasses import dataclass

from infra import clip_folder
from jobs.experiment.experiment import Experiment

SUFFIXES = (".mp4", ".png")  # of a video, of an image


@dataclass(frozen=True)
class Viewable:
    """Names of files in the experiment's store. original: "" where there is none."""

    original: str
    samples: tuple[str, ...]


def viewable(experiment: Experiment, model: str) -> Viewable:
    """What there is of a clip or trial; one listing. Raises StorageError."""
    folder = f"{model}/{clip_folder.SAMPLES}"
    names = {name for name in experiment.store.names(folder) if name.endswith(SUFFIXES)}
    real = next((f"{folder}/real{suffix}" for suffix in SUFFIXES if f"real{suffix}" in names), "")
    samples = sorted((name for name in names if name.startswith("sample_")), key=lambda name: (len(name), name))
    return Viewable(real, tuple(f"{folder}/{name}" for name in samples))

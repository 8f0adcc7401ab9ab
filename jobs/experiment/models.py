"""Which models an experiment or a sweep was to train, and where the frames of their clips are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infra.clip_folder import CONFIG
from infra.errors import Refusal, UsageError
from infra.store import Store
from jobs.experiment.corpus import clip_frames, frames_of_source
from jobs.experiment.experiment import Experiment
from model.config import TrainConfig
from pipeline import shards
from pipeline.shards import ShardEntry


@dataclass(frozen=True)
class TrainedModels:
    """The models that an experiment was to train.

    Attributes:
        patches: whether videos of any of them are made of the clip's patches, for which all its chunks are needed.
        clips: by combination ("" where there is no sweep), the clip of each model.
    """

    experiment: Experiment
    corpus: str
    patches: bool
    stride: int | None
    clips: Mapping[str, Mapping[str, str]]

    def clip_of(self, model: str) -> str:
        """The clip of a model; of one it does not know, its own name."""
        return next((models[model] for models in self.clips.values() if model in models), model)

    def frames(self) -> Mapping[str, tuple[ShardEntry, ...]]:
        """Where the frames of each clip are. Raises UsageError for shards that cannot be used."""
        self.experiment.pull_shards()
        return clip_frames(self.experiment, self.corpus, self.stride)

    def chunks_of(self, model: str) -> tuple[ShardEntry, ...]:
        """Where the frames of a model's clip are; none if they are gone. Raises UsageError as `frames`."""
        return self.frames().get(self.clip_of(model), ())


def trained_models(experiment: Experiment) -> TrainedModels | None:
    """None for a folder of neither train_corpus.py nor tune.py. Raises UsageError for a damaged file."""
    if experiment.has_submission():
        settings, submission = experiment.settings(), experiment.submission()
        clips = {clip_id: clip_id for clip_id in submission.clip_ids}
        patches = settings is not None and settings.made_of_patches
        stride = settings.stride if settings else None
        return TrainedModels(experiment, submission.corpus, patches, stride, {"": clips})
    defined = experiment.sweep()
    if defined is None:
        return None
    combinations: dict[str, dict[str, str]] = {}
    for name, (clip, _) in experiment.trials().items():
        combinations.setdefault(name.removeprefix(f"{clip}--"), {})[name] = clip
    config = TrainConfig.from_dict(defined["config"])
    patches = config.made_of_patches or any(
        given.partition("=")[0] in ("method", "patch_scale") for given in defined["sweep"]
    )
    return TrainedModels(experiment, defined["corpus"], patches, config.stride, combinations)


def folder_of(model: Store) -> Store:
    """The folder of a model that is named by it, or by the checkpoint in it."""
    return model.parent if model.name.endswith(".pt") else model


def chunks_of_checkpoint(model: Store, clip_id: str) -> tuple[ShardEntry, ...]:
    """Where the experiment around a model keeps the frames of its clip; none if it does not.

    Args: model: its folder or checkpoint. clip_id: that the checkpoint names, whatever folder it lies in.

    Raises UsageError for shards that cannot be used.
    """
    models = trained_models(Experiment(folder_of(model).parent))
    return models.chunks_of(clip_id) if models else ()


def frames_of_folder(given: str) -> list[np.ndarray] | None:
    """The frames that an experiment has of a trained clip, by the clip's folder: uint8 (T, H, W, 3) RGB a chunk.

    None for what is no clip's folder. Raises ShardError, and UsageError if the experiment has the frames no more.
    """
    if not Path(given, CONFIG).is_file():
        return None
    folder = Store.open(given, "--real")
    entries = chunks_of_checkpoint(folder, folder.name)
    if not entries:
        cause = "no experiment around this folder has the frames of its clip"
        raise UsageError(f"--real {given}: {cause}; give the video or image itself")
    return [shards.read_clip(entry).frames_thwc for entry in entries]


def frames_of_real(given: str, config: TrainConfig) -> list[np.ndarray]:
    """The clip that --real names, for a model of this config: uint8 (T, H, W, 3) RGB a chunk.

    Args: given: a trained clip's folder, see `frames_of_folder`; or a video or image, see `frames_of_source`.

    Raises VideoError, ShardError, UsageError.
    """
    frames = frames_of_folder(given)
    return frames_of_source(given, config) if frames is None else frames


def frames_of_model(
    model: str, clip_id: str, config: TrainConfig, real: str | None, *, needed: bool = True
) -> list[np.ndarray]:
    """The clip that a model's videos are made of, uint8 (T, H, W, 3) RGB a chunk.

    Args:
        model: its folder or checkpoint, path or URI. clip_id: that the checkpoint names.
        real: --real; None: the frames of the experiment around the model.
        needed: whether it is an error if it is nowhere; else there are no chunks then.

    Raises ValueError, one line, if it is nowhere, UsageError, and VideoError for a --real that cannot be read.
    """
    if real is not None:
        return frames_of_real(real, config)
    entries = chunks_of_checkpoint(Store.open(model, "CLIP"), clip_id)
    if not entries and needed:
        cause = f"the clip {clip_id} is needed, whose frames no experiment around it has"
        raise Refusal(f"{model}: {cause}; give --real CLIP")
    return [shards.read_clip(entry).frames_thwc for entry in entries]

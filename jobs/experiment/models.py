"""Which models an experiment or a sweep was to train, and where the frames of their clips are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from infra.store import Store
from jobs.experiment.corpus import clip_frames
from jobs.experiment.experiment import Experiment
from model.config import TrainConfig
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


def chunks_of_checkpoint(checkpoint: Store, clip_id: str) -> tuple[ShardEntry, ...]:
    """Where the experiment around a checkpoint keeps the frames of its clip; none if it does not.

    Args: checkpoint: the file. clip_id: that the checkpoint names, whatever folder it lies in.

    Raises UsageError for shards that cannot be used.
    """
    models = trained_models(Experiment(checkpoint.parent.parent))
    return models.chunks_of(clip_id) if models else ()

"""What the arguments of jobs/evaluate.py name: experiments, sweeps, single checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.errors import UsageError
from infra.ray_cluster import ClipShare
from infra.store import Store
from jobs.evaluation.clip import ScoringTask
from jobs.experiment.corpus import clip_frames
from jobs.experiment.experiment import EVALUATION, Experiment
from model.metrics.features import VideoFeatures
from pipeline.shards import ShardEntry


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What was asked.

    Attributes:
        given: experiments and checkpoints: paths or URIs.
        real: the real video of a checkpoint, None for its experiment's frames.
        out: --out, None for evaluation/ in what is given.
        num_samples, seed: of each clip.
        nn: how many samples are searched for nearest neighbours; None: 2 or none, by how long it takes.
        keep: whether the samples are kept, as mp4.
        tracking_uri: None: the environment's, else the default.
    """

    given: Sequence[str]
    features: VideoFeatures
    real: str | None = None
    out: str | None = None
    num_samples: int = 50
    seed: int = 1
    nn: int | None = None
    keep: bool = False
    tracking_uri: str | None = None
    share: ClipShare


@dataclass(frozen=True)
class Group:
    """What one argument names, and of a sweep each of its combinations: what has a table of its own.

    Attributes:
        out: the folder of its results.
        experiment: None if there is none, or if its clips are held against another video.
        whole: whether it is all clips of an experiment, and not of a combination or a single one.
    """

    name: str
    out: Store
    tasks: Sequence[ScoringTask]
    experiment: Experiment | None
    whole: bool


@dataclass(frozen=True)
class TrainedModels:
    """The models that an experiment was to train.

    Attributes:
        clips: by combination ("" where there is no sweep), the clip of each model.
    """

    corpus: str
    stride: int | None
    clips: Mapping[str, Mapping[str, str]]

    def clip_of(self, model: str) -> str:
        """The clip of a model; of one it does not know, its own name."""
        return next((models[model] for models in self.clips.values() if model in models), model)


def trained_models(experiment: Experiment) -> TrainedModels | None:
    """None for a folder of neither train_corpus.py nor tune.py. Raises UsageError for a damaged file."""
    if experiment.has_submission():
        config, submission = experiment.config(), experiment.submission()
        clips = {clip_id: clip_id for clip_id in submission.clip_ids}
        return TrainedModels(submission.corpus, config.stride if config else None, {"": clips})
    defined = experiment.sweep()
    if defined is None:
        return None
    combinations: dict[str, dict[str, str]] = {}
    for name, (clip, _) in experiment.trials().items():
        combinations.setdefault(name.removeprefix(f"{clip}--"), {})[name] = clip
    return TrainedModels(defined["corpus"], defined["config"].get("stride"), combinations)


def resolve_targets(given: str, request: EvaluationRequest) -> list[Group]:
    """What an argument names: one group, of a sweep one a combination. Raises UsageError, StorageError."""
    store = Store.open(given, "EXPERIMENT")
    folder = store.parent if store.name.endswith(".pt") else store
    out = Store.open(request.out, "--out") if request.out else folder.below(EVALUATION)
    out = out.below(folder.name) if request.out and len(request.given) > 1 else out
    if folder is not store and store.name not in folder.names():
        raise UsageError(f"{given}: no such file; give a checkpoint.pt, or an experiment's folder")
    out.check_writable()

    experiment = Experiment(store)
    models = trained_models(experiment)
    if models is not None:
        if request.real:
            raise UsageError(f"{given}: --real is for a checkpoint; an experiment has the frames of its clips")
        return _experiment_groups(experiment, models, out)
    if folder is store and "netG.pth" not in store.names():  # which a folder of the authors' code holds
        mend = "give the folder of one, or the file"
        raise UsageError(f"{given}: no experiment of train_corpus.py or tune.py, and no checkpoint; {mend}")
    if request.real:
        task = ScoringTask(folder.name, store.uri, real=os.path.abspath(request.real))
        return [Group(folder.name, out, [task], None, whole=False)]
    experiment = Experiment(folder.parent)
    models = trained_models(experiment)
    frames = _frames(experiment, models) if models else {}
    chunks = frames.get(models.clip_of(folder.name), ()) if models else ()
    if not chunks:
        raise UsageError(f"{given}: no experiment around it has the frames of its clip; give --real CLIP")
    return [Group(folder.name, out, [ScoringTask(folder.name, store.uri, chunks)], experiment, whole=False)]


def _experiment_groups(experiment: Experiment, models: TrainedModels, out: Store) -> list[Group]:
    frames, groups = _frames(experiment, models), []
    for combination, clips in models.clips.items():
        results, tasks = experiment.results(clips), []
        for model, clip in clips.items():
            status, reason = results[model].status if model in results else "", ""
            if status == "stopped":  # by ASHA: it was meant to
                continue
            if status != "done":
                reason = "is not trained to its end; train it again"
            elif clip not in frames:
                reason = "no frames of it are in .shards or the corpus; give its checkpoint.pt and --real CLIP"
            tasks.append(ScoringTask(model, experiment.checkpoint(model), frames.get(clip, ()), reason=reason))
        if tasks or not combination:
            name = " ".join(filter(None, [experiment.name, combination]))
            place = out.below(combination) if combination else out
            groups.append(Group(name, place, tasks, experiment, whole=not combination))
    return groups


def _frames(experiment: Experiment, models: TrainedModels) -> Mapping[str, tuple[ShardEntry, ...]]:
    experiment.pull_shards()
    return clip_frames(experiment, models.corpus, models.stride)

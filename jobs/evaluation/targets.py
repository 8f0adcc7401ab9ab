"""What the arguments of jobs/evaluate.py name: experiments, sweeps, single checkpoints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from infra.clip_folder import CHECKPOINT
from infra.errors import UsageError
from infra.ray_cluster import ClipShare
from infra.store import Store
from jobs.evaluation.clip import ScoringTask
from jobs.experiment.experiment import EVALUATION, Experiment
from jobs.experiment.models import TrainedModels, folder_of, trained_models
from model.config import Method, Precision
from model.metrics.features import VideoFeatures
from model.official import NETWORKS


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What was asked.

    Attributes:
        given: experiments, clips and checkpoints: paths or URIs.
        real: the real video of a clip, None for its experiment's frames.
        out: --out, None for evaluation/ in what is given.
        num_samples, seed: of each clip.
        nn: how many samples are searched for nearest neighbours; None: 2 or none, by how long it takes.
        method: a rival that is scored on the same clips too; None for none.
        precision: that samples are computed in; None: as in the training.
        latent_frames: of the z that samples are drawn from; None: as in the training.
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
    method: Method | None = None
    precision: Precision | None = None
    latent_frames: int | None = None
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


def resolve_targets(given: str, request: EvaluationRequest) -> list[Group]:
    """What an argument names: one group, of a sweep one a combination. Raises UsageError, StorageError."""
    store = Store.open(given, "EXPERIMENT")
    folder = folder_of(store)
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
    if folder is store and not {CHECKPOINT, NETWORKS} & store.names():
        mend = "give the folder of one, or the file"
        raise UsageError(f"{given}: no experiment of train_corpus.py or tune.py, and no trained clip; {mend}")
    if request.real:
        task = ScoringTask(folder.name, store.location, real=os.path.abspath(request.real))
        return [Group(folder.name, out, [task], None, whole=False)]
    experiment = Experiment(folder.parent)
    models = trained_models(experiment)
    chunks = models.chunks_of(folder.name) if models else ()
    if not models or not chunks:
        raise UsageError(f"{given}: no experiment around it has the frames of its clip; give --real CLIP")
    task = ScoringTask(folder.name, store.location, chunks, all_chunks=models.patches)
    return [Group(folder.name, out, [task], experiment, whole=False)]


def _experiment_groups(experiment: Experiment, models: TrainedModels, out: Store) -> list[Group]:
    frames, groups = models.frames(), []
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
            chunks = frames.get(clip, ())
            checkpoint = experiment.checkpoint(model)
            tasks.append(ScoringTask(model, checkpoint, chunks, all_chunks=models.patches, reason=reason))
        if tasks or not combination:
            name = " ".join(filter(None, [experiment.name, combination]))
            place = out.below(combination) if combination else out
            groups.append(Group(name, place, tasks, experiment, whole=not combination))
    return groups

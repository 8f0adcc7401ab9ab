"""The corpus job: find the clips, train what is missing, print the table, complete MLflow."""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from infra.errors import UsageError, printable, without_secrets
from infra.lease import Lease
from infra.ray_cluster import ray_session
from infra.tracking.runs import ParentRun, forget_clips
from jobs.experiment import runs
from jobs.experiment.corpus import Clip, Corpus, preview_corpus, read_corpus
from jobs.experiment.experiment import EVALUATION, Experiment, Submission, clip_folders
from jobs.experiment.machine import check_machine
from jobs.experiment.result import Result
from jobs.experiment.summary import summarise
from jobs.training import schedule
from jobs.training.progress import ProgressDisplay
from jobs.training.request import TrainRequest
from jobs.training.task import ClipTask
from model.config import TrainConfig
from model.pyramid import ladder


def run(request: TrainRequest, console: Console) -> bool:
    """Train every clip of the corpus that is not trained yet. Returns whether any source or clip failed.

    Raises UsageError, ConfigError, StorageError for what cannot work.
    """
    check_machine(request.experiment, request.tracking_uri)
    with request.experiment.driver(console.print) as lease:
        return _train(request, console, lease)


def preview(request: TrainRequest, console: Console) -> bool:
    """Print clips, ladder, resources and iterations; change nothing. Returns whether there is any clip."""
    with tempfile.TemporaryDirectory() as nowhere:
        corpus = preview_corpus(request.corpus, Path(nowhere), *request.settings.kinds)
        _print_unused(console, corpus)
        _print_plan(console, corpus, request)
        return bool(corpus.clips)


def _train(request: TrainRequest, console: Console, lease: Lease) -> bool:
    experiment, settings = request.experiment, request.settings

    # -- 1. what there is to do
    names = experiment.names()
    if not request.fresh:  # before anything is decoded for it
        experiment.check_definition(settings, clip_folders(names), ())
    corpus = find_clips(console, experiment, request.corpus, *settings.kinds)

    # -- 2. one experiment holds models of one configuration
    clip_ids = [clip.clip_id for clip in corpus.clips]
    folders = clip_folders(names, clip_ids)
    discarded = set(clip_ids) & folders if request.fresh else set()
    kept = folders - discarded
    experiment.check_definition(settings, kept, discarded)
    submission = Submission(without_secrets(request.corpus), request.preset, clip_ids, corpus.failures)
    parent = _open_tracking(request, console, submission, kept)
    for name in discarded | ({EVALUATION} if request.fresh else set()):
        experiment.remove(name)
    experiment.begin(settings, submission)

    # -- 3. train what is missing
    def task_of(clip: Clip) -> ClipTask:
        lease.check()
        workers = request.workers if clip.num_chunks > 1 else 1  # a short clip is one process's
        config = clip.settings(settings.of(clip.dims))
        return ClipTask(clip.clip_id, clip.source, config, experiment, parent, request.num_samples, workers)

    unwritten = _train_missing(request, console, corpus.clips, task_of)

    # -- 4. totals, and what MLflow did not take during an outage
    return _print_results(console, experiment, parent, submission, unwritten)


# -- what there is to do


def find_clips(console: Console, experiment: Experiment, given: str, *configs: TrainConfig) -> Corpus:
    """The clips of --corpus, decoded into the experiment's shards for the models of `configs` (see `read_corpus`).

    Raises UsageError, also if there are none.
    """
    with console.status("reading the corpus"):
        experiment.pull_shards()
        corpus = read_corpus(given, experiment, *configs)
        experiment.push_shards()
    _print_unused(console, corpus)
    if not corpus.clips:
        for _, reason in corpus.failures:
            console.print(reason, soft_wrap=True)
        raise UsageError(f"{printable(given)}: no clip that can be trained")
    return corpus


def _print_unused(console: Console, corpus: Corpus) -> None:
    for note in corpus.notes:
        console.print(note, soft_wrap=True)
    for source, frames in corpus.dropped.items():
        if frames:
            console.print(f"{Path(source).name}: {frames} frames beside the clip are not used", soft_wrap=True)


def _print_plan(console: Console, corpus: Corpus, request: TrainRequest) -> None:
    settings, experiment = request.settings, request.experiment
    console.print(
        f"{len(corpus.clips)} clips, preset {request.preset}, into {printable(experiment.uri)}", soft_wrap=True
    )
    results = experiment.results([clip.clip_id for clip in corpus.clips])
    done = {clip_id for clip_id, result in results.items() if result.status == "done"}
    todo = [clip.clip_id for clip in corpus.clips if clip.clip_id not in done]
    for clip in corpus.clips:
        config = settings.of(clip.dims)
        state = "to train" if clip.clip_id in todo else "done"
        chunks = f"  {clip.num_chunks} chunks" if clip.num_chunks > 1 else ""
        console.print(f"{clip.clip_id}  {clip.height}×{clip.width} px (H×W){chunks}  {state}")
        sizes = " ".join(map(str, ladder(config, clip.height, clip.width)))
        console.print(f"    ladder T×H×W: {sizes}", soft_wrap=True)
        measured = {"height": clip.height, "width": clip.width, "shorter": min(clip.height, clip.width)}
        if config.max_size > measured[config.ladder_side]:
            console.print("    the source is smaller than the finest scale, which will be enlarged")
    for _, reason in corpus.failures:
        console.print(f"not usable: {reason}", soft_wrap=True)
    share, kinds = request.share, {clip.dims for clip in corpus.clips}
    for config in (settings.of(dims) for dims in sorted(kinds, reverse=True)):
        of = {2: "an image", 3: "a clip"}[config.dims]
        iterations = config.iterations
        if iterations:
            console.print(f"iterations {of}: {' + '.join(map(str, iterations))} = {sum(iterations)}")
        if config.made_of_patches:
            first = f"scale {config.trained_scales} on" if iterations else "noise on, without training (VGPNN)"
            console.print(f"made of the clip's patches: from {first}")
    waiting = [clip for clip in corpus.clips if clip.clip_id in set(todo)]
    total = sum(sum(settings.of(clip.dims).iterations) for clip in waiting)
    console.print(f"iterations in all: at most {total}, for {len(todo)} clips")
    cores = share.cores(os.cpu_count() or 1, len(todo))
    console.print(f"resources a clip: {share.gpus} GPU where the cluster has GPUs, else {cores} CPU cores")


def _open_tracking(request: TrainRequest, console: Console, submission: Submission, kept: Collection[str]) -> ParentRun:
    """The corpus run in MLflow. A clip that has no folder has no earlier work, so an old run of it is forgotten too."""
    tags = {"corpus": submission.corpus, "preset": submission.preset}
    with console.status("opening MLflow"):
        parent = runs.open_parent_run(request.experiment, request.tracking_uri, tags)
        try:
            forget_clips(parent, [clip_id for clip_id in submission.clip_ids if clip_id not in kept])
        except ConnectionError as error:
            raise UsageError(str(error)) from error
    return parent


# -- training


def _train_missing(
    request: TrainRequest, console: Console, clips: Sequence[Clip], task_of: Callable[[Clip], ClipTask]
) -> dict[str, Result]:
    """Train every clip that is not done, so many at a time. Returns the results that the store did not take."""
    experiment, workers = request.experiment, request.workers
    found = experiment.results(clip.clip_id for clip in clips)
    todo = [clip for clip in clips if clip.clip_id not in found or found[clip.clip_id].status != "done"]
    if not todo:
        return {}
    unwritten = {}
    with contextlib.ExitStack() as stack:
        with console.status("starting Ray"):
            stack.enter_context(ray_session())
            slots = request.share.slots(sum(workers if clip.num_chunks > 1 else 1 for clip in todo))
            if any(clip.num_chunks > 1 for clip in todo) and workers > slots.count:
                raise UsageError(f"--workers-per-video {workers}: the cluster has room for {slots.count}; take fewer")
        todo.sort(key=lambda clip: -clip.num_chunks)  # longest first, so that none is left to run alone at the end
        display = stack.enter_context(ProgressDisplay(console, len(clips), len(clips) - len(todo)))
        for result in schedule.run(todo, task_of, slots, display):
            if result.status != "done" and experiment.results([result.clip_id]).get(result.clip_id) != result:
                unwritten[result.clip_id] = result
    return unwritten


def _print_results(
    console: Console,
    experiment: Experiment,
    parent: ParentRun,
    submission: Submission,
    unwritten: Mapping[str, Result],
) -> bool:
    """Print the table; give MLflow what it has not, or name the command that will. Returns whether anything failed."""
    with console.status("completing MLflow"):
        missing = runs.forward_missing(parent, experiment, submission.clip_ids)
        summary = summarise(experiment, submission, runs.links(parent, experiment), unwritten)
        missing |= runs.close(parent, summary, missing)
    console.print(summary.page(), soft_wrap=True)
    if parent.uri.startswith("sqlite"):
        command = ["mlflow", "server", "--host", "127.0.0.1", "--backend-store-uri", parent.uri]
        console.print(f"MLflow: {shlex.join(command)}", soft_wrap=True)
    if missing:
        clips = len(missing.keys() - {runs.TOTALS})
        what = " and ".join([f"{clips} clips"] * bool(clips) + [runs.TOTALS] * (runs.TOTALS in missing))
        reason = next(iter(missing.values()))
        text = f"warning: {what} not in MLflow ({reason}); this sends the rest, once it answers:"
        console.print(text, soft_wrap=True)
        console.print(runs.upload_command(experiment, parent), soft_wrap=True)
    return summary.failed > 0

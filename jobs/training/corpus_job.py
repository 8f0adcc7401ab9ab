"""The corpus job: find the clips, train what is missing, print the table, complete MLflow."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from infra.errors import StorageError, UsageError, counted, one_line, printable, without_secrets
from infra.lease import Lease
from infra.ray_cluster import ray_session
from infra.tracking.parent import ParentRun
from infra.tracking.runs import forget_clips
from jobs.experiment import runs
from jobs.experiment.corpus import Clip, Corpus, read_corpus
from jobs.experiment.driver_log import driver_log
from jobs.experiment.experiment import EVALUATION, Experiment, Submission, clip_folders
from jobs.experiment.gallery import Gallery, write_gallery
from jobs.experiment.machine import check_machine
from jobs.experiment.result import Result
from jobs.experiment.summary import SHOWN_ROWS, summarise
from jobs.invocation import own_words, start_of
from jobs.training import schedule
from jobs.training.board import Board
from jobs.training.decoding import DecodeTasks
from jobs.training.progress import ProgressDisplay, reading
from jobs.training.request import TrainRequest
from jobs.training.task import ClipTask
from model.config import TrainConfig
from pipeline.shards import Decode, in_turn

GALLERY_CLIPS = 500  # beyond so many, jobs/gallery.py makes the page when somebody asks for it
SHOWN_UNUSED = 3  # videos whose unused frames have a line each


def run(request: TrainRequest, console: Console) -> bool:
    """Train every clip of the corpus that is not trained yet. Returns whether any source or clip failed.

    Raises UsageError, ConfigError, StorageError for what cannot work.
    """
    check_machine(request.experiment, request.tracking_uri)
    with (
        request.experiment.driver(console.print) as lease,
        driver_log(request.experiment, console),
        contextlib.ExitStack() as session,  # of Ray, as soon as it is needed
    ):
        return _train(request, console, lease, session)


def _train(request: TrainRequest, console: Console, lease: Lease, session: contextlib.ExitStack) -> bool:
    experiment, settings = request.experiment, request.settings

    # -- 1. what there is to do
    names = experiment.names()
    if not request.fresh:  # before anything is decoded for it
        experiment.check_definition(settings, clip_folders(names), ())
    tasks = DecodeTasks(experiment, request.corpus, request.decode_tasks, session)
    kinds, misfit = settings.kinds, settings.misfit
    corpus = find_clips(console, experiment, request.corpus, *kinds, decode=tasks, misfit=misfit)

    # -- 2. one experiment holds models of one configuration
    clip_ids = [clip.clip_id for clip in corpus.clips]
    folders = clip_folders(names, clip_ids)
    discarded = set(clip_ids) & folders if request.fresh else set()
    kept = folders - discarded
    experiment.check_definition(settings, kept, discarded)
    command = printable(shlex.join(own_words()))
    submission = Submission(without_secrets(request.corpus), request.preset, clip_ids, corpus.failures, command)
    parent = _open_tracking(request, console, submission, kept)
    for name in discarded | ({EVALUATION} if request.fresh else set()):
        experiment.remove(name)
    experiment.begin(settings, submission)

    # -- 3. train what is missing
    def task_of(clip: Clip) -> ClipTask:
        lease.check()
        workers = request.workers if clip.num_chunks > 1 else 1  # a short clip is one process's
        config = clip.settings(settings.of(clip.dims))
        tags = {"preset": request.preset}
        return ClipTask(clip.clip_id, clip.source, config, experiment, parent, request.num_samples, workers, tags=tags)

    with runs.killed_if_stopped(parent):
        found = experiment.results(clip_id for clip_id in clip_ids if clip_id in kept)
        todo = [clip for clip in corpus.clips if not is_done(found.get(clip.clip_id), request.num_samples)]
        unwritten = _train_missing(request, console, todo, submission, task_of, session) if todo else {}

        # -- 4. totals, what MLflow did not take during an outage, and where to look
        return _print_results(console, experiment, parent, submission, unwritten)


# -- what there is to do


def find_clips(
    console: Console,
    experiment: Experiment,
    given: str,
    *configs: TrainConfig,
    decode: Decode = in_turn,
    misfit: str = "",
) -> Corpus:
    """The clips of --corpus, decoded into the experiment's shards for the models of `configs` (see `read_corpus`).

    Raises UsageError, also if there are none.
    """
    with reading(console) as advance:
        experiment.pull_shards()
        corpus = read_corpus(given, experiment, *configs, advance=advance, decode=decode, misfit=misfit)
        experiment.push_shards()
    for line in unused(corpus):
        console.print(line, soft_wrap=True)
    if not corpus.clips:
        for _, reason in corpus.failures:
            console.print(reason, soft_wrap=True)
    corpus.check(given)
    return corpus


def unused(corpus: Corpus) -> Iterator[str]:
    """Lines on what of the corpus is not used, and why."""
    yield from corpus.notes
    longer = {Path(source).name: frames for source, frames in corpus.dropped.items() if frames}
    for name, frames in [*longer.items()][:SHOWN_UNUSED]:
        yield f"{name}: {counted(frames, 'frame')} outside the clip {'is' if frames == 1 else 'are'} not used"
    if rest := [*longer.values()][SHOWN_UNUSED:]:
        videos = counted(len(rest), "more video")
        yield f"{counted(sum(rest), 'frame')} of {videos} are not used; --long uses all of them"


def _open_tracking(request: TrainRequest, console: Console, submission: Submission, kept: Collection[str]) -> ParentRun:
    """The corpus run in MLflow, a new one if --fresh leaves no clip with earlier work: other settings may train them.

    A clip that has no folder has no earlier work, so an old run of it is forgotten too.
    """
    tags = {"corpus": submission.corpus, "preset": submission.preset, "storage": printable(request.experiment.uri)}
    with console.status("opening MLflow"):
        parent = runs.open_parent_run(
            request.experiment, request.tracking_uri, tags, request.settings.main, anew=request.fresh and not kept
        )
        try:
            forget_clips(parent, [clip_id for clip_id in submission.clip_ids if clip_id not in kept])
        except ConnectionError as error:
            raise UsageError(str(error)) from error
    return parent


# -- training


def is_done(result: Result | None, num_samples: int) -> bool:
    """Whether nothing is left to do for a clip: it is trained, and has as many scored samples as are asked for."""
    return result is not None and result.status == "done" and result.diversity_n in (None, num_samples)


def _train_missing(
    request: TrainRequest,
    console: Console,
    todo: Sequence[Clip],
    submission: Submission,
    task_of: Callable[[Clip], ClipTask],
    session: contextlib.ExitStack,
) -> dict[str, Result]:
    """Train the clips that are not done, so many at a time. Returns the results that the store did not take."""
    experiment, workers = request.experiment, request.workers
    unwritten = {}
    with console.status("starting Ray"):
        session.enter_context(ray_session())
        slots = request.share.slots(sum(workers if clip.num_chunks > 1 else 1 for clip in todo))
        if any(clip.num_chunks > 1 for clip in todo) and workers > slots.count:
            raise UsageError(f"--workers-per-video {workers}: the cluster has room for {slots.count}; take fewer")
    # Longest first, so that none is left to run alone at the end.
    todo = sorted(todo, key=lambda clip: -clip.num_chunks)
    clips, unusable = len(submission.clip_ids), len(submission.failures)
    with ProgressDisplay(console, Board(clips + unusable, clips - len(todo), unusable)) as display:
        for result in schedule.run(todo, task_of, slots, display):
            if result.status != "done" and _stored(experiment, result.clip_id) != result:
                unwritten[result.clip_id] = result
    return unwritten


def _stored(experiment: Experiment, clip_id: str) -> Result | None:
    """The result of a clip that is in the storage; None where it is not, or the storage is away for a moment."""
    with contextlib.suppress(StorageError, UsageError):
        return experiment.results([clip_id]).get(clip_id)
    return None


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
        summary = summarise(experiment, submission, runs.run_ids(parent, experiment), unwritten)
    summary.table().print(console, {clip_id: parent.link(run_id) for clip_id, run_id in summary.runs.items()})
    console.print(summary.lines(), end="", soft_wrap=True)
    with console.status("making the gallery, completing MLflow"):
        gallery = written_gallery(experiment, console) if 0 < summary.done <= GALLERY_CLIPS else None
        missing |= runs.close(parent, experiment, submission, summary, missing)
    if missing:
        clips = len(missing.keys() - {runs.TOTALS})
        what = " and ".join([counted(clips, "clip")] * bool(clips) + [runs.TOTALS] * (runs.TOTALS in missing))
        reason = next(iter(missing.values()))
        text = f"warning: {what} not in MLflow ({reason}); this sends the rest, once it answers:"
        console.print(text, soft_wrap=True)
        console.print(runs.upload_command(experiment, parent), soft_wrap=True)
    for line in where_to_look(experiment, parent, gallery):
        console.print(line, soft_wrap=True)
    if len(summary.runs) > 1:
        which = f"compare (the first {SHOWN_ROWS})" if len(submission.clip_ids) > SHOWN_ROWS else "compare"
        console.print(f"{which}: {parent.comparison([*summary.runs.values()])}", soft_wrap=True)
    if summary.done_clips:
        command = [*start_of("sample"), f"{experiment.uri}/{summary.done_clips[0]}", "--out", "samples/"]
        console.print(f"next:    {shlex.join(command)}", soft_wrap=True)
    return summary.failed > 0


def written_gallery(experiment: Experiment, console: Console) -> Gallery | None:
    """The page of an experiment. What it cannot show costs the page and no more: the results are there."""
    try:
        return write_gallery([experiment])
    except Exception as error:
        console.print(f"warning: no gallery ({type(error).__name__}: {one_line(error)})", soft_wrap=True)
        return None


def where_to_look(experiment: Experiment, parent: ParentRun, gallery: Gallery | None) -> Iterator[str]:
    """The last lines of a job: its results as a page, and in MLflow."""
    make = shlex.join([*start_of("gallery"), experiment.uri])
    yield f"gallery: {gallery.uri if gallery else f'{make}  # makes it'}"
    if parent.is_local:
        serve = shlex.join([*start_of("ui"), "--storage", experiment.storage.uri])
        yield f"MLflow:  {serve}  # serves the pages below"
    yield f"runs:    {parent.page}"

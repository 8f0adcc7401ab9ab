"""An evaluation: score every clip of the targets in Ray tasks, print and write their tables, complete MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError
from rich.console import Console

from infra.errors import StorageError, UsageError, one_line, printable
from infra.ray_cluster import SPARE_TASKS, InFlight, ray_session
from infra.store import Store
from infra.tracking import forward, runs
from jobs.evaluation.clip import ScoringOptions, ScoringTask, score_clip, score_folder
from jobs.evaluation.table import ScoredClip, metrics, metrics_of_corpus, print_scores, tables
from jobs.evaluation.targets import EvaluationRequest, Group, resolve_targets
from jobs.experiment.experiment import EVALUATION
from jobs.experiment.runs import find_parent_run, tracking_uri
from model.config import Method
from model.metrics.scores import chunks_to_score
from pipeline import shards


def run(request: EvaluationRequest, console: Console) -> bool:
    """Score what the request names. Returns whether anything could not be scored. Raises UsageError, StorageError."""
    groups, failed = resolved(request, console)
    settings = {"n": request.num_samples, "seed": request.seed, "features": request.features.name}
    chosen = {"precision": request.precision, "z_frames": request.latent_frames}
    settings |= {name: value for name, value in chosen.items() if value is not None}
    for group, rows in zip(groups, score_all(request, groups, console), strict=True):
        written = _write_tables(console, group.name, group.out, settings, rows)
        _track(console, request, group, rows, written)
        failed |= any(row.complaints for row in rows)
    return failed


def resolved(request: EvaluationRequest, console: Console) -> tuple[list[Group], bool]:
    """What the request names, checked, and whether any of it cannot be used, which is printed.

    Raises UsageError, StorageError.
    """
    groups: list[Group] = []
    failed = False
    for given in request.given:
        try:
            groups += resolve_targets(given, request)
        except (UsageError, StorageError) as error:
            console.print(f"failed  {printable(str(error))}", style="red")
            failed = True
    if not any(group.tasks for group in groups):
        raise UsageError("nothing to evaluate")
    if len({group.out for group in groups}) < len(groups):
        raise UsageError("two arguments would share a folder of results; give them one by one, each with its --out")
    for group in groups:
        if group.experiment is not None:
            tracking_uri(group.experiment, request.tracking_uri)  # one that cannot work ends it here
    return [_with_rivals(group, request.method) for group in groups], failed


def run_on_folder(request: EvaluationRequest, samples: str, console: Console) -> bool:
    """Score the videos of a folder as one clip's, in this process, against request.real.

    Returns whether any could not be scored. Raises UsageError, StorageError.
    """
    assert request.real is not None
    out = Store.open(samples, "--samples").below(EVALUATION)
    if request.out:
        out = Store.open(request.out, "--out")
    row = score_folder(Path(samples), request.real, request.features, _options(request, out))
    _write_tables(console, row.clip_id, out, {"features": request.features.name}, [row])
    return bool(row.complaints)


def score_all(request: EvaluationRequest, groups: Sequence[Group], console: Console) -> list[list[ScoredClip]]:
    """The scores of each group, in the order of its clips: a Ray task a clip, as many at once as there is room for."""
    todo = [(group, task) for group in groups for task in group.tasks]
    rows = {(group.out, task.row): task.unscored(task.reason) for group, task in todo}
    waiting = iter([(group, task) for group, task in todo if not task.reason])
    in_flight: InFlight[tuple[Group, ScoringTask]] = InFlight()
    with ray_session(), console.status("scoring") as status:
        slots = request.share.slots(len(todo))
        body = ray.remote(max_retries=1, **slots.options)(score_clip)
        features = ray.put(request.features)
        while True:
            while len(in_flight) < slots.count + SPARE_TASKS and (following := next(waiting, None)):
                group, task = following
                try:
                    chunks = frames_of(task)
                except shards.ShardError as error:
                    rows[group.out, task.row] = task.unscored(one_line(error))
                    continue
                reference = body.remote(task, chunks, features, _options(request, group.out))
                in_flight.items[reference] = following
            if not in_flight:
                break
            status.update(f"scoring {next(iter(in_flight.items.values()))[1].row}")
            for (group, task), reference in in_flight.ended():
                try:
                    scored = ray.get(reference)
                except RayError as error:
                    scored = task.unscored(f"its task died: {one_line(error)}")
                rows[group.out, task.row] = scored
    return [[rows[group.out, task.row] for task in group.tasks] for group in groups]


def frames_of(task: ScoringTask) -> list[np.ndarray]:
    """The chunks that it needs, uint8 (T, H, W, 3) each; none where the task reads its own. Raises ShardError."""
    needed = task.chunks if task.all_chunks else chunks_to_score(task.chunks)
    return [shards.read_clip(entry).frames_thwc for entry in needed]


def _with_rivals(group: Group, method: Method | None) -> Group:
    """With a task for the rival behind each model's."""
    if method is None:
        return group
    both = [(task, replace(task, method=method, all_chunks=True)) for task in group.tasks]
    return replace(group, tasks=[task for pair in both for task in pair])


def _options(request: EvaluationRequest, out: Store) -> ScoringOptions:
    return ScoringOptions(
        out, request.num_samples, request.seed, request.nn, request.precision, request.latent_frames, request.keep
    )


# -- where the scores go


def _write_tables(
    console: Console, name: str, out: Store, settings: Mapping[str, Any], rows: Sequence[ScoredClip]
) -> Mapping[str, bytes]:
    """Print the scores and write their tables into `out`. Returns them by name. Raises StorageError."""
    contents = tables(name, settings, rows)
    print_scores(console, name, settings, rows)
    for file, content in contents.items():
        out.write(file, content)
    console.print(f"in {printable(out.uri)}")
    return contents


def _track(
    console: Console,
    request: EvaluationRequest,
    group: Group,
    rows: Sequence[ScoredClip],
    written: Mapping[str, bytes],
) -> None:
    """Add scores and files to the runs in MLflow that are there; a warning names those that are not."""
    if group.experiment is None:
        return
    scored = [row for row in rows if row.scores and not row.method]  # a rival has no run of its own
    uri = tracking_uri(group.experiment, request.tracking_uri)
    try:
        parent = find_parent_run(group.experiment, uri)
        clip_runs: Mapping[str, str] = {}
        if parent:
            clip_runs = forward.runs_of(parent, group.experiment.store, [row.clip_id for row in scored])
        if missing := [row.clip_id for row in scored if row.clip_id not in clip_runs]:
            console.print(f"warning: MLflow ({printable(uri)}) has no run of {', '.join(missing)}")
        for row in scored:
            if parent and row.clip_id in clip_runs:
                files = group.out.read(f"{row.clip_id}/{name}" for name in row.files)
                pictures = {name.rpartition("/")[2]: content for name, content in files.items()}
                runs.log_evaluation(parent, clip_runs[row.clip_id], metrics(row), pictures)
        if parent and group.whole:
            runs.log_evaluation(parent, parent.run_id, metrics_of_corpus(scored), written)
    except runs.ERRORS as error:
        console.print(
            f"warning: not all is in MLflow ({printable(uri)}): {one_line(error)}; run this again when it answers"
        )

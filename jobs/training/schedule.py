"""Clips to Ray tasks: a task a clip, a bounded number in flight, results as they come.

A task is one process on one slot. A video that several workers train together (ray_workers.py) is only submitted when
as many slots are free, and nothing overtakes it meanwhile: its workers start together, and neither wait for clips nor
starve behind them.

What happens when something fails:
    the clip itself          fit_task turns it into the clip's result; it is not tried again
    its process or node      Ray starts the task again, MAX_RESTARTS times; it goes on from its checkpoint
    memory, of GPU or host   again from its checkpoint with half the micro-batch, and at last with `low_memory`
    the driver               the same command goes on; `lease.Lease` keeps a second driver out
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from infra.errors import one_line
from infra.ray_cluster import SPARE_TASKS, InFlight, Slots
from jobs.experiment.corpus import Clip
from jobs.experiment.result import OutOfMemoryResult, Result
from jobs.training.progress import ProgressDisplay, forget, reported
from jobs.training.task import MAX_RESTARTS, ClipTask, fit_task, keep_failure
from pipeline import shards

POLL_S = 1.0
NAMED = 1000  # tasks that have their clip's name: Ray keeps 20 KB a name in the driver, for as long as that lives
Fit = Callable[[ClipTask, Sequence[Any]], Result]


def fit_together(task: ClipTask, chunks: Sequence[Any]) -> Result:
    """`ray_workers.fit_together`. Ray Train is imported by the process that leads, and no driver waits for it."""
    from jobs.training import ray_workers

    return ray_workers.fit_together(task, chunks)


def run(
    todo: Iterable[Clip],
    task_of: Callable[[Clip], ClipTask],
    slots: Slots,
    display: ProgressDisplay,
    alone: Fit = fit_task,
    together: Fit = fit_together,
) -> Iterator[Result]:
    """Fit every clip in a Ray task of its own; yields results in the order in which clips end.

    What is held for a clip is held while it is in flight: the memory of this process does not grow with the corpus.
    Ray must have been started.

    Args:
        alone: the body of a task that trains a clip in one process.
        together: of one that leads several workers.
    """
    single: Any = ray.remote(max_retries=MAX_RESTARTS, **slots.options)(alone)
    # Its workers take the slots.
    leading: Any = ray.remote(max_retries=MAX_RESTARTS, **slots.options | {"num_cpus": 0, "num_gpus": 0})(together)
    waiting, submitted = iter(todo), itertools.count()
    in_flight: InFlight[tuple[ClipTask, Any]] = InFlight()  # the task, and its chunks in Ray's object store

    def submit(task: ClipTask, chunks: Sequence[Any]) -> None:
        task = replace(task, slot=slots.resources)
        body = leading if task.workers > 1 else single
        name = f"fit_task:{task.clip_id}" if next(submitted) < NAMED else "fit_task"
        named = body.options(name=name)  # on Ray's pages, and of its process
        in_flight.items[named.remote(task, chunks)] = task, chunks

    def has_room(task: ClipTask) -> bool:
        """None to spare while several workers are on their way to a video, whose slots a spare task would take."""
        workers = [task.workers, *(other.workers for other, _ in in_flight.items.values())]
        return sum(workers) <= slots.count + (SPARE_TASKS if max(workers) == 1 else 0)

    def failed(task: ClipTask, reason: str) -> Result:
        return keep_failure(task, None, Result(task.clip_id, "failed", reason))

    following, displayed = next(waiting, None), 0.0
    while True:
        while following is not None and has_room(task := task_of(following)):
            clip, following = following, next(waiting, None)
            try:
                chunks = [ray.put(shards.read_clip(entry).frames_thwc) for entry in clip.chunks]
            except shards.ShardError as error:
                yield _ended(display, failed(task, str(error)))
                continue
            submit(task, chunks)
        if not in_flight:
            return
        for (task, chunks), reference in in_flight.ended(POLL_S):
            try:
                result = ray.get(reference)
            except RayTaskError as error:  # what goes wrong with the clip is in its result; this is not that
                result = failed(task, f"its task could not run: {one_line(error)}")
            except OutOfMemoryError as error:  # Ray ended the process before the machine ran out
                least = len(chunks) == 1 or task.config.micro_batch == 1  # how many there were is not known here
                result = OutOfMemoryResult(task.clip_id, reason=one_line(error), micro_batch=1 if least else 2)
            except RayError as error:
                result = failed(task, f"its process died {MAX_RESTARTS + 1} times: {one_line(error)}")
            if next_task := task.next_attempt(result):
                submit(next_task, chunks)
                continue
            if isinstance(result, OutOfMemoryResult):
                result = failed(task, f"{result.status}, also with low_memory: {result.reason}")
            forget(task.clip_id)
            yield _ended(display, result)
        if time.monotonic() - displayed > POLL_S:
            displayed = time.monotonic()
            clip_ids = [task.clip_id for task, _ in in_flight.items.values()]
            with contextlib.suppress(RayError):  # only the display
                display.update(reported(clip_ids), clip_ids)


def _ended(display: ProgressDisplay, result: Result) -> Result:
    display.finished(result.clip_id, result.reason)
    return result

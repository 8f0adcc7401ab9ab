"""Videos to shards by Ray tasks: a task decodes a batch of whole videos, on whatever node, and writes its shards.

The driver only plans. From an object store it also copies the finished shards to its own disk, as it reads
clips from there when their turn comes. A task that is killed starts again with its batch; a batch whose videos a node
does not see is decoded on the driver. What the tasks of a killed driver finished is kept, as the shards say so
themselves.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from infra.errors import UsageError, one_line, printable
from infra.ray_cluster import InFlight, ray_session
from jobs.experiment.experiment import Experiment
from pipeline.prepare import fetch_all
from pipeline.shards import Batch, OnClip, ShardError, Written, in_turn, write_batch
from pipeline.sources import Failure

MAX_RESTARTS = 3  # of a task whose process or node died
SEEN_S = 90.0  # until a file that another node wrote is seen here: NFS remembers listings for a minute


@dataclass(frozen=True)
class DecodeTasks:
    """Decodes batches as `pipeline.shards.Decode` says, in Ray tasks where there is more than one.

    Attributes:
        corpus: as --corpus names it: a node that lacks a file of a URI copies it.
        limit: tasks at once; None: the cores of the cluster; 0: the driver decodes.
        session: where Ray goes that this starts; whoever made it ends it.
    """

    experiment: Experiment
    corpus: str
    limit: int | None
    session: contextlib.ExitStack

    def __call__(self, batches: Sequence[Batch], on_clip: OnClip) -> list[Written]:
        """Raises ShardError, OSError and UsageError."""
        if self.limit == 0 or len(batches) < 2:
            return list(in_turn(batches, on_clip))
        self.session.enter_context(ray_session())
        written = self._in_tasks(batches, on_clip)
        self.experiment.pull_shards()
        self._check_seen({shard.name for part in written for shard in part.shards})
        return written

    def _at_once(self) -> int:
        """The limit, or the cores that the cluster has by now: it may grow when a task waits."""
        return self.limit or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def _in_tasks(self, batches: Sequence[Batch], on_clip: OnClip) -> list[Written]:
        # Nodes in turn: each has its own disk and network.
        body: Any = ray.remote(max_retries=MAX_RESTARTS, num_cpus=1, scheduling_strategy="SPREAD")(decode_on_node)
        longest_first = sorted(range(len(batches)), key=lambda place: -len(batches[place].clips))
        waiting = iter(longest_first)
        in_flight: InFlight[int] = InFlight()
        written: dict[int, Written] = {}
        try:
            while len(written) < len(batches):
                while len(in_flight) < self._at_once() and (place := next(waiting, None)) is not None:
                    in_flight.items[body.remote(batches[place], self.experiment, self.corpus)] = place
                for place, reference in in_flight.ended():
                    written[place] = _outcome(batches[place], reference)
                    for clip in batches[place].clips:
                        on_clip(clip.clip_id)
        finally:
            for reference in in_flight.items:  # after an error or Ctrl-C
                ray.cancel(reference, force=True)
        return [written[place] for place in range(len(batches))]

    def _check_seen(self, names: Collection[str]) -> None:
        """Wait until the shards are seen here. Raises UsageError if they are not."""
        folder, deadline = self.experiment.shards, time.monotonic() + SEEN_S
        while missing := set(names) - set(os.listdir(folder)):
            if time.monotonic() > deadline:
                cause = f"{min(missing)}, which another node wrote, is not seen here"
                mend = "give a --storage that all nodes share, or --decode-tasks 0"
                raise UsageError(f"{printable(folder)}: {cause}; {mend}")
            time.sleep(1.0)


def decode_on_node(batch: Batch, experiment: Experiment, corpus: str) -> Written | UsageError | None:
    """The body of a task: the shards of a batch, from here to the storage. None if its sources are not seen here.

    Of shards that cannot be written the error is returned: Ray would add a traceback to its line.
    """
    sources = {clip.source for clip in batch.clips}
    if not all(map(os.path.exists, sources)):
        fetch_all([corpus], experiment.fetched, sources)
    if not all(map(os.path.exists, sources)):
        return None
    try:
        experiment.shards.mkdir(parents=True, exist_ok=True)
        written = write_batch(replace(batch, folder=experiment.shards))
        experiment.push_shards(written.shards)
    except (ShardError, OSError) as error:
        return UsageError(one_line(error))
    return written


def _outcome(batch: Batch, reference: Any) -> Written:
    """What became of a batch. Raises what its task could not do: it concerns the storage, and not the videos."""
    try:
        written = ray.get(reference)
    except RayTaskError as error:
        raise error.cause from error
    except OutOfMemoryError:  # of a node with too many at once: the driver decodes one alone
        return write_batch(batch)
    except RayError as error:
        cause = f"the process that decoded it died {MAX_RESTARTS + 1} times ({one_line(error)})"
        sources = dict.fromkeys(clip.source for clip in batch.clips)
        lines = [f"{printable(source)}: {cause}; leave it out, or give --decode-tasks 0" for source in sources]
        return Written((), (), tuple(map(Failure, sources, lines)))
    if isinstance(written, UsageError):
        raise written
    return write_batch(batch) if written is None else written

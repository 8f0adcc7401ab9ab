"""Ray: a session, what a task may ask of the cluster that is there, and tasks in flight."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from infra.errors import UsageError
from infra.store import IN_RAY_JOB

ROOT = Path(__file__).resolve().parent.parent
OWN_PROCESS = {"max_calls": 1}  # a process a clip, so that one clip's memory or crash is never another's
# Submitted beyond what runs at once, so that a free slot never waits for a clip to be read.
SPARE_TASKS = 2
T = TypeVar("T")


@contextlib.contextmanager
def ray_session() -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names (`ray job submit` sets it), else start Ray on this machine.

    A process that is connected already stays so: whoever connected it ends the connection.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    runtime_env = None
    if address is None:
        # Workers of a Ray started here inherit the environment: they import this project from where it lies.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    elif IN_RAY_JOB not in os.environ:
        # Joined from outside a job: its nodes get this folder, as `ray job submit --working-dir` would give it.
        runtime_env = {"working_dir": str(ROOT)}
    ray.init(
        runtime_env=runtime_env,
        address=address or "local",
        include_dashboard=None if address else False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Slots:
    """What a task asks Ray for, as options of `ray.remote`, and how many tasks run at once."""

    options: dict[str, Any]
    count: int

    @property
    def resources(self) -> dict[str, float]:
        """num_cpus and, where there are GPUs, num_gpus."""
        return {name: self.options[name] for name in ("num_cpus", "num_gpus") if name in self.options}


@dataclass(frozen=True)
class ClipShare:
    """What a clip may take of the cluster.

    Attributes:
        gpus: where the cluster has any; 0.25 puts four clips on one.
        cpus: cores, where it has none; None: cores / clips, at least 1.
    """

    gpus: float = 1.0
    cpus: int | None = None

    def cores(self, there: int, clips: int) -> int:
        """CPU cores of a clip without a GPU, on a machine that has so many."""
        return self.cpus or max(1, there // max(1, clips))

    def slots(self, clips: int) -> Slots:
        """Slots in the cluster that is there, for so many clips. Raises UsageError for what no node has.

        Ray would let a task wait for ever for a GPU that does not exist.
        """
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus, cpus = ([node.get(name, 0) for node in nodes] for name in ("GPU", "CPU"))
        if max(gpus) > 0:
            share = self.gpus
            if share <= 0 or share > max(gpus) or (share > 1 and share % 1):
                most = f"at most {max(gpus):g}, the most a node has"
                raise UsageError(f"--gpus-per-clip {share:g}: above 0, {most}, and whole above 1")
            count = sum(min(gpu // share, cpu) for gpu, cpu in zip(gpus, cpus, strict=True))
            return Slots(OWN_PROCESS | {"num_gpus": share, "num_cpus": 1}, max(1, int(count)))
        cores = self.cores(int(max(cpus)), clips)
        if cores < 1 or cores > max(cpus):
            raise UsageError(f"--cpus-per-clip {cores}: at least 1, at most {max(cpus):g}, the most a node has")
        return Slots(OWN_PROCESS | {"num_cpus": cores}, max(1, int(sum(cpu // cores for cpu in cpus))))


@dataclass
class InFlight(Generic[T]):
    """Ray tasks that were submitted and have not ended, each with what it was submitted for."""

    items: dict[Any, T] = field(default_factory=dict)  # by the reference to the result to come

    def __bool__(self) -> bool:
        return bool(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def ended(self, timeout_s: float | None = None) -> Iterator[tuple[T, Any]]:
        """Take out every task that has ended: what it was for, and the reference to its result.

        Args:
            timeout_s: how long to wait for the first one, where none has ended yet; None: until one does.
        """
        import ray

        ready, _ = ray.wait(list(self.items), num_returns=len(self.items), timeout=0)
        if not ready:
            ready, _ = ray.wait(list(self.items), timeout=timeout_s)
        for reference in ready:
            yield self.items.pop(reference), reference

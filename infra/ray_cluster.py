"""Ray: a session, what a task may ask of the cluster that is there, and tasks in flight."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from infra.errors import UsageError, is_utf8, one_line, printable
from infra.ray_address import cluster_address, names_a_cluster
from infra.store import IN_RAY_JOB

ROOT = Path(__file__).resolve().parent.parent
OWN_PROCESS = {"max_calls": 1}  # a process a clip, so that one clip's memory or crash is never another's
# Submitted beyond what runs at once, so that a free slot never waits for a clip to be read.
SPARE_TASKS = 2
# What a process that joins a cluster from outside a job sends to its nodes: the code alone, whatever else is here.
# Lines as of .gitignore, of which the last that fits counts; Ray does not look into a folder that is left out.
ROOMS = ("infra", "pipeline", "model", "jobs")
FOLDERS = [f"!/{room}{below}" for room in ROOMS for below in ("", "/**")]
NO_CODE = ("*.*", "Dockerfile")  # files of the rooms; their folders have no dot in their names
ONLY_CODE = ["*", *FOLDERS, *NO_CODE, "!/.", *(f"!/{room}/**/*.py" for room in ROOMS)]
SOCKET_BYTES = 103  # of a socket's path, which every system takes
SHORT_FOLDER = "/tmp"
SOCKET = "session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"  # the longest that Ray makes
T = TypeVar("T")


def check_cluster() -> None:
    """Raises UsageError if `ray_session` could not join the cluster that RAY_ADDRESS names."""
    import ray

    if not ray.is_initialized():
        cluster_address()


@contextlib.contextmanager
def ray_session() -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names (`ray job submit` sets it), else start Ray on this machine.

    A process that is connected already stays so: whoever connected it ends the connection. Raises UsageError.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    address = cluster_address()
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"address": address or "local"}
        if address is None:
            # Workers of a Ray started here inherit the environment: they import this project from where it lies.
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
            options |= {"include_dashboard": False, "_temp_dir": stack.enter_context(_session_folder())}
        elif IN_RAY_JOB not in os.environ:
            options["runtime_env"] = {"working_dir": str(ROOT), "excludes": ONLY_CODE}
        # Else a handler of crashes is there in ray.init, which takes SIGTERM for one: it prints a page, and aborts what
        # has not ended 3 s later (ray-project/ray#64830). Of a crash faulthandler, which Ray enables, tells the stack.
        ray._private.ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
        # Ray keeps and logs the driver's command line, which may hold a password, or bytes that are no text.
        ray._private.utils.get_entrypoint_name = lambda: printable(shlex.join(sys.argv))
        before = signal.getsignal(signal.SIGTERM)
        try:
            with _folder_that_ray_can_name(), _fewer_processes():
                ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # in place of Ray's, which ends the process at once
        except SystemExit:  # Ray's own handler of SIGTERM, which is there before ours is back
            if callable(before):
                before(signal.SIGTERM, None)
            raise
        except Exception as error:  # Ray raises plain ones too
            what = (
                f"RAY_ADDRESS {printable(address)}: Ray does not let it join" if address else "Ray does not start here"
            )
            mend = "run it on a node of the cluster, by ray job submit" if address else "mend that, and run it again"
            raise UsageError(f"{what} ({one_line(error)}); {mend}") from error
        stack.callback(ray.shutdown)
        yield


@contextlib.contextmanager
def _folder_that_ray_can_name() -> Iterator[None]:
    """Run the body outside a working folder whose path is no UTF-8: Ray keeps that of the driver's."""
    before = os.getcwd()
    if not is_utf8(before):
        os.chdir(ROOT)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _fewer_processes() -> Iterator[None]:
    """A Ray that starts in the body has no process for what workers print, for further nodes, or for its pages, which
    `include_dashboard` only empties. Nothing here asks them, and each takes a second of a core and 100 MB."""
    from ray._private.node import Node

    with contextlib.ExitStack() as stack:
        for name in ("start_log_monitor", "start_monitor", "start_api_server"):
            stack.callback(setattr, Node, name, getattr(Node, name))
            setattr(Node, name, lambda self, **_: None)
        yield


@contextlib.contextmanager
def _session_folder() -> Iterator[str]:
    """Where a Ray that is started here keeps its sockets: where Ray itself would, by RAY_TMPDIR or TMPDIR; but a short
    folder that goes with the session, if nothing can be written there or the path is too long for a socket.

    Raises UsageError if there is none.
    """
    from ray._common.utils import get_default_ray_temp_dir

    usual = Path(get_default_ray_temp_dir()).absolute()
    if len(os.fsencode(usual / SOCKET)) <= SOCKET_BYTES and _is_writable(usual):
        yield str(usual)
        return
    try:
        folder = tempfile.mkdtemp(prefix="hpv", dir=SHORT_FOLDER)
    except OSError as error:
        cause = f"nothing can be written in {printable(usual)} or {SHORT_FOLDER} for Ray's sockets ({error.strerror})"
        raise UsageError(f"{cause}; set RAY_TMPDIR to a folder with a short path") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


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
        gpus: where the cluster has any; 0.25 puts four clips on one; None: one.
        cpus: cores, where it has none; None: all cores of the cluster / clips, at least 1, at most those of a node.
        max_gpus: how many a cluster grows to that starts a node when a task waits for it; None: it has what it has.
    """

    gpus: float | None = None
    cpus: int | None = None
    max_gpus: int | None = None

    @property
    def gpus_a_clip(self) -> float:
        """What it takes of a cluster that has GPUs."""
        return 1.0 if self.gpus is None else self.gpus

    def check(self) -> None:
        """Raises UsageError for what no cluster has."""
        share = self.gpus_a_clip
        if not share > 0 or (share > 1 and share % 1):
            raise UsageError(f"--gpus-per-clip {share:g}: above 0, and whole above 1")
        if self.max_gpus is not None and self.max_gpus < share:
            raise UsageError(f"--max-gpus {self.max_gpus}: at least --gpus-per-clip, which is {share:g}")
        if self.cpus is not None and self.cpus < 1:
            raise UsageError(f"--cpus-per-clip {self.cpus}: at least 1")

    def cores(self, there: int, clips: int) -> int:
        """CPU cores of a clip without a GPU, on a machine that has so many."""
        return self.cpus or max(1, there // max(1, clips))

    def slots(self, clips: int) -> Slots:
        """Slots in the cluster that is there, for so many clips. Raises UsageError for what no node has.

        Ray would let a task wait for ever for a GPU that does not exist. With `max_gpus` that is what starts a node.
        """
        import ray

        if self.max_gpus is not None:
            if not names_a_cluster():
                cause = f"--max-gpus {self.max_gpus}: a Ray that starts on this machine gets no further GPU"
                raise UsageError(f"{cause}; leave it out, or set RAY_ADDRESS")
            return self._gpu_slots(_shares_of(self.max_gpus, self.gpus_a_clip))
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus, cpus = ([node.get(name, 0) for node in nodes] for name in ("GPU", "CPU"))
        if max(gpus) > 0:
            share = self.gpus_a_clip
            if share <= 0 or share > max(gpus) or (share > 1 and share % 1):
                most = f"at most {max(gpus):g}, the most a node has"
                raise UsageError(f"--gpus-per-clip {share:g}: above 0, {most}, and whole above 1")
            count = sum(min(_shares_of(gpu, share), int(cpu)) for gpu, cpu in zip(gpus, cpus, strict=True))
            if count < 1:
                cause = "a clip takes a CPU core beside its GPU, and no node that has GPUs has a core"
                raise UsageError(f"{cause}; start these nodes with --num-cpus 1 or more")
            return self._gpu_slots(count)
        self.check_without_gpu()
        if max(cpus) < 1:
            cause = "the cluster has no GPU and no core for a clip"
            raise UsageError(f"{cause}; if it starts nodes when clips wait, give --max-gpus N, the most that it starts")
        cores = self.cpus or min(int(max(cpus)), self.cores(int(sum(cpus)), clips))
        if cores > max(cpus):
            raise UsageError(f"--cpus-per-clip {cores}: at least 1, at most {max(cpus):g}, the most a node has")
        return Slots(OWN_PROCESS | {"num_cpus": cores}, max(1, int(sum(cpu // cores for cpu in cpus))))

    def check_without_gpu(self) -> None:
        """Raises UsageError if GPUs were asked for, where there are none: CPUs would take weeks in their place."""
        if self.gpus is not None:
            mend = "see to the driver and the nodes, or leave it out to train on CPU cores"
            raise UsageError(f"--gpus-per-clip {self.gpus:g}: there is no GPU; {mend}")

    def _gpu_slots(self, count: int) -> Slots:
        return Slots(OWN_PROCESS | {"num_gpus": self.gpus_a_clip, "num_cpus": 1}, count)


def _shares_of(gpus: float, share: float) -> int:
    """How many clips fit on so many GPUs: 5 of a fifth on one, which 1 // 0.2 takes for 4."""
    return math.floor(gpus / share + 1e-6)


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

"""How the corpus job itself behaves with many clips: everything of it is real but the fit, which only sleeps.

    python jobs/simulate_scale.py --clips 10000 --nodes 10
    python jobs/simulate_scale.py --clips 10000 --storage s3://bucket/scale --runs 1000

Starts a Ray cluster of so many nodes on this machine, submits half of the clips, then all, and prints what each step
of a submission takes: infra/cluster/SCALING.md reports the figures. The first --runs clips have a folder and a run in
MLflow as real ones have; the others leave the two small files by which a submission knows what is done.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import counted
from jobs import command_line
from jobs.command_line import DONE

if TYPE_CHECKING:
    from jobs.experiment.corpus import Clip
    from jobs.experiment.experiment import Experiment
    from jobs.experiment.result import Result
    from jobs.training.task import ClipTask

FIT_S = 0.002
POINTS = 100  # of six figures each, that a clip with a run logs
WITH_RUN = "with a run"  # a tag of their tasks


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("simulate_scale.py", __doc__)
    add = parser.add_argument
    add("--clips", type=int, default=10_000, help="clips of the corpus, 20 or more")
    add("--nodes", type=int, default=10, help="nodes of the cluster, one slot each")
    add("--runs", type=int, default=200, help="clips that have a folder and a run in MLflow")
    add("--storage", type=command_line.path, help="a folder that is not there yet, or s3:// (default: a temporary one)")
    args = parser.parse(argv)
    if args.clips < 20 or args.nodes < 1 or args.runs < 0:
        parser.error(f"--clips {args.clips} --nodes {args.nodes} --runs {args.runs}: 20, 1 and 0 are the least")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    console = command_line.console()

    def run() -> int:
        with contextlib.ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            experiment = new_experiment(args.storage or str(scratch / "runs"))
            stack.enter_context(cluster(args.nodes))
            simulate(experiment, scratch, args.clips, args.nodes, args.runs)
        return DONE

    return command_line.exit_code(run, console, stopped="stopped")


def new_experiment(storage: str) -> Experiment:
    """Where the clips go. Raises UsageError for a storage that cannot be used, or that holds the experiment already."""
    from infra.errors import UsageError
    from jobs.experiment.experiment import Experiment

    experiment = Experiment.open(storage, "scale")
    if experiment.names():
        raise UsageError(f"{experiment.uri}: is there already; delete it, or give another --storage")
    return experiment


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[None]:
    """A Ray of so many nodes, one slot each, and a head without any; this process is connected to it."""
    from ray.cluster_utils import Cluster

    from infra.ray_cluster import ROOT, ray_session

    os.environ["PYTHONPATH"] = str(ROOT)
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            started.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        os.environ["RAY_ADDRESS"] = started.address
        with ray_session():
            yield
    finally:
        started.shutdown()


# -- the clips, and what a task does with one


def planned(folder: Path, count: int) -> Iterator[Clip]:
    """`count` clips, each read from a shard when its turn comes: one small clip under many names."""
    import numpy as np
    from PIL import Image

    from jobs.experiment.corpus import Clip
    from pipeline.clips import ClipSpec
    from pipeline.prepare import prepare

    frames = np.random.default_rng(0).integers(0, 256, (13, 48, 64, 3), dtype=np.uint8)
    source = folder / "source"
    source.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(source / f"{index:04d}.png")
    (entry,) = prepare([str(source)], folder / "shards", ClipSpec()).entries
    for index in range(count):
        yield Clip(f"clip-{index:06d}", entry.source, 48, 64, 13, 24.0, (entry,))


def stand_in(task: ClipTask, chunks: Sequence[Any]) -> Result:
    """What a task does beside training: it takes the frames, works, and leaves a result and a run in MLflow.

    The result's `minutes` is what folder and run took.
    """
    import ray

    from infra import clip_folder
    from jobs.experiment.result import Result

    assert ray.get(chunks[0]).size
    time.sleep(FIT_S)
    result = Result(task.clip_id, "done", svfid_lite0=1.0)
    if WITH_RUN in task.tags:
        return whole_clip(task, result)
    store, tracked = task.experiment.store, {"run_id": "0", "corpus_run_id": task.run.run_id}
    store.write_json(f"{task.clip_id}/{clip_folder.RESULT}", result.to_dict())
    store.write_json(f"{task.clip_id}/{clip_folder.TRACKED}", tracked)
    return result


def whole_clip(task: ClipTask, result: Result) -> Result:
    """The files of a clip in its folder, and its run in MLflow, as `task.fit_in_folder` makes them."""
    from infra import clip_folder
    from infra.clip_folder import ClipFolder
    from infra.files import write_json
    from infra.metrics_log import MetricsLog
    from infra.tracking.forward import forwarding
    from jobs.experiment.result import write_result
    from model.config import RUN_SETTINGS

    started = time.perf_counter()
    with ClipFolder(task.experiment.store, task.clip_id) as folder:
        (folder.path / clip_folder.SAMPLES).mkdir(parents=True, exist_ok=True)
        about = {"config": task.config.to_dict(), "source": task.source, "precision_used": "float32"}
        write_json(folder.path / clip_folder.CONFIG, about)
        log = MetricsLog(folder.path / clip_folder.LOG)
        with forwarding(task.run, task.clip_id, folder.path, RUN_SETTINGS):
            for point in range(POINTS):
                log.append(0, point + 1, {f"loss_{figure}": float(point) for figure in range(6)})
            write_json(folder.path / clip_folder.METRICS, {"svfid_lite0": 1.0})
            write_result(folder.path, result)
    return replace(result, minutes=(time.perf_counter() - started) / 60)


# -- the submissions


@dataclass
class Steps:
    """Prints what each step of a submission takes, and the memory of this process after it."""

    started: float = 0.0

    def done(self, what: str) -> None:
        """Print what was done since `started`, or since the last call."""
        now = time.perf_counter()
        print(f"  {what}: {now - self.started:.2f} s  driver {resident_mib():.0f} MiB", flush=True)
        self.started = time.perf_counter()


def simulate(experiment: Experiment, scratch: Path, count: int, nodes: int, runs_wanted: int) -> None:
    """Submit half of the clips, then all, each time by the steps of jobs/training/corpus_job.py."""
    clips = list(planned(scratch, count))
    has_run = {clip.clip_id for clip in clips[:runs_wanted]}
    what = f"{counted(count, 'clip')}, {counted(nodes, 'node')}, {counted(len(has_run), 'run')} in MLflow"
    print(f"{what}; driver {resident_mib():.0f} MiB", flush=True)
    for submitted in (clips[: count // 2], clips):
        submit(experiment, f"sqlite:///{scratch / 'mlflow.db'}", submitted, nodes, has_run)
    assert len(experiment.results([clip.clip_id for clip in clips])) == count


def submit(experiment: Experiment, tracking_uri: str, clips: Sequence[Clip], nodes: int, has_run: set[str]) -> None:
    """One submission, as jobs/training/corpus_job.py makes it."""
    from infra.ray_cluster import Slots
    from infra.tracking.runs import close_parent, forget_clips
    from jobs.experiment import runs
    from jobs.experiment.experiment import Submission, clip_folders
    from jobs.experiment.settings import ModelSettings
    from jobs.experiment.summary import summarise
    from jobs.training.task import ClipTask
    from model.presets import demo

    config = replace(demo(), iters_per_scale=POINTS)
    clip_ids = [clip.clip_id for clip in clips]
    print(f"submission of {counted(len(clips), 'clip')}", flush=True)
    steps = Steps(time.perf_counter())
    kept = clip_folders(experiment.names(), clip_ids)
    steps.done(f"listing of the storage, {counted(len(kept), 'folder')}")
    parent = runs.open_parent_run(experiment, tracking_uri, {}, config)
    forget_clips(parent, [clip_id for clip_id in clip_ids if clip_id not in kept])
    steps.done("opening MLflow")
    submission = Submission("scale", "demo", clip_ids, ())
    experiment.begin(ModelSettings(config), submission)
    steps.done("submission.json")
    found = experiment.results(kept)
    steps.done(f"markers of {counted(len(found), 'finished clip')}")

    def task_of(clip: Clip) -> ClipTask:
        tags = {WITH_RUN: "yes"} if clip.clip_id in has_run else {}
        return ClipTask(clip.clip_id, clip.source, config, experiment, parent, 2, tags=tags)

    todo = [clip for clip in clips if clip.clip_id not in found]
    train(todo, task_of, Slots({"num_cpus": 1}, nodes))
    steps.done("clips")
    missing = runs.forward_missing(parent, experiment, clip_ids)
    assert not missing, next(iter(missing.values()))
    steps.done("what MLflow lacks: none")
    summary = summarise(experiment, submission, runs.run_ids(parent, experiment))
    steps.done("table and results.csv")
    close_parent(parent, failed=False, metrics=summary.metrics(), table=summary.page(parent.link))
    steps.done("totals in MLflow")


def train(todo: Sequence[Clip], task_of: Any, slots: Any) -> None:
    """Put the clips through the real scheduling, and print on the way what a clip takes: time, the driver's own
    processor time, memory."""
    from rich.console import Console

    from jobs.training import schedule
    from jobs.training.board import Board
    from jobs.training.progress import ProgressDisplay

    display = ProgressDisplay(Console(file=open(os.devnull, "w")), Board(len(todo), 0))  # noqa: SIM115
    started, last = (time.perf_counter(), time.process_time()), (0.0, 0.0)
    every, since, with_run = max(1, len(todo) // 10), 0, []

    def each(then: tuple[float, float], count: int) -> str:
        wall, own = (time.perf_counter() - then[0]) * 1000, (time.process_time() - then[1]) * 1000
        return f"{wall / count:.1f} ms a clip, of which the driver's processor {own / count:.1f}"

    for done, result in enumerate(schedule.run(todo, task_of, slots, display, stand_in), 1):
        assert result.status == "done", result.reason
        if result.minutes:
            with_run.append(result.minutes * 60)
        if done == 1:
            started = last = time.perf_counter(), time.process_time()  # from here on processes are warm
        elif done % every == 0 or done == 1000:
            text = f"    {done} done  {each(last, done - max(since, 1))}  driver {resident_mib():.0f} MiB"
            if with_run:
                text += f"  folder and run {sum(with_run) / len(with_run):.2f} s a clip in its task"
            print(text, flush=True)
            last, since, with_run = (time.perf_counter(), time.process_time()), done, []
    print(f"    in all {each(started, max(1, len(todo) - 1))}", flush=True)


def resident_mib() -> float:
    """Memory of this process, MiB."""
    return float(psutil.Process().memory_info().rss) / 2**20


if __name__ == "__main__":
    sys.exit(main())

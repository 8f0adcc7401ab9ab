"""How the corpus job itself behaves with many clips: its real scheduling and storage, and a fit that only sleeps.

    python jobs/simulate_scale.py --clips 10000 --nodes 10

Starts a Ray cluster of so many nodes on this machine, runs jobs/training/schedule.py over the clips, kills nothing,
trains nothing, and prints the figures that infra/cluster/SCALING.md reports. A clip's own cost (its process, training,
MLflow) is not in them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import counted
from jobs import command_line
from jobs.command_line import DONE

if TYPE_CHECKING:
    from jobs.experiment.corpus import Clip
    from jobs.experiment.result import Result
    from jobs.training.task import ClipTask

FIT_S = 0.002


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the process with code 2 on a bad one."""
    parser = command_line.Parser("simulate_scale.py", __doc__)
    parser.add_argument("--clips", type=int, default=10_000, help="clips of the corpus, 20 or more")
    parser.add_argument("--nodes", type=int, default=10, help="nodes of the cluster, one slot each")
    return parser.parse(argv)


def stand_in(task: ClipTask, chunks: Sequence[Any], actor: Any) -> Result:
    """What a task does beside training: it takes the frames, works, and leaves a result."""
    import ray

    from infra.clip_folder import RESULT
    from jobs.experiment.result import Result

    time.sleep(FIT_S)
    result = Result(task.clip_id, "done", minutes=float(ray.get(chunks[0]).size), svfid_lite0=1.0)
    task.experiment.store.write_json(f"{task.clip_id}/{RESULT}", result.to_dict())
    return result


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


def resident_mib() -> float:
    """Memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    args = parse(argv)
    from ray.cluster_utils import Cluster

    from infra.ray_cluster import ROOT, ray_session

    os.environ["PYTHONPATH"] = str(ROOT)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(args.nodes):
        cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        with tempfile.TemporaryDirectory() as temporary, ray_session():
            simulate(Path(temporary), args.clips, args.nodes)
    finally:
        cluster.shutdown()
    return DONE


def simulate(folder: Path, count: int, nodes: int) -> None:
    """Run half of the clips, then all as a second submission, and print what it takes."""
    from rich.console import Console

    from infra.ray_cluster import Slots
    from infra.store import Store
    from infra.tracking.runs import ParentRun
    from jobs.experiment.experiment import Experiment
    from jobs.training import schedule
    from jobs.training.progress import ProgressDisplay
    from jobs.training.task import ClipTask
    from model.presets import demo

    experiment = Experiment(Store(str(folder / "runs")))
    config = replace(demo(), iters_per_scale=1)
    parent = ParentRun("sqlite:///nowhere", "0", "0")
    display = ProgressDisplay(Console(file=open(os.devnull, "w")), count, 0)  # noqa: SIM115
    clips = list(planned(folder, count))

    def task_of(clip: Clip) -> ClipTask:
        return ClipTask(clip.clip_id, clip.source, config, experiment, parent, 2)

    half = clips[: count // 2]
    print(
        f"{counted(count, 'clip')}, {counted(nodes, 'node')}, {len(half)} first; driver {resident_mib():.0f} MiB",
        flush=True,
    )
    done = 0
    for part in (half, None):
        if part is None:  # what a second submission does: one listing, all markers at once, the rest of the clips
            started = time.perf_counter()
            kept = experiment.names()
            found = experiment.results([clip.clip_id for clip in clips if clip.clip_id in kept])
            print(f"markers of {len(found)} finished clips read in {time.perf_counter() - started:.2f} s", flush=True)
            part = [clip for clip in clips if clip.clip_id not in found]
        started, first = time.perf_counter(), done
        for result in schedule.run(part, task_of, Slots({"num_cpus": 1}, nodes), display, stand_in):
            assert result.status == "done", result.reason
            done += 1
            if done == first + 1:
                started = time.perf_counter()  # from here on workers are warm
            if done % (count // 10) == 0:
                each = (time.perf_counter() - started) / max(1, done - first - 1)
                text = f"{done} done  {each * 1000:.1f} ms a clip  driver {resident_mib():.0f} MiB"
                print(text, flush=True)
    assert len(experiment.results([clip.clip_id for clip in clips])) == count


if __name__ == "__main__":
    sys.exit(main())

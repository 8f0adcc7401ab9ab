"""How the corpus job itself behaves with many clips: its real scheduling and storage, and a fit that only sleeps.

    python infra/simulate_scale.py --clips 10000 --nodes 10

Starts a Ray cluster of so many nodes on this machine, runs jobs/schedule.py over the clips, kills nothing, trains
nothing, and prints the figures that infra/SCALING.md reports. A clip's own cost (its process, training, MLflow) is not
in them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402

from infra.store import Store  # noqa: E402
from infra.tracking.runs import Corpus  # noqa: E402
from jobs.experiment.corpus import Work  # noqa: E402
from jobs.experiment.result import Result, read_results  # noqa: E402
from jobs.training import schedule  # noqa: E402
from jobs.training.progress import Board  # noqa: E402
from model.presets import demo  # noqa: E402
from pipeline import clips, shards  # noqa: E402

FIT_S = 0.002


def stand_in(job: schedule.Job, chunks: Sequence[Any], standings: Any) -> Result:
    """What a task does beside training: it takes the frames, works, and leaves a result."""
    import ray

    time.sleep(FIT_S)
    result = Result(job.clip_id, "done", minutes=float(ray.get(chunks[0]).size), svfid_lite0=1.0, diversity=0.5)
    job.store.write(f"{job.clip_id}/result.json", json.dumps(asdict(result)).encode())
    return result


def planned(folder: Path, count: int) -> Iterator[Work]:
    """`count` clips, each read from a shard when its turn comes: one small clip under many names."""
    frames = np.random.default_rng(0).integers(0, 256, (13, 48, 64, 3), dtype=np.uint8)
    source = folder / "source"
    source.mkdir()
    from PIL import Image

    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(source / f"{index:04d}.png")
    shards.write(clips.plan([str(source)]).clips, folder / "shards")
    (entry,) = shards.index(folder / "shards")
    for index in range(count):
        yield Work(f"clip-{index:06d}", entry.source, 48, 64, 13, 24.0, (entry,))


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=10, help="nodes of the cluster, one slot each")
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(args.nodes):
        cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        with tempfile.TemporaryDirectory() as temporary, schedule.ray_session():
            simulate(Path(temporary), args.clips, args.nodes)
    finally:
        cluster.shutdown()
    return 0


def simulate(folder: Path, count: int, nodes: int) -> None:
    store = Store(str(folder / "runs"))
    config = replace(demo(), iters_per_scale=1)
    corpus = Corpus("sqlite:///nowhere", "0", "0")
    board = Board(Console(file=open(os.devnull, "w")), count, 0, sum(config.iterations))  # noqa: SIM115
    works = list(planned(folder, count))

    def job_of(work: Work) -> schedule.Job:
        return schedule.Job(work.clip_id, work.source, config, store, corpus, 2)

    half = works[: count // 2]
    print(f"{count} clips, {nodes} nodes, {len(half)} first; driver {resident_mib():.0f} MiB", flush=True)
    done = 0
    for part in (half, None):
        if part is None:  # what a second submission does: one listing, all markers at once, the rest of the clips
            started = time.perf_counter()
            kept = store.names()
            found = read_results(store, [work.clip_id for work in works if work.clip_id in kept])
            print(f"markers of {len(found)} finished clips read in {time.perf_counter() - started:.2f} s", flush=True)
            part = [work for work in works if work.clip_id not in found]
        started, first = time.perf_counter(), done
        slots = schedule.Slots({"num_cpus": 1}, nodes)
        for result in schedule.run(part, job_of, slots, board, stand_in):
            assert result.status == "done", result.reason
            done += 1
            if done == first + 1:
                started = time.perf_counter()  # from here on workers are warm
            if done % (count // 10) == 0:
                each = (time.perf_counter() - started) / max(1, done - first - 1)
                text = f"{done} done  {each * 1000:.1f} ms a clip  driver {resident_mib():.0f} MiB"
                print(text, flush=True)
    assert len(read_results(store, [work.clip_id for work in works])) == count


if __name__ == "__main__":
    sys.exit(main())

"""Models of several samples: micro-batches, subsets of the samples, and processes that share them."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from model import checkpoint as ckpt
from model.checkpoint import CheckpointError
from model.config import ConfigError
from model.training.loop import train_clip
from model.training.memory import OutOfMemory, activation_bytes, largest_micro_batch
from model.training.training_set import TrainingSet
from model.training.workers import PeerLost, Workers
from tests.forked import FORK
from tests.ports import free_port

from .conftest import SIZES, in_default_type, real_chunks, several_pyramids, tiny, train
from .float64 import in_float64

QUICK = {"channels": 4, "iters_per_scale": 2}  # for float64
EXACT = 1e-8  # of a tensor's moments, or of the learning rate; 1e-11 was seen


def work(folder: Path, iterations: int, chunks_per_iter: int | None, place: Mapping[str, object]) -> None:
    """The body of a process of several, which `place` tells of. Its scales, and the loss of a peer, are in `said`."""
    os.environ.update({name: str(value) for name, value in place.items()})
    folder.mkdir()
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    config = tiny(channels=4, iters_per_scale=iterations, chunks_per_iter=chunks_per_iter)
    path = folder / "checkpoint.pt"
    with open(folder / "said", "w") as said:
        try:
            with in_float64():
                chunks = in_default_type(real_chunks(5))
                for scale in train_clip(config, chunks, clip_id="c", path=path, log=lambda _: None):
                    print(scale.n, file=said)
        except PeerLost:
            print("peer lost", file=said)
    assert "torch._dynamo" not in sys.modules  # nothing is compiled, and the compiler takes seconds to import


def start(folder: Path, size: int, iterations: int, chunks_per_iter: int | None = None) -> list[Any]:
    """Processes that train together, each in its folder of_{rank}."""
    shared = {
        "WORLD_SIZE": size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": 1,  # unset, accelerate takes all cores for each
    }
    workers = []
    for rank in range(size):
        place = {**shared, "RANK": rank, "LOCAL_RANK": rank}
        workers.append(FORK.Process(target=work, args=(folder / f"of_{rank}", iterations, chunks_per_iter, place)))
        workers[-1].start()
    return workers


def together(folder: Path, size: int, chunks_per_iter: int | None) -> ckpt.Checkpoint:
    for rank, worker in enumerate(start(folder, size, 2, chunks_per_iter)):
        worker.join(120)
        assert worker.exitcode == 0 and (folder / f"of_{rank}" / "said").read_text().split() == list("01234")
    assert not (folder / "of_1" / "checkpoint.pt").exists()  # only the first one writes
    return ckpt.load(folder / "of_0" / "checkpoint.pt")


def assert_close(ours: ckpt.Checkpoint, alone: ckpt.Checkpoint, lr: float) -> None:
    """Two trainings in float64 that differ in the order of summation. Adam's steps do not tell a sum from a mean; its
    moments do. In float32 steps of lr go to either side where a gradient is 0 but for rounding.
    """
    for a, b in zip(ours.optimizers, alone.optimizers, strict=True):
        moments = [torch.cat([s["exp_avg"].flatten() for s in states["state"].values()]) for states in (a, b)]
        assert moments[0].dtype == torch.float64
        assert (moments[0] - moments[1]).norm() < EXACT * moments[1].norm()
    assert ours.noise_amps == pytest.approx(alone.noise_amps, rel=EXACT)
    assert alone.critic is not None and ours.critic is not None
    for a, b in ((ours.generators, alone.generators), (ours.critic, alone.critic)):
        for name in b:
            # Of D's last bias the gradient is rounding alone, about 1e-16, which Adam divides by 1e-8.
            tolerance = 1e-5 if name == "tail.bias" else EXACT
            assert (a[name] - b[name]).abs().max() < tolerance * lr, name


@pytest.mark.slow
@pytest.mark.parametrize(("size", "chunks_per_iter"), [(2, None), (3, None), (2, 3)])
def test_processes_that_share_the_samples_train_what_one_does(tmp_path, size, chunks_per_iter):
    """Five chunks of a real clip on two processes: three and two. On three: two, two and one."""
    config = tiny(chunks_per_iter=chunks_per_iter, **QUICK)
    with in_float64():
        chunks = in_default_type(real_chunks(5))
        for _ in train_clip(config, chunks, clip_id="c", path=tmp_path / "alone.pt", log=lambda _: None):
            pass
    assert_close(together(tmp_path, size, chunks_per_iter), ckpt.load(tmp_path / "alone.pt"), config.lr)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_whose_peer_dies_says_so(tmp_path, victim):
    workers = start(tmp_path, 2, 1000)
    deadline = time.monotonic() + 60
    while not (tmp_path / "of_0" / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    workers[victim].kill()
    survivor = workers[1 - victim]
    survivor.join(60)
    assert survivor.exitcode == 0
    assert (tmp_path / f"of_{1 - victim}" / "said").read_text().splitlines()[-1] == "peer lost"
    assert ckpt.load(tmp_path / "of_0" / "checkpoint.pt").samples == 5
    workers[victim].join()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"freeze": False, "latent": "patchvae"}])
def test_the_micro_batch_changes_nothing_but_rounding(tmp_path, changes):
    finals = []
    for micro_batch in (1, 2, 3):
        config = tiny(micro_batch=micro_batch, **QUICK, **changes)
        with in_float64():
            train(config, tmp_path / f"{micro_batch}.pt", samples=3)
        finals.append(ckpt.load(tmp_path / f"{micro_batch}.pt"))
    assert_close(finals[0], finals[2], config.lr)
    assert_close(finals[1], finals[2], config.lr)


class OneOf:
    """Stands for the process `rank` of `size`, as far as the samples are concerned."""

    device = torch.device("cpu")

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    share = Workers.share


def samples_of(reals, iteration):
    batches = reals.batches(3, iteration)
    assert all(len(batch) <= 2 for batch in batches)
    return [sample for batch in batches for sample in batch.examples]


def test_every_iteration_takes_so_many_samples_and_in_time_all_equally_often():
    config, pyramids = tiny(chunks_per_iter=3, micro_batch=2), several_pyramids(5)
    team = [TrainingSet(pyramids, config, OneOf(rank, 2)) for rank in range(2)]
    counts = dict.fromkeys(range(5), 0)
    for iteration in range(1, 2001):
        taken = [samples_of(reals, iteration) for reals in team]
        assert sorted(map(len, taken)) == [1, 2]
        both = [sample for samples in taken for sample in samples]
        assert len(set(both)) == 3  # the processes agree on which, and each takes its own
        for sample in both:
            counts[sample] += 1
    # 2000 iterations take a sample 1200 times, give or take 22 (one standard deviation)
    assert all(abs(count - 1200) < 110 for count in counts.values())
    assert team[0].weight == pytest.approx(5 / 3)  # times the chance of 3/5: each sample's loss, once


def test_random_numbers_depend_on_the_sample_and_not_on_its_batch():
    one, all_ = (TrainingSet(several_pyramids(5), tiny(micro_batch=size), Workers()) for size in (1, 5))
    alone = [s for batch in one.batches(2, 7) for s in batch.rngs()]
    (batch,) = all_.batches(2, 7)
    first = [torch.rand(3, generator=s).tolist() for s in alone]
    assert first == [torch.rand(3, generator=s).tolist() for s in batch.rngs()]
    others = [b.rngs()[0] for n, k in ((2, 8), (3, 7)) for b in one.batches(n, k)[:1]]
    everything = first + [torch.rand(3, generator=s).tolist() for s in others]
    assert len({tuple(numbers) for numbers in everything}) == 7


def test_the_micro_batch_follows_memory(monkeypatch):
    """As many samples as fit half of the memory, by the estimate; at least one."""
    config = tiny(channels=64)
    one = activation_bytes(config, SIZES, 4, torch.device("cpu"))
    for memory, expected in ((2 * one * 3.5, 3), (2 * one, 1), (one / 9, 1)):
        monkeypatch.setattr("model.training.memory.memory_bytes", lambda device, memory=memory: memory)
        assert largest_micro_batch(config, SIZES, 4, torch.device("cpu")) == expected


def test_a_checkpoint_of_another_number_of_samples_is_refused(tmp_path):
    train(tiny(), tmp_path / "c.pt", samples=2, scales=1)
    with pytest.raises(
        CheckpointError, match=r"of 2 samples, there are 3 now; use another experiment name, or --fresh"
    ):
        train(tiny(), tmp_path / "c.pt", samples=3, scales=1)


def test_what_cannot_be_trained_together_is_refused():
    with pytest.raises(ValueError, match="3 workers for 2 samples an iteration; every worker needs one, take fewer"):
        TrainingSet(several_pyramids(5), tiny(chunks_per_iter=2), OneOf(0, 3))
    for wrong in ("chunks_per_iter=0", "micro_batch=0", "crops=-1"):
        with pytest.raises(ConfigError, match=wrong):
            tiny().with_overrides([wrong])


def test_a_training_that_runs_out_of_memory_says_how_many_samples_it_held(tmp_path, monkeypatch):
    def hungry(*_):
        torch.empty(2**50, dtype=torch.uint8)

    monkeypatch.setattr("model.training.steps._gan_step", hungry)
    with pytest.raises(OutOfMemory, match="can't allocate memory") as caught:
        train(tiny(micro_batch=2), tmp_path / "c.pt", samples=3)
    assert caught.value.micro_batch == 2
    assert ckpt.load(tmp_path / "c.pt").scale == 2  # the last one of the VAE: where it goes on


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"vae_levels": 0}], ids=["method", "gan_only"])
def test_a_training_of_several_samples_goes_on_to_the_bit(tmp_path, changes):
    config = tiny(chunks_per_iter=2, micro_batch=1, **changes)
    train(config, tmp_path / "whole.pt", samples=3)
    for stop_at in ((0, 2), (1, 3), (4, 2)):
        train(config, tmp_path / "stopped.pt", samples=3, stop_at=stop_at)
    train(config, tmp_path / "stopped.pt", samples=3)
    whole, stopped = ckpt.load(tmp_path / "whole.pt"), ckpt.load(tmp_path / "stopped.pt")
    assert all(torch.equal(whole.generators[name], stopped.generators[name]) for name in whole.generators)
    assert json.dumps(whole.config.to_dict()) == json.dumps(stopped.config.to_dict())

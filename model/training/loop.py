"""Training of one model, in the paper's order: `train_clip` loops over scales, `train_scale` over iterations.

Scales n < vae_levels are trained as patch-VAE, the others as patch-GAN (steps.py: blocks 1, 2 and 3).
A model is trained on one clip or on several examples, whose losses are summed (training_set.py), by one process or by
several that share the examples (workers.py).

Everything that influences the result is in `TrainState` and so in the checkpoint: a run that is stopped goes on from
its last checkpoint as if it had not been: to the bit on a CPU; CUDA sums some gradients in no fixed order.

>>> for scale in train_clip(config, [pyramid], clip_id="bikes", path=Path("checkpoint.pt"), log=print):
...     print(scale.n, scale.train_s)  # a picture, a metric: whatever wants to see each finished scale
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model import checkpoint as ckpt
from model.config import TrainConfig
from model.device import peak_gib
from model.networks.generators import GeneratorStack
from model.training.memory import OutOfMemory, is_out_of_memory
from model.training.state import TrainState, check_same, first_state, next_scale, restore, set_learning_rate, untrained
from model.training.steps import iterate
from model.training.training_set import Pyramid, TrainingSet
from model.training.workers import Workers

CHECKPOINT_S = 60.0  # a slow machine also saves after so many seconds, at the next logged iteration
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """One logged point: losses of scale n (means since the point before), sec_per_iter, peak_gib."""

    scale: int
    iteration: int  # finished iterations of the scale
    metrics: dict[str, float]


Log = Callable[[Progress], None]


class NonFiniteLoss(RuntimeError):
    """A loss became NaN or infinite; the message names scale, iteration and term."""


@dataclass(frozen=True)
class ScaleDone:
    """A finished scale: its index, the stack trained so far (on the training device), seconds of training so far."""

    n: int
    stack: GeneratorStack
    train_s: float


def train_clip(
    config: TrainConfig,
    pyramids: Sequence[Pyramid],
    *,
    clip_id: str,
    path: Path,
    log: Log,
    warn: Callable[[str], None] = logger.warning,
) -> Iterator[ScaleDone]:
    """Train every scale of one model, from `path` on if it holds a checkpoint; yields after each finished scale.

    Scales that patches make (`config.trained_scales`) are not trained; of a method without networks there is none.
    Where several processes train it together, all call this with the same pyramids; the leading one alone reads and
    writes `path`, and calls `log` and `warn`.

    Args:
        pyramids: one an example (training_set.py); of a clip there is one.
        path: the checkpoint, written every config.checkpoint_every iterations and after each scale; the one before it
            is kept beside it, and used where `path` is damaged.
        log: called every config.log_every iterations, and before each checkpoint.
        warn: called with one line, if the checkpoint before was used.

    Raises:
        NonFiniteLoss: a loss, or what a step made of the weights, is NaN or infinite; the last checkpoint is from
            before it.
        ValueError: the pyramids have not config.num_scales scales, or cannot be trained together.
        CheckpointError: no checkpoint is left that can be read, or it belongs to another config or other examples.
        StorageError: a checkpoint cannot be written; the ones before it are as they were.
        PeerLost: another process of those that train together is gone.
        OutOfMemory: says how many examples were in memory at once; micro_batch and low_memory make it less.
    """
    workers = Workers()
    device = workers.device
    training_set = TrainingSet(pyramids, config, workers)
    saved = workers.from_leader(ckpt.resume(path, warn) if workers.leads else None)
    if config.trained_scales == 0:
        if saved:
            check_same(saved, training_set, clip_id, path)
        elif workers.leads:
            ckpt.save(untrained(training_set, clip_id), path)
        return
    state = restore(saved, training_set, clip_id, path) if saved else first_state(config, training_set.sizes, device)

    def save(state: TrainState) -> None:
        if workers.leads:
            ckpt.save(state.snapshot(clip_id, len(training_set)), path)

    while True:
        with _counting_examples(training_set, state.scale):
            train_scale(state, training_set, log if workers.leads else lambda _: None, save)
        yield ScaleDone(state.scale, state.stack, state.train_s)
        if state.scale == config.trained_scales - 1:
            return
        with _counting_examples(training_set, state.scale + 1):
            state = next_scale(state, training_set)


@contextlib.contextmanager
def _counting_examples(training_set: TrainingSet, n: int) -> Iterator[None]:
    """Turns what is raised when memory does not suffice into an OutOfMemory that counts the examples held at once."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory(str(error), training_set.micro_batch_size(n)) from error
        raise


def train_scale(state: TrainState, training_set: TrainingSet, log: Log, save: Callable[[TrainState], None]) -> None:
    """Iterate the current scale to its end. Losses stay on the device until they are logged: no sync an iteration."""
    config, n = state.stack.config, state.scale
    total = config.iterations[n]
    recent: list[dict[str, Tensor]] = []
    started = saved = time.perf_counter()
    while state.iteration < total:
        set_learning_rate(state, total)
        recent.append(iterate(state, training_set))
        state.iteration += 1
        saving = state.iteration % config.checkpoint_every == 0 or state.iteration == total
        logging = state.iteration % config.log_every == 0 or saving
        if logging:
            losses = _finite_means(
                recent, training_set, n, state.iteration
            )  # waits for the device: the time is complete
            now = time.perf_counter()
            speed = {"sec_per_iter": (now - started) / len(recent), "peak_gib": peak_gib(training_set.workers.device)}
            log(Progress(n, state.iteration, {**losses, **speed}))
            recent = []
            state.train_s += now - started
            if saving or now - saved > CHECKPOINT_S:
                _check_weights(state)
                save(state)
                saved = now
            started = time.perf_counter()


# -- what is logged


def _finite_means(
    recent: Sequence[dict[str, Tensor]], training_set: TrainingSet, n: int, iteration: int
) -> dict[str, float]:
    """Mean over examples and recent iterations of each loss, `iteration` the last. One transfer from the device."""
    names = list(recent[0])
    sums = torch.stack([torch.stack([losses[name] for name in names]) for losses in recent]).float()
    table = training_set.workers.sum(sums).cpu() / training_set.draws_per_iteration(
        len(training_set), training_set.config
    )
    bad = (~table.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        place = f"scale {n}, iteration {iteration - len(recent) + row + 1}"
        value = table[row, column].item()
        raise NonFiniteLoss(f"{place}: {names[column]} is {value}; lower lr or set precision=float32")
    return dict(zip(names, table.mean(dim=0).tolist()))


def _check_weights(state: TrainState) -> None:
    """Losses are those before a step; a checkpoint must not hold weights that the last step broke."""
    trained = [p for optimizer in state.optimizers for group in optimizer.param_groups for p in group["params"]]
    if not bool(torch.stack([p.isfinite().all() for p in trained]).all()):  # one answer from the device
        place = f"scale {state.scale}, iteration {state.iteration}"
        raise NonFiniteLoss(f"{place}: the weights after it are not finite; lower lr or set precision=float32")

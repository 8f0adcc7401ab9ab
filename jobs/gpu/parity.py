"""One iteration on the device against the CPU in float32, and the range of what bf16 computes."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from jobs.gpu.part import Found, Setting, table
from model.config import Precision, TrainConfig
from model.device import HOST, best_device
from model.pyramid import ScaleSize
from model.timing import in_own_process, state_at
from model.training.state import TrainState
from model.training.steps import iterate

# Relative errors that rounding may make: of a loss, and of the length of a network's whole gradient. In float32 one
# activation next to the kink of a LeakyReLU moves a gradient by up to 2e-3; bf16 rounds every operand by up to 0.2 %
# (tests/model/test_one_iteration.py). A wrong term moves both by far more.
LIMITS: dict[Precision, tuple[float, float]] = {"float32": (1e-3, 0.02), "bf16": (0.03, 0.15)}
Gradients = dict[str, Tensor]
Step = tuple[dict[str, float], Gradients]  # of an iteration: its losses, and its gradients by network


class Draws(TorchFunctionMode):
    """The random numbers of generators, kept as they are drawn or, where they are given, used again in the same order.

    A GPU draws others than a CPU from the same seed. First weights, without a generator, are drawn on the CPU anyway.
    """

    def __init__(self, given: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.kept: list[Tensor] = []
        self._given = None if given is None else iter(given)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in (torch.randn, torch.rand) or kwargs.get("generator") is None:
            return func(*args, **kwargs)
        if self._given is not None:
            return next(self._given).to(kwargs.get("device") or HOST)
        drawn = func(*args, **kwargs)
        self.kept.append(drawn.detach().cpu().clone())
        return drawn


def parity(setting: Setting) -> Found:
    """Losses and gradients of one iteration of VAE and GAN scales."""
    config = setting.config
    rows, figures, passed = [], [], True
    with tempfile.TemporaryDirectory() as folder:
        for n in sorted({0, config.vae_levels - 1, config.vae_levels}):
            path = Path(folder) / f"{n}.pt"
            with without_gpu():
                in_own_process(reference, config, setting.sizes, n, path)
            saved = torch.load(path, weights_only=True)
            for precision, (loss_limit, gradient_limit) in LIMITS.items():
                with Draws(saved["draws"]):
                    ours = iteration(config, setting.sizes, n, precision)
                loss, gradient = errors(ours, (saved["losses"], saved["gradients"]))
                passed = passed and loss <= loss_limit and gradient <= gradient_limit
                rows.append([n, precision, f"{loss:.1e}", loss_limit, f"{gradient:.1e}", gradient_limit])
                figures.append({"scale": n, "precision": precision, "loss_error": loss, "gradient_error": gradient})
    header = ["scale", "precision", "loss error", "at most", "gradient error", "at most"]
    return Found(passed, [*table(header, rows), "", "Relative to the CPU in float32; no TF32."], {"rows": figures})


@contextlib.contextmanager
def without_gpu() -> Iterator[None]:
    """This process, if it has not used one yet, and those that begin inside see no GPU."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    os.environ[name] = ""
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


def reference(config: TrainConfig, sizes: Sequence[ScaleSize], n: int, path: Path) -> None:
    """Write the draws, losses and gradients of the iteration on the CPU, in float32; in a process without GPU."""
    draws = Draws()
    with draws:
        losses, gradients = iteration(config, sizes, n, "float32")
    torch.save({"draws": draws.kept, "losses": losses, "gradients": gradients}, path)


def iteration(config: TrainConfig, sizes: Sequence[ScaleSize], n: int, precision: Precision) -> Step:
    """The first iteration of scale n, untrained, on this process's device."""
    state, training_set = state_at(config.with_overrides([f"precision={precision}"]), sizes, n)
    losses = {name: float(loss) for name, loss in iterate(state, training_set).items()}
    return losses, gradients_of(state)


def errors(ours: Step, theirs: Step) -> tuple[float, float]:
    """The largest relative error of a loss, and of the length of a network's gradient.

    Of a loss near 0, as the difference of two scores may be, it is absolute.
    """
    (losses, gradients), (their_losses, their_gradients) = ours, theirs
    return (
        max(abs(losses[name] - value) / max(abs(value), 0.1) for name, value in their_losses.items()),
        max(float((gradients[name] - value).norm() / value.norm()) for name, value in their_gradients.items()),
    )


def gradients_of(state: TrainState) -> Gradients:
    """The gradients that the last iteration left, one vector a network: generators with E, and the critic."""
    found = {}
    for name, optimizer in zip(("generators", "critic"), state.optimizers):
        parts = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        found[name] = torch.cat([part.detach().float().flatten() for part in parts]).cpu()
    return found


class Ranges(TorchDispatchMode):
    """The largest value that any convolution gives, forward and backward, and how many are not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: dict[str, Tensor] = {}
        self.not_finite: dict[str, Tensor] = {}
        self.types: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        kind = {
            torch.ops.aten.convolution.default: "forward",
            torch.ops.aten.convolution_backward.default: "backward",
        }.get(func)
        for made in [result] if isinstance(result, Tensor) else result if kind else []:
            if kind and made is not None:
                self.types.add(str(made.dtype).removeprefix("torch."))
                largest, wrong = made.detach().abs().amax().float(), (~made.detach().isfinite()).sum()
                self.largest[kind] = torch.maximum(self.largest.get(kind, largest), largest)
                self.not_finite[kind] = self.not_finite.get(kind, wrong * 0) + wrong
        return result


def bf16_range(setting: Setting) -> Found:
    """Iterations of several scales in bf16: how large values become, and whether all are finite."""
    config, iterations = setting.config.with_overrides(["precision=bf16"]), 3
    scales = sorted({0, config.vae_levels - 1, config.vae_levels, config.num_scales - 1})
    rows, figures, passed = [], [], True
    for n in scales:
        state, training_set = state_at(config, setting.sizes, n)
        with Ranges() as ranges:
            for _ in range(iterations):
                iterate(state, training_set)
                state.iteration += 1
        wrong = sum(int(count) for count in ranges.not_finite.values())
        largest = {kind: float(value) for kind, value in ranges.largest.items()}
        norms = {name: float(vector.norm()) for name, vector in gradients_of(state).items()}
        good = wrong == 0 and all(map(math.isfinite, [*largest.values(), *norms.values()]))
        passed = passed and good and "bfloat16" in ranges.types
        row = [n, f"{largest['forward']:.3g}", f"{largest['backward']:.3g}"]
        rows.append(
            [*row, *(f"{norms[name]:.3g}" if name in norms else "" for name in ("generators", "critic")), wrong]
        )
        figures.append({"scale": n, "largest": largest, "gradient_norms": norms, "not_finite": wrong})
        del state, training_set
    header = ["scale", "largest value", "gradient", "norm of G's", "of D's", "not finite"]
    note = f"Of the convolutions of {iterations} iterations, untrained, on {best_device().type}."
    return Found(passed, [*table(header, rows), "", note], {"rows": figures})

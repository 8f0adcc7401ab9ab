"""Training in float64: what a test compares to many digits must not hang on how a machine rounds.

In float32 a training magnifies rounding ten thousand times and more. An activation next to LeakyReLU's kink falls to
its other side, and Adam makes whole steps out of gradients that are 0 but for rounding. In float64 rounding is a
billion times smaller, and so is the chance of the first. Random numbers are drawn in float64 too, as the last digit of
a normal one depends on the machine in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _FloatNeverNarrows(TorchFunctionMode):
    """`Tensor.float`, with which the networks leave bf16, keeps float64."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.float:
            return args[0].double()
        return function(*args, **(kwargs or {}))


@contextmanager
def in_float64() -> Iterator[None]:
    """Networks made, trained and read back inside are float64, with precision="float32": that is "no autocast"."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _FloatNeverNarrows():
            yield
    finally:
        torch.set_default_dtype(before)

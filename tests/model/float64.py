"""The same training in float64: what a test compares to many digits must not hang on how a machine rounds.

In float32 a training magnifies rounding a hundred thousand times and more: an activation next to LeakyReLU's kink falls
to its other side, and Adam makes whole steps out of gradients that are 0 but for rounding. In float64 the same two are
a billion times rarer and smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

DRAWN = {torch.randn, torch.rand}
FILLED = {torch.nn.init.kaiming_uniform_, torch.nn.init.uniform_}  # what nn.Conv3d initialises itself with


class _Widened(TorchFunctionMode):
    """Random numbers are those of float32, so a training starts and draws as it does there; `float` never narrows."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in DRAWN:
            return function(*args, **{"dtype": torch.float32, **kwargs}).double()
        if function in FILLED:
            tensor, *args = (kwargs.pop("tensor"), *args) if "tensor" in kwargs else args
            with torch.no_grad():
                return tensor.copy_(function(torch.empty(tensor.shape, dtype=torch.float32), *args, **kwargs))
        if function is torch.Tensor.float:
            return args[0].to(torch.promote_types(args[0].dtype, torch.float64))
        return function(*args, **kwargs)


@contextmanager
def in_float64() -> Iterator[None]:
    """Networks made, trained and read back inside are float64, with precision="float32": that is "no autocast"."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widened():
            yield
    finally:
        torch.set_default_dtype(before)

"""The paper as code: networks, losses, training, checkpoints, sampling, metrics. Knows torch, but no Ray or MLflow.

from model import load

model = load("runs/demo/bikes-1b0f76-000000/checkpoint.pt", frames)  # see api.py
samples = model.sample(4, seed=0)
print(model.score(samples))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.api import Applications, Model, SampleScores, as_drawn, load, overlaid, quantised, tracked

__all__ = ["Applications", "Model", "SampleScores", "as_drawn", "load", "overlaid", "quantised", "tracked"]


def __getattr__(name: str) -> Any:
    """The interface, when it is asked for: it imports torch, which `model.config` alone does not."""
    if name in __all__:
        from model import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

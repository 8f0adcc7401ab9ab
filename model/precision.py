"""Where networks run, and which numbers their convolutions multiply: bf16 where that is native, else float32."""

from __future__ import annotations

from typing import Literal

import torch

from model.config import Precision


def best_device() -> torch.device:
    """The GPU this process sees, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve(precision: Precision, device: torch.device) -> Literal["bf16", "float32"]:
    """`auto` as what this device is good at; bf16 and float32 unchanged."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Without these instructions a CPU emulates bf16, slower than float32.
        native = device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    return "bf16" if native else "float32"


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context to run networks in: bf16 convolutions, or nothing for float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolve(precision, device) == "bf16")

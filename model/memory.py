"""Memory of the process: how much it used, and whether it gives back what it will need again a moment later."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import resource
import sys
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # options of mallopt(3)


def keep_freed_memory() -> None:
    """Let the allocator keep what tensors on the CPU free, for the whole process. Does nothing where it is not glibc.

    By default glibc takes each large tensor from the kernel and gives it back, and the kernel clears every page of it
    anew: a fifth of the time of an iteration at 144×256 px. Keeping it costs memory, as blocks of several sizes do not
    fill each other's gaps (`jobs/benchmark.py` measures both). Call it before the first large tensor.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def peak_gib(device: torch.device) -> float:
    """Most memory used so far, GiB: allocated on the GPU, or resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    with contextlib.suppress(OSError):  # Linux; the figure below would begin with that of the process that started this
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20  # KiB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes on macOS, KiB on Linux

"""Memory of the process: how much it used, what it may use, and whether it gives back what it will need again soon."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from model.config import TrainConfig
from model.precision import resolve

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # options of mallopt(3)
FOR_ACTIVATIONS = 0.5  # of the memory there is


class OutOfMemory(RuntimeError):
    """Memory, of the GPU or the host, did not suffice for `micro_batch` samples at once."""

    def __init__(self, message: str, micro_batch: int) -> None:
        super().__init__(message)
        self.micro_batch = micro_batch


def is_out_of_memory(error: BaseException) -> bool:
    """torch has a type for a GPU's memory only; its allocator on a CPU raises a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


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


def largest_micro_batch(
    config: TrainConfig, sizes: Sequence[tuple[int, int, int]], n: int, device: torch.device
) -> int:
    """How many samples of scale n should fit into memory at once, at least 1.

    By how much memory there is, not by how much is free: a resumed training must cut its samples as before.
    """
    return max(1, int(FOR_ACTIVATIONS * memory_bytes(device) / activation_bytes(config, sizes, n, device)))


def activation_bytes(config: TrainConfig, sizes: Sequence[tuple[int, int, int]], n: int, device: torch.device) -> float:
    """Estimate of the memory that one sample takes in an iteration of scale n.

    Each normalised convolution keeps two maps for the gradient, each of the critic one; at a GAN scale those of
    reconstruction and random sample are held beside the critic's of real and fake. Maps that come and go, and gaps that
    the allocator leaves, make it about twice that: on a CPU 1.8 to 2.0 times, at scales 5 and 6 of paper and official.
    """
    number = 2 if resolve(config.precision, device) == "bf16" else 4
    maps = [number * config.channels * t * h * w for t, h, w in sizes]
    blocks, critic = config.generator_convs - 1, config.critic_convs - 1
    if n < config.vae_levels:
        return 2 * (sum(2 * blocks * maps[k] for k in range(n + 1)) + config.encoder_convs * maps[0] + 4 * maps[n])
    below = 0 if config.freeze else sum(4 * blocks * maps[k] for k in range(n))
    return 2 * (below + (4 * blocks + 2 * critic + 8) * maps[n])


def memory_bytes(device: torch.device) -> float:
    """What this process may use: its share of the GPU; on a CPU as large a part of the memory as of the cores."""
    if device.type == "cuda":
        share = torch.cuda.get_per_process_memory_fraction(device)
        return torch.cuda.get_device_properties(device).total_memory * share
    return host_bytes() * min(1.0, torch.get_num_threads() / (os.cpu_count() or 1))


@functools.cache  # asked for in every iteration of several samples
def host_bytes() -> float:
    """The machine's memory, or the container's if it has less (cgroup v2)."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return whole

"""Where networks run, with which numbers, on how many threads, and with how much memory.

Convolutions multiply bf16 where the hardware does that natively, else float32.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import os
import platform
import resource
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch

from model.config import Precision

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # options of mallopt(3)


HOST = torch.device("cpu")
Given = TypeVar("Given")
Made = TypeVar("Made")
# GPU memory that a process takes beside its tensors, for CUDA's context and libraries: torch's limit does not count it.
# An estimate; `jobs/gpu_check.py` measures it.
CONTEXT_BYTES = 0.6 * 2**30
MOST_AT_ONCE = 4  # of `concurrently`: threads share Python's lock, for which two already wait a fifth of their time


def best_device() -> torch.device:
    """The GPU this process sees, with its number, else the CPU.

    On a GPU float32 convolutions are computed in float32 from then on: by default cuDNN rounds what it multiplies to
    the 10 bits of TF32.
    """
    if not torch.cuda.is_available():
        return HOST
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda", torch.cuda.current_device() if torch.cuda.is_initialized() else 0)


def training_device() -> torch.device:
    """`best_device`, for the same shapes over and over: cuDNN tries once for each which algorithm is the fastest."""
    device = best_device()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    return device


def limit_memory(share: float) -> None:
    """Hold this process to a part of its GPU, above 0 and below 1, so that as many as it is divided among fit on it."""
    device = best_device()
    if device.type == "cuda":
        context = CONTEXT_BYTES / torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(max(share - context, share / 2), device)


def on_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy of an array on a GPU, for which the host does not wait; on the CPU the array itself."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


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


def use_assigned_threads() -> None:
    """As many threads as OMP_NUM_THREADS says, which Ray sets to the CPUs of a task; one where it says nothing."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


class Unwanted(Exception):
    """Nobody waits any more for what a thread of `concurrently` makes."""


class _OfThread(threading.local):
    """Of a thread of `concurrently`.

    Attributes:
        elsewhere: on how many threads torch computes elsewhere.
        over: is set as soon as nobody waits any more.
    """

    elsewhere: int | None = None
    over: threading.Event | None = None


_this_thread = _OfThread()


def most_at_once(needed: float, device: torch.device) -> int:
    """How many things that take so many bytes each are made `concurrently`: on the CPU as many as torch has threads, up
    to MOST_AT_ONCE and within half of the memory that this process may use; on a GPU one."""
    if device.type != "cpu":
        return 1
    return max(1, min(torch.get_num_threads(), MOST_AT_ONCE, int(memory_bytes(device) / 2 // needed)))


def concurrently(make: Callable[[Given], Made], given: Iterable[Given], at_once: int) -> Iterator[Made]:
    """What `make` makes of each, in their order; so many at a time, each on one thread.

    For many short operations, such as a search of patches: there threads of one operation mostly wait for each other.
    The first is made alone and on all threads, as it prepares what the others share. If `at_once` is 1, each is made
    when it is asked for. What is under way when an error or Ctrl-C ends this is not made to its end, where it calls
    `stop_if_unwanted`.
    """
    if at_once == 1:
        yield from map(make, given)
        return
    given = iter(given)
    for first in given:
        yield make(first)
        break
    threads, over = torch.get_num_threads(), threading.Event()

    def alone() -> None:
        _this_thread.elsewhere, _this_thread.over = threads, over
        torch.set_num_threads(1)

    under_way: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(at_once, initializer=alone)
    try:
        for each in given:
            under_way.append(pool.submit(make, each))
            if len(under_way) > at_once:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        over.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # after the last of them: threads to come begin with what was set last


def stop_if_unwanted() -> None:
    """End this thread of `concurrently` if nobody waits for it any more; else nothing. What takes long calls it often.

    Raises Unwanted, which nobody is told of.
    """
    if _this_thread.over is not None and _this_thread.over.is_set():
        raise Unwanted


@contextlib.contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Torch computes on so many CPU threads inside the block; the setting is this thread's of Python, and put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usual_threads() -> AbstractContextManager[None]:
    """As many threads as elsewhere, in what is made `concurrently` too: for sums whose rounding depends on how many
    there are, such as convolutions in bf16, so that a video is the same however it is made."""
    elsewhere = _this_thread.elsewhere
    return contextlib.nullcontext() if elsewhere is None else on_threads(elsewhere)


def skip_compiler_import() -> None:
    """Keep torch from importing its compiler, for the whole process: 3 s at the start of every process that trains.

    Call it before the first optimizer, which imports torch._dynamo, only to exclude the optimizer's methods from
    compilation (torch 2.13, torch/_compile.py). No optimizer is compiled here. A method that carries itself as its
    excluded form needs no import.
    """
    for method in (
        getattr(torch.optim.Optimizer, name)
        for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    ):
        plain = inspect.unwrap(method)
        plain.__dict__.setdefault("__dynamo_disable", plain)


def adam_step(optimizer: torch.optim.Adam) -> None:
    """`optimizer.step()` without its wrapper, which imports torch's compiler too: it has no step hooks to call."""
    with torch.no_grad():
        inspect.unwrap(torch.optim.Adam.step)(optimizer)


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

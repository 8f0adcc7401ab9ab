"""A GPU of which only the shapes are real: torch's fake tensors, on a backend that torch lets Python register.

Its tensors have a device, a type and a shape, and no numbers. An operation on tensors of two devices raises, as it does
on a real GPU, and so does a generator of another device than what it draws. What a GPU would make the host wait for is
counted. Autocast casts to bf16 what it casts on CUDA, of the operations that this project has.

A process that has such a backend is not one for other tests: `python -m tests.model.fake_gpu` runs every case of
fake_gpu_cases.py and prints a line of JSON for each.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections import Counter
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

GPU = torch.device("cpu")  # until `register`
aten = torch.ops.aten
LOWER = ("conv1d", "conv2d", "conv3d", "matmul", "mm", "addmm", "bmm", "linear")  # autocast of CUDA: in bf16
FLOAT32 = ("exp", "pow.Tensor_Scalar", "norm.ScalarOpt_dim", "linalg_vector_norm", "mse_loss", "sum", "prod")


def register():
    """Give torch the device `fakegpu`; once a process."""
    global GPU

    class Module(_DummyBackendModule):
        def get_amp_supported_dtype(self):
            return [torch.bfloat16]

    _setup_privateuseone_for_python_backend("fakegpu", backend_module=Module())
    GPU = torch.device("fakegpu", 0)
    fallthrough = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    fallthrough.fallback(torch.library.fallthrough_kernel)
    casts = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    for names, dtype in ((LOWER, torch.bfloat16), (FLOAT32, torch.float32)):
        for name in names:
            packet, _, overload = name.partition(".")
            operation = getattr(getattr(aten, packet), overload or "default")
            casts.impl(operation, _casting(operation, dtype))
    return fallthrough, casts  # they hold as long as these do


def _casting(operation, dtype):
    autocast = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def cast(value):
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != torch.float64:
            return value.to(dtype)
        return value

    def run(*args, **kwargs):
        with torch._C._ExcludeDispatchKeyGuard(autocast):
            return operation(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})

    return run


class Generator:
    """In place of torch.Generator, which makes none for this device."""

    def __init__(self, device="cpu"):
        self.device = torch.device(device)

    def manual_seed(self, seed):
        return self


class Mode(FakeTensorMode):
    """Counts in `waits` what the host waits for, and gives it a number that stands for any.

    convolved: convolutions, by the type of their results.
    truth: what every question about the numbers of a tensor is answered by.
    """

    def __init__(self):
        super().__init__()
        self.waits, self.convolved, self.truth = Counter(), Counter(), False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        of = args[0].device.type if args and isinstance(args[0], torch.Tensor) else ""
        if func is aten._local_scalar_dense.default:
            self._wait("number", of)
            return self.truth if args[0].dtype is torch.bool else int(args[0].is_floating_point())
        if func is aten.nonzero.default:
            self._wait("nonzero", of)
            return args[0].new_empty((0, args[0].ndim), dtype=torch.long)
        if func is aten.index.Tensor and any(i is not None and i.dtype is torch.bool for i in args[1]):
            self._wait("mask", of)
        if func is aten.index_put_.default and any(i is not None and i.dtype is torch.bool for i in args[1]):
            self._wait("mask", of)
            return args[0]
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if func is aten.convolution.default:
            self.convolved[str(result.dtype).removeprefix("torch.")] += 1
        if func in (aten._to_copy.default, aten.copy_.default):
            source = args[1].device.type if func is aten.copy_.default else of
            if source != result.device.type:
                self._wait(f"copy to {result.device.type}", GPU.type)
        return result

    def _wait(self, kind, device):
        if device == GPU.type:
            self.waits[kind] += 1


def _drawing(function):
    """torch.randn and its like with `Generator`: it must be of the device that is drawn on, as torch demands."""

    def draw(*args, generator=None, **kwargs):
        device = torch.device(kwargs.get("device") or "cpu")
        if generator is not None and generator.device.type != device.type:
            raise RuntimeError(f"a generator of {generator.device.type} draws on {device.type}")
        return function(*args, **kwargs)

    return draw


def _apply(module, function, recurse=True):
    """nn.Module._apply with new parameters: fake ones cannot change their device in place."""
    for child in module.children():
        _apply(child, function)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                module._parameters[name] = torch.nn.Parameter(function(parameter), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = function(buffer)
    return module


def _numpy(tensor):
    """Tensor.numpy of a fake tensor: of the CPU only, as of a real one."""
    if tensor.device.type != "cpu":
        raise TypeError(f"can't convert {tensor.device.type} tensor to numpy; use Tensor.cpu() first")
    return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


@contextmanager
def fake_gpu():
    """Inside it every tensor is fake, and the process is the only one of a training on GPU. Yields the `Mode`."""

    def alone(workers):
        workers.device, workers.size, workers.rank = GPU, 1, 0

    with ExitStack() as stack:
        for name in ("randn", "rand", "randint", "randperm"):
            stack.enter_context(patch.object(torch, name, _drawing(getattr(torch, name))))
        stack.enter_context(patch.object(torch, "Generator", Generator))
        stack.enter_context(patch.object(torch.Tensor, "numpy", _numpy))
        stack.enter_context(patch.object(torch.nn.Module, "_apply", _apply))
        stack.enter_context(patch("model.training.workers.Workers.__init__", alone))
        yield stack.enter_context(Mode())


def main():
    """Every case in this process: name, what was waited for, and the error, if any."""
    held = register()
    from tests.model.fake_gpu_cases import CASES

    for name, case in CASES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        found = {"name": name, "waits": {}, "error": ""}
        try:
            with fake_gpu() as mode:
                found["waits"] = dict(case(mode) or {})
        except Exception as error:
            found["error"] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        print(json.dumps(found), flush=True)
    del held


if __name__ == "__main__":
    from tests.model import fake_gpu as module  # not a second module of the same name

    module.main()

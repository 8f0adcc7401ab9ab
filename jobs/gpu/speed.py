"""Seconds an iteration, the share of what the device can do, and clips an hour."""

from __future__ import annotations

from typing import Any

import torch

from jobs.gpu.part import Found, Setting, table
from model.device import best_device, resolve
from model.timing import clips_an_hour, conv_gflops_per_s, measure, needed_gflops, times

MATRIX = 8192  # of a square matrix whose product shows what the device can do
TOGETHER = (1, 2, 4)


def machine(setting: Setting) -> Found:
    """What the device is, and which kernel torch takes for a convolution of the networks."""
    device = best_device()
    lines = [f"- torch {torch.__version__}, device {device}"]
    figures: dict[str, Any] = {"torch": torch.__version__, "device": str(device), "precision": resolve("auto", device)}
    passed = True
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        figures |= {
            "name": properties.name,
            "gib": properties.total_memory / 2**30,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
        lines += [f"- {properties.name}, {figures['gib']:.1f} GiB, compute {properties.major}.{properties.minor}"]
        lines += [f"- CUDA {figures['cuda']}, cuDNN {figures['cudnn']}; GPUs seen: {torch.cuda.device_count()}"]
        kernel = _kernel(setting, device)
        figures["kernel"] = kernel
        passed = "Cudnn" in kernel
        slow = "" if passed else ": slow; some cuDNN 9 have no bf16 conv3d, take 9.15 or newer"
        lines += [f"- bf16 conv3d by {kernel}{slow}"]
    peak = matmul_gflops_per_s(setting, device)
    figures["matmul_gflops_per_s"] = peak
    lines += [f"- a product of matrices in {figures['precision']}: {peak / 1e3:.2f} TFLOP/s"]
    return Found(passed, lines, figures)


def _kernel(setting: Setting, device: torch.device) -> str:
    """Of a convolution in the middle of a generator, in bf16: torch's name of what computes it.

    With cuDNN below 9.15 torch may take its own bf16 kernels for 3D, which are slower and take more memory (pytorch
    issues 166122 and 166643).
    """
    c = setting.config.channels
    x = torch.empty((1, c, 4, 16, 16), dtype=torch.bfloat16, device=device)
    weight = torch.empty((c, c, 3, 3, 3), dtype=torch.bfloat16, device=device)
    x, weight = (each.contiguous(memory_format=torch.channels_last_3d) for each in (x, weight))
    ones, zeros = [1, 1, 1], [0, 0, 0]
    return str(torch._C._select_conv_backend(x, weight, None, ones, ones, ones, False, zeros, 1)).removeprefix(
        "ConvBackend."
    )


def matmul_gflops_per_s(setting: Setting, device: torch.device) -> float:
    """10⁹ operations a second of a product of two square matrices, in the precision of the convolutions."""
    side = MATRIX if device.type == "cuda" and not setting.quick else 512
    dtype = torch.bfloat16 if resolve("auto", device) == "bf16" else torch.float32
    a = torch.randn((side, side), dtype=dtype, device=device)
    return 2 * side**3 / 1e9 / min(times(lambda: a @ a, setting.seconds, device))


def scales(setting: Setting) -> Found:
    """Seconds an iteration of every scale, with the share of the peak."""
    config, device = setting.config, best_device()
    peak = matmul_gflops_per_s(setting, device)
    rows, figures, total = [], [], 0.0
    for n, size in enumerate(setting.sizes):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        timed = measure(config, setting.sizes, n, setting.seconds)
        conv = conv_gflops_per_s(config, size, setting.seconds / 2)
        speed = needed_gflops(config, setting.sizes, n) / timed.sec_per_iter
        total += config.iterations[n] * timed.sec_per_iter
        row = [n, "×".join(map(str, size)), f"{timed.sec_per_iter:.4f}", f"{speed / 1e3:.2f}"]
        rows.append([*row, f"{speed / conv:.0%}", f"{speed / peak:.0%}", f"{timed.peak_gib:.2f}"])
        figures.append(
            {
                "scale": n,
                "shape": list(size),
                "sec_per_iter": timed.sec_per_iter,
                "gflops_per_s": speed,
                "conv_gflops_per_s": conv,
                "peak_gib": timed.peak_gib,
            }
        )
    header = ["scale", "T×H×W", "s/iter", "TFLOP/s", "of conv", "of matmul", "peak GiB"]
    lines = [*table(header, rows), "", f"All iterations of one clip: {total / 3600:.2f} hours."]
    return Found(True, lines, {"rows": figures, "clip_hours": total / 3600, "matmul_gflops_per_s": peak})


def together(setting: Setting) -> Found:
    """Clips an hour with 1, 2 and 4 of them on the device."""
    rows, figures = [], []
    for count in TOGETHER:
        try:
            per_hour = clips_an_hour(setting.config, setting.sizes, setting.seconds / 2, count)
        except torch.OutOfMemoryError:
            rows.append([count, "not enough memory", ""])
            continue
        figures.append({"clips": count, "clips_an_hour": per_hour})
        rows.append([count, f"{per_hour:.4f}", f"{per_hour / figures[0]['clips_an_hour']:.2f}"])
    return Found(len(figures) > 0, table(["clips at once", "clips an hour", "times one"], rows), {"rows": figures})

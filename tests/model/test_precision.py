"""Which precision is chosen, and that it reaches the convolutions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model.device import autocast, resolve

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("native", [True, False])
def test_a_chosen_precision_stays(monkeypatch, precision, native):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    assert resolve(precision, CPU) == precision


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, "bf16"), ({"avx512_bf16": False, "avx2": True}, "float32"), ({}, "float32")],
)
def test_auto_is_bf16_only_where_the_cpu_multiplies_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve("auto", CPU) == expected


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("float32", torch.float32)])
def test_convolutions_multiply_in_the_precision(precision, dtype):
    x, w = torch.ones(1, 2, 3, 3, 3), torch.ones(2, 2, 3, 3, 3)
    with autocast(CPU, precision):
        assert F.conv3d(x, w).dtype == dtype
    assert F.conv3d(x, w).dtype == torch.float32

"""Weight files that other projects publish: nothing in them is executed; the names of their tensors tell them apart."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MEND = 'give a file named in model/README.md under "Features by file"'
NAMED = 3  # tensors that a refusal names


class FeaturesError(Exception):
    """Features that cannot be had: one line with the file, the cause and the mend."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one project names the tensors of a network.

    Attributes:
        project: where such files come from.
        names: name of a tensor here → its name there.
        classes: name of a tensor with one entry a class, which tells what the network was trained on.
        trained_on: what it was trained on if `classes` is not in the file; None if the file must have it.
    """

    project: str
    names: Mapping[str, str]
    classes: str
    trained_on: str | None = None

    def missing(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Their names of what the file lacks."""
        wanted = [*self.names.values(), *([self.classes] if self.trained_on is None else [])]
        return [name for name in wanted if name not in tensors]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The tensors of a known network, on the CPU.

    Attributes:
        tensors: name here → float32 tensor.
        layout: the layout they were in.
        trained_on: `sports1m`, `ucf101` …
    """

    tensors: dict[str, Tensor]
    layout: Layout
    trained_on: str

    def digest(self, fed: tuple[object, ...]) -> str:
        """Six hex digits of the weights and of `fed`, the plain values that say what the network is fed."""
        digest = hashlib.sha256(repr(fed).encode())
        for name in sorted(self.tensors):
            digest.update(name.encode() + self.tensors[name].numpy().tobytes())
        return digest.hexdigest()[:6]


def load(
    path: str | os.PathLike[str],
    layouts: Sequence[Layout],
    shapes: Mapping[str, tuple[int, ...]],
    datasets: Mapping[int, str],
) -> Weights:
    """The weights in the first of the layouts that the file fits. Tensors that no layout names are not looked at.

    Args:
        path: torch file (zip or the older format) of a state dict, or of a dict with one under `state_dict`, with or
            without the prefixes `module.` and `backbone.`; or a numpy .npz.
        layouts: the layouts that are known.
        shapes: name here → shape, for every name of a layout.
        datasets: number of classes → what a network with that many was trained on.

    Raises:
        FeaturesError: no such file, damaged, more than tensors and plain values, of no known layout (the nearest is
            named, with the first tensors it lacks), or a tensor of another shape or with NaN.
    """
    path = Path(path)
    tensors = _read(path)
    layout = min(layouts, key=lambda known: len(known.missing(tensors)))
    missing = layout.missing(tensors)
    if missing:
        known = {name for layout in layouts for name in layout.names.values()}
        strange = "" if known & tensors.keys() else f" (it has {_some(sorted(tensors)) or 'nothing'})"
        cause = f"no layout fits{strange}; nearest is that of {layout.project}, but no {_some(missing)}"
        raise FeaturesError(f"{path}: {cause}; {MEND}")
    found = {}
    for ours, name in layout.names.items():
        tensor, shape = tensors[name], shapes[ours]
        if tuple(tensor.shape) != shape:
            raise FeaturesError(f"{path}: {name} is {tuple(tensor.shape)}, not {shape}; {MEND}")
        found[ours] = tensor.detach().to(torch.float32).contiguous()
        if not bool(torch.isfinite(found[ours]).all()):
            raise FeaturesError(f"{path}: {name} holds NaN or infinite values; {MEND}")
    trained_on = layout.trained_on
    if layout.classes in tensors:
        classes = tensors[layout.classes].numel()
        trained_on = datasets.get(classes, f"{classes}classes")
    assert trained_on is not None  # `missing` saw to it
    return Weights(tensors=found, layout=layout, trained_on=trained_on)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _read(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file; nothing in it is executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles in a newer format than torch writes: they are refused below
            record: Any = _arrays(path) if _is_npz(path) else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise FeaturesError(f"{path}: no such file; {MEND}") from error
    except Exception as error:  # a damaged file makes the unpickler raise anything
        raise FeaturesError(f"{path}: not a readable file of tensors and plain values; {MEND}") from error
    state = record.get("state_dict", record) if isinstance(record, Mapping) else None
    if not isinstance(state, Mapping):
        raise FeaturesError(f"{path}: holds no state dict but a {type(record).__name__}; {MEND}")
    return {
        re.sub(r"^(module\.)?(backbone\.)?", "", name): tensor
        for name, tensor in state.items()
        if isinstance(name, str) and _is_dense(tensor)
    }


def _is_dense(value: Any) -> bool:
    """Whether it is a tensor of real numbers that are in the file: a file may also hold sparse or empty shells."""
    dense = isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu"
    return dense and value.is_floating_point()


def _is_npz(path: Path) -> bool:
    """Whether it is a zip of numpy arrays; newer torch files are zips too."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(".npy") for name in archive.namelist())


def _arrays(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}

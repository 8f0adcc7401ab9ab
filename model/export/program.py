"""A model's random videos as a function of tensors alone, which torch can write down: a torch.export program, or ONNX.

Computed in float32; it differs from the sampler by rounding, as kernels for several samples at once, and those of ONNX,
sum in another order.

The clip's patches are not in a program. A sampler throws layouts away that are the clip, and draws them again, which a
function of z cannot; and a runtime that rounds otherwise finds other patches nearest. As loops (torch's while_loop) the
24 passes of a `demo` model came out to the bit in torch, and up to 0.17 apart in onnxruntime.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from model.device import HOST
from model.export.inputs import Drawn, draw, inputs_of
from model.loading import LoadedModel
from model.networks.generators import GeneratorStack
from model.pyramid import ScaleSize
from model.sampling.sample import frames_per_second, stretched
from model.sampling.sampler import NetworkSampler, check_sample

OPSET = 18  # of ONNX: what torch's exporter writes without converting
PACKAGES = ("onnx", "onnxscript")
PARITY = 1e-4  # of videos in [-1, 1], float32


class CannotExport(ValueError):
    """A model that has no such form, or packages that are missing; one line that names the mend."""


class Generators(nn.Module):
    """z and the noise of the scales → a video of the finest trained scale (eq. 9): what `NetworkSampler` makes."""

    def __init__(self, stack: GeneratorStack, sizes: Sequence[ScaleSize]) -> None:
        super().__init__()
        self.stack = stretched(stack, sizes)
        self.stack._modules = {name: part for name, part in stack._modules.items() if name != "encoder"}  # of training

    def forward(self, z: Tensor, noise: list[Tensor]) -> Tensor:
        """z: (B, latent, T, H, W), noise: (B, C, T_n, H_n, W_n) each → (B, 3, T, H, W) float32 in [-1, 1]."""
        stack, given, x = self.stack, iter(noise), z
        for n in range(stack.num_scales):
            x = stack.level(x, n, next(given) * stack.noise_amps[n] if stack.has_noise(n) else None)
        return stack.to_video(x).clamp(-1, 1)


@dataclass(frozen=True)
class Program:
    """What is written, and what is said of it.

    Attributes:
        inputs: in the order in which a sampler draws them, z first.
        expected: sample 0 of seed 0, (1, 3, T, H, W) float32.
        missing: one line on what of the model's samples it does not make; "" if nothing is.
    """

    loaded: LoadedModel
    module: Generators
    inputs: Sequence[Drawn]
    expected: Tensor
    missing: str = ""

    @classmethod
    def of(cls, loaded: LoadedModel, size: ScaleSize | None = None) -> Program:
        """The program of a model, on the CPU.

        Args: size: (T, H, W) of its videos; None: the clip's, or where patches make the fine scales that of the finest
            trained one.

        Raises CannotExport, one line, for a method without networks, and SizeError for a size that cannot be.
        """
        if loaded.stack is None:
            method = loaded.config.method
            raise CannotExport(
                f"method={method}: has no networks, so there is no z to make a sample from; give --to mlflow"
            )
        stack = copy.copy(loaded.stack)
        stack.config = replace(stack.config, precision="float32", low_memory=False)
        sampler = NetworkSampler(stack, latent_frames=loaded.latent_frames)
        sizes = sampler.ladder_to(size or sampler.size)
        check_sample(sampler, sizes, HOST)
        module = Generators(stack, sizes)
        missing = ""
        if loaded.needs_clip:
            missing = (
                f"it makes layouts of {sizes[-1]} (T×H×W); the clip's patches, which make the rest, are in --to mlflow"
            )
        expected = torch.cat(list(sampler.parts(sizes, 0, 0)), dim=2)
        return cls(loaded, module, inputs_of(module.stack), expected, missing)

    @property
    def size(self) -> ScaleSize:
        """(T, H, W) of its videos."""
        return self.module.stack.sizes[self.module.stack.num_scales - 1]

    def about(self, kind: str, digest: str) -> dict[str, Any]:
        """What stands beside the file.

        Args: kind: torch or onnx. digest: SHA-256 of the checkpoint.
        """
        return {
            "format": 1,
            "kind": {"torch": "torch.export", "onnx": "ONNX"}[kind],
            **({"opset": OPSET} if kind == "onnx" else {}),
            "torch": torch.__version__,
            "model": self.loaded.name,
            "checkpoint_sha256": digest,
            "method": self.loaded.config.method,
            "missing": self.missing,
            "precision": "float32",
            "inputs": [{**asdict(given), "shape": ["batch", *given.shape[1:]]} for given in self.inputs],
            "video": {"shape": ["batch", 3, *self.size], "axes": "batch, RGB, frames, height, width", "range": [-1, 1]},
            "fps": frames_per_second(self.loaded.config, self.module.stack.sizes[-1].frames),
            "scales_thw": [list(size) for size in self.module.stack.sizes],
            "config": self.loaded.config.to_dict(),
        }

    def write_torch(self, path: Path) -> None:
        """The .pt2."""
        with _quiet():
            torch.export.save(self._exported(), path)

    def write_onnx(self, path: Path) -> None:
        """The .onnx, its weights within."""
        with _quiet():
            written = torch.onnx.export(
                self._exported(),
                opset_version=OPSET,
                input_names=[given.name for given in self.inputs],
                output_names=["video"],
                verbose=False,
            )
            assert written is not None
            written.save(str(path), external_data=False)

    def difference(self, path: Path, kind: str) -> float | None:
        """How far sample 0 of seed 0 of a file is from the sampler's at most; None where nothing here runs the file."""
        z, *noise = draw(self.inputs, 0, 0)
        if kind == "torch":
            with torch.no_grad(), _quiet():
                video = torch.export.load(path).module()(z, noise)
        elif importlib.util.find_spec("onnxruntime") is None:
            return None
        else:
            import onnxruntime

            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            values = {given.name: value.numpy() for given, value in zip(self.inputs, [z, *noise], strict=True)}
            video = torch.from_numpy(session.run(["video"], values)[0])
        return float((video - self.expected).abs().max())

    def _exported(self) -> ExportedProgram:
        """For any number of samples at once."""
        batch = Dim("batch", min=1)
        z, *noise = [
            torch.cat([value, value]) for value in draw(self.inputs, 0, 0)
        ]  # of one it would be of one for ever
        shapes = {"z": {0: batch}, "noise": [{0: batch} for _ in noise]}
        with torch.no_grad(), _quiet():
            return torch.export.export(self.module, (z, noise), dynamic_shapes=shapes, strict=False)


def check_packages() -> None:
    """Raises CannotExport, one line, if ONNX cannot be written here."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise CannotExport(f"--to onnx: needs {' and '.join(missing)}; pip install 'hp-vae-gan[export]'")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of its own parts, such as packages that it could use."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

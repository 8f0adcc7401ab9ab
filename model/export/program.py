"""A model's random videos as a function of tensors alone, which torch can write down: a torch.export program, or ONNX.

Computed in float32. A torch.export program differs from the sampler by rounding at most, as kernels for several samples
at once sum in another order; where patches make the fine scales it is the sampler to the bit. ONNX rounds otherwise:
networks come out the same but for that, and of equally near patches other ones are chosen.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from model.device import HOST
from model.export.finished import Finished
from model.export.inputs import Drawn, draw, inputs_of, streams
from model.export.networks import Generators
from model.loading import LoadedModel
from model.patches.field import PART
from model.pyramid import ScaleSize
from model.sampling.sample import frames_per_second
from model.sampling.sampler import UNCUT, FinishedSampler, check_sample, whole_video

OPSET = 18  # of ONNX: what torch's exporter writes without converting
PACKAGES = ("onnx", "onnxscript")
PARITY = 1e-4  # of videos in [-1, 1], float32
OTHER_PATCHES = (
    "of patches that are equally near, a runtime that rounds otherwise than torch chooses others: layouts are "
    "sample.py's, the samples that patches make of them are other ones"
)


class CannotExport(ValueError):
    """A model that has no such form, or packages that are missing; one line that names the mend."""


@dataclass(frozen=True)
class Apart:
    """How far sample 0 of seed 0 of a written program is from the sampler's.

    Attributes:
        most, mean: of all values, in [-1, 1].
        share: of the pixels, those with a value that is more than PARITY apart.
        layout: at most, before any patch; None where patches make nothing.
    """

    most: float
    mean: float
    share: float
    layout: float | None = None


@dataclass(frozen=True)
class Program:
    """What is written, and what is said of it.

    Attributes:
        sizes: (T, H, W) of every scale that it makes.
        inputs: in the order in which it takes them, z first.
        expected: sample 0 of seed 0, (1, 3, T, H, W) float32.
    """

    loaded: LoadedModel
    module: Generators | Finished
    sizes: Sequence[ScaleSize]
    inputs: Sequence[Drawn]
    expected: Tensor

    @classmethod
    def of(cls, loaded: LoadedModel, chunks: Sequence[np.ndarray] = (), size: ScaleSize | None = None) -> Program:
        """The program of a model, on the CPU.

        Args:
            chunks: the clip, uint8 (T, H, W, 3) each; none where the model does not need it.
            size: (T, H, W) of its videos; None: the clip's.

        Raises CannotExport, one line, for a method without networks and for patches that are searched in parts,
        SizeError for a size that cannot be, and ValueError for frames that cannot be those of its clip.
        """
        if loaded.stack is None:
            method = loaded.config.method
            raise CannotExport(
                f"method={method}: has no networks, so there is no z to make a sample from; give --to mlflow"
            )
        stack = copy.copy(loaded.stack)
        stack.config = replace(stack.config, precision="float32", low_memory=False)
        sampler = replace(loaded, config=stack.config, stack=stack).sampler(chunks, HOST)
        sizes = sampler.ladder_to(size or sampler.size)
        check_sample(sampler, sizes, HOST)
        module: Generators | Finished
        if isinstance(sampler, FinishedSampler):
            if math.prod(sizes[-1]) > PART:
                most = f"a program of patches makes at most {PART:,} pixels in all its frames"
                raise CannotExport(f"a video of {sizes[-1]} is too large: {most}; make it smaller, or give --to mlflow")
            sampler.layouts = UNCUT  # the others are of another size
            module = Finished(sampler, sizes)
            inputs = [*inputs_of(module.networks.stack), *module.search_inputs]
        else:
            module = Generators(stack, sizes)
            inputs = inputs_of(module.stack)
        return cls(loaded, module, sizes, inputs, whole_video(sampler, sizes, 0, 0))

    @property
    def outputs(self) -> list[str]:
        """Names of what it returns, in order."""
        return ["video", "is_the_clip", "layout"] if isinstance(self.module, Finished) else ["video"]

    @property
    def _attempts(self) -> int:
        return UNCUT if isinstance(self.module, Finished) else 1

    def note(self, kind: str) -> str:
        """One line on how its samples differ from the sampler's; "" if they do not."""
        return OTHER_PATCHES if kind == "onnx" and isinstance(self.module, Finished) else ""

    def about(self, kind: str, digest: str) -> dict[str, Any]:
        """What stands beside the file.

        Args: kind: torch or onnx. digest: SHA-256 of the checkpoint.
        """
        batch = 1 if isinstance(self.module, Finished) else "batch"
        video = {"shape": [batch, 3, *self.sizes[-1]], "axes": "batch, RGB, frames, height, width", "range": [-1, 1]}
        return {
            "format": 2,
            "kind": {"torch": "torch.export", "onnx": "ONNX"}[kind],
            **({"opset": OPSET} if kind == "onnx" else {}),
            "torch": torch.__version__,
            "model": self.loaded.name,
            "checkpoint_sha256": digest,
            "method": self.loaded.config.method,
            "note": self.note(kind),
            "precision": "float32",
            "inputs": [self._described(given, batch) for given in self.inputs],
            "streams": streams(self._attempts),
            "outputs": self.outputs,
            "video": video,
            "fps": frames_per_second(self.loaded.config, self.sizes[-1].frames),
            "scales_thw": [list(size) for size in self.sizes],
            "config": self.loaded.config.to_dict(),
        }

    def _described(self, given: Drawn, batch: int | str) -> dict[str, Any]:
        shape = [batch, *given.shape[1:]] if given.stream == "sample" else [*given.shape]
        return {**asdict(given), "shape": shape}

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
                output_names=self.outputs,
                verbose=False,
            )
            assert written is not None
            written.save(str(path), external_data=False)

    def apart(self, path: Path, kind: str) -> Apart | None:
        """How far a file is from the sampler; None where nothing here runs it."""
        if kind == "onnx" and importlib.util.find_spec("onnxruntime") is None:
            return None
        run = self._onnx(path) if kind == "onnx" else self._torch(path)
        for attempt in range(self._attempts):
            drawn = draw(self.inputs, 0, 0, attempt)
            video, *more = run(drawn)
            if not more or not more[0]:
                break
        distance = (video - self.expected).abs()
        layout = None
        if isinstance(self.module, Finished):
            z, noise, _ = self._arguments(drawn)
            with torch.no_grad():
                layout = float((more[1] - self.module.networks(z, noise)).abs().max())
        share = (distance.amax(dim=1) > PARITY).float().mean()
        return Apart(float(distance.max()), float(distance.mean()), float(share), layout)

    def _torch(self, path: Path) -> Callable[[list[Tensor]], Sequence[Tensor]]:
        with _quiet():
            program = torch.export.load(path).module()

        def run(drawn: list[Tensor]) -> Sequence[Tensor]:
            with torch.no_grad(), _quiet():
                made = program(*self._arguments(drawn))
            return [made] if isinstance(made, Tensor) else made

        return run

    def _onnx(self, path: Path) -> Callable[[list[Tensor]], Sequence[Tensor]]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [given.name for given in self.inputs]

        def run(drawn: list[Tensor]) -> Sequence[Tensor]:
            values = {name: value.numpy() for name, value in zip(names, drawn, strict=True)}
            return [torch.from_numpy(np.asarray(made)) for made in session.run(self.outputs, values)]

        return run

    def _arguments(self, drawn: Sequence[Tensor]) -> tuple[Any, ...]:
        """z, the noises and, where patches make a sample, what their search is given."""
        noise = [value for given, value in zip(self.inputs, drawn, strict=True) if given.stream == "sample"][1:]
        search = [value for given, value in zip(self.inputs, drawn, strict=True) if given.stream != "sample"]
        return (drawn[0], noise, search) if isinstance(self.module, Finished) else (drawn[0], noise)

    def _exported(self) -> ExportedProgram:
        """For any number of samples at once, or where patches make them for one."""
        drawn, shapes = draw(self.inputs, 0, 0), None
        if not isinstance(self.module, Finished):
            drawn = [torch.cat([value, value]) for value in drawn]  # of one it would be of one for ever
            batch = Dim("batch", min=1)
            shapes = {"z": {0: batch}, "noise": [{0: batch} for _ in drawn[1:]]}
        with torch.no_grad(), _quiet():
            exported = torch.export.export(self.module, self._arguments(drawn), dynamic_shapes=shapes, strict=False)
        exported.example_inputs = None  # they would be written too, most of the file
        return exported


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

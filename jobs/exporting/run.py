"""A trained model, from the request to its file or to its version in MLflow's registry."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from infra.clip_folder import CHECKPOINT
from infra.errors import UsageError, cannot_write, one_line, printable
from infra.files import commit, sha256_of, temporary_beside, write_json
from infra.remote import fetch
from infra.store import Store, default_folder
from jobs.experiment.experiment import Experiment
from jobs.experiment.models import folder_of, frames_of_model, trained_models
from jobs.exporting.request import ExportRequest, beside
from jobs.sampling.run import naming_size, size_from
from model import checkpoint, official
from model.export.packed import Packed, pack, weights
from model.export.program import OPSET, PARITY, Apart, Program, check_packages
from model.loading import LoadedModel, load

if TYPE_CHECKING:
    from infra.tracking.registry import Pyfunc

REQUIRED = ("torch", "numpy")  # of what a packed model runs on


def run(request: ExportRequest, console: Console) -> None:
    """Export it. Raises ValueError, OSError, UsageError, VideoError, ShardError, one line each, for what cannot be."""
    if request.to == "onnx":
        check_packages()
    with tempfile.TemporaryDirectory() as folder:
        local = Path(fetch(request.model, Path(folder)))
        loaded = load(str(local), precision=request.precision, latent_frames=request.latent_frames)
        weights_file = _weights_file(local)
        if weights_file.name == official.NETWORKS:
            loaded = replace(loaded, name=request.model)
        if loaded.note:
            console.print(printable(loaded.note), soft_wrap=True)
        if request.to == "mlflow":
            line = _register(request, loaded, sha256_of(weights_file), Path(folder) / "packed")
        elif request.to == "checkpoint":
            line = _to_checkpoint(request, loaded, weights_file)
        else:
            line = _to_program(request, loaded, sha256_of(weights_file))
    console.print(line, soft_wrap=True)


def _chunks(request: ExportRequest, loaded: LoadedModel) -> list[np.ndarray]:
    """The clip, uint8 (T, H, W, 3) a chunk; none where the model does not need it. Raises ValueError, one line."""
    if not loaded.needs_clip:
        if request.real is not None:
            raise ValueError("--real: a model of networks alone needs no clip; leave it out")
        return []
    chunks = frames_of_model(request.model, loaded.name, loaded.config, request.real)
    loaded.check_frames(chunks)
    return chunks


def _weights_file(local: Path) -> Path:
    """What `load` read the networks from."""
    if not local.is_dir():
        return local
    return local / CHECKPOINT if (local / CHECKPOINT).is_file() else local / official.NETWORKS


def _to_program(request: ExportRequest, loaded: LoadedModel, digest: str) -> str:
    out = request.out
    assert out is not None
    size = None if request.size is None else size_from(request.size, loaded.config)
    chunks = _chunks(request, loaded)
    with naming_size(size):
        program = Program.of(loaded, chunks, size)
    kind = request.to
    write = program.write_onnx if kind == "onnx" else program.write_torch
    _writing(out, lambda: out.parent.mkdir(parents=True, exist_ok=True))
    with temporary_beside(out, out.suffix.removeprefix(".")) as temporary:
        _writing(out, lambda: write(temporary))
        apart = program.apart(temporary, kind)
        write_json(beside(out), {**program.about(kind, digest), "difference": asdict(apart) if apart else None})
        _writing(out, lambda: commit(temporary, out))
    form = f"ONNX, opset {OPSET}" if kind == "onnx" else "a torch.export program"
    said = f"{printable(out)}: {form}, of {printable(loaded.name)}, videos of {program.sizes[-1]} (T×H×W)"
    note = program.note(kind)
    return f"{said}; {_compared(apart, other_patches=bool(note))}" + (f"\nnote: {note}" if note else "")


def _compared(apart: Apart | None, *, other_patches: bool) -> str:
    """Of sample 0 of seed 0, what a program makes beside what the sampler does."""
    if apart is None:
        return "not compared with sample.py, as there is no onnxruntime"
    if other_patches:
        said = f"the layout of sample 0 of seed 0 {_differs(apart.layout or 0.0)}"
        return f"{said}; of its pixels {apart.share:.1%} are more than {PARITY:.0e} apart, {apart.mean:.0e} on average"
    return f"sample 0 of seed 0 {_differs(apart.most)}"


def _differs(most: float) -> str:
    if most <= PARITY:
        return f"is sample.py's but for {most:.0e}"
    return f"differs from sample.py's by {most:.0e}, more than {PARITY:.0e}: by rounding"


def _to_checkpoint(request: ExportRequest, loaded: LoadedModel, weights_file: Path) -> str:
    out = request.out
    assert out is not None
    if weights_file.name != official.NETWORKS:
        raise UsageError(
            f"--to checkpoint: {printable(request.model)} is one already; give a folder of the authors' code"
        )
    _writing(out, lambda: out.parent.mkdir(parents=True, exist_ok=True))
    checkpoint.save(weights(loaded), out)
    return f"{printable(out)}: a checkpoint for sampling, of {printable(loaded.name)}"


def _writing(path: Path, write: Callable[[], object]) -> None:
    """Raises UsageError, one line, for a file that cannot be written."""
    try:
        write()
    except OSError as error:
        raise UsageError(cannot_write(path, error)) from error
    except RuntimeError as error:  # of torch's own writer of files
        raise UsageError(f"{printable(path)}: cannot be written ({one_line(error)}); give another --out") from error


# -- MLflow


def _register(request: ExportRequest, loaded: LoadedModel, digest: str, folder: Path) -> str:
    from infra.tracking import registry  # imports MLflow, which files must not wait for
    from infra.tracking.uri import tracking_uri

    storage = _storage(request.model)
    uri = tracking_uri(request.tracking_uri, storage)
    registry.check_registry(uri)
    chunks = _chunks(request, loaded)
    packed = pack(loaded, chunks, digest, folder)
    made = registry.register(uri, storage, request.name or _name(loaded.name), _pyfunc(packed, loaded, bool(chunks)))
    return f"{made.uri}: registered in {printable(uri)}; mlflow.pyfunc.load_model loads it"


def _pyfunc(packed: Packed, loaded: LoadedModel, with_clip: bool) -> Pyfunc:
    from infra.tracking.registry import Pyfunc

    about = packed.about
    clip = " The clip's frames are in it." if with_clip else ""
    text = f"{printable(loaded.name)}, {about['method']}, {loaded.sizes[-1]} (T×H×W), {about['fps']:g} FPS.{clip}"
    return Pyfunc(
        code=packed.code,
        loader=packed.loader,
        data=packed.data,
        requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIRED],
        images=loaded.config.dims == 2,
        tags={"clip_id": printable(loaded.name), "checkpoint": about["checkpoint_sha256"], "method": about["method"]},
        description=text,
    )


def _storage(model: str) -> Path:
    """Where MLflow's sqlite file is if no server is named: in the storage around a model, else in the default one."""
    experiment = Experiment(folder_of(Store.open(model, "CLIP")).parent)
    return experiment.storage.tracking_folder if trained_models(experiment) else default_folder()


def _name(model: str) -> str:
    """Of the registered model, which may hold none of / : . % " '."""
    return re.sub(r"[/:.%\"'\s]+", "_", Path(model).name).strip("_")[:200] or "model"

"""A model in a folder that needs this project no more: its weights, its clip, and a copy of the code that samples."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model import checkpoint
from model.checkpoint import Checkpoint
from model.export import served
from model.loading import LoadedModel
from model.sampling.sample import frames_per_second

ROOT = Path(__file__).resolve().parent.parent.parent
ENTRY = "model.export.served"
PACKAGE = "hp_vae_gan_"  # and a digest: two versions of the code can be loaded in one process


@dataclass(frozen=True)
class Packed:
    """Where everything is.

    Attributes:
        code: the folder of the package.
        loader: name of the module in it that has `_load_pyfunc`.
        data: what that is given.
        about: what `data` holds beside weights and clip, for people.
    """

    code: Path
    loader: str
    data: Path
    about: dict[str, Any]


def pack(loaded: LoadedModel, chunks: Sequence[np.ndarray], digest: str, folder: Path) -> Packed:
    """Write a model into a folder.

    Args:
        chunks: the clip, uint8 (T, H, W, 3) each; none where the model does not need it.
        digest: SHA-256 of the checkpoint it comes from.

    Raises StorageError, OSError.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    checkpoint.save(weights(loaded), data / served.CHECKPOINT)
    if chunks:
        np.save(data / served.CLIP, np.stack(chunks), allow_pickle=False)
    config = loaded.config
    about = {
        "format": 1,
        "model": loaded.name,
        "checkpoint_sha256": digest,
        "method": config.method,
        "precision": config.precision,
        "fps": frames_per_second(config, loaded.sizes[-1].frames),
        "scales_thw": [list(size) for size in loaded.sizes],
        "latent_frames": loaded.latent_frames,
        "config": config.to_dict(),
    }
    (data / served.ABOUT).write_text(json.dumps(about, indent=2))
    code = _write_code(folder / "code")
    return Packed(code, f"{code.name}.{ENTRY}", data, about)


def weights(loaded: LoadedModel) -> Checkpoint:
    """A checkpoint for sampling, of the authors' files too: without what only training needs."""
    stack, config = loaded.stack, loaded.config
    trained = stack.num_scales if stack else 0
    return Checkpoint(
        config=config,
        sizes=tuple((size.frames, size.height, size.width) for size in loaded.sizes),
        clip_id=Path(loaded.name).name,
        samples=loaded.examples or 1,
        scale=trained - 1,
        iteration=config.iterations[trained - 1] if trained else 0,
        train_s=0.0,
        noise_amps=tuple(stack.noise_amps) if stack else (),
        generators={name: value.cpu() for name, value in stack.state_dict().items()} if stack else {},
        critic=None,
        optimizers=(),
    )


def _write_code(folder: Path) -> Path:
    """The modules that ENTRY needs, in one package whose imports are within it. Returns the package's folder."""
    sources = {name: path.read_text() for name, path in sorted(_needed(ENTRY).items())}
    digest = hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:12]
    package = folder / f"{PACKAGE}{digest}"
    for name, source in sources.items():
        path = package.joinpath(*name.split(".")).with_suffix(".py")
        for above in [*path.relative_to(package).parents]:
            (package / above).mkdir(parents=True, exist_ok=True)
            (package / above / "__init__.py").touch()  # empty: those of the project set up Ray and MLflow
        path.write_text(re.sub(r"^(\s*)from (model|infra)\b", rf"\1from {package.name}.\2", source, flags=re.MULTILINE))
    return package


def _needed(entry: str) -> dict[str, Path]:
    """A module and all modules of this project that it imports: name → file."""
    found: dict[str, Path] = {}
    wanted = [entry]
    while wanted:
        name = wanted.pop()
        path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        if name not in found and path.is_file():
            found[name] = path
            wanted += _imported(path)
    return found


def _imported(path: Path) -> Iterator[str]:
    """`from model.x import y` is model.x, or model.x.y where that is a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("model", "infra"):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)

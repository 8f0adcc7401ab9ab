"""A model from where it lies: a checkpoint of this project, or a folder of the authors' published code."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from infra.remote import fetch
from model import checkpoint, official, presets
from model.networks.generators import GeneratorStack
from model.pyramid import ladder


@dataclass(frozen=True)
class LoadedModel:
    """What `load` returns.

    Attributes:
        stack: encoder and generators on the CPU, without gradients.
        name: the clip's id, or the path of the authors' folder.
        note: one line on what had to be assumed; "" if nothing had to be.
    """

    stack: GeneratorStack
    name: str
    note: str = ""


def load(path: str) -> LoadedModel:
    """The generators of a checkpoint file, or of a folder of the authors' code. path: or its URI.

    Raises CheckpointError for what cannot be read, ValueError for a clip too narrow for the ladder.
    """
    with tempfile.TemporaryDirectory() as cache:
        try:
            local = fetch(path, Path(cache))
        except (ValueError, OSError) as error:
            raise checkpoint.CheckpointError(str(error)) from error
        if not Path(local).is_dir():
            saved = checkpoint.load(local)
            return LoadedModel(saved.stack(), saved.clip_id)
        published = official.load(local, presets.official())
    note = ""
    if published.aspect is None:
        note = f"no args.txt in {path}: taken as a 16:9 clip with {published.config.vae_levels} VAE scales"
    sizes = ladder(published.config, *(published.aspect or (9, 16)))
    return LoadedModel(published.stack(sizes), path, note)

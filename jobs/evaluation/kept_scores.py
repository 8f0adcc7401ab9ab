"""The scores of a clip, kept as they come: an evaluation that is stopped goes on with the clips that it has not scored.

Each lies in the clip's folder of results, with what it was made of. Of other weights, frames, settings or versions they
are made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch

import infra
from infra.store import Store
from jobs.evaluation.table import ScoredClip
from model.loading import LoadedModel
from model.metrics.scores import Score

SCORES = "scores.json"


def made_of(loaded: LoadedModel, chunks: Sequence[np.ndarray], settings: str) -> str:
    """What scores are made of, as a digest: weights, frames, versions, and the settings of the evaluation as text."""
    digest = hashlib.sha256(
        json.dumps([settings, loaded.config.to_dict(), infra.__version__, torch.__version__]).encode()
    )
    if loaded.stack:
        digest.update(str(loaded.stack.noise_amps).encode())
        for name, weights in sorted(loaded.stack.state_dict().items()):
            digest.update(name.encode() + weights.cpu().contiguous().numpy().tobytes())
    for chunk in chunks:
        digest.update(str(chunk.shape).encode() + np.ascontiguousarray(chunk).tobytes())
    return digest.hexdigest()


def read(out: Store, row: str, digest: str) -> ScoredClip | None:
    """The scores of a row that were made of the same, None without; also where a file of theirs is gone.

    Raises StorageError.
    """
    content = out.read([f"{row}/{SCORES}"]).get(f"{row}/{SCORES}")
    with contextlib.suppress(ValueError, KeyError, TypeError):  # of a file that is damaged, or of another version
        kept = json.loads(content or b"")
        scores = {name: Score(**each | {"values": tuple(each["values"])}) for name, each in kept["scores"].items()}
        if kept["made_of"] == digest and set(kept["files"]) <= out.names(row):
            return ScoredClip(kept["clip_id"], scores, kept["complaints"], kept["files"], kept["method"])
    return None


def write(out: Store, row: str, digest: str, scored: ScoredClip) -> None:
    """Keep them. Raises StorageError."""
    out.write_json(f"{row}/{SCORES}", {"made_of": digest, **asdict(scored)})

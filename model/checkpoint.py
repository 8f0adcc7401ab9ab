"""One file that holds everything a clip's training is: config, ladder, networks, optimizers, position.

A file is what `torch.save` makes, sealed by its SHA-256 in the last line. Two are kept: `checkpoint.pt` and, from the
save before it, `checkpoint.previous.pt`, which `resume` falls back on. Read with `weights_only=True`: tensors and plain
values, nothing that runs.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infra.files import replacing, sync_folder
from model.config import ConfigError, TrainConfig
from model.networks.generators import GeneratorStack
from model.networks.stacks import new_stack
from model.pyramid import ScaleSize

FORMAT = 3  # 1 had no seal; 2 kept the state of a random generator, which is a function of the position now
GIVE = "give the checkpoint.pt of a clip"
DELETE = "delete it, and the same command trains the clip from the start"  # of a training's own file alone


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line: file, cause, mend."""


class DamagedCheckpoint(CheckpointError):
    """A file whose bytes are not those that `save` wrote: torn, empty, changed, or of something else."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file holds. `iteration` counts finished iterations of `scale`; a finished scale has all of them.

    Of a method without networks it names the clip and the settings; `scale` is -1.
    """

    config: TrainConfig
    sizes: tuple[tuple[int, int, int], ...]  # (T, H, W) of every scale
    clip_id: str
    samples: int  # that it is trained on: 1, or the chunks of a long video and their augmented copies
    scale: int
    iteration: int
    train_s: float  # seconds of training so far
    noise_amps: tuple[float, ...]  # as many as there are generators: scale + 1; none of a method without networks
    generators: dict[str, Tensor]  # state of the GeneratorStack
    critic: dict[str, Tensor] | None  # None at VAE scales
    optimizers: tuple[dict[str, Any], ...]  # generator's, then the critic's at GAN scales

    @property
    def done(self) -> bool:
        """Whether every iteration of every scale is in it."""
        return len(self.noise_amps) == self.config.trained_scales and (
            not self.noise_amps or self.iteration == self.config.iterations[self.scale]
        )

    def stack(self) -> GeneratorStack | None:
        """The encoder and the generators trained so far, on the CPU, without gradients, as they were saved.

        None of a method without networks.
        """
        if not self.noise_amps:
            return None
        return rebuild(self.config, [ScaleSize(*size) for size in self.sizes], self.generators, self.noise_amps)


def rebuild(
    config: TrainConfig, sizes: Sequence[ScaleSize], generators: Mapping[str, Tensor], noise_amps: Sequence[float]
) -> GeneratorStack:
    """A stack on the CPU, without gradients, from its state; as many generators as there are noise amplitudes."""
    stack = new_stack(config, sizes)
    while stack.num_scales < len(noise_amps):
        stack.grow()
    stack.load_state_dict(generators)
    stack.noise_amps = list(noise_amps)
    return stack.requires_grad_(False)


def previous(path: Path) -> Path:
    """Where the checkpoint before `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write `path`; what it held becomes `previous(path)`. One of the two is whole at any instant, whatever happens.

    Raises StorageError if it cannot be written.
    """
    record = {field: getattr(checkpoint, field) for field in checkpoint.__dataclass_fields__}
    record.update(format=FORMAT, config=checkpoint.config.to_dict())
    content = io.BytesIO()
    torch.save(record, content)
    with replacing(path, keep=previous(path)) as file:
        file.write(content.getbuffer())
        file.write(_seal(content.getbuffer()))


def load(path: str | os.PathLike[str], mend: str = GIVE) -> Checkpoint:
    """Read a checkpoint onto the CPU. mend: what an error tells to do about a file that is none.

    Raises DamagedCheckpoint if the file is not as it was written, CheckpointError if it is missing, cannot be read, or
    is of another program or of another format.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; {mend}") from error
    except OSError as error:
        cause = f"not a readable checkpoint ({error.strerror})"
        raise CheckpointError(f"{path}: {cause}; {mend}") from error
    body = memoryview(content)[: -len(_seal(b""))]
    sealed = content[len(body) :] == _seal(body)
    # A file without its seal is opened only to say what it is.
    refused = CheckpointError if sealed else DamagedCheckpoint
    try:
        record = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler raise anything: IndexError, struct.error …
        raise refused(f"{path}: not a readable checkpoint; {mend}") from error
    if not isinstance(record, Mapping) or "format" not in record:
        raise refused(f"{path}: not a checkpoint of this program; {mend}")
    if record["format"] != FORMAT:
        raise refused(f"{path}: checkpoint format {record['format']}, this version reads {FORMAT}; {mend}")
    if not sealed:
        raise refused(f"{path}: damaged, its checksum does not match; {mend}")
    fields = {name: record[name] for name in Checkpoint.__dataclass_fields__ if name in record}
    try:
        fields["config"] = TrainConfig.from_dict(record["config"])
        return Checkpoint(**fields)
    except (ConfigError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: incomplete checkpoint ({error}); {mend}") from error


def resume(path: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """What a training goes on from: `path`, else the checkpoint before it, which then takes its place.

    Args:
        warn: called with one line when `path` is damaged or gone and the one before it is used.

    Returns None if there is neither. Raises CheckpointError as `load` does, and if both are damaged.
    """
    before = previous(path)
    cause = "gone"
    if path.exists():
        try:
            return load(path, DELETE)
        except DamagedCheckpoint:
            if not before.exists():
                raise
            cause = "damaged"
    elif not before.exists():
        return None
    try:
        saved = load(before, DELETE)
    except DamagedCheckpoint as error:
        mend = "delete both, and the same command trains the clip from the start"
        raise CheckpointError(f"{path}: {cause}, and {before.name} is damaged; {mend}") from error
    warn(f"{path}: {cause}; went on from {before.name}: scale {saved.scale}, iteration {saved.iteration}")
    os.replace(before, path)  # and not the next save: that would keep the damaged one and lose this
    sync_folder(path.parent)
    return saved


def _seal(content: bytes | memoryview) -> bytes:
    """The last line of a file: a comment to readers of the zip that `torch.save` writes."""
    return b"\nsha256 " + hashlib.sha256(content).hexdigest().encode() + b"\n"

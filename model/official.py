"""Import of what the authors' published code saves: a folder with netG.pth, Noise_Amps.pth and args.txt.

Facts from their repository (shirgur/hp-vae-gan, f372e84: train_video.py, eval_video.py, modules/networks_3d.py,
utils/images.py); none of its code. Saved after every scale, so an unfinished training has fewer generators:
    netG.pth        {"scale", "state_dict", "optimizer", "noise_amps"}; encode = E, decoder = G⁰, body = G¹ …
    Noise_Amps.pth  {"data": one number a scale}; VAE scales have one too, which is not 0 and which nothing reads
    args.txt        one `option: value` a line: the only place of the aspect, the VAE scales, the ladder's length and
                    the file's frame rate
Their norms always use the statistics of the sample, so running_mean and running_var are not read, nor the biases of
convolutions in front of a norm, which it subtracts again.
Their eval_video.py draws z with the 13 frames of the finest scale, a length G⁰ was not trained at. Here z has the size
of scale 0, as in their training, unless `loading.load` is given latent_frames=13.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infra.errors import counted
from model.checkpoint import CheckpointError, rebuild
from model.config import ConfigError, TrainConfig
from model.networks.generators import GeneratorStack
from model.pyramid import ScaleSize

UNUSED = re.compile(
    r"(decoder|body\.\d+)\.(head|block\d+)\.(conv\.bias|norm\.(running_(mean|var)|num_batches_tracked))"
)
OPTIONS = {
    **{"ar": float, "org_fps": float, "img_size": int, "min_size": int, "sampling_rates": list},
    **{"stop_scale": int, "stop_scale_time": int, "vae_levels": int},
}
NETWORKS = "netG.pth"
MEND = "give netG.pth of a GeneratorHPVAEGAN for video"


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the folder holds, under this program's names. Only the sizes of the ladder are missing.

    >>> published = load("run/air_balloons/DEBUG/experiment_0", official())
    >>> stack = published.stack(sizes)      # the ladder of published.config for a clip of published.aspect
    """

    config: TrainConfig
    aspect: tuple[int, int] | None  # height : width of the clip; None without args.txt: vae_levels is the caller's then
    noise_amps: tuple[float, ...]  # one a generator, 0 at VAE scales
    generators: dict[str, Tensor]  # state of the GeneratorStack, float32

    def stack(self, sizes: Sequence[ScaleSize]) -> GeneratorStack:
        """The encoder and the generators on the CPU, without gradients. sizes: (T, H, W) of every scale."""
        return rebuild(self.config, sizes, self.generators, self.noise_amps)


def load(folder: str | os.PathLike[str], config: TrainConfig) -> Published:
    """Read a folder of the authors' code; nothing in it is executed.

    Args: config: their code's defaults (preset `official`); what the files say replaces its networks and scales.

    Raises CheckpointError for a file that is missing, unreadable or not of their hp-VAE-GAN for video, and for noise
    amplitudes that are not one a scale.
    """
    folder = Path(folder)
    path = folder / NETWORKS
    tensors = _tensors(path)
    scales = 1 + _count(r"body\.(\d+)\..*", tensors)
    config = _with_networks(config, tensors, scales, path)
    aspect = None
    if (folder / "args.txt").exists():
        config, aspect = _with_ladder(config, folder / "args.txt")
    if scales > config.num_scales:
        raise CheckpointError(
            f"{path}: {counted(scales, 'scale')}, args.txt says {config.num_scales}; give files of one training"
        )
    generators = _renamed(config, tensors, scales, path)
    amps = _noise_amps(folder / "Noise_Amps.pth", scales)
    return Published(
        config=config,
        aspect=aspect,
        noise_amps=tuple(0.0 if n < config.vae_levels else amp for n, amp in enumerate(amps)),
        generators=generators,
    )


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: no such file; give a folder with netG.pth and Noise_Amps.pth, or a checkpoint.pt"
        ) from error
    except Exception as error:  # as in checkpoint.load: a damaged file makes the unpickler raise anything
        raise CheckpointError(f"{path}: not a readable file of tensors and plain values; copy it again") from error


def _tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in netG.pth, or netG.pth if it is one, without the prefix of DataParallel."""
    record = _read(path)
    state = record.get("state_dict", record) if isinstance(record, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path}: holds no state_dict; {MEND}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: unexpected entry {name!r}; {MEND}")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _count(pattern: str, names: Mapping[str, Tensor]) -> int:
    """How many different numbers the names that match have."""
    return len({found[1] for found in (re.fullmatch(pattern, name) for name in names) if found})


def _with_networks(config: TrainConfig, tensors: Mapping[str, Tensor], scales: int, path: Path) -> TrainConfig:
    """`config` with the networks of the file."""
    first, mu = "encode.features.conv_block_0.conv.weight_orig", "encode.mu.conv.weight"
    for name in (first, mu):
        if name not in tensors or not tensors[name].ndim:
            raise CheckpointError(f"{path}: no weights {name}; {MEND}")
    try:
        return replace(
            config,
            num_scales=scales,
            vae_levels=min(config.vae_levels, scales),
            channels=len(tensors[first]),
            latent_dim=len(tensors[mu]),
            encoder_convs=_count(r"encode\.features\.conv_block_(\d+)\..*", tensors),
            generator_convs=_count(r"decoder\.block(\d+)\..*", tensors) + 2,  # head and tail
            tanh_after_sum=True,
        )
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}; {MEND}") from error


def _with_ladder(config: TrainConfig, path: Path) -> tuple[TrainConfig, tuple[int, int]]:
    """`config` with the scales of args.txt, and the aspect (height, width) of the clip."""
    try:
        args = _options(path)
        if args["stop_scale_time"] != args["stop_scale"]:
            raise ValueError(f"stop_scale_time={args['stop_scale_time']} is not stop_scale={args['stop_scale']}")
        if args["vae_levels"] < 1:
            raise ValueError(f"vae_levels={args['vae_levels']}: their code needs 1 or more")
        height, width = Fraction(args["ar"]).limit_denominator(10_000).as_integer_ratio()  # ar = height / width
        if height < 1:
            raise ValueError(f"ar={args['ar']}: height over width, above 0")
        num_scales = args["stop_scale"] + 1
        ladder = replace(
            config,
            num_scales=num_scales,
            vae_levels=min(args["vae_levels"], num_scales),
            min_size=args["min_size"],
            max_size=args["img_size"],  # their ladder ends there whatever max_size is, which changes its length only
            frame_rates=args["sampling_rates"],
            num_frames=math.lcm(*args["sampling_rates"]) + 1,
            fps=args["org_fps"] or None,  # 0: of a file that did not say
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{path}: {error}; give the args.txt that was saved with netG.pth") from error
    return ladder, (height, width)


def _options(path: Path) -> dict[str, Any]:
    """The OPTIONS in args.txt. Their lines are numbers and lists of numbers, written alike in Python and JSON."""
    args: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, text = line.partition(":")
        if name in OPTIONS:
            try:
                args[name] = json.loads(text)
            except (ValueError, RecursionError):
                args[name] = text
            if type(args[name]) is not OPTIONS[name]:
                raise ValueError(f"{name}: {text.strip()} is no {OPTIONS[name].__name__}")
    missing = OPTIONS.keys() - args.keys()
    if missing:
        raise ValueError(f"no option {min(missing)}")
    return args


def _noise_amps(path: Path, scales: int) -> list[float]:
    record = _read(path)
    try:
        amps = [float(amp) for amp in (record["data"] if isinstance(record, Mapping) else record)]
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"{path}: holds no list of numbers; give Noise_Amps.pth saved with netG.pth") from error
    if len(amps) > scales:
        raise CheckpointError(
            f"{path}: {len(amps)} noise amplitudes for {scales} scales: the authors' code adds one again when it "
            "resumes a training, which shifts all later ones; save the list without it"
        )
    if len(amps) < scales or not all(0 <= amp < math.inf for amp in amps):
        raise CheckpointError(f"{path}: not {scales} numbers, one a scale; give Noise_Amps.pth saved with netG.pth")
    return amps


def _names(config: TrainConfig, scales: int) -> dict[str, str]:
    """Name of each tensor of a GeneratorStack → its name in the authors' GeneratorHPVAEGAN."""
    names: dict[str, str] = {}
    for i in range(config.encoder_convs):
        ours, theirs = f"encoder.blocks.{i}", f"encode.features.conv_block_{i}.conv"
        names |= {f"{ours}.weight": f"{theirs}.weight_orig", f"{ours}.bias": f"{theirs}.bias"}
        names |= {f"{ours}.u": f"{theirs}.weight_u", f"{ours}.v": f"{theirs}.weight_v"}
    for head in ("mu", "logvar"):
        names |= {f"encoder.{head}.{part}": f"encode.{head}.conv.{part}" for part in ("weight", "bias")}
    for n in range(scales):
        g = "decoder" if n == 0 else f"body.{n - 1}"
        for i in range(config.generator_convs - 1):
            ours, theirs = f"generators.{n}.blocks.{i}", f"{g}.head" if i == 0 else f"{g}.block{i - 1}"
            names |= {f"{ours}.{part}": f"{theirs}.norm.{part}" for part in ("weight", "bias")}
            names[f"{ours}.conv.weight"] = f"{theirs}.conv.weight"
        names |= {f"generators.{n}.tail.{part}": f"{g}.tail.{part}" for part in ("weight", "bias")}
    return names


def _renamed(config: TrainConfig, tensors: Mapping[str, Tensor], scales: int, path: Path) -> dict[str, Tensor]:
    """The tensors under the names of a GeneratorStack, every one there, of the right shape, and no others."""
    names = _names(config, scales)
    known = set(names.values())
    for name in tensors:
        if name not in known and not UNUSED.fullmatch(name):
            raise CheckpointError(f"{path}: unexpected tensor {name}; {MEND}")
    with torch.device("meta"):  # shapes only
        blank = GeneratorStack(config, ())
        while blank.num_scales < scales:
            blank.grow()
    for ours, wanted in blank.state_dict().items():
        name = names[ours]
        if name not in tensors:
            raise CheckpointError(f"{path}: no tensor {name}; {MEND}")
        if tensors[name].shape != wanted.shape:
            raise CheckpointError(f"{path}: {name} is {tuple(tensors[name].shape)}, not {tuple(wanted.shape)}; {MEND}")
    return {ours: tensors[name].float() for ours, name in names.items()}

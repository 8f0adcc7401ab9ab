"""What of a measurement is not the paper's, in words: figures stand beside the paper's only where nothing differs.

differences(demo())     # "M = 1 VAE level (paper: 3); β_vae 5 (paper: 0.1, 50 times as much as there); …"
differences(paper())    # ""
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from infra.errors import counted
from model.config import RUN_SETTINGS, TrainConfig
from model.presets import image_official, image_paper, of_method, official, paper

_LADDER = {"ladder_side", "min_size", "max_size", "scale_factor", "num_scales", "rescaling"}
_PATCHES = {"patch_size", "patch_alpha", "patch_bandwidth", "patch_passes", "patch_margin", "patch_coarse_passes"}
_IN_WORDS = {"method", "vae_levels", "kl_weight", "iters_per_scale", "patch_scale"} | _LADDER
_OF_VGPNN = {
    "method",
    "num_frames",
    "fps",
    "resizing",
    "stride",
} | _LADDER  # what it takes, but for patches
_NEVER_TOLD = {*RUN_SETTINGS, *_PATCHES, "seed", "dims"}


def is_papers_features(name: str) -> bool:
    """Whether features of that name are the paper's for videos: C3D of Sports-1M and UCF-101 (A.2)."""
    return name.startswith("c3d_ucf101_")


def differences(config: TrainConfig, *, rival: bool = False) -> str:
    """How a configuration differs from the paper's, in words, parts joined by "; ".

    The paper's is that of its text (`paper`, `image_paper`) or of the authors' code (`official`, `image_official`),
    whichever is nearer. For SinGAN and ConSinGAN it is the same preset as one of theirs.

    Args: rival: the paper's figures are of the same method, as those of SinGAN in Table 3: that it is another than the
        paper's own is no difference.

    Returns: "" for those presets, whatever the settings of the run and the seed are.
    """
    text, code = (paper(), official()) if config.dims == 3 else (image_paper(), image_official())
    if config.method in ("singan", "consingan"):
        text, code = of_method(text, config.method), of_method(code, config.method)
    names, base, whose = min(
        ((_differing(config, text), text, "paper"), (_differing(config, code), code, "authors' code")),
        key=lambda found: len(found[0]),
    )
    listed = [] if rival or config.method == "hpvaegan" else [f"method {config.method} (paper: hpvaegan)"]
    if "vae_levels" in names:
        levels = counted(config.vae_levels, "VAE level")
        listed.append(f"M = {levels} ({whose}: {base.vae_levels})")
    if "kl_weight" in names:
        times = f"{config.kl_weight / base.kl_weight:.3g} times as much as there"
        listed.append(f"β_vae {config.kl_weight:g} ({whose}: {base.kl_weight:g}, {times})")
    if "iters_per_scale" in names:
        listed.append(f"{_iterations(config)} ({whose}: {_iterations(base)})")
    if names & _LADDER:
        listed.append(f"{_ladder(config)} ({whose}: {_ladder(base)})")
    if "patch_scale" in names:
        listed.append(f"the clip's patches in place of the scales from {config.patch_scale} on")
    listed += [
        f"{field.name} {_value(getattr(config, field.name))} ({whose}: {_value(getattr(base, field.name))})"
        for field in fields(config)
        if field.name in names - _IN_WORDS
    ]
    return "; ".join(listed)


def _differing(config: TrainConfig, base: TrainConfig) -> set[str]:
    """Names of the settings that differ, of those that matter to the config's method."""
    names = {field.name for field in fields(config) if getattr(config, field.name) != getattr(base, field.name)}
    names -= _NEVER_TOLD | {"iters_per_scale"}
    if config.iterations != base.iterations:  # one number for all scales is the same as a list of it
        names.add("iters_per_scale")
    if config.fps in (24.0, None) or config.dims == 2:  # the text has the one, the authors' code the other
        names.discard("fps")
    if config.vae_levels == 0:
        names.discard("kl_weight")
    return names & _OF_VGPNN if config.method == "vgpnn" else names


def _iterations(config: TrainConfig) -> str:
    each = config.iterations
    if len(each) == 1:
        return f"{counted(each[0], 'iteration')} of scale 0"
    if len(set(each)) == 1:
        return f"{counted(each[0], 'iteration')} of each of {counted(len(each), 'scale')}"
    return f"{', '.join(f'{count:,}' for count in each)} iterations, scale by scale"


def _ladder(config: TrainConfig) -> str:
    side = {"height": "height", "width": "width", "shorter": "shorter side"}[config.ladder_side]
    grows = "" if config.scale_factor is None else f", ×{config.scale_factor:g} a scale"
    grows = grows if config.rescaling == "geometric" else f", {config.rescaling} rescaling"
    return f"{counted(config.num_scales, 'scale')} from {config.min_size} to {config.max_size} px of the {side}{grows}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower()

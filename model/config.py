"""TrainConfig: every number that defines a model and its training, in one frozen, validated object.

Presets (model/presets.py) are complete TrainConfigs; `--set key=value` goes through `with_overrides`.
A config survives a JSON round trip (`to_dict`, `from_dict`), so config.json and a checkpoint can rebuild it.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

RUN_SETTINGS = (
    "precision",
    "micro_batch",
    "low_memory",
    "compile",
    "checkpoint_every",
    "log_every",
)  # may change when a training is resumed
LadderSide = Literal["height", "width", "shorter"]
Precision = Literal["auto", "bf16", "float32"]
Latent = Literal["gaussian", "patchvae"]
Method = Literal["hpvaegan", "singan", "consingan", "vgpnn"]
Resizing = Literal["corners", "opencv"]
Enlarging = Literal["linear", "cubic"]
Finish = Literal["generators", "patches"]  # of an application: what the scales above a given video are
Retarget = Literal["objects", "layout"]  # what keeps its size, or its place, in a picture of another aspect
LEAK = 0.2  # negative slope of LeakyReLU: A.1 gives none, this is the authors' code's
MOST_DOUBLED = 128  # channels, of `channels_double`: SinGAN's code
COLOURS = 5  # of a quantised painting: SinGAN's paint_train


NEAR = 0.7  # of difflib: what a slip of the finger leaves of a name


class ConfigError(ValueError):
    """A field that does not exist or a value out of range; the message is one line that names the mend."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One model's definition and training. Units and sources are beside each field; "§" refers to the paper."""

    # singan, consingan: the paper's rivals (networks/singan.py). vgpnn: no network; random videos are made of the
    # clip's patches (patches/vgpnn.py). Of this config it takes the frames and the size of the finest scale only
    method: Method = "hpvaegan"
    # 2: of images, which are clips of one frame, with kernels of 1×k×k (§4.2, "Image Generation")
    dims: Literal[2, 3] = 3

    # -- pyramid (§3.2, A.1)
    ladder_side: LadderSide  # which side min_size and max_size measure; shorter: of the two
    min_size: int  # px of that side at scale 0
    max_size: int  # px of that side at the finest scale
    scale_factor: float | None  # growth a scale, capped at max_size; None: geometric from min_size to max_size
    num_scales: int  # N + 1
    num_frames: int = 13  # LCM(1, 2, 3, 4) + 1 (§3.2)
    fps: float | None = 24.0  # frames a second that a video is resampled to (§3.2); None: its pictures as they are
    # how the real clip comes down to a scale. corners: bilinear with align_corners=True, of frames shrunk to about the
    # finest scale first; opencv: cv2.resize of frames as large as the source's, as in the authors' code (pyramid.py)
    resizing: Resizing = "corners"
    frame_rates: tuple[int, ...] = (4, 3, 2, 1)  # sub-sampling, scale 0 first: Ω
    # how sizes grow without a scale_factor. geometric: each as much; consingan: most at the coarse scales
    rescaling: Literal["geometric", "consingan"] = "geometric"
    # how the output of a scale is enlarged for the next one. linear: over space and time together (§3.2); cubic: cubic
    # over space and linear over time, SinGAN's and ConSinGAN's own
    enlarging: Enlarging = "linear"

    # -- networks (A.1)
    channels: int = 64
    channels_double: int | None = None  # after so many scales G and D have twice the channels, at most 128; SinGAN: 4
    latent_dim: int = 128
    generator_convs: int  # convolutions in every Gⁿ
    encoder_convs: int  # spectral-norm convolutions in E, before M and S
    critic_convs: int  # convolutions in every Dⁿ
    tanh_after_sum: bool  # False: x̄ⁿ = up + tanh(G(up)), eq. 6 with A.1; True: tanh(up + G(up)), authors' code
    critic_last_spectral: bool  # spectral norm on the last convolution of D too
    critic_spectral: bool = True  # spectral norm on the others; SinGAN and ConSinGAN: none
    critic_norm: bool = False  # instead, normalisation of each sample, after all of D's convolutions but the last
    critic_padded: bool = True  # False, the rivals' own: each convolution makes D's map smaller by 2 a side
    generator_norm: bool = True  # normalisation in Gⁿ; ConSinGAN: none
    leak: float = LEAK  # slope of every LeakyReLU below 0; ConSinGAN: 0.05
    # where SinGAN and ConSinGAN need more than a frame has. noise: a random sample is enlarged, with noise over all of
    # it; zeros: zeros lie around it and its noise, as around a reconstruction: SinGAN's own
    random_border: Literal["noise", "zeros"] = "noise"
    # what the clip is reconstructed from where there is no VAE scale. noise: a fixed z*; clip: x⁰, ConSinGAN's own
    fixed_code: Literal["noise", "clip"] = "noise"

    # -- training (§3, A.1)
    vae_levels: int = (
        3  # M: scales 0 … M-1 train as patch-VAE, the others as patch-GAN; 0: GAN only (networks/encoder.py)
    )
    iters_per_scale: int | tuple[int, ...]  # iterations; one number for all scales, or one a scale
    lr: float = 5e-4  # Adam, generator and critic alike
    lr_final: float = 1.0  # the learning rate falls to lr · lr_final within each scale; 1: constant
    lr_fall: Literal["cosine", "step"] = "cosine"  # along half a cosine, or at once after four fifths: rivals' own
    adam_betas: tuple[float, float] = (0.5, 0.999)  # not in the text; authors' code
    vae_lr_decay: float = 0.2  # E and G⁰ train at lr · vae_lr_decayⁿ at VAE scale n
    rec_weight: float
    # whether scale 0 adds MSE(x̄⁰, x⁰) of eq. 8 too, which there is the first term once more: 2·rec_weight·MSE in all.
    # Eq. 5 does not; the authors' code adds both terms at every VAE scale (train_video.py)
    rec_zero_twice: bool = False
    kl_weight: float  # β_vae
    adv_weight: float  # β_adv
    gp_weight: float = 0.1  # λ of the gradient penalty; not in the text, authors' code
    noise_amp: float = 0.1  # z_n has amplitude noise_amp · RMSE(x̄ⁿ, xⁿ) at GAN scales; likewise
    vae_noise: bool = False  # random samples get z_n at the VAE scales above 0 too, as in the authors' 2D code
    batch_size: int = 1  # random draws of each example in an iteration; their losses are averaged
    train_depth: int = 1  # GAN scales that learn together: Gᵏ at lr · 0.2ⁿ⁻ᵏ, of unfrozen_lr_decay; ConSinGAN: 3
    gan_steps: int = 1  # steps of D, then of G, in an iteration of a GAN scale; SinGAN: 3
    # norm over all trained parameters of E and G; the critic is not clipped. The text has no clipping (model/README.md)
    grad_clip: float | None = 5.0  # None: none
    # GAN scales train on a random part of the volume, so much of its height and width; 1: all of it, as the paper. The
    # critic is one of patches: the gradient is the same in expectation, but for what the border and the statistics of
    # the normalisation do. Never less than what the critic sees at once
    gan_crop: float = 1.0
    seed: int = 0

    # -- examples: the loss is a sum over them (eq. 5, 11); off by default, as in the paper's experiments
    flip: bool = False  # each clip or chunk mirrored left to right too
    crops: int = 0  # and so many random crops of each, a tenth smaller a side, at the clip's size
    stride: int | None = None  # frames from a chunk's start to the next one's; None: one clip is all there is
    chunks_per_iter: int | None = None  # None: all examples in each iteration; k: so many at random, stochastic descent

    # -- ablations (§4.2); the defaults are the method, and what a file from before these fields means
    # freeze=False: at scale n E and every G⁰ … Gⁿ learn, by the same losses, Gᵏ at lr · unfrozen_lr_decayⁿ⁻ᵏ and E as
    # G⁰; so at GAN scales. The text gives no rates.
    freeze: bool = True
    unfrozen_lr_decay: float | None = None  # 1: equal rates; None: vae_lr_decay, as --train-all in the authors' code
    vae_kernel: int = 3  # side of every convolution of the patch-VAE generators; 1: "decoder with r = 1"
    encoder_kernel: int = 3  # side of every convolution of E, M and S; 1: "encoder with r = 1"
    latent: Latent = "gaussian"  # patchvae: that of Gupta et al. for E and G⁰, A.4 (networks/patchvae.py)

    # -- patches in place of the fine scales (model/patches/refine.py); not in the paper
    patch_scale: int | None = None  # scales from it on are not trained: the clip's patches make their detail
    patch_size: tuple[int, int, int] = (3, 7, 7)  # frames, height, width (VGPNN)
    patch_alpha: float = 0.005  # completeness: mean squared difference of a value; large: nearest patches alone (GPNN)
    # Of the mean shift where patches overlap, for values in [-1, 1]; None: their mean, as in VGPNN.
    patch_bandwidth: float | None = None
    patch_passes: int = 2  # a scale
    # where layouts drawn one after the other are all the clip itself, they are cut out of ones larger by so much a side
    patch_margin: float = 0.15
    patch_coarse_passes: int = 6  # before that, at the finest trained scale: its samples become the clip's patches too

    # -- how it runs; never changes what is computed, but for rounding
    precision: Precision = "auto"  # auto: bf16 where the hardware multiplies it natively, else float32
    micro_batch: int | None = (
        None  # examples in memory at once; None: as many as half of it should hold (training/memory.py)
    )
    low_memory: bool = False  # activations of one video at a time, computed twice: about a third less memory, slower
    compile: bool = False  # torch.compile of every generator: minutes at each scale, then faster iterations
    checkpoint_every: int = 500  # iterations between checkpoints within a scale
    log_every: int = 20  # iterations between logged losses

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _typed(field.name, getattr(self, field.name)))

        def need(ok: bool, text: str) -> None:
            if not ok:
                raise ConfigError(text)

        for name in ("min_size", "num_scales", "channels", "latent_dim", "checkpoint_every", "log_every"):
            need(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: at least 1")
        for name in ("generator_convs", "critic_convs"):
            need(getattr(self, name) >= 2, f"{name}={getattr(self, name)}: at least 2, a first and a last one")
        need(self.encoder_convs >= 1, f"encoder_convs={self.encoder_convs}: at least 1")
        need(self.max_size >= self.min_size, f"max_size={self.max_size}: at least min_size={self.min_size}")
        for name in ("batch_size", "train_depth", "gan_steps"):
            need(getattr(self, name) >= 1, f"{name}={getattr(self, name)}: at least 1")
        for name in ("stride", "chunks_per_iter", "micro_batch", "channels_double"):
            need(getattr(self, name) is None or getattr(self, name) >= 1, f"{name}={getattr(self, name)}: 1 or more")
        need(self.crops >= 0, f"crops={self.crops}: 0 or more")
        factor = self.scale_factor
        need(factor is None or 1 < factor < math.inf, f"scale_factor={factor}: a finite number above 1, or None")
        need(
            factor is None or self.rescaling == "geometric",
            f"rescaling={self.rescaling}: takes the place of scale_factor={factor}; set scale_factor=none",
        )
        need(self.seed >= 0, f"seed={self.seed}: 0 or more")
        need(
            0 <= self.vae_levels <= self.num_scales,
            f"vae_levels={self.vae_levels}: from 0 to num_scales={self.num_scales}",
        )
        need(self.fps is None or 0 < self.fps < 1e6, f"fps={self.fps}: frames a second, above 0, or None")
        for name in ("vae_kernel", "encoder_kernel"):
            need(getattr(self, name) in (1, 3), f"{name}={getattr(self, name)}: 1 or 3")
        need(
            self.vae_levels >= 1 or self.latent == "gaussian",
            f"latent={self.latent}: needs a VAE scale; set vae_levels to 1 or more",
        )
        iters = self.iters_per_scale
        if isinstance(iters, tuple):
            need(
                len(iters) == self.num_scales,
                f"iters_per_scale has {len(iters)} numbers: one number for all scales, or {self.num_scales}",
            )
        least = min(iters) if isinstance(iters, tuple) else iters
        need(least >= 1, f"iters_per_scale={iters}: every scale needs at least 1")
        for name in ("lr", "rec_weight", "vae_lr_decay"):
            need(0 < getattr(self, name) < math.inf, f"{name}={getattr(self, name)}: a finite number above 0")
        clip = self.grad_clip
        need(clip is None or 0 < clip < math.inf, f"grad_clip={clip}: a finite number above 0, or None")
        for name in ("kl_weight", "adv_weight", "gp_weight", "noise_amp"):
            need(0 <= getattr(self, name) < math.inf, f"{name}={getattr(self, name)}: a finite number, 0 or more")
        need(0 < self.gan_crop <= 1, f"gan_crop={self.gan_crop}: above 0, at most 1")
        need(
            self.critic_spectral or not self.critic_last_spectral,
            "critic_spectral=false: goes with critic_last_spectral=false",
        )
        need(not (self.critic_norm and self.critic_spectral), "critic_norm=true: goes with critic_spectral=false")
        need(0 <= self.leak < 1, f"leak={self.leak}: from 0 to below 1")
        if self.fixed_code == "clip":
            need(self.vae_levels == 0 and self.latent_dim == 3, "fixed_code=clip: needs vae_levels=0 and latent_dim=3")
        must: dict[str, Any] = {"random_border": "noise"}
        if self.method in ("singan", "consingan"):
            must = {"vae_levels": 0, "latent": "gaussian", "gan_crop": 1.0}
            need(self.generator_convs >= 4, f"method={self.method}: needs generator_convs=4 or more")
        if self.method == "singan":  # of one channel, z is the same in R, G and B
            need(self.latent_dim in (1, 3), "method=singan: needs latent_dim=3 or 1")
        if self.method == "consingan":  # what goes from stage to stage is features, of one number of channels
            must |= {"latent_dim": 3, "tanh_after_sum": True, "channels_double": None}
        for name, value in must.items():
            need(getattr(self, name) == value, f"method={self.method}: needs {name}={str(value).lower()}")
        decay = self.unfrozen_lr_decay
        need(decay is None or 0 < decay <= 1, f"unfrozen_lr_decay={decay}: above 0, at most 1, or None")
        need(0 < self.lr_final <= 1, f"lr_final={self.lr_final}: above 0, at most 1")
        patch = self.patch_scale
        need(
            patch is None or 1 <= patch < self.num_scales,
            f"patch_scale={patch}: from 1 to {self.num_scales - 1}, the finest scale, or None",
        )
        need(
            patch is None or self.method == "vgpnn" or self.vae_levels <= patch,
            f"vae_levels={self.vae_levels}: only the scales below patch_scale={patch} are trained; "
            "set patch_scale=none, or a later one",
        )
        need(
            len(self.patch_size) == 3 and min(self.patch_size) >= 1,
            f"patch_size={self.patch_size}: three numbers from 1: frames, height, width",
        )
        need(0 < self.patch_alpha < math.inf, f"patch_alpha={self.patch_alpha}: a finite number above 0")
        need(
            self.patch_bandwidth is None or 0 < self.patch_bandwidth < math.inf,
            f"patch_bandwidth={self.patch_bandwidth}: a finite number above 0, or None",
        )
        need(self.patch_passes >= 1, f"patch_passes={self.patch_passes}: 1 or more")
        need(0 <= self.patch_margin <= 1, f"patch_margin={self.patch_margin}: from 0 to 1")
        need(self.patch_coarse_passes >= 0, f"patch_coarse_passes={self.patch_coarse_passes}: 0 or more")
        need(
            len(self.adam_betas) == 2 and all(0 <= b < 1 for b in self.adam_betas),
            f"adam_betas={self.adam_betas}: two numbers from 0 to below 1",
        )
        need(
            bool(self.frame_rates) and min(self.frame_rates) >= 1,
            f"frame_rates={self.frame_rates}: whole numbers from 1",
        )
        if self.dims == 2:
            one = {"num_frames": 1, "frame_rates": (1,), "stride": None}
            for name, value in one.items():
                need(getattr(self, name) == value, f"{name}={getattr(self, name)}: of an image it is {value}")
            need(self.patch_size[0] == 1, f"patch_size={self.patch_size}: an image has one frame; write 1,7,7")
        else:
            multiple = f"num_frames - 1 must be a multiple of every frame rate {self.frame_rates}"
            need(
                self.num_frames >= 2 and all((self.num_frames - 1) % r == 0 for r in self.frame_rates),
                f"num_frames={self.num_frames}: {multiple}",
            )

    @property
    def trained_scales(self) -> int:
        """How many scales have networks; patches make the others."""
        if self.method == "vgpnn":
            return 0
        return self.num_scales if self.patch_scale is None else self.patch_scale

    @property
    def made_of_patches(self) -> bool:
        """Whether videos of a finished model are made of the clip's patches, so that it needs the clip."""
        return self.trained_scales < self.num_scales

    @property
    def iterations(self) -> tuple[int, ...]:
        """Iterations of every trained scale, coarsest first."""
        iters = self.iters_per_scale
        every = iters if isinstance(iters, tuple) else (iters,) * self.num_scales
        return every[: self.trained_scales]

    def kernel(self, side: int) -> tuple[int, int, int]:
        """Frames, height and width of a convolution's kernel of a side: images have one frame."""
        return (side if self.dims == 3 else 1, side, side)

    def generator_side(self, n: int) -> int:
        """Side of the convolutions of Gⁿ: `vae_kernel` is that of the patch-VAE generators only."""
        return self.vae_kernel if n < self.vae_levels else 3

    def width(self, n: int) -> int:
        """Channels of Gⁿ and Dⁿ."""
        doublings = n // self.channels_double if self.channels_double else 0
        return min(self.channels << doublings, max(self.channels, MOST_DOUBLED))

    def generator_kernel(self, n: int) -> tuple[int, int, int]:
        """Kernel of the convolutions of Gⁿ."""
        return self.kernel(self.generator_side(n))

    def definition(self) -> dict[str, Any]:
        """The settings that define the model, without those of how it runs: what a resumed training must keep."""
        return {name: value for name, value in self.to_dict().items() if name not in RUN_SETTINGS}

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values (tuples become lists)."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TrainConfig:
        """Inverse of `to_dict`. Raises ConfigError for an unknown, missing or invalid field."""
        for name in fields:
            _check_name(name)
        try:
            return cls(**fields)
        except TypeError as error:
            raise ConfigError(f"config: {error}") from error

    def with_overrides(self, assignments: Iterable[str]) -> TrainConfig:
        """A copy with `key=value` strings applied, as `--set` takes them; a list is written 400,300,200.

        Raises ConfigError for a name that is no field (the nearest one is named) or a value of the wrong type.
        """
        changes: dict[str, Any] = {}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals:
                raise ConfigError(f"--set {assignment}: write key=value")
            name = _check_name(name.strip())
            changes[name] = _parse(name, text.strip())
        if changes.get("dims", self.dims) != self.dims:
            kind = {2: "images, such as image_demo", 3: "videos, such as demo"}[changes["dims"]]
            raise ConfigError(f"dims={changes['dims']}: goes with the preset; leave it out, and give one of {kind}")
        return dataclasses.replace(self, **changes)


def _check_name(name: str) -> str:
    names = [f.name for f in dataclasses.fields(TrainConfig)]
    if name not in names:
        near = difflib.get_close_matches(name.lower().replace("-", "_"), names, n=1, cutoff=NEAR)
        mend = f"did you mean {near[0]}?" if near else "model/config.py lists them, beside what each is"
        raise ConfigError(f"{name}: no such setting; {mend}")
    return name


def _parse(name: str, text: str) -> Any:
    """`text` as a value of field `name`: numbers, true/false, none, words, comma-separated lists."""
    words: dict[str, Any] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return _typed(name, words[text.lower()])
    try:
        return _typed(name, ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _typed(name, text)  # a word, which some fields take


def _typed(name: str, value: Any) -> Any:
    """`value` if the annotation of field `name` admits it; whole numbers pass as floats, lists and tuples as tuples."""
    kind = _KINDS[name]
    for option in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
        if get_origin(option) is tuple:
            items = value if isinstance(value, (tuple, list)) else (value,)
            item_kind = get_args(option)[0]
            if all(_is(item, item_kind) for item in items):
                return tuple(item_kind(item) for item in items)
        elif get_origin(option) is Literal:
            if value in get_args(option):
                return value
        elif _is(value, option):
            return option(value) if option is float else value
    raise ConfigError(f"{name}={value}: write {_in_words(kind)}")


def _in_words(kind: Any) -> str:
    """What a value of an annotation is written as."""
    if get_origin(kind) in (Union, UnionType):
        return ", or ".join(map(_in_words, get_args(kind)))
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"{_in_words(get_args(kind)[0]).removeprefix('a ')}s with commas between them"
    return {int: "a whole number", float: "a number", bool: "true or false", NoneType: "none"}[kind]


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind


_KINDS = get_type_hints(TrainConfig)

"""Complete TrainConfigs by name. Where a value is not the paper's, the reason stands beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from model.config import ConfigError, Method, TrainConfig


def paper() -> TrainConfig:
    """The paper's table: §3, §4 ("M = 3, N = 9"), A.1."""
    return TrainConfig(
        ladder_side="height",  # A.1: 32 px at scale 0, ×1.33 a scale, at most 256 px
        min_size=32,
        max_size=256,
        scale_factor=1.33,
        num_scales=10,  # N = 9
        generator_convs=5,  # A.1: five blocks, receptive field 11
        encoder_convs=5,
        critic_convs=5,
        tanh_after_sum=False,  # eq. 6 with the tanh of A.1's last block
        critic_last_spectral=True,
        iters_per_scale=20_000,  # A.1
        rec_weight=1.0,
        kl_weight=0.1,  # A.1: β_vae
        adv_weight=0.1,  # A.1: β_adv
        grad_clip=0.5,  # not in the text; the authors' limit, with losses a tenth of theirs
    )


def official() -> TrainConfig:
    """The authors' published code at its defaults (commit f372e84); PAPER-level differences are in the comments."""
    return TrainConfig(
        ladder_side="width",  # their code measures the width
        min_size=32,
        max_size=256,
        scale_factor=None,  # (256/32)^(1/9) ≈ 1.26
        num_scales=10,
        fps=None,  # the first 13 frames of the file
        resizing="opencv",
        generator_convs=7,  # head + 5 blocks + tail
        encoder_convs=3,
        critic_convs=7,
        tanh_after_sum=True,
        critic_last_spectral=False,
        iters_per_scale=50_000,  # --niter
        rec_weight=10.0,  # --rec-weight 10, --kl-weight 1, --disc-loss-weight 1: the paper's ratio, times ten
        rec_zero_twice=True,
        kl_weight=1.0,
        adv_weight=1.0,
        grad_clip=5.0,  # --grad-clip; of the trained levels only, see model/README.md
    )


# What the short presets change, and why. Tried with 32 channels on a ladder of 18 to 54 px, airballoons (of the paper's
# data) and bigbuckbunny, one seed, about equal numbers of iterations; svfid_lite0 of random samples, lower is better.
# - vae_levels 1: a VAE scale only ever sees the reconstruction. After a few hundred iterations that is sharp while
#   random samples are coloured noise, which later scales do not mend: airballoons scores 1095 after scale 2 with three
#   VAE scales, 727 with one; 231 and 167 at the end of about 430 s on one thread. A GAN scale trains on random samples,
#   and at the coarse scales its iterations cost little.
# - kl_weight 5: at the paper's 0.1 the posterior stays far narrower than the prior, and the generator has never seen
#   the z of a random sample. Scale 0 of airballoons scores 1107 at 1, 830 at 5; 20 only blurs the reconstruction
#   (bigbuckbunny after scale 2: 733 at 5, 782 at 20).
# - lr 3e-3: few iterations want larger steps. The two clips at the end: 167 and 217 at 5e-4, 135 and 222 at 1.5e-3,
#   130 and 199 at 3e-3. The paper's 20,000 iterations need no such thing.
# - lr_final 0.1: so few iterations end in noise at a constant rate.
# Tried without gain: adv_weight 0.3, noise_amp 0.5.
# - grad_clip 5: what all of this was tried with.
_SHORT: dict[str, Any] = {"vae_levels": 1, "kl_weight": 5.0, "lr": 3e-3, "lr_final": 0.1, "grad_clip": 5.0}

# Where the minutes go in `demo`, `small` and `fast`: the patch-VAE of the coarsest scale is trained, and the clip's
# patches make all others. It is the paper's first block, and then not the paper's method (patches/refine.py).
# Measured at `demo` size with 7 scales from 12 px and 4 coarse passes, seed 0: svfid_lite0 over that of blur, and
# diversity (RESULTS.md, "Patches"; seconds on one core in float32).
#                              bikes        bigbuckbunny  carphone     seconds
#   scale 0, 800 iterations    0.39  0.86   0.14  0.68    0.11  0.39   54 to 88
#   and scale 1 (GAN), 300     0.44  0.85   0.14  0.48                 97 to 124
#   scales 0 and 1, 400, 1500               0.11  0.42    copy (0.05)  153 to 178
#   VGPNN, without training    0.37  0.49   0.11  0.34    0.16  0.36   0
# A GAN scale brings samples nearer to the clip: less diversity at about the same svfid.
# - patch_coarse_passes 6: bigbuckbunny after 400 iterations 0.26 without, 0.24 with 1, 0.20 with 2, 0.17 with 4, 0.15
#   with 8; three other clips were better with 4 than with 8. 6 lies between; it was not compared by itself.
# - patch_passes 3: 0.36 with 1, 0.26 with 2, 0.23 with 3, 0.21 with 5 (without coarse passes); each takes as long. With
#   them carphone had 0.31 with 2 and 0.25 with 3, bigbuckbunny 0.16 both.
# - patch_alpha 0.005, of GPNN: 0.55 at 0.001, 0.36 at 0.005, 0.35 at 0.02 with less diversity.
# - patch_bandwidth 0.2: samples are as sharp where patches of different places meet; RESULTS.md, "Patches".
_PATCHES: dict[str, Any] = {
    "patch_scale": 1,
    "patch_passes": 3,
    "patch_coarse_passes": 6,
    "patch_alpha": 0.005,
    "patch_bandwidth": 0.2,
}


def _short(**sizes: Any) -> TrainConfig:
    """The paper's networks, short trainings and patches; sizes are of the shorter side, for portrait clips too."""
    return replace(paper(), **_SHORT, **_PATCHES, ladder_side="shorter", scale_factor=None, **sizes)


def small() -> TrainConfig:
    """For a laptop or a first look at a corpus: the paper's networks at the coarsest scale, patches up to 96 px."""
    return _short(
        min_size=12,
        max_size=96,
        num_scales=8,
        # With patch_scale=None all scales are trained, as the paper does: 55 minutes a clip and more on two cores.
        iters_per_scale=(400, 1500, 1500, 1200, 800, 500, 300, 120),
        checkpoint_every=250,
    )


def fast() -> TrainConfig:
    """The paper's size, 256 px of a 16:9 clip, in minutes: its networks at the coarsest scale, patches above."""
    return _short(min_size=14, max_size=144, num_scales=10, iters_per_scale=400, checkpoint_every=250)


def demo() -> TrainConfig:
    """A minute a clip on two CPU cores: half the channels, the coarsest scale alone, patches up to 54 px."""
    return _short(
        min_size=12,
        max_size=54,
        num_scales=7,
        channels=32,
        # With patch_scale=None all scales are trained, as the paper does.
        iters_per_scale=(400, 450, 450, 280, 180, 110, 40),
        checkpoint_every=200,
        log_every=10,
    )


# -- images (§4.2): clips of one frame
_IMAGE: dict[str, Any] = {"dims": 2, "num_frames": 1, "frame_rates": (1,), "fps": None, "patch_size": (1, 7, 7)}


def image_paper() -> TrainConfig:
    """§4.2, "Image Generation": the method with 2D convolutions and a spatial pyramid only; all else as for videos."""
    return replace(paper(), **_IMAGE)


def image_official() -> TrainConfig:
    """The authors' published code for images (train_image.py at f372e84), with the iterations of its README."""
    return replace(
        official(),
        **_IMAGE,
        iters_per_scale=5_000,
        batch_size=2,  # --batch-size
        vae_noise=True,  # their 2D generator adds noise at every scale above 0
        noise_amp=0.05,  # --noise_amp 0.1, which they divide by the batch size
    )


# Of an image an iteration of the coarsest scale takes a tenth of a video's. With 1,500 of them in place of 400,
# sifid_lite0_frames over that of blur, seed 0: angkorwat 0.49 (0.48), colusseum 0.43 (0.51), skimage's coffee 0.79
# (1.05), SinGAN's tree 1.20 (1.07); diversity 0.47 (0.46), 0.56 (0.58), 0.64 (0.78), 0.49 (0.47).
_IMAGE_ITERATIONS = 1500
# With patch_bandwidth None, 0.1, 0.2 and 0.3 angkorwat has 0.44, 0.47, 0.50 and 0.52, colusseum 0.41, 0.43, 0.45 and
# 0.48; nn_distance is lowest at 0.1. The mean leaves blurred spots.
_SHORT_IMAGE = _IMAGE | {"max_size": 188, "patch_bandwidth": 0.1}


def image_demo() -> TrainConfig:
    """A minute an image on two CPU cores: half the channels, the coarsest scale alone, patches up to 188 px."""
    iters = (_IMAGE_ITERATIONS, *demo().iters_per_scale[1:])  # type: ignore[index]  # one a scale
    return replace(demo(), **_SHORT_IMAGE, iters_per_scale=iters)


def image_small() -> TrainConfig:
    """A few minutes an image on two CPU cores: the paper's networks."""
    iters = (2 * _IMAGE_ITERATIONS, *small().iters_per_scale[1:])  # type: ignore[index]  # one a scale
    return replace(small(), **_SHORT_IMAGE, iters_per_scale=iters)


PRESETS: dict[str, Callable[[], TrainConfig]] = {f.__name__: f for f in (paper, official, fast, small, demo)}
PRESETS |= {f.__name__: f for f in (image_paper, image_official, image_small, image_demo)}

# What clips of the other kind are trained by, where videos and images are in one corpus.
OTHER_KIND = {
    "paper": "image_paper",
    "official": "image_official",
    "fast": "image_small",
    "small": "image_small",
    "demo": "image_demo",
    "image_paper": "paper",
    "image_official": "official",
    "image_small": "small",
    "image_demo": "demo",
}

# The rivals of Fig. 5, as the authors re-implemented them (train_video_baselines.py and modules/networks_3d.py at
# f372e84): their networks, losses and noise, on the ladder and for the iterations of a preset. One z* a
# chunk, where they have one for each of a batch of two.
# SinGAN's and ConSinGAN's own texts and codes differ: model/README.md, "Rivals", has the settings for that.
_RIVAL: dict[str, Any] = {
    "vae_levels": 0,
    "latent_dim": 3,  # --nc-z: z* and z have the channels of an image
    "generator_convs": 7,  # head + 5 + tail
    "critic_convs": 7,
    "tanh_after_sum": True,
    "critic_last_spectral": False,
    "rec_weight": 10.0,  # --alpha
    "adv_weight": 1.0,
    "grad_clip": None,
    "batch_size": 2,
    "noise_amp": 0.05,  # --noise_amp 0.1, which they divide by the batch size
    "patch_scale": None,  # every scale is trained
}
_METHODS: dict[Method, dict[str, Any]] = {
    "hpvaegan": {},
    "singan": _RIVAL,
    "consingan": {**_RIVAL, "train_depth": 3},  # ConSinGAN's; --lr-scale 0.2 is vae_lr_decay
    "vgpnn": {},
}


# Of the short presets, whose learning rate falls, the rivals have a batch of one, whose noise has twice the amplitude,
# and a quarter of the iterations: less than half of the minutes of ours with all scales trained (RESULTS.md, "Rivals").
QUICK = 4


def of_method(config: TrainConfig, method: Method) -> TrainConfig:
    """A preset of hp-VAE-GAN as that of another method."""
    settings = _METHODS[method]
    if settings and config.lr_final < 1:
        iters = config.iters_per_scale
        every = iters if isinstance(iters, tuple) else (iters,) * config.num_scales
        quick = tuple(max(1, count // QUICK) for count in every)
        settings = {**settings, "batch_size": 1, "noise_amp": 0.1, "iters_per_scale": quick}
    return replace(config, method=method, **settings)


# The paper's ablations: name → what it changes in a configuration of any size. Applied after `--set`, as vae_only
# depends on the number of scales. Fig. 9 shows r = 1 and PatchVAE at the end of five VAE scales (vae_levels=5).
ABLATIONS: dict[str, Callable[[TrainConfig], TrainConfig]] = {
    # §4.2 "Network freezing". The text gives no rates; at lr · 0.2ⁿ⁻ᵏ the low levels hardly move (RESULTS.md)
    "no_freezing": lambda config: replace(config, freeze=False, unfrozen_lr_decay=1.0),
    "r1_generators": lambda config: replace(config, vae_kernel=1),  # §4.2 (ii), Fig. 9b: all patch-VAE generators
    "r1_encoder": lambda config: replace(config, encoder_kernel=1),  # §4.2 (iii), Fig. 9c
    "patchvae": lambda config: replace(config, latent="patchvae"),  # §4.2 (iv), Fig. 9d, A.4
    "gan_only": lambda config: replace(config, vae_levels=0),  # §1, "patch-GAN for all levels"
    "vae_only": lambda config: replace(config, vae_levels=config.trained_scales),  # Fig. 5, Fig. 6 row 3
}


def ablated(config: TrainConfig, name: str) -> TrainConfig:
    """A configuration with one of ABLATIONS. Raises ConfigError for another method than the one that they are of."""
    if config.method != "hpvaegan":
        raise ConfigError(f"ablation={name}: is one of hp-VAE-GAN; leave it out, or method={config.method}")
    return ABLATIONS[name](config)


# What the paper tells of each, against its method.
ABLATIONS_IN_PAPER = {
    "no_freezing": "diversity −51 %, SVFID +680 %: memorises (§4.2)",
    "r1_generators": "unrealistic samples (§4.2 ii, Fig. 9b)",
    "r1_encoder": "mode collapse (§4.2 iii, Fig. 9c)",
    "patchvae": "very few objects, at a small scale (§4.2 iv, Fig. 9d)",
    "gan_only": "considerably less diversity (§3.2)",
    "vae_only": "diverse, yet blurry: SVFID and diversity up (§4.2, Fig. 5, 6)",
}

"""Complete TrainConfigs by name. Where a value is not the paper's, the reason stands beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from model.config import TrainConfig


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
    )


def official() -> TrainConfig:
    """The authors' published code at its defaults (commit f372e84); PAPER-level differences are in the comments."""
    return TrainConfig(
        ladder_side="width",  # their code measures the width
        min_size=32,
        max_size=256,
        scale_factor=None,  # (256/32)^(1/9) ≈ 1.26
        num_scales=10,
        generator_convs=7,  # head + 5 blocks + tail
        encoder_convs=3,
        critic_convs=7,
        tanh_after_sum=True,
        critic_last_spectral=False,
        iters_per_scale=50_000,  # --niter
        rec_weight=10.0,  # --rec-weight 10, --kl-weight 1, --disc-loss-weight 1: the paper's ratio, times ten
        kl_weight=1.0,
        adv_weight=1.0,
    )


# β_vae of the short presets. After a few hundred iterations at the paper's 0.1 the posterior is far narrower than the
# prior: reconstructions are sharp, and random samples, whose z the generator has never seen, are noise. Tried with
# two-minute trainings at 54 px (one seed, schedules not quite equal): on carphone 3 scores svfid_lite0 585 and 10
# scores 510, with window, suit and face in their places; on bigbuckbunny 2, 5 and 10 score 402, 367 and 376.
_KL_SHORT = 10.0


def small() -> TrainConfig:
    """For a laptop or a first look at a corpus: the paper's networks on a shorter ladder."""
    return replace(
        paper(),
        min_size=20,
        max_size=96,
        scale_factor=None,
        num_scales=7,
        iters_per_scale=(3000, 3000, 3000, 2000, 2000, 2000, 1000),
        lr_final=0.1,
        kl_weight=_KL_SHORT,
        checkpoint_every=250,
    )


def demo() -> TrainConfig:
    """Minutes on two CPU cores: a small ladder, half the channels, samples that are recognisably the clip."""
    return replace(
        paper(),
        min_size=18,
        max_size=54,
        scale_factor=None,
        num_scales=6,
        channels=32,
        # About as many seconds at each scale: the coarse ones cost a thirtieth of the finest an iteration.
        iters_per_scale=(400, 400, 300, 140, 80, 30),
        lr_final=0.1,  # so few iterations end in noise at a constant rate
        kl_weight=_KL_SHORT,
        checkpoint_every=200,
        log_every=10,
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {f.__name__: f for f in (paper, official, small, demo)}

"""TrainConfig: the presets against the paper's tables, JSON round trips, `--set` and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from model.config import ConfigError, TrainConfig
from model.presets import PRESETS, official, paper

SHARED = {  # what paper and published code agree on
    "num_scales": 10,
    "min_size": 32,
    "max_size": 256,
    "num_frames": 13,
    "frame_rates": (4, 3, 2, 1),
    "channels": 64,
    "latent_dim": 128,
    "vae_levels": 3,
    "lr": 0.0005,
    "lr_final": 1.0,
    "adam_betas": (0.5, 0.999),
    "vae_lr_decay": 0.2,
    "gp_weight": 0.1,
    "noise_amp": 0.1,
    "gan_crop": 1.0,
    "flip": False,
    "stride": None,
    "crops": 0,
    "chunks_per_iter": None,
    "freeze": True,
    "unfrozen_lr_decay": None,
    "vae_kernel": 3,
    "encoder_kernel": 3,
    "latent": "gaussian",
    "method": "hpvaegan",
    "dims": 3,
    "rescaling": "geometric",
    "channels_double": None,
    "enlarging": "linear",
    "critic_spectral": True,
    "critic_norm": False,
    "critic_padded": True,
    "generator_norm": True,
    "leak": 0.2,
    "random_border": "noise",
    "fixed_code": "noise",
    "lr_fall": "cosine",
    "vae_noise": False,
    "batch_size": 1,
    "train_depth": 1,
    "gan_steps": 1,
    "patch_scale": None,  # so that the other settings of patches, which follow, say nothing
    "patch_size": (3, 7, 7),
    "patch_alpha": 0.005,
    "patch_bandwidth": None,
    "patch_passes": 2,
    "patch_margin": 0.15,
    "patch_coarse_passes": 6,
}
PAPER = SHARED | {
    "fps": 24.0,
    "resizing": "corners",
    "ladder_side": "height",
    "scale_factor": 1.33,
    "generator_convs": 5,
    "encoder_convs": 5,
    "critic_convs": 5,
    "tanh_after_sum": False,
    "critic_last_spectral": True,
    "iterations": (20_000,) * 10,
    "rec_weight": 1.0,
    "rec_zero_twice": False,
    "kl_weight": 0.1,
    "adv_weight": 0.1,
    "grad_clip": 0.5,
}
OFFICIAL = SHARED | {
    "fps": None,
    "resizing": "opencv",
    "ladder_side": "width",
    "scale_factor": None,
    "generator_convs": 7,
    "encoder_convs": 3,
    "critic_convs": 7,
    "tanh_after_sum": True,
    "critic_last_spectral": False,
    "iterations": (50_000,) * 10,
    "rec_weight": 10.0,
    "rec_zero_twice": True,
    "kl_weight": 1.0,
    "adv_weight": 1.0,
    "grad_clip": 5.0,
}
HOW_IT_RUNS = {
    *("micro_batch", "low_memory", "compile", "seed", "precision"),
    *("checkpoint_every", "log_every", "iters_per_scale"),
}


@pytest.mark.parametrize(("preset", "table"), [(paper, PAPER), (official, OFFICIAL)], ids=["paper", "official"])
def test_preset_equals_the_table(preset, table):
    config = preset()
    assert {name: getattr(config, name) for name in table} == table
    # every field that changes what is computed is in the table: a new one has to be entered there by hand
    assert {f.name for f in dataclasses.fields(config)} - HOW_IT_RUNS == set(table) - {"iterations"}


def test_the_official_weights_have_the_papers_ratio():
    assert official().rec_weight / official().kl_weight == paper().rec_weight / paper().kl_weight
    assert official().rec_weight / official().adv_weight == paper().rec_weight / paper().adv_weight
    assert official().rec_weight / official().grad_clip == paper().rec_weight / paper().grad_clip


def test_settings_of_files_from_before_they_were_there_mean_what_was_done_then():
    added = {"unfrozen_lr_decay": None, "rec_zero_twice": False, "fps": 24.0, "resizing": "corners"}
    for preset in PRESETS.values():
        before = {name: value for name, value in preset().to_dict().items() if name not in added}
        config = TrainConfig.from_dict(before)
        assert {name: getattr(config, name) for name in added} == added


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_preset_survives_json(name):
    config = PRESETS[name]()
    again = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert len(again.iterations) == again.trained_scales
    assert {type(v) for v in dataclasses.astuple(again)} == {type(v) for v in dataclasses.astuple(config)}


def test_there_are_the_five_presets_and_they_differ():
    assert set(PRESETS) >= {"paper", "official", "fast", "small", "demo"}
    assert len({str(preset().to_dict()) for preset in PRESETS.values()}) == len(PRESETS)


@pytest.mark.parametrize(
    ("assignment", "field", "value"),
    [
        ("channels=32", "channels", 32),
        ("seed=7", "seed", 7),
        ("lr=1e-3", "lr", 0.001),
        ("lr=1", "lr", 1.0),
        ("rec_weight=2", "rec_weight", 2.0),
        ("tanh_after_sum=true", "tanh_after_sum", True),
        ("critic_last_spectral=False", "critic_last_spectral", False),
        ("scale_factor=none", "scale_factor", None),
        ("scale_factor=1.5", "scale_factor", 1.5),
        ("scale_factor=2", "scale_factor", 2.0),
        ("iters_per_scale=400", "iters_per_scale", 400),
        (
            "iters_per_scale=400,300,200,100,90,80,70,60,50,40",
            "iters_per_scale",
            (400, 300, 200, 100, 90, 80, 70, 60, 50, 40),
        ),
        ("frame_rates=6,1", "frame_rates", (6, 1)),
        ("frame_rates=1", "frame_rates", (1,)),
        ("adam_betas=0, 0.9", "adam_betas", (0.0, 0.9)),
        ("ladder_side=width", "ladder_side", "width"),
        (" precision = bf16 ", "precision", "bf16"),
        ("vae_levels=0", "vae_levels", 0),
        ("vae_levels=10", "vae_levels", 10),
        ("freeze=false", "freeze", False),
        ("unfrozen_lr_decay=1", "unfrozen_lr_decay", 1.0),
        ("vae_kernel=1", "vae_kernel", 1),
        ("encoder_kernel=1", "encoder_kernel", 1),
        ("latent=patchvae", "latent", "patchvae"),
        ("fps=none", "fps", None),
        ("fps=30", "fps", 30.0),
        ("resizing=opencv", "resizing", "opencv"),
    ],
)
def test_override_becomes_a_value_of_the_fields_type(assignment, field, value):
    changed = paper().with_overrides([assignment])
    got = getattr(changed, field)
    assert got == value
    assert type(got) is type(value)
    if isinstance(value, tuple):
        assert [type(i) for i in got] == [type(i) for i in value]
    assert dataclasses.replace(changed, **{field: getattr(paper(), field)}) == paper()  # and nothing else moved


def test_overrides_apply_together_and_leave_the_original():
    config = paper()
    changed = config.with_overrides(["num_scales=3", "iters_per_scale=4,3,2", "vae_levels=1"])
    assert (changed.num_scales, changed.iterations, changed.vae_levels) == (3, (4, 3, 2), 1)
    assert config == paper()


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("chanels=3", "channels"),
        ("iter_per_scale=3", "iters_per_scale"),
        ("kl_wieght=1", "kl_weight"),
        ("FPS=1", "fps"),
    ],
)
def test_typo_names_the_nearest_field(typo, meant):
    with pytest.raises(ConfigError, match=rf"did you mean {meant}\?"):
        paper().with_overrides([typo])
    with pytest.raises(ConfigError, match=rf"did you mean {meant}\?"):
        TrainConfig.from_dict(paper().to_dict() | {typo.split("=")[0]: 1})


@pytest.mark.parametrize("name", ["preset", "n", "height", "learning_rate", "fps_as_it_is"])
def test_what_is_near_no_field_gets_no_suggestion(name):
    with pytest.raises(ConfigError) as caught:
        paper().with_overrides([f"{name}=1"])
    assert str(caught.value) == f"{name}: no such setting; model/config.py lists them, beside what each is"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("fps=fast", "fps=fast: write a number, or none"),
        ("flip=3", "flip=3: write true or false"),
        ("precision=half", "precision=half: write auto or bf16 or float32"),
        ("iters_per_scale=x", "iters_per_scale=x: write a whole number, or whole numbers with commas between them"),
    ],
)
def test_a_value_of_another_kind_says_what_to_write(given, told):
    with pytest.raises(ConfigError) as caught:
        paper().with_overrides([given])
    assert str(caught.value) == told


@pytest.mark.parametrize(
    "assignment",
    [
        "channels=32.5",
        "channels=many",
        "channels=true",
        "channels=none",
        "channels=3,4",
        "lr=fast",
        "lr={[]:1}",
        "lr=none",
        "lr=nan",
        "lr=true",
        "tanh_after_sum=1",
        "tanh_after_sum=maybe",
        "iters_per_scale=1.5",
        "iters_per_scale=none",
        "iters_per_scale=1,2.5",
        "iters_per_scale='20'",
        "frame_rates=4,x",
        "adam_betas=0.5,true",
        "scale_factor=__import__('os')",
    ],
)
def test_value_of_another_type_is_refused(assignment):
    name = assignment.split("=")[0]
    with pytest.raises(ConfigError, match=rf"{name}=.*: write ") as caught:
        paper().with_overrides([assignment])
    assert "\n" not in str(caught.value)


def test_assignment_without_equals_sign_is_refused():
    with pytest.raises(ConfigError, match="key=value"):
        paper().with_overrides(["channels"])


@pytest.mark.parametrize(
    "assignment",
    [
        "ladder_side=depth",
        "precision=fp16",
        "min_size=0",
        "max_size=31",
        "scale_factor=1",
        "scale_factor=0.75",
        "num_scales=0",
        "num_scales=2",  # fewer than vae_levels
        "vae_levels=-1",
        "vae_levels=11",
        "vae_kernel=2",
        "encoder_kernel=5",
        "latent=bernoulli",
        "unfrozen_lr_decay=0",
        "unfrozen_lr_decay=2",
        "fps=0",
        "fps=-24",
        "fps=1e6",
        "resizing=area",
        "channels=0",
        "latent_dim=-1",
        "generator_convs=1",
        "critic_convs=1",
        "encoder_convs=0",
        "iters_per_scale=0",
        "iters_per_scale=10,10",
        "iters_per_scale=9,9,9,9,9,9,9,9,9,0",
        "lr=0",
        "lr=-0.1",
        "lr=1e999",
        "lr_final=0",
        "lr_final=1.5",
        "gan_crop=0",
        "gan_crop=1.1",
        "rec_weight=0",
        "kl_weight=-1",
        "adv_weight=-1",
        "gp_weight=-1",
        "noise_amp=-0.1",
        "grad_clip=0",
        "vae_lr_decay=0",
        "adam_betas=0.5",
        "adam_betas=0.5,1",
        "adam_betas=-0.5,0.9",
        "num_frames=1",
        "num_frames=14",
        "frame_rates=5,1",
        "frame_rates=0,1",
        "checkpoint_every=0",
        "log_every=0",
    ],
)
def test_value_out_of_range_is_refused(assignment):
    name = assignment.split("=")[0]
    with pytest.raises(ConfigError) as caught:
        paper().with_overrides([assignment])
    # the message speaks of the field, or of the one that it no longer fits
    assert {name, "vae_levels", "frame rate"} & set(re.findall(r"frame rate|\w+", str(caught.value)))
    assert "\n" not in str(caught.value)


def test_patchvae_without_a_vae_scale_is_refused():
    with pytest.raises(ConfigError, match="latent=patchvae: needs a VAE scale; set vae_levels"):
        paper().with_overrides(["latent=patchvae", "vae_levels=0"])


def test_a_file_from_before_the_ablations_means_the_method():
    old = {k: v for k, v in paper().to_dict().items() if k not in ("freeze", "vae_kernel", "encoder_kernel", "latent")}
    assert TrainConfig.from_dict(old) == paper()


def test_from_dict_names_a_missing_field():
    fields = paper().to_dict()
    del fields["rec_weight"]
    with pytest.raises(ConfigError, match="rec_weight"):
        TrainConfig.from_dict(fields)


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        paper().lr = 1.0

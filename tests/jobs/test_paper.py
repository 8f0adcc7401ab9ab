"""jobs/reports/paper.py: what of a configuration is not the paper's, in words."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from jobs.reports.paper import differences, is_papers_features
from model.config import Method
from model.presets import ABLATIONS, PRESETS, demo, image_demo, image_official, of_method, official, paper, small

PAPERS = ("paper", "official", "image_paper", "image_official")


@pytest.mark.parametrize("preset", PAPERS)
def test_the_papers_own_presets_differ_in_nothing(preset: str) -> None:
    config = PRESETS[preset]()
    run = {"precision": "float32", "micro_batch": 2, "low_memory": True, "checkpoint_every": 7, "log_every": 3}
    for same in (config, replace(config, **run, seed=4), replace(config, patch_passes=9)):
        assert differences(same) == ""
    as_list = replace(config, iters_per_scale=(config.iters_per_scale,) * config.num_scales)
    assert differences(as_list) == ""
    for rival in ("singan", "consingan"):
        assert differences(of_method(config, rival)) == f"method {rival} (paper: hpvaegan)"


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - set(PAPERS)))
def test_the_short_presets_differ_in_levels_weight_iterations_sizes_and_patches(preset: str) -> None:
    told = differences(PRESETS[preset]())
    count = {"image_demo": "1,500", "image_small": "3,000"}.get(preset, "400")
    for words in (
        "M = 1 VAE level (paper: 3)",
        "β_vae 5 (paper: 0.1, 50 times as much as there)",
        f"{count} iterations of scale 0 (paper: 20,000 iterations of each of 10 scales)",
        "the clip's patches in place of the scales from 1 on",
        "lr 0.003 (paper: 0.0005)",
    ):
        assert words in told.split("; ")
    assert "(paper: 10 scales from 32 to 256 px of the height, ×1.33 a scale)" in told
    assert "\n" not in told and "patch_" not in told


def test_one_difference_is_all_that_is_told() -> None:
    assert differences(replace(paper(), kl_weight=5.0)) == "β_vae 5 (paper: 0.1, 50 times as much as there)"
    # of the two, the nearer one is what it is held against
    assert differences(replace(official(), vae_levels=1)) == "M = 1 VAE level (authors' code: 3)"
    assert differences(replace(official(), kl_weight=0.1)).startswith("β_vae 0.1 (authors' code: 1, 0.1 times")
    assert differences(replace(image_official(), batch_size=1)) == "batch_size 1 (authors' code: 2)"
    assert differences(replace(paper(), max_size=128)) == (
        "10 scales from 32 to 128 px of the height, ×1.33 a scale "
        "(paper: 10 scales from 32 to 256 px of the height, ×1.33 a scale)"
    )
    more = (20_000,) * 9 + (30_000,)
    assert differences(replace(paper(), iters_per_scale=more)).startswith("20,000, 20,000, 20,000, ")
    assert differences(replace(paper(), frame_rates=(2, 1))) == "frame_rates 2,1 (paper: 4,3,2,1)"


def test_the_frame_rate_is_the_texts_or_the_files() -> None:
    for preset in (paper(), official()):
        assert differences(replace(preset, fps=24.0)) == differences(replace(preset, fps=None)) == ""
    assert differences(replace(paper(), fps=12.0)) == "fps 12 (paper: 24)"


def test_only_what_the_method_uses_is_told() -> None:
    assert differences(of_method(paper(), "vgpnn")) == "method vgpnn (paper: hpvaegan)"
    assert differences(of_method(demo(), "vgpnn")).startswith(
        "method vgpnn (paper: hpvaegan); 7 scales from 12 to 54 px of the shorter side (paper: 10 scales"
    )
    rivals: tuple[Method, ...] = ("singan", "consingan")
    for preset, method in itertools.product((small(), image_demo()), ("vgpnn", *rivals)):
        told = differences(of_method(preset, method))
        assert told.startswith(f"method {method} (paper: hpvaegan); ")
        assert not any(words in told for words in ("β_vae", "M =", "patches"))
    each = ", ".join(f"{count:,}" for count in of_method(demo(), "singan").iterations)
    assert f"; {each} iterations, scale by scale (paper: 20,000 iterations of each" in differences(
        of_method(demo(), "singan")
    )


@pytest.mark.parametrize("name", sorted(ABLATIONS))
def test_an_ablation_differs(name: str) -> None:
    assert differences(ABLATIONS[name](paper()))


def test_the_papers_features_are_c3d_fine_tuned_on_ucf101() -> None:
    names = ("c3d_ucf101_0a1b2c", "c3d_sports1m_0a1b2c", "lite0", "inception_fid_0a1b2c")
    assert [is_papers_features(name) for name in names] == [True, False, False, False]

"""jobs/benchmark.py: the count of operations against torch's own counter, and the command end to end."""

from __future__ import annotations

import json
import os

import pytest
from torch.utils.flop_counter import FlopCounterMode

from jobs.benchmark import main
from model import timing
from model.presets import ABLATIONS, PRESETS
from model.timing import needed_gflops, plain_iterate, state_at
from model.training.steps import iterate

SIZES = [(4, 6, 8), (4, 8, 10), (5, 9, 12), (7, 10, 14)]
TINY = [
    "patch_scale=none",
    "num_scales=4",
    "channels=8",
    "latent_dim=6",
    "vae_levels=2",
    "iters_per_scale=4",
    "precision=float32",
]


@pytest.mark.parametrize("preset", ["paper", "official"])
@pytest.mark.parametrize("n", range(4))
def test_an_iteration_executes_what_it_needs_and_the_plain_one_more(preset, n):
    config = PRESETS[preset]().with_overrides(TINY)
    state, reals = state_at(config, SIZES, n)
    iterate(state, reals)  # the first one of a GAN scale also runs E
    with FlopCounterMode(display=False) as ours:
        iterate(state, reals)
    with FlopCounterMode(display=False) as plain:
        plain_iterate(state, reals)
    needed = needed_gflops(config, SIZES, n) * 1e9
    assert ours.get_total_flops() == pytest.approx(needed, rel=1e-12)
    if n < config.vae_levels:
        assert plain.get_total_flops() == pytest.approx(needed, rel=1e-12)
    else:
        assert plain.get_total_flops() > 1.2 * needed


SINGANS_CRITIC = ["critic_spectral=false", "critic_norm=true", "leak=0.05", "enlarging=cubic"]


@pytest.mark.parametrize(
    "names", [*ABLATIONS, "no_freezing+gan_only", "no_freezing+patchvae+r1_encoder", "SinGAN's critic"]
)
@pytest.mark.parametrize("n", range(4))
def test_the_count_is_true_of_the_ablations(names, n):
    config = PRESETS["paper"]().with_overrides(TINY)
    if names == "SinGAN's critic":
        config = PRESETS["official"]().with_overrides([*TINY, *SINGANS_CRITIC])
    else:
        for name in names.split("+"):
            config = ABLATIONS[name](config)
    state, reals = state_at(config, SIZES, n)
    iterate(state, reals)
    with FlopCounterMode(display=False) as ours:
        iterate(state, reals)
    assert ours.get_total_flops() == pytest.approx(needed_gflops(config, SIZES, n) * 1e9, rel=1e-12)
    plain_iterate(state, reals)


def test_a_measurement_has_a_process_of_its_own():
    assert timing.in_own_process(os.getppid) == os.getpid()


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_rows(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(timing, "in_own_process", lambda function, *arguments: function(*arguments))
    path = tmp_path / "bench.json"
    argv = ["--set", "channels=4", "--set", "max_size=24", "--set", "patch_scale=none", "--scales", "0,4"]
    argv += ["--seconds", "0.1", "--compare", "float32", "--videos", "2"]
    assert main([*argv, "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert [row["scale"] for row in report["rows"]] == [0, 4]
    for row in report["rows"]:
        assert row["sec_per_iter"] > 0 and row["conv_gflops_per_s"] > 0 and row["peak_gib"] > 0
        assert row["gflops_per_s"] == pytest.approx(row["gflops"] / row["sec_per_iter"])
        assert row["share_of_conv_peak"] == pytest.approx(row["gflops_per_s"] / row["conv_gflops_per_s"])
    assert report["rows"][1]["shape"] == [7, 19, 34]
    assert report["sampling"]["videos"] == 2 and report["sampling"]["seconds"] > 0
    assert "conv GFLOP/s" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--scales", "1,x"], "--scales 1,x: write whole numbers"),
        (["--clip-size", "144"], "--clip-size 144: write whole numbers"),
        (["--scales", "1"], "--scales 1: the scales that are trained are 0 to 0; set patch_scale=none to train all"),
        (["--set", "method=vgpnn"], "method=vgpnn: trains no scale"),
        (["--set", "chanels=8"], "did you mean channels?"),
        (["--json", "/no/such/x.json"], "--json /no/such/x.json: cannot be written (No such file or directory); make "),
    ],
)
def test_bad_arguments_are_one_line(argv, said, capfd):
    assert main(argv) == 2
    assert said in capfd.readouterr().out

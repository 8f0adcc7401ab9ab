"""The demo preset's losses on the synthetic clip, iteration by iteration, equal those on file.

A change that should not move them must not. After one that should (the preset, an initialisation, an order of random
draws), write the files again and say why in the commit:

    python -m tests.model.test_golden --write
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from model.config import TrainConfig
from model.presets import demo

from .conftest import ladder_16_9, one_thread, real_pyramid, synthetic_clip, train
from .float64 import in_float64

FOLDER = Path(__file__).parent.parent / "golden"
WRITE = "python -m tests.model.test_golden --write"

# In float64, with and without AVX2 and AVX-512, losses differ by 3e-14 (measured); noise of 1e-13 on all that goes into
# and out of a convolution, and on its gradients, moves them by 1e-11.
EXACT = 1e-9
# In float32 rounding is magnified from scale to scale: one activation among thousands falls to the other side of
# LeakyReLU's kink, and Adam's first step is lr times the sign of a gradient, however small. Against a training in
# float64, losses of scales 0 to 2 move by up to 7e-4 (rec_loss) and 2e-3 (kl_loss), those of scale 3 by a fifth to a
# third of what stands here, and gp_loss of scale 4 triples: what is on file of scales 4 and 5 holds on one machine.
COMPARED = 4  # scales
ROUNDED = {
    "vae": {"rec_loss": {"rel": 5e-3}, "rec_zero_loss": {"rel": 5e-3}, "kl_loss": {"rel": 1e-2}},
    "gan": {
        "rec_loss": {"rel": 2e-2},
        "gp_loss": {"rel": 0.15},
        "critic_loss": {"abs": 1e-2},
        "adv_loss": {"abs": 3e-2},
    },
}


def golden_config(precision="float32"):
    """The demo preset, but for fewer channels and iterations a scale, and in float64 a lower ladder, so that it takes
    seconds; and with all three kinds of scale: VAE at scale 0, VAE above it, GAN."""
    pure = {"ladder_side": "height", "min_size": 18, "num_scales": 6, "patch_scale": None, "patch_bandwidth": None}
    tiny = replace(demo(), **pure, channels=8, iters_per_scale=4, vae_levels=3)
    if precision == "float64":
        tiny = replace(tiny, channels=4, iters_per_scale=2, max_size=24)
    return replace(tiny, precision="float32", log_every=1, checkpoint_every=1000, seed=0)


def losses_now(precision, scales=None):
    """Losses of every iteration in order: [{"scale", "iteration", "rec_loss", …}, …]."""
    config = golden_config(precision)
    clip = synthetic_clip(90, 160).astype(precision)  # interpolated in float64 too
    reals = real_pyramid(ladder_16_9(config), clip)
    context = in_float64() if precision == "float64" else nullcontext()
    with tempfile.TemporaryDirectory() as folder, one_thread(), context:
        losses = train(config, Path(folder) / "checkpoint.pt", reals, scales=scales).losses()
    return [{"scale": n, "iteration": k, **values} for (n, k), values in losses.items()]


def path_of(precision):
    return FOLDER / f"demo_{precision}.json"


def record(precision):
    config = golden_config(precision)
    return {
        "regenerate": WRITE,
        "config": config.to_dict(),
        "sizes": [list(size) for size in ladder_16_9(config)],
        "losses": losses_now(precision),
    }


def pairs(now, expected):
    """(place, now, expected) of every point."""
    for point, wanted in zip(now, expected, strict=True):
        place = f"scale {wanted['scale']}, iteration {wanted['iteration']}"
        assert point.keys() == wanted.keys(), place
        assert (point.pop("scale"), point.pop("iteration")) == (wanted["scale"], wanted["iteration"]), place
        yield place, point, wanted


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_golden_file_is_of_the_demo_preset(precision):
    """Fails when the preset was changed on purpose too: then run the command in this file's docstring."""
    golden, config = json.loads(path_of(precision).read_text()), golden_config(precision)
    assert TrainConfig.from_dict(golden["config"]) == config, f"the demo preset has changed: {WRITE}"
    assert golden["sizes"] == [list(size) for size in ladder_16_9(config)]


def test_golden_losses():
    """To nine digits, on any machine."""
    golden = json.loads(path_of("float64").read_text())
    for place, now, expected in pairs(losses_now("float64"), golden["losses"]):
        for name, value in now.items():
            assert value == pytest.approx(expected[name], rel=EXACT, abs=EXACT), f"{place}: {name}"


def test_golden_losses_within_the_rounding_of_float32():
    golden = json.loads(path_of("float32").read_text())
    expected = [point for point in golden["losses"] if point["scale"] < COMPARED]
    for place, now, wanted in pairs(losses_now("float32", COMPARED), expected):
        kind = "gan" if "gp_loss" in wanted else "vae"
        for name, value in now.items():
            assert value == pytest.approx(wanted[name], **ROUNDED[kind][name]), f"{place}: {name}"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {WRITE}")
    FOLDER.mkdir(exist_ok=True)
    for precision in ("float32", "float64"):
        fresh = record(precision)
        lines = ",\n".join(f"    {json.dumps(point)}" for point in fresh.pop("losses"))
        head = json.dumps(fresh, indent=1)[:-2]
        path_of(precision).write_text(f'{head},\n "losses": [\n{lines}\n ]\n}}\n')
        print(f"wrote {path_of(precision)}")

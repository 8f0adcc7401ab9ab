"""The demo preset's losses on the synthetic clip, iteration by iteration, equal those on file.

A change that should not move them must not. After one that should (the preset, an initialisation, an order of random
draws), write the file again and say why in the commit:

    python -m tests.model.test_golden --write
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from model.config import TrainConfig
from model.presets import demo

from .conftest import ladder_16_9, one_thread, real_pyramid, synthetic_clip, train

GOLDEN = Path(__file__).parent.parent / "golden" / "demo_float32.json"
WRITE = "python -m tests.model.test_golden --write"

# Another order of summation moves them: between oneDNN with AVX-512, with AVX2 and PyTorch's own convolutions, rec_loss
# by up to 2.4e-4, gp_loss by 1.5e-3 (relative), and critic_loss, a difference near 0, by 1e-4 (absolute), as measured.
TOLERANCE = {
    "rec_loss": 2e-3,
    "kl_loss": 2e-3,
    "rec_zero_loss": 2e-3,
    "gp_loss": 5e-3,
    "critic_loss": 2e-3,
    "adv_loss": 2e-3,
}
CRITIC_ABS = 5e-4


def golden_config():
    """The demo preset, but for fewer channels and four iterations a scale, so that it takes seconds; and with all three
    kinds of scale: VAE at scale 0, VAE above it, GAN."""
    tiny = replace(demo(), channels=8, iters_per_scale=4, vae_levels=3)
    return replace(tiny, precision="float32", log_every=1, checkpoint_every=1000, seed=0)


def losses_now():
    """Losses of every iteration in order: [{"scale", "iteration", "rec_loss", …}, …]."""
    config = golden_config()
    reals = real_pyramid(ladder_16_9(config), synthetic_clip(90, 160))
    with tempfile.TemporaryDirectory() as folder, one_thread():
        losses = train(config, Path(folder) / "checkpoint.pt", reals).losses()
    return [{"scale": n, "iteration": k, **values} for (n, k), values in losses.items()]


def record():
    config = golden_config()
    return {
        "regenerate": WRITE,
        "config": config.to_dict(),
        "sizes": [list(size) for size in ladder_16_9(config)],
        "losses": losses_now(),
    }


@pytest.fixture(scope="module")
def golden():
    return json.loads(GOLDEN.read_text())


def test_golden_file_is_of_the_demo_preset(golden):
    """Fails when the preset was changed on purpose too: then run the command in this file's docstring."""
    assert TrainConfig.from_dict(golden["config"]) == golden_config(), f"the demo preset has changed: {WRITE}"
    assert golden["sizes"] == [list(size) for size in ladder_16_9(golden_config())]


def test_golden_losses(golden):
    now = losses_now()
    assert [set(point) for point in now] == [set(point) for point in golden["losses"]]
    # adv_loss contains the critic's last bias, whose gradient is 0 but for rounding: out of that Adam makes steps of up
    # to lr, their sign depending on the machine. They shift adv_loss and nothing else.
    lr, steps = golden_config().lr, 0
    for point, expected in zip(now, golden["losses"], strict=True):
        place = f"scale {expected['scale']}, iteration {expected['iteration']}"
        assert (point["scale"], point["iteration"]) == (expected["scale"], expected["iteration"]), place
        steps += "adv_loss" in expected
        loose = {"adv_loss": CRITIC_ABS + 2 * lr * steps, "critic_loss": CRITIC_ABS}
        for name in sorted(set(expected) - {"scale", "iteration"}):
            close = pytest.approx(expected[name], rel=TOLERANCE[name], abs=loose.get(name, 1e-6))
            assert point[name] == close, f"{place}: {name}"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {WRITE}")
    GOLDEN.parent.mkdir(exist_ok=True)
    fresh = record()
    lines = ",\n".join(f"    {json.dumps(point)}" for point in fresh.pop("losses"))
    head = json.dumps(fresh, indent=1)[:-2]
    GOLDEN.write_text(f'{head},\n "losses": [\n{lines}\n ]\n}}\n')
    print(f"wrote {GOLDEN}")

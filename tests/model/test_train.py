"""What a scale's training changes and leaves, learning rates, noise amplitudes, and losses that are no numbers."""

from __future__ import annotations

import math

import pytest
import torch

from model import checkpoint as ckpt
from model.training.loop import NonFiniteLoss, train_clip

from . import reference
from .conftest import CLIP_ID, SIZES, Recorder, real_pyramid, tiny, train


def ends(history):
    """The checkpoint at the end of every scale."""
    _, recorder, final = history
    return [recorder.before[n + 1, 1] for n in range(len(SIZES) - 1)] + [final]


def learns(name, n, vae_levels):
    if n < vae_levels:
        return name.startswith(("encoder.", "generators.0.", f"generators.{n}."))
    return name.startswith(f"generators.{n}.")


@pytest.mark.parametrize("n", range(1, len(SIZES)))
def test_a_scale_changes_what_it_trains_and_not_a_bit_of_the_rest(history, n):
    config, _, _ = history
    before, after = ends(history)[n - 1 : n + 1]
    kept = 0
    for name, tensor in before.generators.items():
        if learns(name, n, config.vae_levels):
            assert not torch.equal(tensor, after.generators[name]), name
        else:
            assert torch.equal(tensor, after.generators[name]), name
            kept += 1
    assert (kept > 0) == (n > 1)
    assert all(name in before.generators or name.startswith(f"generators.{n}.") for name in after.generators)
    assert before.noise_amps == after.noise_amps[:n]


def test_every_tensor_of_the_new_scale_is_trained(history):
    """Against the state after the scale's first iteration: whatever stays equal is left out of the optimizer."""
    _, recorder, _ = history
    for n, end in enumerate(ends(history)):
        start = recorder.before[n, 2]
        for name, tensor in start.generators.items():
            if name.startswith(f"generators.{n}."):
                assert not torch.equal(tensor, end.generators[name]), name
        for name, tensor in (start.critic or {}).items():
            if tensor.numel() > 1 or name == "tail.bias":  # tail.u of one channel is ±1
                assert not torch.equal(tensor, end.critic[name]), name


def test_critic_is_there_at_gan_scales_only_and_carried_over(history):
    config, recorder, _ = history
    scales = ends(history)
    assert [end.critic is None for end in scales] == [True, True, True, False, False]
    assert [len(end.optimizers) for end in scales] == [1, 1, 1, 2, 2]
    start, one_iteration_on = scales[3].critic, recorder.before[4, 2].critic
    weights = [name for name in start if not name.endswith((".u", ".v"))]
    moved = max((start[name] - one_iteration_on[name]).abs().max().item() for name in weights)
    # the first step of a fresh Adam is lr at most; a critic drawn anew is off by the size of its weights
    assert 0 < moved <= config.lr * 1.001
    assert max(start[name].abs().max().item() for name in weights) > 20 * config.lr


def test_a_generator_starts_from_the_one_below(history):
    config, recorder, _ = history
    for n in range(2, len(SIZES)):
        below, started = recorder.before[n, 1].generators, recorder.before[n, 2].generators
        for name, tensor in started.items():
            if name.startswith(f"generators.{n}."):
                start = below[name.replace(f".{n}.", f".{n - 1}.", 1)]
                assert (tensor - start).abs().max() <= config.lr * 1.001, name


@pytest.mark.parametrize(("lr", "decay"), [(5e-4, 0.2), (3e-3, 0.5)])
def test_learning_rates(tmp_path, lr, decay):
    config = tiny(iters_per_scale=2, lr=lr, vae_lr_decay=decay)
    recorder = train(config, tmp_path / "checkpoint.pt")
    expected = {
        0: [[lr, lr]],  # E; G⁰
        1: [[lr * decay, lr * decay, lr]],  # E, G⁰; G¹
        2: [[lr * decay**2, lr * decay**2, lr]],
        3: [[lr], [lr]],  # G³; D³
        4: [[lr], [lr]],
    }
    for n, rates in expected.items():
        saved = recorder.before[n, 2].optimizers
        assert [[group["lr"] for group in optimizer["param_groups"]] for optimizer in saved] == [
            pytest.approx(group) for group in rates
        ]
        assert all(group["betas"] == (0.5, 0.999) for optimizer in saved for group in optimizer["param_groups"])


def test_learning_rate_falls_along_a_half_cosine_within_each_scale(tmp_path):
    config = tiny(iters_per_scale=4, lr_final=0.1, lr=1e-3)
    recorder = train(config, tmp_path / "checkpoint.pt")
    # cos 0, 45, 90, 135 degrees before iterations 1 to 4; the checkpoint before iteration k holds that of k - 1
    factors = [0.1 + 0.9 * (1 + c) / 2 for c in (1.0, math.sqrt(0.5), 0.0)]
    for n in (0, 4):
        for k, factor in zip((2, 3, 4), factors, strict=True):
            for optimizer in recorder.before[n, k].optimizers:
                for group in optimizer["param_groups"]:
                    assert group["lr"] == pytest.approx(1e-3 * factor, rel=1e-6)


def test_learning_rate_falls_at_once_after_four_fifths_of_each_scale(tmp_path):
    config = tiny(iters_per_scale=5, lr_final=0.1, lr_fall="step", lr=1e-3, vae_levels=1)
    recorder = train(config, tmp_path / "checkpoint.pt")
    last = [ckpt.load(tmp_path / "checkpoint.pt"), recorder.before[4, 5]]
    assert [saved.iteration for saved in last] == [5, 4]
    for saved, rate in zip(last, (1e-4, 1e-3), strict=True):
        assert {group["lr"] for optimizer in saved.optimizers for group in optimizer["param_groups"]} == {rate}


@pytest.mark.parametrize("noise_amp", [0.1, 0.7])
def test_noise_amplitude_is_noise_amp_times_the_rmse_at_the_start_of_the_scale(tmp_path, noise_amp):
    path = tmp_path / "checkpoint.pt"
    config = tiny(noise_amp=noise_amp)
    recorder = train(config, path)
    final, reals = ckpt.load(path), [torch.from_numpy(real)[None].double() for real in real_pyramid()]
    assert final.noise_amps[:3] == (0.0, 0.0, 0.0)
    for n in (3, 4):
        below = recorder.before[n, 1]  # the end of scale n - 1; Gⁿ starts as a copy of Gⁿ⁻¹
        w, draw = reference.double(below.generators), reference.Draws(config.seed, n, 0)
        for name in list(w):
            if name.startswith(f"generators.{n - 1}."):
                w[name.replace(f".{n - 1}.", f".{n}.", 1)] = w[name]
        mu, logvar = reference.encode(w, reals[0], config.encoder_convs)
        z = mu + draw.normal(mu.shape) * torch.exp(0.5 * logvar)
        _, x = reference.reconstruct(w, z, n, SIZES, config)
        rmse = ((x - reals[n]) ** 2).mean().sqrt().item()
        assert final.noise_amps[n] == pytest.approx(noise_amp * rmse, rel=1e-5)


def test_progress_is_logged_every_so_often_and_at_checkpoints_as_means(tmp_path):
    often = tiny(iters_per_scale=7, checkpoint_every=100)
    every = train(often, tmp_path / "often.pt").points
    seldom = train(tiny(iters_per_scale=7, checkpoint_every=5, log_every=3), tmp_path / "seldom.pt").points
    assert sorted(every) == [(n, k) for n in range(5) for k in range(1, 8)]
    assert sorted(seldom) == [(n, k) for n in range(5) for k in (3, 5, 6, 7)]
    for (n, k), metrics in seldom.items():
        since = {3: (1, 2, 3), 5: (4, 5), 6: (6,), 7: (7,)}[k]
        for name, value in metrics.items():
            if name.endswith("_loss"):
                assert value == pytest.approx(sum(every[n, i][name] for i in since) / len(since), rel=1e-5, abs=1e-6)
    vae, gan = {"rec_loss", "kl_loss"}, {"rec_loss", "adv_loss", "critic_loss", "gp_loss"}
    figures = {"sec_per_iter", "peak_gib"}
    names = [vae, vae | {"rec_zero_loss"}, vae | {"rec_zero_loss"}, gan, gan]
    assert [set(every[n, 1]) for n in range(5)] == [losses | figures for losses in names]
    assert all(metrics["sec_per_iter"] > 0 and metrics["peak_gib"] > 0 for metrics in every.values())


def test_seed_decides_the_result_and_the_global_generator_does_not(tmp_path):
    finals = []
    for name, seed, state in (("a", 5, 1), ("b", 5, 2), ("c", 6, 1)):
        torch.manual_seed(state)
        train(tiny(iters_per_scale=1, seed=seed), tmp_path / name)
        finals.append(ckpt.load(tmp_path / name))
    a, b, c = ({**f.generators, **f.critic} for f in finals)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["encoder.mu.weight"], c["encoder.mu.weight"])
    assert not torch.equal(a["tail.weight"], c["tail.weight"])


def test_training_leaves_the_global_generator_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train(tiny(iters_per_scale=1), tmp_path / "checkpoint.pt")
    assert torch.equal(torch.rand(4), expected)


def test_every_finished_scale_is_handed_out(tmp_path):
    path = tmp_path / "checkpoint.pt"
    seen = []
    for scale in train_clip(tiny(), [real_pyramid()], clip_id=CLIP_ID, path=path, log=lambda _: None):
        saved = ckpt.load(path)
        assert (saved.scale, saved.iteration, saved.done) == (scale.n, 3, scale.n == len(SIZES) - 1)
        assert scale.stack.num_scales == scale.n + 1
        for name, parameter in scale.stack.named_parameters():  # no gradient is computed that nobody uses
            assert parameter.requires_grad == learns(name, scale.n, 3), name
        for name, tensor in scale.stack.state_dict().items():
            assert torch.equal(tensor, saved.generators[name]), name
        seen.append(scale)
    assert [scale.n for scale in seen] == list(range(len(SIZES)))
    times = [scale.train_s for scale in seen]
    assert times == sorted(times) and times[0] > 0


@pytest.mark.slow
def test_training_lowers_the_reconstruction_error_of_every_scale(tmp_path):
    config = tiny(iters_per_scale=25, lr=2e-3, checkpoint_every=100)
    points = train(config, tmp_path / "checkpoint.pt").points
    for n in range(len(SIZES)):
        assert points[n, 25]["rec_loss"] < 0.9 * points[n, 1]["rec_loss"]


# -- losses that are no numbers


def finite(checkpoint):
    tensors = [*checkpoint.generators.values(), *(checkpoint.critic or {}).values()]
    return all(tensor.isfinite().all() for tensor in tensors)


@pytest.mark.parametrize(("n", "log_every"), [(1, 1), (1, 20), (3, 20)])
def test_nan_in_the_clip_is_named_with_its_scale_iteration_and_term(tmp_path, n, log_every):
    path = tmp_path / "checkpoint.pt"
    reals = real_pyramid()
    reals[n][0, 1, 2, 3] = float("nan")
    config = tiny(log_every=log_every, checkpoint_every=50)
    # the amplitude of a GAN scale's noise is measured against the clip, so there every term is affected
    with pytest.raises(NonFiniteLoss, match=rf"scale {n}, iteration 1: rec_loss is nan") as caught:
        train(config, path, reals)
    assert "\n" not in str(caught.value)
    saved = ckpt.load(path)
    assert (saved.scale, saved.iteration) == (n - 1, 3)
    assert finite(saved)
    saved.stack()


@pytest.mark.parametrize("log_every", [3, 7, 1000])
def test_divergence_is_placed_at_its_own_iteration_however_seldom_losses_are_read(tmp_path, log_every):
    message = {}
    for name, every in (("often", 1), ("seldom", log_every)):
        config = tiny(lr=1e6, iters_per_scale=12, log_every=every, checkpoint_every=1000)
        with pytest.raises(NonFiniteLoss) as caught:
            train(config, tmp_path / name)
        message[name] = str(caught.value)
    assert message["often"] == message["seldom"]
    place = message["often"].split(":")[0]
    assert place.startswith("scale 0, iteration ") and int(place.split()[-1]) > 1
    assert "kl_loss is" in message["often"] or "rec_loss is" in message["often"]


def test_divergence_leaves_the_last_finite_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    train(tiny(), path, stop_at=(2, 2))  # one good iteration of scale 2 is saved
    good = ckpt.load(path)
    reals = real_pyramid()
    reals[2][:] = float("inf")
    with pytest.raises(NonFiniteLoss, match="scale 2, iteration 2"):
        list(train_clip(tiny(), [reals], clip_id=CLIP_ID, path=path, log=Recorder(path)))
    left = ckpt.load(path)
    assert (left.scale, left.iteration) == (good.scale, good.iteration) == (2, 1)
    assert finite(left)
    assert all(torch.equal(left.generators[name], tensor) for name, tensor in good.generators.items())


def test_a_step_that_breaks_the_weights_while_its_losses_are_finite_is_not_saved_as_done(tmp_path):
    """rec_weight·rec_loss overflows: rec_loss is finite, the gradients are not, and it is the last iteration."""
    path = tmp_path / "checkpoint.pt"
    config = tiny(rec_weight=1e39, iters_per_scale=1, num_scales=1, vae_levels=1)
    with pytest.raises(NonFiniteLoss, match="scale 0, iteration 1"):
        train(config, path, real_pyramid(SIZES[:1]))
    assert not path.exists() or finite(ckpt.load(path))

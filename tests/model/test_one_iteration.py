"""One iteration of each kind equals the plain float64 reference: every loss, gradient moment and parameter.

The checkpoints of a tiny training in float64 give weights and Adam's moments before and after an iteration;
tests/model/reference.py computes the same iteration from the state before.
"""

from __future__ import annotations

import pytest
import torch

from model import checkpoint as ckpt
from model.device import resolve

from . import reference
from .conftest import SIZES, one_thread, several_pyramids, tiny, train
from .float64 import in_float64

# Both in float64: they differ by less than 1e-12 (measured), whatever the machine. A term weighted by 1.01 changes far
# more, and in float32 one activation that falls to the other side of LeakyReLU's kink would hide it.
EXACT = 1e-8  # losses relative to themselves, moments to the largest entry of a tensor, updates to the learning rate
# D's last bias cancels in E[D(fake)] - E[D(real)]: its gradient is 0, but for rounding.
ZERO_GRADIENT = "critic.tail.bias"


def names_in_order(checkpoint, n, config):
    """Parameter names in the order of the optimizer's groups: (E, G⁰ while VAE scales train), Gⁿ; or all of them."""
    stack = checkpoint.stack()
    parts = [f"generators.{n}."]
    if not config.freeze:
        parts = ["encoder.", *(f"generators.{k}." for k in range(n + 1))]
    elif n < config.vae_levels:
        parts = ["encoder.", *(["generators.0."] if n > 0 else []), *parts]
    return [name for part in parts for name, _ in stack.named_parameters() if name.startswith(part)]


def moments_of(optimizer, names):
    """name → (step, m, v) in float64 from an Adam's state_dict."""
    assert [i for group in optimizer["param_groups"] for i in group["params"]] == list(range(len(names)))
    return {
        name: (
            int(optimizer["state"][i]["step"]),
            optimizer["state"][i]["exp_avg"].double(),
            optimizer["state"][i]["exp_avg_sq"].double(),
        )
        for i, name in enumerate(names)
    }


def iterate(before, n, config):
    """The reference's iteration from a checkpoint: losses, weights, moments (G's and D's as one dictionary each)."""
    w = reference.double(before.generators)
    dtype = before.generators["generators.0.tail.weight"].dtype
    samples = [
        (
            [torch.from_numpy(real)[None].double() for real in pyramid],
            reference.Draws(config.seed, n, before.iteration + 1, sample, dtype),
        )
        for sample, pyramid in enumerate(several_pyramids(before.samples))
    ]
    names = names_in_order(before, n, config)
    if n < config.vae_levels:
        losses, moments = reference.vae_iteration(
            n, w, moments_of(before.optimizers[0], names), samples, before.sizes, config
        )
        return losses, w, moments, {}, {}
    c = reference.double(before.critic)
    critic_names = [name for name in c if not name.endswith((".u", ".v"))]
    losses, moments, critic_moments = reference.gan_iteration(
        n,
        w,
        c,
        moments_of(before.optimizers[0], names),
        moments_of(before.optimizers[1], critic_names),
        before.noise_amps,
        samples,
        before.sizes,
        config,
    )
    return losses, w, moments, c, critic_moments


def compared(recorder, final, n, config):
    """Of the last iteration of scale n: the reference's losses; (name, ours, reference's, before) of every weight
    tensor; and the two moments' (name, ours, reference's).
    """
    last = config.iterations[n]
    before = recorder.before[n, last]
    after = recorder.before.get((n + 1, 1), final)
    assert (before.scale, before.iteration, after.scale, after.iteration) == (n, last - 1, n, last)
    losses, w, moments, c, critic_moments = iterate(before, n, config)
    weights = [(name, after.generators[name], w[name], before.generators[name]) for name in w]
    ours = moments_of(after.optimizers[0], list(moments))
    pairs = [(name, ours[name], moments[name]) for name in moments]
    if c:
        weights += [(f"critic.{name}", after.critic[name], c[name], before.critic[name]) for name in c]
        ours = moments_of(after.optimizers[1], list(critic_moments))
        pairs += [(f"critic.{name}", ours[name], critic_moments[name]) for name in critic_moments]
    return losses, weights, pairs


def gradient_errors(moments):
    """Length of the error of E and G's first moments, and of D's if there is one, relative to their own length."""
    for critic in (False, True):
        pairs = [
            (m.flatten(), m_r.flatten())
            for name, (_, m, _), (_, m_r, _) in moments
            if name.startswith("critic.") == critic and name != ZERO_GRADIENT
        ]
        if pairs:
            ours, theirs = (torch.cat(part) for part in zip(*pairs, strict=True))
            yield ((ours - theirs).norm() / theirs.norm()).item()


def check(config, recorder, final, n):
    losses, weights, moments = compared(recorder, final, n, config)
    last = config.iterations[n]
    logged = recorder.losses()[n, last]
    assert logged.keys() == losses.keys()
    for name, value in losses.items():
        assert logged[name] == pytest.approx(value.item(), rel=EXACT, abs=EXACT), name

    for name, (step, m, v), (step_r, m_r, v_r) in moments:
        assert step == step_r == last, name
        if name == ZERO_GRADIENT:
            assert m.abs().max() < 1e-14 and m_r.abs().max() < 1e-14
            continue
        assert m_r.abs().max() > 0, name
        assert (m - m_r).abs().max() <= EXACT * m_r.abs().max(), name
        assert (v - v_r).abs().max() <= EXACT * v_r.abs().max(), name

    trained = {name for name, _, _ in moments}
    for name, ours, theirs, before in weights:
        assert ours.dtype == before.dtype == torch.float64, name
        theirs = theirs.detach()
        if name == ZERO_GRADIENT:
            assert (ours - before).abs().max() < 1e-5 * config.lr  # so small a gradient is lost in Adam's 1e-8
        elif name in trained:
            level = {"encoder": "0", "critic": n}.get(name.split(".")[0], name.split(".")[1])
            decay = config.vae_lr_decay if config.freeze else config.unfrozen_lr_decay or config.vae_lr_decay
            rate = config.lr * decay ** (n - int(level))
            assert (ours - theirs).abs().max() <= EXACT * rate, name
            assert (theirs - before).abs().max() > 1e-4 * rate, name  # far above what may differ
        elif name.endswith((".u", ".v")):
            assert (ours - theirs).abs().max() <= EXACT, name
        else:
            assert torch.equal(ours, before), name


QUICK = {"channels": 4, "iters_per_scale": 2}  # float64 convolutions are slow; iteration 2 has a checkpoint before it


def trained_in_float64(folder, config, samples=1):
    """A whole training: (config, Recorder, final checkpoint)."""
    path = folder / "checkpoint.pt"
    with one_thread(), in_float64():
        recorder = train(config, path, samples=samples)
    return config, recorder, ckpt.load(path)


@pytest.fixture(scope="module", params=["paper", "official"])
def exact(request, tmp_path_factory):
    return trained_in_float64(tmp_path_factory.mktemp(request.param), tiny(request.param, **QUICK))


@pytest.mark.parametrize("n", range(5))
def test_iteration_equals_the_reference(exact, n):
    """Scale 0 and 1, 2 (through frozen generators) are VAE; 3 GAN; 4 GAN above a frozen generator with noise."""
    config, recorder, final = exact
    check(config, recorder, final, n)


def test_scale_0_trains_the_weights_of_the_paper_or_of_the_authors_code(exact):
    """A.1: MSE + 0.1·KL. Theirs adds both MSE terms at scale 0 too, 10 each: 20·MSE + KL (train_video.py)."""
    config, recorder, _ = exact
    rec, kl, limit = (20.0, 1.0, 5.0) if config.tanh_after_sum else (1.0, 0.1, 0.5)
    before, after = recorder.before[0, 2], recorder.before[1, 1]
    w, names = reference.double(before.generators), names_in_order(before, 0, config)
    for i in range(config.encoder_convs):
        reference.power_iteration(w, f"encoder.blocks.{i}")
    reference.trained(w, "encoder.", "generators.0.")
    real = torch.from_numpy(several_pyramids(1)[0][0])[None].double()
    z, divergence = reference.code(w, real, config, reference.Draws(config.seed, 0, 2, 0, torch.float64))
    x, _ = reference.reconstruct(w, z, 0, SIZES, config)
    gradients = reference.gradients_of(rec * ((x - real) ** 2).mean() + kl * divergence, w, names, limit)
    earlier, later = (moments_of(saved.optimizers[0], names) for saved in (before, after))
    for name in names:
        made = (later[name][1] - 0.5 * earlier[name][1]) / 0.5  # Adam's first moment
        assert (made - gradients[name]).abs().max() <= EXACT * gradients[name].abs().max(), name


@pytest.fixture(scope="module")
def clipped(tmp_path_factory):
    """Gradients clipped at every step, weights of the terms that are all different."""
    weights = {"rec_weight": 3.0, "kl_weight": 0.7, "adv_weight": 0.45, "gp_weight": 0.9}
    config = tiny(grad_clip=0.02, noise_amp=0.6, seed=6, **weights, **QUICK)
    return trained_in_float64(tmp_path_factory.mktemp("clipped"), config)


@pytest.mark.parametrize("n", [0, 2, 4])
def test_iteration_equals_the_reference_with_clipped_gradients_and_other_weights(clipped, n):
    config, recorder, final = clipped
    _, _, moments = compared(recorder, final, n, config)
    before = moments_of(recorder.before[n, config.iterations[n]].optimizers[0], names_in_order(final, n, config))
    norms = [((m - 0.5 * before[name][1]) / 0.5).norm() for name, (_, m, _), _ in moments if name in before]
    assert torch.stack(norms).norm().item() == pytest.approx(0.02, rel=1e-3)  # the limit is reached
    check(config, recorder, final, n)


@pytest.fixture(scope="module", params=[True, False], ids=["freeze", "no_freezing"])
def with_low_memory(request, tmp_path_factory):
    return trained_in_float64(
        tmp_path_factory.mktemp("low_memory"), tiny(low_memory=True, freeze=request.param, **QUICK)
    )


@pytest.mark.parametrize("n", range(5))
def test_iteration_with_low_memory_equals_the_reference(with_low_memory, n):
    config, recorder, final = with_low_memory
    check(config, recorder, final, n)


OF_SAMPLES = {
    "whole": {},
    "micro": {"micro_batch": 2},
    "no_freezing": {"freeze": False, "micro_batch": 2},
    "gan_only": {"vae_levels": 0, "micro_batch": 2},
}


@pytest.fixture(scope="module", params=OF_SAMPLES.values(), ids=list(OF_SAMPLES))
def of_three_samples(request, tmp_path_factory):
    """Losses summed over three samples, in one batch or in micro-batches of two and one."""
    config = tiny(**request.param, seed=7, **QUICK)
    return trained_in_float64(tmp_path_factory.mktemp("samples"), config, samples=3)


@pytest.mark.parametrize("n", range(5))
def test_iteration_of_several_samples_equals_the_reference(of_three_samples, n):
    config, recorder, final = of_three_samples
    check(config, recorder, final, n)


@pytest.fixture(scope="module", params=[(True, None), (False, 1)], ids=["freeze", "no_freezing"])
def of_crops(request, tmp_path_factory):
    """GAN scales of two samples on random parts of the volume: 11 of 14 × 12 of 19 pixels, 11 of 16 × 13 of 22."""
    freeze, micro_batch = request.param
    config = tiny(gan_crop=0.61, freeze=freeze, micro_batch=micro_batch, seed=8, **QUICK)
    return trained_in_float64(tmp_path_factory.mktemp("crops"), config, samples=2)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_iteration_of_crops_equals_the_reference(of_crops, n):
    config, recorder, final = of_crops
    check(config, recorder, final, n)


def check_roughly(config, recorder, final, n, *, loss, gradient):
    """loss: relative error, and a third of it absolute; gradient: error of a network's whole first moment."""
    losses, _, moments = compared(recorder, final, n, config)
    last = config.iterations[n]
    logged = recorder.losses()[n, last]
    for name, value in losses.items():
        # D's last bias may have drifted: out of rounding Adam makes a step an iteration
        loose = 0.3 * loss + (last * config.lr if name == "adv_loss" else 0)
        assert logged[name] == pytest.approx(value.item(), rel=loss, abs=loose), name
    for error in gradient_errors(moments):
        assert error < gradient


@pytest.mark.parametrize("n", [0, 2, 4])
def test_float32_iteration_is_the_reference_within_its_rounding(history, n):
    """Of 6e-8, which one activation next to the kink of a LeakyReLU turns into up to 2e-3 of a gradient (measured)."""
    config, recorder, final = history
    assert {tensor.dtype for tensor in final.generators.values()} == {torch.float32}
    check_roughly(config, recorder, final, n, loss=1e-3, gradient=0.02)


@pytest.fixture(scope="module")
def in_bf16(tmp_path_factory):
    if resolve("auto", torch.device("cpu")) != "bf16":
        pytest.skip("this CPU does not multiply bf16")
    path = tmp_path_factory.mktemp("bf16") / "checkpoint.pt"
    config = tiny(precision="bf16")
    with one_thread():
        recorder = train(config, path)
    return config, recorder, ckpt.load(path)


@pytest.mark.parametrize("n", [0, 2, 4])
def test_bf16_iteration_is_the_reference_within_its_rounding(in_bf16, n):
    """bf16 rounds each convolution's operands by up to 2⁻⁹ = 0.2 %, at random: through the ten to thirty layers that a
    gradient passes that adds up to a few per cent of its length. A wrong term turns it by far more.
    """
    check_roughly(*in_bf16, n, loss=0.01, gradient=0.1)

"""One iteration of each kind equals the plain float64 reference: every loss, gradient moment and parameter.

The checkpoints of a tiny training give weights, Adam's moments and the random generator's state before and after an
iteration; tests/model/reference.py computes the same iteration from the state before.
"""

from __future__ import annotations

import pytest
import torch

from model import checkpoint as ckpt
from model.device import resolve

from . import reference
from .conftest import one_thread, several_pyramids, tiny, train

# Float32 numbers carry 6e-8 relative. At the VAE scales that leaves losses within 3e-7 and gradients within 1e-5 of a
# tensor's largest entry (measured). At the GAN scales two things magnify rounding: activations next to LeakyReLU's kink
# fall to its other side and change the slope of a few positions among thousands, and the gradient of D's biases is the
# small difference of two large sums over real and fake. Leaving a term out, or weighting it by 1.01, moves the gradient
# of a whole network by 1e-3 to 1 of its length.
LOSS = {
    "rec_loss": {"rel": 1e-5},
    "kl_loss": {"rel": 1e-5},
    "rec_zero_loss": {"rel": 1e-5},
    "critic_loss": {"rel": 1e-4, "abs": 2e-6},
    "gp_loss": {"rel": 3e-4},
    "adv_loss": {"rel": 1e-4, "abs": 5e-6},
}
# Several samples have several times as many activations next to the kink, at the VAE scales too.
GRADIENT = {"vae": 1e-4, "gan": 1e-2, "several": 1e-2}  # any entry, relative to the largest of its tensor
GRADIENTS = {"vae": 2e-5, "gan": 5e-4, "several": 1e-3}  # length of the error relative to the network's whole gradient
# An update is lr·m̂/√v̂, so the error of an entry is relative to that entry's own history; and a weight near 1 that moves
# by lr·0.2² = 2e-5 is itself rounded to 3e-3 of that.
UPDATE_MEAN = {"vae": 5e-3, "gan": 0.1, "several": 0.1}  # of the learning rate, mean over a tensor
UPDATE_MAX = {"vae": 2e-2, "gan": 0.5, "several": 0.5}

LAST = 3  # iterations of a scale in the histories: iteration 2 and 3 have a checkpoint before them


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
    samples = [
        (
            [torch.from_numpy(real)[None].double() for real in pyramid],
            reference.Draws(config.seed, n, before.iteration + 1, sample),
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
    """(name, ours, reference's, before) of every weight tensor, and the two moments' (name, ours, reference's)."""
    before = recorder.before[n, LAST]
    after = recorder.before.get((n + 1, 1), final)
    assert (before.scale, before.iteration, after.scale, after.iteration) == (n, LAST - 1, n, LAST)
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
            if name.startswith("critic.") == critic and name != "critic.tail.bias"
        ]
        if pairs:
            ours, theirs = (torch.cat(part) for part in zip(*pairs, strict=True))
            yield ((ours - theirs).norm() / theirs.norm()).item()


def check(config, recorder, final, n):
    losses, weights, moments = compared(recorder, final, n, config)
    kind = "vae" if n < config.vae_levels else "gan"
    kind = "several" if final.samples > 1 else kind
    logged = recorder.losses()[n, LAST]
    assert logged.keys() == losses.keys()
    # D's last bias cancels in E[D(fake)] - E[D(real)]: its gradient is 0, but for rounding, out of which Adam makes a
    # step. It only shifts D's map, so adv_loss is compared without it.
    offsets = [(ours.item(), theirs.item()) for name, ours, theirs, _ in weights if name == "critic.tail.bias"] or [
        (0.0, 0.0)
    ]
    for name, value in losses.items():
        ours, theirs = offsets[0] if name == "adv_loss" else (0.0, 0.0)
        assert logged[name] + ours == pytest.approx(value.item() + theirs, **LOSS[name]), name

    for name, (step, m, v), (step_r, m_r, v_r) in moments:
        assert step == step_r == LAST, name
        if name == "critic.tail.bias":
            assert m.abs().max() < 1e-6 and m_r.abs().max() < 1e-6
            continue
        assert m_r.abs().max() > 0, name
        assert (m - m_r).abs().max() <= GRADIENT[kind] * m_r.abs().max(), name
        assert (v - v_r).abs().max() <= 2 * GRADIENT[kind] * v_r.abs().max(), name
    for error in gradient_errors(moments):
        assert error <= GRADIENTS[kind]

    trained = {name for name, _, _ in moments}
    for name, ours, theirs, before in weights:
        theirs = theirs.detach()
        if name == "critic.tail.bias":
            continue
        if name in trained:
            level = {"encoder": "0", "critic": n}.get(name.split(".")[0], name.split(".")[1])
            rate = config.lr * config.vae_lr_decay ** (n - int(level))
            error = ((ours.double() - before.double()) - (theirs - before.double())).abs() / rate
            assert error.max() <= UPDATE_MAX[kind], name
            assert error.mean() <= UPDATE_MEAN[kind], name
            assert (theirs - before.double()).abs().max() > 0.05 * rate, name
        elif name.endswith((".u", ".v")):
            assert (ours.double() - theirs).abs().max() < 1e-5, name
        else:
            assert torch.equal(ours, before), name


@pytest.mark.parametrize("n", range(5))
def test_iteration_equals_the_reference(history, n):
    """Scale 0 and 1, 2 (through frozen generators) are VAE; 3 GAN; 4 GAN above a frozen generator with noise."""
    config, recorder, final = history
    check(config, recorder, final, n)


@pytest.fixture(scope="module")
def clipped(tmp_path_factory):
    """Gradients clipped at every step, weights of the terms that are all different."""
    path = tmp_path_factory.mktemp("clipped") / "checkpoint.pt"
    config = tiny(grad_clip=0.02, rec_weight=3.0, kl_weight=0.7, adv_weight=0.45, gp_weight=0.9, noise_amp=0.6, seed=6)
    with one_thread():
        recorder = train(config, path)
    return config, recorder, ckpt.load(path)


@pytest.mark.parametrize("n", [0, 2, 4])
def test_iteration_equals_the_reference_with_clipped_gradients_and_other_weights(clipped, n):
    config, recorder, final = clipped
    _, _, moments = compared(recorder, final, n, config)
    before = moments_of(recorder.before[n, LAST].optimizers[0], names_in_order(final, n, config))
    norms = [((m - 0.5 * before[name][1]) / 0.5).norm() for name, (_, m, _), _ in moments if name in before]
    assert torch.stack(norms).norm().item() == pytest.approx(0.02, rel=1e-3)  # the limit is reached
    check(config, recorder, final, n)


@pytest.fixture(scope="module", params=[True, False], ids=["freeze", "no_freezing"])
def with_low_memory(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("low_memory") / "checkpoint.pt"
    config = tiny(low_memory=True, freeze=request.param)
    with one_thread():
        recorder = train(config, path)
    return config, recorder, ckpt.load(path)


@pytest.mark.parametrize("n", range(5))
def test_iteration_with_low_memory_equals_the_reference(with_low_memory, n):
    config, recorder, final = with_low_memory
    check(config, recorder, final, n)


@pytest.fixture(scope="module", params=[(True, None), (True, 2), (False, 2)], ids=["whole", "micro", "no_freezing"])
def of_three_samples(request, tmp_path_factory):
    """Losses summed over three samples, in one batch or in micro-batches of two and one."""
    path = tmp_path_factory.mktemp("samples") / "checkpoint.pt"
    freeze, micro_batch = request.param
    config = tiny(freeze=freeze, micro_batch=micro_batch, seed=7)
    with one_thread():
        recorder = train(config, path, samples=3)
    return config, recorder, ckpt.load(path)


@pytest.mark.parametrize("n", range(5))
def test_iteration_of_several_samples_equals_the_reference(of_three_samples, n):
    config, recorder, final = of_three_samples
    check(config, recorder, final, n)


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
    config, recorder, final = in_bf16
    losses, _, moments = compared(recorder, final, n, config)
    logged = recorder.losses()[n, LAST]
    for name, value in losses.items():
        # D's last bias, see above, may have drifted by a step an iteration
        loose = 0.003 + (LAST * config.lr if name == "adv_loss" else 0)
        assert logged[name] == pytest.approx(value.item(), rel=0.01, abs=loose), name
    for error in gradient_errors(moments):
        assert error < 0.1

"""The paper's ablations: iterations against the plain reference, what learns, what a position sees, KL and samples."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, kl_divergence

from model import checkpoint as ckpt
from model.config import TrainConfig
from model.networks.generators import GeneratorStack
from model.networks.patchvae import PatchPosterior, kl_bernoulli, occupied_normal, relaxed_bernoulli
from model.presets import ABLATIONS, PRESETS
from model.sampling.sample import reconstruct

from .conftest import SIZES, assert_same, one_thread, real_pyramid, sample, tiny, train
from .test_one_iteration import QUICK, check, trained_in_float64

FALLING = "no_freezing, rates that fall by 0.2 a level"  # as the authors' --train-all; the ablation has equal ones
VARIANTS = [*ABLATIONS, FALLING, "no_freezing+gan_only", "no_freezing+patchvae"]


def config_of(names, **changes):
    config = tiny(**changes)
    if names == FALLING:
        return replace(config, freeze=False)
    for name in names.split("+"):
        config = ABLATIONS[name](config)
    return config


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, tmp_path_factory):
    """A whole tiny training: (name, config, Recorder, final checkpoint)."""
    path = tmp_path_factory.mktemp("variant") / "checkpoint.pt"
    config = config_of(request.param, iters_per_scale=2)
    with one_thread():
        recorder = train(config, path)
    return request.param, config, recorder, ckpt.load(path)


@pytest.fixture(scope="module", params=VARIANTS)
def exact(request, tmp_path_factory):
    return trained_in_float64(tmp_path_factory.mktemp("exact"), config_of(request.param, **QUICK))


# -- the six names


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_an_ablation_changes_what_it_says_of_any_preset(preset):
    config = PRESETS[preset]()
    changed = {
        name: {k: v for k, v in ablation(config).to_dict().items() if v != config.to_dict()[k]}
        for name, ablation in ABLATIONS.items()
    }
    assert changed == {
        "no_freezing": {"freeze": False, "unfrozen_lr_decay": 1.0},
        "r1_generators": {"vae_kernel": 1},
        "r1_encoder": {"encoder_kernel": 1},
        "patchvae": {"latent": "patchvae"},
        "gan_only": {"vae_levels": 0},
        # the presets that patches finish train one scale, as a VAE
        "vae_only": {"vae_levels": config.num_scales} if config.patch_scale is None else {},
    }


# -- training


@pytest.mark.parametrize("n", range(len(SIZES)))
def test_iteration_equals_the_reference(exact, n):
    config, recorder, final = exact
    check(config, recorder, final, n)


def test_losses_are_those_of_the_kind_of_scale(variant):
    _, config, recorder, _ = variant
    for (n, _), losses in recorder.losses().items():
        vae = {"rec_loss", "kl_loss"} | ({"rec_zero_loss"} if n > 0 else set())
        gan = {"rec_loss", "adv_loss", "critic_loss", "gp_loss"}
        assert set(losses) == (vae if n < config.vae_levels else gan)


def test_a_scale_changes_every_level_without_freezing_and_else_only_its_own(variant):
    names, config, recorder, final = variant
    for n in range(1, len(SIZES)):
        before = recorder.before[n, 1].generators  # the end of the scale before
        after = (recorder.before[n + 1, 1] if n + 1 < len(SIZES) else final).generators
        for name in before:
            if "no_freezing" in names:
                learns = name != "encoder.z"
            elif n < config.vae_levels:
                learns = name.startswith(("encoder.", "generators.0."))
            else:
                learns = False
            assert torch.equal(before[name], after[name]) != learns, (n, name)


@pytest.mark.slow
def test_stopped_and_resumed_equals_uninterrupted(variant, tmp_path):
    _, config, recorder, final = variant
    path = tmp_path / "checkpoint.pt"
    for stop_at in ((0, 2), (2, 1), (4, 2)):
        train(config, path, stop_at=stop_at)
        torch.manual_seed(7)
    rest = train(config, path)
    assert_same(ckpt.load(path), final)
    assert rest.losses().items() <= recorder.losses().items()


def test_samples_and_reconstruction_come_from_the_file(variant):
    _, _, _, final = variant
    real = torch.from_numpy(real_pyramid()[0])[None]
    first, again = (sample(final.stack(), 3, seed=7) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (3, 3, *SIZES[-1]) and first.isfinite().all() and first.abs().max() <= 1
    assert torch.equal(sample(final.stack(), 1, seed=7, first=2), first[2:])
    assert (first[0] - first[1]).abs().mean() > 1e-3
    for n, size in enumerate(SIZES):
        assert reconstruct(final.stack(), real, last=n).shape == (1, 3, *size)
        assert sample(final.stack(), 1, seed=0, last=n).shape == (1, 3, *size)


def test_without_freezing_bf16_reaches_every_level_too(tmp_path):
    """Autocast keeps casts of weights: one made without a gradient must not be used where one is wanted."""
    recorder = train(config_of("no_freezing", precision="bf16", vae_levels=1), tmp_path / "checkpoint.pt")
    before, after = recorder.before[2, 1].generators, recorder.before[3, 1].generators
    assert not [name for name in before if torch.equal(before[name], after[name])]


def test_gan_only_has_one_code_for_the_clip_and_a_critic_from_the_start(tmp_path):
    path = tmp_path / "checkpoint.pt"
    recorder = train(config_of("gan_only"), path)
    final = ckpt.load(path)
    codes = [saved.generators["encoder.z"] for saved in (*recorder.before.values(), final)]
    assert codes[0].shape == (1, 8, *SIZES[0])
    assert all(torch.equal(code, codes[0]) for code in codes)
    assert recorder.before[0, 2].critic is not None
    assert final.noise_amps[0] == 0 and min(final.noise_amps[1:]) > 0
    stack = final.stack()
    one, other = (reconstruct(stack, torch.full((1, 3, *SIZES[0]), value)) for value in (-1.0, 1.0))
    assert torch.equal(one, other)
    torch.testing.assert_close(reconstruct(stack, codes[0][:, :3], last=0), stack.decode(codes[0]).clamp(-1, 1))


def test_gan_only_learns_the_clip_from_its_code(tmp_path):
    config = config_of("gan_only", iters_per_scale=40, lr=2e-3, checkpoint_every=100, num_scales=2, vae_levels=1)
    points = train(config, tmp_path / "checkpoint.pt", real_pyramid(SIZES[:2])).points
    for n in range(2):
        assert points[n, 40]["rec_loss"] < 0.8 * points[n, 1]["rec_loss"]


def test_a_checkpoint_from_before_the_ablations_goes_on(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    added = ("freeze", "vae_kernel", "encoder_kernel", "latent")
    with monkeypatch.context() as patch:
        whole = TrainConfig.to_dict
        patch.setattr(TrainConfig, "to_dict", lambda self: {k: v for k, v in whole(self).items() if k not in added})
        train(tiny(), path, scales=2)
    assert "freeze" not in torch.load(path, weights_only=True)["config"]
    train(tiny(), path, scales=2)  # the second, which is done, and the third
    assert ckpt.load(path).scale == 2
    with pytest.raises(ckpt.CheckpointError, match="another clip or config"):
        train(tiny(freeze=False), path)


# -- receptive fields


def stack_of(config):
    torch.manual_seed(2)
    stack = GeneratorStack(config, SIZES)
    while stack.num_scales < len(SIZES):
        stack.grow()
    return stack.requires_grad_(False)


def reach(network, channels):
    """(dT, dH, dW): how far from one changed position the output of a network changes, and that it does there."""
    side = 27
    x = torch.randn((1, channels, side, side, side), generator=torch.Generator().manual_seed(0))
    moved = x.clone()
    moved[..., 13, 13, 13] += 10
    changed = (network(moved) - network(x))[0].abs().amax(dim=0).nonzero()
    assert changed.min(dim=0).values.tolist() == (26 - changed.max(dim=0).values).tolist()  # symmetric
    return tuple((changed.max(dim=0).values - 13).tolist())


@pytest.mark.parametrize(("name", "vae_reach"), [("r1_generators", 0), (None, 5)])
def test_receptive_field_of_the_generators(monkeypatch, name, vae_reach):
    """Of the convolutions: the statistics of a normalisation see every position, and are left out here."""
    stack = stack_of(config_of(name) if name else tiny())
    monkeypatch.setattr(F, "batch_norm", lambda x, *_, **__: x)
    for n in range(len(SIZES)):
        r = vae_reach if n < stack.config.vae_levels else 5  # r = 11 = 1 + 2 · 5 at GAN scales whatever is below
        assert reach(stack.generators[n], 8 if n == 0 else 3) == (r, r, r), n


@pytest.mark.parametrize(("names", "r"), [("r1_encoder", 0), ("r1_encoder+patchvae", 0), (None, 6), ("patchvae", 6)])
def test_receptive_field_of_the_encoder(names, r):
    """Five convolutions and a head. Of PatchVAE: the occupancy map's; its appearance is an average over all."""
    encoder = stack_of(config_of(names) if names else tiny()).encoder

    def maps(x):
        q = encoder(x)
        return q.logits if isinstance(q, PatchPosterior) else torch.cat([q.mu, q.logvar], dim=1)

    assert reach(maps, 3) == (r, r, r)


def test_the_first_gan_generator_starts_fresh_above_generators_of_another_kernel():
    stack = stack_of(config_of("r1_generators"))
    kernels = [g.blocks[0].conv.weight.shape[2:] for g in stack.generators]
    assert kernels == [(1, 1, 1)] * 3 + [(3, 3, 3)] * 2
    for n, copied in ((2, True), (4, True)):
        below, above = stack.generators[n - 1].state_dict(), stack.generators[n].state_dict()
        assert all(torch.equal(below[name], above[name]) for name in below) == copied


# -- PatchVAE


def test_kl_of_the_occupancy_equals_torchs():
    logits = torch.randn(2, 1, 3, 4, 5, dtype=torch.float64) * 3
    expected = kl_divergence(Bernoulli(logits=logits), Bernoulli(probs=torch.full_like(logits, 0.5))).mean()
    torch.testing.assert_close(kl_bernoulli(logits), expected, rtol=1e-12, atol=1e-12)
    assert kl_bernoulli(torch.zeros(4)).item() == pytest.approx(0, abs=1e-7)


def test_kl_of_the_occupancy_is_finite_where_it_is_certain():
    logits = torch.tensor([-200.0, 200.0], requires_grad=True)
    kl_bernoulli(logits).backward()
    assert kl_bernoulli(logits).item() == pytest.approx(math.log(2), rel=1e-6)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("logit", [-2.0, 0.0, 1.0])
def test_relaxed_samples_have_the_distribution_of_the_concrete(logit):
    """P(b ≤ x) = σ(½·logit(x) − l) at temperature ½; at x = ½ that is a Bernoulli of probability σ(l)."""
    count = 40_000
    b = relaxed_bernoulli(torch.full((count,), logit), torch.Generator().manual_seed(0))
    assert b.min() >= 0 and b.max() <= 1
    for x in (0.01, 0.2, 0.5, 0.8, 0.99):
        expected = 1 / (1 + math.exp(-(0.5 * math.log(x / (1 - x)) - logit)))
        error = 4 * math.sqrt(expected * (1 - expected) / count)  # four standard errors
        assert (b <= x).float().mean().item() == pytest.approx(expected, abs=error)


def test_relaxed_samples_have_finite_gradients_whatever_is_drawn(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([0.0, 0.5, 1 - 2**-24]))
    logits = torch.tensor([0.0, 0.0, 0.0], requires_grad=True)
    b = relaxed_bernoulli(logits, torch.Generator())
    b.sum().backward()
    assert b.tolist() == pytest.approx([0, 0.5, 1])
    assert logits.grad.tolist() == pytest.approx([0, 0.5, 0], abs=1e-6)  # b·(1 − b) / temperature


def test_the_prior_is_one_vector_where_a_fair_coin_says_so():
    z = occupied_normal((2, 400, 8, 16, 16), torch.Generator().manual_seed(1))
    for video in z:
        vectors = video.flatten(1).T.unique(dim=0)
        assert len(vectors) == 2  # nothing, or the vector
        (nothing,) = vectors[(vectors == 0).all(dim=1)]
        (vector,) = vectors[(vectors != nothing).any(dim=1)]
        assert vector.std().item() == pytest.approx(1, abs=0.15) and vector.mean().item() == pytest.approx(0, abs=0.2)
        occupied = (video != 0).any(dim=0).float().mean().item()
        assert occupied == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(8 * 16 * 16))
    assert (z[0].abs().amax(dim=(1, 2, 3)) - z[1].abs().amax(dim=(1, 2, 3))).abs().max() > 0.1


def test_the_posterior_mean_is_what_many_samples_average_to():
    stack = stack_of(config_of("patchvae"))
    q = stack.encoder(torch.from_numpy(real_pyramid()[0])[None])
    q = replace(q, logits=q.logits * 20 - 1)  # untrained, it is undecided everywhere
    generator = torch.Generator().manual_seed(0)
    # The relaxed map's mean is not σ(l) but close to it: at temperature ½ they differ by 0.05 at most.
    mean = torch.stack([q.sample(generator) for _ in range(3000)]).mean(dim=0)
    assert mean.shape == q.mu.shape == stack.latent_shape(1)
    sigma = torch.exp(0.5 * q.appearance.logvar)
    bound = 5 * sigma / math.sqrt(3000) + 0.06 * q.appearance.mu.abs()
    assert ((mean - q.mu).abs() <= bound).all()

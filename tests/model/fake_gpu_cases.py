"""What runs on the fake GPU (fake_gpu.py): a function each, which returns what the host waited for."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import torch

from model.metrics.diversity import diversity_map
from model.patches.refine import EXACT_PAIRS, Matching, Step, refine
from model.patches.vgpnn import Vgpnn
from model.presets import of_method
from model.sampling.sample import reconstruct, sample_in_parts, stream_of, stretched_ladder
from model.sampling.sampler import FinishedSampler, NetworkSampler
from model.training.loop import train_scale
from model.training.state import first_state, next_scale
from model.training.steps import iterate
from model.training.training_set import TrainingSet
from model.training.workers import Workers
from tests.model import fake_gpu
from tests.model.conftest import several_pyramids, tiny

PYRAMIDS = several_pyramids(3)
SMALL = {"generator_convs": 3, "encoder_convs": 2, "critic_convs": 3, "num_scales": 3, "vae_levels": 2}


def state_of(config, n, examples=1):
    """The training at the beginning of scale n."""
    pyramids = [pyramid[: config.num_scales] for pyramid in PYRAMIDS[:examples]]
    training_set = TrainingSet(pyramids, config, Workers())
    state = first_state(config, training_set.sizes, fake_gpu.GPU)
    for _ in range(n):
        state = next_scale(state, training_set)
    return state, training_set


def iterations(scales=(0, 1, 2), examples=1, method="hpvaegan", **changes):
    """Two iterations of scales; what the second one waits for, and the types in which it convolves."""

    def run(mode):
        config = tiny(**{**SMALL, **changes})
        found = {}
        for n in scales:
            state, training_set = state_of(of_method(config, method), n, examples)
            iterate(state, training_set)
            state.iteration += 1
            mode.waits.clear(), mode.convolved.clear()
            losses = iterate(state, training_set)
            assert {loss.device for loss in losses.values()} == {fake_gpu.GPU}
            assert {loss.dtype for loss in losses.values()} == {torch.float32}
            found |= {f"scale {n}, {what}": count for what, count in mode.waits.items()}
            found |= {f"scale {n} convolves in {kind}": count for kind, count in mode.convolved.items()}
        return found

    return run


def logging(mode):
    """A scale of 6 iterations, a point every 2, a checkpoint at the end."""
    config = tiny(**SMALL, iters_per_scale=6, log_every=2, checkpoint_every=6)
    state, training_set = state_of(config, 2)
    iterate(state, training_set)  # the clip comes to the device with the first one
    mode.waits.clear()
    mode.truth = True  # every weight is finite
    points = []
    train_scale(state, training_set, points.append, lambda state: None)
    assert [point.iteration for point in points] == [2, 4, 6]
    return mode.waits


def sampling(mode):
    """Samples of the clip's size, of a larger one in tiles, and of patches, also in parts; reconstructions; scores."""
    few = {"patch_passes": 1, "patch_coarse_passes": 1, "patch_size": (2, 3, 3)}
    config = tiny(**{**SMALL, "num_scales": 5, "vae_levels": 1, **few}, patch_scale=2)
    pyramids = PYRAMIDS[:1]
    state, _ = state_of(config, 1)
    stack = state.stack.requires_grad_(False)
    real = torch.from_numpy(pyramids[0][0])[None]
    network = NetworkSampler(stack, real)
    made = [torch.cat(list(network.parts(network.ladder_to(network.size), 0, 0)), dim=2), network.reconstruction()]
    wide = stretched_ladder(stack, (4, 10, 40))
    made += sample_in_parts(stack, wide, 0, 0, limit=1400)
    finished = FinishedSampler(stack, pyramids)
    made += [*finished.parts(finished.ladder_to(finished.size), 0, 0), finished.reconstruction()]
    made += [reconstruct(stack, real)]
    clip = torch.from_numpy(np.stack([pyramid[-1] for pyramid in pyramids]))
    vgpnn = Vgpnn(clip, fake_gpu.GPU)
    made += [vgpnn.sample(vgpnn.sizes[:1], stream_of(0, 0, 1)).cpu()]
    step, random = Step(0, (3, 30, 42), 1), stream_of(0, 0, 1)
    with patch("model.patches.field.PART", 800):
        for first_pairs in (EXACT_PAIRS, 0):  # of all pairs, and a search that spreads
            refined = refine(clip, vgpnn.patches, [step], Matching(), random, first_pairs=first_pairs)
            made += [refined.cpu()]
    assert {video.device.type for video in made} == {"cpu"}
    mode.truth = True  # every number is finite
    diversity_map(torch.zeros((2, 3, 4, 12, 12), device=fake_gpu.GPU))
    return {}


def a_wait(mode):
    """That the count sees one, of each kind."""
    x = torch.ones(3, device=fake_gpu.GPU)
    x.sum().item(), x.cpu(), x[x > 0]
    return mode.waits


def two_devices(mode):
    """That an operation on both is an error."""
    return torch.ones(3, device=fake_gpu.GPU) + torch.ones(3)


def wrong_generator(mode):
    """Likewise a generator of the other device."""
    return torch.randn(3, generator=torch.Generator(fake_gpu.GPU))


SINGANS_CRITIC = {"critic_last_spectral": False, "critic_spectral": False, "critic_norm": True}

CASES = {
    "float32": iterations((0, 2), precision="float32"),
    "bf16": iterations(precision="bf16"),
    "several examples": iterations((2,), precision="bf16", examples=3, micro_batch=2, low_memory=True, gan_crop=0.6),
    "no_freezing": iterations((2,), precision="bf16", freeze=False, rec_zero_twice=True),
    "patchvae": iterations((0,), precision="bf16", latent="patchvae"),
    "consingan": iterations((2,), precision="bf16", method="consingan"),
    "singan's critic": iterations((2,), precision="bf16", method="singan", enlarging="cubic", **SINGANS_CRITIC),
    "logging": logging,
    "sampling": sampling,
    "a wait": a_wait,
    "two devices": two_devices,
    "wrong generator": wrong_generator,
}

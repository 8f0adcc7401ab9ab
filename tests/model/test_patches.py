"""Patches of a clip: the search against brute force, what it makes of a video, VGPNN, and what videos come from."""

from __future__ import annotations

import itertools
import math
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model import checkpoint as ckpt
from model.config import ConfigError, TrainConfig
from model.device import concurrently
from model.export import loops
from model.export.finished import Finished
from model.export.inputs import draw, inputs_of, search_inputs_of
from model.interpolation import interpolated
from model.loading import LoadedModel
from model.metrics.nnf import coherence, nearest_neighbour_field
from model.networks.generators import GeneratorStack
from model.patches import field
from model.patches.field import Grid, carry, index, places, scattered, share_in_place
from model.patches.match import Queries, exact_field, spread_field
from model.patches.refine import ClipPatches, Matching, Step, assemble, needed_bytes, refine
from model.patches.space import principal_components
from model.patches.vgpnn import Vgpnn, vgpnn_ladder
from model.presets import PRESETS, demo
from model.pyramid import ScaleSize, ladder, training_pyramids
from model.sampling.sample import Tick, count_convolutions, sample_in_parts
from model.sampling.sampler import (
    FinishedSampler,
    NetworkSampler,
    VgpnnSampler,
    check_memory,
    check_video,
    random_videos,
    sampler_of,
    whole_videos,
)
from model.training.loop import train_clip

PATCH = (2, 3, 3)
CPU = torch.device("cpu")


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(size: tuple[int, int, int], seed: int = 0, chunks: int = 1) -> Tensor:
    """A clip with structure: (chunks, 3, T, H, W) in [-1, 1]."""
    coarse = torch.rand((chunks, 3, 3, 5, 6), generator=random(seed)) * 2 - 1
    return interpolated(coarse, size) * 0.9 + 0.1 * (torch.rand((chunks, 3, *size), generator=random(seed + 1)) * 2 - 1)


def all_patches(videos: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Every patch by plain loops, in order of chunk, frame, row, column: (N, values) float64."""
    _, _, frames, height, width = videos.shape
    t, h, w = patch
    return torch.stack(
        [
            videos[c, :, f : f + t, y : y + h, x : x + w].reshape(-1)
            for c in range(len(videos))
            for f in range(frames - t + 1)
            for y in range(height - h + 1)
            for x in range(width - w + 1)
        ]
    ).double()


def identity(grid: Grid) -> Tensor:
    """The field of a video that is the clip."""
    t, h, w = grid.shape
    return torch.arange(t * h * w, dtype=torch.int32).reshape(t, h, w)


# -- the search


@pytest.mark.parametrize("alpha", [1e-3, 0.05, 1e6])
def test_the_exact_search_is_that_of_brute_force(alpha: float) -> None:
    """A patch of 1×3×3 has 27 values: its 27 components lose nothing."""
    patch = (1, 3, 3)
    clip, video = smooth((3, 8, 9), chunks=2), smooth((3, 7, 8), seed=5)
    space = principal_components(clip, patch)
    grid = Grid(2, (3, 8, 9), patch)
    keys = space.project(clip).reshape(-1, 27)
    found = exact_field(Queries(video, space), keys, grid, alpha).flatten().long()
    queries, patches = all_patches(video, patch), all_patches(clip, patch)
    assert len(patches) == len(keys) == len(grid)
    distances = (queries[:, None] - patches).square().sum(-1)
    scores = distances / (alpha + distances.amin(0))
    chosen = scores[torch.arange(len(queries)), found]
    assert torch.allclose(chosen, scores.amin(1), rtol=1e-3, atol=1e-5)
    if alpha == 1e6:  # the nearest patches alone
        nearest = distances[torch.arange(len(queries)), found]
        assert torch.allclose(nearest, distances.amin(1), rtol=1e-3, atol=1e-5)


def test_completeness_uses_more_of_the_clip() -> None:
    clip, video = smooth((4, 16, 20)), smooth((4, 16, 20), seed=9) * 0.3
    space, grid = principal_components(clip, PATCH), Grid(1, (4, 16, 20), PATCH)
    keys = space.project(clip).reshape(-1, 32)
    used = [len(exact_field(Queries(video, space), keys, grid, alpha).unique()) for alpha in (1e-3, 1e6)]
    assert used[0] > 1.5 * used[1]


@pytest.mark.parametrize("sides", [(1, 2, 2), (3, 5, 5)])
def test_components_keep_distances(sides: tuple[int, int, int]) -> None:
    """All of those of a small patch; of a large one of a smooth clip, to a few per cent."""
    clip = interpolated(torch.rand((1, 3, 3, 6, 7), generator=random()) * 2 - 1, (6, 18, 21))
    space = principal_components(clip, sides)
    rows = space.filters.reshape(len(space.filters), -1)
    assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)
    projected = torch.cdist(*[space.project(clip).reshape(-1, len(rows)).double()] * 2)
    whole = torch.cdist(*[all_patches(clip, sides)] * 2)
    assert (projected <= whole * (1 + 1e-3) + 1e-3).all()
    far = whole > whole.median()
    assert (projected[far] / whole[far]).min() > (0.999 if len(rows) == 12 else 0.9)


def test_a_spread_field_is_nearly_as_good_as_the_exact_one() -> None:
    """Begun from the field of the scale below, as in `refine`."""
    sizes = [(4, 16, 20), (5, 24, 30)]
    clip, video = smooth(sizes[1]), smooth(sizes[1], seed=3)
    grids = [Grid(1, size, PATCH) for size in sizes]
    fields, queries, keys = [], [], []
    for size, grid in zip(sizes, grids, strict=True):
        space = principal_components(interpolated(clip, size), PATCH)
        keys.append(space.project(interpolated(clip, size)).reshape(-1, 32))
        queries.append(Queries(interpolated(video, size), space))
        fields.append(exact_field(queries[-1], keys[-1], grid, 0.1))
    begun = carry(fields[0], *sizes, *grids)
    spread = spread_field(queries[1], keys[1], grids[1], begun, 0.1, random())
    again = spread_field(queries[1], keys[1], grids[1], begun, 0.1, random())
    assert torch.equal(spread, again)  # of one seed
    distances = torch.cdist(queries[1].space.project(queries[1].video).reshape(-1, 32), keys[1]).square()
    scores = distances / (0.1 + distances.amin(0))

    def mean(field: Tensor) -> float:
        return float(scores.gather(1, field.reshape(-1, 1).long()).mean())

    best, found, first = mean(fields[1]), mean(spread), mean(begun)
    assert best <= found < best + 0.6 * (first - best)


def test_a_carried_field_keeps_displacements_in_proportion() -> None:
    sizes, grids = [(3, 9, 11), (5, 17, 21)], []
    for size in sizes:
        grids.append(Grid(1, size, (1, 3, 3)))
    same = carry(identity(grids[0]), *sizes, *grids)
    assert torch.equal(same, identity(grids[1]))
    moved = places(identity(grids[0]), grids[0])
    moved[2] = (moved[2] - 2).clamp_min(0)
    own, carried = (places(f, grids[1]) for f in (identity(grids[1]), carry(index(moved, grids[0]), *sizes, *grids)))
    assert ((carried - own)[2][:, 6:] == -4).all() and (carried[[1, 3]] == own[[1, 3]]).all()


# -- a video that is worked on in parts


def in_parts(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """No more patches or pixels at once than this, with what is around them."""
    monkeypatch.setattr(field, "PART", most)


@pytest.fixture
def large() -> tuple[Queries, Tensor, Grid]:
    """A video that is larger than the clip, the clip's patches, and where they are."""
    clip, video = smooth((6, 20, 24)), smooth((9, 30, 36), seed=3)
    space = principal_components(clip, PATCH)
    return Queries(video, space), space.project(clip).reshape(-1, 32), Grid(1, (6, 20, 24), PATCH)


@pytest.mark.parametrize("alpha", [1e-3, 1e6])
def test_the_exact_search_in_parts_is_that_of_the_whole(
    large: tuple[Queries, Tensor, Grid], alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Completeness is of all parts: with a small alpha every key's minimum counts."""
    queries, keys, grid = large
    whole = exact_field(queries, keys, grid, alpha)
    in_parts(monkeypatch, 700)
    assert len(field.in_parts(queries.shape)) > 9
    assert torch.equal(exact_field(queries, keys, grid, alpha), whole)


def test_across_a_border_of_parts_neighbours_offer_what_they_offer_in_the_whole(
    large: tuple[Queries, Tensor, Grid], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of nearest patches alone, and without what is drawn at random, parts find the same field.

    At the video's own edges a patch is offered what the opposite edge has, of the video or of the part.
    """
    queries, keys, grid = large
    begun = scattered(queries.shape, grid, random(1))
    monkeypatch.setattr("model.patches.match.ROUNDS", ((4, 0), (2, 0), (1, 0)))
    whole = spread_field(queries, keys, grid, begun, 1e12, random())
    in_parts(monkeypatch, 1500)
    boxes = field.in_parts(queries.shape, (2, 4, 4))
    assert len({box[1].start for box in boxes if 7 < box[1].start < 22}) > 1 and all(
        box[0] == slice(0, 8) for box in boxes
    )
    found = spread_field(queries, keys, grid, begun, 1e12, random())
    assert torch.equal(found[:, 7:-7, 7:-7], whole[:, 7:-7, 7:-7])


def test_a_spread_field_in_parts_is_as_good_as_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches are as near, as many of the clip's are used, and neither a part nor a border is worse."""
    clip, video = smooth((6, 40, 48)), smooth((8, 80, 96), seed=3)
    space, grid = principal_components(clip, PATCH), Grid(1, (6, 40, 48), PATCH)
    queries, keys, vectors = Queries(video, space), space.project(clip).reshape(-1, 32), space.project(video)[0]
    begun = scattered(queries.shape, grid, random(1))

    def found() -> tuple[Tensor, float]:
        """Of four seeds: the mean distance of each patch, and how many of the clip's are used."""
        fields = [spread_field(queries, keys, grid, begun, 0.5, random(seed)).long() for seed in range(4)]
        far = torch.stack([(keys[each] - vectors).square().sum(dim=-1) for each in fields])
        return far.mean(dim=0), float(np.mean([len(each.unique()) for each in fields]))

    whole, used = found()
    in_parts(monkeypatch, 12_000)
    (parts, used_in_parts), boxes = found(), field.in_parts(queries.shape, (2, 4, 4))
    assert parts.mean() == pytest.approx(float(whole.mean()), rel=0.01)
    assert used_in_parts == pytest.approx(used, rel=0.02)
    rows = sorted({box[1].start for box in boxes} - {0})
    borders = [row + beside for row in rows for beside in (-1, 0)]
    assert len(boxes) > 4 and parts[:, borders].mean() == pytest.approx(float(whole[:, borders].mean()), rel=0.03)
    for box in boxes:
        assert parts[box].mean() == pytest.approx(float(whole[box].mean()), rel=0.06)


@pytest.mark.parametrize("bandwidth", [None, 0.2])
def test_what_is_made_of_patches_in_parts_is_the_whole_to_the_bit(
    bandwidth: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, grids, sizes = smooth((6, 20, 24)), [Grid(1, (6, 20, 24), PATCH)] * 2, [(5, 14, 16), (9, 30, 36)]
    begun = scattered((4, 12, 14), grids[0], random())

    def made() -> tuple[Tensor, Tensor]:
        found = carry(begun, *sizes, *grids)
        return found, assemble(clip, found, sizes[1], PATCH, bandwidth)

    whole = made()
    in_parts(monkeypatch, 700)
    assert all(torch.equal(part, of_whole) for part, of_whole in zip(made(), whole, strict=True))


# -- what is made of patches


def test_overlapping_patches_are_averaged() -> None:
    clip = smooth((4, 7, 8), chunks=2)
    grid = Grid(2, (4, 7, 8), PATCH)
    assert torch.allclose(assemble(clip, identity(grid), (4, 7, 8), PATCH)[0], clip[0], atol=1e-6)
    found, size = scattered((2, 3, 4), grid, random()), (3, 5, 6)
    total, count = torch.zeros((3, *size)), torch.zeros(size)
    for t, y, x in itertools.product(*map(range, (2, 3, 4))):
        c, f, row, column = places(found, grid)[:, t, y, x].tolist()
        total[:, t : t + 2, y : y + 3, x : x + 3] += clip[c, :, f : f + 2, row : row + 3, column : column + 3]
        count[t : t + 2, y : y + 3, x : x + 3] += 1
    assert torch.allclose(assemble(clip, found, size, PATCH)[0], total / count, atol=1e-5)


@pytest.mark.parametrize("bandwidth", [0.01, 0.2, 50.0])
def test_votes_are_weighted_by_how_near_they_are_to_the_mean(bandwidth: float) -> None:
    clip, size, grid = smooth((4, 7, 8), chunks=2), (3, 5, 6), Grid(2, (4, 7, 8), PATCH)
    found = scattered((2, 3, 4), grid, random())
    made = assemble(clip, found, size, PATCH, bandwidth)[0]
    mean = assemble(clip, found, size, PATCH)[0]
    for t, y, x in itertools.product(*map(range, size)):
        votes = []
        for dt, dy, dx in itertools.product(*map(range, PATCH)):
            at = t - dt, y - dy, x - dx
            if all(0 <= place < side for place, side in zip(at, (2, 3, 4))):
                c, f, row, column = places(found[at], grid).tolist()
                votes.append(clip[c, :, f + dt, row + dy, column + dx])
        colours = torch.stack(votes).double().numpy()
        exponents = -((colours - mean[:, t, y, x].numpy()) ** 2).mean(axis=1) / (2 * bandwidth**2)
        expected = np.average(colours, axis=0, weights=np.exp(np.maximum(exponents, -80)))
        assert np.allclose(made[:, t, y, x], expected, atol=1e-4)


def test_a_few_votes_for_another_colour_do_not_blur() -> None:
    """Nine patches of a row hold a pixel: seven show it black, two white. The mean is grey."""
    clip = torch.cat([-torch.ones(1, 3, 1, 1, 9), torch.ones(1, 3, 1, 1, 9)])
    found = torch.zeros((1, 1, 9), dtype=torch.int32)
    found[..., [3, 5]] = 1  # a chunk has one patch
    colour = {width: assemble(clip, found, (1, 1, 17), (1, 1, 9), width)[0, 0, 0, 0, 8] for width in (None, 0.2)}
    assert colour[None] == pytest.approx(-5 / 9, abs=1e-6) and colour[0.2] < -0.999


def clip_patches(sizes: list[tuple[int, int, int]], clip: Tensor) -> ClipPatches:
    return ClipPatches(sizes, lambda n: interpolated(clip, sizes[n]))


def test_the_clips_own_coarse_scale_becomes_the_clip() -> None:
    sizes, clip = [(4, 12, 15), (5, 17, 21), (7, 24, 30)], smooth((7, 24, 30))
    patches = clip_patches(sizes, clip)
    steps = [Step(n, sizes[n], 1) for n in (1, 2)]
    made = refine(patches.values(0), patches, steps, Matching((3, 7, 7)), random())
    assert torch.allclose(made, patches.values(2), atol=1e-4)


def test_a_video_is_made_of_the_clip_and_keeps_its_layout() -> None:
    """A mirrored clip: nothing of it is in place, all of its layout stays."""
    sizes = [(4, 12, 15), (7, 24, 30)]
    clip = smooth(sizes[1])
    mirrored = interpolated(clip, sizes[0]).flip(-1)
    patches, before = clip_patches(sizes, clip), interpolated(mirrored, sizes[1])
    made = refine(mirrored, patches, [Step(0, sizes[0], 2), Step(1, sizes[1], 2)], Matching((3, 5, 5)), random())
    near = [nearest_neighbour_field(video[0], clip[0], step=3).nn_distance for video in (made, before)]
    assert near[0] < 0.75 * near[1]
    flipped = clip.flip(-1)
    assert (made - flipped).square().mean() < (made - clip).square().mean()


def test_a_video_of_another_size_and_one_that_holds_no_patch() -> None:
    sizes, clip = [(4, 12, 15), (7, 24, 30)], smooth((7, 24, 30))
    patches = clip_patches(sizes, clip)
    wide = refine(interpolated(clip, (4, 12, 30)), patches, [Step(1, (13, 24, 60), 1)], Matching(), random())
    assert wide.shape == (1, 3, 13, 24, 60) and wide.isfinite().all() and wide.abs().max() <= clip.abs().max() + 1e-5
    with pytest.raises(ValueError, match="2×24×30 is smaller than a patch of 3×7×7"):
        refine(clip, patches, [Step(1, (2, 24, 30), 1)], Matching(), random())


# -- VGPNN


def test_the_ladder_of_vgpnn_shrinks_by_15_per_cent_to_3_frames_and_15_px() -> None:
    sizes = vgpnn_ladder((13, 54, 96))
    assert sizes[-1] == (13, 54, 96) and sizes[-2] == (11, 46, 82) and sizes[0] == (3, 15, 27)
    assert len(set(sizes)) == len(sizes) and sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("patch", "size", "own", "chunks", "alpha"),
    [
        ((3, 7, 7), (5, 20, 31), (4, 18, 40), 3, 0.1),
        ((1, 7, 7), (1, 30, 35), (1, 50, 40), 1, 5.0),
        ((2, 3, 3), (4, 9, 10), (4, 9, 10), 2, 0.1),
    ],
)
def test_the_loops_of_a_program_do_the_same_to_the_bit(
    patch: tuple[int, int, int],
    size: tuple[int, int, int],
    own: tuple[int, int, int],
    chunks: int,
    alpha: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip, video = smooth(size, chunks=chunks), smooth(own, seed=7)
    patches = ClipPatches([size], lambda n: clip)
    keys, grid = patches.keys(0, patch, sharp=True), patches.grid(0, patch)
    queries = Queries(video, keys.space)
    for module in ("model.patches.match", "model.export.loops"):
        monkeypatch.setattr(f"{module}.HOST_PAIRS", 50 * len(grid))  # 50 queries at once, and at last some
    monkeypatch.setattr("model.export.inputs.EXACT_PAIRS", 0)
    begin, around = search_inputs_of(patches, Matching(patch), [Step(0, own, 1)], "patches")

    exact = exact_field(queries, keys.vectors, grid, alpha)
    assert torch.equal(loops.exact_field(queries, keys.vectors, grid, alpha), exact)
    drawn = random(3)
    begun = begin.drawn(drawn)
    looped = loops.spread_field(queries, keys.vectors, grid, begun, alpha, around.drawn(drawn))
    drawn = random(3)
    assert torch.equal(begun, scattered(queries.shape, grid, drawn))
    spread = spread_field(queries, keys.vectors, grid, begun, alpha, drawn)
    assert torch.equal(looped, spread) and not torch.equal(spread, begun) and not torch.equal(spread, exact)
    for found, bandwidth in itertools.product((exact, spread), (None, 0.2, 0.01)):
        assert torch.equal(
            loops.assemble(clip, found, own, patch, bandwidth), assemble(clip, found, own, patch, bandwidth)
        )


def test_vgpnn_without_noise_is_the_clip_and_with_it_another_video_of_its_patches() -> None:
    clip = smooth((5, 30, 40))
    vgpnn = Vgpnn(clip, CPU)
    assert torch.allclose(vgpnn.sample(vgpnn.sizes, random(), noisy=False), clip, atol=1e-3)
    first, again, second = (vgpnn.sample(vgpnn.sizes, random(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert max((video - clip).abs().mean() for video in (first, second)) > 0.02
    assert nearest_neighbour_field(first[0], clip[0], step=3).nn_distance < 0.15
    wide = vgpnn.ladder_to((5, 30, 60))
    assert vgpnn.sample(wide, random()).shape == (1, 3, 5, 30, 60)


# -- what videos come from

TINY = ["channels=4", "latent_dim=4", "num_scales=4", "vae_levels=1", "min_size=12", "max_size=24"]
FRAMES = np.random.default_rng(0).integers(0, 256, (13, 48, 64, 3), dtype=np.uint8)


def tiny(*more: str) -> TrainConfig:
    return demo().with_overrides([*TINY, "iters_per_scale=2", *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ckpt.Checkpoint:
    config, path = tiny("patch_scale=2"), tmp_path_factory.mktemp("clip") / "checkpoint.pt"
    pyramids = training_pyramids([FRAMES], config)
    scales = [done.n for done in train_clip(config, pyramids, clip_id="a", path=path, log=lambda point: None)]
    assert scales == [0, 1]
    assert not list(train_clip(config, pyramids, clip_id="a", path=path, log=lambda point: None))[:-1]  # goes on: done
    return ckpt.load(path)


def test_only_the_coarse_scales_are_trained(trained: ckpt.Checkpoint) -> None:
    stack = trained.stack()
    assert trained.done and stack is not None and stack.num_scales == 2 and len(stack.sizes) == 4


def test_the_clips_patches_make_the_other_scales_the_same_whatever_is_asked_for(trained: ckpt.Checkpoint) -> None:
    stack = trained.stack()
    assert stack is not None
    sampler = FinishedSampler(stack, training_pyramids([FRAMES], stack.config))
    assert sampler.size == stack.sizes[-1]
    three = random_videos(sampler, 3, 7)
    assert three.shape == (3, 3, *stack.sizes[-1]) and three.abs().max() <= 1
    assert torch.equal(three[1:2], random_videos(sampler, 1, 7, first=1))
    assert not torch.equal(three[0], three[1])
    sizes = sampler.ladder_to((25, 24, 64))
    ticks: list[int] = []
    (wide,) = sampler.parts(sizes, 7, 0, ticks.append)
    assert wide.shape == (1, 3, 25, 24, 64) and sum(ticks) == sampler.steps(sizes)
    with pytest.raises(ValueError, match="14 frames cannot be divided among the scales"):
        sampler.ladder_to((14, 24, 64))
    assert sampler.reconstruction().shape == (1, 3, *stack.sizes[-1])


@pytest.mark.parametrize("copies", [0, 2, 9, 100])
def test_a_layout_that_is_the_clip_is_drawn_again(
    trained: ckpt.Checkpoint, monkeypatch: pytest.MonkeyPatch, copies: int
) -> None:
    """After eight of them layouts are parts of ones that are half as large again; after sixteen there is no more."""
    stack = trained.stack()
    assert stack is not None
    stack.config = replace(trained.config, patch_margin=0.5)
    clip = training_pyramids([FRAMES], stack.config)
    sampler = FinishedSampler(stack, clip)
    plain, drawn = sample_in_parts, []

    def parts(stack: GeneratorStack, sizes: list[ScaleSize], *where: int, tick: Tick) -> Iterator[torch.Tensor]:
        drawn.append(sizes[-1])
        if len(drawn) > copies:
            return plain(stack, sizes, *where, tick=tick)
        tick(count_convolutions(stack, sizes))
        return iter([F.interpolate(torch.from_numpy(clip[0][1])[None], size=sizes[-1])])

    monkeypatch.setattr("model.sampling.sampler.sample_in_parts", parts)
    ticks: list[int] = []
    (video,) = sampler.parts(stack.sizes, 0, 0, ticks.append)
    t, h, w = stack.sizes[1]
    larger = ScaleSize(t, math.ceil(1.5 * h), math.ceil(1.5 * w))
    # an enlarged copy whose part is cut out is none
    assert drawn == [stack.sizes[1]] * min(copies + 1, 8) + ([larger] if copies >= 8 else [])
    assert sampler.redrawn == min(copies, 8)
    assert sum(ticks) == sampler.steps(stack.sizes)
    assert (video - torch.from_numpy(clip[0][3])[None]).abs().mean() > 0.1


def test_videos_that_are_made_at_once_are_those_that_are_made_one_after_the_other(trained: ckpt.Checkpoint) -> None:
    """The first on all threads, the others on one each, but for their networks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        made = []
        for at_once in (3, 1):
            sampler = sampler_of(trained.config, trained.stack(), training_pyramids([FRAMES], trained.config), CPU)
            sizes = sampler.ladder_to(sampler.size)
            assert sampler.at_once(sizes) == 3
            if at_once == 1:
                made.append([torch.cat(list(sampler.parts(sizes, 4, index)), dim=2) for index in range(5)])
            else:
                made.append(list(whole_videos(sampler, sizes, 4, range(5))))
        assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_what_is_made_concurrently_comes_in_order_and_an_error_ends_it() -> None:
    def half(n: int) -> int:
        begun.append((n, torch.get_num_threads()))
        if n == 6:
            raise ValueError(str(n))
        return n // 2

    begun: list[tuple[int, int]] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert list(concurrently(half, range(5), 2)) == [0, 0, 1, 1, 2]
        assert sorted(begun) == [(0, 4), *((n, 1) for n in range(1, 5))]  # the first alone, each other on one thread
        made = concurrently(half, range(1000), 2)
        assert [next(made) for _ in range(6)] == [0, 0, 1, 1, 2, 2]
        with pytest.raises(ValueError, match="6"):
            next(made)
        assert max(n for n, _ in begun) < 10  # of those that follow, none was begun that nobody asked for
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(threads)


def test_what_nobody_waits_for_any_more_soon_ends() -> None:
    """As after Ctrl-C; and threads to come begin with as many as there were."""
    size, clip, passes = (3, 12, 14), smooth((3, 12, 14)), 2000
    patches, done = clip_patches([size], clip), Counter[int]()
    later: list[int] = []
    threads = torch.get_num_threads()

    def made_of_patches(n: int) -> int:
        if n > 1:
            refine(clip, patches, [Step(0, size, passes)], Matching(), random(), tick=lambda more: done.update([n]))
        return n

    torch.set_num_threads(4)
    try:
        made = concurrently(made_of_patches, range(4), 2)
        assert [next(made), next(made)] == [0, 1]
        made.close()  # type: ignore[attr-defined]
        assert max(done.values(), default=0) < passes
        other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert later == [4]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("size", [None, (13, 24, 64)])
def test_what_a_program_computes_is_the_sample_and_whether_it_is_the_clip(
    trained: ckpt.Checkpoint, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int, int] | None
) -> None:
    stack = trained.stack()
    assert stack is not None
    few = {"patch_size": PATCH, "patch_passes": 2, "patch_coarse_passes": 1}
    stack.config = replace(stack.config, precision="float32", **few)
    sampler = FinishedSampler(stack, training_pyramids([FRAMES, FRAMES[:, ::-1]], stack.config))
    sizes = sampler.ladder_to(size or sampler.size)
    program = Finished(sampler, sizes)
    networks = inputs_of(program.networks.stack)
    inputs, count = [*networks, *program.search_inputs], len(networks)

    def made(attempt: int) -> tuple[Tensor, Tensor, Tensor]:
        z, *more = draw(inputs, 7, 1, attempt)
        with torch.no_grad():
            video, is_the_clip, layout = program(z, more[: count - 1], more[count - 1 :])
        return video, is_the_clip, layout

    (want,) = sampler.parts(sizes, 7, 1)
    video, is_the_clip, layout = made(0)
    assert torch.equal(video, want) and not is_the_clip and sampler.redrawn == 0
    assert layout.shape == (1, 3, *sizes[sampler.first - 1])
    monkeypatch.setattr("model.sampling.sampler.IN_PLACE", -1.0)
    sampler.layouts = 2
    (want,) = sampler.parts(sizes, 7, 1)
    again, is_the_clip, _ = made(int(size is None))
    assert torch.equal(again, want)
    if size is None:
        assert is_the_clip and made(0)[1] and sampler.redrawn == 1 and not torch.equal(again, video)
    else:  # of another size it is none
        assert not is_the_clip and sampler.redrawn == 0


def test_the_share_in_place_is_of_one_chunk_and_of_steps_of_a_pixel() -> None:
    grid = Grid(1, (5, 9, 12), (2, 3, 3))
    chunk, t, y, x = places(identity(grid), grid)
    assert share_in_place(torch.stack([chunk, t.flip(0), y, x]), 2, 1) == 1.0  # at any time
    assert share_in_place(torch.stack([chunk, t, y - 1, x + 1]), 2, 1) == 1.0
    assert share_in_place(torch.stack([chunk, t, y, x + 2]), 2, 1) == 0.0
    assert share_in_place(torch.stack([chunk, t, y, x + 2]), 2, 2) == 1.0
    assert share_in_place(torch.stack([(x > 3).long(), t, y, x]), 2, 1) == 0.6  # 6 of 10 columns come from chunk 1
    assert share_in_place(torch.stack([chunk, t, y, torch.where(y > 4, 0, x)]), 2, 1) == pytest.approx(
        5 / 7 + 2 / 7 * 0.2
    )


@pytest.mark.parametrize(("moved", "redrawn"), [(0.5, 15), (4, 0), (0, 15)])
def test_the_clip_moved_by_half_a_pixel_is_no_new_layout(
    trained: ckpt.Checkpoint, monkeypatch: pytest.MonkeyPatch, moved: float, redrawn: int
) -> None:
    stack = trained.stack()
    assert stack is not None
    stack.config = replace(trained.config, patch_margin=0.0)
    frames = ((smooth((13, 48, 64))[0] + 1) * 127.5).movedim(0, -1).to(torch.uint8).numpy()
    clip = training_pyramids([frames], stack.config)
    sampler = FinishedSampler(stack, clip)
    own = torch.from_numpy(clip[0][1])[None]
    columns = (torch.arange(own.shape[4]) + moved).clamp(max=own.shape[4] - 1)
    left, part = columns.floor().long(), columns % 1
    layout = own[..., left] * (1 - part) + own[..., (left + 1).clamp(max=own.shape[4] - 1)] * part
    if moved:  # to the eye of a mean difference it is none
        assert (layout - own).abs().mean() > 0.1 * own.std()

    def same(stack: GeneratorStack, sizes: list[ScaleSize], *where: int, tick: Tick) -> Iterator[torch.Tensor]:
        tick(count_convolutions(stack, sizes))
        return iter([layout])

    monkeypatch.setattr("model.sampling.sampler.sample_in_parts", same)
    ticks: list[int] = []
    (video,) = sampler.parts(stack.sizes, 0, 0, ticks.append)
    assert video.shape == (1, 3, *stack.sizes[-1])  # also where no other layout came
    assert sampler.redrawn == redrawn  # of sixteen the last is kept
    assert sum(ticks) == sampler.steps(stack.sizes)


def test_before_its_last_trained_scale_a_model_has_samples_of_its_networks(trained: ckpt.Checkpoint) -> None:
    stack = GeneratorStack(trained.config, [*ladder(trained.config, 48, 64)])
    sampler = sampler_of(trained.config, stack, training_pyramids([FRAMES], trained.config), CPU)
    assert isinstance(sampler, NetworkSampler) and sampler.size == stack.sizes[0]


def test_a_loaded_model_needs_its_clip_and_no_other(trained: ckpt.Checkpoint) -> None:
    stack = trained.stack()
    loaded = LoadedModel(trained.config, stack, "a", [*ladder(trained.config, 48, 64)])
    assert loaded.needs_clip
    assert isinstance(loaded.sampler([FRAMES], CPU), FinishedSampler)
    with pytest.raises(ValueError, match="a: its videos are made of the clip's patches, and its frames are not there"):
        loaded.sampler([], CPU)
    with pytest.raises(ValueError, match="of another clip; give its own"):
        loaded.sampler([FRAMES[:, :40]], CPU)
    assert isinstance(loaded.rival("vgpnn").sampler([FRAMES], CPU), VgpnnSampler)
    loaded = replace(loaded, examples=1)
    assert isinstance(loaded.sampler([FRAMES], CPU), FinishedSampler)
    with pytest.raises(ValueError, match="trained on 1 chunks and copies of them, there are 2"):
        loaded.sampler([FRAMES, FRAMES], CPU)
    pure = LoadedModel(replace(trained.config, patch_scale=None), stack, "a", loaded.sizes)
    assert not pure.needs_clip and isinstance(pure.sampler([], CPU), NetworkSampler)


def test_all_chunks_lend_their_patches(trained: ckpt.Checkpoint) -> None:
    """Of a black chunk and a white one, videos have both."""
    config = replace(trained.config, patch_coarse_passes=0)
    stack = trained.stack()
    assert stack is not None
    stack.config = config
    chunks = [np.full_like(FRAMES, value) for value in (0, 255)]
    video = random_videos(FinishedSampler(stack, training_pyramids(chunks, config)), 1, 0)
    assert video.min() < -0.9 and video.max() > 0.9


def test_vgpnn_trains_nothing_and_keeps_a_checkpoint(tmp_path: Path) -> None:
    config, path = tiny("method=vgpnn"), tmp_path / "checkpoint.pt"  # type: ignore[operator]
    pyramids = training_pyramids([FRAMES], config)
    assert not list(train_clip(config, pyramids, clip_id="a", path=path, log=lambda point: None))
    saved = ckpt.load(path)
    assert saved.done and saved.stack() is None and config.iterations == ()
    sampler = sampler_of(config, None, pyramids, CPU)
    assert random_videos(sampler, 2, 0).shape == (2, 3, 13, 24, 32)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_has_its_vgpnn(preset: str) -> None:
    config = replace(PRESETS[preset](), method="vgpnn")
    assert config.trained_scales == 0 and config.iterations == () and len(ladder(config, 144, 256)) == config.num_scales


def test_a_clip_whose_patches_do_not_fit_is_told_before_training() -> None:
    config = tiny("patch_scale=2")
    check_memory(config, ladder(config, 48, 64), 1, CPU)
    with pytest.raises(ValueError, match=r"GiB of memory, .* are there; take a larger stride, or a shorter video"):
        check_memory(config, ladder(config, 48, 64), 10**8, CPU)
    large = replace(config, max_size=30_000)
    with pytest.raises(ValueError, match=r"GiB of memory, .* are there; max_size=(\d+) fits") as caught:
        check_memory(large, ladder(large, 48, 64), 1, CPU)
    fits = int(str(caught.value).split("max_size=")[1].split()[0])
    fitting = replace(large, max_size=fits)
    check_memory(fitting, ladder(fitting, 48, 64), 1, CPU)


@pytest.mark.parametrize("gib", [0.1, 0.5, 2, 8])  # none of it, the clip and a part of a part, and more
def test_the_share_of_a_video_that_is_told_fits(gib: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.sampling.sampler.host_bytes", lambda: gib * 2**30)
    size, clip_pixels = ScaleSize(13, 4320, 7680), 200_000

    def needed(pixels: float) -> float:
        return needed_bytes(pixels, clip_pixels)

    with pytest.raises(ValueError, match=rf"of memory, {gib:.0f} are there; make it smaller, ([\d.]+)% of its") as told:
        check_video(size, needed, CPU)
    share, pixels = float(str(told.value).split("smaller, ")[1].split("%")[0]) / 100, math.prod(size)
    assert needed((share + 0.001) * pixels) > gib * 2**30
    assert share == 0 or needed(share * pixels) <= gib * 2**30


def test_a_first_field_that_is_too_large_to_be_exact_begins_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, clip = [(4, 12, 15), (5, 18, 22)], smooth((5, 18, 22))
    patches = clip_patches(sizes, clip)
    exact = refine(patches.values(0), patches, [Step(1, sizes[1], 2)], Matching(), random())
    monkeypatch.setattr("model.patches.refine.EXACT_PAIRS", 0)
    spread = refine(patches.values(0), patches, [Step(1, sizes[1], 2)], Matching(), random())
    other = clip.flip(-1)
    assert (spread - exact).abs().mean() < 0.5 * (other - exact).abs().mean()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("patch_scale=0", "patch_scale=0: from 1 to 3, the finest scale, or None"),
        ("patch_scale=4", "patch_scale=4: from 1 to 3"),
        ("patch_size=3,7", "three numbers"),
        ("patch_size=0,7,7", "three numbers from 1"),
        ("patch_alpha=0", "patch_alpha=0.0: a finite number above 0"),
        ("patch_passes=0", "patch_passes=0: 1 or more"),
        ("patch_coarse_passes=-1", "0 or more"),
        ("method=singen", "write hpvaegan or singan or consingan or vgpnn"),
    ],
)
def test_settings_out_of_range_are_told(setting: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        tiny(setting)


def test_a_clip_smaller_than_a_patch_is_told() -> None:
    with pytest.raises(ValueError, match="a scale of 13×24×32 is smaller than a patch of 3×25×7"):
        ladder(tiny("patch_scale=3", "patch_size=3,25,7", "patch_coarse_passes=0"), 48, 64)


# -- coherence


def test_coherence_of_copies_halves_and_noise() -> None:
    clip = torch.rand((3, 5, 14, 20), generator=random()) * 2 - 1
    assert coherence(nearest_neighbour_field(clip, clip)) == 1
    assert coherence(nearest_neighbour_field(clip[:, :, 2:, 3:], clip)) == 1
    swapped = torch.cat([clip[..., 10:], clip[..., :10]], dim=-1)
    field = nearest_neighbour_field(swapped, clip)
    pairs = 3 * 12 * 17 + 3 * 11 * 18 + 2 * 12 * 18
    # the two columns of patches across the seam may come from anywhere: at least the pairs without them
    inside = 3 * 12 * (7 + 7) + 3 * 11 * 16 + 2 * 12 * 16
    assert inside / pairs <= coherence(field) < 1
    assert coherence(nearest_neighbour_field(torch.rand(clip.shape, generator=random(1)) * 2 - 1, clip)) < 0.1
    with pytest.raises(ValueError, match="step 1"):
        coherence(nearest_neighbour_field(clip, clip, step=3))

"""What a model makes of a given video, against answers that are known without it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from model.device import concurrently
from model.networks.generators import GeneratorStack
from model.networks.stacks import new_stack
from model.presets import demo, image_demo, of_method
from model.pyramid import ScaleSize, ladder, to_frames, training_pyramids
from model.sampling import masks
from model.sampling.applications import Applications
from model.sampling.masks import quantised
from model.sampling.sample import stream_of
from model.sampling.sampler import random_videos, sampler_of
from model.sampling.scales import CannotApply
from model.sampling.variations import check_kept, diverse, kept, slerp, steps_to_keep
from model.training.loop import train_clip

from . import enlarge_figures
from .conftest import synthetic_clip

CPU = torch.device("cpu")
SIZE = {
    "channels": 4,
    "latent_dim": 4,
    "num_scales": 4,
    "min_size": 12,
    "max_size": 24,
    "precision": "float32",
    "iters_per_scale": 1,
}
SMALLER = {"max_size": 18}  # of a clip of 18×24 px, where many results are made: patches search all pairs


def clip_of(frames: int = 13, height: int = 24, width: int = 32) -> np.ndarray:
    return to_frames(synthetic_clip(height, width, frames))


def model_of(
    clip: np.ndarray, method: str = "hpvaegan", **changes: object
) -> tuple[Applications, GeneratorStack | None]:
    """Untrained networks of all trained scales, with noise at the GAN scales."""
    preset = image_demo() if len(clip) == 1 else demo()
    settings = {**SIZE, **({} if method == "hpvaegan" else {"latent_dim": 3}), **changes}
    config = replace(of_method(preset, method), **settings)  # type: ignore[arg-type]
    sizes = ladder(config, *clip.shape[1:3])
    stack = None
    if method != "vgpnn":
        torch.manual_seed(0)
        stack = new_stack(config, sizes)
        while stack.num_scales < config.trained_scales:
            stack.grow()
        stack.noise_amps = [0.0 if n < config.vae_levels else 0.1 for n in range(stack.num_scales)]
        stack.requires_grad_(False)
    return Applications(config, stack, [clip], sizes, CPU), stack


def stripes(height: int, width: int, period: int, frames: int = 1) -> np.ndarray:
    wave = 127.5 + 100 * np.sin(2 * np.pi * np.arange(width) / period)
    return np.broadcast_to(wave[None, None, :, None], (frames, height, width, 3)).round().astype(np.uint8).copy()


def period_of(row: np.ndarray) -> float:
    """Px of the strongest wave of a row."""
    spectrum = np.abs(np.fft.rfft(row - row.mean()))
    return len(row) / int(spectrum.argmax())


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


# -- what enters


@pytest.mark.parametrize(
    ("method", "changes"),
    [("hpvaegan", {"patch_scale": None}), ("hpvaegan", {"patch_scale": 1}), ("vgpnn", {}), ("singan", {})],
)
def test_what_enters_higher_comes_out_nearer_to_itself(method: str, changes: dict[str, int | None]) -> None:
    clip = clip_of(13, 18, 24)
    apps, _ = model_of(clip, method, **SMALLER, **changes)
    given = clip[:, :, ::-1].copy()
    made = {n: apps.inject(given, n) for n in (1, len(apps.sizes) - 1)}
    low, high = (np.abs(made[n].astype(int) - given).mean() for n in made)
    assert all(video.shape == clip.shape and video.dtype == np.uint8 for video in made.values())
    if changes.get("patch_scale", 1):  # untrained networks know nothing
        assert high < low
    assert np.array_equal(made[1], apps.inject(given, 1))
    if method == "singan":
        assert not np.array_equal(made[1], apps.inject(given, 1, index=1))


def test_networks_run_on_what_entered_as_in_a_sample() -> None:
    """Eq. 9 from scale 2 on, by hand."""
    clip = clip_of()
    apps, stack = model_of(clip, patch_scale=None)
    assert stack is not None
    (pyramid,) = training_pyramids([clip], apps.config, apps.sizes)
    x, random = torch.from_numpy(pyramid[1])[None], stream_of(7, 1, 3)
    for n in (2, 3):
        x = stack.level(x, n, stack.noise(n, 1, random))
    assert np.array_equal(apps.inject(clip, 2, seed=7, index=1), to_frames(x[0].clamp(-1, 1).numpy()))


def test_the_clip_that_enters_a_patch_model_stays_the_clip() -> None:
    clip = clip_of()
    apps, _ = model_of(clip, patch_scale=1)
    assert np.abs(apps.inject(clip, 3).astype(int) - clip).mean() < 3


@pytest.mark.parametrize("scale", [0, 4, -1])
def test_a_scale_that_nothing_enters_at_is_one_line(scale: int) -> None:
    clip = clip_of()
    apps, _ = model_of(clip, patch_scale=1)
    with pytest.raises(CannotApply, match=rf"--scale {scale}: a video enters at a scale from 1 to 3, the finest"):
        apps.inject(clip, scale)


def test_what_a_model_cannot_do_is_one_line() -> None:
    clip = clip_of()
    with pytest.raises(CannotApply, match="features go from scale to scale"):
        model_of(clip, "consingan")
    apps, stack = model_of(clip, patch_scale=1)
    with pytest.raises(CannotApply, match="were never trained, patches make them"):
        Applications(apps.config, stack, [clip], apps.sizes, CPU, "generators")
    with pytest.raises(CannotApply, match="5 frames enter a model of 13"):
        apps.inject(clip[:5], 1)
    with pytest.raises(CannotApply, match="the clip itself is needed; give --real CLIP"):
        Applications(apps.config, stack, [], apps.sizes, CPU).fill(np.ones(apps.size, bool))
    vgpnn, _ = model_of(clip, "vgpnn")
    with pytest.raises(CannotApply, match="has no latent space"):
        vgpnn.vary(0.5)
    image, _ = model_of(clip_of(1), patch_scale=1)
    with pytest.raises(CannotApply, match="no time to go on in"):
        image.extend(12)
    with pytest.raises(CannotApply, match="an image does not move"):
        image.loop()


def test_finish_patches_takes_the_clips_patches_from_where_it_enters() -> None:
    clip = clip_of()
    apps, stack = model_of(clip, patch_scale=None)
    patched = Applications(apps.config, stack, [clip], apps.sizes, CPU, "patches")
    assert (
        np.abs(patched.inject(clip, 3).astype(int) - clip).mean()
        < 3
        < np.abs(apps.inject(clip, 3).astype(int) - clip).mean()
    )


def test_an_edit_is_not_replaced_by_what_it_hides() -> None:
    """Completeness asks for all of the clip, and so for what the edit covers."""
    rng = np.random.default_rng(2)
    clip = rng.integers(60, 100, (1, 24, 48, 3)).astype(np.uint8)
    clip[:, :, 30:] = rng.integers(180, 220, (1, 24, 18, 3))
    apps, _ = model_of(clip, patch_scale=1)
    edited = clip.copy()
    edited[:, 6:18, 8:20] = clip[:, 6:18, 33:45]
    mask = np.zeros(clip.shape[:3], bool)
    mask[:, 6:18, 8:20] = True
    here, hidden = (made[0, 9:15, 11:17].mean() for made in (apps.edit(edited, mask, 3), apps.inject(edited, 3)))
    assert here > 170 and hidden < here


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 13])
def test_what_is_held_stays_where_and_as_it_is(frames: int) -> None:
    """Bright discs on a dark ground, of which the clip has few: without a hold patches cover some of them."""
    rows, columns = np.mgrid[:24, :48]
    random = np.random.default_rng(3)

    def discs(centres: list[tuple[int, int]]) -> np.ndarray:
        near = np.any([(rows - y) ** 2 + (columns - x) ** 2 < 9 for y, x in centres], axis=0)
        picture = np.where(near[..., None], (220, 180, 60), (40, 60, 80)) + random.integers(-20, 20, (24, 48, 3))
        return np.repeat(picture.astype(np.uint8)[None], frames, axis=0)

    # By the mean of votes, of which a hold of one half is half: mean shift takes the side of most.
    apps, _ = model_of(discs([(12, 8)]), patch_scale=1, patch_bandwidth=None)
    sketch = discs([(6, 10), (6, 24), (16, 38), (17, 18)])

    def apart(hold: float) -> float:
        small = [video.reshape(frames, 6, 4, 12, 4, 3).mean(axis=(2, 4)) for video in (
            sketch.astype(float), apps.inject(sketch, 2, hold=hold).astype(float))]  # fmt: skip
        return float(np.abs(small[0] - small[1]).mean())

    loose, half, held = map(apart, (0.0, 0.5, 1.0))
    assert held < 0.7 * loose and held < half < loose
    for hold in (-0.1, 1.1, math.nan):
        with pytest.raises(CannotApply, match=f"^hold={hold:g}: from 0 to 1$"):
            apps.inject(sketch, 2, hold=hold)


# -- masks


def test_outside_the_mask_the_given_video_comes_back_to_the_bit() -> None:
    given, made = clip_of(), 255 - clip_of()
    mask = np.zeros(given.shape[:3], bool)
    mask[4:6, 8:12, 10:16] = True  # empty in the other frames
    weight = masks.mask_weight(mask, grown=1)
    out = masks.composite(made, given, weight)
    assert np.array_equal(out[weight == 0], given[weight == 0]) and np.array_equal(out[:4], given[:4])
    assert (weight[4:6, 8:12, 10:16] > 0.6).all() and weight.max() == 1 and (weight[4] == 0).any()
    assert not masks.mask_weight(np.zeros_like(mask)).any()


def test_an_edit_is_seen_in_its_mask_alone() -> None:
    clip = clip_of()
    apps, _ = model_of(clip, patch_scale=1)
    edited, mask = clip.copy(), np.zeros(clip.shape[:3], bool)
    mask[:, 8:12, 10:16] = True
    edited[mask] = (255, 0, 0)
    around = masks.mask_weight(mask, 1, 0) == 0
    nearly_all = np.ones_like(mask)
    nearly_all[0, 0, 0] = False
    for stays in (None, clip):
        made = apps.edit(edited, mask, 3, stays=stays, grown=1, feather=0)
        assert np.array_equal(made[around], (edited if stays is None else stays)[around])
        assert np.array_equal(made[mask], apps.edit(edited, nearly_all, 3, grown=0, feather=0)[mask])
    networks, _ = model_of(clip, patch_scale=None)
    first, again, other = (networks.edit(edited, mask, 1, index=index) for index in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    for wrong in ({"given": clip[:, ::2]}, {"stays": clip[:6]}, {"mask": mask[:, 1:]}):
        arguments = {"given": edited, "mask": mask, "stays": None, **wrong}
        with pytest.raises(CannotApply, match=f"^{next(iter(wrong))} is .*; bring it there by at_size$"):
            apps.edit(scale=3, **arguments)


def test_a_mask_that_covers_everything_when_it_is_grown_is_one_line() -> None:
    """Before anything is made."""
    apps, _ = model_of(clip_of(), patch_scale=1)
    mask = np.zeros(apps.size, bool)
    mask[:, 8:12, 10:16] = True
    with pytest.raises(ValueError, match=r"^grown by 10000 px the mask covers everything; grow it by fewer$"):
        apps.edit(apps.clip(), mask, 99, grown=1e4)


def test_a_mask_grows_by_a_disk() -> None:
    mask = np.zeros((1, 21, 21), bool)
    mask[0, 10, 10] = True
    y, x = np.mgrid[-10:11, -10:11]
    for radius in (0, 1, 3.5):
        assert np.array_equal(masks.dilated(mask, radius)[0], np.hypot(y, x) <= radius)


def test_masks_are_scaled_and_refused() -> None:
    size = ScaleSize(13, 24, 32)
    mask = np.zeros((1, 48, 64), np.uint8)
    mask[:, 10:20, 20:40] = 255
    drawn = masks.as_drawn(mask, size)
    assert drawn.shape == size and np.array_equal(np.argwhere(drawn[3]).min(0), (5, 10))
    assert np.array_equal(np.argwhere(drawn[3]).max(0), (9, 19))
    for bad, cause in (
        (np.zeros((1, 24, 24), np.uint8), "the mask has 24×24 px, the video 24×32: give one of its aspect"),
        (np.zeros((5, 24, 32), np.uint8), "the mask has 5 frames, the video 13; give one frame, or as many"),
        (np.zeros((1, 24, 32), np.uint8), "the mask is empty: nothing would change"),
        (np.full((1, 24, 32), 255, np.uint8), "the mask covers everything"),
    ):
        with pytest.raises(ValueError, match=cause):
            masks.as_drawn(bad, size)


def test_an_object_lies_over_the_clip_by_its_alpha() -> None:
    clip = clip_of()
    layer = np.zeros((1, 24, 32, 4), np.uint8)
    layer[0, 5:9, 6:12] = (200, 100, 0, 255)
    layer[0, 9, 6:12] = (200, 100, 0, 51)
    made, mask = masks.overlaid(clip, layer)
    assert (made[:, 5:9, 6:12] == (200, 100, 0)).all() and mask[:, 5:9, 6:12].all() and not mask[:, 10:].any()
    fifth = np.rint(clip[:, 9, 6:12] + 0.2 * (np.array([200, 100, 0.0]) - clip[:, 9, 6:12]))
    assert np.abs(made[:, 9, 6:12] - fifth).max() <= 1
    rest = np.ones(clip.shape[:3], bool)
    rest[:, 5:10, 6:12] = False
    assert np.array_equal(made[rest], clip[rest])
    with pytest.raises(ValueError, match="no transparent pixel"):
        masks.overlaid(clip, np.full((1, 24, 32, 4), 255, np.uint8))
    with pytest.raises(ValueError, match="the object has 2 frames, the video 13"):
        masks.overlaid(clip, np.repeat(layer, 2, axis=0))


def test_a_drawing_moves_from_one_key_frame_to_the_next() -> None:
    clip = np.full((13, 40, 60, 3), 90, np.uint8)
    drawings = {}
    for at, left in ((2, 10), (8, 40)):
        drawing = np.dstack([clip[at], np.full((40, 60), 255, np.uint8)])
        drawing[10:20, left : left + 10, :3] = (250, 20, 20)
        drawings[at] = drawing
    made, mask = masks.tracked(clip, drawings)
    for frame, left in ((0, 10), (2, 10), (4, 20), (5, 25), (8, 40), (12, 40)):
        columns = np.flatnonzero(mask[frame].any(axis=0))
        assert (columns[0], columns[-1]) == (left, left + 9), frame
        assert (made[frame, 12:18, left + 2 : left + 8] == (250, 20, 20)).all()
    assert np.array_equal(made[~mask], clip[~mask])
    with pytest.raises(ValueError, match="for frame 13, and the video has frames 0 to 12; name it by one of these"):
        masks.tracked(clip, {13: drawings[2]})
    with pytest.raises(ValueError, match="frame 2 differs nowhere"):
        masks.tracked(clip, {2: np.dstack([clip[2], np.full((40, 60), 255, np.uint8)])})


def test_thin_strokes_are_paint_and_single_pixels_are_noise() -> None:
    clip = np.full((1, 40, 60, 3), 90, np.uint8)
    drawing = np.dstack([clip[0], np.full((40, 60), 255, np.uint8)])
    drawing[10, 5:50, :3] = drawing[20:35, 30, :3] = 250  # a line across, and one down
    drawing[np.arange(5), np.arange(5) + 50, :3] = 250  # aslant
    painted = (drawing[..., :3] == 250).all(-1)
    drawing[38, 3:6, :3] = drawing[5, 5, :3] = 120
    _, mask = masks.tracked(clip, {0: drawing})
    assert np.array_equal(mask[0], painted)


def moving_disc(start: float = 25.0) -> tuple[np.ndarray, list[tuple[float, float, float]]]:
    """A textured disc that moves and grows in front of another texture, and its (y, x, size) in each frame."""
    random = np.random.default_rng(0)
    behind, disc = (ndimage.gaussian_filter(random.random((54, 96)), s) for s in (2.0, 1.5))
    behind, disc = ((each - each.min()) / np.ptp(each) for each in (behind, disc))
    y, x = np.mgrid[:54, :96]
    clip, path = np.empty((13, 54, 96, 3), np.uint8), []
    for frame in range(13):
        at_y, at_x, size = 20 + 0.8 * frame, start + 2.3 * frame, 1 + 0.02 * frame
        place = [(y - at_y) / size + 20, (x - at_x) / size + 20]
        inside = np.hypot(y - at_y, x - at_x) < 11 * size
        clip[frame] = 255 * np.where(inside, ndimage.map_coordinates(disc, place, order=1), behind)[..., None]
        path.append((at_y, at_x, size))
    return clip, path


@pytest.mark.parametrize("at", [0, 6, 12])
def test_a_drawing_follows_what_it_was_painted_on(at: int) -> None:
    clip, path = moving_disc()
    drawing = np.dstack([clip[at], np.full((54, 96), 255, np.uint8)])
    y, x = np.mgrid[:54, :96]
    drawing[np.hypot(y - path[at][0], x - path[at][1]) < 6, :3] = (250, 20, 20)
    made, mask = masks.tracked(clip, {at: drawing})
    for frame, (at_y, at_x, size) in enumerate(path):
        assert math.dist(ndimage.center_of_mass(mask[frame]), (at_y, at_x)) < 0.6, frame
        assert mask[frame].sum() / mask[at].sum() == pytest.approx((size / path[at][2]) ** 2, rel=0.12), frame
    far = ndimage.binary_dilation(mask, iterations=2)
    assert np.array_equal(made[~far], clip[~far])


def test_a_drawing_leaves_with_its_object_and_does_not_follow_a_cut() -> None:
    clip, path = moving_disc(78.0)
    y, x = np.mgrid[:54, :96]
    drawing = np.dstack([clip[0], np.full((54, 96), 255, np.uint8)])
    drawing[np.hypot(y - path[0][0], x - path[0][1]) < 6, :3] = (250, 20, 20)
    _, mask = masks.tracked(clip, {0: drawing})
    assert mask[:7].any(axis=(1, 2)).all() and not mask[12].any()
    clip[1:] = moving_disc()[0][0, ::-1]  # another picture, which stands still
    _, mask = masks.tracked(clip, {0: drawing})
    assert (mask == mask[0]).all()


def test_a_painting_in_the_colours_of_the_clip() -> None:
    colours = np.array([(10, 20, 200), (240, 230, 20), (120, 120, 120)], np.uint8)
    clip = colours[np.random.default_rng(0).integers(0, 3, (1, 20, 30))]
    painting = np.clip(clip[:, ::-1].astype(int) + np.random.default_rng(1).integers(-20, 21, clip.shape), 0, 255)
    assert np.array_equal(quantised(painting.astype(np.uint8), clip, 3), clip[:, ::-1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a clip with fewer colours than are asked for
        assert (quantised(painting.astype(np.uint8), np.full_like(clip, 7), 5) == 7).all()


# -- the clip, changed


def test_a_hole_in_a_texture_is_filled_with_the_texture_and_nothing_else_changes() -> None:
    for texture in (stripes(24, 48, 8), stripes(24, 32, 8, frames=13)):
        apps, _ = model_of(texture, patch_scale=1)
        mask = np.zeros(texture.shape[:3], bool)
        mask[:, 9:15, 13:20] = True
        made = apps.fill(mask)
        around = masks.softened(masks.dilated(mask, 1), 0.7) == 0
        assert np.array_equal(made[around], texture[around])
        smooth = np.abs(texture[mask].astype(int) - int(texture.mean())).mean()
        assert np.abs(made[mask].astype(int) - texture[mask]).mean() < smooth / 3


def test_what_is_filled_has_nothing_of_what_was_there() -> None:
    clip = np.random.default_rng(0).integers(100, 130, (1, 24, 32, 3)).astype(np.uint8)
    clip[0, 10:14, 12:16] = (255, 0, 0)
    apps, _ = model_of(clip, patch_scale=1)
    mask = np.zeros(clip.shape[:3], bool)
    mask[0, 10:14, 12:16] = True
    made = apps.fill(mask)
    assert made[..., 0].max() < 160 and made[..., 1].min() > 70


def test_a_mask_that_leaves_no_patch_is_one_line() -> None:
    clip = clip_of()
    apps, _ = model_of(clip, patch_scale=1)
    mask = np.ones(clip.shape[:3], bool)
    mask[:, 0, 0] = False
    with pytest.raises(CannotApply, match="the mask leaves no patch"):
        apps.fill(mask)


@pytest.mark.parametrize(("after", "before"), [(12, 0), (0, 5), (7, 3)])
def test_more_frames_join_the_clips_own(after: int, before: int) -> None:
    clip = clip_of()
    apps, _ = model_of(clip, patch_scale=1)
    made = apps.extend(after, before)
    assert made.shape == (13 + after + before, *clip.shape[1:])
    assert np.array_equal(made[before : before + 13], clip)
    changes = np.abs(np.diff(made.astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert changes.max() < 3 * np.abs(np.diff(clip.astype(int), axis=0)).mean(axis=(1, 2, 3)).max()


def test_a_seed_makes_its_own_frames() -> None:
    texture = np.random.default_rng(0).integers(0, 256, (18, 50, 3), dtype=np.uint8)
    clip = np.stack([texture[:, shift : shift + 24] for shift in range(0, 26, 2)])
    apps, _ = model_of(clip, patch_scale=1, **SMALLER)
    made = apps.extend(6)
    assert np.array_equal(made, apps.extend(6)) and not np.array_equal(made, apps.extend(6, seed=1))


def test_a_seed_goes_on_in_its_own_way() -> None:
    """By more than half of what the clip changes from frame to frame; without a jump, wherever it turns."""
    clip = clip_of(13, 18, 24)
    apps, _ = model_of(clip, patch_scale=1, **SMALLER)
    made = [apps.extend(18, seed=seed).astype(int) for seed in range(3)]
    own = np.abs(np.diff(clip.astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert all(np.abs(a[13:] - b[13:]).mean() > own.mean() / 2 for a, b in combinations(made, 2))
    assert all(np.abs(np.diff(one[12:], axis=0)).mean(axis=(1, 2, 3)).max() < 1.5 * own.max() for one in made)


def test_the_loop_of_a_periodic_clip_is_its_period() -> None:
    one = clip_of(7)[:6]
    clip = np.concatenate([one, one, one])[:13]
    apps, _ = model_of(clip, patch_scale=1)
    loop, seam = apps.loop()
    assert len(loop) == 12 and np.array_equal(
        np.concatenate([loop, loop])[:13], clip
    )  # two periods are longer than one
    assert np.array_equal(loop[6:], loop[:6])
    assert seam.change == pytest.approx(np.abs(one[5].astype(int) - one[0]).mean())


def test_a_clip_that_does_not_come_back_is_led_back() -> None:
    clip = clip_of()
    apps, _ = model_of(clip, patch_scale=1)
    loop, seam = apps.loop()
    assert np.array_equal(loop[:13], clip) and len(loop) == 24
    new = [*loop[12:].astype(int), loop[0].astype(int)]
    assert seam.change == pytest.approx(max(np.abs(a - b).mean() for a, b in pairwise(new)))
    assert seam.ratio < 4 and np.abs(clip[12].astype(int) - clip[0]).mean() / seam.own > 6


@pytest.mark.parametrize("patch_scale", [None, 1])
def test_retargeting_asks_for_objects_or_layout(patch_scale: int | None) -> None:
    clip = clip_of()
    apps, _ = model_of(clip, patch_scale=patch_scale)
    objects, layout = (apps.retarget((13, 24, 48), keep) for keep in ("objects", "layout"))
    assert objects.shape == layout.shape == (13, 24, 48, 3) and not np.array_equal(objects, layout)


def test_retargeting_keeps_objects_in_their_size() -> None:
    texture = stripes(24, 32, 8)
    apps, _ = model_of(texture, patch_scale=1)
    wide = apps.retarget((1, 24, 64), "objects")
    assert wide.shape == (1, 24, 64, 3) and period_of(wide[0, 12, :, 0].astype(float)) == pytest.approx(8, rel=0.2)


def test_retargeting_keeps_the_layout() -> None:
    """Where the bright part of a picture is, as a share of its width."""
    x = np.arange(32)
    picture = np.broadcast_to((40 + 200 * (x > 21))[None, None, :, None], (1, 24, 32, 3)).astype(np.uint8).copy()
    apps, _ = model_of(picture, patch_scale=1)
    bright = apps.retarget((1, 24, 64), "layout")[0, 12, :, 0] > 140
    assert np.flatnonzero(bright)[0] == pytest.approx(43, abs=3) and bright[46:].all() and not bright[:40].any()
    with pytest.raises(CannotApply, match="keeps the clip's 13 frames"):
        model_of(clip_of(), patch_scale=1)[0].retarget((25, 24, 32), "layout")


@pytest.mark.parametrize("factor", [2.0, 4.0])
def test_a_texture_is_enlarged_better_than_bicubic(factor: float) -> None:
    """A texture that is like itself at other scales: a checkerboard of edges, shrunk beforehand."""
    side = int(48 * factor)
    y, x = np.mgrid[:side, :side] / factor
    edges = np.where((np.sin(x / 3) + np.sin((x + 2 * y) / 5)) > 0, 210, 40).astype(np.uint8)
    truth = np.repeat(edges[None, ..., None], 3, axis=-1)
    k = int(factor)
    low = truth.reshape(1, 48, k, 48, k, 3).mean(axis=(2, 4)).round().astype(np.uint8)
    apps, _ = model_of(low, patch_scale=1, max_size=48)
    made = apps.enlarge(factor)
    cubic = torch.nn.functional.interpolate(
        torch.from_numpy(low[0].transpose(2, 0, 1).astype(np.float32))[None], size=(side, side), mode="bicubic"
    )
    cubic_frames = cubic[0].numpy().transpose(1, 2, 0).round().clip(0, 255)[None]
    assert made.shape == truth.shape
    assert psnr(made, truth) > psnr(cubic_frames, truth)


def test_what_is_enlarged_is_the_mean_of_patches() -> None:
    """The mean shift of samples is sharper, and further from the truth."""
    picture = clip_of()[:1]
    made = [model_of(picture, patch_scale=1, patch_bandwidth=sigma)[0].enlarge(2.0) for sigma in (None, 0.05)]
    assert np.array_equal(*made)


def test_scales_of_one_size_are_enlarged_too() -> None:
    """As of `paper`, whose two finest scales are both 256 px high."""
    clip = clip_of(1)
    apps, _ = model_of(clip, patch_scale=None, ladder_side="height", max_size=16, scale_factor=1.3)
    assert apps.sizes[-1].height == apps.sizes[-2].height
    assert apps.enlarge(2).shape == (1, 32, 2 * apps.size.width, 3)


def test_a_mask_of_dots_in_a_given_picture_is_filled_or_refused() -> None:
    clip = clip_of(1)
    apps, _ = model_of(clip, patch_scale=1)
    mask = np.zeros(clip.shape[:3], bool)
    mask[:, ::3, ::3] = True
    with pytest.raises(CannotApply, match="the mask leaves no patch"):
        apps.fill(mask, given=255 - clip, grown=4)
    assert apps.fill(mask, given=255 - clip, grown=0).shape == clip.shape


def test_what_does_not_fit_into_memory_is_one_line() -> None:
    apps, _ = model_of(clip_of(), patch_scale=1)
    for too_much in (lambda: apps.extend(10**7), lambda: apps.enlarge(5000.0)):
        with pytest.raises(ValueError, match="GiB of memory"):
            too_much()


def test_patches_of_one_frame_loop_too() -> None:
    clip = clip_of()
    apps, _ = model_of(clip, patch_scale=1, patch_size=(1, 7, 7))
    loop, _ = apps.loop()
    assert loop.shape == (24, 24, 32, 3) and np.array_equal(loop[:13], clip)


def test_an_object_removed_from_a_long_video_is_not_taken_from_the_next_chunk() -> None:
    """Chunks overlap: the next one holds the same frames."""
    clip = np.random.default_rng(0).integers(100, 130, (13, 24, 32, 3)).astype(np.uint8)
    clip[:, 8:14, 12:18] = (255, 0, 0)
    apps, stack = model_of(clip, patch_scale=1)
    long = Applications(apps.config, stack, [clip, clip.copy()], apps.sizes, CPU)
    mask = np.zeros(clip.shape[:3], bool)
    mask[:, 8:14, 12:18] = True
    assert long.fill(mask)[..., 0].max() < 170


# -- latent space


@pytest.mark.slow
@pytest.mark.parametrize("patch_scale", [None, 1])
def test_strength_0_is_the_reconstruction_and_1_a_sample(patch_scale: int | None) -> None:
    clip = clip_of()
    # By the mean of votes: mean shift may move all of a clip that has a period.
    apps, stack = model_of(clip, patch_scale=patch_scale, patch_bandwidth=None)
    pyramids = training_pyramids([clip], apps.config, apps.sizes)
    sampler = sampler_of(apps.config, stack, pyramids, CPU)
    assert np.array_equal(apps.vary(0.0, seed=4), to_frames(sampler.reconstruction()[0].numpy()))
    if patch_scale is None:
        assert np.array_equal(apps.vary(1.0, seed=4), to_frames(random_videos(sampler, 1, 4)[0].numpy()))
    near, far = (np.abs(apps.vary(s, seed=4).astype(int) - apps.vary(0.0)).mean() for s in (0.02, 1.0))
    assert 0 < near < far
    with pytest.raises(CannotApply, match="from 0, the clip, to 1"):
        apps.vary(1.5)


def test_between_two_seeds_are_their_samples_at_the_ends() -> None:
    clip = clip_of()
    apps, stack = model_of(clip, patch_scale=None)
    sampler = sampler_of(apps.config, stack, training_pyramids([clip], apps.config, apps.sizes), CPU)
    for share, seed in ((0.0, 3), (1.0, 8)):
        sample = to_frames(random_videos(sampler, 1, seed)[0].numpy())
        assert np.array_equal(apps.between(3, 8, share), sample)
    steps = [apps.between(3, 8, share).astype(int) for share in np.linspace(0, 1, 6)]
    gaps = [np.abs(a - b).mean() for a, b in pairwise(steps)]
    assert max(gaps) < np.abs(steps[0] - steps[-1]).mean()


def test_what_is_summed_of_latents_is_summed_on_the_usual_threads_side_by_side_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its rounding depends on how many there are, and a result is the same beside others as alone."""
    apps, stack = model_of(clip_of(), patch_scale=1)
    assert stack is not None
    summed: list[int] = []

    def watched(*given: Any) -> Tensor:
        summed.append(torch.get_num_threads())
        return slerp(*given)

    monkeypatch.setattr("model.sampling.latents.slerp", watched)
    stack.encoder.register_forward_pre_hook(lambda *given: summed.append(torch.get_num_threads()))
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for make in (apps.vary, partial(apps.between, 0, 1)):
            before = len(summed)
            alone, _, beside = concurrently(make, (0.5, 0.7, 0.5), 2)
            assert np.array_equal(alone, beside) and len(summed) >= before + 3 and set(summed) == {3}
    finally:
        torch.set_num_threads(threads)


def test_a_layout_with_another_detail() -> None:
    clip = clip_of()
    apps, stack = model_of(clip, patch_scale=None)
    sampler = sampler_of(apps.config, stack, training_pyramids([clip], apps.config, apps.sizes), CPU)
    sample = to_frames(random_videos(sampler, 1, 3)[0].numpy())
    assert np.array_equal(apps.recombined((3, 0), (3, 0)), sample)
    detail, layout = apps.recombined((3, 0), (3, 1)), apps.recombined((3, 1), (3, 0))
    assert not np.array_equal(detail, sample)
    assert np.abs(detail.astype(int) - sample).mean() < np.abs(layout.astype(int) - sample).mean()


def test_slerp_goes_along_the_circle() -> None:
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0])
    middle = slerp(a, b, 0.5)
    assert middle.tolist() == pytest.approx([3 / math.sqrt(2)] * 2)
    assert torch.equal(slerp(a, b, 0.0), a) and torch.equal(slerp(a, b, 1.0), b)
    assert torch.allclose(slerp(a, 2 * a, 0.25), 1.25 * a)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hpvaegan", "vgpnn"])
def test_each_result_of_each_seed_is_another(method: str) -> None:
    """Result 1 of seed 0 is not result 0 of seed 1."""
    noise = np.random.default_rng(0).integers(0, 256, (13, 18, 24, 3)).astype(np.uint8)
    # By the mean of votes: mean shift comes to the same frames from many beginnings.
    patches = {"patch_scale": 1, "patch_bandwidth": None} if method == "hpvaegan" else {}
    apps, _ = model_of(noise, method, **SMALLER, **patches)
    made = [apps.extend(6, seed=seed, index=index) for seed, index in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert all(not np.array_equal(a, b) for a, b in combinations(made, 2))
    assert np.array_equal(made[1], apps.extend(6, seed=0, index=1))


@pytest.mark.parametrize(("factor", "code"), [(2, 0), (2.2, 2), (4, 2)])
def test_a_truth_that_would_be_interpolated_is_no_truth_of_an_enlargement(
    factor: float, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = clip_of(1, 48, 64)
    config = replace(image_demo(), **{**SIZE, "num_scales": 2})  # type: ignore[arg-type]  # up to 24×32 px
    Image.fromarray(clip[0]).save(tmp_path / "truth.png")
    pyramids, path = training_pyramids([clip], config), tmp_path / "x.pt"
    list(train_clip(config, pyramids, clip_id="x", path=path, log=lambda point: None))
    assert enlarge_figures.main([str(path), str(tmp_path / "truth.png"), "--factor", str(factor)]) == code
    out, error = capsys.readouterr()
    if code:
        assert not out and error.count("\n") == 1 and "truth.png: has 48×64 px, and " in error
    else:
        assert "| ours |" in out and not error


@pytest.mark.parametrize("factor", [0, -1, 0.5, 1, math.nan, math.inf])
def test_a_factor_that_does_not_enlarge_is_one_line(factor: float) -> None:
    apps, _ = model_of(clip_of(), patch_scale=1)
    with pytest.raises(CannotApply, match="larger means above 1"):
        apps.enlarge(factor)


def test_a_factor_that_adds_no_pixel_is_one_line() -> None:
    apps, _ = model_of(clip_of(), patch_scale=1)
    with pytest.raises(CannotApply, match=r"^a factor of 1\.01: 24×32 px become no larger by it; give 2 or 4"):
        apps.enlarge(1.01)
    assert apps.enlarge(1.02).shape == (13, 24, 33, 3)  # 32.64 px wide


def test_what_does_not_move_is_no_loop() -> None:
    apps, _ = model_of(clip_of(), patch_scale=1)
    with pytest.raises(CannotApply, match="--loop: all frames are the same picture, which does not move"):
        apps.loop(np.repeat(clip_of()[:1], 13, axis=0))


@pytest.mark.slow
@pytest.mark.parametrize("patch_scale", [None, 1])
def test_the_progress_of_every_application_goes_from_step_to_step_to_its_end(patch_scale: int | None) -> None:
    clip = clip_of(13, 18, 24)
    apps, _ = model_of(clip, patch_scale=patch_scale, **SMALLER)
    mask = np.zeros(clip.shape[:3], bool)
    mask[:, 6:9, 8:12] = True
    makes: list[Callable[[], object]] = [
        *(partial(apps.inject, clip, scale) for scale in (1, 2)),
        *(partial(apps.fill, mask), partial(apps.extend, 3), apps.loop, partial(apps.enlarge, 2.0)),
        *(partial(apps.retarget, (13, 18, 36), "objects"), partial(apps.vary, 0.0), partial(apps.vary, 0.5)),
        *(partial(apps.between, 0, 1, 0.5), partial(apps.recombined, (0, 0), (0, 1))),
    ]
    for make in makes:
        told: list[float] = []
        apps.progress = told.append
        make()
        assert len(told) > 1 and min(told) > 0 and sum(told) == pytest.approx(1), make


def test_a_loop_of_a_video_of_another_size_is_of_the_models() -> None:
    apps, _ = model_of(clip_of(), patch_scale=1)
    frames, _ = apps.loop(clip_of(height=48, width=64))
    assert frames.shape[1:] == (24, 32, 3)


def test_what_fits_into_no_memory_is_one_line_before_it_is_made() -> None:
    apps, _ = model_of(clip_of(), patch_scale=1)
    for make in (partial(apps.extend, 10**7), partial(apps.enlarge, 10**4)):
        with pytest.raises(
            ValueError, match=r"GiB of memory, \d+ are there; make it smaller, \d+\.\d% of its pixels fit"
        ):
            make()


def test_what_is_kept_is_good_and_differs() -> None:
    videos = [np.full((1, 2, 2, 3), level, np.uint8) for level in (10, 12, 14, 100, 200, 250)]
    assert diverse(videos, [1.0, 2.0, 1.5, 3.0, 9.0, 8.0], 2) == [0, 2]  # the better half are 0, 2 and 1
    assert diverse(videos, [1.0, 9.0, 9.5, 1.1, 1.2, 8.0], 3) == [0, 4, 3]


@pytest.mark.parametrize("keep", [1, 2, 7, 20])
def test_what_is_kept_is_what_comparing_all_with_all_keeps(keep: int) -> None:
    random = np.random.default_rng(keep)
    videos, scores = list(random.integers(0, 256, (40, 1, 3, 4, 3), dtype=np.uint8)), list(random.random(40))
    order = sorted(range(40), key=lambda i: scores[i])[: max(keep, 20)]
    taken = [order[0]]
    while len(taken) < keep:
        apart = {i: min(np.abs(videos[i].astype(int) - videos[j]).mean() for j in taken) for i in order}
        taken.append(max((i for i in order if i not in taken), key=lambda i: apart[i]))
    told: list[int] = []
    assert diverse(videos, scores, keep, told.append) == taken and sum(told) == keep - 1


@pytest.mark.parametrize("patch_scale", [None, 1])
def test_samples_to_keep_are_drawn_once_and_those_of_their_numbers(patch_scale: int | None) -> None:
    clip = clip_of(13, 18, 24)
    apps, stack = model_of(clip, patch_scale=patch_scale, **SMALLER)
    sampler = sampler_of(apps.config, stack, training_pyramids([clip], apps.config, apps.sizes), CPU)
    samples = [to_frames(random_videos(sampler, 1, 3, first=i)[0].numpy()) for i in range(8)]
    told: list[int] = []
    scored: list[np.ndarray] = []

    def score(made: np.ndarray) -> float:
        scored.append(made)
        return float(made.mean())

    found = kept(sampler, score, 3, 2, told.append)
    assert len(scored) == 8 and list(found) == diverse(samples, [float(made.mean()) for made in samples], 2)
    assert all(np.array_equal(made, samples[i]) for i, made in found.items())
    assert sum(told) == steps_to_keep(sampler, 2)


def test_more_to_keep_than_fits_into_memory_is_one_line() -> None:
    apps, stack = model_of(clip_of(), patch_scale=None)
    sampler = sampler_of(apps.config, stack, training_pyramids([clip_of()], apps.config, apps.sizes), CPU)
    check_kept(sampler, 5)
    with pytest.raises(ValueError, match=r"^keeping 100,000,000 of 400,000,000 samples of 13×24×32 needs \d+ GiB of "):
        check_kept(sampler, 10**8)
    with pytest.raises(ValueError, match=r"; keep \d[0-9,]* or fewer$"):
        check_kept(sampler, 10**8)
    with pytest.raises(ValueError, match="0 samples to keep: 1 or more"):
        check_kept(sampler, 0)


def test_applications_of_a_config_of_images() -> None:
    image = clip_of(1)
    apps, _ = model_of(image, patch_scale=1)
    assert apps.vary(0.5).shape == image.shape

"""Augmented copies: what is mirrored, what is cut out, and that nothing is copied."""

from __future__ import annotations

import numpy as np

from pipeline import augment, pyramid

FRAMES = np.random.default_rng(0).integers(0, 256, (13, 40, 60, 3), dtype=np.uint8)


def test_without_augmentation_there_is_the_clip_alone() -> None:
    (only,) = augment.copies(FRAMES, flip=False, crops=0, seed=0)
    assert only is FRAMES


def test_a_flip_mirrors_left_and_right() -> None:
    clip, mirrored = augment.copies(FRAMES, flip=True, crops=0, seed=0)
    np.testing.assert_array_equal(mirrored[:, :, 0], clip[:, :, 59])
    np.testing.assert_array_equal(np.flip(mirrored, axis=2), clip)


def test_crops_are_nine_tenths_of_the_frame_anywhere_in_it_and_the_same_for_a_seed() -> None:
    _, *crops = augment.copies(FRAMES, flip=False, crops=200, seed=3)
    _, *again = augment.copies(FRAMES, flip=False, crops=200, seed=3)
    places = set()
    for crop, same in zip(crops, again, strict=True):
        assert crop.shape == (13, 36, 54, 3) and np.shares_memory(crop, FRAMES)
        np.testing.assert_array_equal(crop, same)
        (place,) = [
            (y, x) for y in range(5) for x in range(7) if np.array_equal(crop, FRAMES[:, y : y + 36, x : x + 54])
        ]
        places.add(place)
    assert {y for y, _ in places} == set(range(5)) and {x for _, x in places} == set(range(7))


def test_a_pyramid_of_a_copy_has_the_clips_sizes() -> None:
    sizes = [pyramid.ScaleSize(4, 10, 15), pyramid.ScaleSize(13, 40, 60)]
    for frames in augment.copies(FRAMES, flip=True, crops=1, seed=0):
        made = pyramid.Pyramid(frames, sizes)
        assert [scale.shape for scale in made] == [(3, 4, 10, 15), (3, 13, 40, 60)]
        for scale, built in zip(made, pyramid.build(np.ascontiguousarray(frames), sizes), strict=True):
            np.testing.assert_array_equal(scale, built)

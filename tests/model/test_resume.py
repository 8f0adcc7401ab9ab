"""A training that was stopped and went on from its checkpoint equals one that was not, bit for bit."""

from __future__ import annotations

import pytest
import torch

from model import checkpoint as ckpt
from model.checkpoint import CheckpointError
from model.device import resolve
from model.training.loop import train_clip

from .conftest import CLIP_ID, SIZES, Stopped, assert_same, contents, one_thread, real_pyramid, tiny, train

NATIVE_BF16 = resolve("auto", torch.device("cpu")) == "bf16"


def config_of(precision):
    return tiny(iters_per_scale=(5, 4, 4, 5, 4), checkpoint_every=2, precision=precision, lr_final=0.5)


@pytest.fixture(
    scope="module",
    params=["float32", pytest.param("bf16", marks=pytest.mark.skipif(not NATIVE_BF16, reason="needs bf16 hardware"))],
)
def whole(request, tmp_path_factory):
    """(config, losses, final checkpoint) of a training without a stop."""
    path = tmp_path_factory.mktemp("whole") / "checkpoint.pt"
    config = config_of(request.param)
    with one_thread():
        recorder = train(config, path)
    return config, recorder.losses(), ckpt.load(path)


# a point is logged before its iteration is saved; checkpoint_every=2 leaves on disk what the last number says
STOPS = {
    "before the first checkpoint": ((0, 1), None),
    "mid VAE scale": ((0, 3), (0, 2)),
    "between a checkpoint and the end of a scale": ((0, 5), (0, 4)),
    "first iteration of a VAE scale": ((2, 1), (1, 4)),
    "before the last VAE iteration": ((2, 4), (2, 2)),
    "first iteration of the first GAN scale": ((3, 1), (2, 4)),
    "mid GAN scale": ((3, 4), (3, 2)),
    "first iteration of the second GAN scale": ((4, 1), (3, 5)),
    "last iteration": ((4, 4), (4, 2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("stop", STOPS)
def test_stopped_in_a_scale(whole, tmp_path, stop):
    config, losses, final = whole
    path = tmp_path / "checkpoint.pt"
    stop_at, on_disk = STOPS[stop]
    train(config, path, stop_at=stop_at)
    if on_disk is None:
        assert not path.exists()
    else:
        saved = ckpt.load(path)
        assert (saved.scale, saved.iteration) == on_disk
        assert not saved.done
    torch.manual_seed(99)  # another process has another global state
    rest = train(config, path)
    assert_same(ckpt.load(path), final)
    scale, iteration = on_disk or (0, 0)
    assert rest.losses() == {place: value for place, value in losses.items() if place > (scale, iteration)}


@pytest.mark.parametrize("scales", [1, 3, 4])
def test_stopped_between_scales(whole, tmp_path, scales):
    config, _, final = whole
    path = tmp_path / "checkpoint.pt"
    train(config, path, scales=scales)
    saved = ckpt.load(path)
    assert (saved.scale, saved.iteration) == (scales - 1, config.iterations[scales - 1])
    train(config, path)
    assert_same(ckpt.load(path), final)


def test_stopped_again_and_again(whole, tmp_path):
    config, _, final = whole
    path = tmp_path / "checkpoint.pt"
    for stop_at in ((0, 3), (0, 5), (1, 2), (2, 3), (3, 3), (3, 5), (4, 3)):
        train(config, path, stop_at=stop_at)
    train(config, path)
    assert_same(ckpt.load(path), final)


def test_a_finished_training_is_not_trained_again(whole, tmp_path):
    config, _, final = whole
    path = tmp_path / "checkpoint.pt"
    ckpt.save(final, path)
    assert final.done
    written = path.read_bytes()
    points = []
    scales = list(train_clip(config, [real_pyramid()], clip_id=CLIP_ID, path=path, log=points.append))
    assert [scale.n for scale in scales] == [len(SIZES) - 1]
    assert scales[0].train_s == final.train_s
    assert not points
    assert path.read_bytes() == written


def test_time_of_all_processes_is_added_up(tmp_path):
    path = tmp_path / "checkpoint.pt"
    config = config_of("float32")
    train(config, path, scales=2)
    before = ckpt.load(path).train_s
    train(config, path)
    assert ckpt.load(path).train_s > before > 0


@pytest.mark.parametrize(
    ("clip_id", "changes", "sizes"),
    [
        ("another clip", {}, SIZES),
        (CLIP_ID, {"lr": 1e-3}, SIZES),
        (CLIP_ID, {"seed": 6}, SIZES),
        (CLIP_ID, {"channels": 7}, SIZES),
        (CLIP_ID, {}, (*SIZES[:-1], (13, 24, 30))),
    ],
    ids=["clip id", "learning rate", "seed", "channels", "ladder"],
)
def test_checkpoint_of_another_clip_or_config_is_refused_and_kept(tmp_path, clip_id, changes, sizes):
    path = tmp_path / "checkpoint.pt"
    train(tiny(), path, scales=1)
    written = path.read_bytes()
    with pytest.raises(CheckpointError, match="another clip or config") as caught:
        list(train_clip(tiny(**changes), [real_pyramid(sizes)], clip_id=clip_id, path=path, log=lambda _: None))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_bytes() == written


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGE = {
    "a flipped bit": flip_a_bit,
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zero bytes": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}
PLACES = [(0, 5), (2, 1), (4, 1), (4, 4)]  # within a scale, at the start of a VAE and of a GAN scale, at the end


@pytest.mark.faults
@pytest.mark.parametrize(("damage", "stop_at"), list(zip(DAMAGE, PLACES)))
def test_the_checkpoint_before_is_used_and_it_is_said(whole, tmp_path, damage, stop_at, injected):
    config, _, final = whole
    path = tmp_path / "checkpoint.pt"
    train(config, path, stop_at=stop_at)
    now, before = ckpt.load(path), ckpt.load(ckpt.previous(path))
    assert (before.scale, before.iteration) < (now.scale, now.iteration)
    DAMAGE[damage](path)
    told = []
    list(train_clip(config, [real_pyramid()], clip_id=CLIP_ID, path=path, log=lambda _: None, warn=told.append))
    (line,) = told
    assert str(path) in line and "\n" not in line
    assert ("gone" if damage == "gone" else "damaged") in line
    assert f"went on from checkpoint.previous.pt: scale {before.scale}, iteration {before.iteration}" in line
    injected("checkpoint damaged or gone", contents(final), contents(ckpt.load(path)))
    assert_same(ckpt.load(path), final)


@pytest.mark.faults
def test_a_process_that_dies_while_it_recovers_loses_nothing_more(whole, tmp_path, injected):
    config, _, final = whole
    path = tmp_path / "checkpoint.pt"
    train(config, path, stop_at=(1, 3))
    before = ckpt.load(ckpt.previous(path))
    flip_a_bit(path)
    told = []

    def die(line):
        told.append(line)
        raise Stopped

    with pytest.raises(Stopped):
        ckpt.resume(path, die)
    for warn in (told.append, die):  # the second time there is nothing to be said
        assert_same(ckpt.resume(path, warn), before)
    assert len(told) == 2
    train(config, path)
    injected("killed while it recovers from a damaged checkpoint", contents(final), contents(ckpt.load(path)))
    assert_same(ckpt.load(path), final)


@pytest.mark.faults
def test_nothing_to_go_on_from_is_one_line_and_nothing_is_touched(whole, tmp_path):
    config, _, _ = whole
    path = tmp_path / "checkpoint.pt"
    train(config, path, stop_at=(0, 5))
    flip_a_bit(ckpt.previous(path))
    DAMAGE["zero bytes"](path)
    for cause in ("damaged, and checkpoint.previous.pt is damaged", "not a readable checkpoint"):
        written = {file: file.read_bytes() for file in tmp_path.iterdir()}
        with pytest.raises(
            CheckpointError, match=f"{cause}.*delete .*, and the same command trains the clip from the start$"
        ) as caught:
            train(config, path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        assert {file: file.read_bytes() for file in tmp_path.iterdir()} == written
        ckpt.previous(path).unlink(missing_ok=True)

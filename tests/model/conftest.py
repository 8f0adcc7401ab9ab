"""A synthetic clip, its real pyramid, small configs, and ways to run training that keep what it wrote on the way."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model import checkpoint as ckpt
from model import pyramid
from model.presets import official, paper
from model.sampling.sample import sample_in_parts
from model.training.loop import train_clip
from pipeline import sources, video

# Five scales; frames as the sampling rates 4, 4, 3, 2, 1 of 13 frames give them.
SIZES = ((4, 9, 12), (4, 10, 14), (5, 12, 16), (7, 14, 19), (13, 16, 22))
CLIP_ID = "synthetic"


def synthetic_clip(height=48, width=64, frames=13):
    """A gradient that turns and two blobs that cross: float32 (3, T, H, W) in [-1, 1], the same on every machine."""
    t = np.linspace(0, 1, frames).reshape(-1, 1, 1)
    y = np.linspace(-1, 1, height).reshape(1, -1, 1)
    x = np.linspace(-1, 1, width).reshape(1, 1, -1)
    red = np.exp(-8 * ((x - (2 * t - 1) * 0.7) ** 2 + (y - 0.3) ** 2))
    green = np.exp(-12 * ((x + 0.4) ** 2 + (y - (1 - 2 * t) * 0.6) ** 2))
    ramp = 0.6 * (np.cos(2 * t) * x + np.sin(2 * t) * y)
    video = np.stack([ramp + red, ramp + green - 0.2, 0.5 * np.sin(9 * x + 4 * t) * np.cos(5 * y) + 0 * ramp])
    return np.clip(video, -1, 1).astype(np.float32)


def sample(stack, count, seed, *, first=0, last=None):
    """Random videos `first` … of a seed, of scale `last` (None: the finest trained): (count, 3, T, H, W)."""
    sizes = stack.sizes[: (stack.num_scales if last is None else last + 1)]
    indices = range(first, first + count)
    return torch.cat([torch.cat(list(sample_in_parts(stack, sizes, seed, index)), dim=2) for index in indices])


def real_pyramid(sizes=SIZES, clip=None):
    """The clip at every size: frames sub-sampled with both ends kept, then bilinear with align_corners."""
    clip = synthetic_clip() if clip is None else clip
    reals = []
    for frames, height, width in sizes:
        rate, rest = divmod(clip.shape[1] - 1, frames - 1) if frames > 1 else (1, clip.shape[1] - 1)
        assert rest == 0
        kept = torch.from_numpy(clip[:, ::rate]).transpose(0, 1)  # (T, 3, H, W)
        small = F.interpolate(kept, size=(height, width), mode="bilinear", align_corners=True)
        reals.append(np.ascontiguousarray(small.transpose(0, 1).numpy()))
    return reals


def ladder_16_9(config):
    """Sizes of a 16:9 clip for a config whose ladder is geometric in the height."""
    assert (config.ladder_side, config.scale_factor) == ("height", None)
    last = config.num_scales - 1
    sizes = []
    for n in range(config.num_scales):
        height = round(config.min_size * (config.max_size / config.min_size) ** (n / last))
        rate = config.frame_rates[math.floor(n / last * (len(config.frame_rates) - 1))]
        sizes.append(((config.num_frames - 1) // rate + 1, height, round(height * 16 / 9)))
    return tuple(sizes)


def tiny(preset="paper", **changes):
    """The preset's networks with few channels, on the ladder SIZES, three iterations a scale, float32."""
    settings = {
        "num_scales": len(SIZES),
        "channels": 6,
        "latent_dim": 8,
        "iters_per_scale": 3,
        "checkpoint_every": 1,
        "log_every": 1,
        "precision": "float32",
        "seed": 5,
    }
    return replace({"paper": paper, "official": official}[preset](), **{**settings, **changes})


class Recorder:
    """`log` for train_clip: keeps every point, and what the checkpoint file held when the point was logged.

    A point is logged before its iteration is saved, so with checkpoint_every=1 `before[n, k]` is the state that
    iteration k of scale n started from (for k = 1: the end of scale n - 1, before the stack grew).
    """

    def __init__(self, path, stop_at=None):
        self.path, self.stop_at = path, stop_at
        self.points, self.before = {}, {}

    def __call__(self, point):
        self.points[point.scale, point.iteration] = dict(point.metrics)
        if self.path.exists():
            self.before[point.scale, point.iteration] = ckpt.load(self.path)
        if (point.scale, point.iteration) == self.stop_at:
            raise Stopped

    def losses(self):
        return {
            place: {name: value for name, value in metrics.items() if name.endswith("_loss")}
            for place, metrics in self.points.items()
        }


class Stopped(Exception):
    """Stands for whatever ends a process in the middle of a scale."""


def real_chunks(count):
    """The first chunks of a real clip, every 13 frames of it, at SIZES."""
    film = next(path for path in sources.demo_sources() if "carphone" in str(path))
    chunks = video.decode_each(film, range(0, 13 * count, 13), num_frames=13)
    return [pyramid.build(frames, [pyramid.ScaleSize(*size) for size in SIZES]) for frames in chunks]


def several_pyramids(count):
    """The synthetic clip, then others: mirrored, upside down, backwards in time, …; for models of several samples."""
    clip = synthetic_clip()
    clips = [clip, clip[:, :, :, ::-1], clip[:, :, ::-1], clip[:, ::-1], clip[::-1]][:count]
    assert len(clips) == count
    return [real_pyramid(clip=np.ascontiguousarray(each)) for each in clips]


def in_default_type(pyramids):
    """As networks made now would have them: float64 in float64.py's context, else as they are."""
    kind = np.float64 if torch.get_default_dtype() == torch.float64 else np.float32
    return [[real.astype(kind, copy=False) for real in pyramid] for pyramid in pyramids]


def train(config, path, reals=None, *, samples=1, stop_at=None, scales=None):
    """Run train_clip over all scales, or only `scales` of them, or until the point `stop_at`; returns the Recorder."""
    recorder = Recorder(path, stop_at)
    pyramids = in_default_type([reals] if reals else several_pyramids(samples))
    iterator = train_clip(config, pyramids, clip_id=CLIP_ID, path=path, log=recorder)
    try:
        for done, _ in enumerate(iterator, start=1):
            if done == scales:
                break
    except Stopped:
        assert stop_at is not None
    else:
        assert stop_at is None, f"training never came to {stop_at}"
    return recorder


def leaves(value):
    """Everything in nested dictionaries, lists and tuples, in order."""
    if isinstance(value, dict):
        return [leaf for key in value for leaf in (key, *leaves(value[key]))]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def assert_same(a, b):
    """Two checkpoints hold the same training, bit for bit; how many seconds it took may differ."""
    for field in ("config", "sizes", "clip_id", "scale", "iteration", "noise_amps", "samples"):
        assert getattr(a, field) == getattr(b, field), field
    for field in ("generators", "critic", "optimizers"):
        ours, theirs = leaves(getattr(a, field)), leaves(getattr(b, field))
        assert len(ours) == len(theirs), field
        for x, y in zip(ours, theirs, strict=True):
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, field


def contents(checkpoint):
    """Everything that `assert_same` compares, as (field, place in it, bytes) to be counted."""
    fields = ("config", "sizes", "clip_id", "scale", "iteration", "noise_amps", "samples")
    items = [(field, 0, repr(getattr(checkpoint, field))) for field in fields]
    for field in ("generators", "critic", "optimizers"):
        for place, leaf in enumerate(leaves(getattr(checkpoint, field))):
            tensor = isinstance(leaf, torch.Tensor)
            items.append((field, place, leaf.numpy().tobytes() if tensor else repr(leaf)))
    return items


@contextmanager
def one_thread():
    """One order of summation, for bitwise comparisons; and tiny convolutions only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def every_test_of_this_folder_on_one_thread(request):
    if request.path.parent != Path(__file__).parent:  # tests/model/metrics
        yield
        return
    with one_thread():
        yield


@pytest.fixture(scope="session")
def reals():
    return real_pyramid()


@pytest.fixture(scope="session", params=["paper", "official"])
def history(request, tmp_path_factory):
    """A whole tiny training of each preset, with the checkpoint of every iteration: (config, Recorder, final)."""
    path = tmp_path_factory.mktemp(request.param) / "checkpoint.pt"
    config = tiny(request.param)
    with one_thread():
        recorder = train(config, path)
    return config, recorder, ckpt.load(path)

"""jobs/sample.py: applications of a given video or image, by the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from model.config import TrainConfig
from model.presets import demo, image_demo
from model.pyramid import training_pyramids
from model.training.loop import train_clip
from pipeline import image, video

from .conftest import Trained, make_video, run_job

TINY = {
    **{"channels": 4, "latent_dim": 4, "num_scales": 3, "min_size": 12, "max_size": 24, "iters_per_scale": 1},
    **{"patch_passes": 1, "patch_coarse_passes": 1, "patch_scale": 1, "precision": "float32"},
}


def trained_model(config: TrainConfig, frames: np.ndarray, folder: Path) -> Path:
    folder.mkdir()
    path = folder / "checkpoint.pt"
    for _ in train_clip(config, training_pyramids([frames], config), clip_id="clip", path=path, log=lambda point: None):
        pass
    return path


@pytest.fixture(scope="module")
def of_video(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model outside any experiment, and its clip."""
    folder = tmp_path_factory.mktemp("video")
    clip = make_video(folder / "clip.mp4")
    frames = video.decode(clip, num_frames=13, fps=24, max_height=256)
    return trained_model(replace(demo(), **TINY), frames, folder / "model"), clip  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def of_image(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("image")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    Image.fromarray(pixels).save(folder / "photo.png")
    config = replace(image_demo(), **TINY)  # type: ignore[arg-type]
    return trained_model(config, image.read(folder / "photo.png"), folder / "model"), folder / "photo.png"


def painted(path: Path, size: tuple[int, int], box: tuple[int, int, int, int], colour: object = 255) -> Path:
    """A black picture of (H, W) with a box (top, left, bottom, right)."""
    pixels = np.zeros((*size, len(colour)) if isinstance(colour, tuple) else size, np.uint8)
    pixels[box[0] : box[2], box[1] : box[3]] = colour
    Image.fromarray(pixels).save(path)
    return path


def apply(model: tuple[Path, Path], out: Path, *options: object, real: bool = True) -> tuple[int, str]:
    done = run_job("sample.py", model[0], *(("--real", model[1]) if real else ()), *map(str, options), "--out", out)
    return done.returncode, done.stdout


def frames(path: Path) -> np.ndarray:
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def test_an_edited_image_at_every_scale_and_what_the_mask_keeps(of_image: tuple[Path, Path], tmp_path: Path) -> None:
    original = np.asarray(Image.open(of_image[1]))
    edited = original.copy()
    edited[4:10, 4:10] = (255, 0, 0)
    Image.fromarray(edited).save(tmp_path / "edited.png")
    mask = painted(tmp_path / "mask.png", (24, 32), (4, 4, 10, 10))
    code, told = apply(of_image, tmp_path / "out", "--inject", tmp_path / "edited.png", "--mask", mask, "--grow", 1)
    assert code == 0, told
    names = [f"inject_scale{n}_seed0_000.png" for n in (1, 2)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*names, "sheet_inject_seed0.png"]
    for name in names:
        made = np.asarray(Image.open(tmp_path / "out" / name))
        assert np.array_equal(made[16:], original[16:]) and np.array_equal(made[:, 18:], original[:, 18:])
        assert not np.array_equal(made[4:10, 4:10], edited[4:10, 4:10])
    assert told == f"2 results of inject, 1×24×32 (T×H×W), of clip, seed 0, in {tmp_path / 'out'}\n"
    code, told = apply(of_image, tmp_path / "r", "--inject", tmp_path / "edited.png", "--mask", mask, "--scale", 2,
                       "--reference", of_image[1], "--n", 2)  # fmt: skip
    assert code == 0 and len(list((tmp_path / "r").glob("inject_scale2_seed0_*.png"))) == 2


def test_a_mask_of_another_size_is_scaled_and_said(of_image: tuple[Path, Path], tmp_path: Path) -> None:
    mask = painted(tmp_path / "mask.png", (48, 64), (8, 8, 20, 20))
    code, told = apply(of_image, tmp_path / "out", "--fill", "--mask", mask)
    assert code == 0 and told.splitlines()[0] == f"{mask}: scaled from 48×64 to 24×32 px"
    assert (tmp_path / "out" / "fill_seed0_000.png").is_file()


def test_videos_of_every_application(of_video: tuple[Path, Path], tmp_path: Path) -> None:
    mask = painted(tmp_path / "mask.png", (24, 32), (2, 2, 8, 8))
    keys, thing = tmp_path / "keys", tmp_path / "thing.png"
    keys.mkdir()
    clip = video.decode(of_video[1], num_frames=13, fps=24, max_height=24)
    for at in (0, 12):
        drawing = clip[at].copy()
        drawing[4:12, 4 + at : 12 + at] = (0, 0, 255)
        Image.fromarray(drawing).save(keys / f"{at}.png")
    painted(thing, (24, 32), (8, 8, 16, 16), (255, 0, 0, 255))
    cases = {
        ("--fill", "--mask", mask): ["fill_seed3_000"],
        ("--paint", keys, "--scale", 2): ["paint_scale2_seed3_000"],
        ("--over", thing, "--scale", 1, "--quantise", 4): ["over_scale1_seed3_000"],
        ("--extend", 5, "--extend-before", "0.1s", "--compare"): ["extend_seed3_000"],  # 0.1 s of 24 FPS: 2 frames
        ("--loop",): ["loop_seed3_000"],
        ("--retarget", "objects", "--size", "13x24x48"): ["retarget_seed3_000"],
        ("--enlarge", 2, "--inject", of_video[1]): ["enlarge_seed3_000"],
        ("--strength", "0,1"): ["strength0_seed3", "strength1_seed3"],
        ("--seed-to", 4, "--steps", 2): ["seed3_to_seed4_000", "seed3_to_seed4_001"],
        ("--fix-layout", "--n", 2): ["fix_layout_seed3_000", "fix_layout_seed3_001"],
        ("--fix-detail", "--n", 1): ["fix_detail_seed3_000"],
    }
    sizes = {
        "extend": (20, 24, 32, 3),
        "retarget": (13, 24, 48, 3),
        "enlarge": (13, 48, 64, 3),
        "loop": (24, 24, 32, 3),
    }
    sheets = {
        "paint_scale2_seed3_000": "paint_seed3",
        "over_scale1_seed3_000": "over_seed3",
        "strength0_seed3": "strength_seed3",
    }
    for place, (options, names) in enumerate(cases.items()):
        out = tmp_path / str(place)
        code, told = apply(of_video, out, *options, "--seed", 3)
        assert code == 0, told
        assert {path.name for path in out.iterdir()} == {
            *(f"{name}.{kind}" for name in names for kind in ("mp4", "gif")),
            *(["compare_extend_seed3.mp4"] if "--compare" in options else []),
            f"sheet_{sheets.get(names[0], names[0].removesuffix('_000'))}.png",
        }, options
        made = frames(out / f"{names[0]}.mp4")
        assert made.shape == sizes.get(names[0].split("_")[0], (13, 24, 32, 3))
        assert ("at the seam they change by" in told) == (options[0] == "--loop")


def test_the_clip_of_a_model_that_does_not_begin_at_the_start(of_video: tuple[Path, Path], tmp_path: Path) -> None:
    """--real clip.mp4@0.25 of 24 FPS: its frames from 6 on. --extend keeps them."""
    later = (of_video[0], Path(f"{of_video[1]}@0.25"))
    assert apply(later, tmp_path / "out", "--extend", 1)[0] == 0
    clip = video.decode(of_video[1], start_frame=6, num_frames=13, fps=24, max_height=24).astype(int)
    first = video.decode(of_video[1], num_frames=13, fps=24, max_height=24).astype(int)
    kept = frames(tmp_path / "out" / "extend_seed0_000.mp4")[:13].astype(int)
    assert abs(kept - clip).mean() < abs(kept - first).mean()


def test_samples_that_are_kept_are_those_of_their_numbers(of_video: tuple[Path, Path], tmp_path: Path) -> None:
    assert apply(of_video, tmp_path / "all", "--n", 8)[0] == 0
    code, told = apply(of_video, tmp_path / "kept", "--keep", 2)
    kept = sorted((tmp_path / "kept").glob("*.mp4"))
    assert code == 0 and told.startswith("2 videos of 13×24×32") and len(kept) == 2
    for path in kept:
        assert path.read_bytes() == (tmp_path / "all" / path.name).read_bytes()


def test_the_clip_is_found_in_the_experiment_around_the_checkpoint(trained: Trained, tmp_path: Path) -> None:
    """Of a model whose scales are all trained, which needs no clip for its samples."""
    checkpoint = trained.clips["good"] / "checkpoint.pt"
    code, told = apply((checkpoint, checkpoint), tmp_path / "out", "--extend", 3, real=False)
    assert code == 0, told
    made = frames(tmp_path / "out" / "extend_seed0_000.mp4")
    assert made.shape == (16, 30, 40, 3)


def test_what_cannot_be_is_one_line(of_video: tuple[Path, Path], of_image: tuple[Path, Path], tmp_path: Path) -> None:
    mask, empty = (
        painted(tmp_path / "mask.png", (24, 32), (2, 2, 8, 8)),
        painted(tmp_path / "e.png", (24, 32), (0, 0, 0, 0)),
    )
    full, wrong = (
        painted(tmp_path / "f.png", (24, 32), (0, 0, 24, 32)),
        painted(tmp_path / "w.png", (24, 24), (2, 2, 8, 8)),
    )
    clear = painted(tmp_path / "clear.png", (24, 32), (8, 8, 16, 16), (255, 0, 0, 255))
    short = make_video(tmp_path / "short.mp4", seconds=0.25)
    text = tmp_path / "text.png"
    text.write_text("no picture\n" * 9)
    photo = of_image[1]
    of_either = {
        ("--fill",): "--fill: needs --mask FILE",
        ("--scale", 2): "--scale: is an option of --inject, --paint, --over; leave it out",
        ("--loop", "--feather", 2): "--feather: is an option of --inject, --paint, --over; leave it out",
        ("--inject", photo, "--grow", 2): "--grow: needs --mask FILE",
        ("--inject", photo, "--n", 2): "--n: --inject has as many results as steps or scales",
        ("--fill", "--mask", mask, "--grow", "nan"): "--grow and --feather: from 0 to 10000 px",
        ("--seed-to", -1): "--seed-to -1: 0 or more",
        ("--steps", 3): "--steps: is an option of --seed-to; leave it out",
        ("--loop", "--z-frames", 4): "--z-frames: is of plain samples; leave it out",
        ("--inject", photo, "--scale", "x"): "--scale x: a number from 1, or auto",
        ("--inject", photo, "--scale", 9): "--scale 9: a video enters at a scale from 1 to 2, the finest",
        ("--inject", photo, "--over", clear): "--inject and --over: one of them at a time",
        ("--loop", "--extend", 3): "--extend and --loop: one of them at a time",
        ("--inject", photo, "--extend", 3): "--inject: --extend is made of the clip itself",
        ("--retarget", "layout"): "--retarget and --size go together",
        ("--enlarge", 1): "--enlarge 1: above 1, at most 8",
        ("--strength", "0,2"): "--strength 0,2: numbers from 0",
        ("--inject", clear, "--scale", 1): f"{clear}: has transparent pixels, and there is no mask; give it as --over",
        ("--inject", text, "--scale", 1): f"{text}: is a text file, not an image",
        ("--inject", tmp_path / "none.png", "--scale", 1): "none.png: no such file",
        ("--inject", photo, "--scale", 1, "--finish", "generators"): "its fine scales were never trained",
        ("--fill", "--mask", empty): f"{empty}: the mask is empty",
        ("--fill", "--mask", full): f"{full}: the mask covers everything",
        ("--fill", "--mask", wrong): f"{wrong}: the mask has 24×24 px, the video 24×32",
        ("--keep", 2, "--fill", "--mask", mask): "--keep: is of plain samples; leave it out",
        ("--keep", 2, "--n", 3): "--keep and --n",
    }
    for model in (of_video, of_image):
        for options, told in of_either.items():
            code, line = apply(model, tmp_path / "out", *options)
            assert (code, told in line.splitlines()[-1], line.count("error: ")) == (2, True, 1), (options, line)
    own = {
        (of_video, "--inject", short, "--scale", 1): "short.mp4: has 6 frames at 24 FPS, 13 are needed",
        (of_video, "--paint", photo, "--frame", 13): "for frame 13, the video has frames 0 to 12",
        (of_video, "--retarget", "layout", "--size", "25x24x48"): "--retarget: keeps the clip's 13 frames",
        (of_image, "--inject", of_video[1], "--scale", 1): "clip.mp4: is no image, and the model is of images",
        (of_image, "--loop"): "an image does not move",
        (of_image, "--extend", 3): "an image has one frame",
    }
    for (model, *options), told in own.items():
        code, line = apply(model, tmp_path / "out", *options)
        assert (code, told in line.splitlines()[-1], line.count("error: ")) == (2, True, 1), (options, line)
    assert not (tmp_path / "out").exists()
    code, line = apply(of_video, tmp_path / "out", "--extend", 3, real=False)
    assert (code, line.count("\n")) == (2, 1) and "give --real CLIP" in line

"""jobs/sample.py: applications of a given video or image, by the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress, TaskID
from skimage.transform import resize

from jobs import sample
from jobs.reports.pictures import contact_sheet
from jobs.sampling import run
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
    assert told.endswith(f"\n2 results of inject, 1×24×32 (T×H×W), of clip, seed 0, in {tmp_path / 'out'}\n")
    code, told = apply(of_image, tmp_path / "r", "--inject", tmp_path / "edited.png", "--mask", mask, "--scale", 2,
                       "--reference", of_image[1], "--n", 2)  # fmt: skip
    assert code == 0 and len(list((tmp_path / "r").glob("inject_scale2_seed0_*.png"))) == 2


def test_a_mask_of_another_size_is_scaled_and_said(of_image: tuple[Path, Path], tmp_path: Path) -> None:
    mask = painted(tmp_path / "mask.png", (48, 64), (8, 8, 20, 20))
    code, told = apply(of_image, tmp_path / "out", "--fill", "--mask", mask)
    assert code == 0 and told.splitlines()[0] == f"{mask}: scaled from 48×64 to 24×32 px"
    assert (tmp_path / "out" / "fill_seed0_000.png").is_file()


@pytest.mark.slow
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


@pytest.mark.slow
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
        ("--scale", 2): "--scale: is an option of applications; leave it out",
        ("--loop", "--feather", 2): "--feather: --loop does not have it; leave it out",
        ("--inject", photo, "--grow", 2): "--grow: needs --mask FILE",
        ("--inject", photo, "--n", 2): "--n: --scale auto has one result a scale; leave --n out, or give --scale N",
        ("--fill", "--mask", mask, "--grow", "10001"): "--grow and --feather: from 0 to 10000 px",
        ("--seed-to", -1): "--seed-to -1: 0 or more",
        ("--steps", 3): "--steps: is an option of applications; leave it out",
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
        ("--inject", photo, "--scale", 1, "--finish", "generators"): "or train with --method singan",
        ("--fill", "--mask", empty): f"{empty}: the mask is empty",
        ("--fill", "--mask", full): f"{full}: the mask covers everything",
        ("--keep", 2, "--fill", "--mask", mask): "--keep: is of plain samples; leave it out",
        ("--keep", 2, "--n", 3): "--keep and --n",
    }
    for model in (of_video, of_image):
        for options, told in of_either.items():
            code, line = apply(model, tmp_path / "out", *options)
            assert (code, told in line.splitlines()[-1], line.count("error: ")) == (2, True, 1), (options, line)
    own = {
        (of_video, "--inject", short, "--scale", 1): "short.mp4: has 6 frames at 24 FPS, 13 are needed",
        (of_video, "--fill", "--mask", wrong): f"{wrong}: the mask has 24×24 px, the video 24×32",
        (of_image, "--fill", "--mask", wrong): f"{wrong}: the mask has 24×24 px, the image 24×32",
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


def told_here(
    capsys: pytest.CaptureFixture[str], model: tuple[Path, Path], out: Path, *options: object
) -> tuple[int, str]:
    """As `apply`, in this process."""
    code = sample.main([str(model[0]), "--real", str(model[1]), *map(str, options), "--out", str(out)])
    return code, capsys.readouterr().out


def test_what_is_given_wrongly_is_named(
    of_video: tuple[Path, Path], of_image: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its file, or by the option where that is wrong."""
    photo, keys = of_image[1], tmp_path / "keys"
    keys.mkdir()
    Image.open(photo).save(keys / "99.png")
    opaque, square = painted(tmp_path / "o.png", (24, 32), (0, 0, 9, 9)), tmp_path / "square.png"
    painted(square, (24, 24), (2, 2, 8, 8), (255, 0, 0, 255))
    clear = painted(tmp_path / "clear.png", (24, 32), (0, 0, 0, 0), (0, 0, 0, 0))
    mask = painted(tmp_path / "mask.png", (24, 32), (2, 2, 8, 8))
    still = tmp_path / "still.png"
    Image.fromarray(video.decode(of_video[1], num_frames=1, fps=24, max_height=24)[0]).save(still)
    cases: dict[tuple[object, ...], str] = {
        (of_video, "--over", opaque, "--scale", 1): f"{opaque}: the object has no transparent pixel",
        (of_video, "--over", square, "--scale", 1): f"{square}: the object has 24×24 px, the video 24×32",
        (of_image, "--over", square, "--scale", 1): f"{square}: the object has 24×24 px, the image 24×32",
        (of_video, "--over", clear, "--scale", 1): f"{clear}: what is laid over the clip is transparent everywhere",
        (of_image, "--paint", photo, "--scale", 1): f"{photo}: the drawing of frame 0 differs nowhere",
        (of_video, "--paint", keys, "--scale", 1): f"{keys}: a drawing is for frame 99, and the video has frames 0 to",
        (of_video, "--paint", photo, "--frame", 99): "--frame 99: the clip's first frame is 0, its last 12",
        (of_video, "--paint", photo, "--frame", -1): "--frame -1: the clip's first frame is 0, its last 12",
        (of_video, "--inject", photo, "--mask", mask, "--grow", 1e4): "grown by 10000 px the mask covers every",
        (of_video, "--loop", "--inject", still): "--loop: all frames are the same picture, which does not move",
        (of_image, "--enlarge", 1.01): "a factor of 1.01: 24×32 px become no larger by it; give 2 or 4",
        (of_video, "--inject", f"{photo}@0.2"): f"{photo}: is an image, which has no times; leave out @0.2",
        (of_video, "--inject", f"{of_video[1]}@0.75"): "13 are needed from frame 18 on; give a longer video, or an ear",
        (of_video, "--loop", "--finish", "patches"): "--finish: --loop does not have it; leave it out",
        (of_video, "--keep", 10**9): "keeping 1,000,000,000 of 4,000,000,000 samples of 13×24×32 needs",
        (of_video, "--keep", 2, "--size", "13x24x48"): "--keep: scores samples of 13×24×32, these are of 13×24×48",
    }
    for (model, *options), told in cases.items():
        code, line = told_here(capsys, model, tmp_path / "out", *options)  # type: ignore[arg-type]
        assert (code, told in line.splitlines()[-1], line.count("error: ")) == (2, True, 1), (options, line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told", "advice"),
    [
        (["--strength"], "5 results; give a folder, or one number to --strength", ["--strength", "0.5"]),
        (["--inject", "CLIP"], "2 results; give a folder, or --scale N", ["--inject", "CLIP", "--scale", "2"]),
        (["--seed-to", "1", "--steps", "2"], "2 results; give a folder", None),
        (
            ["--fix-layout"],
            "4 results; give a folder, or --n 1, or --only and one number",
            ["--fix-layout", "--n", "1"],
        ),
        (["--only", "1,2"], "2 results; give a folder, or --n 1, or --only and one number", ["--only", "1"]),
        (["--keep", "2"], "2 results; give a folder, or --keep 1", ["--keep", "1"]),
        (["--strength", "0.5", "--n", "1"], "--n: --strength has one result a strength; leave --n out", None),
        (["--seed-to", "1", "--only", "1"], "--only: --seed-to has one result a step; leave --only out", None),
    ],
)
def test_the_advice_on_one_file_is_followed_by_one_file(
    options: list[str],
    told: str,
    advice: list[str] | None,
    of_video: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def at_clip(words: list[str]) -> list[str]:
        return [word.replace("CLIP", str(of_video[1])) for word in words]

    code, line = told_here(capsys, of_video, tmp_path / "one.mp4", *at_clip(options))
    assert code == 2 and line.rstrip().endswith(told)
    if advice:
        assert told_here(capsys, of_video, tmp_path / "one.mp4", *at_clip(advice))[0] == 0
        assert [path.name for path in tmp_path.iterdir()] == ["one.mp4"]


def test_an_mkv_holds_what_stays_to_the_bit(
    of_video: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an edit outside its mask, and of --extend the clip's own frames; the clip's size is that of the model."""
    clip = tmp_path / "clip.mkv"
    frames = np.random.default_rng(0).integers(0, 256, (13, 24, 32, 3), dtype=np.uint8)
    video.encode(frames, clip)
    edited, mask = frames.copy(), painted(tmp_path / "mask.png", (24, 32), (4, 4, 10, 10))
    edited[:, 4:10, 4:10] = (255, 0, 0)
    video.encode(edited, tmp_path / "edited.mkv")
    model = (of_video[0], clip)
    options = ("--inject", tmp_path / "edited.mkv", "--mask", mask, "--scale", 2, "--grow", 1)
    assert told_here(capsys, model, tmp_path / "made.mkv", *options)[0] == 0
    made = video.decode(tmp_path / "made.mkv", num_frames=13, fps=24)
    assert np.array_equal(made[:, 16:], frames[:, 16:]) and np.array_equal(made[:, :, 18:], frames[:, :, 18:])
    assert not np.array_equal(made[:, 4:10, 4:10], edited[:, 4:10, 4:10])
    assert told_here(capsys, model, tmp_path / "longer.mkv", "--extend", 2)[0] == 0
    longer = video.decode(tmp_path / "longer.mkv", num_frames=15, fps=24)
    assert np.array_equal(longer[:13], frames)


def test_what_is_given_may_begin_later(
    of_video: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FILE@0.25 of 24 FPS is what its frames from 6 on are; of --inject and --mask."""
    random = np.random.default_rng(0)
    given, masks = random.integers(0, 256, (24, 24, 32, 3), dtype=np.uint8), np.zeros((24, 24, 32, 3), np.uint8)
    for frame in range(24):
        masks[frame, 8:12, frame : frame + 4] = 255
    made = []
    for start in (0, 6):
        for name, frames in (("given", given), ("mask", masks)):
            video.encode(frames[start:], tmp_path / f"{name}{start}.mkv")
    for given_as, mask_as in (("given6.mkv", "mask6.mkv"), ("given0.mkv@0.25", "mask0.mkv@0.25s")):
        options = ("--inject", tmp_path / given_as, "--mask", tmp_path / mask_as, "--scale", 2)
        code, told = told_here(capsys, of_video, tmp_path / "made.mkv", *options)
        assert code == 0, told
        made.append(video.decode(tmp_path / "made.mkv", fps=24))
    assert np.array_equal(*made) and made[0].shape == (13, 24, 32, 3)
    assert f"{tmp_path / 'given0.mkv'}: 13 of 24 frames, from frame 6 on\n" in told


def test_what_is_brought_to_another_size_is_said(
    of_image: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the sizes of the files; nothing is said of what has the model's size."""
    picture = np.asarray(Image.open(of_image[1])).copy()
    drawn = picture.copy()
    drawn[4:10, 4:10] = own = picture[0, 0]  # a colour of the clip, of which nothing is said
    Image.fromarray(drawn).save(tmp_path / "same.png")
    large, wide = tmp_path / "large.png", tmp_path / "wide.png"
    Image.fromarray(drawn.repeat(40, 0).repeat(40, 1)).save(large)
    Image.fromarray(drawn.repeat(2, 1)).save(wide)
    (tmp_path / "drawings").mkdir()
    (tmp_path / "drawings" / "0.png").write_bytes(large.read_bytes())
    thing = painted(tmp_path / "thing.png", (48, 64), (16, 16, 32, 32), (*own.tolist(), 255))
    cases = {
        ("--inject", large): [f"{large}: scaled from 960×1280 to 24×32 px"],
        ("--inject", wide): [f"{wide}: stretched from 24×64 to 24×32 px"],
        ("--paint", large): [f"{large}: scaled from 960×1280 to 24×32 px"],
        ("--over", thing): [f"{thing}: scaled from 48×64 to 24×32 px"],
        ("--paint", tmp_path / "drawings"): [f"{tmp_path / 'drawings'}: scaled from 960×1280 to 24×32 px"],
        ("--inject", tmp_path / "same.png"): [],
    }
    for options, lines in cases.items():
        code, told = told_here(capsys, of_image, tmp_path / "out.png", *options, "--scale", 2)
        assert code == 0 and told.splitlines()[:-1] == lines, told


def test_the_sheet_shows_the_clip_beside_results_of_another_size(
    of_image: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its height or width is theirs, without distortion."""
    clip = np.asarray(Image.open(of_image[1]))
    beside = np.zeros((24, 64, 3), np.uint8)
    beside[:, :32] = clip
    large = resize(clip, (48, 64), order=1, preserve_range=True).round().astype(np.uint8)
    cases = {
        ("--retarget", "objects", "--size", "24x64"): ("retarget", beside),
        ("--enlarge", 2): ("enlarge", large),
        ("--enlarge", 2, "--inject", of_image[1]): ("enlarge", large),
    }
    for options, (name, first) in cases.items():
        code, told = told_here(capsys, of_image, tmp_path, *options)
        assert code == 0, told
        result = np.asarray(Image.open(tmp_path / f"{name}_seed0_000.png"))
        sheet = contact_sheet({"inject" if "--inject" in options else "clip": first, f"{name} 0": result})
        written = np.asarray(Image.open(tmp_path / f"sheet_{name}_seed0.png")).astype(int)
        assert np.abs(written - sheet).max() <= 1  # two libraries round what is enlarged


def test_colours_that_patches_cannot_make_are_said(
    of_image: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what would keep them, when they enter; nothing is said of the clip's own colours."""
    Image.new("RGB", (32, 24), (200, 40, 40)).save(tmp_path / "clip.png")
    clip = np.asarray(Image.open(tmp_path / "clip.png"))
    model = trained_model(replace(image_demo(), **TINY), clip[None], tmp_path / "model")  # type: ignore[arg-type]
    drawn = clip.copy()
    drawn[:12, :16] = (40, 200, 40)
    green, own = tmp_path / "green.png", tmp_path / "own.png"
    Image.fromarray(drawn).save(green)
    Image.fromarray(clip).save(own)
    mask = painted(tmp_path / "mask.png", (24, 32), (0, 0, 12, 32))
    thing = painted(tmp_path / "thing.png", (24, 32), (8, 8, 16, 16), (40, 200, 40, 255))
    lost, keeps = (
        "of it has colours that the clip lacks, and the clip's patches take their place",
        "a model of ",
    )
    keeps += "--method singan keeps colours"
    cases = {
        ("--inject", green): [f"{green}: 25% {lost}; --hold 1 keeps its shape; {keeps}"],
        ("--inject", green, "--mask", mask): [f"{green}: 50% {lost}; --hold 1 keeps its shape; {keeps}"],
        ("--inject", green, "--hold", 1): [f"{green}: 25% {lost}; {keeps}"],
        ("--over", thing): [f"{thing}: 100% {lost}; {keeps}"],
        ("--paint", green): [f"{green}: 100% {lost}; {keeps}"],
        ("--inject", green, "--quantise", 2): [],
        ("--inject", own): [],
    }
    for options, lines in cases.items():
        code, told = told_here(capsys, (model, tmp_path / "clip.png"), tmp_path / "out.png", *options, "--scale", 2)
        assert code == 0 and told.splitlines()[:-1] == lines, told


@pytest.mark.parametrize("options", [["--extend", "2"], ["--loop"], ["--enlarge", "2"], ["--strength", "0,1"]])
def test_the_bar_goes_on_within_a_result(
    options: list[str],
    of_video: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[float] = []

    class Watched(Progress):
        def advance(self, task_id: TaskID, advance: float = 1) -> None:
            told.append(advance)
            super().advance(task_id, advance)

    monkeypatch.setattr(run, "Progress", Watched)
    results = len(options[1].split(",")) if options[0] == "--strength" else 1
    assert told_here(capsys, of_video, tmp_path / "out", *options)[0] == 0
    assert min(told) > 0 and sum(told) == pytest.approx(results) and len(told) >= 2 * results

"""jobs/sample.py: everything from the checkpoint file alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch

import model
from jobs import sample
from model import device
from model.sampling import sampler as sampling
from pipeline import video
from tests.model.test_official import ARGS, Reference, write

from .conftest import Trained, run_job


def frames(path: Path) -> np.ndarray:
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


@pytest.fixture(scope="module")
def alone(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint copied away from everything else that was made."""
    path = tmp_path_factory.mktemp("alone") / "model.pt"
    shutil.copy(trained.clips["good"] / "checkpoint.pt", path)
    return path


def test_same_seed_same_videos_whatever_their_number(alone: Path, tmp_path: Path) -> None:
    for out, n, seed in (("one", 2, 3), ("two", 3, 3), ("other", 2, 4)):
        done = run_job("sample.py", alone, "--n", str(n), "--seed", str(seed), "--out", tmp_path / out)
        assert done.returncode == 0, done.stdout
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        f"sample_seed3_{i:03d}.{kind}" for i in range(3) for kind in ("mp4", "gif")
    }
    first, second = (frames(tmp_path / "one" / f"sample_seed3_00{i}.mp4") for i in range(2))
    assert first.shape == (13, 30, 40, 3)
    assert (first == frames(tmp_path / "two" / "sample_seed3_000.mp4")).all()
    assert (second == frames(tmp_path / "two" / "sample_seed3_001.mp4")).all()
    assert (first != second).mean() > 0.2
    assert (first != frames(tmp_path / "other" / "sample_seed4_000.mp4")).mean() > 0.2


def test_samples_that_one_likes_come_again_beside_those_of_another_seed(alone: Path, tmp_path: Path) -> None:
    """By the seed and the number in the name; into a folder or a file of one's own."""
    for seed, options in ((3, ("--n", "2")), (4, ("--only", "1,0,1"))):
        assert run_job("sample.py", alone, "--seed", str(seed), *options, "--out", tmp_path / "all").returncode == 0
    made = {path.name: path.read_bytes() for path in (tmp_path / "all").iterdir()}
    assert set(made) == {f"sample_seed{s}_00{i}.{kind}" for s in (3, 4) for i in (0, 1) for kind in ("mp4", "gif")}
    for name, flags in (("sample_seed3_001.mp4", ("--seed", "3")), ("sample_seed4_001.gif", ("--seed", "4"))):
        file = tmp_path / "liked" / f"mine{name[-4:]}"
        done = run_job("sample.py", alone, *flags, "--only", "1", "--out", file)
        assert done.returncode == 0 and "1 video of 13×30×40 (T×H×W)" in done.stdout and str(file) in done.stdout
        assert file.read_bytes() == made[name]
    assert {path.name for path in (tmp_path / "liked").iterdir()} == {"mine.mp4", "mine.gif"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--n", "2", "--out", "x.mp4"), "--out x.mp4: is one file, and there are 2 results; give a folder, or --n 1,"),
        (("--n", "1", "--out", "x.webm"), "--out x.webm: a video is not written as .webm; give .mp4, .mkv or .gif"),
        (("--n", "1", "--out", "x.png"), "--out x.png: a video is not written as .png; give .mp4, .mkv or .gif, or"),
        (
            ("--only", "1,x", "--out", "o"),
            "--only 1,x: numbers of samples from 0 with commas between them, such as 3,7",
        ),
        (("--only", "1", "--n", "1", "--out", "o"), "--n and --only: --n 3 is --only 0,1,2; leave out one of them"),
        (("--only", "1", "--keep", "1", "--out", "o"), "--keep and --n or --only: --keep N draws 4N; leave out the"),
        (
            ("--n", "1", "--out", "/proc/none/x"),
            "--out /proc/none/x: cannot be made (No such file or directory); give a",
        ),
        (("--n", "1", "--size", "1.2.3sx30x40", "--out", "o"), "--size 1.2.3s: write frames, such as 48, or seconds"),
        (("--only", "1", "--strength", "--out", "o"), "--only: --strength has one result a strength; leave --only out"),
    ],
)
def test_a_file_or_numbers_that_cannot_be_are_one_line(
    options: tuple[str, ...], told: str, alone: Path, tmp_path: Path
) -> None:
    refused = run_job("sample.py", alone, *options, cwd=tmp_path)
    assert refused.returncode == 2 and refused.stdout.startswith(f"error: {told}"), refused.stdout
    assert len(refused.stdout.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_clip_s_folder_is_as_good_as_its_checkpoint(trained: Trained, alone: Path, tmp_path: Path) -> None:
    """Of sample.py, with its clip in a comparison; of --real; and of `load`."""
    folder = trained.clips["good"]
    done = run_job("sample.py", folder, "--n", "2", "--compare", "--out", tmp_path / "folder")
    assert done.returncode == 0, done.stdout
    assert model.load(str(folder)).name == folder.name
    given = run_job("sample.py", alone, "--real", folder, "--n", "2", "--compare", "--out", tmp_path / "real")
    assert given.returncode == 0, given.stdout
    names = {path.name for path in (tmp_path / "folder").iterdir()}
    assert names == {f"sample_seed0_00{i}.{kind}" for i in (0, 1) for kind in ("mp4", "gif")} | {"compare_seed0.mp4"}
    for name in names:
        assert (tmp_path / "folder" / name).read_bytes() == (tmp_path / "real" / name).read_bytes()
    page = video.decode(tmp_path / "folder" / "compare_seed0.mp4").astype(int)
    assert len(page) % 13 == 0 and len(page) >= 96 and page.shape[2] >= 1200
    # original, reconstruction, sample 0, sample 1: each 40 px wide, 8 times as large, 8 px apart
    columns = [page[0, 32 : 32 + 240, left : left + 320][4::8, 4::8] for left in (8, 336, 664, 992)]
    real = video.decode(folder / "samples" / "real.mp4")[0].astype(int)
    reconstruction = video.decode(folder / "samples" / "reconstruction.mp4")[0].astype(int)
    samples = [video.decode(tmp_path / "folder" / f"sample_seed0_00{i}.mp4")[0].astype(int) for i in (0, 1)]
    for place, column in enumerate(columns):  # brightness alone: H.264 halves the resolution of colours
        far = [abs((column - own).mean(axis=-1)).mean() for own in (real, reconstruction, *samples)]
        assert min(far) == far[place] < 12


def test_what_a_comparison_cannot_show_is_one_line(trained: Trained, alone: Path, tmp_path: Path) -> None:
    for options, told in (
        ((alone, "--out", tmp_path / "o"), "give --real CLIP"),
        ((trained.clips["good"], "--size", "13x30x80", "--out", tmp_path / "o"), "leave --size out"),
        ((trained.clips["good"], "--n", "1", "--out", tmp_path / "o.mp4"), "give a folder as --out"),
    ):
        refused = run_job("sample.py", *options, "--compare")
        assert refused.returncode == 2 and told in refused.stdout and len(refused.stdout.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_model_is_one_line(trained: Trained, tmp_path: Path) -> None:
    for folder in (trained.base, tmp_path):
        refused = run_job("sample.py", folder, "--out", tmp_path / "out")
        told = (
            f"{folder}: holds no checkpoint.pt of a clip, and no netG.pth of the authors' code; give the folder of one"
        )
        assert refused.returncode == 2 and told in refused.stdout and len(refused.stdout.splitlines()) == 1
    refused = run_job("sample.py", tmp_path / "nothing", "--out", tmp_path / "out")
    assert refused.returncode == 2 and "nothing" in refused.stdout and len(refused.stdout.splitlines()) == 1


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_checkpoint_is_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "broken.pt"
    if content is not None:
        path.write_bytes(content)
    refused = run_job("sample.py", path, "--out", tmp_path / "out")
    assert refused.returncode == 2
    assert "broken.pt" in refused.stdout and len(refused.stdout.strip().splitlines()) == 1


def test_a_folder_of_the_authors_code(tmp_path: Path) -> None:
    """Sizes from args.txt; without it 16:9, which is said; without netG.pth one line."""
    options = {"img_size": 40, "min_size": 20, "stop_scale": 1, "stop_scale_time": 1, "vae_levels": 1, "ar": 0.75}
    write(tmp_path, Reference(width=4, latent=4, scales=2).state_dict(), amps=[1, 0.1], args=ARGS | options)
    done = run_job("sample.py", tmp_path, "--n", "1", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout
    assert frames(tmp_path / "out" / "sample_seed0_000.mp4").shape == (13, 30, 40, 3)
    assert len(done.stdout.strip().splitlines()) == 1 and "13×30×40" in done.stdout
    (tmp_path / "args.txt").unlink()
    done = run_job("sample.py", tmp_path, "--n", "1", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout
    assert "no args.txt" in done.stdout and "13×144×256" in done.stdout
    (tmp_path / "netG.pth").unlink()
    refused = run_job("sample.py", tmp_path, "--out", tmp_path / "out")
    assert refused.returncode == 2
    assert f"{tmp_path}: holds no checkpoint.pt of a clip, and no netG.pth" in refused.stdout
    assert len(refused.stdout.strip().splitlines()) == 1


# -- --precision and --z-frames


def test_precision_and_the_frames_of_z(alone: Path, tmp_path: Path) -> None:
    def made(name: str, *more: str) -> np.ndarray:
        assert sample.main([str(alone), "--n", "1", *more, "--out", str(tmp_path / name)]) == 0
        return frames(tmp_path / name / "sample_seed0_000.mp4").astype(int)

    plain, float32, bf16 = made("plain"), made("float32", "--precision", "float32"), made("bf16", "--precision", "bf16")
    native = {"float32": float32, "bf16": bf16}[device.resolve("auto", torch.device("cpu"))]
    assert (plain == native).all()  # as it was trained: auto
    assert 0 < np.abs(bf16 - float32).mean() < 20
    as_eval_video = made("z", "--z-frames", "13")
    assert as_eval_video.shape == plain.shape and np.abs(as_eval_video - plain).mean() > 5
    assert (made("as trained", "--z-frames", "4") == plain).all()


def test_frames_of_z_that_cannot_be_are_one_line(
    alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample.main([str(alone), "--z-frames", "0", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().out == "error: --z-frames 0: from 1 to 1000\n"


# -- --size


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ("2x30", "write frames x height x width, such as 13x256x1024"),
        ("13x30x-40", "write frames x height x width"),
        ("13,30,40", "write frames x height x width"),
        ("1e3x30x40", "write frames x height x width"),
        ("9999997x30x40", "--size: a video of 9999997×30×40 needs "),
        (f"{12 * 10**15 + 1}x3000x4000", " are there; make it smaller"),
        ("13x999999x999999", "pixels a frame; make it smaller"),
        ("13x9999999x9999999", "--size 13x9999999x9999999: more than 67,108,864 pixels a frame; make it smaller"),
        ("999997x3000x4000", " are there; make it smaller"),
        (
            "26x30x40",
            "--size: 26x30x40: 26 frames cannot be divided among the scales; give 1 + a multiple of 12, such as 25x3",
        ),
        ("13x30x8", "is the least"),
        ("1x30x40", "is the least"),
        ("13x0x40", "--size: 13x0x40: smaller than what the networks see at the coarsest scale; 13x"),
    ],
)
def test_a_size_that_cannot_be_made_is_one_line(
    size: str, told: str, alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample.main([str(alone), f"--size={size}", "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("error: ") and told in line
    assert not (tmp_path / "out").exists()


def test_the_least_size_that_is_named_is_made(alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.main([str(alone), "--size", "13x8x8", "--out", str(tmp_path)]) == 2
    least = capsys.readouterr().out.split("; ")[1].split()[0]
    assert sample.main([str(alone), "--n", "1", "--size", least, "--out", str(tmp_path)]) == 0
    assert "×".join(least.split("x")) in capsys.readouterr().out


def test_a_size_in_seconds_is_one_that_can_be_made(alone: Path, tmp_path: Path) -> None:
    """1 s at 24 FPS, whose scales have 1 + a multiple of 12 frames, is 25: the last begins 1 s after the first."""
    for size, frames_of in (("1sx30x40", 25), ("0.6sx30x40", 13), ("0.1s×30×40", 13)):
        done = run_job("sample.py", alone, "--n", "1", "--size", size, "--out", tmp_path / "out")
        assert done.returncode == 0 and f"1 video of {frames_of}×30×40" in done.stdout, done.stdout


def test_wide_and_long_videos(alone: Path, tmp_path: Path) -> None:
    """As a user runs it; longer ones play longer, and sample 0 does not depend on --n."""
    for out, n in (("one", "1"), ("two", "2")):
        done = run_job("sample.py", alone, "--n", n, "--size", "25x36x160", "--out", tmp_path / out)
        assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == 1 and "2 videos of 25×36×160" in done.stdout
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [f"sample_seed0_00{i}.mp4" for i in range(2)]
    first, again, other = (
        frames(tmp_path / out / f"sample_seed0_00{i}.mp4") for out, i in (("one", 0), ("two", 0), ("two", 1))
    )
    assert first.shape == (25, 36, 160, 3)
    assert (first == again).all() and (first != other).mean() > 0.2
    assert video.probe(tmp_path / "one" / "sample_seed0_000.mp4").fps == 24.0


def test_the_clips_own_size_is_what_comes_without_it(alone: Path, tmp_path: Path) -> None:
    for out, more in (("plain", []), ("size", ["--size", "13×30×40"])):
        assert sample.main([str(alone), "--n", "1", *more, "--out", str(tmp_path / out)]) == 0
    for name in ("sample_seed0_000.mp4", "sample_seed0_000.gif"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "size" / name).read_bytes()


def test_a_video_in_tiles_is_the_video(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run after run of frames into the file, against the whole at once; in float32, whose rounding is not seen."""
    monkeypatch.setattr(device, "resolve", lambda precision, device: "float32")
    command = [str(alone), "--n", "1", "--size", "61x30x40"]
    assert sample.main([*command, "--out", str(tmp_path / "whole")]) == 0
    runs = []

    def sample_in_parts(*args: Any, **options: Any) -> Iterator[torch.Tensor]:
        for made in plain(*args, **options, limit=1):
            runs.append(made.shape[2])
            yield made

    plain = sampling.sample_in_parts
    monkeypatch.setattr(sampling, "sample_in_parts", sample_in_parts)
    assert sample.main([*command, "--out", str(tmp_path / "tiles")]) == 0
    assert len(runs) > 1 and sum(runs) == 61
    tiles, whole = (frames(tmp_path / name / "sample_seed0_000.mp4").astype(int) for name in ("tiles", "whole"))
    assert tiles.shape == whole.shape == (61, 30, 40, 3)
    # Where a rounded grey level differs, H.264 may decide otherwise for a block: 2.6 levels were seen. A frame out of
    # its place would be as far as frames are apart, 7.8.
    assert abs(tiles - whole).mean() < 0.5 * abs(whole[1:] - whole[:-1]).mean()


def test_a_video_that_cannot_be_written_is_one_line(
    alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sample_seed0_000.mp4").mkdir()
    assert sample.main([str(alone), "--n", "1", "--size", "13x30x80", "--out", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("error: ") and "sample_seed0_000.mp4" in line
    assert [path.name for path in tmp_path.iterdir()] == ["sample_seed0_000.mp4"]

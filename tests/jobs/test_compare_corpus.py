"""jobs/compare_corpus.py on a small set in UCF-101's layout, cut from real clips; every answer is known beforehand."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from jobs import compare_corpus
from jobs.comparison.neighbours import ComparedSample, nearest_two, source_of
from jobs.comparison.tables import Comparison, not_the_papers
from jobs.comparison.vectors import EmbeddedClip, VectorCache, clip_vectors
from jobs.comparison.video_sets import video_set
from jobs.evaluation.sample_folder import list_videos
from model import checkpoint
from model.config import TrainConfig
from model.metrics.lite0 import Lite0Features
from model.metrics.svfid import RealClip, svfid
from model.presets import official, paper, small
from model.sampling.sampler import NetworkSampler, random_videos
from pipeline import video
from pipeline.clips import ClipSpec
from pipeline.sources import demo_sources
from pipeline.video import ffmpeg_exe

from .conftest import TINY, run_job

LITE0 = Lite0Features()
BIKES, BUNNY, PHONE = 0, 1, 2


def cut(source: str | Path, to: Path, filters: str, *, start: int = 0, frames: int = 30) -> Path:
    """`frames` frames at 24 FPS of a video from frame `start` on, filtered; .avi is in MPEG-4, as UCF-101's."""
    to.parent.mkdir(parents=True, exist_ok=True)
    graph = f"fps=24,trim=start_frame={start},setpts=N/24/TB,{filters}"
    command = [ffmpeg_exe(), "-v", "error", "-i", str(source), "-vf", graph, "-frames:v", str(frames), "-an"]
    subprocess.run([*command, *(["-c:v", "mpeg4", "-q:v", "2"] if to.suffix == ".avi" else []), str(to)], check=True)
    return to


def as_video(frames_thwc: np.ndarray) -> np.ndarray:
    return frames_thwc.transpose(3, 0, 1, 2).astype(np.float32) / 127.5 - 1


@dataclass(frozen=True)
class UcfSet:
    folder: Path

    def arguments(self, **changed: str | Path) -> list[str]:
        folders = {name: self.folder / name for name in ("samples", "train", "test")} | changed
        return [str(word) for name, folder in folders.items() for word in (f"--{name}", folder)]


@pytest.fixture(scope="module")
def ucf(tmp_path_factory: pytest.TempPathFactory) -> UcfSet:
    """Two classes of two groups each: the clips of a g01 are nearly equal, that of g02 is the same scene, mirrored."""
    folder = tmp_path_factory.mktemp("ucf")
    demo = demo_sources()
    for source, name in ((BIKES, "Biking"), (BUNNY, "Cartoon")):
        for group, scale in (
            ("g01_c01", ""),
            ("g01_c02", ",eq=brightness=0.02"),
            ("g02_c01", ",hflip,eq=contrast=0.8"),
        ):
            cut(demo[source], folder / "train" / name / f"v_{name}_{group}.avi", f"scale=64:48{scale}")
    for number, (source, start) in enumerate([(BIKES, 144), (BUNNY, 72), (PHONE, 0), (PHONE, 48)], start=1):
        cut(demo[source], folder / "test" / "Other" / f"v_Other_g{number:02d}_c01.avi", "scale=64:48", start=start)
    # What a GAN of many videos might make: 16 frames of 64×64, near a clip of the training set.
    for sample_of, name, start, sigma in (
        ("Biking/v_Biking_g01_c01", "bikes", 13, 0.4),
        ("Biking/v_Biking_g01_c01", "blurred_bikes", 13, 0.7),
        ("Cartoon/v_Cartoon_g01_c02", "rabbit", 0, 0.5),
    ):
        damage = f"scale=64:64,gblur=sigma={sigma},noise=alls=4:all_seed=1"
        cut(folder / "train" / f"{sample_of}.avi", folder / "samples" / f"{name}.avi", damage, start=start, frames=16)
    return UcfSet(folder)


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_read_and_trained_and_leaves_nothing(ucf: UcfSet, tmp_path: Path) -> None:
    words = [*ucf.arguments(), *TINY[:-2], "--out", str(tmp_path / "out"), "--limit", "2"]
    done = run_job("compare_corpus.py", *words, "--storage", tmp_path / "runs", "--dry-run")
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert {"samples: 2 videos of 3", "training set: 6 videos of 4 sources", "test set: 4 videos"} <= set(lines)
    assert f"models: at most 2, preset demo, into {tmp_path}/runs/compare-baseline-demo" in lines
    assert re.search(r"^reading: at most \d+:\d\d a video, \d+:\d\d in all, by \d+ process", done.stdout, re.M)
    assert re.search(r"^time: about \d+:\d\d of training a clip, \d+:\d\d in all", done.stdout, re.M)
    assert not list(tmp_path.iterdir())
    (tmp_path / "train").mkdir()
    shutil.copy(ucf.folder / "train" / "Biking" / "v_Biking_g01_c01.avi", tmp_path / "train")
    one = run_job("compare_corpus.py", *ucf.arguments(train=tmp_path / "train"), "--out", tmp_path / "out", "--dry-run")
    assert one.returncode == 2 and "all its clips are of one source video" in one.stdout


# -- nearest neighbours


def test_the_second_neighbour_is_never_of_the_firsts_source() -> None:
    rng = np.random.default_rng(0)
    clips, samples = rng.normal(size=(60, 4)), rng.normal(size=(25, 4))
    sources = [f"Class_g{i // 6:02d}" for i in range(60)]
    shared = 0
    for query, (first, second) in zip(samples, nearest_two(samples, clips, sources)):
        order = sorted(range(60), key=lambda i: sum((a - b) ** 2 for a, b in zip(clips[i], query)))
        assert first == order[0]
        assert second == next(i for i in order if sources[i] != sources[order[0]])
        shared += sources[order[0]] == sources[order[1]]
    assert shared, "the second nearest of all was never of the same source: nothing was shown"


def test_sources_by_name() -> None:
    paths = ["a/v_HandstandPushups_g01_c01.avi", "b/v_HandstandPushups_g01_c07.avi", "v_HandstandPushups_g02_c01.avi"]
    paths += ["v_YoYo_g01_c01.avi", "x/holiday.mp4", "y/holiday.mp4"]
    assert source_of(paths[0]) == source_of(paths[1])
    assert len({source_of(path) for path in paths}) == 5


# -- vectors


@pytest.mark.slow
def test_vectors_are_kept_and_known_by_the_file(ucf: UcfSet, tmp_path: Path) -> None:
    folder, cache = tmp_path / "videos", tmp_path / "vectors.npz"
    shutil.copytree(ucf.folder / "train" / "Biking", folder)
    warned: list[str] = []

    def embedded() -> tuple[dict[str, np.ndarray], list[str]]:
        kept = VectorCache(cache, "lite0", ClipSpec(stride=13), workers=1)
        clips, failures = clip_vectors(list_videos(str(folder))[0], kept, warn=warned.append)
        assert len({clip.clip_id for clip in clips}) == len(clips)
        return {f"{Path(clip.path).name} {clip.start}": clip.vector for clip in clips}, failures

    first, failures = embedded()
    names = [f"v_Biking_{name}.avi {start}" for name in ("g01_c01", "g01_c02", "g02_c01") for start in (0, 13)]
    assert sorted(first) == names and failures == []
    frames = video.decode(folder / "v_Biking_g02_c01.avi", start_frame=13, num_frames=13, fps=24)
    expected = LITE0(as_video(frames)).mean(axis=0)
    np.testing.assert_allclose(first["v_Biking_g02_c01.avi 13"], expected, rtol=1e-4, atol=1e-5)

    # Unreadable now, but of the same size and time: it is not decoded again.
    path = folder / "v_Biking_g01_c01.avi"
    content, status = path.read_bytes(), path.stat()
    path.write_bytes(b"\0" * len(content))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again, failures = embedded()
    assert failures == [] and all((again[name] == vector).all() for name, vector in first.items())

    # Touched, and the kept vectors damaged: all are computed again, and this one cannot be.
    os.utime(path)
    cache.write_bytes(cache.read_bytes()[:100])
    assert not warned
    again, failures = embedded()
    assert len(warned) == 1 and "vectors.npz: cannot be read" in warned[0]
    assert len(failures) == 1 and "v_Biking_g01_c01.avi: " in failures[0] and "\n" not in failures[0]
    assert sorted(again) == names[2:] and all((vector == first[name]).all() for name, vector in again.items())


@pytest.mark.slow
def test_the_clips_before_a_damage_are_used(tmp_path: Path) -> None:
    """A folder of frames, of which one is no picture."""
    (tmp_path / "videos" / "some").mkdir(parents=True)
    cut(demo_sources()[BIKES], tmp_path / "videos" / "some" / "%03d.png", "scale=64:48", frames=65)
    (tmp_path / "videos" / "some" / "030.png").write_bytes(b"\x89PNG no picture")
    kept = VectorCache(tmp_path / "v.npz", "lite0", ClipSpec(stride=13), workers=1)
    clips, failures = clip_vectors(list_videos(str(tmp_path / "videos"))[0], kept)
    assert [clip.start for clip in clips] == [0, 13]
    (line,) = failures
    assert "030.png: " in line and line.endswith("(2 of its 5 clips are used)")


# -- lists of videos


def write_list(folder: Path, *lines: str, name: str = "trainlist01.txt", end: str = "\n") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes("".join(line + end for line in lines).encode())
    return str(folder / name)


def write_files(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [str(folder / name) for name in names]


NAMES = ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", "YoYo/v_YoYo_g25_c05.avi", "My Own/take 2 of 3.avi")
LISTS = {
    "train": ([f"{name} {label}" for label, name in enumerate(NAMES, start=1)], "\n"),
    "test": (list(NAMES), "\n"),
    "CRLF": ([f"{name} 101" for name in NAMES], "\r\n"),
    "spaces": ([f"  {name} \t 7  " for name in NAMES] + ["", "   "], "\n"),
    "mark, twice": (["\ufeff" + NAMES[0], *NAMES[1:], f"{NAMES[0]} 1", f"./{NAMES[1]}"], "\n"),
}


@pytest.mark.parametrize("case", LISTS)
@pytest.mark.parametrize("videos", ["UCF-101", "lists", ".", "lists/UCF-101"])
def test_a_list_names_videos_of_a_folder_near_it(case: str, videos: str, tmp_path: Path) -> None:
    lines, end = LISTS[case]
    files = write_files(tmp_path / videos, *NAMES)
    write_files(tmp_path / videos, "YoYo/v_YoYo_g01_c01.avi")  # not in the list
    found = video_set(write_list(tmp_path / "lists", *lines, end=end))
    assert [item.path for item in found.videos] == files and found.failures == []
    assert len({item.clip_id for item in found.videos}) == len(NAMES)


def test_videos_of_one_name_in_two_classes_are_two(tmp_path: Path) -> None:
    names = ("One/clip.avi", "Two/clip.avi", "Two/\u00e9t\u00e9.avi")
    write_files(tmp_path, *names)
    found = video_set(write_list(tmp_path, *names)).videos
    assert len({item.clip_id for item in found}) == 3
    assert all(item.clip_id.isascii() and " " not in item.clip_id for item in found)


def test_videos_says_where_the_paths_of_a_list_start(tmp_path: Path) -> None:
    near = write_files(tmp_path / "near", *NAMES[:1])
    far = write_files(tmp_path / "far", *NAMES)
    source = write_list(tmp_path / "near", *NAMES[:2], far[2])  # a path may be absolute
    assert [item.path for item in video_set(source, str(tmp_path / "far")).videos] == far
    assert [item.path for item in video_set(source).videos] == [near[0], far[2]]


def test_lines_without_a_file_cost_themselves(tmp_path: Path) -> None:
    (path,) = write_files(tmp_path, NAMES[0])
    lost = [f"Lost/v_Lost_g01_c{number:02d}.avi" for number in range(1, 8)]
    (tmp_path / "Folder").mkdir()
    found = video_set(write_list(tmp_path, *lost[:2], f"{NAMES[0]} 1", "Folder 2", *lost[2:]))
    assert [item.path for item in found.videos] == [path]
    assert len(found.failures) == 4
    for name, line in zip((*lost[:2], "Folder"), found.failures):
        assert line == f"{found.name}: {name}: no such file in {tmp_path}; its line is left out"
    assert found.failures[3] == f"{found.name}: 5 more of its 9 lines name no file there"


# -- bad arguments


@pytest.mark.parametrize("empty", ["samples", "train", "test"])
def test_an_empty_folder_is_one_line(
    empty: str, ucf: UcfSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nothing").mkdir()
    arguments = ucf.arguments(**{empty: tmp_path / "nothing"})
    assert compare_corpus.main([*arguments, "--workers", "1", "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().out.strip().splitlines()
    assert "nothing: holds no video; give a folder" in line


def test_one_source_has_no_second_neighbour(ucf: UcfSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two files of one group of one class."""
    names = [f"Biking/v_Biking_{name}.avi 11" for name in ("g01_c01", "g01_c02")]
    arguments = ucf.arguments(train=write_list(tmp_path, *names), videos=ucf.folder / "train")
    assert compare_corpus.main([*arguments, "--workers", "1", "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().out.strip().splitlines()
    assert "one source video" in line


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"Lost/v_Lost_g01_c01.avi 1\n1 ApplyEyeMakeup\r\n", "none of its 2 lines names a file in "),
        (b" \r\n\n", "is empty; give a folder of videos"),
        (b"RIFF\0\0\0\0AVI LIST", "is no text in UTF-8; give a folder of videos"),
        (None, "cannot be read (No such file or directory); give a folder of videos"),
    ],
)
def test_a_list_that_names_no_video_is_one_line(
    content: bytes | None, told: str, ucf: UcfSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "testlist01.txt"
    if content is not None:
        listed.write_bytes(content)
    assert compare_corpus.main([*ucf.arguments(test=listed), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().out.strip().splitlines()
    assert line.startswith(f"error: {listed}: {told}") and not (tmp_path / "out").exists()


def test_videos_is_for_lists(ucf: UcfSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_corpus.main([*ucf.arguments(videos=tmp_path), "--out", str(tmp_path / "out")]) == 2
    listed = write_list(tmp_path, *NAMES)
    assert compare_corpus.main([*ucf.arguments(test=listed, videos="nowhere"), "--out", str(tmp_path / "out")]) == 2
    folders, nowhere = capsys.readouterr().out.strip().splitlines()
    assert "--train and --test are folders; leave it out" in folders
    assert "--videos nowhere: no such folder" in nowhere


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--limit", "1"), "--limit must be 2 or more"),
        (("--stride", "0"), "--stride 1 or more"),
        (("--experiment", "a/b"), "--experiment a/b"),
        (("--tracking-uri", "http://127.0.0.1:9"), "http://127.0.0.1:9: MLflow cannot use it"),
        (("--storage", "/proc/nowhere"), "/proc/nowhere/compare-baseline-small: nothing can be written there"),
        (("--name", "a/b"), "--name a/b"),
        (("--set", "chanels=3"), "did you mean channels"),
        (("--samples", "nowhere"), "nowhere: no such folder"),
    ],
)
def test_bad_arguments_are_one_line(
    option: tuple[str, str], told: str, ucf: UcfSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*ucf.arguments(), "--storage", str(tmp_path / "storage"), "--out", str(tmp_path / "out"), *option]
    assert compare_corpus.main(argv) == 2
    (line,) = capsys.readouterr().out.strip().splitlines()
    assert told in line and not (tmp_path / "out").exists()  # before anything is decoded


# -- whether the paper's figures stand beside ours

C3D = "c3d_ucf101_0a1b2c"


def written(folder: Path, name: str, why: str) -> tuple[str, dict, list[list[str]]]:
    """The page, the report, and the rows of both tables, of two samples with made-up figures."""
    rng = np.random.default_rng(0)
    clip = EmbeddedClip("v_Biking_g01_c01.avi", 13, "biking-000013", rng.normal(size=4))
    scores = {"baseline_nn1": 30.0, "ours_nn1": 10.0, "baseline_nn2": 31.0, "ours_nn2": 20.0}
    rows = [ComparedSample(f"{n}.mp4", clip, clip, n, scores, rng.normal(size=4), rng.normal(size=4)) for n in (0, 1)]
    comparison = Comparison(
        name=name,
        features=C3D,
        rows=rows,
        test_set=rng.normal(size=(9, 4)),
        seed=0,
        not_the_papers=why,
        notes=[],
        failures=[],
    )
    page = comparison.write(folder / "x")
    tables = [list(csv.reader((folder / f"x_table{n}.csv").open(newline=""))) for n in (1, 2)]
    return page, json.loads((folder / "x.json").read_text()), [row for table in tables for row in table]


def test_the_papers_figures_stand_beside_those_of_its_features_preset_and_methods(tmp_path: Path) -> None:
    for config in (paper(), official()):
        assert not_the_papers("tgan v2", C3D, config) == ""
    page, report, rows = written(tmp_path, "tgan v2", "")
    assert rows[0] == ["", f"svfid_{C3D} nn1", f"svfid_{C3D} nn2", "in the paper: nn1", "in the paper: nn2"]
    assert rows[1:3] == [["tgan v2", "30.0", "31.0", "25.4", "25.5"], ["ours", "10.0", "20.0", "8.9", "20.6"]]
    assert rows[3] == ["", f"fid_{C3D}", "in the paper: fid"]
    assert [row[2] for row in rows[4:]] == ["29.2", "17.2"]
    assert "- In the paper: of 50 samples of its own" in page
    assert report["paper"] == {"nn1": [25.4, 8.9], "nn2": [25.5, 20.6], "fid": [29.2, 17.2]}


@pytest.mark.parametrize(
    ("name", "features", "config", "told"),
    [
        ("TGAN", "lite0", paper(), "features lite0 (paper: C3D of Sports-1M and UCF-101)"),
        ("TGAN", "c3d_sports1m_0a1b2c", official(), "features c3d_sports1m_0a1b2c (paper: C3D of"),
        ("TGAN", C3D, small(), "M = 1 VAE level (paper: 3); β_vae 5 (paper: 0.1, 50 times as much as there)"),
        ("TGAN", "lite0", small(), "features lite0 (paper: C3D of Sports-1M and UCF-101); M = 1 VAE level (paper: 3)"),
        ("VideoGPT", C3D, paper(), "--name VideoGPT is none of its methods (MoCoGAN, TGAN, TGAN-v2)"),
    ],
)
def test_else_a_sentence_tells_what_differs(
    name: str, features: str, config: TrainConfig, told: str, tmp_path: Path
) -> None:
    why = not_the_papers(name, features, config)
    assert why.startswith(told)
    page, report, rows = written(tmp_path, name, why)
    assert f"- No figure of the paper stands beside these: {told}" in page and "in the paper" not in page
    assert (rows[0], rows[3]) == (["", f"svfid_{C3D} nn1", f"svfid_{C3D} nn2"], ["", f"fid_{C3D}"])
    assert report["paper"] is None and report["not_the_papers"] == why


# -- the whole way


@dataclass(frozen=True)
class Compared:
    command: list[str]
    out: Path
    storage: Path
    output: str
    code: int
    videos: Path  # UCF-101/, one of its test videos unreadable
    lists: Path  # ucfTrainTestlist/, beside it

    @property
    def report(self) -> dict:
        return json.loads((self.out / "TGAN_lite0.json").read_text())


@pytest.fixture(scope="module")
def compared(ucf: UcfSet, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """UCF-101 as its archives unpack: all videos in one folder, and a list of each set, one with a line too many."""
    folder = tmp_path_factory.mktemp("compared")
    videos, lists = folder / "UCF-101", folder / "ucfTrainTestlist"
    sets = {}
    for name, label in (("train", " 11"), ("test", "")):
        shutil.copytree(ucf.folder / name, videos, dirs_exist_ok=True)
        found = sorted(path.relative_to(ucf.folder / name) for path in (ucf.folder / name).rglob("*.avi"))
        sets[name] = [f"{path}{label}" for path in found]
    (videos / "Other" / "v_Other_g05_c01.avi").write_bytes(b"RIFF no video" * 50)
    train = write_list(lists, *sets["train"], "Biking/v_Biking_g03_c01.avi 11", end="\r\n")
    test = write_list(lists, *sets["test"], "Other/v_Other_g05_c01.avi", name="testlist01.txt")
    command = [*ucf.arguments(train=train, test=test), "--name", "TGAN", "--out", str(folder / "out"), "--seed", "3"]
    command += [*TINY[:-2], "--storage", str(folder / "storage"), "--cpus-per-clip", "1", "--workers", "1"]
    done = run_job("compare_corpus.py", *command)
    return Compared(command, folder / "out", folder / "storage", done.stdout, done.returncode, videos, lists)


@pytest.mark.slow
def test_a_missing_and_an_unreadable_video_are_told_and_the_rest_used(compared: Compared) -> None:
    assert compared.code == 1, compared.output
    lines = compared.output.splitlines()
    (missing,) = [line for line in lines if "v_Biking_g03_c01.avi: no such file in" in line]
    (unreadable,) = [line for line in lines if "v_Other_g05_c01.avi" in line]
    assert compared.report["failures"] == [missing, unreadable]
    assert "FID: 8 clips" in compared.output


@pytest.mark.slow
def test_the_neighbours_are_those_the_samples_were_made_from(compared: Compared) -> None:
    found = {
        Path(row["sample"]).stem: [(Path(row[nn]["path"]).stem, row[nn]["start"]) for nn in ("nn1", "nn2")]
        for row in compared.report["samples"]
    }
    firsts = {name: pair[0] for name, pair in found.items()}
    bikes, rabbit = ("v_Biking_g01_c01", 13), ("v_Cartoon_g01_c02", 0)
    assert firsts == {"bikes": bikes, "blurred_bikes": bikes, "rabbit": rabbit}
    for name, (_, (second, _)) in found.items():
        assert second == ("v_Cartoon_g02_c01" if name == "rabbit" else "v_Biking_g02_c01")
    assert [row["number"] for row in compared.report["samples"]] == [0, 1, 0]
    with open(compared.out / "TGAN_lite0_nn1.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2  # a model of each nn1, once


def ours_of(compared: Compared) -> list[np.ndarray]:
    base = compared.storage / "compare-TGAN-demo"
    stacks = [checkpoint.load(base / row["model"] / "checkpoint.pt").stack() for row in compared.report["samples"]]
    samples = zip(stacks, compared.report["samples"])
    return [random_videos(NetworkSampler(stack), 1, 3, first=row["number"])[0].numpy() for stack, row in samples]


@pytest.mark.slow
def test_table_1_is_the_mean_of_svfid(compared: Compared) -> None:
    scores: dict[str, list[float]] = {}
    for row, ours in zip(compared.report["samples"], ours_of(compared)):
        baseline = as_video(video.decode(row["sample"], num_frames=16, fps=24))
        for nn in ("nn1", "nn2"):
            clip = video.decode(row[nn]["path"], start_frame=row[nn]["start"], num_frames=13, fps=24)
            real = RealClip([as_video(clip)], LITE0)
            scores.setdefault(f"baseline {nn}", []).append(svfid(real, baseline[None]).mean)
            scores.setdefault(f"ours {nn}", []).append(svfid(real, ours[None]).mean)
    with open(compared.out / "TGAN_lite0_table1.csv", newline="") as file:
        baseline_row, ours_row = csv.DictReader(file)
    assert (baseline_row[""], ours_row[""]) == ("TGAN", "ours")
    for nn in ("nn1", "nn2"):
        assert float(baseline_row[f"svfid_lite0 {nn}"]) == pytest.approx(np.mean(scores[f"baseline {nn}"]), rel=1e-3)
        assert float(ours_row[f"svfid_lite0 {nn}"]) == pytest.approx(np.mean(scores[f"ours {nn}"]), rel=1e-3)
    assert list(ours_row) == ["", "svfid_lite0 nn1", "svfid_lite0 nn2"]  # of other features than the paper's
    assert "No figure of the paper stands beside these: features lite0" in compared.output


@pytest.mark.slow
def test_table_2_is_the_fid_of_scipy(compared: Compared) -> None:
    test_set = [
        LITE0(as_video(video.decode(path, start_frame=start, num_frames=13, fps=24))).mean(axis=0)
        for path in sorted((compared.videos / "Other").glob("*.avi"))[:4]
        for start in (0, 13)
    ]
    samples = [as_video(video.decode(row["sample"], fps=24)) for row in compared.report["samples"]]
    with open(compared.out / "TGAN_lite0_table2.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, videos in zip(rows, (samples, ours_of(compared))):
        expected = fid_by_scipy(np.stack([LITE0(v).mean(axis=0) for v in videos]), np.stack(test_set), drawn=3, seed=3)
        assert float(row["fid_lite0"]) == pytest.approx(expected, rel=1e-3)


def fid_by_scipy(a: np.ndarray, b: np.ndarray, *, drawn: int, seed: int) -> float:
    """A.3, written down once more: 50 trials on features drawn at random, from the eigenvalues of the product."""
    rng = np.random.default_rng(seed)
    distances = []
    for _ in range(50):
        chosen = rng.choice(a.shape[1], drawn, replace=False)
        x, y = a[:, chosen], b[:, chosen]
        cov_x, cov_y = np.cov(x.T), np.cov(y.T)
        # The covariance of three samples is singular, which scipy's sqrtm warns of: its trace is of the eigenvalues.
        root = np.sqrt(scipy.linalg.eigvals(cov_x @ cov_y).real.clip(0))
        distances.append(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov_x + cov_y) - 2 * root.sum())
    return float(np.mean(distances))


@pytest.mark.slow
def test_the_same_command_again_makes_only_what_is_missing(compared: Compared) -> None:
    models = sorted((compared.storage / "compare-TGAN-demo").glob("*/checkpoint.pt"))
    assert len(models) == 2
    kept = {path: path.stat().st_mtime_ns for path in models[1:]}
    before = compared.report
    shutil.rmtree(models[0].parent)
    for name in ("trainlist01.txt", "testlist01.txt"):
        path = compared.lists / name
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    done = run_job("compare_corpus.py", *compared.command)
    assert done.returncode == 0, done.stdout
    assert models[0].exists() and {path: path.stat().st_mtime_ns for path in kept} == kept
    after = compared.report
    assert after["failures"] == [] and after["svfid"] == before["svfid"] and after["fid"] == before["fid"]

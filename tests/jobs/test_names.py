"""Files, folders and experiments of every name: they train, or one line says what to give."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from jobs import command_line, compare_corpus, evaluate, make_shards, train_corpus, tune, upload
from jobs.experiment.names import experiment_name
from pipeline import video
from pipeline.video.ffmpeg import lacks

from .conftest import TINY, make_video, run_job

CJK = "日本語" * 27 + "日月.mp4"  # 253 bytes: a file can have no longer name
LATIN = os.fsdecode(b"caf\xe9")


def artifacts(storage: Path, experiment: str) -> dict[str, list[str]]:
    """clip, or "" of the corpus → its files in MLflow, read back through its client."""
    from infra.tracking import runs
    from infra.tracking.uri import default_uri

    parent = runs.find_parent(default_uri(storage), experiment, storage)
    assert parent is not None
    client, found = parent.client(), {}
    for run in client.search_runs([parent.experiment_id]):
        folder = Path(client.download_artifacts(run.info.run_id, ""))
        assert folder.is_relative_to(storage)
        clip = run.data.tags.get("clip_id", "").split("-")[0]
        found[clip] = sorted(path.name for path in folder.rglob("*.*"))
    return found


@pytest.mark.slow
def test_hard_names_train_and_go_on_where_the_storage_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    corpus, cwd = tmp_path / f"-{LATIN} #1 100%?", tmp_path / "cwd"
    for folder in (corpus, cwd):
        folder.mkdir()
    make_video(tmp_path / "video.mp4", size="48x48").rename(corpus / "-JfC9w_aBc0.mp4")
    done = run_job("train_corpus.py", f"--corpus={corpus}", *TINY, "--storage=~/a?b #c%d", cwd=cwd)
    assert done.returncode == 0, done.stdout
    first, moved = tmp_path / "home" / "a?b #c%d", tmp_path / "home" / "moved"
    name = experiment_name(str(corpus), "demo")
    assert sorted(path.name for path in first.iterdir()) == [name, "mlartifacts", "mlflow.db", "mlflow.db.lock"]
    assert not list(cwd.iterdir())

    first.rename(moved)
    make_video(tmp_path / "video.mp4", size="48x48").rename(corpus / CJK)
    (corpus / CJK).with_name(f"{LATIN}.mp4").symlink_to(corpus / "-JfC9w_aBc0.mp4")
    again = run_job("train_corpus.py", f"--corpus={corpus}", *TINY, "--storage=~/moved", cwd=cwd)
    assert again.returncode == 0 and again.stdout.isascii() is not None, again.stdout
    assert again.stdout.count("  done  (") == 2  # the first one was done before
    found = artifacts(moved, name)
    assert set(found) == {"", "jfc9w", "clip", "caf"} and "results.txt" in found[""]
    assert all("metrics.json" in found[clip] and "real.mp4" in found[clip] for clip in ("jfc9w", "clip", "caf"))
    assert not first.exists() and not list(cwd.iterdir())


def test_a_file_whose_name_begins_with_a_dash_is_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-JfC9w_aBc0.mp4", "--aBc0.mp4"):
        make_video(tmp_path / "video.mp4", size="48x48").rename(tmp_path / name)
        assert train_corpus.main(["--corpus", name, "--preset", "demo", "--dry-run"]) == 0
        assert "1 clip, preset demo" in capsys.readouterr().out
    assert make_shards.main(["-JfC9w_aBc0.mp4", "--out", "shards"]) == 0
    with pytest.raises(SystemExit):  # not there: an option that is not known
        train_corpus.main(["--corpus", "-other.mp4"])


@pytest.mark.parametrize("option", ["", "lite1", "lite0:x", "c3d", "c3d:", "c3e:FILE", "inception", "vgg:file"])
def test_features_that_are_none_end_every_command_that_takes_them(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = {
        compare_corpus: ["--samples", "s", "--train", "t", "--test", "u", "--out", "o"],
        evaluate: ["runs/demo"],
        tune: ["--corpus", "demo", "--sweep", "lr=1,2"],
    }
    for command, words in commands.items():
        assert command.parse([*words, "--features", "c3d:FILE"]).features == "c3d:FILE"
        with pytest.raises(SystemExit) as ended:
            command.parse([*words, "--features", option])
        line = f"--features: no features {option!r}; give lite0, c3d:FILE, inception:FILE or inception192:FILE"
        assert ended.value.code == 2 and capsys.readouterr().err.endswith(f"error: {line}\n")


def test_home_folders_in_every_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    assert command_line.path("~") == "/home/me" and command_line.path("~/a b") == "/home/me/a b"
    assert command_line.path("~root/x").startswith("/") and command_line.features("c3d:~/f.npz") == "c3d:/home/me/f.npz"
    assert [command_line.path(same) for same in ("a~", "s3://b/~", "./~", "demo")] == ["a~", "s3://b/~", "./~", "demo"]
    assert command_line.features("c3d:~/f.npz,~/g.pth") == "c3d:/home/me/f.npz,/home/me/g.pth"
    (tmp_path / "~,g.npz").touch()
    assert command_line.features("c3d:~,g.npz") == "c3d:~,g.npz"  # a file of that very name
    (tmp_path / "~$notes.mp4").touch()
    assert command_line.path("~$notes.mp4") == "~$notes.mp4"  # a file of that very name
    args = train_corpus.parse(["--corpus=~/c", "--storage=~/s"])
    assert (args.corpus, args.storage) == ("/home/me/c", "/home/me/s")
    args = make_shards.parse(["~/a", "~/b", "--out=~/o"])
    assert (args.sources, args.out) == (["/home/me/a", "/home/me/b"], Path("/home/me/o"))


@pytest.mark.parametrize(
    ("module", "given"),
    [
        ("train_corpus", ["--corpus", "PATH"]),
        ("train_corpus", ["--corpus", "demo", "--storage", "PATH"]),
        ("train_corpus", ["--corpus", "demo", "--config", "PATH"]),
        ("tune", ["--corpus", "PATH"]),
        ("make_shards", ["PATH", "--out", "x"]),
        ("make_shards", ["x", "--out", "PATH"]),
        ("sample", ["PATH", "--out", "x"]),
        ("sample", ["x", "--out", "PATH"]),
        ("sample", ["x", "--out", "x", "--real", "PATH"]),
        ("evaluate", ["PATH"]),
        ("evaluate", ["x", "--out", "PATH"]),
        ("evaluate", ["--samples", "PATH", "--real", "x"]),
        ("evaluate", ["--samples", "x", "--real", "PATH"]),
        ("evaluate", ["x", "--features", "c3d:PATH"]),
        ("evaluate", ["x", "--features", "c3d:x,PATH"]),
        ("benchmark", ["--json", "PATH"]),
        ("upload", ["--storage", "PATH", "--experiment", "x"]),
        *(("compare_corpus", ["--samples", "x", "--train", "x", "--test", "x", f"--{o}", "PATH"])
          for o in ("samples", "train", "test", "out", "storage")),
    ],
)  # fmt: skip
def test_a_home_folder_of_nobody_is_refused(module: str, given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    import importlib

    words = [word.replace("PATH", "~no-such-user/x") for word in given]
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"jobs.{module}").parse(words)
    assert end.value.code == 2
    assert "~no-such-user/x: no user of that name has a home here" in capsys.readouterr().err.splitlines()[-1]


CORPORA = [
    *("clips.v1", "clips.v2", "clips", "Clips", "CLIPS", "clips.mp4", "clips.mov", "clips.csv", "clips_", "_clips"),
    *(
        "a b",
        "a_b",
        "a?b",
        "a:b",
        "a*b",
        'a"b',
        "a<b",
        "a|b",
        "a\\b",
        "a\nb",
        "100%",
        "100",
        "🎈",
        "🎈🎈",
        "???",
        "...",
    ),
    *("-JfC9w_aBc0.mp4", "JfC9w_aBc0.mp4", ".hidden", "hidden", CJK, CJK.replace("日", "月"), "x" * 250, "x" * 251),
    *(LATIN, os.fsdecode(b"caf\xe8"), "café", "cafe", "s3://b/v?versionId=1", "s3://b/v?versionId=2", "s3://b/v"),
]


def test_experiments_have_names_that_are_safe_short_and_distinct() -> None:
    names = [experiment_name(corpus, "demo") for corpus in CORPORA]
    assert len({name.casefold() for name in names}) == len(CORPORA)
    for name in names:
        train_corpus.TrainRequest.from_args(train_corpus.parse(["--corpus", "x", "--experiment", name]))
        assert len(name.encode()) < 80 and name.isprintable() and not set(name) & set('<>:"/\\|?*#% ')
    assert experiment_name("/a/my_videos/", "small") == "my_videos-small"  # what is safe stays as it is
    assert experiment_name("clips.v1", "small") == "clips.v1-small" and experiment_name("demo", "demo") == "demo"
    assert experiment_name("su\u0308ß", "demo") == experiment_name("süß", "demo")  # as macOS and Linux spell it
    assert experiment_name("https://h/v.mp4?sig=1", "demo") == experiment_name("https://h/v.mp4?sig=2", "demo")
    assert experiment_name("s3://key:hidden@clips", "demo").startswith("clips-")
    assert experiment_name("clips", "my settings").startswith("clips-my_settings-")


def test_a_corpus_that_is_here_has_the_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "videos" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "videos" / "below")
    assert experiment_name("..", "demo") == experiment_name("../.", "demo") == "videos-demo"
    assert experiment_name(".", "demo") == "below-demo" and experiment_name("/", "demo").startswith("corpus-")


@pytest.mark.parametrize(
    "name",
    ["x" * 300, "語" * 90, "../up", "-x", ".x", "a b", "a/b", "a\n", LATIN, "mlflow.db", "mlartifacts", "Default"],
)
def test_an_experiment_that_is_no_name_of_a_folder_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = f"--storage={tmp_path}"
    commands = [(upload, [storage, f"--experiment={name}"])]
    if name:  # "" is as if it were not given
        commands.append((train_corpus, ["--corpus", "demo", storage, f"--experiment={name}"]))
    for module, arguments in commands:
        assert module.main(arguments) == 2
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith("error: --experiment ") and len(line) < 200 and line.isprintable()
    assert not list(tmp_path.iterdir())


# -- the ffmpeg that is there


def fake_ffmpeg(folder: Path, encoders: str) -> Path:
    """An ffmpeg that has these encoders and decodes nothing."""
    folder.mkdir()
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' '{encoders}'\nexit 0\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("encoders", ["", " V....D libopenh264          OpenH264 H.264", " V..... libx264rgb  x"])
def test_an_ffmpeg_without_x264_is_not_taken(
    encoders: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import imageio_ffmpeg

    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
    clip, wheels = make_video(tmp_path / "clip.mp4"), video.ffmpeg_exe()
    fake = fake_ffmpeg(tmp_path / "bin", encoders)
    good = tmp_path / "good" / "ffmpeg"
    good.parent.mkdir()
    good.symlink_to(wheels)

    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    assert video.ffmpeg_exe() == wheels
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    monkeypatch.setenv("PATH", f"{good.parent}{os.pathsep}{os.environ['PATH']}")
    assert video.ffmpeg_exe() == str(good)
    frames = video.decode(clip, num_frames=13, fps=24.0)
    video.encode(frames, tmp_path / "made.mp4")
    assert (tmp_path / "made.mp4").stat().st_size > 0

    good.unlink()  # now the fake is the first on PATH too
    train = ["--corpus", str(clip), "--storage", str(tmp_path / "runs"), *TINY]
    assert train_corpus.main(train) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert str(fake) in line and "no encoder libx264" in line and "pip install imageio-ffmpeg" in line
    monkeypatch.undo()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))  # no other is taken in its place
    assert train_corpus.main(train) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert str(fake) in line and "no encoder libx264" in line and "unset IMAGEIO_FFMPEG_EXE" in line
    assert not (tmp_path / "runs").exists()


def test_an_ffmpeg_that_does_not_run_is_not_taken(tmp_path: Path) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_bytes(b"\x7fELF no program")
    broken.chmod(0o755)
    assert lacks(str(broken)) == lacks(str(tmp_path / "none")) == "does not run"


def test_an_ffmpeg_of_before_5_1_is_not_taken(tmp_path: Path) -> None:
    old = fake_ffmpeg(tmp_path / "bin", " V....D libx264              x264 H.264")
    assert lacks(str(old)) == "is older than 5.1 (no option -fps_mode)"

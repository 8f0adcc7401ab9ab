"""A password in a URI: it opens what it is for, and is shown and stored nowhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest

from infra.store import Store
from jobs import evaluate, make_shards, sample, train_corpus, upload
from jobs.experiment.experiment import Experiment, Submission
from jobs.experiment.settings import ModelSettings
from model.presets import demo
from tests.conftest import EmptyStore
from tests.infra.mlflow_server import Server

from .conftest import TINY, make_video, run_job, run_process

SECRET = "hidden8Zq"


def holders(folder: Path) -> list[Path]:
    """Files below a folder that hold the password, or its name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if SECRET.encode() in path.read_bytes() or SECRET in path.name]


class Guarded(SimpleHTTPRequestHandler):
    """Files of its `folder`, for the password alone."""

    folder = ""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments, directory=self.folder)  # type: ignore[arg-type]

    def send_head(self):  # type: ignore[no-untyped-def]
        import base64

        if self.headers.get("Authorization") == "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode():
            return super().send_head()
        self.send_error(401)
        return None

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """The URI of a folder with a video, without a password."""
    (tmp_path / "served").mkdir()
    make_video(tmp_path / "served" / "clip.mp4", size="48x48")
    Guarded.folder = str(tmp_path / "served")
    with HTTPServer(("127.0.0.1", 0), Guarded) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_passwords_of_mlflow_and_of_the_corpus_are_in_no_file_and_no_line(
    guarded: str, tmp_path: Path, empty_store: EmptyStore
) -> None:
    server = Server(tmp_path, f"sqlite:///{empty_store(tmp_path / 'server.db')}")
    server.start()
    try:
        uri = f"http://me:{SECRET}@127.0.0.1:{server.port}"
        corpus = f"http://me:{SECRET}@{guarded}/clip.mp4"
        command = ["--corpus", corpus, *TINY, "--storage", tmp_path / "runs", "--tracking-uri", uri]
        done = run_job("train_corpus.py", *command, "--experiment", "exp")
        assert done.returncode == 0, done.stdout
        scored = run_job("evaluate.py", tmp_path / "runs" / "exp", "--n", "2", "--nn", "0", "--tracking-uri", uri)
        assert scored.returncode == 0 and "warning" not in scored.stdout, scored.stdout
    finally:
        server.kill()
    assert f"http://127.0.0.1:{server.port}/#/experiments/" in done.stdout
    again = run_job("upload.py", "--storage", tmp_path / "runs", "--experiment", "exp", "--tracking-uri", uri)
    assert again.returncode == 2 and f"error: http://***@127.0.0.1:{server.port}: MLflow" in again.stdout
    assert SECRET not in done.stdout + scored.stdout + again.stdout
    assert (tmp_path / "artifacts").exists() and holders(tmp_path) == []


@pytest.mark.slow
def test_ray_keeps_no_password_of_the_command_line_and_takes_bytes_that_are_no_text(
    guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: EmptyStore
) -> None:
    """A job with a Ray of its own, as a user runs it, in and into folders whose names are Latin-1."""
    cwd = tmp_path / os.fsdecode(b"cwd-\xe9")
    cwd.mkdir()
    corpus = f"http://me:{SECRET}@{guarded}/clip.mp4"
    storage = os.fsdecode(b"storage-\xe9")
    done = run_job("train_corpus.py", "--corpus", corpus, *TINY, "--storage", storage, cwd=cwd)
    assert done.returncode == 2 and "is not UTF-8, which MLflow cannot name" in done.stdout, done.stdout
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="hps") as session:  # a socket's path must be short
        monkeypatch.setenv("RAY_TMPDIR", session)
        uri = f"sqlite:///{empty_store(tmp_path / 'mlflow.db')}"
        command = ["--corpus", corpus, *TINY, "--storage", str(tmp_path / "runs"), "--tracking-uri", uri]
        done = run_process("train_corpus.py", *command, cwd=cwd)
        assert done.returncode == 0, done.stdout
        assert list(Path(session).rglob("gcs_server*"))
        assert holders(Path(session)) == holders(tmp_path) == []
    assert SECRET not in done.stdout


@pytest.mark.parametrize("scheme", ["s3", "gs", "ftp", "http", "postgresql"])
def test_an_error_shows_no_password(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Experiment(Store(str(tmp_path / "exp"))).begin(ModelSettings(demo()), Submission("corpus", "demo", [], []))
    uri = f"{scheme}://me:{SECRET}@127.0.0.1:9/x"
    commands = [
        (train_corpus, ["--corpus", uri, "--storage", "runs", "--preset", "demo"]),
        (train_corpus, ["--corpus", "demo", "--config", uri]),
        (sample, [f"{uri}/checkpoint.pt", "--out", "samples"]),
        (make_shards, [uri, "--out", "shards"]),
    ]
    if scheme in ("http", "postgresql"):
        commands.append((upload, ["--storage", ".", "--experiment", "exp", "--tracking-uri", uri]))
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    else:
        commands += [
            (train_corpus, ["--corpus", "demo", "--storage", uri]),
            (evaluate, [uri]),
            (evaluate, [uri + ".pt"]),
        ]
    for module, arguments in commands:
        assert module.main(arguments) == 2, arguments
        printed = "".join(capfd.readouterr())
        assert SECRET not in printed and "***@127.0.0.1:9" in printed, printed
        assert len(printed.splitlines()) == 1 or module in (make_shards, evaluate), printed
    assert holders(tmp_path) == []


@pytest.mark.parametrize("storage", [f"u:{SECRET}@h:22/x", f"//u:{SECRET}@h/x", f"s3:/u:{SECRET}@h/x"])
def test_a_storage_that_is_no_path_and_no_uri_makes_no_folder_of_its_password(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train_corpus.main(["--corpus", "demo", "--storage", storage]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert "***@h" in line and "is neither a path nor a URI; write s3://" in line and SECRET not in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("password", [SECRET, f"a/{SECRET}", f"a {SECRET}"])
@pytest.mark.parametrize("option", ["--storage", "--corpus"])
@pytest.mark.parametrize(("scheme", "variable"), [("s3", "AWS_SECRET_ACCESS_KEY"), ("gs", "GOOGLE_APPLICATION")])
def test_a_key_before_a_bucket_is_refused_with_what_takes_it(
    option: str, scheme: str, variable: str, password: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = {"--storage": str(tmp_path / "runs"), "--corpus": "demo"} | {option: f"{scheme}://key:{password}@bucket/x"}
    assert train_corpus.main([word for pair in others.items() for word in pair]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{scheme}://***@bucket/x: takes no key in the URI" in line and variable in line and SECRET not in line

"""jobs/ui.py: what it serves. tests/test_readme.py runs the server."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

import pytest

from infra.tracking import runs
from infra.tracking.uri import default_uri
from jobs import ui


def test_it_serves_a_folder_of_every_name_where_it_is_now(tmp_path: Path) -> None:
    old, new = tmp_path / "a?b #c%d", tmp_path / "moved 100%"
    parent = runs.open_parent(default_uri(old), "exp", old, {})
    assert ui.server_command(str(old), 5001)[5:] == [default_uri(old), "--host", "127.0.0.1", "--port", "5001",
                                                     "--workers", "1"]  # fmt: skip
    shutil.move(old, new)
    ui.server_command(str(new), 5001)
    artifacts = runs.client_of(default_uri(new)).get_run(parent.run_id).info.artifact_uri
    assert artifacts.startswith(new.as_uri()) and not old.exists()


@pytest.mark.parametrize("port", [None, 99999, -1])
def test_a_port_that_cannot_be_listened_on_is_one_line(
    port: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1] if port is None else port
        assert ui.main(["--storage", str(tmp_path), "--port", str(number)]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"error: --port {number}: cannot be listened on (") and line.endswith("give another")


@pytest.mark.parametrize("storage", ["nothing", "~no-such-user", "file"])
def test_a_folder_without_a_store_is_one_line(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    if storage.startswith("~"):
        with pytest.raises(SystemExit) as end:
            ui.main(["--storage", storage])
        assert end.value.code == 2
        return
    for program, train in (("jobs/ui.py", "python jobs/train_corpus.py"), ("hp-vae-gan", "hp-vae-gan train")):
        monkeypatch.setattr(sys, "argv", [program])
        assert ui.main(["--storage", storage]) == 2
        (line,) = capsys.readouterr().out.splitlines()
        assert f"{tmp_path / storage}/mlflow.db: is not there; run {train} first, or give another" in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

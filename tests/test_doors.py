"""Doors are locked: what is started here is reached from this machine only, and what is loaded is never executed."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from infra import LOOPBACK_ONLY
from jobs import sample, train_corpus
from pipeline import clips, shards
from pipeline.clips import ClipSpec
from tests.conftest import EmptyStore
from tests.jobs.conftest import ROOT, TINY, _own_ray, make_video  # noqa: F401  a Ray of these tests' own
from tests.model.test_official import Reference, write

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def listening(pid: int) -> set[tuple[str, str]]:
    """(process, address) of every port that a process and its descendants listen on."""
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for member in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                for socket in member.net_connections("tcp"):
                    if socket.status == psutil.CONN_LISTEN:
                        found.add((member.name(), socket.laddr.ip))
    return found


# -- what is loaded


class Bomb:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[Bomb]:
    """It must not go off in the test; afterwards it must, or the test has shown nothing."""
    marker = tmp_path / "executed"
    yield Bomb(marker)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()


def bombed_checkpoint(path: Path, bomb: Bomb) -> None:
    """A file with a right seal, so that only how it is read protects the reader."""
    content = io.BytesIO()
    torch.save({"format": 2, "config": {}, "clip_id": bomb}, content)
    seal = b"\nsha256 " + hashlib.sha256(content.getvalue()).hexdigest().encode() + b"\n"
    path.write_bytes(content.getvalue() + seal)


def bombed_shards(folder: Path, videos: Path, bomb: Bomb) -> tuple[str, str]:
    """Shards of two clips; the frames of the second are a pickle, and everything around them is right."""
    shards.write(clips.plan([str(videos)], ClipSpec()).clips, folder)
    tar, sidecar = folder / "000000.tar", folder / "000000.json"
    with tarfile.open(tar) as old:
        members = {info.name: old.extractfile(info).read() for info in old.getmembers()}  # type: ignore[union-attr]
    whole, hurt = (name.partition(".")[0] for name in members if name.endswith(".json"))
    npy = io.BytesIO()
    np.save(npy, np.array([bomb], dtype=object), allow_pickle=True)
    meta = json.loads(members[f"{hurt}.json"]) | {"sha256": hashlib.sha256(npy.getvalue()).hexdigest()}
    members |= {f"{hurt}.frames.npy": npy.getvalue(), f"{hurt}.json": json.dumps(meta).encode()}
    with tarfile.open(tar, "w") as new:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            new.addfile(info, io.BytesIO(content))
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"bytes": tar.stat().st_size}))
    return whole, hurt


@pytest.mark.parametrize("name", ["checkpoint.pt", "checkpoint.previous.pt", "netG.pth", "Noise_Amps.pth"])
def test_sampling_executes_nothing(name: str, bomb: Bomb, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if name.startswith("checkpoint"):
        given = tmp_path / name
        bombed_checkpoint(given, bomb)
    else:
        given = tmp_path
        write(tmp_path, Reference(width=4, latent=4, scales=2).state_dict(), amps=[1, 0.1])
        torch.save(torch.load(tmp_path / name, weights_only=True) | {"scale": bomb}, tmp_path / name)
    assert sample.main([str(given), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{name}: not a readable" in line and "; " in line


@pytest.mark.parametrize("name", ["sidecar", "experiment.json", "result.json"])
def test_the_corpus_job_executes_nothing(
    name: str, bomb: Bomb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "shards"
    shards.write(clips.plan([str(make_video(tmp_path / "clip.mp4", size="48x48"))], ClipSpec()).clips, made)
    (entry,) = shards.index(made)
    base = tmp_path / "storage" / "doors"
    hurt = {"sidecar": made / "000000.json", "result.json": base / entry.clip_id / name}.get(name, base / name)
    hurt.parent.mkdir(parents=True, exist_ok=True)
    hurt.write_bytes(pickle.dumps(bomb))
    command = ["--corpus", str(made), "--storage", str(tmp_path / "storage"), "--experiment", "doors", *TINY]
    assert train_corpus.main([*command, *(["--dry-run"] if name == "result.json" else [])]) == 2
    line = capsys.readouterr().out.splitlines()[-1]
    assert (hurt.with_suffix(".tar") if name == "sidecar" else hurt).name in line and "delete" in line


# -- what is started


@pytest.mark.slow
def test_a_corpus_full_of_pickles_on_a_ray_that_only_this_machine_reaches(
    bomb: Bomb, tmp_path: Path, empty_store: EmptyStore
) -> None:
    """Both clips fail, each with its line, and neither is executed; nothing listens on another interface meanwhile."""
    (tmp_path / "videos").mkdir()
    for video in ("one", "two"):
        make_video(tmp_path / "videos" / f"{video}.mp4", size="48x48")
    whole, hurt = bombed_shards(tmp_path / "shards", tmp_path / "videos", bomb)
    empty_store(tmp_path / "storage" / "mlflow.db")
    folder = tmp_path / "storage" / "doors" / whole
    folder.mkdir(parents=True)
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        bombed_checkpoint(folder / name, bomb)
    command = [sys.executable, str(ROOT / "jobs" / "train_corpus.py"), "--corpus", str(tmp_path / "shards"), *TINY]
    command += ["--storage", str(tmp_path / "storage"), "--experiment", "doors"]
    with open(tmp_path / "output", "w") as output:
        process = subprocess.Popen(command, env=as_a_user(), stdout=output, stderr=subprocess.STDOUT)
        seen, deadline = set(), time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            seen |= listening(process.pid)
            time.sleep(0.2)
    assert process.poll() == 1, (tmp_path / "output").read_text()
    told = [line for line in (tmp_path / "output").read_text().splitlines() if line.startswith("failed  ")]
    assert len(told) == 2
    assert any(f"{whole}: {folder / 'checkpoint.pt'}: not a readable" in line for line in told)
    assert any(f"000000.tar: clip {hurt} cannot be read (ValueError: its frames are not uint8" in line for line in told)
    assert {"gcs_server", "raylet"} <= {name for name, _ in seen}
    assert {address for _, address in seen} <= LOOPBACK, seen


def as_a_user() -> dict[str, str]:
    """The environment without what these tests tell Ray about addresses: the defaults count."""
    return {name: value for name, value in os.environ.items() if name != LOOPBACK_ONLY}


# -- how it is written


def complaints(source: str) -> list[str]:
    """Calls and imports in a source file that could run what they read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        found += [f"import {name}" for name in modules if name.split(".")[0] in UNPICKLERS or name in LOADERS]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "webdataset":
            found += [ast.unparse(node)] if node.attr != "TarWriter" else []  # its readers unpickle and run commands
        if isinstance(node, ast.Call):
            name, words = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            wanted = LOADERS.get(name, {})
            safe = all(words.get(word) == value for word, value in wanted.items())
            if name in FORBIDDEN or not safe or words.get("shell", "False") != "False":
                found.append(ast.unparse(node))
    return found


UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
LOADERS = {"torch.load": {"weights_only": "True"}, "np.load": {"allow_pickle": "False"}}
LOADERS |= {"numpy.load": LOADERS["np.load"]}
FORBIDDEN = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "torch.jit.load", "torch.hub.load"}
SOURCES = sorted(path for room in ("infra", "pipeline", "model", "jobs") for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_can_run_what_it_reads(path: Path) -> None:
    assert not complaints(path.read_text())


def test_something_is_loaded_at_all() -> None:
    assert sum("torch.load(" in path.read_text() for path in SOURCES) >= 2


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from pickle import loads", "import dill as d", "from torch import load"),
        *("torch.load(p)", "torch.load(p, weights_only=False)", "torch.load(p, weights_only=trusted)"),
        *("np.load(p)", "numpy.load(p, allow_pickle=True)", "webdataset.WebDataset(urls)"),
        *("subprocess.run(c, shell=True)", "subprocess.Popen(c, shell=quick)", "os.system(c)", "eval(text)"),
    ],
)
def test_the_check_sees(source: str) -> None:
    assert complaints(source)

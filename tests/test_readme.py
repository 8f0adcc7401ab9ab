"""What the README says can be done, can be done: its commands, targets, files and presets exist and work."""

from __future__ import annotations

import importlib
import re
import shlex
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from model.presets import ABLATIONS, PRESETS
from tests.jobs.conftest import ROOT, Trained, make_video, mixed_corpus, run_job, trained  # noqa: F401
from tests.test_doors import LOOPBACK, listening

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [
    shlex.split(line, comments=True)
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith(("python ", "ray job submit ", "make "))
]


def job_of(command: list[str]) -> tuple[str, list[str]]:
    """(train_corpus, arguments) of `python jobs/train_corpus.py …`, alone or behind `ray job submit … --`."""
    start = next(i for i, word in enumerate(command) if word.startswith("jobs/"))
    return Path(command[start]).stem, command[start + 1 :]


def test_the_readme_has_commands() -> None:
    assert len([c for c in COMMANDS if c[0] == "make"]) >= 3
    assert {job_of(c)[0] for c in COMMANDS if c[0] != "make"} >= {"train_corpus", "sample"}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] != "make"], ids=" ".join)
def test_every_job_command_is_understood(command: list[str]) -> None:
    job, arguments = job_of(command)
    module = importlib.import_module(f"jobs.{job}")
    (module.parse if hasattr(module, "parse") else module.parse_args)(arguments)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "make"], ids=" ".join)
def test_every_make_target_exists(command: list[str]) -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    assert f"make {command[1]} " in shown


def test_the_tree_names_every_module_and_nothing_else() -> None:
    (tree,) = [block for block in BLOCKS if block.startswith("pipeline/ ")]
    named, folder = set(), ""
    for line in tree.splitlines():
        word = line.split()[0]
        folder = word if not line.startswith(" ") else folder
        named.add(word if not line.startswith(" ") else folder + word)
    there = {
        str(path.relative_to(ROOT))
        for room in ("pipeline", "model", "jobs", "infra")
        for path in (ROOT / room).glob("*.py")
    }
    assert {name for name in named if name.endswith(".py")} == {name for name in there if "__init__" not in name}
    assert all((ROOT / name).exists() for name in named)


def test_the_table_of_presets_is_complete() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)) == set(PRESETS)


def test_the_table_of_ablations_is_complete() -> None:
    assert set(re.findall(r"^\|.*\| `--ablation (\w+)` \|$", README, flags=re.MULTILINE)) == set(ABLATIONS)


def test_links_and_pictures_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_the_steps_for_own_videos(tmp_path: Path) -> None:
    """ "Your own videos", as written but for the size of the networks."""
    videos = tmp_path / "my_videos"
    videos.mkdir()
    make_video(videos / "clip.mp4")
    block = next(block for block in BLOCKS if "--dry-run" in block)
    plan, train, sample = (shlex.split(line, comments=True) for line in block.strip().splitlines())
    tiny = [f"--set={s}" for s in ("channels=4", "latent_dim=4", "iters_per_scale=1", "max_size=24")]
    assert run_job(Path(plan[1]).name, *plan[2:], *tiny, cwd=tmp_path).returncode == 0
    done = run_job(Path(train[1]).name, *train[2:], *tiny, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    (clip,) = (tmp_path / "runs" / "my_videos-small").glob("clip-*")
    made = run_job(Path(sample[1]).name, *[word.replace("CLIP", clip.name) for word in sample[2:]], cwd=tmp_path)
    assert made.returncode == 0, made.stdout
    assert len(list((tmp_path / "samples").glob("sample_*.mp4"))) == 10


@pytest.mark.slow
def test_make_ui_serves_the_store(trained: Trained) -> None:  # noqa: F811
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["make", "ui", f"STORAGE={trained.storage}", f"PORT={port}"]
    server = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name?experiment_name=mixed"
                answer = urllib.request.urlopen(address, timeout=5).read().decode()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, "the server did not come up"
                time.sleep(0.5)
        assert '"mixed"' in answer
        ports = listening(server.pid)
        assert ports and {address for _, address in ports} <= LOOPBACK, ports
    finally:
        import psutil

        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        for member in family:
            member.kill()
        psutil.wait_procs(family, timeout=20)

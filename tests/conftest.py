"""For all tests: what is made once for all of a run's processes, the table of what was broken on purpose, and what a
run left out."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path

import pytest
import torch

from model.device import keep_freed_memory

Injected = Callable[..., None]
EmptyStore = Callable[[Path], Path]
TABLE = pytest.StashKey[dict[str, list[int]]]()  # fault → times, lost, duplicated
LEFT_OUT = pytest.StashKey[dict[str, int]]()  # file → tests that -m deselected


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = {}
    config.stash[LEFT_OUT] = {}
    # Of processes that tests start, where Ray and torch would take all cores: threads of two that share a core spin.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if hasattr(config, "workerinput"):  # one of several processes, which share the cores
        torch.set_num_threads(1)
        keep_freed_memory()  # as a training does: the kernel clears what it is asked for anew


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    before = list(items)
    for item in items:
        if item.path.parent.name == "jobs" and "trained" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)  # a corpus is trained first, on a Ray
    result = yield
    kept = set(items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    size = Counter(item.path for item in items)
    # Long files first, so that none is left to run alone at the end.
    items.sort(key=lambda item: (-slow[item.path], -size[item.path]))
    config.stash[LEFT_OUT] |= Counter(item.nodeid.split("::")[0] for item in before if item not in kept)
    return result


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported stays, and need not be gone through for garbage again and again


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["faults"] = session.config.stash[TABLE]
        session.config.workeroutput["left_out"] = session.config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: pytest.Session, error: object) -> None:
    """Add a process's table to that of the run."""
    table = node.config.stash[TABLE]
    node.config.stash[LEFT_OUT] |= getattr(node, "workeroutput", {}).get("left_out", {})  # each process collects all
    for fault, counts in getattr(node, "workeroutput", {}).get("faults", {}).items():
        table[fault] = [a + b for a, b in zip(table.get(fault, [0, 0, 0]), counts)]


def made_once(name: str, make: Callable[[Path], None], factory: pytest.TempPathFactory) -> Path:
    """A folder that is made by the first of the tests' processes that needs it, for all of them."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / name, root / f"{name}.made"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one that failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> EmptyStore:
    """Makes an empty sqlite file of MLflow's, and returns its path: a copy of one, as MLflow takes seconds for each."""

    def make(folder: Path) -> None:
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()

    def copied(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made_once("schema", make, tmp_path_factory) / "mlflow.db", path)
        return path

    return copied


@pytest.fixture
def injected(request: pytest.FixtureRequest) -> Injected:
    """Measure what a fault did, and add it to the table. For tests marked `faults`.

    >>> injected("the process is killed", points_without_it, points_there, times=12)

    Args:
        fault: what was broken, in a few words; calls with the same words share a row.
        wanted: what is there when nothing is broken: points, clip ids, (tensor, bytes) …, anything hashable.
        found: what is there after the fault. A thing that has changed counts as one lost and one too many.
        times: how often the fault was injected.

    Fails the test if anything is lost or duplicated.
    """
    assert request.node.get_closest_marker("faults"), "mark the test: @pytest.mark.faults"

    def injected(fault: str, wanted: Iterable[Hashable], found: Iterable[Hashable], *, times: int = 1) -> None:
        expected, there = Counter(wanted), Counter(found)
        assert expected and times > 0, "nothing was there to be lost"
        lost, duplicated = expected - there, there - expected
        row = request.config.stash[TABLE].setdefault(fault, [0, 0, 0])
        for column, count in enumerate((times, lost.total(), duplicated.total())):
            row[column] += count
        assert not lost and not duplicated, f"{fault}: lost {[*lost][:5]}, too many {[*duplicated][:5]}"

    return injected


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.option.markexpr and (left_out := config.stash[LEFT_OUT]):
        terminalreporter.section("left out")
        files = ", ".join(f"{file.removeprefix('tests/')} {count}" for file, count in sorted(left_out.items()))
        terminalreporter.line(f"-m {config.option.markexpr!r} leaves out {sum(left_out.values())} tests: {files}")
    table = config.stash[TABLE]
    if not table:
        return
    width = max(map(len, table))
    terminalreporter.section("faults")
    terminalreporter.line(f"{'fault':<{width}}  times injected  lost  duplicated")
    for fault, (times, lost, duplicated) in table.items():
        terminalreporter.line(f"{fault:<{width}}  {times:>14}  {lost:>4}  {duplicated:>10}")

"""The tables and the board at the widths of terminals, and how long is left."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from rich.cells import cell_len
from rich.console import Console

from jobs.reports.duration import duration
from jobs.reports.table import TextTable
from jobs.training import progress
from jobs.training.board import Board, ClipProgress, Work
from model.presets import demo
from model.pyramid import ScaleSize
from model.timing import needed_gflops

from .conftest import ROOT

HEADS = ["clip", "status", "minutes", "svfid_lite0", "svfid_lite0_blur", "diversity_n10", "nn_distance", "nnfdiv"]
DROPPED = ["minutes", "nnfdiv", "nn_distance", "svfid_lite0_blur"]
ROWS = [
    ["bikes-1b0f76-000000", "done", "0.3", "163.2", "482.2", "0.90", "0.008", "0.34"],
    ["x" * 90, "failed", "", "", "", "", "", ""],
    ["überraschung-東京-1b0f76-000000", "done", "12.3", "1163.2", "482.2", "0.90", "0.008", "0.34"],
]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_a_table_fits_and_names_what_is_left_out(width: int) -> None:
    lines = TextTable("results", HEADS, ROWS, numbers=HEADS[2:], dropped_first=DROPPED).text(width).splitlines()
    note = lines[-1] if lines[-1].startswith("columns that do not fit") else ""
    assert all(cell_len(line) <= width for line in lines if line != note)
    left_out = note.partition(": ")[2].split(", ") if note else []
    assert left_out == DROPPED[: len(left_out)]
    assert ("163.2" in "\n".join(lines)) and (width < 100) == bool(note)
    text = "".join("".join(lines).split())
    assert text.count("x" * 20) and all(ord(character) >= 32 for line in lines for character in line)


def test_a_table_of_names_alone_is_folded_and_keeps_every_letter() -> None:
    text = TextTable("t", ["clip"], [["ab" * 60]], numbers=[]).text(30)
    assert text.count("ab") == 60


def test_in_a_terminal_a_name_leads_to_its_page() -> None:
    table = TextTable("t", ["clip"], [["bikes"], ["coins"]], numbers=[])
    terminal, plain = io.StringIO(), io.StringIO()
    table.print(Console(file=terminal, force_terminal=True, width=80), {"bikes": "http://127.0.0.1/run"})
    table.print(Console(file=plain, width=80), {"bikes": "http://127.0.0.1/run"})
    assert terminal.getvalue().count("http://127.0.0.1/run") == 1
    assert "http" not in plain.getvalue() and "\x1b" not in plain.getvalue()


SIZES = [ScaleSize(4, 12, 16), ScaleSize(7, 20, 27), ScaleSize(13, 54, 72)]
CONFIG = demo().with_overrides(["num_scales=3", "vae_levels=1", "patch_scale=none", "iters_per_scale=30,20,10"])


def test_the_time_that_is_left_is_that_of_the_operations_that_are_left() -> None:
    costs = [needed_gflops(CONFIG, SIZES, n) for n in range(3)]
    now = Work(CONFIG, SIZES).progress(1, 5, {"rec_loss": 0.5, "sec_per_iter": 2.0, "peak_gib": 0.25})
    done, total = 30 * costs[0] + 5 * costs[1], 30 * costs[0] + 20 * costs[1] + 10 * costs[2]
    assert now.part == pytest.approx(done / total)
    assert now.left_s == pytest.approx(2.0 * (total - done) / costs[1])
    assert (now.scale, now.scales, now.iteration, now.iterations) == (1, 3, 5, 20) and not now.trained
    assert Work(CONFIG, SIZES).progress(2, 10, {"sec_per_iter": 2.0}).trained


def clip(part: float, left_s: float) -> ClipProgress:
    return ClipProgress(1, 5, 120, 200, 0.0123, 0.25, 0.5, part, left_s)


def test_what_is_left_of_a_corpus() -> None:
    assert Board(10, 2).left_s is None
    two = {"a": clip(0.5, 50.0), "b": clip(0.75, 25.0)}  # of 100 s each
    assert Board(4, 0, clips=two).left_s == pytest.approx((50 + 25 + 2 * 100) / 2)
    assert Board(2, 0, clips=two).left_s == pytest.approx(50)  # the longest ends last
    at_samples = {"a": clip(1.0, 0.0)}
    assert Board(4, 0, clips=at_samples).left_s is None  # how long samples take is not known yet
    assert Board(4, 1, clips=at_samples, clip_s=80.0, elapsed_s={"a": 60.0}).left_s == pytest.approx(20 + 2 * 80)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_board_is_a_line_a_clip(width: int) -> None:
    names = [f"a-long-name-of-a-clip-{number}-16faa6-000000" for number in range(4)]
    clips = {name: clip(0.5, 3700.0) for name in names[:2]} | {names[2]: clip(1.0, 0.0), names[3]: None}
    text = io.StringIO()
    board = Board(25, 3, 1, clips=clips, machine="GPU 4/4, memory 5.1 of 23 GiB")
    Console(file=text, width=width).print(board.draw(width))
    head, *lines = text.getvalue().splitlines()
    assert head.startswith("3/25 done, 1 failed, 4 in training") and "GPU 4/4" in head
    assert len(lines) == 4 and max(map(len, [head, *lines])) <= width
    assert all("1:01:40" in line and "s/it" in line for line in lines[:2])
    assert ("loss 0.0123" in lines[0]) == (width >= 100) and "samples" in lines[2] and "starting" in lines[3]


def test_a_line_of_a_log_has_counts_and_clips() -> None:
    line = Board(25, 3, clips={"bikes": clip(0.5, 60.0)}).line()
    assert "3/25 done" in line and "bikes scale 1/4 50 %" in line and "left" in line and "\n" not in line


def test_a_cluster_without_a_node_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that starts its nodes, which may never come."""
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"memory": 1e9})
    monkeypatch.setattr(ray, "available_resources", lambda: {"memory": 1e9})
    output = io.StringIO()
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    with progress.ProgressDisplay(Console(file=output), 2, 0) as display:
        display.update({}, ["one", "two"])
    assert output.getvalue() == "0/2 done; no node yet, `ray status` says what the cluster starts\n"


def test_durations() -> None:
    assert [duration(s) for s in (0, 9.6, 125, 3723, 2 * 86400 + 7200)] == [
        "0:00",
        "0:10",
        "2:05",
        "1:02:03",
        "2 d 2 h",
    ]


def test_no_module_of_the_board_needs_a_terminal(tmp_path: Path) -> None:
    text = io.StringIO()
    Console(file=text, width=80).print(Board(1, 1).draw(80))
    assert text.getvalue().splitlines()[0] == "1/1 done"


def test_what_the_actor_of_a_corpus_imports_is_small() -> None:
    """It is a process of its own, beside the driver, and keeps some numbers."""
    code = "import sys, jobs.training.progress; print([name for name in ('torch', 'mlflow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

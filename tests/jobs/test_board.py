"""The tables and the board at the widths of terminals, and how long is left."""

from __future__ import annotations

import io
import re
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


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("a-q-b-x-script-alert-1-55139c-000000", 44, ["a-q-b-x-script-alert-1-55139c-000000"]),
        ("a-q-b-x-script-alert-1-55139c-000000", 43, ["a-q-b-x-script-alert-1-55139c-", "000000"]),
        ("bikes-1b0f76-000000--vae_levels=2", 25, ["bikes-1b0f76-", "000000--vae_", "levels=2"]),
        ("überraschung-東京東京-000000", 29, ["überraschung-", "東京東京-000000"]),
        ("-_-", 30, ["-_-"]),
        ("", 30, [""]),
    ],
)
def test_a_name_is_folded_between_its_parts(name: str, width: int, lines: list[str]) -> None:
    table = TextTable("t", ["clip", "status"], [[name, "done"]], numbers=[])
    rows = table.text(width).splitlines()[3:]
    assert [row.removesuffix("done").rstrip() for row in rows] == lines


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


@pytest.mark.parametrize("width", [80, 89, 90, 100, 140])
def test_the_board_is_a_line_a_clip(width: int) -> None:
    names = [f"a-long-name-of-a-clip-{number}-16faa6-000000" for number in range(4)]
    clips = {name: clip(0.5, 3700.0) for name in names[:2]} | {names[2]: clip(1.0, 0.0), names[3]: None}
    text = io.StringIO()
    board = Board(25, 3, 1, clips=clips, clip_s=8000.0, machine="GPU 25/25, memory 100.5 of 128 GiB")
    Console(file=text, width=width).print(board.draw(width))
    head, *lines = text.getvalue().splitlines()
    if not lines[0].startswith("a-long"):  # what does not fit has a line of its own
        head = "; ".join([head, lines.pop(0)])
    assert head.startswith("3/25 done, 1 failed, 4 in training, about ")
    assert head.endswith(" left; GPU 25/25, memory 100.5 of 128 GiB")
    assert len(lines) == 4 and max(map(len, text.getvalue().splitlines())) <= width
    assert all("1:01:40" in line and "s/it" in line for line in lines[:2])
    assert (
        "loss 0.0123" in lines[0]
        and ("0.5 GiB" in lines[0]) == (width >= 90)
        and "samples" in lines[2]
        and "starting" in lines[3]
    )


def of_numbers(count: int) -> dict[str, ClipProgress]:
    """Clips whose names are their numbers; the later ones have more left."""
    return {f"clip-{number:02d}": clip(0.5, 60.0 * (1 + number)) for number in range(count)}


@pytest.mark.parametrize(
    ("width", "height", "clips", "shown"), [(140, 24, 23, 23), (140, 24, 25, 22), (80, 24, 25, 21), (80, 3, 25, 0)]
)
def test_a_board_that_is_higher_than_the_terminal_counts_what_it_leaves_out(
    width: int, height: int, clips: int, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_load", lambda: "GPU 25/25, memory 100.5 of 128 GiB")
    text = io.StringIO()
    console = Console(file=text, width=width, height=height, force_terminal=True)
    with progress.ProgressDisplay(console, Board(100, 3, 1)) as display:
        display.update(of_numbers(clips), list(of_numbers(clips)))
        drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())
    assert re.findall(r"clip-\d\d", drawn) == list(of_numbers(shown))
    assert (f"and {clips - shown} more" in drawn) == (shown < clips)
    assert "3/100 done, 1 failed" in drawn and "memory 100.5 of 128 GiB" in drawn


def test_a_log_has_the_counts_and_the_clips_that_take_longest() -> None:
    board = Board(25, 3, clips=of_numbers(7) | {"at-samples": clip(1.0, 0.0), "begun": None})
    head, *lines = board.text().splitlines()
    assert head.startswith("3/25 done, 9 in training")
    left = {6: "7:00", 5: "6:00", 4: "5:00", 3: "4:00", 2: "3:00"}
    assert lines == [
        *(f"  clip-{n:02d}  scale 1/4 50 %, 0.25 s/it, loss 0.0123, about {time} left" for n, time in left.items()),
        "  and 3 more",
    ]
    assert Board(1, 0, clips={"bikes": clip(1.0, 0.0)}).text().splitlines()[1:] == ["  bikes  samples"]


def test_a_cluster_without_a_node_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that starts its nodes, which may never come."""
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"memory": 1e9})
    monkeypatch.setattr(ray, "available_resources", lambda: {"memory": 1e9})
    output = io.StringIO()
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    with progress.ProgressDisplay(Console(file=output), Board(2, 0)) as display:
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

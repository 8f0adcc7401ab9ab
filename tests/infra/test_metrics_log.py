"""The log of a clip's points, as two processes see it of which one was taken for lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.metrics_log import MetricsLog


def places(path: Path) -> list[tuple[int, int | None]]:
    return [(line["scale"], line["iteration"]) for line in map(json.loads, path.read_text().splitlines())]


def test_a_point_is_there_once_though_the_process_before_wrote_it_late(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lost = MetricsLog(path)
    lost.append(0, 10, {"loss": 1.0})
    owner = MetricsLog(path)
    lost.append(0, None, {"score": 2.0})
    for place in ((0, 10), (0, None), (1, 10), (1, 20)):
        owner.append(*place, {"loss": 3.0})
    lost.append(1, 10, {"loss": 4.0})
    assert places(path) == [(0, 10), (0, None), (1, 10), (1, 20)]


@pytest.mark.parametrize("lines", [0, 1])
def test_half_a_line_of_another_is_removed(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for iteration in range(lines):
        log.append(0, iteration, {"loss": 1.0})
    with open(path, "a") as file:
        file.write('{"time_ms": 1, "sca')
    log.append(0, 5, {"loss": 1.0})
    assert places(path) == [*((0, iteration) for iteration in range(lines)), (0, 5)]

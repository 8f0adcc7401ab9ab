"""jobs/gpu_check.py, rehearsed on a CPU: every part really runs, on tiny networks."""

from __future__ import annotations

import json
import os
import time
from functools import partial

import pytest
import torch

from jobs import benchmark, gpu_check
from jobs.gpu import compiled, memory, parity, run, speed, workers
from jobs.gpu.part import NotPossible, Outcome, Part, Setting, outcome_of, table
from model import timing
from model.presets import paper
from model.pyramid import ladder
from tests.jobs.gpu_parts import absent, broken, fine, slow

CONFIG = paper().with_overrides(run.QUICK)
SETTING = Setting(device="cpu", config=CONFIG, sizes=ladder(CONFIG, 144, 256), seconds=0.01, quick=True)


def here(function, *arguments):
    """in_own_process without the process, which takes seconds to start."""
    return function(*arguments)


def in_place(part: Part, setting: Setting, limit_s: float) -> Outcome:
    found = part.run(setting)
    return Outcome(part, "passed" if found.passed else "failed", found.lines, found.figures, 0.0)


def test_without_a_gpu_it_is_one_line_and_code_2(capfd, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main([]) == 2
    (line,) = capfd.readouterr().out.splitlines()
    assert line.startswith("error: no CUDA device: ") and "run it on a machine with a GPU" in line
    assert gpu_check.main(["--only", "parity,speed"]) == 2
    assert "--only parity,speed: parts are machine, parity" in capfd.readouterr().out


def test_a_report_that_cannot_be_is_one_line_and_none_is_left_without_a_gpu(capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for path, cause in ((tmp_path / "none" / "g.json", "No such file or directory"), (tmp_path, "Is a directory")):
        assert gpu_check.main(["--json", str(path)]) == 2
        (line,) = capfd.readouterr().out.splitlines()
        assert line.startswith(f"error: --json {path}: cannot be written ({cause}); make room there, ")
    kept = tmp_path / "kept.json"
    kept.write_text("{}")
    for path in (kept, tmp_path / "new.json"):
        assert gpu_check.main(["--json", str(path)]) == 2
        assert capfd.readouterr().out.startswith("error: no CUDA device: ")
    assert [*tmp_path.iterdir()] == [kept] and kept.read_text() == "{}"


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1", "x", ""])
def test_times_that_are_none_are_one_line(value, capfd):
    for command, option in ((gpu_check, "--minutes"), (benchmark, "--seconds")):
        with pytest.raises(SystemExit) as ended:
            command.parse([f"{option}={value}"])
        line = f"{option}: {value}: write a number above 0, such as 10 or 0.5\n"
        assert ended.value.code == 2 and capfd.readouterr().err.endswith(line)


def test_every_part_has_a_name_in_the_help_and_a_limit_and_all_take_ten_minutes_at_most():
    assert tuple(part.name for part in run.PARTS) == gpu_check.PARTS
    assert all(f"\n    {part.name} " in gpu_check.__doc__ for part in run.PARTS)
    assert all(part.limit_s < 600 for part in run.PARTS)


@pytest.mark.slow
def test_a_part_that_hangs_breaks_or_cannot_be_is_a_line_and_the_others_go_on(monkeypatch, capfd, tmp_path):
    """Each in its own process, as always; the report is Markdown of at most 80 columns."""
    parts = [
        Part("machine", "Hangs", 1, slow),
        Part("parity", "Breaks", 60, broken),
        Part("range", "Absent", 60, absent),
    ]
    monkeypatch.setattr(run, "PARTS", [*parts, Part("cap", "Fine", 60, fine)])
    began = time.monotonic()
    hung = outcome_of(parts[0], SETTING, 1)
    assert (hung.status, hung.lines) == ("failed", ["not done after 1 s"]) and time.monotonic() - began < 60
    monkeypatch.setattr(run, "REHEARSAL_S", 60)
    path = tmp_path / "gpu.json"
    command = ["--device", "cpu", "--quick", "--only", "parity,range,cap", "--json", str(path)]
    assert gpu_check.main(command) == 1
    out = capfd.readouterr().out
    assert "## Breaks: failed" in out and "ValueError: no such thing" in out
    assert "## Absent: not possible" in out and "## Fine: passed" in out
    assert "1 passed, 1 failed, 1 not possible" in out
    found = json.loads(path.read_text())["parts"]
    assert found["cap"]["number"] == 1 and found["parity"]["status"] == "failed"


@pytest.mark.slow
def test_the_parts_of_one_process_pass_on_a_cpu(monkeypatch, capfd, tmp_path):
    """Parity, range and speeds for real, without a process for each."""
    monkeypatch.setattr(run, "outcome_of", in_place)
    monkeypatch.setattr(parity, "in_own_process", here)
    monkeypatch.setattr(
        run, "PARTS", [part for part in run.PARTS if part.name in ("machine", "parity", "range", "scales")]
    )
    path = tmp_path / "gpu.json"
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    assert gpu_check.main(["--device", "cpu", "--quick", "--json", str(path)]) == 0
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before  # whoever calls it has its GPUs afterwards
    out = capfd.readouterr().out
    assert max(map(len, out.splitlines())) <= 80, out
    parts = json.loads(path.read_text())["parts"]
    errors = {(row["scale"], row["precision"]): row for row in parts["parity"]["rows"]}
    assert set(errors) == {(n, precision) for n in (0, 2, 3) for precision in ("float32", "bf16")}
    for (_, precision), row in errors.items():
        assert (row["gradient_error"] < 1e-5) == (precision == "float32"), row  # the same numbers were drawn
    assert all(row["not_finite"] == 0 and row["largest"]["forward"] > 0 for row in parts["range"]["rows"])
    assert [row["scale"] for row in parts["scales"]["rows"]] == [0, 1, 2, 3]
    assert parts["scales"]["clip_hours"] > 0


@pytest.mark.slow
def test_a_wrong_iteration_fails_parity(monkeypatch):
    """Where the weight of one loss is half of what it is on the device."""
    monkeypatch.setattr(parity, "in_own_process", here)
    monkeypatch.setattr(parity, "reference", partial(_with_half, parity.reference))
    assert not parity.parity(SETTING).passed


def _with_half(reference, config, sizes, n, path):
    reference(config.with_overrides(["rec_weight=0.5"]), sizes, n, path)


@pytest.mark.slow
def test_two_workers_over_gloo_hold_the_same_weights():
    found = workers.two_workers(SETTING)
    assert found.passed, found.lines
    assert found.figures["gloo"]["equal"] and found.figures["gloo"]["apart"] < 1e-5  # measured: rounding


@pytest.mark.slow
def test_a_training_that_does_not_fit_is_halved_until_it_does():
    with pytest.raises(NotPossible, match="not on a CPU"):
        memory.cap(SETTING)
    found = memory.halving(SETTING)
    assert found.passed, found.lines
    first, *later = found.figures["tried"]
    assert first == memory.EXAMPLES and later and later == [first // 2 ** (k + 1) for k in range(len(later))]


@pytest.mark.slow
def test_clips_an_hour_of_processes_that_start_together(monkeypatch):
    monkeypatch.setattr(speed, "TOGETHER", (2,))
    found = speed.together(SETTING)
    assert found.passed and found.figures["rows"][0]["clips_an_hour"] > 0


@pytest.mark.slow
def test_compiled_generators_change_nothing(monkeypatch):
    """By the compiler's tracing alone: its code for a CPU takes a minute to make."""
    compile_ = torch.nn.Module.compile
    calls = []

    def traced(module, **options):
        calls.append(module)
        compile_(module, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    found = compiled.compiled(SETTING)
    assert calls and found.passed and all(row["gradient_error"] < 1e-5 for row in found.figures["rows"])


def test_a_table_is_aligned():
    assert table(["a", "bb"], [[100, "x"]]) == ["|   a | bb |", "|----:|---:|", "| 100 |  x |"]


def test_the_iterations_of_clips_an_hour_are_weighted_by_scale(monkeypatch):
    """Two clips at once, 0.1 s an iteration of scale n: 0.1 · iterations seconds a clip."""
    monkeypatch.setattr(timing, "_in_processes", lambda count, function, *rest: [[0.1] * CONFIG.num_scales] * count)
    seconds = 0.1 * sum(CONFIG.iterations)
    assert timing.clips_an_hour(CONFIG, SETTING.sizes, 1.0, 2) == pytest.approx(2 * 3600 / seconds)

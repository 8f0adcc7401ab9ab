"""Tables, files and totals of results: a diversity names how many samples it is of, also beside results from before."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

from jobs.experiment.result import Result, columns
from jobs.experiment.summary import SHOWN_ROWS, Summary
from jobs.tuning import plot, summary
from jobs.tuning.axes import Axis
from model.metrics.names import diversity_name, diversity_samples

DONE = Result("a", "done", minutes=1.0, svfid_lite0=100.0, svfid_lite0_blur=200.0, diversity=0.5, nn_distance=0.1)
OF_10, OF_50 = replace(DONE, clip_id="ten", diversity_n=10), replace(DONE, clip_id="fifty", diversity_n=50)
FAILED = Result("bad", "failed", "why")


def test_names() -> None:
    assert diversity_name(50) == "diversity_n50" and diversity_samples("diversity_n50") == 50
    assert [diversity_samples(name) for name in ("diversity", "diversity_n", "x_diversity_n5", "nn_distance")] == [
        0
    ] * 4


def test_a_result_in_a_file() -> None:
    for result in (DONE, OF_10, OF_50, FAILED):
        assert Result.from_json(json.dumps(result.to_dict())) == result
    assert OF_50.to_dict()["diversity_n50"] == 0.5 and not {"diversity", "diversity_n"} & OF_50.to_dict().keys()


def test_a_result_from_before() -> None:
    before = '{"clip_id": "a", "status": "done", "minutes": 1.0, "svfid_lite0": 100.0, "svfid_lite0_blur": 200.0, '
    before += '"diversity": 0.5, "nn_distance": 0.1}'
    assert Result.from_json(before) == DONE and DONE.to_dict()["diversity"] == 0.5


def total_of(*results: Result) -> Summary:
    total = Summary()
    for result in results:
        total.add(result, "")
    total.add_failure("/films/none.mp4", "cannot be read")
    return total


def test_clips_that_are_done_are_known_also_where_the_table_shows_none_of_them() -> None:
    failed = [replace(FAILED, clip_id=f"bad{i}") for i in range(SHOWN_ROWS)]
    total = total_of(*failed, *(replace(DONE, clip_id=f"good{i}") for i in range(3)))
    assert total.done_clips == ["good0", "good1", "good2"] and total.done == 3


def test_each_number_of_samples_has_its_column_and_its_mean() -> None:
    total = total_of(OF_50, DONE, replace(OF_10, diversity=0.2), replace(OF_10, clip_id="b", diversity=0.4), FAILED)
    head = next(line for line in total.page().splitlines() if "svfid_lite0" in line)
    assert head.split().index("diversity") < head.split().index("diversity_n10") < head.split().index("diversity_n50")
    rows = {row["clip_id"]: row for row in csv.DictReader(io.StringIO(total.csv().decode()))}
    found = {
        clip: [row[name] for name in ("diversity", "diversity_n10", "diversity_n50")] for clip, row in rows.items()
    }
    assert found == {
        "fifty": ["", "", "0.5"],
        "a": ["0.5", "", ""],
        "ten": ["", "0.2", ""],
        "b": ["", "0.4", ""],
        "bad": ["", "", ""],
        "none.mp4": ["", "", ""],
    }
    means = {name: value for name, value in total.metrics().items() if "diversity" in name}
    assert means == {
        "score/diversity_mean": 0.5,
        "score/diversity_n10_mean": (0.2 + 0.4) / 2,
        "score/diversity_n50_mean": 0.5,
    }
    assert total.metrics()["score/svfid_lite0_mean"] == 100.0 and total.metrics()["clips_failed"] == 2


def test_a_table_of_results_of_one_kind_has_one_column() -> None:
    for results, name in (([OF_10], "diversity_n10"), ([DONE, FAILED], "diversity"), ([FAILED], "diversity")):
        text = total_of(*results).csv().decode().splitlines()
        (column,) = [word for word in text[0].split(",") if "diversity" in word]
        assert column == name
    assert columns(["minutes", "diversity"], []) == ["minutes", "diversity"]


def test_a_sweep_names_it_in_its_table_file_and_plot_also_beside_trials_from_before() -> None:
    axes = (Axis("vae_levels", ("1", "2")),)
    trials = {"a1": ("a", {"vae_levels": "1"}), "a2": ("a", {"vae_levels": "2"})}
    pictures = set()
    for first, name in ((OF_10, "diversity_n10"), (DONE, "diversity_n10"), (None, "diversity")):
        results = {"a1": first or DONE, "a2": replace(OF_10, diversity=0.25) if first else DONE}
        found = summary.lines(trials, results)
        assert f" {name} " in summary.table(found, ["vae_levels"]).text()
        rows = list(csv.DictReader(io.StringIO(summary.to_csv(trials, results, ["vae_levels"]).decode())))
        assert [float(row[name]) for row in rows] == [0.5, 0.25 if first else 0.5]
        assert [word for word in rows[0] if "diversity" in word] == [name]
        pictures.add(plot.figure(found, axes, "t"))
    assert len(pictures) == 2  # of the last other values and another label

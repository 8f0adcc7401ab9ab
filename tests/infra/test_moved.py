"""A storage folder that is moved with its MLflow store: the files of old and new runs are found where it is now."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from infra.tracking import runs
from infra.tracking.uri import default_uri


def artifacts(storage: Path) -> dict[str, str]:
    """name of a run's experiment and file → its text, as MLflow's client reads it."""
    found = {}
    for experiment in ("exp ü", "other"):
        parent = runs.find_parent(default_uri(storage), experiment, storage)
        assert parent is not None
        client = parent.client()
        for run in client.search_runs([parent.experiment_id]):
            folder = Path(client.download_artifacts(run.info.run_id, ""))
            for path in folder.rglob("*.*"):
                found[f"{experiment}/{path.relative_to(folder)}"] = path.read_text()
    return found


@pytest.mark.parametrize("copied", [False, True])
def test_the_artifacts_go_with_the_folder(copied: bool, tmp_path: Path) -> None:
    old, new = tmp_path / "old ?#%", tmp_path / "deep" / "new 日本"
    for experiment in ("exp ü", "other"):
        parent = runs.open_parent(default_uri(old), experiment, old, {})
        runs.close_parent(parent, failed=False, metrics={}, table="first")
        model = parent.client().create_logged_model(parent.experiment_id, "clip", parent.run_id)
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "weights").write_text(experiment)
        parent.client().log_model_artifacts(model.model_id, str(tmp_path / "model"))
    new.parent.mkdir()
    shutil.copytree(old, new)
    kept = sorted(path.relative_to(old) for path in old.rglob("*"))
    if not copied:
        shutil.rmtree(old)
    before = runs.find_parent(default_uri(new), "other", new)  # as evaluate.py does
    assert before is not None
    runs.log_evaluation(before, before.run_id, {}, {"results.md": b"scores"})
    parent = runs.open_parent(default_uri(new), "exp ü", new, {})
    runs.close_parent(parent, failed=False, metrics={}, table="second")
    assert artifacts(new) == {
        "exp ü/results.txt": "second",
        "other/results.txt": "first",
        "other/evaluation/results.md": "scores",
    }
    if copied:
        assert sorted(path.relative_to(old) for path in old.rglob("*")) == kept
    else:
        assert not old.exists()
    with sqlite3.connect(new / "mlflow.db") as connection:
        places = connection.execute("SELECT artifact_location FROM experiments WHERE name != 'Default'").fetchall()
        places += connection.execute("SELECT artifact_uri FROM runs").fetchall()
        places += connection.execute("SELECT artifact_location FROM logged_models").fetchall()
    connection.close()
    assert len(places) == 6 and all(place.startswith(new.as_uri() + "/mlartifacts/") for (place,) in places)


def test_a_store_elsewhere_is_left_alone_while_its_files_are_where_it_says(tmp_path: Path) -> None:
    """One sqlite file for two storage folders, and an experiment of the same name in both."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    one, two = tmp_path / "one", tmp_path / "two"
    parent = runs.open_parent(uri, "exp", one, {})
    runs.close_parent(parent, failed=False, metrics={}, table="first")
    assert runs.open_parent(uri, "exp", two, {}) == parent
    assert parent.client().get_run(parent.run_id).info.artifact_uri.startswith(one.as_uri())
    one.rename(two)
    assert runs.open_parent(uri, "exp", two, {}) == parent
    assert parent.client().get_run(parent.run_id).info.artifact_uri.startswith(two.as_uri())


def test_copies_of_a_store_are_kept_apart_in_one_process(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    parent = runs.open_parent(default_uri(one), "exp", one, {})
    shutil.copytree(one, two)
    for storage in (two, one, two, one):
        found = runs.find_parent(default_uri(storage), "exp", storage)
        assert found is not None and found.run_id == parent.run_id
        runs.log_evaluation(found, found.run_id, {}, {"results.md": storage.name.encode()})
        (table,) = storage.rglob("results.md")
        assert table.read_text() == storage.name

"""What a tracking URI means, and what is refused before MLflow tries for minutes."""

from __future__ import annotations

import importlib.util
import shlex
import sqlite3
import time
from pathlib import Path

import pytest
import sqlalchemy
from mlflow import MlflowClient

from infra.errors import UsageError, without_secrets
from infra.tracking import runs
from infra.tracking.uri import artifact_location, check_length, default_uri, sqlite_file, tracking_uri

WITHOUT_COPIES = runs.open_parent  # before these tests have it copy one schema
HARD_NAMES = [
    "plain",
    "a b",
    "what?",
    "part#2",
    "100%",
    "%20",
    "a?b#c%d e&f=g;h",
    "日本語",
    "it's",
    "a::b",
    "~x",
    "@b:c",
]


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize("name", HARD_NAMES)
def test_the_sqlite_file_and_the_artifacts_are_in_the_storage_folder_whatever_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cwd, storage = tmp_path / "cwd", tmp_path / "s" / name
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    uri = default_uri(storage)
    storage.mkdir(parents=True)
    sqlite3.connect(storage / "mlflow.db").close()
    assert sqlite_file(uri) == storage / "mlflow.db"
    if name != HARD_NAMES[6]:  # MLflow makes the schema of one, which takes seconds
        return
    parent = runs.open_parent(uri, "exp", storage, {})
    runs.close_parent(parent, failed=False, metrics={}, table="the table")
    (table,) = storage.glob("mlartifacts/exp/*/artifacts/results.txt")
    assert table.read_text() == "the table"
    assert sorted(path.name for path in storage.iterdir()) == ["mlartifacts", "mlflow.db", "mlflow.db.lock"]
    assert not list(cwd.iterdir()) and [path.name for path in (tmp_path / "s").iterdir()] == [name]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "in memory"),
        ("sqlite://tmp/mlflow.db", "four for an absolute path"),
        ("sqlite+nix:///x.db", "leave out the + part"),
        ("mysql://u:hidden@127.0.0.1/db", "pip install 'pymysql'"),
        ("mysql+mysqldb://u:hidden@127.0.0.1/db", "pip install 'mysqlclient'"),
        ("mssql://u:hidden@127.0.0.1/db", "pip install 'pyodbc'"),
        ("postgresql+pg8000://u:hidden@127.0.0.1/db", "pip install 'pg8000'"),
        ("postgresql+nix://u:hidden@127.0.0.1/db", "leave out the + part"),
        ("postgresql://u:hidden@127.0.0.1:port/db", "is no URI"),
        ("http://u:hidden@127.0.0.1:port/", "names no host"),
        ("http://u:hid/den@127.0.0.1/", "holds a / ? or # in its password"),
        ("http://[::1", "names no host"),
        ("http://h/caf\udce9", "holds characters that no URI has"),
        ("http://me:p@ss/w#rd@h:1", "http://***@h:1: holds a / ? or # in its password; write them as %2F"),
        ("postgresql://me:p@ss/w#rd@h:1/db", "postgresql://***@h:1/db: holds a / ? or # in its password"),
        ("oracle://u:hidden@127.0.0.1/db", "no store behind oracle://"),
        ("ftp://u:hidden@127.0.0.1/db", "no store behind ftp://"),
        ("http://", "names no host"),
        ("./mlruns", "is a folder or a word"),
        ("file:///tmp/mlruns", "is a folder or a word"),
        ("mlflow:5000", "is a folder or a word"),
        ("databricks", "names experiments by paths in its workspace"),
        ("databricks://profile", "names experiments by paths in its workspace"),
    ],
)
def test_what_mlflow_cannot_use_is_one_line_with_its_mend(
    given: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ABSENT else found(name))
    for option, value in (("--tracking-uri", given), ("MLFLOW_TRACKING_URI", None)):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
        with pytest.raises(UsageError) as refused:
            tracking_uri(value, tmp_path)
        line = str(refused.value)
        assert line.startswith(f"{option} {given.partition('://')[0]}") and words in line and "; " in line
        assert "hidden" not in line and "\n" not in line


ABSENT = {"pymysql", "MySQLdb", "pyodbc", "pg8000"}  # whatever is installed where this runs


def test_a_path_that_is_relative_or_at_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "me").mkdir()
    assert tracking_uri("sqlite:///me/mlflow.db", tmp_path) == f"sqlite:///{tmp_path}/me/mlflow.db"
    assert tracking_uri("sqlite:///~/mlflow.db?timeout=9", tmp_path) == f"sqlite:///{tmp_path}/me/mlflow.db?timeout=9"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UsageError, match="thrown away"):
        tracking_uri("sqlite:///mlflow.db", tmp_path)


def test_no_folder_is_made_for_a_sqlite_file_but_the_storage(tmp_path: Path) -> None:
    """A slash too many, as in sqlite:////runs/mlflow.db, would make a folder at the root of the disk."""
    absent = tmp_path / "absent"
    for file in (f"{absent}/x.db", f"{absent}/below/x.db", f"file:{absent}/x.db?uri=true"):
        with pytest.raises(
            UsageError, match=rf"x\.db.*: there is no folder {absent}.*; make it first, or give"
        ) as told:
            tracking_uri(f"sqlite:///{file}", tmp_path)
        assert str(told.value).startswith("--tracking-uri sqlite:///")
    assert not absent.exists()
    assert tracking_uri(f"sqlite:///{absent}/x.db", absent) == f"sqlite:///{absent}/x.db"


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_postgresql_takes_the_driver_that_is_installed(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(driver)
    found = importlib.util.find_spec
    absent = {"psycopg", "psycopg2"} - {driver}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else found(name))
    for scheme in ("postgresql", "postgres", "POSTGRESQL"):
        assert tracking_uri(f"{scheme}://me:a@b@h:5/db?x=1", tmp_path) == f"postgresql+{driver}://me:a%40b@h:5/db?x=1"
    assert sqlalchemy.make_url(tracking_uri("postgresql://me:a/b?c#d@h/db", tmp_path)).password == "a/b?c#d"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "psycopg" in name else found(name))
    with pytest.raises(UsageError, match=r"pip install 'psycopg\[binary\]'"):
        tracking_uri("postgresql://h/db", tmp_path)


def test_a_database_that_is_away_is_one_line_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("psycopg")
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=r"postgresql\+psycopg://\*\*\*@127\.0\.0\.1:9/db: MLflow cannot") as away:
        runs.open_parent(tracking_uri("postgresql://me:hidden@127.0.0.1:9/db", tmp_path), "exp", tmp_path, {})
    assert "\n" not in str(away.value) and "hidden" not in str(away.value)
    assert time.monotonic() - started < 15 and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:hidden@host:5000/x", "http://***@host:5000/x"),
        ("https://hidden@host/", "https://***@host/"),
        ("http://me:hid@den@host/a@b", "http://***@b"),  # rather too much than a part of a password
        ("http://u:p@ss:w/ord#1@127.0.0.1:1", "http://***@127.0.0.1:1"),
        ("postgresql://me:p@ss/w#rd@127.0.0.1:1/db", "postgresql://***@127.0.0.1:1/db"),
        ("http://u:se'cret@127.0.0.1:1", "http://***@127.0.0.1:1"),
        ("http://me:hidden@host/clip.mp4@2.5", "http://***@host/clip.mp4@2.5"),
        ("postgresql://me:hid/den?#@host/db", "postgresql://***@host/db"),
        ("API request to http://me:hidden@host/api failed", "API request to http://***@host/api failed"),
        ("'s3://hidden:hidden@bucket/x' and \"ftp://a:hidden@h\"", "'s3://***@bucket/x' and \"ftp://***@h\""),
        ("postgresql://h/db?user=me&password=hidden&x=1", "postgresql://h/db?user=me&password=***&x=1"),
        ("https://h/v.mp4?X-Amz-Signature=hidden#hid;den&x=1", "https://h/v.mp4?X-Amz-Signature=***&x=1"),
        ("http://h/?token=***: cannot be used", "http://h/?token=***: cannot be used"),  # masked before: its mark stays
        ("no answer (http://h/?token=***), wait", "no answer (http://h/?token=***), wait"),
        ("http://h/?token=***hidden", "http://h/?token=***"),
        *(
            (same, same)
            for same in ("s3://bucket/a@b", "http://h:80/a@2.5", "sqlite:////a:b/c@d", "/a:b/c@d", "me@host")
        ),
    ],
)
def test_what_is_shown_of_a_uri_keeps_the_rest(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert without_secrets(shown) == shown


@pytest.mark.parametrize(
    "given",
    [
        "http://u:12/hid@h",
        "http://u:12,hid@h:1",
        "http://u:12:hid@h",
        "http://u:a hid@h",
        "http://u:p@ss hid@h/x",
        "http:///u:hid@h",
        "http:/u:hid@h",
        "http:u:hid@h",
        "u:hid@h:5000",
        "//u:hid@h/",
        "http%3A%2F%2Fu%3Ahid%40h/x",
        "http%253A%252F%252Fu%253Aa%2520hid%2540h",
        "ray://u:hid@h:10001",
        "s3://hid:a/hid@b/x",
        "http://h/?proxy=http%3A%2F%2Fu%3Ahid%40h",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dhid",
        "mssql+pyodbc:///?odbc_connect=DRIVER%253Dx%253BPWD%253Dhid%253BUID%253Du",
        "mssql+pyodbc:///?odbc_connect=DRIVER=x;PWD=hid;UID=u",
        *(
            f"postgresql://h/db?a=1&{name}=hid"
            for name in ("password", "%70assword", "%2570assword", "PASS", "passphrase", "pw", "pwd", "sslpassword")
        ),
        *(
            f"https://h/?{name}=hid&x=1"
            for name in ("jwt", "api_key", "sig", "AccessToken", "client-secret", "session")
        ),
        "http://h/?password=a'hid&x=1",
        "http://h/?password=a;hid",
        "http://h/?password=a#hid",
        "http://h/x;password=hid",
        "http://h/#access_token=hid",
    ],
)
def test_no_form_of_a_uri_shows_its_password(given: str) -> None:
    for text in (given, f"'{given}'", f"see {given}: no answer", shlex.join(["--corpus", given]), f"({given}), then"):
        shown = without_secrets(text)
        assert "hid" not in shown and "***" in shown, shown
        assert without_secrets(shown) == shown


@pytest.mark.parametrize("given", ["u:a/hid@h:5000", "http://u:a hid@h", "mssql+nix:///u:a/b hid@h", "ftp:///hid@h"])
def test_of_a_uri_that_cannot_be_used_all_before_its_host_is_masked(given: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--tracking-uri .*\*\*\*@h.*: .*; ") as refused:
        tracking_uri(given, tmp_path)
    assert "hid" not in str(refused.value)


def test_a_storage_folder_that_is_no_utf8_is_refused_where_mlflow_would_lose_it(tmp_path: Path) -> None:
    storage = tmp_path / "caf\udce9"
    for uri in (None, f"sqlite:///{tmp_path}/mlflow.db"):
        with pytest.raises(
            UsageError, match=r"caf\\udce9.*: is not UTF-8, which MLflow cannot name; rename it"
        ) as told:
            runs.open_parent(tracking_uri(uri, storage), "exp", storage, {})
        assert str(told.value).isprintable()
    assert tracking_uri("http://127.0.0.1:9", storage) == "http://127.0.0.1:9"  # a server keeps the files itself


def test_a_path_that_a_database_would_cut_is_refused(tmp_path: Path) -> None:
    location = artifact_location(Path("/") / ("x" * 200), "exp")
    check_length(default_uri(tmp_path), location)
    with pytest.raises(UsageError, match=r"artifact paths of 267 characters, .* takes 200; give a shorter --storage"):
        check_length("postgresql+psycopg://h/db", location)


@pytest.mark.slow
def test_a_stop_while_mlflow_makes_its_schema_leaves_none(tmp_path: Path) -> None:
    """MLflow refuses a part of one, and the same command has to go on."""
    uri = default_uri(tmp_path)

    def stop(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "index_metrics_run_uuid_key_step" in statement:  # in the middle
            raise KeyboardInterrupt

    sqlalchemy.event.listen(sqlalchemy.Engine, "after_cursor_execute", stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            WITHOUT_COPIES(uri, "exp", tmp_path, {})
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "after_cursor_execute", stop)
    parent = WITHOUT_COPIES(uri, "exp", tmp_path, {})
    runs.close_parent(parent, failed=False, metrics={}, table="the table")
    assert {path.name for path in tmp_path.iterdir()} == {"mlartifacts", "mlflow.db", "mlflow.db.lock"}


def test_an_experiment_deleted_in_mlflow_is_restored_with_the_newest_run_of_a_clip(tmp_path: Path) -> None:
    uri = default_uri(tmp_path)
    parent = runs.open_parent(uri, "exp", tmp_path, {})
    client = MlflowClient(uri)
    tags = {"clip_id": "clip", "mlflow.parentRunId": parent.run_id}
    old, new, lost = (client.create_run(parent.experiment_id, tags=tags).info.run_id for _ in range(3))
    for run_id in (old, new):
        client.log_param(run_id, "lr", 1)
    for run_id in (old, lost):  # by --fresh, and as made twice by a lost answer
        client.delete_run(run_id)
    client.delete_experiment(parent.experiment_id)
    assert runs.find_parent(uri, "exp", tmp_path) is None  # which changes nothing
    assert runs.open_parent(uri, "exp", tmp_path, {}) == parent
    (found,) = client.search_runs([parent.experiment_id], "tags.clip_id = 'clip'")
    assert found.info.run_id == new
    runs.forget_clips(parent, ["clip"])  # --fresh
    assert not client.search_runs([parent.experiment_id], "tags.clip_id = 'clip'")

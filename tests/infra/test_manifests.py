"""The files that describe a cluster: they have no mistake, and a mistake is one line that names file and field."""

from __future__ import annotations

import copy
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.cluster import check
from infra.cluster.check import OURS
from jobs import train_corpus
from tests.jobs.conftest import ROOT

CLUSTER = ROOT / "infra" / "cluster"
CRDS = ROOT.parent / "shared" / "data" / "kuberay"
NEEDS_CRDS = "KubeRay's definitions are not here: its own fields cannot be checked"
SECRETS = ("auth_token", "database_password", "mlflow_password", "mlflow_secret_key", "aws_access_key_id",
           "aws_secret_access_key")  # fmt: skip


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home with a token, and the folder of the project, from which `ray up` runs."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)


def read(name: str) -> list[Any]:
    return [*yaml.safe_load_all((CLUSTER / name).read_text())]


def run(capsys: pytest.CaptureFixture[str], *files: Path) -> tuple[int, list[str]]:
    """Exit code and lines of the check, with KubeRay's definitions where they are here."""
    crds = ["--crds", str(CRDS)] if CRDS.is_dir() else []
    code = check.main([*map(str, files), *crds])
    return code, capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", OURS)
def test_a_file_of_the_project_has_no_mistake(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    if name == "ray_up/aws_access.yaml":
        pytest.importorskip("cfnlint", reason="cfn-lint is not installed")
    code, lines = run(capsys, CLUSTER / name)
    assert code == 0, lines
    by = {"ray_up/aws.yaml": "Ray's schema, prepare_config and validate_config, EC2's RunInstances",
          "ray_up/gcp.yaml": "Ray's schema, prepare_config and validate_config, Compute Engine's instances",
          "kuberay/raycluster.yaml": "KubeRay's RayCluster, Kubernetes 1.34",
          "kuberay/rayjob.yaml": "KubeRay's RayJob, Kubernetes 1.34",
          "kuberay/mlflow.yaml": "Kubernetes 1.34",
          "compose.yaml": "the Compose specification",
          "compose.gpu.yaml": "the Compose specification",
          "ray_up/aws_access.yaml": "cfn-lint",
          "kuberay/kustomization.yaml": "kustomize's fields, the files that it names"}[name]  # fmt: skip
    if "kuberay/ray" in name and not CRDS.is_dir():
        pytest.skip(NEEDS_CRDS)
    assert lines[-1].startswith(f"{CLUSTER / name}: no mistake, by {by}")


AWS, GCP, STAYS, JOB, MLFLOW, _, _, ACCESS, KUSTOMIZATION = OURS
POD = "template.spec.containers[0]"
AT = "available_node_types"
WRONG = [  # file, what stands there, what is put in its place, part of the line
    (AWS, "max_workers: 25\nup", "max_worker: 25\nup", "max_worker: no such field; did you mean max_workers?"),
    (AWS, "idle_timeout_minutes: 10", "idle_timeout_minutes: soon", "idle_timeout_minutes: 'soon' is not"),
    (AWS, "InstanceType: g5", "InstanceTyp: g5", f'{AT}.gpu.node_config: Unknown parameter in input: "Inst'),
    (AWS, "VolumeSize: 120", "VolumeSize: big", "BlockDeviceMappings[0].Ebs.VolumeSize, value: big"),
    (AWS, "  region:", "  regio:", "provider.regio: no such field; did you mean region?"),
    (AWS, "{ CPU: 8, GPU: 1 }", "{ CPU: 8, GPU: 0.5 }", f"{AT}.gpu.resources.GPU: 0.5 is not of type"),
    (AWS, "head_node_type: head", "head_node_type: hed", "the file: Ray refuses it (ValueError: `head_node"),
    (AWS, "min_workers: 0", "min_workers: 26", "the file: Ray refuses it (ValueError: The specified global"),
    (AWS, "  type: aws\n", "", "provider: 'type' is a required property"),
    (AWS, "requirements-cuda.txt", "requirements.txt", "infra/lock/requirements.txt does not exist here;"),
    (AWS, "~/.ray/auth_token #", "~/.ray/none #", "~/.ray/none does not exist here; run: ray get-auth-token"),
    (GCP, "setup_commands:\n", "setup_command:\n", "setup_command: no such field; did you mean setup_comm"),
    (AWS, "min_workers: 0", "min_workers: -1", f"{AT}.gpu.min_workers: -1 is below 0"),
    (AWS, "max_workers: 25\nup", "max_workers: 5\nup", f"{AT}.gpu.max_workers: 25 is more than max_workers, 5"),
    (AWS, "region: us-west-2", "region: us-wst-2", "provider.region: EC2 has no us-wst-2, as the installed boto3 kn"),
    (AWS, "MarketType: spot", "MarketType: spott", "MarketType: EC2 has no spott, as the installed boto3 knows it; "),
    (AWS, "VolumeType: gp3", "VolumeType: gp33", "BlockDeviceMappings[0].Ebs.VolumeType: EC2 has no gp33, as the"),
    (AWS, "InstanceType: g5", "InstanceType: g55", f"{AT}.gpu.node_config.InstanceType: EC2 has no g55.2xlarge, as"),
    (AWS, "ray start --head", "ray stat --head", "head_start_ray_commands[1]: ray has no stat; did you mean start?"),
    (AWS, "token ~/venv/bin/ray start --h", "x ray start --h; AWS_ACCESS_KEY=x ls", "[1]: nothing here knows AWS_A"),
    (GCP, "65536; RAY_AUTH_MODE", "65536; RAY_AUTH_MOD", "start_ray_commands[1]: nothing here knows RAY_AUTH_MOD; did"),
    (AWS, "--autoscaling-config=", "--autoscale-config=", "head_start_ray_commands[1]: ray start: No such option"),
    (AWS, "--address=$RAY", "--adress=$RAY", "worker_start_ray_commands[1]: ray start: No such option '--adress"),
    (AWS, "bin/ray stop", "bin/ray 2>log stpo $N", "head_start_ray_commands[0]: ray has no stpo; did you mean stop?"),
    (AWS, "ray start --head", "ray --log start --head", "head_start_ray_commands[1]: ray: No such option '--log'"),
    (AWS, "- ~/venv/bin/ray stop", "- |\n    ray stop\n    ray stat", "head_start_ray_commands[0]: ray has no stat;"),
    (AWS, "bin/ray stop", "bin/ray", "head_start_ray_commands[0]: ray: no command is given"),
    (AWS, "'export RAY_AUTH", "export RAY_AUTH", "setup_commands[5]: no shell reads it (No closing quotation)"),
    (AWS, ": infra/lock/requirements-cuda.txt", ": 5", "file_mounts./home/ubuntu/requirements.txt: 5 is not of ty"),
    (GCP, "region: us", "zone: us", "provider.zone: no such field"),
    (GCP, "  project_id: my-project\n", "", "provider.project_id: missing; write yours"),
    (GCP, "availability_zone: us-central1-a", "availability_zone: us-east1-b", "us-east1-b is not in the region us-"),
    (GCP, "machineType: n2", "machinetype: n2", f"{AT}.head.node_config: machineType: missing; there are machinety"),
    (GCP, "diskSizeGb: 120", "diskSizeGB: 120", "disks[0].initializeParams.diskSizeGB: no such field; did you mean d"),
    (GCP, "diskSizeGb: 120", "diskSizeGb: [120]", "initializeParams.diskSizeGb: [120] is not of type 'string', 'in"),
    (GCP, "scheduling:\n", "schedulling:\n", f"{AT}.gpu.node_config.schedulling: no such field; did you mean sched"),
    (GCP, "Model: SPOT", "Model: SPOTT", f"{AT}.gpu.node_config.scheduling.provisioningModel: 'SPOTT' is not one of"),
    (GCP, "Restart: false", "Restart: 'no'", f"{AT}.gpu.node_config.scheduling.automaticRestart: 'no' is not of ty"),
    (GCP, "tags: *tags", "tags: [hp]", f"{AT}.gpu.node_config.tags: ['hp'] is not of type 'object'"),
    (AWS, "GPU: 1 }", "GPUS: 1 }", f"{AT}.gpu.resources.GPUS: Ray has no such resource; did you mean GPU?"),
    (AWS, "GPU: 1 }", "gpu: 1 }", f"{AT}.gpu.resources.gpu: Ray has no such resource; did you mean GPU?"),
    (STAYS, "nvidia.com/gpu: ", "nvidia.com/gpus: ", "resources: nvidia.com/gpus: no such resource; did you mean nv"),
    (STAYS, 'cpu: "7"', 'cpus: "7"', f"{POD}.resources: cpus: no such resource; did you mean cpu?"),
    (MLFLOW, "value: database }", "value: databse }", "value: there is no Service databse in this file; did you mean"),
    (STAYS, "minReplicas: 0", "minReplica: 0", "spec.workerGroupSpecs[0].minReplica: no such field; did"),
    (STAYS, "maxReplicas: 25", "maxReplicas: many", "spec.workerGroupSpecs[0].maxReplicas: 'many' is n"),
    (STAYS, "mode: token", "mode: tokens", "spec.authOptions.mode: 'tokens' is not one of ['disabled'"),
    (STAYS, "ray.io/v1", "ray.io/v2", "apiVersion: ray.io/v2 is not one of ray.io/v1, ray.io/v1alpha1"),
    (STAYS, "image: hp", "imag: hp", "spec.headGroupSpec.template.spec.containers[0].imag: no such"),
    (STAYS, "effect: NoSchedule", "effects: NoSchedule", "template.spec.tolerations[0].effects: no such"),
    (STAYS, "spec:\n  rayVersion", "spec: 5\nx:\n  rayVersion", "RayCluster/hp-vae-gan: spec: 5 is not of type 'obj"),
    (STAYS, "workerGroupSpecs: #", "workerGroupSpecs: 5\n  x: #", "spec.workerGroupSpecs: 5 is not of type 'array'"),
    (STAYS, 'num-cpus: "0"', 'num-cpu: "0"', "spec.headGroupSpec.rayStartParams: ray start: No such option '--nu"),
    (STAYS, "rayStartParams: {}", "rayStartParams: { block: yes }", "workerGroupSpecs[0].rayStartParams.block: True "),
    (STAYS, "minReplicas: 0", "minReplicas: 30", "spec.workerGroupSpecs[0]: minReplicas, replicas and maxReplica"),
    (STAYS, "memory: 24Gi", "memory: 24Gb", f"{POD}.resources.limits.memory: '24Gb' is no quantity; write it as 24Gi"),
    (STAYS, "sizeLimit: 6Gi", "sizeLimit: 6 Gi", "spec.volumes[0].emptyDir.sizeLimit: '6 Gi' is no quantity; wri"),
    (STAYS, 'limits: { cpu: "7", memory: 24Gi, nvidia.com/gpu: "1" }', "limits: {}", "gpu: requests and limits must b"),
    (STAYS, 'requests: { cpu: "7"', 'requests: { cpu: "8"', f"{POD}.resources.requests.cpu: 8 is more than the limit,"),
    (STAYS, "{ name: shared-memory, m", "{ name: shared, m", f"{POD}.volumeMounts[0].name: there is no volume shared;"),
    (STAYS, "name: hp-vae-gan\nspec", "name: hp_vae_gan\nspec", "metadata.name: 'hp_vae_gan' is no name; write it of"),
    (STAYS, "name: ray-head", "name: ray_head", f"spec.headGroupSpec.{POD}.name: 'ray_head' is no name; write it of"),
    (STAYS, "operator: Exists", "operator: Exist", "spec.tolerations[0].operator: 'Exist' is not one of Exists, E"),
    (STAYS, "effect: NoSchedule", "effect: NoSchedul", "spec.tolerations[0].effect: 'NoSchedul' is not one of NoSch"),
    (STAYS, "type: RuntimeDefault", "type: Default", "template.spec.securityContext.seccompProfile.type: 'Default' i"),
    (JOB, "--preset paper", "--prest paper", "spec.entrypoint: jobs/train_corpus.py: unrecognized arguments: --pre"),
    (JOB, "--preset paper", "--preset papr", "spec.entrypoint: jobs/train_corpus.py: --preset: invalid choice"),
    (JOB, "jobs/train_corpus.py", "jobs/train_corpora.py", "there is no jobs/train_corpora.py; did you mean jobs/trai"),
    (JOB, "backoffLimit: 1", "backoffLimit: -1", "spec.backoffLimit: -1 is below 0"),
    (JOB, "shutdownAfterJobFinishes", "shutdownAfterJob", "spec.shutdownAfterJob: no such field; did you"),
    (JOB, "secretKeyRef", "secretKey", "spec.rayClusterSpec.headGroupSpec.template.spec.containers[0].env"),
    (JOB, "medium: Memory", "medium: 7", "spec.volumes[0].emptyDir.medium: 7 is not of type 'string'"),
    (MLFLOW, "replicas: 1", "replica: 1", "StatefulSet/database: spec.replica: no such field; did you mean re"),
    (MLFLOW, "clusterIP: None", "clusterIP: 5", "Service/database: spec.clusterIP: 5 is not of type"),
    (MLFLOW, "metadata:\n  name: database\nspec:\n  s", "metadata: database\nspec:\n  s", "metadata: 'database' is no"),
    (MLFLOW, "kind: StatefulSet", "kind: [StatefulSet]", "database: apiVersion and kind: missing; every object has th"),
    (MLFLOW, "\nspec:\n", "\nrayStartParams: {}\nspec:\n", "Service/database: rayStartParams: no such field"),
    (MLFLOW, "\nspec:\n", "\nsecretName: x\nspec:\n", "Service/database: secretName: no such field"),
    (MLFLOW, "command: # that", "command: 5\n          x: # that", f"Deployment/mlflow: spec.{POD}"),
    (MLFLOW, "storage: 20Gi", "storage: 1e9999999999", "requests.storage: '1e9999999999' is no quantity; write it as"),
    (MLFLOW, "port: 5432", "port: 543200", "Service/database: spec.ports[0].port: 543200 is no port"),
    (MLFLOW, "[ReadWriteOnce]", "[ReadWriteOne]", "spec.accessModes[0]: 'ReadWriteOne' is not one of ReadWriteOnce"),
    (MLFLOW, "storage: 20Gi", "size: 20Gi", "resources.requests.storage: missing; a claim says how large its volume"),
    (MLFLOW, "storage: 20Gi", "storage: 20GB", "volumeClaimTemplates[0].spec.resources.requests.storage: '20GB' i"),
    (MLFLOW, "selector: { app: mlflow }", "selector: { app: mlflw }", "Service/mlflow: spec.selector: no pod of this"),
    (MLFLOW, "serviceName: database", "serviceName: data", "spec.serviceName: there is no Service data in this file; "),
    (MLFLOW, "{ name: data, mountPath", "{ name: date, mountPath", "volumeMounts[0].name: there is no volume date; di"),
    (MLFLOW, "port: http", "port: web", f"Deployment/mlflow: spec.{POD}.startupProbe.httpGet.port: the container has"),
    (MLFLOW, "- --app-name", "- --app", f"Deployment/mlflow: spec.{POD}.command: mlflow server: No such option '--a"),
    (MLFLOW, "{ name: MLFLOW_DISABLE", "{ name: MLFLOW_DISABLED", f"spec.{POD}.env: MLflow knows no MLFLOW_DISABLED_T"),
    (MLFLOW, "name: PGHOST", "name: PGHOSTS", f"Deployment/mlflow: spec.{POD}.env: nothing here knows PGHOSTS; did"),
    (MLFLOW, "image: hp-vae-gan:cuda", 'image: ""', f"Deployment/mlflow: spec.{POD}.image: '' is no name of an image"),
    (MLFLOW, "postgres:17.9-b", "postgres:17.9 b", f"spec.{POD}.image: 'postgres:17.9 bookworm' is no name of an im"),
    (MLFLOW, "name: mlflow\nspec:\n  sel", "name: database\nspec:\n  sel", "database: metadata.name: stands twice in"),
    (MLFLOW, "podSelector:\n    matchLabels: { app: d", "podSelector:\n    matchLabels: { app: D", "podSelector.match"),
    (MLFLOW, "runAsUser: 999", "runAsUser: -9", "spec.template.spec.securityContext.runAsUser: -9 is below 0"),
    (MLFLOW, "name: database\n", "name: &a [*a]\n", "is no YAML (Circular reference"),
    (MLFLOW, "clusterIP: None", "5: None", "is no YAML (5: a field's name is no text in what begins at line 8; quote"),
    (MLFLOW, "kind: Deployment", "kind: Deploymnt", "Deploymnt/mlflow: kind: Kubernetes has no Deploymnt of"),
    (MLFLOW, "labels: { app: mlflow }", "labels: { app: mlflo }", "spec.selector.matchLabels.app: mlflow is not"),
    (MLFLOW, "apiVersion: v1\n", "", "Service/database: apiVersion and kind: missing; every object has them"),
    (MLFLOW, "  name: database\n", "  name: database\n  name: b\n", "is no YAML (name: stands twice in what begi"),
    (MLFLOW, "metadata:\n", "metadata: [\n", "is no YAML (while parsing"),
    (MLFLOW, (CLUSTER / "kuberay" / "mlflow.yaml").read_text(), "only words", "holds no fields; give a fil"),
    (ACCESS, "CidrIp: !Ref MyAddress", "CidrIpp: !Ref MyAddress", "Resources.Group.Properties.SecurityGroupIngress[0]"),
    (ACCESS, "!Ref MyAddress", "!Ref MyAdress", "Resources.Group.Properties.SecurityGroupIngress[0].CidrIp.Ref: 'My"),
    (KUSTOMIZATION, "- mlflow.yaml", "- mlflw.yaml", "resources: mlflw.yaml does not lie beside it"),
    (KUSTOMIZATION, "secretGenerator:", "secretGenerators:", "secretGenerators: no such field; did you mean secretGe"),
    (KUSTOMIZATION, "envs: [", "env: [", "secretGenerator[0].env: ['secrets.env'] is not of type 'string'"),
    (KUSTOMIZATION, "newTag: cuda", "newtag: cuda", "images[0].newtag: no such field; did you mean newTag?"),
    (KUSTOMIZATION, "Hash: true", "Hash: 1", "generatorOptions.disableNameSuffixHash: 1 is not of type 'boolean'"),
]  # fmt: skip
START = "ray start --head"
RIGHT = [  # file, what stands there, what may stand in its place
    (AWS, "bin/ray stop", "bin/ray stop 2>/dev/null"),
    (AWS, "bin/ray stop", "bin/ray stop >> log 2>&1 < in || true"),
    (AWS, "bin/ray stop", "bin/ray stop &>log &"),
    (AWS, "bin/ray stop", "bin/ray stop --grace-period 2 > log"),
    (AWS, "bin/ray stop", "bin/ray --version"),
    (AWS, "bin/ray stop", "bin/ray start --help"),
    (AWS, "- ~/venv/bin/ray stop", "- |\n    ray stop # what's left\n    ray status \\\n      --address x\n"),
    (AWS, START, "ray --logging-level=info start --head"),
    (AWS, START, "ray --logging-level info start --head"),
    (AWS, START, f"{START} --num-cpus=$(nproc)"),
    (AWS, START, f"{START} --num-cpus=`nproc --all`"),
    (AWS, START, f"{START} --num-cpus=${{N}}"),
    (AWS, START, "ray start $HEAD"),
    (AWS, START, f'{START} --node-name ""'),
    (GCP, "machineType: g2-standard-8", "acceleratorType: v4-8"),
    (AWS, "GPU: 1 }", "GPU: 1, big_disk: 1 }"),
    (STAYS, "nvidia.com/gpu: ", "amd.com/gpu: "),
    (MLFLOW, "value: database }", "value: postgres }"),
    (JOB, "--preset paper", "--preset $PRESET"),
    (STAYS, 'num-cpus: "0"', 'num-cpus: "$CPUS"'),
    (MLFLOW, '- "1"', "- $(WORKERS)"),
]


@pytest.mark.parametrize("name, ours, other", RIGHT, ids=[f"{case[0]}-{case[2]}" for case in RIGHT])
def test_another_command_that_its_program_takes_is_no_mistake(
    name: str, ours: str, other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (CLUSTER / name).read_text()
    assert ours in text
    file = tmp_path / Path(name).name
    file.write_text(text.replace(ours, other))
    code, lines = run(capsys, file)
    assert code == 0 and all(line.startswith(f"{file}: ") for line in lines), lines


@pytest.mark.parametrize("name, right, wrong, line", WRONG, ids=[f"{case[0]}-{case[3][:40]}" for case in WRONG])
def test_a_mistake_is_one_line_that_names_file_and_field(
    name: str, right: str, wrong: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    text = (CLUSTER / name).read_text()
    assert right in text
    broken = tmp_path / Path(name).name
    broken.write_text(text.replace(right, wrong))
    if name.startswith("kuberay/ray") and not CRDS.is_dir() and "template" not in line:
        pytest.skip(NEEDS_CRDS)
    if name == ACCESS:
        pytest.importorskip("cfnlint", reason="cfn-lint is not installed")
    code, lines = run(capsys, broken)
    assert code == 1, lines
    told = [found for found in lines if line in found]
    assert told and all(found.startswith(f"{broken}: ") for found in lines), lines
    assert "no mistake" not in "".join(lines) and len(lines) <= 7


@pytest.mark.parametrize("name", [STAYS, "compose.yaml"])
@pytest.mark.parametrize("value", [5, None], ids=str)
def test_another_kind_of_value_in_an_upper_place_is_never_a_traceback(name: str, value: Any, tmp_path: Path) -> None:
    """In each of the upper places of a file in turn; WRONG has some of the lower ones."""
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    broken = tmp_path / Path(name).name
    for parts in changed_in_turn(read(name), value):
        broken.write_text(yaml.safe_dump_all(parts))
        check.check(broken, CRDS if CRDS.is_dir() else None)


def changed_in_turn(document: Any, value: Any, depth: int = 2) -> Iterator[Any]:
    """Copies of a document, in each of which another part is the value."""
    for key in document if isinstance(document, dict) else range(len(document)):
        yield with_part(document, key, value)
        if depth and isinstance(document[key], (dict, list)):
            for part in changed_in_turn(document[key], value, depth - 1):
                yield with_part(document, key, part)


def with_part(document: Any, key: Any, value: Any) -> Any:
    changed = copy.copy(document)
    changed[key] = value
    return changed


def test_the_secrets_that_an_object_names_are_those_of_its_kustomization(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (MLFLOW, KUSTOMIZATION):
        shutil.copy(CLUSTER / name, tmp_path)
    file = tmp_path / "mlflow.yaml"
    text = file.read_text()
    unknown = "not checked: the keys of the secret hp-vae-gan, as what holds them is not there"
    assert f"{file}: {unknown}" in run(capsys, file)[1]
    (tmp_path / "secrets.env").write_text("# ours\n" + "".join(f"{key}=x\n" for key in SECRETS))
    assert not any("not checked" in line for line in run(capsys, file)[1])
    file.write_text(text.replace("key: aws_access_key_id", "key: aws_acces_key_id"))
    place = f"{file}: Deployment/mlflow: spec.template.spec.containers[0].env[11].valueFrom.secretKeyRef"
    assert (
        f"{place}: the secret hp-vae-gan has no aws_acces_key_id; did you mean aws_access_key_id?"
        in run(capsys, file)[1]
    )
    file.write_text(text.replace("name: hp-vae-gan, key: mlflow_password", "name: hp-vae-gam, key: mlflow_password"))
    assert any("nothing makes a secret hp-vae-gam; did you mean hp-vae-gan?" in line for line in run(capsys, file)[1])


@pytest.mark.parametrize("beside", ["[a, list]", "words", "5"])
def test_a_kustomization_that_is_none_is_no_mistake_of_what_lies_beside_it(
    beside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kustomization.yaml").write_text(beside)
    shutil.copy(CLUSTER / MLFLOW, tmp_path)
    code, lines = run(capsys, tmp_path / "mlflow.yaml")
    assert code == 0 and any("for want of a kustomization.yaml beside this" in line for line in lines), lines
    assert run(capsys, tmp_path / "kustomization.yaml")[0] == 1


@pytest.mark.parametrize(
    "file, key, missing",
    [("cert=secrets/tls.crt", "cert", "secrets/tls.crt"), ("secrets/tls.crt", "tls.crt", "secrets/tls.crt")],
)
def test_a_file_in_a_secret_has_the_key_that_it_is_given_or_its_name(
    file: str, key: str, missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = {"name": "keys", "files": [file]}
    kustomization = {"kind": "Kustomization", "secretGenerator": [generator]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    for asked, code in ((key, 0), ("other", 1)):
        reference = {"name": "keys", "key": asked}
        variable = {"name": "CERT", "valueFrom": {"secretKeyRef": reference}}
        pod = {"containers": [{"name": "a", "image": "a:1", "env": [variable]}]}
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": pod}
        (tmp_path / "pod.yaml").write_text(yaml.safe_dump(document))
        found, lines = run(capsys, tmp_path / "pod.yaml")
        assert (found, any("the secret keys has no other" in line for line in lines)) == (code, bool(code)), lines
    _, lines = run(capsys, tmp_path / "kustomization.yaml")
    assert any(f"not checked: {missing}, which does not lie beside it yet" in line for line in lines), lines


def test_a_definition_of_kuberays_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ray.io_rayclusters.yaml").write_text("404: Not Found")
    assert check.main([str(CLUSTER / STAYS), "--crds", str(tmp_path)]) == 1
    told = f"--crds: {tmp_path}/ray.io_rayclusters.yaml is no CustomResourceDefinition; KubeRay's repository has"
    assert told in capsys.readouterr().out


def test_the_projects_files_are_right_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(capsys, CLUSTER / AWS, CLUSTER / GCP)[0] == 0


def test_what_is_no_file_at_all_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infra.cluster.check", str(tmp_path / "none.yaml")]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == f"{tmp_path}/none.yaml: cannot be read (No such file or directory)\n"


# -- ray up


@pytest.mark.parametrize("name", ["ray_up/aws.yaml", "ray_up/gcp.yaml"])
def test_a_ray_up_cluster_grows_from_none_to_25_gpus_and_asks_for_its_token(name: str) -> None:
    (config,) = read(name)
    head, gpu = config["available_node_types"]["head"], config["available_node_types"]["gpu"]
    assert config["max_workers"] == gpu["max_workers"] == 25 and gpu["min_workers"] == 0
    assert head["resources"]["CPU"] == 0 and gpu["resources"]["GPU"] == 1
    assert not {"InstanceMarketOptions", "scheduling"} & head["node_config"].keys()
    for start in (config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]):
        assert "RAY_AUTH_MODE=token" in start
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert config["file_mounts"]["/home/ubuntu/requirements.txt"] == "infra/lock/requirements-cuda.txt"
    assert any("--require-hashes --requirement ~/requirements.txt" in line for line in config["setup_commands"])
    for line in (line for key in config if key.endswith("commands") for line in config[key]):
        assert subprocess.run(["bash", "-n", "-c", line], check=False).returncode == 0, line


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """EC2 of a cloud that moto plays, with what aws_access.yaml makes."""
    moto, boto3 = pytest.importorskip("moto"), pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    with moto.mock_aws():
        values = {"MyAddress": "203.0.113.7/32", "Bucket": "my-bucket"}
        boto3.client("cloudformation", "us-west-2").create_stack(
            StackName="hp-vae-gan",
            TemplateBody=(CLUSTER / "ray_up" / "aws_access.yaml").read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
        )
        yield boto3.client("ec2", "us-west-2")


def test_ray_starts_the_nodes_on_aws_in_a_group_that_is_closed(aws: Any) -> None:
    """Ray's own bootstrap and node provider, against moto's EC2: no rule of Ray's is added to the group."""
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    (file,) = read("ray_up/aws.yaml")
    config = bootstrap_aws(prepare_config(copy.deepcopy(file)))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, part in config["available_node_types"].items():
        provider.create_node(part["node_config"], {"ray-node-type": name}, 1)
    instances = [one for group in aws.describe_instances()["Reservations"] for one in group["Instances"]]
    assert [(one["InstanceType"], one.get("InstanceLifecycle")) for one in instances] == [
        ("m6i.xlarge", None),
        ("g5.2xlarge", "spot"),
    ]
    profiles = [one["IamInstanceProfile"]["Arn"].rpartition("/")[2] for one in instances]
    assert profiles == ["hp-vae-gan-head", "hp-vae-gan-worker"]
    assert {group["GroupName"] for one in instances for group in one["SecurityGroups"]} == {"hp-vae-gan"}
    (group,) = aws.describe_security_groups(GroupNames=["hp-vae-gan"])["SecurityGroups"]
    ssh, inside = sorted(group["IpPermissions"], key=lambda rule: str(rule["IpProtocol"]), reverse=True)
    assert (ssh["FromPort"], ssh["ToPort"]) == (22, 22)
    assert [place["CidrIp"] for place in ssh["IpRanges"]] == ["203.0.113.7/32"]
    assert [pair["GroupId"] for pair in inside["UserIdGroupPairs"]] == [group["GroupId"]] and not inside["IpRanges"]


# -- Kubernetes


def test_the_job_has_the_cluster_that_stays() -> None:
    (cluster,), (job,) = read("kuberay/raycluster.yaml"), read("kuberay/rayjob.yaml")
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    python, program, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert (python, program) == ("python", "/app/jobs/train_corpus.py")
    (workers,) = cluster["spec"]["workerGroupSpecs"]
    assert train_corpus.parse(arguments).max_gpus == workers["maxReplicas"] == 25


def test_rays_autoscaler_reads_0_to_25_gpus_from_the_cluster() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    (cluster,) = read("kuberay/raycluster.yaml")
    cluster["metadata"]["namespace"] = "hp-vae-gan"
    read_by_ray = _derive_autoscaling_config_from_ray_cr(cluster)
    head, gpu = (read_by_ray["available_node_types"][name] for name in ("headgroup", "gpu"))
    assert (head["max_workers"], head["resources"]["CPU"]) == (0, 0)
    assert (gpu["min_workers"], gpu["max_workers"], gpu["resources"]["GPU"]) == (0, 25, 1)
    assert read_by_ray["idle_timeout_minutes"] == 10


def found_in(part: Any, key: str) -> Iterator[Any]:
    """Every value of a key, however deep."""
    if isinstance(part, dict):
        yield from ([part[key]] if key in part else [])
    for below in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from found_in(below, key)


def test_every_password_comes_from_the_secret_that_the_page_says_how_to_make() -> None:
    documents = [*read("kuberay/mlflow.yaml"), *read("kuberay/rayjob.yaml")]
    named = {(one["name"], one["key"]) for one in found_in(documents, "secretKeyRef")}
    named |= {(one["secretName"], "auth_token") for one in found_in(documents, "authOptions")}
    assert named == {("hp-vae-gan", key) for key in SECRETS}
    page = (CLUSTER / "kuberay" / "README.md").read_text()
    assert all(re.search(rf"\b{key}\b", page) for key in SECRETS)
    for variable in (one for part in found_in(documents, "env") for one in part):
        if re.search("PASSWORD|SECRET|KEY", variable["name"]):
            assert "valueFrom" in variable, variable
    ignored = subprocess.run(["git", "check-ignore", "infra/cluster/kuberay/secrets.env"], cwd=ROOT, check=False)
    assert ignored.returncode in (0, 128)  # 128: no repository here


def test_mlflow_runs_as_in_compose() -> None:
    """tests/infra/test_compose_stack.py starts that one."""
    compose = yaml.safe_load((CLUSTER / "compose.yaml").read_text())["services"]["mlflow"]
    (ours,) = [one for one in read("kuberay/mlflow.yaml") if one["kind"] == "Deployment"]
    container = ours["spec"]["template"]["spec"]["containers"][0]
    assert [word for word in container["command"] if "s3://" not in word] == [
        word for word in compose["command"] if "s3://" not in word
    ]
    variables = {one["name"] for one in container["env"]}
    assert set(compose["environment"]) - variables <= {"<<", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not here: kustomization.yaml is not built")
def test_kustomize_puts_registry_and_secrets_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(CLUSTER / "kuberay", tmp_path / "kuberay", ignore=shutil.ignore_patterns("secrets.env"))
    command = ["kubectl", "kustomize", str(tmp_path / "kuberay")]
    done = subprocess.run(command, text=True, capture_output=True, env=dict(os.environ), check=False)
    assert done.returncode == 1 and "secrets.env: no such file" in done.stderr.splitlines()[-1]

    (tmp_path / "kuberay" / "secrets.env").write_text("".join(f"{key}=some{key}\n" for key in SECRETS))
    built = subprocess.run(command, text=True, capture_output=True, check=True).stdout
    images = set(found_in([*yaml.safe_load_all(built)], "image"))
    assert images == {"registry.example.com/hp-vae-gan:cuda", "postgres:17.9-bookworm"}
    assert "c29tZWF1dGhfdG9rZW4=" in built  # of auth_token, in base64
    (tmp_path / "built.yaml").write_text(built)
    code, lines = run(capsys, tmp_path / "built.yaml")
    assert code == 0, lines

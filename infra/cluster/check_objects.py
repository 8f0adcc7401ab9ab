"""What Kubernetes refuses in an object, or never finds, though its schema takes it: values, and what names what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from infra.cluster import check_commands, check_schema
from infra.cluster.check_schema import Place, below, mappings, texts

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
NAMED_BY_LABEL = ("Service", "RayCluster", "RayJob")  # the names of these become names of machines
QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([KMGTPE]i|[numkMGTPE]?)|[eE]([+-]?\d{1,3}))")
UNITS = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1)}
UNITS |= {unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)}
UNITS |= {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)}
PORTS = ("port", "containerPort", "hostPort", "nodePort", "targetPort")
COUNTS = ("replicas", "minReplicas", "maxReplicas", "backoffLimit", "ttlSecondsAfterFinished", "activeDeadlineSeconds",
          "initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold", "runAsUser", "runAsGroup",
          "fsGroup")  # fmt: skip
SELECTS: dict[str, list[Place]] = {  # where a kind names pods by their labels
    "Service": [("spec", "selector")],
    "NetworkPolicy": [("spec", "podSelector", "matchLabels")],
}
RESOURCES = ("cpu", "memory", "ephemeral-storage")  # and hugepages-…, and any with a / in its name
DEVICES = ("nvidia.com/gpu", "amd.com/gpu", "google.com/tpu")
Secrets = Mapping[str, set[str]] | None
# What may stand in a field of which the schema says that it is text: by its name and that of what holds it.
VALUES = {
    "tolerations.operator": ("Exists", "Equal"),
    "tolerations.effect": ("NoSchedule", "PreferNoSchedule", "NoExecute", ""),
    "spec.accessModes": ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"),
    "spec.policyTypes": ("Ingress", "Egress"),
    "spec.restartPolicy": ("Always", "OnFailure", "Never"),
    "spec.type": ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
    "containers.imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "emptyDir.medium": ("", "Memory"),
    "ports.protocol": ("TCP", "UDP", "SCTP"),
    "seccompProfile.type": ("RuntimeDefault", "Localhost", "Unconfined"),
    "strategy.type": ("Recreate", "RollingUpdate"),
}


def mistakes(document: dict[str, Any], file: list[Any], secrets: Secrets, found: Any) -> Iterator[str]:
    """Every mistake in an object, and notes in `found` (`check.Found`) what could not be checked.

    Args:
        file: all objects of its file, among which are those that it names.
        secrets: the keys of each secret that there will be, empty where they are not known; None: nobody knows.
    """
    for place, what in _mistakes(document, file, secrets, found):
        yield f"{check_schema.field(place)}: {what}"


def _mistakes(document: dict[str, Any], file: list[Any], secrets: Secrets, found: Any) -> Iterator[tuple[Place, str]]:
    yield from _misnamed(document)
    if len([one for one in file if _identity(one) == _identity(document)]) > 1:
        yield ("metadata", "name"), "stands twice in this file; Kubernetes would keep the last one alone"
    for place, value in check_schema.leaves(document):
        yield from _wrong_value(place, value)
    for place, pod in _holders(document, "containers"):
        claimed = [
            below(claim, "metadata").get("name") for claim in mappings(below(document, "spec"), "volumeClaimTemplates")
        ]
        yield from _wrong_pod(place, pod, claimed)
    yield from _wrong_ray(document)
    yield from _without_size(document)
    yield from _unfound(document, file)
    yield from _misspelt_hosts(document, file)
    yield from _unknown_secrets(document, secrets, found)


def _misnamed(document: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    name, form = below(document, "metadata").get("name"), LABEL if document.get("kind") in NAMED_BY_LABEL else SUBDOMAIN
    if isinstance(name, str) and not form.fullmatch(name):
        yield ("metadata", "name"), _no_name(name)


def _identity(document: dict[str, Any]) -> tuple[Any, ...]:
    about = below(document, "metadata")
    return document.get("apiVersion"), document.get("kind"), about.get("namespace"), about.get("name")


def _no_name(name: str) -> str:
    return f"{name!r} is no name; write it of a-z, 0-9 and - between them"


def _wrong_value(place: Place, value: Any) -> Iterator[tuple[Place, str]]:
    """Of a field, by its name and that of what holds it."""
    names = [str(part) for part in place if not isinstance(part, int)]
    holder, name = names[-2] if len(names) > 1 else "", names[-1] if names else ""
    if isinstance(value, str) and value not in (allowed := VALUES.get(f"{holder}.{name}", (value,))):
        yield place, f"{value!r} is not one of {', '.join(filter(None, allowed))}"
    if name in PORTS and isinstance(value, int) and not 1 <= value <= 65535:
        yield place, f"{value} is no port; ports are 1 to 65535"
    if name in COUNTS and isinstance(value, int) and value < 0:
        yield place, f"{value} is below 0"
    if (holder in ("requests", "limits") or name == "sizeLimit") and _amount(value) is None:
        yield place, f"{value!r} {check_schema.NO_QUANTITY}"


def _amount(quantity: Any) -> Decimal | None:
    """What a quantity stands for; None: it is none."""
    found = QUANTITY.fullmatch(str(quantity))
    if not found:
        return None
    number, unit, exponent = found.groups()
    return Decimal(number).scaleb(int(exponent)) if exponent else Decimal(number) * UNITS[unit]


def _holders(part: Any, key: str, place: Place = ()) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Every mapping in a document that has a key, and where it lies."""
    if isinstance(part, dict) and key in part:
        yield place, part
    for name, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        yield from _holders(value, key, (*place, name))


def _wrong_pod(place: Place, pod: dict[str, Any], claimed: list[Any]) -> Iterator[tuple[Place, str]]:
    """claimed: the volumes that a StatefulSet gives each of its pods."""
    volumes = [volume.get("name") for volume in mappings(pod, "volumes")] + claimed
    for key in ("initContainers", "containers"):
        for i, container in enumerate(mappings(pod, key)):
            for at, what in _wrong_container(container, volumes):
                yield (*place, key, i, *at), what


def _wrong_container(container: dict[str, Any], volumes: list[Any]) -> Iterator[tuple[Place, str]]:
    name = container.get("name")
    if isinstance(name, str) and not LABEL.fullmatch(name):
        yield ("name",), _no_name(name)
    if isinstance(image := container.get("image"), str) and not re.fullmatch(r"\S+", image):
        yield ("image",), f"{image!r} is no name of an image"
    for i, mount in enumerate(mappings(container, "volumeMounts")):
        if mount.get("name") not in volumes:
            known = [str(volume) for volume in volumes]
            wanted = str(mount.get("name"))
            yield ("volumeMounts", i, "name"), f"there is no volume {wanted}{check_schema.meant(wanted, known)}"
    ports = [port.get("name") for port in mappings(container, "ports")]
    for place, probe in _holders(container, "port"):
        if isinstance(probe["port"], str) and probe["port"] not in ports:
            yield (*place, "port"), f"the container has no port {probe['port']}"
    yield from _wrong_resources(container)
    words = texts(container, "command") + texts(container, "args")
    yield from ((("command",), wrong) for wrong in check_commands.mistakes(words))
    variables = [str(variable.get("name")) for variable in mappings(container, "env")]
    yield from ((("env",), wrong) for _, wrong in check_commands.unknown_variables(variables))


def _wrong_resources(container: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    requests, limits = (below(container, "resources", key) for key in ("requests", "limits"))
    for name in {**limits, **requests}:
        close = check_schema.meant(str(name), DEVICES if "/" in str(name) else RESOURCES)
        is_known = name in (*RESOURCES, *DEVICES) or str(name).startswith("hugepages-")
        if not is_known and (close or "/" not in str(name)):
            yield ("resources",), f"{name}: no such resource{close}"
        asked, most = (_amount(amounts[name]) if name in amounts else None for amounts in (requests, limits))
        if "/" in str(name) and (name not in limits or (name in requests and asked != most)):
            yield ("resources",), f"{name}: requests and limits must be the same"
        elif asked is not None and most is not None and asked > most:
            yield ("resources", "requests", name), f"{requests[name]} is more than the limit, {limits[name]}"


def _without_size(document: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Claims of a volume, alone or of a StatefulSet, that do not say how large it is."""
    for place, claim in _holders(document, "accessModes"):
        sizes = below(claim, "resources", "requests")
        if "storage" not in sizes and document.get("kind") != "PersistentVolume":  # which is one, and claims none
            there = f"; there is {', '.join(map(str, sizes))}" if sizes else ""
            yield (*place, "resources", "requests", "storage"), f"missing; a claim says how large its volume is{there}"


def _wrong_ray(document: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Of KubeRay's objects: the command of a job, how many workers there are, and the options of `ray start`."""
    entrypoint = below(document, "spec").get("entrypoint")
    if isinstance(entrypoint, str):
        yield from ((("spec", "entrypoint"), wrong) for wrong in check_commands.in_shell(entrypoint))
    for place, group in _holders(document, "rayStartParams"):
        head = place[-1:] == ("headGroupSpec",)
        for wrong in check_commands.ray_start(below(group, "rayStartParams"), head):
            yield (*place, "rayStartParams"), wrong
    for place, group in _holders(document, "maxReplicas"):
        counts = [group.get(key) for key in ("minReplicas", "replicas", "maxReplicas")]
        given = [count for count in counts if isinstance(count, int)]
        if given != sorted(given):
            yield place, "minReplicas, replicas and maxReplicas must be ascending"


def _unfound(document: dict[str, Any], file: list[Any]) -> Iterator[tuple[Place, str]]:
    """What names another object of its file, by labels or by name, and there is none."""
    spec, kind = below(document, "spec"), document.get("kind")
    others = {
        kind: [one for one in file if one.get("kind") == kind] for kind in ("Deployment", "StatefulSet", "Service")
    }
    pods = [
        below(one, "spec", "template", "metadata", "labels") for one in others["Deployment"] + others["StatefulSet"]
    ]
    for place in SELECTS.get(str(kind), ()):
        chosen = below(document, *map(str, place))
        if chosen and pods and not any(chosen.items() <= labels.items() for labels in pods):
            yield place, f"no pod of this file has the labels {_labels(chosen)}"
    if kind in ("Deployment", "StatefulSet"):
        wanted, labels = below(spec, "selector", "matchLabels"), below(spec, "template", "metadata", "labels")
        for name, value in wanted.items():
            if labels.get(name) != value:
                yield ("spec", "selector", "matchLabels", name), f"{value} is not a label of spec.template"
    if kind == "StatefulSet" and others["Service"]:
        services, service = (
            [str(below(one, "metadata").get("name")) for one in others["Service"]],
            spec.get("serviceName"),
        )
        if isinstance(service, str) and service not in services:
            what = f"there is no Service {service} in this file{check_schema.meant(service, services)}"
            yield ("spec", "serviceName"), what


def _misspelt_hosts(document: dict[str, Any], file: list[Any]) -> Iterator[tuple[Place, str]]:
    """Variables that name nearly a Service of the file. What is not near one may be a Service of another file."""
    services = [str(below(one, "metadata").get("name")) for one in file if one.get("kind") == "Service"]
    for place, holder in _holders(document, "env"):
        for i, variable in enumerate(mappings(holder, "env")):
            for host in check_commands.hosts(str(variable.get("name")), str(variable.get("value"))):
                if host not in services and (close := check_schema.meant(host, services)):
                    yield (*place, "env", i, "value"), f"there is no Service {host} in this file{close}"


def _labels(labels: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in labels.items())


def _unknown_secrets(document: dict[str, Any], secrets: Secrets, found: Any) -> Iterator[tuple[Place, str]]:
    asked = [
        ((*place, "secretKeyRef"), below(one, "secretKeyRef")) for place, one in _holders(document, "secretKeyRef")
    ]
    named = [
        (place, {"name": one["secretName"], "key": "auth_token" if place[-1:] == ("authOptions",) else None})
        for place, one in _holders(document, "secretName")
    ]
    for place, reference in asked + named:
        name, key = reference.get("name"), reference.get("key")
        if not isinstance(name, str) or reference.get("optional"):
            continue
        if secrets is None:
            found.unchecked.append(f"whether there is a secret {name}, for want of a kustomization.yaml beside this")
        elif name not in secrets:
            yield place, f"nothing makes a secret {name}{check_schema.meant(name, secrets)}"
        elif not secrets[name]:
            found.unchecked.append(f"the keys of the secret {name}, as what holds them is not there")
        elif isinstance(key, str) and key not in secrets[name]:
            yield place, f"the secret {name} has no {key}{check_schema.meant(key, secrets[name])}"

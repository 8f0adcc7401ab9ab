"""What is wrong in a file for `ray up`, without a call to a cloud: by Ray's own schema and functions, the nodes by the
description of EC2's RunInstances that botocore carries, and by that of Compute Engine's instances beside this."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.cluster import check_commands, check_schema

PROJECT = Path(__file__).resolve().parent.parent.parent  # from which `ray up` is to be run
BY_BOTO3 = ", as the installed boto3 knows it"
NEEDED = {"aws": ("region",), "gcp": ("project_id", "region", "availability_zone")}
TPUS = ("acceleratorType", "acceleratorConfig")  # one of them stands for a machine with TPUs, in place of machineType
RESOURCES = ("CPU", "GPU", "TPU", "memory", "object_store_memory")
INSTANCE = Path(__file__).resolve().parent / "gcp-instance.json"


def mistakes(config: dict[str, Any], found: Any) -> Iterator[str]:
    """Every mistake in the file, and notes in `found` (`check.Found`) what it was checked against."""
    import ray.autoscaler

    found.against.append("Ray's schema")
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    # Ray itself takes any field here, for providers that are not its own.
    described = schema["properties"]["provider"]
    described |= {"properties": described["properties"] | {"key_pair": {}}, "additionalProperties": False}
    if wrong := [*check_schema.mistakes(config, schema)]:
        yield from wrong
        return
    yield from _refused_by_ray(config, found)
    provider = config["provider"]["type"]
    yield from _wrong_place(config["provider"])
    for name, part in (config.get("available_node_types") or {}).items():
        yield from _misspelt_resource(part, ("available_node_types", name))
        yield from _wrong_number(part, ("available_node_types", name), config.get("max_workers"))
        at = ("available_node_types", name, "node_config")
        if provider == "aws":
            yield from _refused_by_ec2(part["node_config"], at, found)
        elif provider == "gcp":
            yield from _refused_by_compute_engine(part["node_config"], at, found)
        else:
            found.unchecked.append(f"node_config, of {provider} no description is known here")
    for remote, local in (config.get("file_mounts") or {}).items():
        if not isinstance(local, str):
            yield f"file_mounts.{remote}: {local!r} is not of type 'string'"
        elif not any((folder / Path(local).expanduser()).exists() for folder in (Path.cwd(), PROJECT)):
            remedy = "run: ray get-auth-token --generate" if remote.endswith("auth_token") else "see to its name"
            yield f"file_mounts.{remote}: {local} does not exist here; {remedy}"
    for key in (name for name in config if name.endswith("commands")):
        for i, command in enumerate(config[key] or ()):
            for refused in check_commands.in_shell(command):
                yield f"{check_schema.field((key, i))}: {refused}"


def _wrong_place(provider: dict[str, Any]) -> Iterator[str]:
    """Where the nodes are to be: what Ray misses only when it calls the cloud."""
    for name in NEEDED.get(provider["type"], ()):
        if not provider.get(name):
            yield f"provider.{name}: missing; write yours"
    region, zone = provider.get("region"), provider.get("availability_zone")
    if provider["type"] == "gcp" and region and zone and not zone.startswith(f"{region}-"):
        yield f"provider.availability_zone: {zone} is not in the region {region}"
    if provider["type"] == "aws" and region:
        with contextlib.suppress(ImportError):  # _refused_by_ec2 says that it is missing
            known = _regions(importlib.import_module("botocore.session"))
            if region not in known:
                yield f"provider.region: EC2 has no {region}{BY_BOTO3}{check_schema.meant(region, known)}"


def _misspelt_resource(part: dict[str, Any], at: check_schema.Place) -> Iterator[str]:
    """What is nearly a resource that Ray gives a meaning: it takes any name, for what a user makes up."""
    for name in part.get("resources") or {}:
        close = check_schema.meant(name if "memory" in name.lower() else name.upper(), RESOURCES)
        if name not in RESOURCES and close:
            yield f"{check_schema.field((*at, 'resources', name))}: Ray has no such resource{close}"


def _wrong_number(part: dict[str, Any], at: check_schema.Place, most: int | None) -> Iterator[str]:
    """Numbers of workers that the schema takes and Ray drops. most: of all types together."""
    for name in ("min_workers", "max_workers"):
        if part.get(name, 0) < 0:
            yield f"{check_schema.field((*at, name))}: {part[name]} is below 0"
    if most is not None and part.get("max_workers", 0) > most:
        yield f"{check_schema.field((*at, 'max_workers'))}: {part['max_workers']} is more than max_workers, {most}"


def _refused_by_ray(config: dict[str, Any], found: Any) -> list[str]:
    """What `ray up` itself says before it calls a cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    found.against.append("prepare_config and validate_config")
    printed = io.StringIO()  # what they fill in
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            validate_config(prepare_config(copy.deepcopy(config)))
    except Exception as error:  # Ray raises what comes: KeyError, ValueError, those of jsonschema, AssertionError
        return [f"the file: Ray refuses it ({type(error).__name__}: {error})"]
    finally:
        logging.disable(logging.NOTSET)
    return []


def _refused_by_ec2(node: dict[str, Any], at: check_schema.Place, found: Any) -> Iterator[str]:
    try:
        session, validate = importlib.import_module("botocore.session"), importlib.import_module("botocore.validate")
    except ImportError:
        found.unchecked.append("node_config, for want of boto3; run: pip install boto3")
        return
    found.against.append("EC2's RunInstances")
    shape = _run_instances(session)
    # SubnetIds is Ray's own; the counts are those that it adds.
    asked = {name: value for name, value in node.items() if name != "SubnetIds"} | {"MinCount": 1, "MaxCount": 1}
    report = validate.ParamValidator().validate(asked, shape).generate_report()
    for line in report.splitlines():
        yield f"{check_schema.field(at)}: {line.partition(', must be one of: ')[0]}"
    yield from _not_among(node, shape, at)


@functools.cache  # botocore reads 10 MB for it
def _run_instances(session: Any) -> Any:
    """What RunInstances takes. session: the module of botocore."""
    return session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape


@functools.cache
def _regions(session: Any) -> list[str]:
    """Of EC2, in all partitions. session: the module of botocore."""
    one = session.get_session()
    return [region for part in one.get_available_partitions() for region in one.get_available_regions("ec2", part)]


def _not_among(value: Any, shape: Any, at: check_schema.Place) -> Iterator[str]:
    """Texts that are none of those that EC2 takes, which botocore leaves to EC2. shape: botocore's description."""
    if shape.type_name == "structure" and isinstance(value, dict):
        for name in value.keys() & shape.members.keys():
            yield from _not_among(value[name], shape.members[name], (*at, name))
    elif shape.type_name == "list" and isinstance(value, list):
        for i, one in enumerate(value):
            yield from _not_among(one, shape.member, (*at, i))
    elif isinstance(value, str) and (known := getattr(shape, "enum", None)) and value not in known:
        remedy = check_schema.meant(value, known) or f"; those are {', '.join(known)}"
        yield f"{check_schema.field(at)}: EC2 has no {value}{BY_BOTO3}{remedy}"


def _refused_by_compute_engine(node: dict[str, Any], at: check_schema.Place, found: Any) -> Iterator[str]:
    if not node.keys() & {"machineType", *TPUS}:
        yield f"{check_schema.field(at)}: machineType: missing; there are {', '.join(node)}"
    if node.keys() & set(TPUS):
        found.unchecked.append("node_config, of TPUs no description is known here")
        return
    found.against.append("Compute Engine's instances")
    yield from check_schema.mistakes(node, json.loads(INSTANCE.read_text()), at)

"""What is wrong in a file for Docker Compose: by the Compose specification's own schema, and what its services name."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from infra.cluster import check_commands, check_schema

SPECIFICATION = Path(__file__).resolve().parent / "compose-spec.json"
RESTART = re.compile(r"no|always|unless-stopped|on-failure(:\d+)?")  # any text, by the specification
DURATION = (re.compile(r"(\d+(\.\d+)?(ns|us|ms|s|m|h))+"), "a duration; write it as 90s or 1m30s")
SIZE = (re.compile(r"\d+(\.\d+)?\s*[kmgtp]?i?b?", re.IGNORECASE), "a size; write it as 512m or 2gb")
DURATIONS = "interval timeout start_period start_interval stop_grace_period delay window monitor"
FORMS = {  # of a field in a service, which may be any text by the specification
    "retries": (re.compile(r"\d+"), "a whole number"),
    "count": (re.compile(r"\d+|all"), "a whole number, or all"),
    **dict.fromkeys(DURATIONS.split(), DURATION),
    **dict.fromkeys(("shm_size", "mem_limit", "mem_reservation", "memory"), SIZE),
}
OWN_NAMES = {"environment", "labels", "annotations", "args", "options", "extra_hosts"}  # below them a user names fields
VARIABLE = re.compile(r"\$(\{[^}]*\}|\w+)")
RUNS = {"image", "build", "extends"}  # a service has one of them, in one of its files


def mistakes(document: dict[str, Any], found: Any) -> Iterator[str]:
    """Every mistake in the file, and notes in `found` (`check.Found`) what it was checked against."""
    found.against.append("the Compose specification")
    if wrong := [*check_schema.mistakes(document, _specification())]:
        yield from wrong
        return
    services = check_schema.below(document, "services")
    whole = "include" not in document and all(service.keys() & RUNS for service in services.values())
    if not whole:
        found.unchecked.append("the services and volumes that it names, as other files belong to it")
    for name, service in services.items():
        unfound = _unfound(service, {*services}, check_schema.below(document, "volumes")) if whole else ()
        for place, what in (*_of_service(service), *unfound):
            yield f"{check_schema.field(('services', name, *place))}: {what}"


def _of_service(service: dict[str, Any]) -> Iterator[tuple[check_schema.Place, str]]:
    """Where in a service something is wrong by itself, and what."""
    restart = service.get("restart", "no")
    if "$" not in restart and not RESTART.fullmatch(restart):
        yield ("restart",), f"{restart!r} is not one of no, always, on-failure, unless-stopped"
    if re.search(r"\s", image := service.get("image", "")):
        yield ("image",), f"{image!r} is no name of an image"
    for place, value in check_schema.leaves(service):
        form, what = FORMS.get(str(place[-1]), (None, ""))
        if form and not OWN_NAMES & {*place} and "$" not in str(value) and not form.fullmatch(str(value)):
            yield place, f"{value!r} is not {what}"
    for i, port in enumerate(service.get("ports", ())):
        for number in _ports(port):
            if number > 65535:
                yield ("ports", i), f"{number} is no port; ports are 1 to 65535"
    command = service.get("command") or []
    wrong_words = check_commands.in_shell(command) if isinstance(command, str) else check_commands.mistakes(command)
    yield from ((("command",), wrong) for wrong in wrong_words)
    variables = _variables(service)
    yield from ((("environment", name), wrong) for name, wrong in check_commands.unknown_variables(variables))


def _unfound(
    service: dict[str, Any], services: set[str], volumes: Iterable[str]
) -> Iterator[tuple[check_schema.Place, str]]:
    """Where a service names another one, or a volume, that its file has not, and what."""
    for other in service.get("depends_on", ()):
        if "$" not in other and other not in services:
            yield ("depends_on",), f"there is no service {other}{check_schema.meant(other, services)}"
    for volume in filter(None, map(_volume, service.get("volumes", ()))):
        if "$" not in volume and volume not in volumes:
            yield ("volumes",), f"there is no volume {volume}{check_schema.meant(volume, volumes)}"
    command = service.get("command") or []
    words = command.split() if isinstance(command, str) else command
    texts: list[tuple[str, str]] = [*_variables(service).items(), *(("", word) for word in words)]
    for name, text in texts:
        for host in check_commands.hosts(name, text):
            if host not in services | {"localhost"}:
                place = ("environment", name) if name else ("command",)
                yield place, f"there is no service {host}{check_schema.meant(host, services)}"


def _volume(mount: Any) -> str | None:
    """The name of the volume that is mounted; None: it is a folder of the machine, or one without a name."""
    if isinstance(mount, dict):
        return mount.get("source") if mount["type"] == "volume" else None
    source, inside, _ = mount.partition(":")
    return source if inside and not re.match(r"[./~]", source) else None


def _ports(port: Any) -> list[int]:
    """The ports that an entry names, of this machine and of the container, as far as it names them itself."""
    text = f"{port.get('published')}:{port.get('target')}" if isinstance(port, dict) else str(port)
    sides = VARIABLE.sub("", text).partition("/")[0].split(":")[-2:]
    return [int(number) for side in sides for number in side.split("-") if number.isdigit()]


def _variables(service: dict[str, Any]) -> dict[str, str]:
    """The environment of a service: of a mapping, or of a list of NAME=VALUE."""
    environment = service.get("environment") or {}
    pairs = environment.items() if isinstance(environment, dict) else (one.partition("=")[::2] for one in environment)
    return {str(name): "" if value is None else str(value) for name, value in pairs}


@functools.cache
def _specification() -> dict[str, Any]:
    """The schema, with what a service may hold in one place: so that an unknown field is reported as in other files."""
    schema: dict[str, Any] = json.loads(SPECIFICATION.read_text())
    for name, part in schema["$defs"].items():
        if "allOf" in part and part.pop("unevaluatedProperties", None) is False:
            whole = [schema["$defs"][one["$ref"].rpartition("/")[2]] for one in part.pop("allOf")] + [part]
            joined = ("properties", "patternProperties")
            merged = {key: {k: v for one in whole for k, v in one.get(key, {}).items()} for key in joined}
            schema["$defs"][name] = part | merged | {"type": "object", "additionalProperties": False}
    return schema

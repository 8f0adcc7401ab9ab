"""JSON schemas that allow no field they do not name, and what is wrong with a document, in a line for each mistake."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]

KEEPS_UNKNOWN = "x-kubernetes-preserve-unknown-fields"
QUANTITY_UNITS = "[KMGTPE]i"  # in every pattern of a quantity of Kubernetes'
NO_QUANTITY = "is no quantity; write it as 24Gi, 24G or 500m"
Place = tuple[str | int, ...]  # ("spec", "containers", 0, "image")


def strict(schema: Any) -> Any:
    """The schema with additionalProperties false wherever it names properties and does not say that it keeps others.

    Kubernetes drops a field that a CustomResourceDefinition does not name, without a word.
    """
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        result["additionalProperties"] = bool(schema.get(KEEPS_UNKNOWN))
    return result


def mistakes(document: Any, schema: Any, at: Place = ()) -> Iterator[str]:
    """Every mistake: "field.of.the.document: what is wrong". at: where the document lies in a larger one."""
    validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft7Validator)
    for error in validator(schema).iter_errors(document):
        yield from reported(error, at)


def reported(error: Any, at: Place = ()) -> Iterator[str]:
    """The lines for an error of jsonschema's: one for each field that is unknown, else one."""
    error = jsonschema.exceptions.best_match([error])  # of alternatives, what is wrong with the one that is meant
    place = (*at, *error.absolute_path)
    if error.validator == "additionalProperties" and error.validator_value is False:
        known = [*error.schema.get("properties", {})]
        allowed = error.schema.get("patternProperties", {})
        for name in sorted(map(str, set(error.instance) - set(known))):
            if not any(re.search(pattern, name) for pattern in allowed):
                yield f"{field((*place, name))}: no such field{meant(name, known)}"
    elif error.validator == "pattern":
        form = NO_QUANTITY if QUANTITY_UNITS in error.validator_value else "is not of the form that this field has"
        yield f"{field(place)}: {error.instance!r} {form}"
    else:
        yield f"{field(place) or 'the file'}: {error.message}"


def meant(name: str, known: Iterable[str]) -> str:
    """ "; did you mean NAME?" if something known is nearly the same, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def field(place: Place) -> str:
    """spec.containers[0].image of ("spec", "containers", 0, "image")."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def leaves(part: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Everything in a document that holds nothing else, and where it lies."""
    if isinstance(part, (dict, list)):
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            yield from leaves(value, (*place, key))
    else:
        yield place, part


def below(part: Any, *keys: str) -> dict[str, Any]:
    """The mapping that lies below some keys; an empty one where there is none, as a schema says that."""
    for key in keys:
        part = part.get(key) if isinstance(part, dict) else None
    return part if isinstance(part, dict) else {}


def mappings(part: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """What is in the list at a key, with an empty mapping for what is none; nothing where there is no list."""
    found = part.get(key)
    return [one if isinstance(one, dict) else {} for one in found] if isinstance(found, list) else []


def texts(part: dict[str, Any], key: str) -> list[str]:
    """The texts in the list at a key, none where there is no list."""
    found = part.get(key)
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []

"""JSON schemas that allow no field they do not name, and what is wrong with a document, in a line for each mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]

KEEPS_UNKNOWN = "x-kubernetes-preserve-unknown-fields"


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


def mistakes(document: Any, schema: Any, at: tuple[str | int, ...] = ()) -> Iterator[str]:
    """Every mistake: "field.of.the.document: what is wrong". at: where the document lies in a larger one."""
    for error in jsonschema.Draft7Validator(schema).iter_errors(document):
        yield from told(error, at)


def told(error: Any, at: tuple[str | int, ...] = ()) -> Iterator[str]:
    """The lines for an error of jsonschema's: one for each field that is unknown, else one."""
    place = (*at, *error.absolute_path)
    if error.validator == "additionalProperties" and error.validator_value is False:
        known = [*error.schema.get("properties", {})]
        for name in sorted(set(map(str, error.instance)) - set(known)):
            close = difflib.get_close_matches(name, known, n=1)
            yield f"{field((*place, name))}: no such field" + (f"; did you mean {close[0]}?" if close else "")
    else:
        yield f"{field(place) or 'the file'}: {error.message}"


def field(place: tuple[str | int, ...]) -> str:
    """spec.containers[0].image of ("spec", "containers", 0, "image")."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")

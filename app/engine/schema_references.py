"""References of a JSON schema into itself."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from specee.app.engine.schema_error import SchemaError

Schema = dict[str, Any]
MAX_STEPS = 64  # from one reference to the next


def steps(ref: str) -> list[str]:
    """The parts of a JSON pointer; the first one is '#'."""
    return [unquote(part).replace("~1", "/").replace("~0", "~") for part in ref.split("/")]


def referred(schema: Any, ref: str) -> Any:
    """What a JSON pointer names. Raises SchemaError."""
    found, (place, *path) = schema, steps(ref)
    try:
        if place != "#":
            raise KeyError(place)
        for part in path:
            found = found[int(part)] if isinstance(found, list) else found[part]
    except (LookupError, TypeError, ValueError) as error:
        raise SchemaError(
            f"there is no {ref[:80]!r}; a $ref names a part of the schema, such as '#/$defs/NAME'"
        ) from error
    return found


def target(whole: Any, schema: Any) -> Any:
    """A part of a schema, or what it refers to in the end; None for what leads to nothing."""
    for _ in range(MAX_STEPS):
        if not isinstance(schema, dict) or "$ref" not in schema:
            return schema
        ref = schema["$ref"]
        try:
            schema = referred(whole, ref) if isinstance(ref, str) else None
        except SchemaError:
            return None
    return None


def is_of_object(schema: Schema) -> bool:
    """Whether values of a schema that can be simplified are objects, if they are no others by what it says itself."""
    form = target(schema, schema)
    return isinstance(form, dict) and form.get("type", "object") == "object"

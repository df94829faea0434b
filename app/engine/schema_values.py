"""The values that `enum` and `const` give, and what stands beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from specee.app.engine.schema_error import SchemaError
from specee.app.settings import shown

Schema = dict[str, Any]
KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
FORMATS = {
    "date": re.compile(r"\d{4}-(0[1-9]|1[0-2])-([0-2]\d|3[01])"),
    "time": re.compile(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{3})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"),
    "date-time": re.compile(
        r"\d{4}-(0[1-9]|1[0-2])-([0-2]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{3})?"
        r"(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
    ),
    "uuid": re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
}
"""Of strings, as the converter to GBNF writes them."""

OF_KIND = {
    "pattern": str, "format": str, "properties": dict, "required": dict, "additionalProperties": dict,
    "items": list, "prefixItems": list,
}  # fmt: skip
"""What says something of values of one type, and is not checked."""
ANY_KIND = ("$ref", "anyOf", "oneOf", "allOf")


def is_of(value: Any, kind: str) -> bool:
    """Whether a value is of a type."""
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    return isinstance(value, KINDS[kind]) and not (
        kind == "integer" and isinstance(value, float) and not value.is_integer()
    )


def same(value: Any) -> str:
    """The same text for values that JSON schemas take for the same."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else json.dumps(value, sort_keys=True)


def values_of(known: Schema, counts: dict[str, int]) -> list[Any]:
    """Those of `enum` or `const` that all that stands beside allows. Raises SchemaError for what is not checked, and if
    there are none. `counts`: minLength and others."""
    name = "const" if "const" in known else "enum"
    values = [known["const"]] if "const" in known else known["enum"]
    if "const" in known and "enum" in known:
        values = [value for value in values if same(value) in {same(one) for one in known["enum"]}]
    kinds = known.get("type", [*KINDS])
    values = [value for value in values if any(is_of(value, kind) for kind in kinds_of(kinds))]
    if not values:
        raise SchemaError(
            f"{name!r} has no values of its {'enum' if name == 'const' and 'enum' in known else 'type'!r}"
        )
    if isinstance(known.get("format"), str) and known["format"] in FORMATS:
        form = FORMATS[known["format"]]
        values = [value for value in values if not isinstance(value, str) or form.fullmatch(value)]
        known = {key: value for key, value in known.items() if key != "format"}
    for other in known:
        if other in ANY_KIND or (other in OF_KIND and any(isinstance(value, OF_KIND[other]) for value in values)):
            raise SchemaError(f"{other!r} beside {name!r} is not supported; leave out what {name!r} says already")
    values = [value for value in values if all(_COUNTS[key](value, count) for key, count in counts.items())]
    if not values:
        raise SchemaError(f"{name!r} has no values that all else in the schema allows")
    return values


_COUNTS: dict[str, Callable[[Any, int], bool]] = {
    "minLength": lambda value, count: not isinstance(value, str) or len(value) >= count,
    "maxLength": lambda value, count: not isinstance(value, str) or len(value) <= count,
    "minItems": lambda value, count: not isinstance(value, list) or len(value) >= count,
    "maxItems": lambda value, count: not isinstance(value, list) or len(value) <= count,
}


def kinds_of(given: Any) -> list[str]:
    """The types that `type` gives. Raises SchemaError for what is none."""
    kinds = given if isinstance(given, list) else [given]
    if unknown := [each for each in kinds if not isinstance(each, str) or each not in KINDS]:
        raise SchemaError(f"there is no type {shown(unknown[0])}")
    return kinds

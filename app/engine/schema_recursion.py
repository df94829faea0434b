"""Parts of a JSON schema that refer to themselves: some have no value that ends, and some no grammar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from specee.app.engine.schema_error import SchemaError

Schema = dict[str, Any]
MAX_ALTERNATIVES = 2000
"""By which one value may begin: to follow them takes llama.cpp time at each token."""


def check_recursion(whole: Schema, definitions: Mapping[str, Schema], refs: Mapping[str, str]) -> None:
    """Raises SchemaError. `whole`, `definitions`: simplified; `refs`: how the schema calls the definitions."""
    _count(whole, definitions, refs, {})
    for name in definitions:
        _count({"$ref": f"#/$defs/{name}"}, definitions, refs, {})
    ending: set[str] = set()  # definitions of which some value ends
    while found := [name for name, form in definitions.items() if name not in ending and _ends(form, ending)]:
        ending.update(found)
    endless = [refs[name] for name in definitions if name not in ending]
    if endless:
        raise SchemaError(f"{endless[0][:80]!r} has no value that ends, as each needs another one of it")


def _count(schema: Schema, definitions: Mapping[str, Schema], refs: Mapping[str, str], known: dict[str, int]) -> int:
    """By how many alternatives a value may begin."""
    if "anyOf" in schema:
        n = sum(_count(each, definitions, refs, known) for each in schema["anyOf"])
        if n > MAX_ALTERNATIVES:
            raise SchemaError(f"a value has {n} alternatives, {MAX_ALTERNATIVES} are the most")
        return n
    if "$ref" not in schema:
        return 1
    name = _name(schema)
    if known.get(name) == 0:
        raise SchemaError(f"{refs[name][:80]!r} is nothing but a reference to itself")
    if name not in known:
        known[name] = 0  # as long as it is being counted
        known[name] = _count(definitions[name], definitions, refs, known)
    return known[name]


def _ends(schema: Schema, ending: set[str]) -> bool:
    if "$ref" in schema:
        return _name(schema) in ending
    if "anyOf" in schema:
        return any(_ends(each, ending) for each in schema["anyOf"])
    return all(_ends(each, ending) for each in _needed(schema))


def _needed(schema: Schema) -> Iterator[Schema]:
    """What stands in each value of a schema."""
    properties, items = schema.get("properties", {}), schema.get("items")
    yield from (properties[name] for name in schema.get("required", ()))
    if isinstance(items, list):
        yield from items
    elif items is not None and schema.get("minItems", 0) > 0:
        yield items


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).removeprefix("#/$defs/")

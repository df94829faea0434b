"""JSON schemas in the forms that the converter to GBNF reads in full; what it would leave out is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from specee.app.engine.schema_cost import check_cost
from specee.app.engine.schema_error import MAX_COUNT, SchemaError
from specee.app.engine.schema_overlap import Overlap, typed
from specee.app.engine.schema_pattern import pattern_for_gbnf
from specee.app.engine.schema_references import referred, steps, target
from specee.app.engine.schema_values import FORMATS, kinds_of, values_of
from specee.app.settings import shown

MAX_DEPTH = 64  # of a schema
MAX_PROPERTIES = 500  # of an object

ANNOTATIONS = frozenset((
    "title", "description", "default", "examples", "example", "$schema", "$id", "$comment", "deprecated",
    "readOnly", "writeOnly", "format", "nullable", "discriminator",
))  # fmt: skip
"""What says nothing about an answer's form; a format does so of strings."""
KEYWORDS = frozenset((
    "type", "enum", "const", "$ref", "oneOf", "anyOf", "allOf", "properties", "required", "additionalProperties",
    "items", "prefixItems", "minItems", "maxItems", "pattern", "minLength", "maxLength", "$defs", "definitions",
))  # fmt: skip
ANY = {"type": "value"}  # the converter's name for it
Schema = dict[str, Any]


@dataclass(frozen=True)
class Level:
    """Where a schema stands: in which whole one, and how deep."""

    whole: Any
    overlap: Overlap
    depth: int = 0

    def inner(self) -> Level:
        """One deeper."""
        return Level(self.whole, self.overlap, self.depth + 1)


def simplified(schema: Any) -> Schema:
    """A schema and all that it refers to, in the forms that the converter reads in full."""
    names: dict[str, str] = {}  # of references, none of which is that of a rule of the converter's
    definitions: Schema = {}
    level = Level(schema, Overlap(schema))
    whole = _renamed(_simplified(schema, level), names)
    while len(definitions) < len(names):
        ref, name = list(names.items())[len(definitions)]
        found = referred(schema, ref)
        with _at(*steps(ref)[1:]):
            definitions[name] = _renamed(_simplified(found, level.inner()), names)
    check_cost(whole, definitions, {name: ref for ref, name in names.items()})
    if "$ref" in whole:  # beside which the converter reads no definitions
        whole = {"anyOf": [whole]}
    return {**whole, "$defs": definitions}


@contextmanager
def _at(*path: Any) -> Iterator[None]:
    """What is wrong within stands there."""
    try:
        yield
    except SchemaError as error:
        raise error.within(*path) from error


def _renamed(schema: Schema, names: dict[str, str]) -> Schema:
    """With a name in $defs for each reference."""
    if "$ref" in schema:
        return {"$ref": f"#/$defs/{names.setdefault(schema['$ref'], f'specee-definition-{len(names)}')}"}
    renamed = dict(schema)
    for key in ("anyOf", "items", "additionalProperties"):
        inner = schema.get(key)
        if isinstance(inner, list):
            renamed[key] = [_renamed(each, names) for each in inner]
        elif isinstance(inner, dict):
            renamed[key] = _renamed(inner, names)
    if "properties" in schema:
        renamed["properties"] = {name: _renamed(each, names) for name, each in schema["properties"].items()}
    return renamed


def _simplified(schema: Any, level: Level) -> Schema:
    """The schema without annotations and definitions, in the forms that the converter reads in full."""
    if schema is True:
        return ANY
    if not isinstance(schema, dict):
        raise SchemaError(f"{json.dumps(schema)[:40]} stands where a schema must be an object")
    if level.depth > MAX_DEPTH:
        raise SchemaError(f"it is nested deeper than {MAX_DEPTH} levels")
    if unknown := sorted(schema.keys() - KEYWORDS - ANNOTATIONS):
        raise SchemaError(f"{unknown[0]!r} is not supported in schemas; leave it out")
    _check_shapes(schema)
    known = {name: value for name, value in schema.items() if name in KEYWORDS or name == "format"}
    return _form({name: value for name, value in known.items() if name not in ("$defs", "definitions")}, level)


def _check_shapes(schema: Schema) -> None:
    for kind, names in _SHAPES.items():
        if wrong := [name for name in names if name in schema and not isinstance(schema[name], kind)]:
            raise SchemaError(f"{wrong[0]!r} must be {_SHAPE_NAMES[kind]}")


_SHAPES: dict[type, tuple[str, ...]] = {
    list: ("enum", "anyOf", "oneOf", "allOf", "required", "prefixItems"),
    dict: ("properties", "$defs", "definitions"),
    str: ("$ref", "pattern"),
}
_SHAPE_NAMES: dict[type, str] = {list: "a list", dict: "an object", str: "a text"}


def _form(known: Schema, level: Level) -> Schema:
    if "$ref" in known:
        referred(level.whole, known["$ref"])
        _check_beside_reference(known, level)
        return {"$ref": known["$ref"]}
    if "const" in known or "enum" in known:
        counts = {**_counts(known, "minLength", "maxLength"), **_counts(known, "minItems", "maxItems")}
        return {"enum": values_of(known, counts)}
    for name in ("anyOf", "oneOf"):
        if name in known:
            others = known.keys() - {name, "format", "type"}
            if others:
                raise SchemaError(f"{sorted(others)[0]!r} beside {name!r} is not supported; move it into {name!r}")
            if not known[name]:
                raise SchemaError(f"{name!r} has no schemas")
            if name == "oneOf":
                level.overlap.check_one_of([typed(each, known) for each in known[name]])
            forms = []
            for i, each in enumerate(known[name]):
                with _at(name, i):
                    forms.append(_simplified(_narrowed(each, known.get("type")), level.inner()))
            return {"anyOf": forms}
    if len(known.get("allOf", ())) == 1 and known.keys() <= {"allOf", "type"}:
        with _at("allOf", 0):
            return _simplified(_narrowed(known["allOf"][0], known.get("type")), level.inner())
    kind = known.get("type")
    if kind is not None:
        kinds_of(kind)
    if isinstance(kind, list):
        if not kind:
            raise SchemaError("'type' has no values")
        return {"anyOf": [_form(_of_type({**known, "type": each}), level) for each in kind]}
    if kind is None:
        kind = next((of for of, names in _OF_TYPE.items() if names & known.keys()), None)
        if kind is None:
            return ANY
    of_type = _of_type({**known, "type": kind})
    return _FORMS[kind](of_type, level) if kind in _FORMS else {"type": kind}


def _check_beside_reference(known: Schema, level: Level) -> None:
    """Raises SchemaError for what would say more than what the reference names."""
    for name in sorted(known.keys() - {"$ref"}):
        form = target(level.whole, known)
        if name != "type" or not isinstance(form, dict) or form.get("type") != known["type"]:
            raise SchemaError(f"{name!r} beside '$ref' is not supported; say it in what '$ref' names")


def _narrowed(schema: Any, kind: Any) -> Any:
    """One of several schemas, with the type that stands beside them."""
    if kind is None or not isinstance(schema, dict):
        return schema
    if schema.get("type", kind) != kind:
        raise SchemaError(f"'type' is {shown(schema['type'])} within {shown(kind)}; nothing is both")
    return {**schema, "type": kind}


_OF_TYPE = {
    "object": {"properties", "required", "additionalProperties", "allOf"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"pattern", "minLength", "maxLength", "format"},
}


def _of_type(known: Schema) -> Schema:
    """Without the keywords that say nothing about values of this type."""
    names = _OF_TYPE.get(known["type"], set())
    if "allOf" in known and known["type"] != "object":
        raise SchemaError("'allOf' is supported of objects only")
    return {name: value for name, value in known.items() if name == "type" or name in names}


def _object(known: Schema, level: Level) -> Schema:
    if "allOf" in known:
        known = _merged(known)
    properties = known.get("properties", {})
    if len(properties) > MAX_PROPERTIES:
        raise SchemaError(f"'properties' has {len(properties)} names, {MAX_PROPERTIES} are the most")
    if reserved := properties.keys() & {"", "*", "$ref"}:  # by the converter
        raise SchemaError(f"a property cannot have the name {min(reserved)!r}")
    required = known.get("required", [])
    if missing := [name for name in required if not isinstance(name, str) or name not in properties]:
        raise SchemaError(f"{missing[0]!r} is required, but no property")
    more = known.get("additionalProperties")
    form: Schema = {"type": "object"}
    if "properties" in known or more is not None:
        form["properties"] = {}
        for name, each in properties.items():
            with _at("properties", name):
                form["properties"][name] = _simplified(each, level.inner())
        form["required"] = required
    if more is not None:  # without it, an object with properties has no others
        with _at("additionalProperties"):
            form["additionalProperties"] = False if more is False else _simplified(more, level.inner())
    return form


def _merged(known: Schema) -> Schema:
    """allOf of objects as one object."""
    whole: Schema = {name: value for name, value in known.items() if name != "allOf"}
    for part in known["allOf"]:
        if not isinstance(part, dict) or part.keys() - {"type", "properties", "required"} - ANNOTATIONS:
            raise SchemaError("'allOf' is supported of objects with 'properties' and 'required' only")
        if part.get("type", "object") != "object":
            raise SchemaError("'allOf' is supported of objects only")
        _check_shapes(part)
        ours, more = whole.get("properties", {}), part.get("properties", {})
        if more.keys() - known.get("properties", {}).keys() and known.get("additionalProperties", True) is not True:
            raise SchemaError("'additionalProperties' beside 'allOf' would forbid the properties of 'allOf'")
        if twice := [name for name in more if name in ours and ours[name] != more[name]]:
            raise SchemaError(f"'allOf' has two schemas for the property {twice[0]!r}; join them")
        whole["properties"] = {**ours, **more}
        whole["required"] = [*whole.get("required", []), *part.get("required", [])]
    return whole


def _array(known: Schema, level: Level) -> Schema:
    if "prefixItems" in known or isinstance(known.get("items"), list):
        if known.keys() & {"minItems", "maxItems"}:
            raise SchemaError(
                "'minItems' and 'maxItems' of a list with 'prefixItems' are not supported; leave them out"
            )
        first = known.get("prefixItems", known.get("items"))
        if not first:
            raise SchemaError("'prefixItems' has no schemas")
        forms = []
        for i, each in enumerate(first):
            with _at("prefixItems" if "prefixItems" in known else "items", i):
                forms.append(_simplified(each, level.inner()))
        return {"type": "array", "items": forms}
    with _at("items"):
        items = _simplified(known.get("items", True), level.inner())
    return {"type": "array", "items": items, **_counts(known, "minItems", "maxItems")}


def _string(known: Schema, level: Level) -> Schema:
    counts = _counts(known, "minLength", "maxLength")
    if (form := known.get("format")) is not None:
        if not isinstance(form, str) or form not in FORMATS:
            raise SchemaError(f"the format {str(form)[:40]!r} is not supported, but {', '.join(FORMATS)}; leave it out")
        if others := known.keys() & {"pattern", "minLength", "maxLength"}:
            raise SchemaError(f"{min(others)!r} beside 'format' is not supported; leave one out")
        return {"type": "string", "format": form}
    if "pattern" in known:
        if counts:
            raise SchemaError("'minLength' and 'maxLength' beside 'pattern' are not supported; say it in the pattern")
        with _at("pattern"):
            return {"type": "string", "pattern": pattern_for_gbnf(known["pattern"])}
    if counts:
        return {"type": "string", **counts}
    return {"type": "string"}


_FORMS = {"object": _object, "array": _array, "string": _string}


def _counts(known: Schema, least: str, most: str) -> Schema:
    counts = {name: known[name] for name in (least, most) if name in known}
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_COUNT:
            raise SchemaError(f"{name!r} must be a number from 0 to {MAX_COUNT}")
    if counts.get(least, 0) > counts.get(most, MAX_COUNT):
        raise SchemaError(f"{least!r} is greater than {most!r}")
    return counts

"""JSON schemas as grammars in GBNF.

The converter is llama-cpp-python's, which leaves out what it does not know and can be kept busy for hours. So a schema
is checked and simplified before: what would be left out is refused, and its size is bounded.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

from specee.app.errors import USAGE, AppError

MAX_CHARACTERS = 1 << 17
MAX_DEPTH = 64  # of a schema
MAX_COUNT = 2000  # of items and characters that a schema asks for, as llama.cpp's grammars have it
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
TYPES = frozenset(("object", "array", "string", "number", "integer", "boolean", "null"))
ANY = {"type": "value"}  # the converter's name for it
FORMATS = ("date", "time", "date-time", "uuid")  # of strings
CHARACTER = r'[^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})'
"""Of a string. The converter's own rule has line ends as they are, too, which JSON has not."""
Schema = dict[str, Any]


def to_gbnf(text: str) -> str:
    """The grammar of a schema, which is given in JSON. Raises AppError for what is none, or not supported."""
    if len(text) > MAX_CHARACTERS:
        raise _bad(f"it has {len(text)} characters, {MAX_CHARACTERS} are the most")
    try:
        return _to_gbnf(_simplified_whole(json.loads(text)))
    except AppError:
        raise
    except json.JSONDecodeError as error:
        raise _bad(f"it is no JSON ({error})") from error
    except RecursionError as error:
        raise _bad("it is nested too deep") from error
    except Exception as error:  # the converter's own refusals are of many kinds
        raise _bad(f"it cannot be read ({error or type(error).__name__})") from error


def _to_gbnf(schema: Schema) -> str:
    from llama_cpp.llama_grammar import PRIMITIVE_RULES, SchemaConverter

    class Converter(SchemaConverter):  # type: ignore[misc]
        def visit(self, schema: Schema, name: str) -> str:
            """Counts as GBNF has them. The converter writes a group for each item, and llama.cpp refuses so many."""
            if not schema.keys() & {"minItems", "maxItems", "minLength", "maxLength"}:
                return str(super().visit(schema, name))
            if schema["type"] == "string":
                least, most = schema.get("minLength", 0), schema.get("maxLength", "")
                rule = rf'"\"" {self._add_primitive("char", PRIMITIVE_RULES["char"])}{{{least},{most}}} "\"" space'
            else:
                item = self.visit(schema["items"], f"{name}-item")
                least, most = schema.get("minItems", 0), schema.get("maxItems")
                next_item = self._add_rule(f"{name}-next", f'"," space {item}')
                more = f"{next_item}{{{max(least - 1, 0)},{'' if most is None else max(most - 1, 0)}}}"
                inner = "" if most == 0 else f"{item} {more}" if least else f"({item} {more})?"
                rule = f'"[" space {inner} "]" space'
            return str(self._add_rule(f"{name}-counted" if name else "root", rule))

        def _add_rule(self, name: str, rule: str) -> str:
            return str(super()._add_rule(name, CHARACTER if name == "char" else rule))

        def _format_literal(self, literal: str) -> str:
            """Of a JSON text. The converter's own leaves backslashes as they are."""
            text = json.dumps(json.loads(literal), ensure_ascii=False, allow_nan=False)
            return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    converter = Converter(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)
    converter.visit(converter.resolve_refs(schema, "schema"), "")
    return str(converter.format_grammar())


def _simplified_whole(schema: Any) -> Schema:
    """A schema and all that it refers to, in the forms that the converter reads in full."""
    names: dict[str, str] = {}  # of references, none of which is that of a rule of the converter's
    definitions: Schema = {}
    whole = _renamed(_simplified(schema, 0), names)
    while len(definitions) < len(names):
        ref, name = list(names.items())[len(definitions)]
        definitions[name] = _renamed(_simplified(_referred(schema, ref), 1), names)
    if "$ref" in whole:  # beside which the converter reads no definitions
        whole = {"anyOf": [whole]}
    return {**whole, "$defs": definitions}


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


def _referred(schema: Any, ref: str) -> Any:
    """What a JSON pointer names."""
    found, (place, *path) = schema, ref.split("/")
    try:
        if place != "#":
            raise KeyError(place)
        for part in path:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            found = found[int(key)] if isinstance(found, list) else found[key]
    except (LookupError, TypeError, ValueError) as error:
        raise _bad(f"there is no {ref[:80]!r}; a $ref names a part of the schema, such as '#/$defs/NAME'") from error
    return found


def _simplified(schema: Any, depth: int) -> Schema:
    """The schema without annotations and definitions, in the forms that the converter reads in full."""
    if schema is True:
        return ANY
    if not isinstance(schema, dict):
        raise _bad(f"{json.dumps(schema)[:40]} stands where a schema must be an object")
    if depth > MAX_DEPTH:
        raise _bad(f"it is nested deeper than {MAX_DEPTH} levels")
    if unknown := sorted(schema.keys() - KEYWORDS - ANNOTATIONS):
        raise _bad(f"{unknown[0]!r} is not supported in schemas; leave it out")
    for kind, names in _SHAPES.items():
        if wrong := [name for name in names if name in schema and not isinstance(schema[name], kind)]:
            raise _bad(f"{wrong[0]!r} must be {_SHAPE_NAMES[kind]}")
    known = {name: value for name, value in schema.items() if name in KEYWORDS or name == "format"}
    return _form({name: value for name, value in known.items() if name not in ("$defs", "definitions")}, depth)


_SHAPES: dict[type, tuple[str, ...]] = {
    list: ("enum", "anyOf", "oneOf", "allOf", "required", "prefixItems"),
    dict: ("properties", "$defs", "definitions"),
    str: ("$ref", "pattern"),
}
_SHAPE_NAMES: dict[type, str] = {list: "a list", dict: "an object", str: "a text"}


def _form(known: Schema, depth: int) -> Schema:
    if "$ref" in known:
        return {"$ref": known["$ref"]}
    if "const" in known or "enum" in known:
        values = _of_types([known["const"]] if "const" in known else known["enum"], known.get("type"))
        if not values:
            raise _bad(f"{'const' if 'const' in known else 'enum'!r} has no values of its 'type'")
        return {"enum": values}
    for name in ("anyOf", "oneOf"):
        if name in known:
            others = known.keys() - {name, "format", "type"}
            if others:
                raise _bad(f"{sorted(others)[0]!r} beside {name!r} is not supported; move it into {name!r}")
            if not known[name]:
                raise _bad(f"{name!r} has no schemas")
            return {"anyOf": [_simplified(_narrowed(each, known.get("type")), depth + 1) for each in known[name]]}
    if len(known.get("allOf", ())) == 1 and known.keys() <= {"allOf", "type"}:
        return _simplified(_narrowed(known["allOf"][0], known.get("type")), depth + 1)
    kind = known.get("type")
    if isinstance(kind, list):
        if not kind:
            raise _bad("'type' has no values")
        return {"anyOf": [_form(_of_type({**known, "type": each}), depth) for each in kind]}
    if kind is None:
        kind = next((of for of, names in _OF_TYPE.items() if names & known.keys()), None)
        if kind is None:
            return ANY
    if not isinstance(kind, str) or kind not in TYPES:
        raise _bad(f"there is no type {kind!r}")
    of_type = _of_type({**known, "type": kind})
    return _FORMS[kind](of_type, depth) if kind in _FORMS else {"type": kind}


_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def _of_types(values: list[Any], kind: Any) -> list[Any]:
    """Those that are of the type, or of one of the types; None: all."""
    if kind is None:
        return values
    kinds = kind if isinstance(kind, list) else [kind]
    if unknown := [each for each in kinds if not isinstance(each, str) or each not in TYPES]:
        raise _bad(f"there is no type {unknown[0]!r}")
    return [
        value
        for value in values
        if any(isinstance(value, _KINDS[each]) and isinstance(value, bool) == (each == "boolean") for each in kinds)
    ]


def _narrowed(schema: Any, kind: Any) -> Any:
    """One of several schemas, with the type that stands beside them."""
    if kind is None or not isinstance(schema, dict):
        return schema
    if schema.get("type", kind) != kind:
        raise _bad(f"'type' is {schema['type']!r} within {kind!r}; nothing is both")
    return {**schema, "type": kind}


_OF_TYPE = {
    "object": {"properties", "required", "additionalProperties", "allOf"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"pattern", "minLength", "maxLength", "format"},
}


def _of_type(known: Schema) -> Schema:
    """Without the keywords that say nothing about values of this type."""
    names = _OF_TYPE.get(known["type"], set())
    return {name: value for name, value in known.items() if name == "type" or name in names}


def _object(known: Schema, depth: int) -> Schema:
    if "allOf" in known:
        known = _merged(known)
    properties = known.get("properties", {})
    if len(properties) > MAX_PROPERTIES:
        raise _bad(f"'properties' has {len(properties)} names, {MAX_PROPERTIES} are the most")
    if reserved := properties.keys() & {"", "*", "$ref"}:  # by the converter
        raise _bad(f"a property cannot have the name {min(reserved)!r}")
    required = known.get("required", [])
    if missing := [name for name in required if not isinstance(name, str) or name not in properties]:
        raise _bad(f"{missing[0]!r} is required, but no property")
    more = known.get("additionalProperties")
    form: Schema = {"type": "object"}
    if properties or more is not None:
        form["properties"] = {name: _simplified(each, depth + 1) for name, each in properties.items()}
        form["required"] = required
    if more is not None:  # without it, an object with properties has no others
        form["additionalProperties"] = False if more is False else _simplified(more, depth + 1)
    return form


def _merged(known: Schema) -> Schema:
    """allOf of objects as one object."""
    whole: Schema = {name: value for name, value in known.items() if name != "allOf"}
    for part in known["allOf"]:
        if not isinstance(part, dict) or part.keys() - {"type", "properties", "required"} - ANNOTATIONS:
            raise _bad("'allOf' is supported of objects with 'properties' and 'required' only")
        if part.get("type", "object") != "object":
            raise _bad("'allOf' is supported of objects only")
        ours, more = whole.get("properties", {}), part.get("properties", {})
        if twice := [name for name in more if name in ours and ours[name] != more[name]]:
            raise _bad(f"'allOf' has two schemas for the property {twice[0]!r}; join them")
        whole["properties"] = {**ours, **more}
        whole["required"] = [*whole.get("required", []), *part.get("required", [])]
    return whole


def _array(known: Schema, depth: int) -> Schema:
    if "prefixItems" in known or isinstance(known.get("items"), list):
        if known.keys() & {"minItems", "maxItems"}:
            raise _bad("'minItems' and 'maxItems' of a list with 'prefixItems' are not supported; leave them out")
        first = known.get("prefixItems", known.get("items"))
        if not first:
            raise _bad("'prefixItems' has no schemas")
        return {"type": "array", "items": [_simplified(each, depth + 1) for each in first]}
    return {
        "type": "array",
        "items": _simplified(known.get("items", True), depth + 1),
        **_counts(known, "minItems", "maxItems"),
    }


def _string(known: Schema, depth: int) -> Schema:
    counts = _counts(known, "minLength", "maxLength")
    if (form := known.get("format")) is not None:
        if form not in FORMATS:
            raise _bad(f"the format {str(form)[:40]!r} is not supported, but {', '.join(FORMATS)}; leave it out")
        if others := known.keys() & {"pattern", "minLength", "maxLength"}:
            raise _bad(f"{min(others)!r} beside 'format' is not supported; leave one out")
        return {"type": "string", "format": form}
    if "pattern" in known:
        if counts:
            raise _bad("'minLength' and 'maxLength' beside 'pattern' are not supported; say it in the pattern")
        return {"type": "string", "pattern": _pattern(known["pattern"])}
    if counts:
        return {"type": "string", **counts}
    return {"type": "string"}


_FORMS = {"object": _object, "array": _array, "string": _string}


def _counts(known: Schema, least: str, most: str) -> Schema:
    counts = {name: known[name] for name in (least, most) if name in known}
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_COUNT:
            raise _bad(f"{name!r} must be a number from 0 to {MAX_COUNT}")
    if counts.get(least, 0) > counts.get(most, MAX_COUNT):
        raise _bad(f"{least!r} is greater than {most!r}")
    return counts


_SIGN = re.compile(
    r"(?P<escaped>\\[\[\](){}|*+?.^$/-])"
    r"|(?P<class>\[(?!\^)(?:[^\]\[\\]|\\[\[\]])+\])"
    r"|(?P<count>\{\d{1,4}(?:,\d{0,4})?\})"
    r"|(?P<group>\((?!\?)|[)|*+?])"
    r"|(?P<character>[^\x00-\x1f\\\[\](){}|*+?.^$\"])"
)


def _pattern(pattern: str) -> str:
    """In the form in which the converter means what regular expressions mean, and gives texts that are JSON."""
    if not (pattern.startswith("^") and pattern.endswith("$")):
        raise _bad("'pattern' must begin with ^ and end with $")
    re.compile(pattern)  # balanced, and nothing repeated that is not there
    inner, at, converted = pattern[1:-1], 0, ""
    while at < len(inner):
        sign = _SIGN.match(inner, at)
        if sign is None or (sign["class"] and not _is_text(sign["class"])):
            what = sign[0] if sign else inner[at : at + 2]
            raise _bad(
                f"{what!r} in 'pattern' is not supported; use characters, classes such as [a-z], groups, |*+?{{}}"
            )
        if sign["count"] and max(map(int, re.findall(r"\d+", sign[0]))) > MAX_COUNT:
            raise _bad(f"{sign[0]} in 'pattern': {MAX_COUNT} times is the most")
        escaped = sign["escaped"]
        converted += (
            {"\\.": "[.]"}.get(escaped, escaped[1] if escaped[1] in "^$/-" else escaped) if escaped else sign[0]
        )
        at = sign.end()
    return f"^({converted})$"


def _is_text(characters: str) -> bool:
    """Whether a class has only characters that stand for themselves in JSON."""
    accepted = re.compile(characters)
    return not any(accepted.match(chr(code)) for code in (*range(0x20), ord('"'), ord("\\")))


def _bad(why: str) -> AppError:
    return AppError("bad JSON schema", why, USAGE)

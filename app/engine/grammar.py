"""What an answer must keep to, as a grammar in GBNF: given as one, or made of a JSON schema.

The converter is llama-cpp-python's, which leaves out what it does not know and can be kept busy for hours. So a schema
is checked and simplified before: what would be left out is refused, and its size is bounded.
"""

from __future__ import annotations

import json
import re
from typing import Any

from specee.app.errors import USAGE, AppError
from specee.app.options import ChatOptions

MAX_CHARACTERS = 1 << 17  # of a schema, and of a grammar
MAX_DEPTH = 64  # of a schema
MAX_GROUPS = 2000  # in one another
MAX_COUNT = 2000  # of items and characters that a schema asks for, as llama.cpp's grammars have it
MAX_PROPERTIES = 500  # of an object

ANNOTATIONS = frozenset((
    "title", "description", "default", "examples", "example", "$schema", "$id", "$comment", "deprecated",
    "readOnly", "writeOnly", "format", "nullable", "discriminator",
))  # fmt: skip
"""What says nothing about an answer's form; of formats the converter knows date, time, date-time and uuid."""
KEYWORDS = frozenset((
    "type", "enum", "const", "$ref", "oneOf", "anyOf", "allOf", "properties", "required", "additionalProperties",
    "items", "prefixItems", "minItems", "maxItems", "pattern", "minLength", "maxLength", "$defs", "definitions",
))  # fmt: skip
TYPES = frozenset(("object", "array", "string", "number", "integer", "boolean", "null"))
ANY = {"type": "value"}  # the converter's name for it
Schema = dict[str, Any]


def gbnf(options: ChatOptions) -> str | None:
    """The grammar of an answer, None without one. Raises AppError for what is no grammar."""
    if options.json_schema is None:
        if options.grammar is not None:
            _check_grammar(options.grammar)
        return options.grammar
    if options.grammar is not None:
        raise AppError("bad request", "an answer keeps to a grammar or to a JSON schema; give one of them", USAGE)
    grammar = _convert(options.json_schema)
    _check_grammar(grammar)
    return grammar


def _convert(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise _bad(f"it has {len(text)} characters, {MAX_CHARACTERS} are the most")
    try:
        return _to_gbnf(_simplified_whole(json.loads(text)))
    except AppError:
        raise
    except RecursionError as error:
        raise _bad("it is nested too deep") from error
    except Exception as error:  # the converter's own refusals are of many kinds
        raise _bad(f"it cannot be read ({error or type(error).__name__})") from error


def _to_gbnf(schema: Schema) -> str:
    from llama_cpp.llama_grammar import SchemaConverter

    class Converter(SchemaConverter):  # type: ignore[misc]
        def _format_literal(self, literal: str) -> str:
            """Of a JSON text. The converter's own leaves backslashes as they are."""
            text = json.dumps(json.loads(literal), ensure_ascii=False)
            return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    converter = Converter(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)
    converter.visit(converter.resolve_refs(schema, "schema"), "")
    return str(converter.format_grammar())


def _check_grammar(grammar: str) -> None:
    """What llama.cpp's parser would not survive."""
    if len(grammar) > MAX_CHARACTERS:
        raise AppError("bad grammar", f"it has {len(grammar)} characters, {MAX_CHARACTERS} are the most", USAGE)
    try:
        if b"\0" in grammar.encode():
            raise AppError("bad grammar", "it has a character 0", USAGE)
    except UnicodeEncodeError as error:
        raise AppError("bad grammar", "it has half of a surrogate pair, which is no text", USAGE) from error
    depth = deepest = 0
    for mark in re.sub(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|#.*', "", grammar):
        depth += (mark == "(") - (mark == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_GROUPS:
        raise AppError("bad grammar", f"it has {deepest} groups in one another, {MAX_GROUPS} are the most", USAGE)


# ---- schemas -------------------------------------------------------------------------------------------------------


def _simplified_whole(schema: Any) -> Schema:
    """A schema in the forms that the converter reads in full, and its definitions, under names that clash with none."""
    definitions: dict[str, Any] = {}
    if isinstance(schema, dict):
        for place in ("$defs", "definitions"):
            for name, definition in schema.get(place, {}).items():
                definitions[f"#/{place}/{name}"] = definition
    names = {ref: f"specee-definition-{i}" for i, ref in enumerate(definitions)}
    whole: Schema = _renamed(_simplified(schema, 0), names)
    whole["$defs"] = {names[ref]: _renamed(_simplified(each, 1), names) for ref, each in definitions.items()}
    return whole


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    """With the definitions' new names."""
    if isinstance(schema, list):
        return [_renamed(each, names) for each in schema]
    if not isinstance(schema, dict) or "const" in schema or "enum" in schema:
        return schema
    if isinstance(ref := schema.get("$ref"), str):
        if ref not in names:
            raise _bad(f"there is no {ref}; a $ref names one of the schema's $defs")
        return {"$ref": f"#/$defs/{names[ref]}"}
    return {name: _renamed(each, names) for name, each in schema.items()}


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
    known = {name: value for name, value in schema.items() if name in KEYWORDS or name == "format"}
    if depth and known.keys() & {"$defs", "definitions"}:
        raise _bad("'$defs' are supported at the top only; move them there")
    return _form({name: value for name, value in known.items() if name not in ("$defs", "definitions")}, depth)


def _form(known: Schema, depth: int) -> Schema:
    for name in ("const", "enum", "$ref"):
        if name in known:
            if name == "enum" and not known[name]:
                raise _bad("'enum' has no values")
            return {name: known[name]}
    for name in ("anyOf", "oneOf"):
        if name in known:
            others = known.keys() - {name, "format", "type"}
            if others:
                raise _bad(f"{sorted(others)[0]!r} beside {name!r} is not supported; move it into {name!r}")
            if not isinstance(known[name], list) or not known[name]:
                raise _bad(f"{name!r} must be a list of schemas")
            return {"anyOf": [_simplified(each, depth + 1) for each in known[name]]}
    kind = known.get("type")
    if isinstance(kind, list):
        if not kind:
            raise _bad("'type' has no values")
        return {"anyOf": [_form(_of_type({**known, "type": each}), depth) for each in kind]}
    if kind is None:
        kind = next((of for of, names in _OF_TYPE.items() if names & known.keys()), None)
        if kind is None:
            return ANY
    if kind not in TYPES:
        raise _bad(f"there is no type {kind!r}")
    of_type = _of_type({**known, "type": kind})
    return _FORMS[kind](of_type, depth) if kind in _FORMS else {"type": kind}


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
    if not isinstance(properties, dict) or len(properties) > MAX_PROPERTIES:
        raise _bad(f"'properties' must be an object with at most {MAX_PROPERTIES} names")
    if "*" in properties:
        raise _bad("a property cannot have the name '*'")
    required = known.get("required", [])
    if not isinstance(required, list):
        raise _bad("'required' must be a list")
    if missing := [name for name in required if name not in properties]:
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
        whole["properties"] = {**whole.get("properties", {}), **part.get("properties", {})}
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
    if "pattern" in known:
        if counts:
            raise _bad("'minLength' and 'maxLength' beside 'pattern' are not supported; say it in the pattern")
        return {"type": "string", "pattern": _pattern(known["pattern"])}
    if counts:
        return {"type": "string", **counts}
    known_formats = ("date", "time", "date-time", "uuid")
    return {"type": "string", **({"format": known["format"]} if known.get("format") in known_formats else {})}


_FORMS = {"object": _object, "array": _array, "string": _string}


def _counts(known: Schema, least: str, most: str) -> Schema:
    counts = {name: known[name] for name in (least, most) if name in known}
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_COUNT:
            raise _bad(f"{name!r} must be a number from 0 to {MAX_COUNT}")
    if counts.get(least, 0) > counts.get(most, MAX_COUNT):
        raise _bad(f"{least!r} is greater than {most!r}")
    return counts


_TOKEN = re.compile(
    r"\\[\[\](){}|*+?.^$/\\-]"  # an escaped sign
    r"|\[(?!\^)(?:[^\]\\\"]|\\[\]\\^-])+\]"  # a class of characters
    r"|\{\d{1,4}(?:,\d{0,4})?\}"  # how often
    r"|[()|*+?]"
    r"|[^\\\[\](){}|*+?.^$\"]"  # a character
)


def _pattern(pattern: Any) -> str:
    """One that the converter reads as regular expressions mean it, and whose texts are JSON strings."""
    if not isinstance(pattern, str) or not (pattern.startswith("^") and pattern.endswith("$")):
        raise _bad("'pattern' must begin with ^ and end with $")
    inner, at = pattern[1:-1], 0
    while at < len(inner):
        token = _TOKEN.match(inner, at)
        if token is None or inner[at : at + 2] in ("(?", "\\\\"):
            raise _bad(
                f"{inner[at : at + 2]!r} in 'pattern' is not supported; use characters, classes, groups, |*+?{{}}"
            )
        if token[0].startswith("{") and max(map(int, re.findall(r"\d+", token[0]))) > MAX_COUNT:
            raise _bad(f"{token[0]} in 'pattern': {MAX_COUNT} times is the most")
        at = token.end()
    return f"^({inner})$"


def _bad(why: str) -> AppError:
    return AppError("bad JSON schema", why, USAGE)

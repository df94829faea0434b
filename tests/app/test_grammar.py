"""Grammars and JSON schemas: what is refused, and that what a grammar allows is what the schema says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from real_engine import missing_model

from specee.app.engine.grammar import gbnf
from specee.app.errors import USAGE, AppError
from specee.app.options import ChatOptions

REASON = missing_model()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    from specee.models import embedded
    from specee.native.engine import Model

    path = embedded.path()
    assert path is not None
    model = Model(path)
    yield model
    model.close()


def allows(model: Any, schema: Any, text: str) -> bool:
    """Whether the grammar allows the text and then its end."""
    from specee.native.engine import Sampler

    sampler = Sampler(model, grammar=gbnf(ChatOptions(json_schema=json.dumps(schema))))
    stop = next(token for token in range(model.n_vocab) if model.is_stop(token))
    try:
        for token in [*model.tokenize(text, special=False), stop]:
            if not sampler.allows(token):
                return False
            sampler.accept(token)
        return True
    finally:
        sampler.close()


def whole(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


FOO = {"anyOf": [{"$ref": "#/$defs/Foo_Bar"}, {"type": "null"}]}
ALLOWED: list[tuple[Any, list[str], list[str]]] = [
    ({"type": "object"}, ['{"a": [1, {"b": null}]}', "{}"], ["[]", "1", '{"a": }']),
    (True, ["1", "[]", '"x"', '{"a": 1}'], ["x", "{"]),
    ({}, ["[1]", "null"], ["nul"]),
    ({"description": "anything"}, ["[1]"], []),
    ({"type": ["integer", "null"]}, ["12", "-3", "null"], ["1.5", '"1"']),
    ({"type": ["string", "null"], "maxLength": 3}, ['"abc"', "null"], ['"abcd"']),
    ({**whole(a=True), "type": ["object", "null"]}, ['{"a": 1}', "null"], ["{}"]),
    ({"type": "string", "enum": ["red", 'a"b', "c\\d", "é", "x\ny"]},
     ['"red"', r'"a\"b"', r'"c\\d"', '"é"', r'"x\ny"'], ['"r"']),
    ({"enum": [1, None, {"x": [True]}]}, ["1", "null", '{"x": [true]}'], ["2"]),
    ({"const": {"$defs": 1}}, ['{"$defs": 1}'], ["1"]),
    (whole(a={"type": "integer"}, b={"type": "boolean"}), ['{"a": 1, "b": true}'], ['{"a": 1}', '{"b": true, "a": 1}']),
    ({"properties": {"a": {"type": "number"}, "b": True}}, ['{"a": 1.5}', "{}", '{"b": "x"}'], ['{"c": 1}']),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, ['{"z": 1}'], ['{"z": "1"}']),
    (whole(**{'q"': {"type": "null"}, "string": {"const": 1}, "const": {"type": "null"}, "enum": {"type": "null"}}),
     [r'{"q\"": null, "string": 1, "const": null, "enum": null}'], []),
    ({"allOf": [{"properties": {"a": True}, "required": ["a"]}, {"properties": {"b": {"type": "null"}}}]},
     ['{"a": 1, "b": null}', '{"a": 1}'], ["{}"]),
    ({"allOf": [{"$ref": "#/definitions/n"}], "definitions": {"n": {"type": "null"}}}, ["null"], ["1"]),
    ({"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 3},
     ["[null]", "[null,null, null]"], ["[]", "[null,null,null,null]"]),
    ({"type": "array", "maxItems": 2}, ["[]", "[1]", '["a",2]'], ["[1,2,3]"]),
    ({"type": "array", "items": {"type": "null"}, "minItems": 2}, ["[null,null]", "[null,null,null]"], ["[null]"]),
    ({"type": "array", "items": True, "maxItems": 0}, ["[]"], ["[1]"]),
    ({"prefixItems": [{"type": "null"}, {"type": "integer"}]}, ["[null, 1]"], ["[null]", "[1, null]"]),
    ({"type": "string", "minLength": 2, "maxLength": 2}, ['"ab"', r'"\n\\"'], ['"a"', '"abc"']),
    ({"type": "string", "maxLength": 2000}, ['"ab"'], ["1", '"a\nb"']),
    ({"type": "string"}, [r'"a\n\u00e9\t"'], ['"a\nb"', '"\t"', '"\x01"']),
    ({"type": "object"}, [r'{"a\n": "b\n"}'], ['{"a\n": 1}', '{"a": "b\n"}', '{"a": ["\r"]}']),
    ({"type": ["integer", "string"], "enum": [1, "a", True]}, ["1", '"a"'], ["true"]),
    ({"type": "string", "anyOf": [{"enum": ["a", 1]}, {"maxLength": 1}]}, ['"a"', '"b"'], ["1"]),
    ({"type": "array", "items": whole(a={"type": "null"}), "maxItems": 2000}, ['[{"a": null}]'], ["[1]"]),
    ({"type": "string", "pattern": "^(a|b)+-[0-9]{2}$"}, ['"ab-12"'], ['"-12"', '"a-1"', '"a-123"']),
    ({"type": "string", "pattern": r"^a\.b\/c\*|x$"}, ['"a.b/c*"', '"x"'], ['"aXb/c*"', '"x']),
    ({"type": "string", "format": "date"}, ['"2024-02-03"'], ['"2024-13-03"', '"x"']),
    ({"anyOf": [{"$ref": "#/$defs/a/$defs/b~1"}], "$defs": {"a": {"$defs": {"b/": {"const": 1}}}}}, ["1"], ["2"]),
    (whole(next={"anyOf": [{"$ref": "#"}, {"type": "null"}]}), ['{"next": {"next": null}}'], ['{"next": {}}']),
    (whole(a={"type": "null"}, b={"$ref": "#/properties/a"}), ['{"a": null, "b": null}'], ['{"a": null, "b": 1}']),
    ({"$defs": {"Foo_Bar": whole(next=FOO, v={"$ref": "#/$defs/string"}), "string": {"type": "string", "maxLength": 2}},
      "$ref": "#/$defs/Foo_Bar"},
     ['{"next": {"next": null, "v": "b"}, "v": "a"}'], ['{"next": null, "v": "abc"}', '{"next": 1, "v": "a"}']),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), ALLOWED, ids=lambda value: json.dumps(value)[:60])
def test_a_schemas_grammar_allows_what_it_says(model: Any, schema: Any, good: list[str], bad: list[str]) -> None:
    for text in good:
        json.loads(text)
        assert allows(model, schema, text), text
    for text in bad:
        assert not allows(model, schema, text), text


DEEP = json.dumps({"type": "null"})
for _ in range(100):
    DEEP = '{"items": ' + DEEP + "}"
REFUSED = [
    (json.dumps({"type": "integer", "minimum": 0}), "'minimum' is not supported"),
    (json.dumps({"type": "array", "uniqueItems": True}), "'uniqueItems' is not supported"),
    (json.dumps(whole(a={"not": {}})), "'not' is not supported"),
    (json.dumps({"anyOf": [True], "properties": {}}), "'properties' beside 'anyOf'"),
    (json.dumps({"type": "array", "minItems": 10**9}), "'minItems' must be"),
    (json.dumps({"type": "string", "maxLength": -1}), "'maxLength' must be"),
    (json.dumps({"type": "string", "minLength": 3, "maxLength": 2}), "greater"),
    (json.dumps({"type": "string", "pattern": "^]$"}), "at #/pattern: "),  # the converter does not come back
    (json.dumps({"type": "string", "pattern": "^a{1}}$"}), "at #/pattern: "),
    (json.dumps({"type": "string", "pattern": "^a{9999}$"}), "the most"),
    (json.dumps({"type": "string", "pattern": "^.*$"}), "at #/pattern: "),  # a quotation mark would end the text
    (json.dumps({"type": "string", "pattern": "^[ -~]$"}), "at #/pattern: "),
    (json.dumps({"type": "string", "pattern": "^[^a]$"}), "at #/pattern: "),
    (json.dumps({"type": "string", "pattern": '^"$'}), "at #/pattern: "),
    (json.dumps({"type": "string", "pattern": r"^\d$"}), "at #/pattern: "),
    (json.dumps({"type": "string", "pattern": "^(?=a)$"}), "at #/pattern: "),
    (json.dumps({"type": "string", "pattern": "^*$"}), "at #/pattern: "),
    (json.dumps({"type": "string", "pattern": "^((($"}), "at #/pattern: "),
    (json.dumps({"type": "string", "pattern": "a"}), "must begin with"),
    (json.dumps({"$ref": "https://example.org/schema"}), "there is no 'https://example.org/schema'"),
    (json.dumps({"$ref": "#/$defs/none"}), "there is no '#/\\$defs/none'"),
    (json.dumps({"enum": []}), "no values"),
    (json.dumps({"type": "integer", "enum": ["a", True]}), "no values of its 'type'"),
    (json.dumps({"type": "string", "const": 1}), "no values of its 'type'"),
    (json.dumps({"type": "string", "anyOf": [{"type": "integer"}]}), "nothing is both"),
    (json.dumps({"allOf": [{"type": "string"}, {"type": "integer"}]}), "of objects only"),
    (json.dumps({"allOf": [{"properties": {"a": {"type": each}}} for each in ("null", "string")]}), "two schemas for"),
    (json.dumps({"type": "string", "format": "email"}), "format 'email' is not supported"),
    (json.dumps({"type": "string", "format": "date", "maxLength": 3}), "beside 'format'"),
    (json.dumps(whole(**{"": {"type": "integer"}})), "cannot have the name"),
    (json.dumps({"enum": 5}), "must be a list"),
    (json.dumps({"type": "text"}), "no type 'text'"),
    (json.dumps({"type": {}}), "no type"),
    (json.dumps({"properties": []}), "must be an object"),
    (json.dumps({"properties": {"a": 1}}), "must be an object"),
    (json.dumps({"type": "object", "required": ["a"]}), "'a' is required"),
    ('{"const": "\\ud800"}', "surrogate"),
    ('{"enum": [NaN]}', "cannot be read"),
    ('{"enum": [1' + "0" * 5000 + "]}", "cannot be read"),
    ("{", "no JSON"),
    ("5", "must be an object"),
    ('"' + "x" * 200_000 + '"', "the most"),
    (DEEP, "nested deeper"),
    ('{"items":' * 10_000, "nested too deep|no JSON"),
]


@pytest.mark.parametrize(("schema", "why"), REFUSED, ids=lambda text: text[:40])
def test_what_a_grammar_cannot_say_is_refused_by_name(schema: str, why: str) -> None:
    with pytest.raises(AppError, match=why) as refused:
        gbnf(ChatOptions(json_schema=schema))
    assert refused.value.exit_code == USAGE and len(refused.value.message) < 300


BAD_GRAMMARS = [
    "",
    "nonsense",
    "other ::= 1",
    'root ::= "a',
    "root ::= root",
    "root ::= missing",
    'root ::= "a"{999999999}',
    'root ::= "a"{99999999999999999999}',
    "root ::= [\\q]",
    "root ::= <[99999999999999999999]>",
    "root ::= " + "(" * 100_000,
    "root ::= " + "(" * 1900 + '"a"',
    'root ::= "' + "a" * 200_000 + '"',
]


@pytest.mark.parametrize("grammar", BAD_GRAMMARS, ids=lambda text: repr(text[:30]))
def test_what_is_no_grammar_is_an_error(model: Any, grammar: str) -> None:
    from specee.native.engine import Sampler
    from specee.native.errors import NativeError

    with pytest.raises((AppError, NativeError), match="grammar"):
        Sampler(model, grammar=gbnf(ChatOptions(grammar=grammar)))


def test_a_grammar_and_a_schema_are_too_much() -> None:
    with pytest.raises(AppError, match="one of them"):
        gbnf(ChatOptions(grammar='root ::= "a"', json_schema="{}"))
    assert gbnf(ChatOptions()) is None

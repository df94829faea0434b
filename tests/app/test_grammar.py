"""Grammars and JSON schemas: what is refused, and that what a grammar allows is what the schema says."""

from __future__ import annotations

import json
import re
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
    # what stands beside values, and beside references
    ({"type": "string", "minLength": 2, "enum": ["a", "bc", "def"], "maxLength": 2}, ['"bc"'], ['"a"', '"def"']),
    ({"enum": [[], [1], 5], "minItems": 1, "minLength": 9, "properties": {}}, ["[1]", "5"], ["[]"]),
    ({"const": "a", "enum": ["b", "a"]}, ['"a"'], ['"b"']),
    ({"type": "integer", "enum": [1, 1.5, True], "pattern": "x"}, ["1"], ["1.5", "true"]),
    ({"format": "date", "enum": ["2024-01-01", "x"]}, ['"2024-01-01"'], ['"x"']),
    ({"enum": [{"$ref": "#"}, {"$ref": "#/x"}, {"$ref": 5}]}, ['{"$ref": "#"}', '{"$ref": 5}'], ["{}"]),
    (whole(a={"const": {"$ref": "http://x"}}), ['{"a": {"$ref": "http://x"}}'], []),
    ({"type": "object", "properties": {}}, ["{}"], ['{"a": 1}']),
    ({"$ref": "#/$defs/n", "type": "null", "title": "x", "$defs": {"n": {"type": "null"}}}, ["null"], ["1"]),
    # oneOf of what excludes each other
    ({"oneOf": [{"type": "integer"}, {"type": "string"}, {"enum": [None, True]}]}, ["1", '"a"', "null"], ["1.5"]),
    ({"oneOf": [{"const": "a"}, {"const": "b", "title": "B"}, {"type": "array"}]}, ['"b"', "[1]"], ["1"]),
    ({"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], "discriminator": {"propertyName": "kind"},
      "$defs": {name: {"type": "object", "properties": {"kind": {"const": name}}, "required": ["kind"]}
                for name in ("cat", "dog")}},
     ['{"kind": "cat"}', '{"kind": "dog"}'], ['{"kind": "cow"}', "{}"]),
    ({"type": "object", "oneOf": [whole(a=True), whole(b=True)]}, ['{"a": 1}', '{"b": 1}'], ['{"a": 1, "b": 1}']),
    # a further key is none of the object's own
    ({"properties": {"ab": {"type": "null"}, "b\"": True, "é]": True, "x" * 70: True},
      "additionalProperties": {"type": "integer"}},
     ['{"ab": null}', '{"ab": null, "a": 1}', '{"abc": 1, "b": 2}', '{"c\\n": 1}', '{"": 1}', '{"é": 1}', '{"éé": 1}',
      '{"x": 1}', '{"' + "x" * 63 + '": 1}', '{"' + "x" * 63 + 'y": 1}', '{"' + "x" * 70 + '": null}'],
     ['{"ab": 1}', '{"é]": null, "é]": 1}', '{"b\\"": 1, "b\\"": 1}', '{"\\u0061b": 1}', '{"' + "x" * 64 + '": 1}']),
    ({**whole(a={"type": "null"}), "additionalProperties": True}, ['{"a": null, "b": [1]}'], ['{"a": null, "a": 1}']),
    ({"properties": {"a": whole(c=True)}, "additionalProperties": {"properties": {"b": {"type": "null"}},
                                                                  "additionalProperties": {"type": "null"}}},
     ['{"b": {"b": null, "a": null}}'], ['{"a": {"b": null}}']),
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
    (json.dumps({"type": [["string"]]}), "no type"),
    (json.dumps({"properties": []}), "must be an object"),
    (json.dumps({"properties": {"a": 1}}), "must be an object"),
    (json.dumps({"type": "object", "required": ["a"]}), "'a' is required"),
    ('{"const": "\\ud800"}', "surrogate"),
    ('{"enum": [NaN]}', "cannot be read"),
    ('{"enum": [1' + "0" * 5000 + "]}", "cannot be read"),
    ("{", "no JSON"),
    # what stands beside values and references
    *(
        (json.dumps({name: value, "$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}), f"'{name}' beside '.ref'")
        for name, value in {"minLength": 2, "pattern": "^a$", "enum": ["a"], "properties": {}, "type": "null"}.items()
    ),
    (json.dumps({"enum": ["a"], "pattern": "^b$"}), "'pattern' beside 'enum'"),
    (json.dumps({"const": {"a": 1}, "required": ["b"]}), "'required' beside 'const'"),
    (json.dumps({"const": [1], "items": {"type": "null"}}), "'items' beside 'const'"),
    (json.dumps({"enum": [1], "anyOf": [{"type": "null"}]}), "'anyOf' beside 'enum'"),
    (json.dumps({"enum": ["a"], "minLength": 2}), "no values that all else"),
    (json.dumps({"const": 1, "enum": [2, True, "1"]}), "no values of its 'enum'"),
    (json.dumps({"type": "string", "allOf": [{"minLength": 1}, {"maxLength": 2}]}), "of objects only"),
    (json.dumps({"allOf": [{"properties": {"a": True}}, {}], "additionalProperties": False}), "'additionalProperties'"),
    (json.dumps({"allOf": [{"required": 5}, {}]}), "'required' must be a list"),
    (json.dumps({"type": "string", "format": []}), "the format"),
    # oneOf of what may hold of one value
    *(
        (json.dumps({"oneOf": branches, "$defs": {"s": {"type": "string"}}}), "'oneOf' must have schemas that exclude")
        for branches in (
            [{"type": "integer"}, {"type": "number"}],
            [{"type": "string"}, {"enum": [1, "a"]}],
            [{"const": 1}, {"enum": [2, 1.0]}],
            [{"type": "string"}, {"$ref": "#/$defs/s"}],
            [{"type": "string", "maxLength": 2}, {"type": "string", "maxLength": 3}],
            [whole(a=True), {"properties": {"a": {"type": "integer"}}, "type": "object"}],
            [{"properties": {"a": True}, "type": "object"}, {"properties": {"b": True}, "type": "object"}],
            [{"type": "object"}, {"type": "object", "properties": {"a": True}, "required": ["a"]}],
            [{"type": "null"}, True],
            [{"type": "boolean"}, {"description": "anything"}],
        )
    ),
    (json.dumps({"oneOf": [{"enum": [*range(i, i + 90)]} for i in range(0, 10_000, 100)]}), "too many schemas"),
    # where it stands
    (json.dumps(whole(a={"$ref": "http://x/y"})), "at #/properties/a: there is no 'http://x/y'"),
    (json.dumps(whole(a={"items": {"anyOf": [True, {"not": {}}]}})), "at #/properties/a/items/anyOf/1: 'not'"),
    (json.dumps({"prefixItems": [True, {"pattern": "a"}]}), "at #/prefixItems/1/pattern: it must begin"),
    (json.dumps({"additionalProperties": {"minLength": -1}}), "at #/additionalProperties: 'minLength'"),
    (json.dumps({"allOf": [{"type": "text"}]}), "at #/allOf/0: there is no type"),
    (json.dumps({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "text"}}}), r"at #/\$defs/a~1b: there is no type"),
    (
        json.dumps(whole(a=whole(b={"minItems": 3, "maxItems": 2}))),
        "at #/properties/a/properties/b: 'minItems' is greater",
    ),
    # references in a circle
    (json.dumps({"$ref": "#"}), "nothing but a reference to itself"),
    (json.dumps({"anyOf": [{"$ref": "#"}, {"type": "null"}]}), "nothing but a reference to itself"),
    (json.dumps({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}), "to itself"),
    (
        json.dumps({"$ref": "#/definitions/a", "definitions": {"a": {"oneOf": [{"$ref": "#/definitions/a"}]}}}),
        "to itself",
    ),
    (json.dumps({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}), "to itself"),
    (json.dumps(whole(a={"$ref": "#"})), "no value that ends"),
    (
        json.dumps(
            {
                "$defs": {"a": whole(b={"$ref": "#/$defs/b"}), "b": whole(a={"$ref": "#/$defs/a"})},
                "properties": {"x": {"$ref": "#/$defs/a"}},
            }
        ),
        "no value that ends",
    ),
    (json.dumps({"type": "array", "items": {"$ref": "#"}, "minItems": 1}), "no value that ends"),
    # patterns without end, or that mean something else there
    *(
        (json.dumps({"type": "string", "pattern": pattern}), "at #/pattern: .* repeats what may be empty")
        for pattern in (
            "^(a|)*$",
            "^(a*)*$",
            "^(a?)+$",
            "^((a|b*)c*)+$",
            "^(|a){2}$",
            "^(a{0})*$",
            "^(()){3,}$",
            "^x((a?b?))*$",
        )
    ),
    *(
        (
            json.dumps({"type": "string", "pattern": pattern}),
            "at #/pattern: .*not supported|at #/pattern: it is no regular",
        )
        for pattern in (
            "^a+?$",
            "^a*+$",
            "^a{2}{3}$",
            "^a??$",
            "^(?:a)$",
            "^(?P<n>a)$",
            r"^(a)\1$",
            r"^\w$",
            r"^a\b$",
            "^a$|^b$",
        )
    ),
    # what is too much
    (json.dumps({"type": "string", "pattern": "^" + "a?" * 40 + "$"}), "at #/pattern: it may go on in 33 ways"),
    (json.dumps({"type": "string", "pattern": "^(" + "|".join("a" * 40) + ")+$"}), "at #/pattern: it may go on in"),
    (json.dumps({"type": "string", "pattern": "^a{3,2}$"}), "at #/pattern: it is no regular expression"),
    (json.dumps({"properties": {f"p{i}": {"type": "string", "maxLength": 2000} for i in range(40)}}), "ask for 80000"),
    (
        json.dumps(
            {
                "$ref": "#/$defs/d0",
                "$defs": {
                    **{f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)},
                    "d40": {"type": "null"},
                },
            }
        ),
        "alternatives",
    ),
    (
        json.dumps(
            {
                "$ref": "#/$defs/d0",
                "$defs": {**{f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(1500)}, "d1500": {"type": "null"}},
            }
        ),
        "too deep",
    ),
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
    assert refused.value.title == "bad JSON schema" and "GBNF" not in refused.value.message


PATTERNS = [
    ("^(https?|ftp)://[a-z]+(-[a-z0-9]+)*(/[a-z]*)?$", ["https://a-b/", "ftp://abc"], ["https://", "a"]),
    ("^(a|bc?d{0,2}){1,3}$", ["abca", "bdd"], ["", "aaaa", "bddd"]),
    ("^((a+b)+c?)+$", ["abab", "aabcab"], ["a", "c"]),
    ("^(a|)(b?)$", ["", "ab", "b"], ["ba"]),
    ("^a{0}b$", ["b"], ["ab"]),
    ("^(a?){1}(b|){0,1}$", ["", "ab"], ["bb"]),
]


@pytest.mark.parametrize(("pattern", "good", "bad"), PATTERNS)
def test_patterns_that_are_kept(model: Any, pattern: str, good: list[str], bad: list[str]) -> None:
    for text in (*good, *bad):
        assert allows(model, {"type": "string", "pattern": pattern}, f'"{text}"') == (text in good), text
        assert (re.fullmatch(pattern, text) is not None) == (text in good)


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

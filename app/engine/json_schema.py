"""JSON schemas as grammars in GBNF.

The converter is llama-cpp-python's, which leaves out what it does not know and can be kept busy for hours. So a schema
is checked and simplified before (schema_forms.py), and its size is bounded.
"""

from __future__ import annotations

import json
from typing import Literal

from specee.app.engine.other_keys import other_key
from specee.app.engine.schema_error import SchemaError
from specee.app.engine.schema_forms import Schema, simplified

MAX_CHARACTERS = 1 << 17

CHARACTER = r'[^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})'
"""Of a string. The converter's own rule has line ends as they are, too, which JSON has not."""


def check(text: str) -> None:
    """Raises SchemaError for what is no schema, or not supported; it takes little time."""
    _read(text)


def to_gbnf(text: str) -> str:
    """The grammar of a schema, which is given in JSON. Raises SchemaError as `check` does."""
    schema = _read(text)
    try:
        return _to_gbnf(schema)
    except Exception as error:  # what the converter cannot read and `simplified` lets through
        raise SchemaError("no rule for the model's answers can be made of it; leave out parts of it") from error


def _read(text: str) -> Schema:
    if len(text) > MAX_CHARACTERS:
        raise SchemaError(f"it has {len(text)} characters, {MAX_CHARACTERS} are the most")
    try:
        text.encode()
        return simplified(json.loads(text, parse_constant=_no_number))
    except json.JSONDecodeError as error:
        raise SchemaError(f"it is no JSON ({error})") from error
    except RecursionError as error:
        raise SchemaError("it is nested too deep") from error
    except ValueError as error:  # a number of thousands of digits
        raise SchemaError(f"it cannot be read ({error})") from error


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


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

        def _build_object_rule(
            self,
            properties: list[tuple[str, Schema]],
            required: set[str],
            name: str,
            more: Schema | Literal[False] | None,
        ) -> str:
            """What is required first, then the rest, then further keys, which are none of the object's own. The
            converter's own rule has no comma before these."""
            place = f"{name}-" if name else ""
            pairs = {}
            for key, each in properties:
                value = self.visit(each, f"{place}{key}")
                rule = rf'{self._format_literal(json.dumps(key))} space ":" space {value}'
                pairs[key] = self._add_rule(f"{place}{key}-kv", rule)
            begins, rest = [], ""
            if more:
                value = self.visit(more, f"{place}additional-value")
                self._add_primitive("char", PRIMITIVE_RULES["char"])
                pair = self._add_rule(f"{place}additional-kv", f'{other_key(pairs)} ":" space {value}')
                rest = self._add_rule(f"{place}additional-rest", f'("," space {pair})*')
                begins = [f"{pair} {rest}"]
            for pair in reversed([pair for key, pair in pairs.items() if key not in required]):
                begins.insert(0, f"{pair} {rest}")
                rest = self._add_rule(f"{pair}-rest", f'("," space {pair})? {rest}')
            needed = ' "," space '.join(pair for key, pair in pairs.items() if key in required)
            inner = f"{needed} {rest}" if needed else f"({' | '.join(begins)})?" if begins else ""
            return f'"{{" space {inner} "}}" space'

        def _add_rule(self, name: str, rule: str) -> str:
            return str(super()._add_rule(name, CHARACTER if name == "char" else rule))

        def _format_literal(self, literal: str) -> str:
            """Of a JSON text. The converter's own leaves backslashes as they are."""
            text = json.dumps(json.loads(literal), ensure_ascii=False, allow_nan=False)
            return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    converter = Converter(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)
    converter._refs = {f"#/$defs/{name}": form for name, form in schema["$defs"].items()}
    converter.visit(schema, "")
    return str(converter.format_grammar())

"""What an answer must keep to, as a grammar in GBNF: given as one, or made of a JSON schema."""

from __future__ import annotations

import re

from specee.app.engine.json_schema import to_gbnf
from specee.app.engine.schema_error import SchemaError
from specee.app.errors import USAGE, AppError
from specee.app.options import ChatOptions

BAD_GRAMMAR = "bad grammar"
MAX_CHARACTERS = 1 << 17
MAX_GROUPS = 2000  # in one another


def gbnf(options: ChatOptions) -> str | None:
    """The grammar of an answer, None without one. Raises AppError for what is no grammar."""
    if options.json_schema is None:
        if options.grammar is not None:
            _check(options.grammar)
        return options.grammar
    if options.grammar is not None:
        raise AppError("bad request", "an answer keeps to a grammar or to a JSON schema; give one of them", USAGE)
    grammar = to_gbnf(options.json_schema)
    try:
        _check(grammar)
    except AppError as error:
        raise SchemaError(f"its grammar cannot be used: {error.message}") from error
    return grammar


def _check(grammar: str) -> None:
    """What llama.cpp's parser would not survive, or take for no grammar."""
    if not grammar.strip():
        raise AppError(BAD_GRAMMAR, "it is empty", USAGE)
    if len(grammar) > MAX_CHARACTERS:
        raise AppError(BAD_GRAMMAR, f"it has {len(grammar)} characters, {MAX_CHARACTERS} are the most", USAGE)
    try:
        grammar.encode()
    except UnicodeEncodeError as error:
        raise AppError(BAD_GRAMMAR, "it has half of a surrogate pair, which is no text", USAGE) from error
    depth = deepest = 0
    for mark in re.sub(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|#.*', "", grammar):
        depth += (mark == "(") - (mark == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_GROUPS:
        raise AppError(BAD_GRAMMAR, f"it has {deepest} groups in one another, {MAX_GROUPS} are the most", USAGE)

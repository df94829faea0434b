"""A rule in GBNF for the keys of an object that are none of some names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MAX_CHARACTERS = 64
"""Of a name: keys that begin as longer ones do are left out, too."""
ESCAPED = {*(chr(code) for code in range(0x20)), '"', "\\"}
"""What JSON has not in texts as it is. Where a key could still become one of the names, it has no escapes either."""


def other_key(names: Iterable[str]) -> str:
    """The rule; it refers to `char`, a character of a text in JSON."""
    tree: dict[str, Any] = {}
    for name in names:
        at = tree
        for character in name[:MAX_CHARACTERS]:
            if character in ESCAPED:
                break
            at = at.setdefault(character, {})
        else:
            at["name" if len(name) <= MAX_CHARACTERS else "long name"] = {}
    return f'"\\"" ({_rest(tree)}) "\\"" space'


def _rest(tree: dict[str, Any]) -> str:
    characters = [key for key in tree if len(key) == 1]
    ways = [f"[{_escaped(c)}] ({_rest(tree[c])})" for c in characters if "long name" not in tree[c]]
    ways.append(f'[^"\\\\\\x00-\\x1F{"".join(map(_escaped, characters))}] char*')
    if "name" in tree:
        return " | ".join(ways)
    return f"({' | '.join(ways)})?"


def _escaped(character: str) -> str:
    return f"\\U{ord(character):08X}"

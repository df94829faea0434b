"""Keys as they are shown: their names, and a line of them at the bottom of a screen, made from its bindings."""

from __future__ import annotations

from collections.abc import Iterable

from textual.binding import Binding, BindingType
from textual.content import Content

_NAMES = {"escape": "Esc", "pageup": "PgUp", "pagedown": "PgDn", "delete": "Del", "underscore": "_", "slash": "/"}
_NAMES |= {"question_mark": "?", "space": "Space", "left_square_bracket": "[", "right_square_bracket": "]"}


def key_name(key: str) -> str:
    """A key as keyboards name it: Ctrl+F."""
    parts = key.split("+")
    return "+".join(
        _NAMES.get(part, part.upper() if len(part) == 1 and parts[1:] else part.capitalize()) for part in parts
    )


def key_names(keys: str) -> str:
    """All keys of a binding."""
    return ", ".join(dict.fromkeys(key_name(key) for key in keys.split(",")))


def key_line(bindings: Iterable[BindingType], prefix: str = "screen") -> Content:
    """Those that are to be shown, each by its first key and with what it does; a click on one does it."""
    parts = []
    for binding in bindings:
        if isinstance(binding, Binding) and binding.show and binding.description:
            key = key_name(binding.key.split(",")[0])
            parts.append(f"[@click={prefix}.{binding.action}][b]{key}[/b] {binding.description}[/]")
    return Content("  ").join([Content.from_markup(part) for part in parts])

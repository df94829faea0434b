"""The type of arguments that are text for people or models; a path stays the bytes that it is."""

from __future__ import annotations

import sys
from typing import Any

import click


class TextType(click.ParamType[str]):
    """Text in whatever encoding the terminal or the script has."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from specee.app.text_input import argument

        name = "the argument" if param is None or param.opts == [param.name] else max(param.opts, key=len)
        decoded = argument(str(value), name)
        if decoded.doubt is not None:
            print(f"specee-chat: {decoded.doubt}", file=sys.stderr)
        return decoded.text


TEXT = TextType()

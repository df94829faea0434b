"""An option of the command line: where it stands in --help, and what holds when it is not given."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from specee.app import settings

Function = TypeVar("Function", bound=Callable[..., Any])

OWN = "Options"
"""The heading for what only one command has."""


class Setting(click.ParamType[Any]):
    """A value of one of the types in settings.py."""

    name = "setting"

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if self.kind is settings.Text and isinstance(value, str):
            value = _in_utf8(value, "the argument" if param is None else param.get_error_hint(ctx))
        try:
            return settings.read(self.kind, value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(choice) for choice in settings.choices(self.kind) if choice.startswith(incomplete)]


def _in_utf8(text: str, name: str) -> str:
    """A text as it was typed, in whatever encoding the terminal or the script has."""
    from specee.app.text_input import argument

    decoded = argument(text, name)
    if decoded.doubt is not None:
        print(f"specee-chat: {decoded.doubt}", file=sys.stderr)
    return decoded.text


class Option(click.Option):
    """An option under a heading of --help.

    `otherwise` is what the help names as its default. It is text only: an option that nobody gave is None, so that a
    chat that goes on can keep its own settings.
    """

    def __init__(self, names: Sequence[str], heading: str = OWN, otherwise: object = None, **attributes: Any) -> None:
        super().__init__(names, **attributes)
        self.heading = heading
        self.otherwise = "" if otherwise is None else str(otherwise)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Names and explanation; a range of numbers is in the explanation, where it matters."""
        if self.hidden:
            return None
        names = ", ".join(sorted(self.opts, key=len))
        default = f"  [default: {self.otherwise}]" if self.otherwise else ""
        return (names if self.is_flag else f"{names} {self.metavar}"), f"{self.help}{default}"


def option(
    *names: str, heading: str = OWN, otherwise: object = None, **attributes: Any
) -> Callable[[Function], Function]:
    """Gives a command an option that no other has."""
    return click.option(*names, cls=Option, heading=heading, otherwise=otherwise, **attributes)


def hidden(options: Iterable[click.Parameter]) -> list[click.Parameter]:
    """Copies that work and are not listed."""
    copies = [copy.copy(option) for option in options]
    for made in copies:
        made.hidden = True  # type: ignore[attr-defined]
    return copies

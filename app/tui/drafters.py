"""Where drafted tokens come from, in the user's words, and how they look: a colour, or a letter without colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import cycle


@dataclass(frozen=True)
class Source:
    """Where a drafter finds its tokens. `letter` stands for its colour where there are none."""

    name: str
    letter: str


SOURCES = {
    "suffix": Source("this chat", "c"),
    "retrieval": Source("common phrases", "p"),
    "history": Source("earlier chats", "e"),
    "model": Source("a small model", "s"),
    "eagle3": Source("a draft head", "h"),
}
"""By the drafter's name in events."""
OTHER = "other"
COLOURS = ("text-success", "text-warning", "text-secondary", "text-accent", "text-error", "text-primary")
"""Theme variables that can be read on the background; some themes have a colour twice."""


def source(drafter: str) -> Source:
    """Where this drafter finds its tokens."""
    return SOURCES.get(drafter, Source(drafter, "d"))


def variable(drafter: str) -> str:
    """The theme variable with its colour."""
    return f"drafter-{drafter if drafter in SOURCES else OTHER}"


def colour_variables(theme: Mapping[str, str]) -> dict[str, str]:
    """The colours of all drafters as variables, each a different one of the theme's."""
    distinct = cycle(dict.fromkeys(theme[name] for name in COLOURS))
    return {f"drafter-{name}": next(distinct) for name in (*SOURCES, OTHER)}


def in_order(drafters: Iterable[str | None]) -> list[str]:
    """Those that occur, each once, always in the same order."""
    found = {drafter for drafter in drafters if drafter is not None}
    return [name for name in SOURCES if name in found] + sorted(found - SOURCES.keys())


def counts(drafted: Mapping[str, int]) -> str:
    """How many tokens come from where, most first: 19 from common phrases, 5 from this chat."""
    most_first = sorted(drafted, key=lambda name: -drafted[name])
    return ", ".join(f"{drafted[name]} from {source(name).name}" for name in most_first)

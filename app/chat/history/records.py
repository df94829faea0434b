"""What the history hands out: frozen records, apart from how they are stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["user", "assistant"]
State = Literal["complete", "streaming", "interrupted", "stopped"]


@dataclass(frozen=True)
class StoredToken:
    """One token of an answer or of its thought: the layers done when it was chosen, and its characters.

    `drafter`: what drafted it, None when it was not drafted.
    """

    layer: int
    characters: int
    drafter: str | None = None


@dataclass(frozen=True)
class Chat:
    """A chat. `leaf` is the last turn of the branch in use; `options` is what it was last asked with, None if it
    cannot be read."""

    id: int
    title: str
    created: float  # seconds since 1970
    updated: float
    leaf: int | None
    system: str | None
    options: dict[str, Any] | None
    turns: int = 0


@dataclass(frozen=True)
class Turn:
    """A question or an answer, under the turn that it follows.

    `content` is what was typed or answered, `attached` the text of the files that go with a question.
    `cut` not None: the model is sent nothing before this turn any more; if it has a text, this summary instead.
    `stats` are the figures of an answer's last run, `tokens` are all its tokens. `place` of `siblings` counts the turns
    under the same parent, from 1. `thought` is what the model thought before an answer, for `thought_seconds`; no later
    prompt has it.
    """

    id: int
    parent: int | None
    role: Role
    content: str
    state: State
    created: float
    cut: str | None = None
    stats: dict[str, Any] | None = None
    tokens: tuple[StoredToken, ...] = field(default=(), repr=False)
    place: int = 1
    siblings: int = 1
    attached: str = ""
    thought: str = ""
    thought_seconds: float = 0.0

    @property
    def sent(self) -> str:
        """What the model is sent of it."""
        return self.content + self.attached


@dataclass(frozen=True)
class Hit:
    """A turn that a search found, with the text around the match."""

    chat: int
    title: str
    turn: int
    role: Role
    excerpt: str


def pack(tokens: Iterable[StoredToken]) -> bytes:
    """Two bytes a token: layer, characters; more than 255 of either are kept as 255."""
    return bytes(min(255, number) for token in tokens for number in (token.layer, token.characters))


def drafted(tokens: Iterable[StoredToken]) -> dict[str, list[int]]:
    """The places of drafted tokens, by drafter. They stand in the figures, where earlier versions leave them alone."""
    places: dict[str, list[int]] = {}
    for place, token in enumerate(tokens):
        if token.drafter is not None:
            places.setdefault(token.drafter, []).append(place)
    return places


def unpack(packed: bytes | None, drafted: dict[str, list[int]]) -> tuple[StoredToken, ...]:
    """The inverse of `pack` and `drafted`."""
    numbers = iter(packed or b"")
    drafters = {place: drafter for drafter, places in drafted.items() for place in places}
    pairs = enumerate(zip(numbers, numbers, strict=False))
    return tuple(StoredToken(layer, characters, drafters.get(at)) for at, (layer, characters) in pairs)

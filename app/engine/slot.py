"""The slots of the engine, and which of them answers a prompt."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from specee.app.engine.backend import Backend, ChatEngine
from specee.app.engine.prompt import Prompt
from specee.app.options import PolicyChoice
from specee.predictors.decoding.policy import Policy

KEPT_SHARE = 0.9
"""A prompt that keeps so much of a slot's cache goes on with its chat. Chats that only begin alike (with the same
system message) have a slot each: the first question of each costs more, the others less."""


@dataclass(eq=False)
class Slot:
    """The cache of one chat, and the policies that answer it."""

    backend: Backend
    """The model, with this slot's engine."""
    previous: Prompt | None = None
    """The last prompt with its answer, which the cache holds."""
    n_read: int = 0
    """Tokens of that prompt; those after them were generated."""
    last_used: int = 0
    """Counts answers."""
    policies: dict[PolicyChoice, Policy] = field(default_factory=dict)
    """They last as long as the model: they remember the exits and the drafts of the last tokens."""

    @property
    def engine(self) -> ChatEngine:
        return self.backend.engine

    def goes_on(self, tokens: Sequence[int]) -> bool:
        """Whether a prompt goes on with this slot's chat."""
        return 0 < KEPT_SHARE * self.engine.length <= common_prefix(self.engine.tokens, tokens)

    def clear(self) -> None:
        """Forgets the chat, whatever state a failure left."""
        self.previous = None
        self.engine.roll_back(0)


def open_slots(backend: Backend) -> tuple[Slot, ...]:
    """A slot for each of the engine's."""
    slots = []
    for engine in backend.engine.slots:
        of_slot = copy.copy(backend)
        of_slot.engine = engine
        slots.append(Slot(of_slot))
    return tuple(slots)


def choose_slot(free: Sequence[Slot], tokens: Sequence[int]) -> Slot:
    """The slot with the most tokens of a chat that the prompt goes on with, else the least recently used one."""
    going_on = [slot for slot in free if slot.goes_on(tokens)]
    return max(going_on, key=lambda slot: slot.engine.length) if going_on else min(free, key=lambda s: s.last_used)


def common_prefix(some: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens both begin with."""
    n = 0
    for one, other in zip(some, others, strict=False):
        if one != other:
            break
        n += 1
    return n

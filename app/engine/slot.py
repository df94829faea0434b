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
MIN_SHARED = 32
"""Tokens; a shorter common beginning, such as the head of a chat template, is no reason to choose a slot."""


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
        """Whether a prompt goes on with this slot's chat, or asks for another answer to its last question."""
        shared = common_prefix(self.engine.tokens, tokens)
        return shared > 0 and shared >= min(KEPT_SHARE * self.engine.length, self.n_read)

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
    """The slot whose chat the prompt goes on with, else an empty one, else one whose cache is given up.

    That is the one with the longest common prefix; of those with about as long a one, the least recently used.
    """
    shared = {slot: common_prefix(slot.engine.tokens, tokens) for slot in free}
    going_on = [slot for slot in free if slot.goes_on(tokens)]
    if going_on:
        return max(going_on, key=lambda slot: shared[slot])
    empty = [slot for slot in free if not slot.engine.length]
    longest = max(shared.values())
    alike = [slot for slot in free if longest < MIN_SHARED or shared[slot] >= KEPT_SHARE * longest]
    return min(empty or alike, key=lambda slot: slot.last_used)


def common_prefix(some: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens both begin with."""
    n = 0
    for one, other in zip(some, others, strict=False):
        if one != other:
            break
        n += 1
    return n

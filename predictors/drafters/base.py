"""What every drafter offers: it begins an answer, proposes tokens, and learns which were accepted or rolled back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be drafted: `width` alternatives for a position, `depth` positions ahead.

    `room`: tokens that the answer still takes, drafted or not.
    """

    width: int
    depth: int = 1
    room: int = 0


@dataclass(frozen=True, slots=True)
class DraftTree:
    """Drafted tokens, most likely first among siblings.

    `parents[i]` is the index of token i's parent, which stands before it, -1 for the answer's last token. `probs[i]`
    estimates that token i is accepted once its parent is; empty where a drafter does not estimate.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    probs: tuple[float, ...] = ()

    @classmethod
    def siblings(cls, tokens: Sequence[int]) -> DraftTree:
        """Alternatives for the next position."""
        return cls(tuple(tokens), (-1,) * len(tokens))

    def children(self, parent: int) -> list[int]:
        """Indices of the tokens after token `parent`, -1 for the answer's last token."""
        return [i for i, p in enumerate(self.parents) if p == parent]


class DraftState(Protocol):
    """What a drafter sees of an answer under way; `decoding.state.Decoding` is one."""

    @property
    def row(self) -> int:
        """The row that the last token follows, -1 when it is not known."""
        ...

    @property
    def tokens(self) -> Sequence[int]:
        """The answer so far; its last token has no row yet, or one at depth 0."""
        ...


@dataclass(slots=True)
class DraftStats:
    """How often a drafter was asked, how many tokens it gave, and how often the next token was among them."""

    asked: int = 0
    given: int = 0
    hits: int = 0


class Drafter(Protocol):
    """Proposes tokens that may follow the accepted ones."""

    name: str
    stats: DraftStats

    def begin(self, tokens: Sequence[int]) -> None:
        """Start an answer after these tokens (the whole conversation so far)."""
        ...

    def propose(self, state: DraftState, budget: Budget) -> DraftTree:
        """At most what the budget allows."""
        ...

    def accept(self, token: int) -> None:
        """The next token was chosen."""
        ...

    def roll_back(self, n: int) -> None:
        """The last n accepted tokens were rejected."""
        ...


class HitCounter:
    """Keeps the statistics of a drafter that proposes alternatives for the next position."""

    def __init__(self) -> None:
        self.stats = DraftStats()
        self._last: frozenset[int] = frozenset()

    def count_proposed(self, tokens: Sequence[int]) -> DraftTree:
        """Counts what is proposed, and gives it as a tree."""
        self._last = frozenset(tokens)
        self.stats.asked += 1
        self.stats.given += len(tokens)
        return DraftTree.siblings(tokens)

    def count_accepted(self, token: int) -> None:
        """The next token was chosen: a hit if it was among those proposed last."""
        self.stats.hits += token in self._last
        self._last = frozenset()

    def forget_proposed(self) -> None:
        """What was proposed last is not asked for any more."""
        self._last = frozenset()

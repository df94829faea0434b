"""The short life that all draft sources share: begin, draft, accept (or withdraw), stats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from specee.predictors.types import Engine


@dataclass(slots=True)
class DraftStats:
    """How often a source was asked, how many candidates it gave, and how often the next word was among them."""

    asked: int = 0
    given: int = 0
    hits: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of the questions that had the next word among the candidates."""
        return self.hits / self.asked if self.asked else 0.0


class DraftSource(Protocol):
    """Guesses the token that follows the accepted ones."""

    name: str
    stats: DraftStats

    def begin(self, history: Sequence[int]) -> None:
        """Start an answer after these tokens (the whole conversation so far)."""
        ...

    def draft(self, engine: Engine, pos: int, token: int, k: int) -> list[int]:
        """Up to k distinct guesses for the token after `token`, which stands at `pos`; best first."""
        ...

    def accept(self, token: int) -> None:
        """The next token was chosen."""
        ...

    def withdraw(self, n: int) -> None:
        """The last n accepted tokens were rolled back."""
        ...

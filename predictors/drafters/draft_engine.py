"""What computes a draft model's guesses: it reads tokens, forgets some, and says what it expects next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from specee.predictors.types import Engine, Sampler


class DraftEngine(Protocol):
    """A model that follows a text."""

    n_ctx: int
    n_vocab: int
    """It can read the tokens below; the large model may have some more."""
    n_at_once: int
    """So many tokens take hardly longer than one; many more are read in long batches."""

    @property
    def tokens(self) -> list[int]:
        """What it has read."""
        ...

    def settle(self, n: int) -> bool:
        """The text has n verified tokens: forget what was only assumed of them. False where it cannot follow them."""
        ...

    def read(self, tokens: Sequence[int]) -> None:
        """Tokens after those that it has read."""
        ...

    def roll_back(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        ...

    def best(self) -> tuple[int, float]:
        """The token that it expects after the last one, and how probable it is."""
        ...


class PromptEngine(Engine, Protocol):
    """An engine that reads prompts."""

    tokens: list[int]

    def prefill(self, tokens: Sequence[int]) -> int:
        """Make exactly these tokens the committed ones; returns how many were there already."""
        ...


class RowDraftEngine:
    """A whole model on an engine of its own. `sampler`: plain probabilities; a few of the best tokens are enough."""

    def __init__(self, engine: PromptEngine, sampler: Sampler) -> None:
        self._engine, self._sampler = engine, sampler
        self._last = 0  # row of logits of the last token
        self.n_ctx, self.n_vocab, self.n_at_once = engine.n_ctx, engine.n_vocab, engine.max_equal_rows

    @property
    def tokens(self) -> list[int]:
        return self._engine.tokens

    def settle(self, n: int) -> bool:
        return True

    def read(self, tokens: Sequence[int]) -> None:
        engine, n = self._engine, len(tokens)
        self._last = 0
        if n == 1:
            engine.forward(tokens[0])
        elif n <= self.n_at_once:
            rows = [engine.append(tokens[0])]
            for token in tokens[1:]:
                rows.append(engine.append(token, rows[-1]))
            engine.advance(rows, engine.n_layer, logits=True)
            engine.commit(rows[-1])
            self._last = n - 1
        else:
            engine.prefill([*engine.tokens, *tokens])

    def roll_back(self, length: int) -> None:
        if self._engine.length > length or self._engine.n_in_flight:
            self._engine.roll_back(length)

    def best(self) -> tuple[int, float]:
        tokens, probs = self._engine.distribution(self._last, self._sampler)
        return int(tokens[0]), float(probs[0])

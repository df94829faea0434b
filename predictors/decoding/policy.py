"""What every policy offers, and the step that several of them make."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

from specee.predictors.decoding.state import Decoding
from specee.predictors.decoding.work import Advance, Append, Commit, Work
from specee.predictors.types import Logits, TokenEvent

WorkAndEvents = Generator[Work | TokenEvent, Any, None]
"""Work, whose result is sent back, and events, which are passed on."""


class Policy(Protocol):
    """A way to decode. It does no I/O: it yields work and events."""

    name: str

    def decode(self, state: Decoding) -> WorkAndEvents:
        """One answer, up to `state.is_last`. A committed row stands for every token but the last when it ends."""
        ...

    def reset(self) -> None:
        """A new conversation begins."""
        ...


def forward(state: Decoding) -> Generator[Work, Any, Logits]:
    """The last token through all layers, as plain decoding does it: logits row 0 is its own."""
    row = yield Append(state.tokens[-1], state.row)
    state.logits = yield Advance((row,), state.n_layer, logits=True)
    yield Commit(row)
    state.row = row
    state.stats.rows += 1
    state.stats.steps += 1
    return state.logits

"""What every policy offers, and the step that several of them make."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

from specee.predictors.decoding.state import Decoding
from specee.predictors.decoding.work import Forward, Work
from specee.predictors.types import TokenEvent

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


def forward(state: Decoding) -> Generator[Work, Any, None]:
    """The last token through all layers, as dense decoding does it: row 0 of the state's logits is then its own."""
    state.row = yield Forward(state.tokens[-1])
    state.stats.rows += 1
    state.stats.steps += 1

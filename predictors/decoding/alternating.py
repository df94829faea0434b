"""Policies that alternate within one answer: compared on the user's own text, so that nobody waits for a measurement.

All must generate what dense generates (dense and exact): the answer does not depend on which of them decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from specee.predictors.decoding.policy import Policy, WorkAndEvents, forward
from specee.predictors.decoding.state import Decoding


class Comparison(Protocol):
    """Says which policy decodes next, and records how fast it was."""

    def next_policy(self) -> tuple[int, int | None]:
        """Which one, and for how many tokens; None: to the end of the answer."""
        ...

    def record(self, policy: int, tokens: int, seconds: float) -> None:
        """A policy has decoded its tokens. An answer may end before."""
        ...


class Alternating:
    """One answer by several policies."""

    name = "exact"  # what a user reads, on the screen and in JSON: some of the answer comes from policy exact

    def __init__(self, policies: Sequence[Policy], comparison: Comparison) -> None:
        self._policies, self._comparison = policies, comparison

    def reset(self) -> None:
        for policy in self._policies:
            policy.reset()

    def decode(self, state: Decoding) -> WorkAndEvents:
        max_tokens = state.max_tokens
        while True:
            policy, length = self._comparison.next_policy()
            begun, began = len(state.tokens), state.clock()
            state.max_tokens = max_tokens if length is None else min(max_tokens, begun + length)
            yield from self._policies[policy].decode(state)
            self._comparison.record(policy, len(state.tokens) - begun, state.clock() - began)
            state.max_tokens = max_tokens
            if state.is_last:
                return
            yield from forward(state)  # the next policy begins after the last token's row, as after a prompt

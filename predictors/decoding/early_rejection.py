"""Drafted rows that leave the batch at an exit layer, because their token will surely not be chosen.

At the exit layer the lens has a best token for each row. Where that is not the drafted one, and the exit predictor is
so sure of it that the row might exit with it, the draft and all after it go no further. A dropped draft is a draft that
was not made: whatever the lens says, the text stays that of the dense model.

It costs an LM head for every row that is looked at. That is less than the remaining layers where these are many, or
slow; with the few cheap rows of a small model on a CPU it is not.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from specee.predictors.decoding.state import Decoding
from specee.predictors.decoding.work import Advance, LensHead, ProbeRow, Work


class EarlyRejection:
    """At one exit layer. `k`, `threshold`: of the exit predictor there."""

    def __init__(self, layer: int, k: int, threshold: float) -> None:
        self._layer, self._k, self._threshold = layer, k, threshold

    def keep(self, state: Decoding, rows: Sequence[int], drafts: Sequence[int]) -> Generator[Work, Any, int]:
        """Takes the rows to the exit layer; gives how many of them go on. Row i + 1 is that of draft i."""
        yield Advance(tuple(rows), self._layer)
        n = 1
        for row, draft in zip(rows, drafts, strict=False):
            if not state.sampler.allows(draft):
                break
            best: int = (yield LensHead(row)).greedy(0, state.sampler)
            if best != draft:
                candidates = tuple(dict.fromkeys([best, draft, *drafts, *reversed(state.tokens)]))[: self._k]
                if len(candidates) == self._k and (yield ProbeRow(row, candidates)) > self._threshold:
                    break
            state.sampler.accept(draft)
            n += 1
        state.rewind_sampler(len(state.tokens))
        state.stats.rejected_early += len(rows) - n
        return n

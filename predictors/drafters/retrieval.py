"""Drafts from a datastore of texts that the model, or a like one, has written: REST (He et al., NAACL 2024)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from specee.predictors.drafters.datastore import Lookup
from specee.predictors.drafters.guess import Guess, HitRates

_SHADES = 8  # of the datastore's probability
_TRUST = 0.8  # share of it that is expected before anything was seen: the texts are others


class RetrievalGuesser:
    """What most likely follows the last tokens in the datastore."""

    def __init__(self, datastore: Lookup, name: str = "retrieval") -> None:
        self.name = name
        self._datastore = datastore
        self._rates = HitRates()

    def begin(self, tokens: Sequence[int]) -> None:
        """The datastore does not depend on the text."""

    def guess(self, context: Sequence[int], row: int | None) -> Guess | None:
        found = self._datastore.guess(context)
        if found is None:
            return None
        token, length, prob = found
        kind = (length, int(prob * _SHADES))
        return Guess(token, self._rates.estimate(kind, _TRUST * prob), kind)

    def accept(self, token: int) -> None:
        """The datastore does not depend on the text."""

    def learn(self, kind: Hashable, hit: bool) -> None:
        self._rates.learn(kind, hit)

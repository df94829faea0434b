"""Policy chain with a draft head as its only drafter: what llama-server does with `--spec-type draft-eagle3`."""

from __future__ import annotations

from specee.app.engine.loading import NativeBackend
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding.chain import Chain
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.drafters.termination import FixedLength


class EqualSteps(CostModel):
    """Steps take so long, whatever their size, that every draft is worth its time."""

    def __init__(self) -> None:
        super().__init__({1: 1e3, 8: 1e3})

    def record(self, n: int, seconds: float) -> None:
        """Nothing changes it."""


def head_alone(backend: NativeBackend, n_drafts: int) -> Chain:
    """`backend` was opened with the head as its drafter, which drafts so many tokens in every step."""
    assert backend.draft_model is not None
    guesser = backend.draft_model.guesser()
    assert guesser is not None, "the head cannot follow this model"
    return Chain(ChainDrafter([], EqualSteps(), guesser, FixedLength(n_drafts)), n_drafts)

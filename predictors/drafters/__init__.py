"""Draft sources: where candidates come from."""

from specee.predictors.drafters.base import DraftSource, DraftStats
from specee.predictors.drafters.combined import Chain, build
from specee.predictors.drafters.linear_head import LinearHead
from specee.predictors.drafters.ngram import NGram

__all__ = ["Chain", "DraftSource", "DraftStats", "LinearHead", "NGram", "build"]

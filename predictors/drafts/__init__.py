"""Draft sources: where candidates come from."""

from specee.predictors.drafts.base import DraftSource, DraftStats
from specee.predictors.drafts.chain import Chain, build
from specee.predictors.drafts.linear import LinearHead
from specee.predictors.drafts.ngram import NGram

__all__ = ["Chain", "DraftSource", "DraftStats", "LinearHead", "NGram", "build"]

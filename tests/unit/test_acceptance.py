"""Acceptance rules: 20,000 samples each against the distribution that dense decoding draws from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from specee.predictors.acceptance import DELTA, EPSILON, RULES, Acceptance, typical_bound
from specee.predictors.types import Distribution

SAMPLES, VOCAB = 20_000, 16
CHI_SQUARE_999 = {1: 10.8, 2: 13.8, 3: 16.3, 4: 18.5, 5: 20.5, 6: 22.5, 7: 24.3, 8: 26.1, 9: 27.9, 10: 29.6, 11: 31.3}
CHI_SQUARE_999 |= {12: 32.9, 13: 34.5, 14: 36.1, 15: 37.7}


class Row:
    """One row of logits, as a distribution."""

    is_greedy = False

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        probs = np.sort(rng.dirichlet(np.full(12, 0.5)))[::-1]
        self.p = Distribution(rng.permutation(VOCAB)[:12].astype(np.int32), probs.astype(np.float32))

    def distribution(self, i: int, sampler: Any) -> Any:
        return self.p.tokens, self.p.probs

    def greedy(self, i: int, sampler: Any) -> int:
        return int(self.p.tokens[0])


def counts(rule: Acceptance, row: Any, draft: int | None) -> np.ndarray:
    rng = np.random.default_rng(7)
    tokens = [rule.next(row, 0, row, rng, draft) for _ in range(SAMPLES)]
    return np.bincount(tokens, minlength=VOCAB)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.is_lossless])
@pytest.mark.parametrize("context", range(5))
def test_lossless_rules_draw_from_the_dense_distribution(name: str, context: int) -> None:
    row = Row(context)
    expected = np.zeros(VOCAB)
    expected[row.p.tokens] = row.p.probs
    expected *= SAMPLES / expected.sum()
    for draft in (None, int(row.p.tokens[0]), int(row.p.tokens[3]), 15):
        seen = counts(RULES[name], row, draft)
        assert seen[expected == 0].sum() == 0
        use = expected >= 5
        value = float(((seen - expected)[use] ** 2 / expected[use]).sum())
        assert value < CHI_SQUARE_999[int(use.sum()) - 1], f"draft {draft}"


def test_exact_match_draws_what_dense_draws() -> None:
    row = Row(0)
    a, b = np.random.default_rng(3), np.random.default_rng(3)
    for draft in (None, 1, 2, 3) * 20:
        assert RULES["exact"].next(row, 0, row, a, draft) == RULES["exact"].next(row, 0, row, b, None)  # type: ignore[arg-type]


def test_rejection_accepts_a_draft_as_often_as_the_model_would_choose_it() -> None:
    row = Row(1)
    draft = int(row.p.tokens[0])
    assert counts(RULES["rejection"], row, draft)[draft] / SAMPLES == pytest.approx(row.p.probs[0], abs=0.02)


def test_typical_takes_likely_drafts_always() -> None:
    row = Row(2)
    bound = typical_bound(row.p)
    entropy = -float((row.p.probs * np.log(row.p.probs)).sum())
    assert bound == pytest.approx(min(EPSILON, DELTA * np.exp(-entropy)), rel=1e-4)
    for token, prob in zip(row.p.tokens.tolist(), row.p.probs.tolist(), strict=True):
        share = counts(RULES["typical"], row, token)[token] / SAMPLES
        assert share == (1.0 if prob > bound else pytest.approx(prob, abs=0.02))


@pytest.mark.parametrize("name", RULES)
def test_greedy_takes_the_best_token(name: str) -> None:
    row = Row(3)
    row.is_greedy = True
    assert RULES[name].next(row, 0, row, np.random.default_rng(0), 9) == row.p.tokens[0]  # type: ignore[arg-type]

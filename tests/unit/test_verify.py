"""Rejection sampling gives exactly the target distribution."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.predictors.types import Distribution
from specee.predictors.verify import accept_or_replace, certain, residual, sample


def distribution(seed: int, n: int, vocab: int) -> Distribution:
    rng = np.random.default_rng(seed)
    probs = np.sort(rng.dirichlet(np.full(n, 0.7)))[::-1]
    return Distribution(rng.permutation(vocab)[:n].astype(np.int32), probs.astype(np.float32))


def chi_square(counts: np.ndarray, probs: np.ndarray) -> tuple[float, int]:
    expected = probs * counts.sum()
    use = expected > 5
    return float(((counts - expected)[use] ** 2 / expected[use]).sum()), max(int(use.sum()) - 1, 1)


def test_accepted_tokens_are_distributed_as_p() -> None:
    for seed in range(6):
        p, q = distribution(seed, 8, 12), distribution(seed + 100, 6, 12)
        rng = np.random.default_rng(seed)
        counts = np.zeros(12)
        for _ in range(8000):
            proposal = q if seed % 2 else certain(int(q.tokens[0]))
            counts[accept_or_replace(p, proposal, sample(proposal, rng), rng)[0]] += 1
        true = np.array([p.prob(t) for t in range(12)])
        assert counts[true == 0].sum() == 0
        value, df = chi_square(counts, true)
        assert value < df + 4 * (2 * df) ** 0.5


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 10), st.integers(1, 10))
def test_expected_outcome_is_p_in_closed_form(seed: int, n: int, m: int) -> None:
    """sum over tokens of q(w) [min(1, p/q) at w + (1 - min(1, p/q)) residual] = p."""
    p, q = distribution(seed, n, 10), distribution(seed + 1, m, 10)
    rest = residual(p, q)
    keep = {int(w): min(1.0, p.prob(int(w)) / max(q.prob(int(w)), 1e-30)) for w in q.tokens}
    rejected = sum(q.prob(w) * (1 - a) for w, a in keep.items())
    for token in range(10):
        out = q.prob(token) * keep.get(token, 0.0) + rejected * rest.prob(token)
        assert abs(out - p.prob(token)) < 1e-4


def test_equal_distributions_always_accept() -> None:
    p = distribution(3, 5, 9)
    rng = np.random.default_rng(0)
    assert all(accept_or_replace(p, p, sample(p, rng), rng)[1] for _ in range(200))

"""Verification of proposed tokens. Pure functions.

Rejection sampling as in speculative decoding (Leviathan et al., "Fast Inference from Transformers via Speculative
Decoding", ICML 2023, section 2.3): a token drawn from q is accepted with probability min(1, p / q), else one is drawn
from the residual max(p - q, 0), normalised. What comes out is distributed as p.
"""

from __future__ import annotations

import numpy as np

from specee.predictors.types import Distribution, Logits, Sampler


def choose(logits: Logits, i: int, sampler: Sampler, rng: np.random.Generator) -> int:
    """The next token of logits row i: the best one, or one drawn from the shaped distribution."""
    if sampler.is_greedy:
        return logits.greedy(i, sampler)
    return sample(Distribution(*logits.distribution(i, sampler)), rng)


def verify(
    logits: Logits, i: int, sampler: Sampler, token: int, q: Distribution | None, rng: np.random.Generator
) -> tuple[int, bool]:
    """Hold a proposed token against the dense model's logits: (the token that stands, whether `token` is accepted).

    `q` is what the token was drawn from; None stands for a token that was not drawn.
    """
    if sampler.is_greedy:
        best = logits.greedy(i, sampler)
        return best, best == token
    return accept_or_replace(Distribution(*logits.distribution(i, sampler)), q or certain(token), token, rng)


def accept_or_replace(p: Distribution, q: Distribution, token: int, rng: np.random.Generator) -> tuple[int, bool]:
    """Accept `token`, drawn from q, or replace it so that the result is distributed as p: (token, accepted)."""
    proposed = q.prob(token)
    if proposed > 0.0 and rng.random() * proposed < p.prob(token):
        return token, True
    return sample(residual(p, q), rng), False


def sample(distribution: Distribution, rng: np.random.Generator) -> int:
    """Draw one token."""
    total = np.cumsum(distribution.probs, dtype=np.float64)
    place = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
    return int(distribution.tokens[min(place, len(total) - 1)])


def certain(token: int) -> Distribution:
    """The distribution of a proposal that was not drawn: all on one token."""
    return Distribution(np.array([token], np.int32), np.ones(1, np.float32))


def residual(p: Distribution, q: Distribution) -> Distribution:
    """normalise(max(p - q, 0)) over p's tokens; p itself where nothing is left (p = q up to rounding)."""
    other = dict(zip(q.tokens.tolist(), q.probs.tolist(), strict=True))
    taken = np.array([other.get(token, 0.0) for token in p.tokens.tolist()], np.float64)
    left = np.maximum(p.probs.astype(np.float64) - taken, 0.0)  # [n]
    total = float(left.sum())
    if total <= 0.0:
        return p
    return Distribution(p.tokens, (left / total).astype(np.float32))

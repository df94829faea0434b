"""Which drafted tokens stand: the acceptance rules of speculative decoding, for drafts that are not drawn at random."""

from __future__ import annotations

import numpy as np

from specee.predictors.types import Distribution, Logits, Sampler
from specee.predictors.verify import accept_or_replace, certain, choose, sample

EPSILON, DELTA = 0.09, 0.3  # Medusa's


class ExactMatch:
    """The dense model draws its token, with dense decoding's own random numbers; a draft stands if it is that one.

    Of drafts that were not drawn it accepts as many as rejection sampling, and the text of a seed is dense's.
    """

    name = "exact"
    is_lossless = True

    def next(self, logits: Logits, i: int, sampler: Sampler, rng: np.random.Generator, draft: int | None) -> int:
        """The token after logits row i; `draft` (None where nothing was drafted) stands where it is returned."""
        return choose(logits, i, sampler, rng)


class RejectionSampling:
    """Leviathan et al., ICML 2023, section 2.3: distributed as dense's text, but a seed has another text."""

    name = "rejection"
    is_lossless = True

    def next(self, logits: Logits, i: int, sampler: Sampler, rng: np.random.Generator, draft: int | None) -> int:
        """See ExactMatch."""
        if draft is None or sampler.is_greedy:
            return choose(logits, i, sampler, rng)
        p = Distribution(*logits.distribution(i, sampler))
        return accept_or_replace(p, certain(draft), draft, rng)[0]


class TypicalAcceptance:
    """Medusa (Cai et al., ICML 2024), section 2.3.1: a draft stands where it is not unlikely. Changes the distribution.

    The bound is min(EPSILON, DELTA exp(-H)) with the entropy H of the model's distribution; greedy decoding has no use
    for it and takes the best token.
    """

    name = "typical"
    is_lossless = False

    def next(self, logits: Logits, i: int, sampler: Sampler, rng: np.random.Generator, draft: int | None) -> int:
        """See ExactMatch."""
        if draft is None or sampler.is_greedy:
            return choose(logits, i, sampler, rng)
        p = Distribution(*logits.distribution(i, sampler))
        return draft if p.prob(draft) > typical_bound(p) else sample(p, rng)


def typical_bound(p: Distribution) -> float:
    """The probability above which a draft is typical of p."""
    probs = p.probs[p.probs > 0.0].astype(np.float64)
    return min(EPSILON, DELTA * float(np.exp((probs * np.log(probs)).sum())))


Acceptance = ExactMatch | RejectionSampling | TypicalAcceptance
RULES: dict[str, Acceptance] = {rule.name: rule for rule in (ExactMatch(), RejectionSampling(), TypicalAcceptance())}

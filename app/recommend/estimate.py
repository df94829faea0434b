"""How much memory a model needs, and how fast it would write: from what it reads for a token, and what was measured.

t(1) = TOKEN_SECONDS + layers x layer + the weights that a token reads, each type at its rate, + keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from specee.app.options import DEFAULT_KV_TYPE
from specee.app.recommend.facts import ModelFacts
from specee.app.recommend.machine import DecodingSpeed
from specee.app.settings import KVType
from specee.models import kv_cache
from specee.predictors.cost_model import CostModel

BATCH = 512  # tokens of a prompt that are computed at once
PROGRAM_BYTES = 120 << 20  # Python, the library, what drafts are retrieved from
FILL = 512
"""Tokens in the window of a typical chat."""
ATTENTION_SHARE = 0.6
"""Of the time of attention, what its two products take; the rest are masks, softmax and new keys and values."""
UNKNOWN_TYPE = 0.8
"""Weights of a type that was not measured are read at this share of the slowest rate."""
TOKEN_SECONDS = 2e-4
"""Of a token, whatever the model: what chooses it, and hands it on."""
MAX_ROWS = 8

RETRIEVED = (0.30, (0.55, 0.55))
"""Drafts that need no model (this chat, common phrases): in this share of the steps there are some, which are accepted
with these probabilities, each after the one before."""
PAIRED = (1.0, (0.6, 0.6, 0.55, 0.55))
"""Drafts of a small model of the same family."""


def needed_memory(facts: ModelFacts, window: int, kv_type: KVType = DEFAULT_KV_TYPE) -> int:
    """Bytes of weights, of keys and values for so many tokens, and of what is computed besides."""
    kept = min(window, facts.context or window) * kv_cache.converted(facts.kv_bytes_per_token, kv_type)
    # flash attention, which q8_0 takes, keeps no score for each head and token, only the mask
    scored = facts.heads if kv_type == "f16" else 1
    scores = scored * min(window, facts.context or window) * BATCH * 4
    return facts.weight_bytes + kept + scores + 8 * BATCH * facts.width * 4 + PROGRAM_BYTES


def seconds_per_token(facts: ModelFacts, speed: DecodingSpeed, fill: int = FILL) -> float | None:
    """Of dense decoding with so many tokens in the window; None where the model or the machine is not known enough."""
    if not speed.rates or not facts.read_bytes:
        return None
    attended = fill * facts.kv_bytes_per_token * facts.queries_per_key
    attention = attended / (speed.attention * ATTENTION_SHARE) if speed.attention else 0.0
    return TOKEN_SECONDS + facts.layers * speed.layer + _reading(facts, speed) + attention


def reads_share(facts: ModelFacts, speed: DecodingSpeed) -> float:
    """Of these seconds, the share in which weights are read."""
    seconds = seconds_per_token(facts, speed)
    return _reading(facts, speed) / seconds if seconds else 0.0


def _reading(facts: ModelFacts, speed: DecodingSpeed) -> float:
    slowest = min(speed.rates.values()) * UNKNOWN_TYPE
    return sum(n_bytes / speed.rates.get(kind, slowest) for kind, n_bytes in facts.reads.items())


def rows_of(facts: ModelFacts, speed: DecodingSpeed) -> dict[int, float]:
    """What a step of n rows takes, of one with a single row: for a mixture of experts more than for other models, as
    each row has experts of its own. They count as drawn at random, and as all of the weights: on the slow side."""
    active = facts.active_parameters / facts.parameters if facts.parameters else 1.0
    if not 0.0 < active < 1.0:
        return dict(speed.rows)
    share = reads_share(facts, speed)
    return {n: time + share * ((1 - (1 - active) ** n) / active - 1) for n, time in speed.rows.items()}


def speedup(rows: Mapping[int, float], share: float, acceptance: Sequence[float], cost: float = 0.0) -> float:
    """What drafts bring over dense decoding: with the best number of them in the `share` of steps that have some.

    `rows`: t(n) of a step of n rows, of t(1); `cost`: what one guess takes, of t(1).
    """
    if not rows:
        return 1.0
    model = CostModel({1: 1.0, **rows}, MAX_ROWS)
    best = 1.0
    expected, reached = 1.0, 1.0
    for n, p in enumerate(acceptance[: MAX_ROWS - 1], 1):
        reached *= p
        expected += reached
        tokens = 1 + share * (expected - 1)
        time = 1 + share * (model.step(n + 1) - 1 + n * cost)
        best = max(best, tokens / time)
    return best

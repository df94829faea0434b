"""What follows which tokens in a collection of texts: the datastore that retrieval drafts from (REST, NAACL 2024).

For contexts of 1 to `LONGEST` tokens it holds one follower, the one with the greatest probability under an interpolated
n-gram model with absolute discounting (Chen and Goodman, "An empirical study of smoothing techniques for language
modeling", 1999, section 2.6), and that probability. A context is left out where the shorter one says the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from specee.predictors.drafters.context_table import MULTIPLIER, extend_key

LONGEST = 3
DISCOUNT = 0.7
SAME = 0.03
"""Probabilities that differ by less count as the same."""
_MIN_BITS, _LOAD = 10, 0.5

Keys = NDArray[np.uint64]
Followers = NDArray[np.int32]
Probs = NDArray[np.float64]


class Lookup(Protocol):
    """What retrieval needs of a datastore."""

    def guess(self, context: Sequence[int]) -> tuple[int, int, float] | None:
        """What follows the longest known end of `context`: (token, length of that end, probability)."""
        ...


class Datastore:
    """An immutable hash table with 2 ** bits entries; each context has one place, the more certain one keeps it."""

    def __init__(self, keys: Keys, followers: Followers, probs: NDArray[np.uint8]) -> None:
        """`keys` [2 ** bits], 0 where free; `followers` and `probs` (in 1/255) likewise."""
        self._shift = 64 - (len(keys).bit_length() - 1)
        # arrays of the standard library: reading one element is several times faster than from NumPy's
        self._keys, self._followers = array("Q", keys.tobytes()), array("i", followers.tobytes())
        self._probs = bytes(probs)

    @classmethod
    def build(cls, texts: Sequence[Sequence[int]]) -> Datastore:
        """From texts as tokens."""
        keys, followers, probs = _best_followers(texts)
        bits = max(_MIN_BITS, int(np.ceil(np.log2(max(len(keys), 1) / _LOAD))))
        at = (keys >> np.uint64(64 - bits)).astype(np.int64)
        order = np.argsort(probs, kind="stable")  # of those with one place the most certain comes last
        at = at[order]
        table = np.zeros(1 << bits, np.uint64), np.zeros(1 << bits, np.int32), np.zeros(1 << bits, np.uint8)
        table[0][at], table[1][at], table[2][at] = keys[order], followers[order], np.rint(probs[order] * 255)
        return cls(*table)

    def guess(self, context: Sequence[int]) -> tuple[int, int, float] | None:
        """What follows the longest known end of `context`: (token, length of that end, probability)."""
        found = None
        key = 0
        for length, token in enumerate(reversed(context[-LONGEST:]), 1):
            key = extend_key(key, token)
            at = key >> self._shift
            if self._keys[at] == key:
                found = self._followers[at], length, self._probs[at] / 255
        return found

    def __len__(self) -> int:
        """Contexts that are held."""
        return len(self._keys) - self._keys.count(0)

    def arrays(self) -> tuple[Keys, Followers, NDArray[np.uint8]]:
        """What the constructor takes, to be stored."""
        keys, followers = np.frombuffer(self._keys, np.uint64), np.frombuffer(self._followers, np.int32)
        return keys, followers, np.frombuffer(self._probs, np.uint8)


@dataclass(frozen=True, slots=True)
class _Order:
    """The model of one context length, for the places in the texts where such a context ends."""

    pair: NDArray[np.int64]  # [n_places] index of the place's (context, follower), -1 where there is none
    prob: Probs  # [n_pairs] of the follower after the context
    context: NDArray[np.int64]  # [n_places] index of the place's context
    best: Followers  # [n_contexts]
    best_prob: Probs  # [n_contexts]


def _best_followers(texts: Sequence[Sequence[int]]) -> tuple[Keys, Followers, Probs]:
    """Each context of 1 to LONGEST tokens that says more than a shorter one: key, follower, probability."""
    tokens = np.concatenate([np.asarray(text, np.int64) for text in texts if len(text)] or [np.zeros(0, np.int64)])
    starts = np.concatenate([np.arange(len(text)) for text in texts if len(text)] or [np.zeros(0, np.int64)])
    kept: list[tuple[Keys, Followers, Probs]] = []
    n = len(tokens)
    places = np.flatnonzero(starts >= 1)  # of followers
    shorter = _unigrams(tokens, n)
    key = np.zeros(n, np.uint64)
    for length in range(1, LONGEST + 1):
        places = places[starts[places] >= length]
        if not len(places):
            break
        key[places] = (key[places] ^ (tokens[places - length].astype(np.uint64) + np.uint64(1))) * np.uint64(MULTIPLIER)
        order, found = _next_order(key[places], tokens[places], places, shorter, n)
        kept.append(found)
        shorter = order
    if not kept:
        return np.zeros(0, np.uint64), np.zeros(0, np.int32), np.zeros(0)
    return tuple(np.concatenate(column) for column in zip(*kept, strict=True))  # type: ignore[return-value]


def _unigrams(tokens: NDArray[np.int64], n: int) -> _Order:
    _, pair, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    prob = counts / max(n, 1)
    best = int(np.argmax(counts)) if n else 0
    return _Order(
        pair, prob, np.zeros(n, np.int64), np.array([tokens[pair == best][0] if n else 0], np.int32), np.zeros(1)
    )


def _next_order(
    key: Keys, follower: NDArray[np.int64], places: NDArray[np.int64], shorter: _Order, n: int
) -> tuple[_Order, tuple[Keys, Followers, Probs]]:
    """The model of contexts that are one token longer, and those of them that say more than the shorter ones."""
    contexts, first, context = np.unique(key, return_index=True, return_inverse=True)
    mixed = (key ^ (follower.astype(np.uint64) << np.uint64(1))) * np.uint64(MULTIPLIER)
    _, first_of_pair, pair, count = np.unique(mixed, return_index=True, return_inverse=True, return_counts=True)
    context_of_pair = context[first_of_pair]
    total = np.bincount(context, minlength=len(contexts))
    types = np.bincount(context_of_pair, minlength=len(contexts))
    rest = DISCOUNT * types / total  # [n_contexts] probability that is left to shorter contexts
    below = shorter.prob[shorter.pair[places[first_of_pair]]]
    prob = (count - DISCOUNT) / total[context_of_pair] + rest[context_of_pair] * below
    by_prob = np.lexsort((prob, context_of_pair))
    top = by_prob[np.flatnonzero(np.append(np.diff(context_of_pair[by_prob]) != 0, True))]  # one for each context
    best, best_prob = follower[first_of_pair[top]].astype(np.int32), prob[top]
    # the shorter context's best follower may be the better one though it was never seen here
    parent = shorter.context[places[first]]
    unseen = rest * shorter.best_prob[parent]
    better = unseen > best_prob
    best, best_prob = np.where(better, shorter.best[parent], best), np.where(better, unseen, best_prob)
    says_more = (best != shorter.best[parent]) | (np.abs(best_prob - shorter.best_prob[parent]) >= SAME)
    all_pairs, all_contexts = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    all_pairs[places], all_contexts[places] = pair, context
    order = _Order(all_pairs, prob, all_contexts, best, best_prob)
    return order, (contexts[says_more], best[says_more], best_prob[says_more])

"""What followed the last tokens before: a bounded hash table of contexts of several lengths.

For each context of 1 to `longest` tokens it keeps the token that followed it last, and a confidence: how many times in
a row that token followed. The longest context that is known guesses best; how good its guess is depends on its length
and confidence (the counters of branch predictors: Seznec and Michaud, "A case for (partially) TAgged GEometric history
length branch prediction", 2006). Text that repeats itself is found as by a suffix match, common phrases as by n-grams.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LONGEST = 6
MAX_CONFIDENCE = 3
MULTIPLIER = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def extend_key(key: int, token: int) -> int:
    """The key of a context that is one token longer to the left; 0 is the empty one's. A 64-bit hash."""
    return ((key ^ (token + 1)) * MULTIPLIER) & _MASK


class ContextTable:
    """2 ** bits entries of 13 bytes; a new context takes the entry of one without confidence."""

    def __init__(self, bits: int = 17, longest: int = LONGEST) -> None:
        self.longest = longest
        self._shift = 64 - bits
        self._keys = array("Q", bytes(8 << bits))  # 0: free
        self._followers = array("i", bytes(4 << bits))
        self._confidence = bytearray(1 << bits)

    def learn(self, tokens: Sequence[int]) -> None:
        """The last of `tokens` followed those before it."""
        *context, token = tokens[-self.longest - 1 :]
        key = 0
        for before in reversed(context):
            key = extend_key(key, before)
            at = key >> self._shift
            if self._keys[at] == key:
                if self._followers[at] == token:
                    self._confidence[at] = min(self._confidence[at] + 1, MAX_CONFIDENCE)
                elif self._confidence[at] >= 2:
                    self._confidence[at] = 0
                else:
                    self._followers[at] = token
                    self._confidence[at] = 0
            elif self._confidence[at]:
                self._confidence[at] -= 1
            else:
                self._keys[at], self._followers[at] = key, token

    def guess(self, context: Sequence[int]) -> tuple[int, int, int] | None:
        """What followed the longest known end of `context`: (token, length of that end, confidence)."""
        found = None
        key = 0
        for length, token in enumerate(reversed(context[-self.longest :]), 1):
            key = extend_key(key, token)
            at = key >> self._shift
            if self._keys[at] == key:
                found = self._followers[at], length, self._confidence[at]
        return found

    def learn_text(self, tokens: Sequence[int], known: int = 0) -> None:
        """A whole text at once: for each context what followed it last, and how many times in a row before that.

        The first `known` tokens were learned before.
        """
        text = np.asarray(tokens, np.int64)
        n = len(text)
        keys, followers = [], []
        key = np.zeros(max(n - 1, 0), np.uint64)  # of the context that ends at each token
        for length in range(1, min(self.longest, n - 1) + 1):
            before = text[: n - length].astype(np.uint64) + np.uint64(1)  # the context's first token
            key = (key[1:] if length > 1 else key) ^ before
            key *= np.uint64(MULTIPLIER)
            new = max(known - length, 0)
            keys.append(key[new:])
            followers.append(text[length + new :])
        if sum(map(len, keys)):
            self._put(*_last_runs(np.concatenate(keys), np.concatenate(followers)))

    def _put(self, keys: NDArray[np.uint64], followers: NDArray[np.int32], confidence: NDArray[np.uint8]) -> None:
        at = (keys >> np.uint64(self._shift)).astype(np.int64)
        order = np.argsort(confidence, kind="stable")  # of those that want one entry the most certain comes last
        at, keys, followers, confidence = at[order], keys[order], followers[order], confidence[order]
        known = np.frombuffer(self._keys, np.uint64)
        held = np.frombuffer(self._confidence, np.uint8)
        free = (known[at] == keys) | (held[at] <= confidence)
        at, keys, followers, confidence = at[free], keys[free], followers[free], confidence[free]
        known[at], held[at] = keys, confidence
        np.frombuffer(self._followers, np.int32)[at] = followers


def _last_runs(
    keys: NDArray[np.uint64], followers: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.uint8]]:
    """For each distinct key its last follower, and how often in a row that one came, less one: three arrays [n]."""
    order = np.argsort(keys, kind="stable")
    keys, followers = keys[order], followers[order]
    last = np.flatnonzero(np.append(keys[1:] != keys[:-1], True))
    changed = np.append(True, (keys[1:] != keys[:-1]) | (followers[1:] != followers[:-1]))
    run_start = np.maximum.accumulate(np.where(changed, np.arange(len(keys)), 0))
    run = last - run_start[last]
    return keys[last], followers[last].astype(np.int32), np.minimum(run, MAX_CONFIDENCE).astype(np.uint8)

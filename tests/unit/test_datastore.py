"""The datastore against an n-gram model written as it is defined."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.predictors.drafters.datastore import DISCOUNT, LONGEST, Datastore
from specee.predictors.drafters.retrieval import RetrievalGuesser

Texts = list[list[int]]


def probability(texts: Texts, context: tuple[int, ...], token: int) -> float:
    """Interpolated absolute discounting, recursively."""
    followers: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for text in texts:
        for at in range(len(text)):
            for length in range(min(LONGEST, at) + 1):
                followers[tuple(text[at - length : at])][text[at]] += 1
    total = Counter(token for text in texts for token in text)
    prob = total[token] / sum(total.values())
    for length in range(1, len(context) + 1):
        seen = followers[context[len(context) - length :]]
        n = sum(seen.values())
        prob = (max(seen[token] - DISCOUNT, 0.0) + DISCOUNT * len(seen) * prob) / n
    return prob


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.lists(st.integers(0, 5), max_size=12), max_size=5))
def test_probabilities_are_the_models(texts: Texts) -> None:
    store = Datastore.build(texts)
    contexts = {
        tuple(text[at - length : at])
        for text in texts
        for at in range(1, len(text))
        for length in range(1, min(LONGEST, at) + 1)
    }
    assert len(store) <= len(contexts)
    for context in contexts:
        found = store.guess(context)
        if found is None:  # its place was taken by another one
            continue
        token, length, prob = found
        assert prob == pytest.approx(probability(texts, context[len(context) - length :], token), abs=0.005)


def test_the_longest_known_context_decides() -> None:
    store = Datastore.build([[1, 2, 3], [1, 2, 3], [9, 2, 4], [9, 2, 4], [2, 3]])
    assert store.guess([1, 2])[0] == 3  # type: ignore[index]
    assert store.guess([9, 2])[0] == 4  # type: ignore[index]
    assert store.guess([5, 2])[0] == 3  # type: ignore[index]
    assert store.guess([5]) is None and store.guess([]) is None
    assert Datastore.build([]).guess([1, 2]) is None
    assert Datastore.build([[], [3]]).guess([3]) is None


def test_it_is_the_same_after_storing() -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 50, 40).tolist() for _ in range(30)]
    store = Datastore.build(texts)
    again = Datastore(*store.arrays())
    for text in texts:
        for at in range(1, len(text)):
            assert store.guess(text[:at]) == again.guess(text[:at])


def test_guesses_learn_their_hit_rate() -> None:
    guesser = RetrievalGuesser(Datastore.build([[1, 2, 3]] * 4))
    first = guesser.guess([1, 2], None)
    assert first is not None and first.token == 3
    for _ in range(100):
        guesser.learn(first.kind, False)
    again = guesser.guess([1, 2], None)
    assert again is not None and again.prob < 0.5 * first.prob
    assert guesser.guess([8], None) is None

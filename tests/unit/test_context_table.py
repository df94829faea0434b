"""The table of contexts: what follows, how sure, and a text at once as token by token."""

from __future__ import annotations

import numpy as np

from specee.predictors.drafters.context_table import MAX_CONFIDENCE, ContextTable
from specee.predictors.drafters.suffix import SuffixGuesser, prior


def test_the_longest_known_context_guesses() -> None:
    table = ContextTable(bits=12)
    table.learn_text([1, 2, 3, 4, 9, 2, 3, 5])
    assert table.guess([1, 2, 3]) == (4, 3, 0)
    assert table.guess([9, 2, 3]) == (5, 3, 0)
    assert table.guess([7, 2, 3]) == (5, 2, 0), "of a shorter one the last follower"
    assert table.guess([8]) is None


def test_confidence_counts_and_falls() -> None:
    table = ContextTable(bits=12)
    for _ in range(10):
        table.learn([1, 2])
    assert table.guess([1]) == (2, 1, MAX_CONFIDENCE)
    table.learn([1, 3])
    assert table.guess([1]) == (2, 1, 0), "a sure follower is not given up at once"
    table.learn([1, 3])
    assert table.guess([1]) == (3, 1, 0)


def test_a_text_at_once_guesses_nearly_as_token_by_token() -> None:
    """Nearly: of two contexts that want one entry another may win, and a run that was broken counts otherwise."""
    rng = np.random.default_rng(0)
    equal = known = 0
    for _ in range(20):
        text = rng.integers(0, 6, 80).tolist()
        whole, single = ContextTable(bits=16), ContextTable(bits=16)
        whole.learn_text(text)
        for end in range(2, len(text) + 1):
            single.learn(text[:end])
        for end in range(1, len(text)):
            a, b = whole.guess(text[:end]), single.guess(text[:end])
            assert a is not None and b is not None
            known += 1
            equal += a[:2] == b[:2]
    assert equal > 0.95 * known


def test_a_conversation_that_goes_on_is_not_learned_twice() -> None:
    guesser = SuffixGuesser()
    guesser.begin([1, 2, 3, 1, 2])
    guesser.accept(3)
    guesser.begin([1, 2, 3, 1, 2, 3, 4])
    guess = guesser.guess([1, 2], None)
    assert guess is not None and guess.token == 3
    before = guess.prob
    guesser.learn(guess.kind, True)
    again = guesser.guess([1, 2], None)
    assert again is not None and again.prob > before
    guesser.begin([1, 2, 3, 1])
    branch = guesser.guess([2, 3], None)
    assert branch is not None and branch.token == 4, "what was rolled back may come again"
    guesser.begin([7, 8, 9])
    assert guesser.guess([1, 2], None) is None, "another conversation"
    assert 0.0 < prior(1, 0) < prior(6, 3) <= 0.9

"""Where an answer begins to repeat itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specee.predictors.repetition import loop_start


@pytest.mark.parametrize(
    ("tokens", "n", "start"),
    [
        ([1, 2, 3, 1, 2, 3], 3, 5),
        ([1, 1, 1, 1], 3, 3),  # the n-grams overlap
        ([1, 2, 3, 1, 2], 3, None),
        ([], 3, None),
        (list(range(100)), 12, None),
    ],
)
def test_the_first_token_that_completes_a_repeated_ngram(tokens: list[int], n: int, start: int | None) -> None:
    assert loop_start(tokens, n) == start


def test_twelve_tokens_are_a_loop() -> None:
    assert loop_start([*range(12), *range(12)]) == 23


@given(st.lists(st.integers(0, 2), max_size=60))
def test_loop_start_is_the_first_repeated_ngram(tokens: list[int]) -> None:
    last = loop_start(tokens, 3)
    grams = [tuple(tokens[i : i + 3]) for i in range(len(tokens) - 2)]
    if last is None:
        assert len(set(grams)) == len(grams)
    else:
        assert grams[last - 2] in grams[: last - 2]
        assert len(set(grams[: last - 2])) == last - 2

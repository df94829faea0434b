"""Where an answer begins to repeat itself."""

from __future__ import annotations

import pytest

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

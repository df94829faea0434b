"""Rules of exits: defaults and refusals."""

from __future__ import annotations

from typing import Any

import pytest

from specee.predictors.errors import RulesError
from specee.predictors.exits.rules import ExitRules


def test_the_defaults_of_the_paper() -> None:
    rules = ExitRules()
    assert (rules.k, rules.n_hidden, rules.threshold, rules.recent_exits, rules.reach) == (4, 512, 0.5, 5, 2)
    assert rules.full_head_check and rules.rule == "predictor"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k = 0"),
        ({"threshold": 1.5}, "threshold = 1.5"),
        ({"threshold": float("nan")}, "threshold"),
        ({"rule": "guess"}, "'predictor' or 'margin'"),
        ({"kv": "holes"}, "'propagate' or 'complete'"),
        ({"max_pending": 0}, "max_pending"),
        ({"drafters": ("tea",)}, "'tea'"),
        ({"drafters": ()}, "drafters"),
        ({"ngram_min": 4}, "n-grams"),
        ({"colour": 1}, "no rule 'colour'"),
    ],
)
def test_bad_rules(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RulesError, match=message) as caught:
        ExitRules().with_(**change)
    assert "\n" not in caught.value.message

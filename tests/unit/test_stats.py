"""Figures of several answers."""

from __future__ import annotations

from specee.predictors.decoding.stats import DecodingStats


def test_stats_add_up() -> None:
    a, b = DecodingStats(tokens=2, exit_layers=20, steps=1), DecodingStats(tokens=2, exit_layers=24, steps=1)
    assert (a + b).mean_exit_layer == 11
    assert (a + b).steps == 2
    assert DecodingStats().as_dict()["acceptance"] == 1.0

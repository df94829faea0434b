"""Figures of several answers."""

from __future__ import annotations

from specee.predictors.decoding.stats import DecodingStats, DraftCounts


def test_stats_add_up() -> None:
    a, b = DecodingStats(tokens=2, exit_layers=20, steps=1), DecodingStats(tokens=2, exit_layers=24, steps=1)
    assert (a + b).mean_exit_layer == 11
    assert (a + b).steps == 2
    assert DecodingStats().as_dict()["acceptance"] is None


def test_drafts_are_counted_by_drafter_and_position() -> None:
    a, b = DecodingStats(), DecodingStats()
    a.count_drafts(["suffix", "suffix", "retrieval"], 2)
    a.count_drafts([], 0)
    b.count_drafts(["retrieval"], 0)
    both = a + b
    assert both.drafts == {"suffix": DraftCounts([1, 1], [1, 1]), "retrieval": DraftCounts([1, 0, 1], [0, 0, 0])}
    assert (both.tested, both.accepted) == (4, 2)
    assert a.drafts["retrieval"] == DraftCounts([0, 0, 1], [0, 0, 0]), "sums leave their parts as they are"

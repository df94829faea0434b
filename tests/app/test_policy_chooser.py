"""Policy auto: what it decides, and that it measures while it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specee.app.engine.measurements import Measurements
from specee.app.engine.policy_chooser import PolicyChooser
from specee.app.engine.policy_comparison import (
    MAX_ROUNDS,
    MIN_PART_TOKENS,
    PART_TOKENS,
    ROUNDS,
    WARM_UP_TOKENS,
    PolicyComparison,
)
from specee.app.engine.protocol import Done, Generate, Message
from specee.app.engine.thread_limit import limit_threads
from specee.app.options import ChatOptions, PolicyChoice

AUTO = PolicyChoice("auto")
RULES = ("predictor", "margin")


def compared(*ratios: float, rounds: int = ROUNDS) -> PolicyComparison:
    return PolicyComparison(
        RULES[: len(ratios)], [[100.0, *(100.0 * ratio for ratio in ratios)] for _ in range(rounds)]
    )


def chooser_with(comparison: PolicyComparison, backend: Any, choice: PolicyChoice = AUTO) -> PolicyChooser:
    chooser = PolicyChooser()
    chooser.measurements.comparisons[chooser.measurements.key(backend, choice)] = comparison
    return chooser


def run_rounds(comparison: PolicyComparison, speeds: Callable[[int], float]) -> list[int]:
    order = []
    while not comparison.decided:
        policy, length = comparison.next_policy()
        assert length is not None
        order.append(policy)
        comparison.record(policy, length, length / speeds(policy))
    return order


# ---- the comparison ------------------------------------------------------------------------------------------------


def test_each_policy_runs_in_every_round_and_who_begins_rotates() -> None:
    order = run_rounds(PolicyComparison(RULES), lambda policy: (100.0, 90.0, 120.0)[policy])
    assert order[:3] == [0, 1, 2], "the first part of each warms up"
    assert order[3:12] == [0, 1, 2, 1, 2, 0, 2, 0, 1]
    assert len(order) == 3 * (ROUNDS + 1)


def test_short_parts_do_not_count() -> None:
    comparison = PolicyComparison(("margin",))
    for policy in (0, 1):
        assert comparison.next_policy() == (policy, WARM_UP_TOKENS)
        comparison.record(policy, 3, 1.0)
    comparison.record(0, MIN_PART_TOKENS - 1, 1.0)
    assert comparison.next_policy() == (0, PART_TOKENS) and not comparison.rounds
    comparison.record(0, PART_TOKENS, 1.0)
    comparison.record(1, PART_TOKENS, 0.5)
    assert comparison.rounds == [[32.0, 64.0]] and comparison.dense_rate == 32.0


@pytest.mark.parametrize(("ratio", "winner"), [(1.2, 1), (0.991, 1), (0.98, 0), (0.5, 0)])
def test_exits_must_not_cost_more_than_a_hundredth(ratio: float, winner: int) -> None:
    comparison = compared(ratio)
    assert comparison.decided and comparison.winner == winner and comparison.ratio == pytest.approx(ratio)
    assert comparison.next_policy() == (winner, None)


def test_bad_rounds_are_enough_for_dense_but_one_slip_is_not() -> None:
    comparison = compared(1.03)
    comparison.rounds[0][1] = 90.0
    assert comparison.winner == 1
    comparison.rounds[1][1] = 90.0
    assert comparison.winner == 0


def test_a_busy_machine_is_compared_longer_and_then_not_judged() -> None:
    slow = iter([1.0, 0.5, 1.4] * 100)
    comparison = PolicyComparison(("margin",))
    run_rounds(comparison, lambda policy: 100.0 * next(slow) if policy else 100.0)
    assert len(comparison.rounds) == MAX_ROUNDS and not comparison.steady and comparison.winner == 0


# ---- the decision --------------------------------------------------------------------------------------------------


def test_the_faster_rule_is_taken(make_backend: Callable[..., Any]) -> None:
    backend = make_backend()
    decision = chooser_with(compared(0.9, 1.04), backend).decide(backend, AUTO)
    assert decision.choice == PolicyChoice("exact", rule="margin") and "1.04x" in decision.reason
    assert decision.dense_rate == 100.0 and decision.comparison is None
    chosen = PolicyChoice("auto", rule="predictor")
    decision = chooser_with(compared(0.9), backend, chosen).decide(backend, chosen)
    assert decision.choice.name == "dense" and "0.90x" in decision.reason


def test_never_a_policy_that_changes_the_text(make_backend: Callable[..., Any]) -> None:
    backend = make_backend()
    assert chooser_with(compared(9.0, 9.0), backend).decide(backend, AUTO).choice.name == "exact"


def test_until_it_knows_policies_alternate_unless_a_seed_must_repeat(make_backend: Callable[..., Any]) -> None:
    backend = make_backend()
    chooser = chooser_with(compared(1.0, 1.0, rounds=2), backend)
    decision = chooser.decide(backend, AUTO)
    assert decision.comparison is not None and "round 3 of 5" in decision.reason
    seeded = chooser.decide(backend, AUTO, reproducible=True)
    assert seeded.comparison is None and seeded.choice.name == "dense" and "seed" in seeded.reason


def test_a_busy_machine_stays_dense_and_nothing_is_remembered(make_backend: Callable[..., Any], tmp_path: Path) -> None:
    backend = make_backend()
    unsteady = PolicyComparison(
        ("predictor", "margin"), [[100.0, 50.0 + 10 * n, 50.0 + 10 * n] for n in range(MAX_ROUNDS)]
    )
    chooser = PolicyChooser(Measurements(tmp_path / "measured.json"))
    chooser.measurements.comparisons[chooser.measurements.key(backend, AUTO)] = unsteady
    decision = chooser.decide(backend, AUTO)
    assert decision.choice.name == "dense" and "busy" in decision.reason
    chooser.measurements.save()
    assert PolicyChooser(Measurements(tmp_path / "measured.json")).decide(backend, AUTO).comparison is not None


def test_known_for_a_machine_and_a_build(make_backend: Callable[..., Any], tmp_path: Path) -> None:
    store = tmp_path / "deep" / "measured.json"
    backend = make_backend()
    chooser = PolicyChooser(Measurements(store, "v1"))
    chooser.measurements.comparisons[chooser.measurements.key(backend, AUTO)] = compared(0.9, 0.9)
    chooser.measurements.save()
    assert json.loads(store.read_text())["format"] == 4
    again = PolicyChooser(Measurements(store, "v1")).decide(backend, AUTO)
    assert again.comparison is None and again.dense_rate
    assert (
        PolicyChooser(Measurements(store, "v1")).decide(backend, PolicyChoice("dense")).dense_rate == again.dense_rate
    )
    assert PolicyChooser(Measurements(store, "v2")).decide(backend, AUTO).comparison is not None
    for damaged in ("{broken", '{"format": 4, "measured": {"x": {"rules": [null], "rounds": [[1.0]]}}, "threads": {}}'):
        store.write_text(damaged)
        assert PolicyChooser(Measurements(store, "v1")).decide(backend, AUTO).comparison is not None


def test_deciding_takes_as_many_answers_as_it_needs(make_backend: Callable[..., Any]) -> None:
    chooser, backend = PolicyChooser(), make_backend(b"word " * 100)
    assert chooser.measure(backend, AUTO, lambda message: None).comparison is None
    (known,) = chooser.measurements.comparisons.values()
    assert known.decided and all(len(rates) == 3 for rates in known.rounds)


def test_answers_too_short_to_compare_end_the_measuring(make_backend: Callable[..., Any]) -> None:
    decision = PolicyChooser().measure(make_backend(b"no"), AUTO, lambda message: None)
    assert decision.choice.name == "dense" and decision.comparison is None


def test_reasons_without_measuring(make_backend: Callable[..., Any]) -> None:
    assert "specee-chat calibrate" in PolicyChooser().decide(make_backend(calibrated=False), AUTO).reason
    assert PolicyChooser().decide(make_backend(), PolicyChoice("specee")).choice.name == "specee"


def test_a_single_row_gets_the_fewest_threads(
    make_backend: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specee.app.engine.thread_limit.fewest_threads", lambda engine: 5)
    store, backend = tmp_path / "measured.json", make_backend()
    limit_threads(backend, Measurements(store), measure=True)
    assert not hasattr(backend.engine, "single"), "of two threads none is left out"
    backend.engine.n_threads = 8
    limit_threads(backend, Measurements(store), measure=True)
    assert not hasattr(backend.engine, "single"), "a busy machine says nothing about it"
    backend.engine.active_threads = 8
    limit_threads(backend, Measurements(store), measure=False)
    assert not hasattr(backend.engine, "single")
    limit_threads(backend, Measurements(store), measure=True)
    assert backend.engine.single == 5
    again = make_backend()
    again.engine.n_threads = 8
    limit_threads(again, Measurements(store), measure=False)
    assert again.engine.single == 5


def test_trying_threads_cannot_harm_the_answer(
    make_backend: Callable[..., Any], make_link: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(engine: Any) -> int:
        raise RuntimeError("no threads today")

    monkeypatch.setattr("specee.app.engine.thread_limit.fewest_threads", fail)
    backend = make_backend()
    backend.engine.n_threads = backend.engine.active_threads = 8
    asked = Generate(1, (Message("user", "Hi"),), ChatOptions(PolicyChoice("dense")))
    sent = make_link(backend).answer(asked)
    assert isinstance(sent[-1], Done) and sent[-1].stats.tokens == len("Hello there.")
    assert backend.engine.tokens, "the cache is kept"

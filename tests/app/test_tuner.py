"""Policy auto: what it decides, and that it finds out while it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specee.app.engine.auto_policy import Tuner
from specee.app.engine.policy_comparison import COUNTED, PATIENCE, ROUNDS, STRETCH, WARM_UP, Comparison
from specee.app.engine.protocol import Done, Generate, Message
from specee.app.options import ChatOptions, PolicyChoice

AUTO = PolicyChoice("auto")
RULES = ("predictor", "margin")


def compared(*ratios: float, rounds: int = ROUNDS) -> Comparison:
    return Comparison(RULES[: len(ratios)], [[100.0, *(100.0 * ratio for ratio in ratios)] for _ in range(rounds)])


def tuner_with(comparison: Comparison, backend: Any, choice: PolicyChoice = AUTO) -> Tuner:
    tuner = Tuner()
    tuner._load()[tuner._key(backend, choice)] = comparison
    return tuner


def take_turns(comparison: Comparison, speeds: Callable[[int], float]) -> list[int]:
    order = []
    while not comparison.decided:
        turn, length = comparison.next_turn()
        assert length is not None
        order.append(turn)
        comparison.took(turn, length, length / speeds(turn))
    return order


# ---- the comparison ------------------------------------------------------------------------------------------------


def test_each_has_a_turn_in_every_round_and_who_begins_rotates() -> None:
    order = take_turns(Comparison(RULES), lambda turn: (100.0, 90.0, 120.0)[turn])
    assert order[:3] == [0, 1, 2], "the first turn of each warms up"
    assert order[3:12] == [0, 1, 2, 1, 2, 0, 2, 0, 1]
    assert len(order) == 3 * (ROUNDS + 1)


def test_short_turns_count_for_nothing() -> None:
    comparison = Comparison(("margin",))
    for turn in (0, 1):
        assert comparison.next_turn() == (turn, WARM_UP)
        comparison.took(turn, 3, 1.0)
    comparison.took(0, COUNTED - 1, 1.0)
    assert comparison.next_turn() == (0, STRETCH) and not comparison.rounds
    comparison.took(0, STRETCH, 1.0)
    comparison.took(1, STRETCH, 0.5)
    assert comparison.rounds == [[32.0, 64.0]] and comparison.dense_rate == 32.0


@pytest.mark.parametrize(("ratio", "winner"), [(1.2, 1), (0.991, 1), (0.98, 0), (0.5, 0)])
def test_exits_must_not_cost_more_than_a_hundredth(ratio: float, winner: int) -> None:
    comparison = compared(ratio)
    assert comparison.decided and comparison.winner == winner and comparison.ratio == pytest.approx(ratio)
    assert comparison.next_turn() == (winner, None)


def test_bad_rounds_are_enough_for_dense_but_one_slip_is_not() -> None:
    comparison = compared(1.03)
    comparison.rounds[0][1] = 90.0
    assert comparison.winner == 1
    comparison.rounds[1][1] = 90.0
    assert comparison.winner == 0


def test_a_busy_machine_is_compared_longer_and_then_not_judged() -> None:
    slow = iter([1.0, 0.5, 1.4] * 100)
    comparison = Comparison(("margin",))
    take_turns(comparison, lambda turn: 100.0 * next(slow) if turn else 100.0)
    assert len(comparison.rounds) == PATIENCE and not comparison.steady and comparison.winner == 0


# ---- what auto says ------------------------------------------------------------------------------------------------


def test_the_faster_rule_is_taken(make_backend: Callable[..., Any]) -> None:
    backend = make_backend()
    verdict = tuner_with(compared(0.9, 1.04), backend).choose(backend, AUTO)
    assert verdict.choice == PolicyChoice("exact", rule="margin") and "1.04x" in verdict.reason
    assert verdict.dense_rate == 100.0 and verdict.undecided is None
    chosen = PolicyChoice("auto", rule="predictor")
    verdict = tuner_with(compared(0.9), backend, chosen).choose(backend, chosen)
    assert verdict.choice.name == "dense" and "0.90x" in verdict.reason


def test_never_a_policy_that_changes_the_text(make_backend: Callable[..., Any]) -> None:
    backend = make_backend()
    assert tuner_with(compared(9.0, 9.0), backend).choose(backend, AUTO).choice.name == "exact"


def test_until_it_knows_they_take_turns_unless_a_seed_must_repeat(make_backend: Callable[..., Any]) -> None:
    backend = make_backend()
    tuner = tuner_with(compared(1.0, 1.0, rounds=2), backend)
    verdict = tuner.choose(backend, AUTO)
    assert verdict.undecided is not None and "round 3" in verdict.reason
    seeded = tuner.choose(backend, AUTO, reproducible=True)
    assert seeded.undecided is None and seeded.choice.name == "dense" and "seed" in seeded.reason


def test_a_busy_machine_stays_dense_and_nothing_is_remembered(make_backend: Callable[..., Any], tmp_path: Path) -> None:
    backend = make_backend()
    unsteady = Comparison(("predictor", "margin"), [[100.0, 50.0 + 10 * n, 50.0 + 10 * n] for n in range(PATIENCE)])
    tuner = Tuner(tmp_path / "tuner.json")
    tuner._load()[tuner._key(backend, AUTO)] = unsteady
    verdict = tuner.choose(backend, AUTO)
    assert verdict.choice.name == "dense" and "busy" in verdict.reason
    tuner.save()
    assert Tuner(tmp_path / "tuner.json").choose(backend, AUTO).undecided is not None


def test_known_for_a_machine_and_a_build(make_backend: Callable[..., Any], tmp_path: Path) -> None:
    store = tmp_path / "deep" / "tuner.json"
    backend = make_backend()
    tuner = Tuner(store, "v1")
    tuner._load()[tuner._key(backend, AUTO)] = compared(0.9, 0.9)
    tuner.save()
    assert json.loads(store.read_text())["format"] == 4
    again = Tuner(store, "v1").choose(backend, AUTO)
    assert again.undecided is None and again.dense_rate
    assert Tuner(store, "v1").choose(backend, PolicyChoice("dense")).dense_rate == again.dense_rate
    assert Tuner(store, "v2").choose(backend, AUTO).undecided is not None
    for damaged in ("{broken", '{"format": 4, "measured": {"x": {"rules": [null], "rounds": [[1.0]]}}, "threads": {}}'):
        store.write_text(damaged)
        assert Tuner(store, "v1").choose(backend, AUTO).undecided is not None


def test_deciding_takes_as_many_answers_as_it_needs(make_backend: Callable[..., Any]) -> None:
    tuner, backend = Tuner(), make_backend(b"word " * 100)
    assert tuner.decide(backend, AUTO, lambda message: None).undecided is None
    (known,) = tuner._load().values()
    assert known.decided and all(len(rates) == 3 for rates in known.rounds)


def test_answers_too_short_to_compare_end_the_measuring(make_backend: Callable[..., Any]) -> None:
    verdict = Tuner().decide(make_backend(b"no"), AUTO, lambda message: None)
    assert verdict.choice.name == "dense" and verdict.undecided is None


def test_reasons_without_measuring(make_backend: Callable[..., Any]) -> None:
    assert "not calibrated" in Tuner().choose(make_backend(calibrated=False), AUTO).reason
    assert Tuner().choose(make_backend(), PolicyChoice("specee")).choice.name == "specee"


def test_a_single_row_gets_the_fewest_threads(
    make_backend: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specee.app.engine.auto_policy.fewest_threads", lambda engine: 5)
    store, backend = tmp_path / "tuner.json", make_backend()
    Tuner(store).limit_threads(backend, measure=True)
    assert not hasattr(backend.engine, "single"), "of two threads none is left out"
    backend.engine.n_threads = 8
    Tuner(store).limit_threads(backend, measure=True)
    assert not hasattr(backend.engine, "single"), "a busy machine says nothing about it"
    backend.engine.active_threads = 8
    Tuner(store).limit_threads(backend, measure=False)
    assert not hasattr(backend.engine, "single")
    Tuner(store).limit_threads(backend, measure=True)
    assert backend.engine.single == 5
    again = make_backend()
    again.engine.n_threads = 8
    Tuner(store).limit_threads(again, measure=False)
    assert again.engine.single == 5


def test_trying_threads_cannot_harm_the_answer(
    make_backend: Callable[..., Any], make_link: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(engine: Any) -> int:
        raise RuntimeError("no threads today")

    monkeypatch.setattr("specee.app.engine.auto_policy.fewest_threads", fail)
    backend = make_backend()
    backend.engine.n_threads = backend.engine.active_threads = 8
    sent: list[Any] = []
    asked = Generate(1, (Message("user", "Hi"),), ChatOptions(PolicyChoice("dense")))
    make_link(backend).runtime.generate(asked, sent.append)
    assert isinstance(sent[-1], Done) and sent[-1].stats.tokens == len("Hello there.")
    assert backend.engine.tokens, "the cache is kept"

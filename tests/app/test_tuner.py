"""Policy auto: what it decides, and that it measures once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specee.app import tuner
from specee.app.options import PolicyChoice
from specee.app.tuner import Measured, Tuner

AUTO = PolicyChoice("auto")


def quiet(message: object) -> None: ...


@pytest.mark.parametrize(("ratio", "policy"), [(1.2, "exact"), (0.991, "exact"), (0.98, "dense"), (0.5, "dense")])
def test_exits_must_not_cost_more_than_a_hundredth(
    ratio: float, policy: str, make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner, "measure", lambda *_: Measured(100.0, 100.0 * ratio, ratio, ratio))
    verdict = Tuner().choose(make_backend(), AUTO, quiet)
    assert verdict.choice.name == policy
    assert f"{ratio:.2f}x" in verdict.reason and verdict.dense_rate == 100.0 and verdict.measured_now


def test_never_a_policy_that_changes_the_text(
    make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner, "measure", lambda *_: Measured(1.0, 9.0, 9.0, 9.0))
    assert Tuner().choose(make_backend(), AUTO, quiet).choice.name == "exact"


def test_measured_once_for_a_machine_and_a_build(
    make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[int] = []

    def measure(*_: object) -> Measured:
        calls.append(1)
        return Measured(100.0, 90.0, 0.9, 0.9)

    monkeypatch.setattr(tuner, "measure", measure)
    store = tmp_path / "deep" / "tuner.json"
    backend = make_backend()
    assert Tuner(store, "v1").choose(backend, AUTO, quiet).measured_now
    again = Tuner(store, "v1").choose(backend, AUTO, quiet)
    assert not again.measured_now and again.dense_rate == 100.0 and len(calls) == 1
    assert Tuner(store, "v1").choose(backend, PolicyChoice("dense"), quiet).dense_rate == 100.0
    Tuner(store, "v2").choose(backend, AUTO, quiet)
    assert len(calls) == 2
    assert json.loads(store.read_text())["format"] == 3
    store.write_text("{broken")
    Tuner(store, "v1").choose(backend, AUTO, quiet)
    assert len(calls) == 3


def test_reasons_without_measuring(make_backend: Callable[..., Any]) -> None:
    assert "not calibrated" in Tuner().choose(make_backend(calibrated=False), AUTO, quiet).reason
    assert Tuner().choose(make_backend(), PolicyChoice("specee"), quiet).choice.name == "specee"


def test_a_real_measurement_is_a_ratio_of_rates(make_backend: Callable[..., Any]) -> None:
    choices = [PolicyChoice("exact", rule=rule) for rule in ("predictor", "margin")]
    measured = tuner.measure(make_backend(b"word " * 100), choices, quiet)
    assert measured.rule in ("predictor", "margin")
    assert measured.dense_rate > 0 and measured.exact_rate > 0 and measured.ratio > 0


def test_the_faster_rule_is_taken(make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {None: 100.0, "predictor": 90.0, "margin": 104.0}
    monkeypatch.setattr(tuner, "_rate", lambda backend, choice, tokens, n: speeds[choice.rule])
    verdict = Tuner().choose(make_backend(), AUTO, quiet)
    assert verdict.choice == PolicyChoice("exact", rule="margin") and "1.04x" in verdict.reason
    verdict = Tuner().choose(make_backend(), PolicyChoice("auto", rule="predictor"), quiet)
    assert verdict.choice.name == "dense" and "0.90x" in verdict.reason


def test_a_busy_machine_is_not_remembered(
    make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rates = iter([100.0, 50.0, 130.0] * 20)
    monkeypatch.setattr(tuner, "_rate", lambda backend, choice, tokens, n: next(rates) if choice.rule else 100.0)
    store = tmp_path / "tuner.json"
    verdict = Tuner(store).choose(make_backend(), PolicyChoice("auto", rule="margin"), quiet)
    assert verdict.choice.name == "dense" and "busy" in verdict.reason and not store.exists()


def test_one_bad_round_is_enough_for_dense(make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner, "measure", lambda *_: Measured(100.0, 101.0, 1.01, 0.9))
    assert Tuner().choose(make_backend(), AUTO, quiet).choice.name == "dense"

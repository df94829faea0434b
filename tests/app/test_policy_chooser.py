"""Policy auto: what it decides, and what it remembers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from specee.app.engine.measurements import Drafting, Measurements
from specee.app.engine.policy_chooser import PolicyChooser, describe
from specee.app.engine.protocol import Done, Generate, Message, ModelInfo
from specee.app.engine.thread_limit import limit_threads
from specee.app.errors import AppError
from specee.app.options import ChatOptions, PolicyChoice
from specee.predictors.decoding.stats import DecodingStats, DraftCounts

AUTO = PolicyChoice("auto")
INFO = ModelInfo("large", "large.gguf", "llama", 4, 512, 2)


def test_auto_drafts_where_rows_can_be_dropped(make_backend: Callable[..., Any]) -> None:
    chooser, backend = PolicyChooser(), make_backend()
    decision = chooser.decide(backend, AUTO)
    assert decision.choice.name == "chain" and "where that pays" in decision.reason
    assert decision.dense_rate and decision.dense_rate > 0
    assert chooser.build_policy(backend, decision.choice).name == "chain"


def test_a_memory_that_cannot_drop_rows(make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = make_backend()
    monkeypatch.setattr(backend.engine, "no_drafts", "its memory cannot drop rejected tokens")
    chooser = PolicyChooser()
    decision = chooser.decide(backend, AUTO)
    assert decision.choice.name == "dense" and "memory cannot drop" in decision.reason
    with pytest.raises(AppError, match="--policy dense"):
        chooser.decide(backend, PolicyChoice("chain"))


def test_rows_that_differ_from_single_ones(make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = make_backend()
    logits = backend.engine.logits
    monkeypatch.setattr(backend.engine, "logits", lambda i: logits(i) + 1e-6 * i)
    decision = PolicyChooser().decide(backend, AUTO)
    assert decision.choice.name == "dense" and "exactly its own text" in decision.reason


def test_no_more_rows_at_once_than_are_equal(make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU takes other kernels from some number of rows on."""
    backend = make_backend(n_slots=2)
    logits, engine = backend.engine.logits, backend.engine
    monkeypatch.setattr(engine, "logits", lambda i: logits(i) + 1e-6 * (len(engine.in_flight) > 4))
    assert PolicyChooser().decide(backend, AUTO).choice.name == "chain"
    assert [slot.max_equal_rows for slot in engine.slots] == [4, 4]


def test_policies_that_verify_need_equal_rows(
    make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_backend()
    logits = backend.engine.logits
    monkeypatch.setattr(backend.engine, "logits", lambda i: logits(i) + 1e-6 * i)
    for name in ("exact", "chain", "tree", "pipelined"):
        with pytest.raises(AppError, match="--policy dense"):
            PolicyChooser().decide(backend, PolicyChoice(name))
    assert PolicyChooser().decide(backend, PolicyChoice("dense")).choice.name == "dense"


def test_a_window_too_small_to_measure(make_backend: Callable[..., Any]) -> None:
    assert PolicyChooser().decide(make_backend(n_ctx=3), AUTO).choice.name == "dense"


def test_what_the_user_chose_is_not_measured(make_backend: Callable[..., Any]) -> None:
    decision = PolicyChooser().decide(make_backend(), PolicyChoice("specee"))
    assert decision.choice.name == "specee" and decision.dense_rate is None
    assert "lossy" in decision.reason
    for lossy in ("chain:typical", "tree:typical", "specee"):
        assert "lossy" in PolicyChooser().decide(make_backend(), PolicyChoice.parse(lossy)).reason
    assert "lossy" not in PolicyChooser().decide(make_backend(), PolicyChoice.parse("chain:rejection")).reason


def test_measurements_are_remembered(make_backend: Callable[..., Any], tmp_path: Path) -> None:
    store, backend = tmp_path / "measured.json", make_backend()
    chooser = PolicyChooser(Measurements(store, "v1"))
    rate = chooser.decide(backend, AUTO).dense_rate
    chooser.build_policy(backend, PolicyChoice("chain"))
    chooser.learn(backend, DecodingStats(tokens=5, step_seconds=1.0, dense_seconds=9.0))
    assert "so far" not in PolicyChooser(Measurements(store, "v1")).decide(backend, AUTO).reason, "too short"
    chooser.learn(backend, DecodingStats(tokens=50, step_seconds=1.0, dense_seconds=1.5))
    again = PolicyChooser(Measurements(store, "v1")).decide(backend, AUTO)
    assert again.dense_rate == rate and "1.50x of dense so far" in again.reason
    assert PolicyChooser(Measurements(store, "v1")).decide(backend, PolicyChoice("dense")).dense_rate == rate
    assert "so far" not in PolicyChooser(Measurements(store, "v2")).decide(backend, AUTO).reason, "another build"
    stored = json.loads(store.read_text())
    (key,) = [key for key in stored["drafting"] if key.endswith("v1")]
    for damage in ({}, {"1": -1.0}, {"1": "x"}, {"0": 1.0}, [1]):
        stored["drafting"][key]["seconds"] = damage
        store.write_text(json.dumps(stored))
        assert "so far" not in PolicyChooser(Measurements(store, "v1")).decide(backend, AUTO).reason
    for text in ("{", "[]", "", "null"):
        store.write_text(text)
        assert PolicyChooser(Measurements(store, "v1")).decide(backend, AUTO).choice.name == "chain"


def test_what_a_benchmark_found_of_the_stock_library_is_remembered(
    make_backend: Callable[..., Any], tmp_path: Path
) -> None:
    store, backend = tmp_path / "measured.json", make_backend()
    chooser = PolicyChooser(Measurements(store, "v1"))
    for stock in (None, 0.3):
        chooser.measurements.keep_stock_rate(backend, stock, 58.0)
        assert chooser.decide(backend, AUTO).stock_rate is None, "never made up, nor what a busy machine gave"
    chooser.measurements.keep_stock_rate(backend, 38.2, 58.0)
    for policy in ("auto", "dense"):
        found = PolicyChooser(Measurements(store, "v1")).decide(backend, PolicyChoice.parse(policy))
        assert found.stock_rate == 38.2
    assert PolicyChooser(Measurements(store, "v2")).decide(backend, AUTO).stock_rate is None, "another build"


def test_a_refusal_is_remembered(make_backend: Callable[..., Any]) -> None:
    chooser, backend = PolicyChooser(), make_backend()
    chooser.measurements.drafting[chooser.measurements.key(backend)] = Drafting({}, "no such memory")
    assert chooser.decide(backend, AUTO).reason.endswith("no such memory")


def test_the_reason_says_what_drafts_brought() -> None:
    drafts = {
        "retrieval": DraftCounts([10], [5]),
        "suffix": DraftCounts([20, 18], [9, 5]),
        "model": DraftCounts([], []),
    }
    stats = DecodingStats(tokens=41, steps=32, step_seconds=1.0, dense_seconds=1.25, drafts=drafts)
    brought = "drafting 1.5 tokens a step from suffix and retrieval: 1.25 tokens a step, 1.25x of dense"
    small = replace(INFO, drafter="small-1b")
    assert describe(stats, "drafting tokens where that pays", INFO) == brought
    assert describe(stats, "chosen by the user", INFO) == f"chosen by the user; {brought}"
    assert describe(stats, "drafting tokens", small) == f"{brought}; small-1b would have cost more than it brings"
    assert describe(DecodingStats(tokens=3, steps=2), "chosen by the user", small) == "chosen by the user"
    head = replace(INFO, drafter="head", drafter_is_for_others=True)
    stats.drafts["eagle3"] = DraftCounts([1], [1])
    assert describe(stats, "", head).endswith(
        "; head was trained for another model file, so fewer of its drafts may be right"
    )


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

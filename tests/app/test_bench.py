"""The benchmark over a fake backend, and its figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specee.app.bench import metrics
from specee.app.bench.policy_run import ComparedPolicy
from specee.app.bench.prompts import DEFAULT, BenchPrompt, read_prompts
from specee.app.bench.report import report
from specee.app.bench.run import compare
from specee.app.cli.bench import text as as_text
from specee.app.errors import AppError
from specee.app.first_difference import first_difference
from specee.app.options import PLAIN_GREEDY, PolicyChoice

FACTS: dict[str, Any] = {
    "model": "fake",
    "arch": "llama",
    "n_layers": 30,
    "model_sha256": "0" * 64,
    "max_tokens": 64,
    "temperature": 0.0,
    "repeat_penalty": 1.0,
    "version": "0",
    "machine": {"cpu": "none", "threads": 1, "kernels": "all"},
}


def compared(name: str) -> ComparedPolicy:
    return ComparedPolicy(name, PolicyChoice(name), "asked for")


class Wrong:
    """One token is not the one that dense would choose."""

    name = "specee"

    def __init__(self, inner: Any, at: int, token: int) -> None:
        self.inner, self.at, self.token = inner, at, token

    def reset(self) -> None: ...

    def decode(self, state: Any) -> Any:
        from dataclasses import replace

        from specee.predictors.types import TokenEvent

        steps, result = self.inner.decode(state), None
        while True:
            try:
                step = steps.send(result)
            except StopIteration:
                return
            if isinstance(step, TokenEvent) and step.index == self.at:
                step = replace(step, token=self.token)
            result = yield step


def test_a_policy_with_the_same_text_agrees(make_backend: Callable[..., Any]) -> None:
    policies = [compared("dense"), compared("exact")]
    prompts = [BenchPrompt("a", "One"), BenchPrompt("b", "Two")]
    results = compare(make_backend(b"to be or not to be"), policies, prompts, PLAIN_GREEDY, 64, None, lambda m: None)
    found = report(policies, prompts, results, FACTS)["policies"]
    exact = found["exact"]
    assert exact["identical_texts"] == 2 and exact["first_differences"] == {}
    assert exact["agreement"] == 1.0 and exact["ppl_ratio"] == pytest.approx(1.0)
    assert exact["mean_exit_layer"] < found["dense"]["mean_exit_layer"] == 30
    assert exact["speedup_min"] <= exact["speedup"] <= exact["speedup_max"]
    assert found["dense"]["speedup"] == 1.0
    assert exact["exit_layers"].keys() == {24, 30}


def test_a_policy_that_errs_is_found_out(make_backend: Callable[..., Any], scripted: Callable[..., Any]) -> None:
    backend = make_backend(b"no way out")
    backend.policies["specee"] = Wrong(scripted(), at=4, token=ord("X"))
    policies = [compared("dense"), compared("specee")]
    prompts = [BenchPrompt("a", "One")]
    results = compare(backend, policies, prompts, PLAIN_GREEDY, 64, None, lambda m: None)
    whole = {**FACTS, "prompts": 1}
    found = report(policies, prompts, results, whole)
    specee = found["policies"]["specee"]
    assert specee["identical_texts"] == 0 and specee["first_differences"] == {"a": 4}
    n = len("no way out") + 1  # with the stop token
    assert specee["agreement"] == pytest.approx((n - 1) / n)
    assert specee["ppl_ratio"] > 1.0
    json.dumps(found)
    text = as_text(found)
    assert "specee" in text and f"{(n - 1) / n:.1%}" in text


def test_order_rotates(make_backend: Callable[..., Any]) -> None:
    steps: list[str] = []
    policies = [compared("dense"), compared("exact")]
    prompts = [BenchPrompt("a", "One"), BenchPrompt("b", "Two")]
    compare(make_backend(), policies, prompts, PLAIN_GREEDY, 8, None, lambda m: steps.append(m.what))
    assert [t.rpartition(": ")[2] for t in steps] == ["dense", "exact", "exact", "dense"]


def test_duplicates_and_differences() -> None:
    assert metrics.duplicate_words(["the the cat", "sat"]) == 0.5
    assert metrics.duplicate_words([""]) == 0.0
    assert first_difference([1, 2], [1, 2]) is None
    assert first_difference([1, 2], [1, 2, 3]) == 2
    assert first_difference([1, 9], [1, 2]) == 1
    assert metrics.geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    assert metrics.nll(np.zeros(8, np.float32), 3) == pytest.approx(math.log(8))
    assert metrics.nll(np.array([1e4, 0.0], np.float32), 1) == pytest.approx(1e4)


def test_prompts_are_read(tmp_path: Path) -> None:
    assert read_prompts(None) == list(DEFAULT)
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "x", "prompt": "Hi"}\n\n{"prompt": "Ho"}\n')
    assert read_prompts(str(file)) == [BenchPrompt("x", "Hi"), BenchPrompt("3", "Ho")]
    file.write_text('{"id": 1}\n')
    with pytest.raises(AppError, match="line 1"):
        read_prompts(str(file))
    with pytest.raises(AppError, match="missing"):
        read_prompts(str(tmp_path / "missing"))

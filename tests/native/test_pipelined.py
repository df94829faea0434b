"""Layers on two workers: each computes rows of its own at the same time, and the text is that of the CPU alone."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np
import pytest
from helpers import random_tokens
from workers import worker_process

from specee.models import embedded
from specee.native import devices
from specee.native.engine import Model, RowEngine, Sampler
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding import driver
from specee.predictors.decoding.build_policy import build_pipelined
from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.state import begin_decoding
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.drafters.guess import Guess
from specee.predictors.drafters.termination import FixedLength

N_TOKENS = 24


class Known:
    """Guesses an answer that it knows, but for every fourth token."""

    name = "known"

    def __init__(self, answer: list[int]) -> None:
        self._guesses = [token + (i % 4 == 3) for i, token in enumerate(answer)]
        self._at = self._ahead = 0

    def begin(self, tokens: Any) -> None:
        self._at = 0

    def guess(self, context: Any, row: int | None) -> Guess | None:
        self._ahead = self._at if row is not None else self._ahead + 1
        return Guess(self._guesses[self._ahead], 0.9, None) if self._ahead < len(self._guesses) else None

    def accept(self, token: int) -> None:
        self._at += 1

    def learn(self, kind: Any, hit: bool) -> None: ...


@pytest.fixture(scope="module")
def split() -> Iterator[tuple[RowEngine, list[Popen[str]]]]:
    """The embedded model, half of its layers on each of two workers."""
    path = embedded.path()
    if path is None:
        pytest.skip("built without the embedded model")
    with ExitStack() as stack:
        found = [stack.enter_context(worker_process()) for _ in range(2)]
        model = Model(
            path, gpu_layers=99, devices=devices.choose([endpoint for _, endpoint in found]), tensor_split=(15, 16)
        )
        engine = RowEngine(model, n_ctx=512)
        yield engine, [process for process, _ in found]
        engine.close()
        model.close()


def answer(engine: RowEngine, policy: Any, temperature: float) -> tuple[list[int], Any]:
    prompt = random_tokens(engine, 20)
    sampler = Sampler(engine.model, temperature=temperature)
    engine.prefill(prompt)
    state = begin_decoding(engine, prompt, sampler, np.random.default_rng(5), N_TOKENS)
    for _ in driver.run(policy, engine, state):
        pass
    sampler.close()
    assert engine.tokens == (prompt + state.tokens)[:-1] and engine.n_in_flight == 0
    return state.tokens, state.stats


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("width", [1, 3])
def test_the_text_is_that_of_dense(split: tuple[RowEngine, list[Popen[str]]], width: int, temperature: float) -> None:
    engine, _ = split
    assert engine.stages == (15, engine.n_layer)
    answer(engine, Dense(), temperature)  # what is kept of the prompt is computed alike from now on
    dense, _ = answer(engine, Dense(), temperature)
    drafter = ChainDrafter([Known(dense)], CostModel({1: 1.0}), None, FixedLength(2 * width))
    tokens, stats = answer(engine, build_pipelined(engine.stages, None, drafter, width), temperature)
    assert tokens == dense
    assert stats.accepted > N_TOKENS // 2 and stats.tested > stats.accepted


@pytest.mark.parametrize("stopped", [0, 1])
def test_one_worker_computes_while_the_other_one_does(split: tuple[RowEngine, list[Popen[str]]], stopped: int) -> None:
    """One is stopped in the middle: the other one does its part all the same."""
    engine, processes = split
    engine.prefill(random_tokens(engine, 20))
    (half, n), length = engine.stages, engine.length

    def begin() -> tuple[int, int]:
        engine.roll_back(length)
        first = engine.append(5)
        engine.advance([first], half)
        return first, engine.append(6, first)

    first, second = begin()
    engine.advance_stages([([first], n), ([second], half)], logits=True)  # graphs are built
    expected = engine.logits(0)
    other = processes[1 - stopped].pid
    first, second = begin()
    before = seconds_on_cpu(other)
    if stopped == 0:
        engine.advance([first], n, logits=True)
    else:
        engine.advance([second], half)
    taken = seconds_on_cpu(other) - before

    first, second = begin()
    before = seconds_on_cpu(other)
    processes[stopped].send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        try:
            computing = pool.submit(engine.advance_stages, [([first], n), ([second], half)], True)
            until = time.monotonic() + 60
            while seconds_on_cpu(other) - before < taken / 2:
                assert time.monotonic() < until, "it waits"
                time.sleep(0.01)
            assert not computing.done()
        finally:
            processes[stopped].send_signal(signal.SIGCONT)
        computing.result()
    assert np.array_equal(engine.logits(0), expected)


def seconds_on_cpu(pid: int) -> float:
    """Of all threads of a process, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

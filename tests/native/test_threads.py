"""How many threads compute: the rule with times of our own, and that no number of them changes a bit."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from helpers import append_all, kv_bytes

from specee.models import embedded
from specee.native import cpu, library, thread_tuning
from specee.native.engine import Floats, Model, RowEngine, advance_together

SAMPLE = 0.1  # seconds between samples of the load


class Machine:
    """A computation on some cores beside others that always want to run, as the system would report it."""

    def __init__(self, cores: int, threads: int) -> None:
        self.lib, self.cores = library.load(), cores
        self.rule = ctypes.c_void_p(self.lib.specee_thread_rule_init(cores, threads))
        self.threads = min(cores, threads)

    def sample(self, others: float = 0, seconds: float = SAMPLE, share: float = 0.5, waiting: bool = False) -> int:
        """The decision beside so many others; where cores are short, they get `share` of one."""
        ours = 0 if waiting else self.threads
        short = max(0.0, ours + others - self.cores)
        theirs = others - short * (1 - share)
        own = min(float(ours), self.cores - theirs)
        return self.decide(seconds, (self.cores - own - theirs) * seconds, own * seconds)

    def decide(self, seconds: float, idle: float, own: float) -> int:
        self.threads = self.lib.specee_thread_rule_decide(self.rule, seconds, idle, own)
        return self.threads


@pytest.fixture
def machine() -> Iterator[Callable[[int, int], Machine]]:
    made: list[Machine] = []

    def make(cores: int, threads: int) -> Machine:
        made.append(Machine(cores, threads))
        return made[-1]

    yield make
    for one in made:
        one.lib.specee_thread_rule_free(one.rule)


Make = Callable[[int, int], Machine]


def test_alone_all_threads_compute(machine: Make) -> None:
    two = machine(2, 2)
    assert {two.sample(others=noise) for noise in (0, 0.1, 0.25, 0.1, 0.2) for _ in range(20)} == {2}


@pytest.mark.parametrize("waiting", [False, True])
def test_a_neighbour_takes_one_thread_and_gives_it_back(machine: Make, waiting: bool) -> None:
    two = machine(2, 2)
    assert two.sample() == 2
    assert two.sample(others=1, waiting=waiting) == 1
    assert two.sample(others=1) == 1
    assert two.sample() == 2


def test_no_core_free_leaves_one_thread(machine: Make) -> None:
    two = machine(2, 2)
    assert [two.sample(others=2) for _ in range(5)] == [1] * 5
    assert two.sample(others=1) == 1
    assert two.sample() == 2


def test_many_cores(machine: Make) -> None:
    many = machine(16, 16)
    seen = [many.sample(others=4) for _ in range(10)]
    assert seen == sorted(seen, reverse=True) and seen[-1] == 12
    assert many.sample(others=1) == 15
    assert many.sample() == 16


def test_others_on_cores_that_are_not_needed_cost_nothing(machine: Make) -> None:
    some = machine(16, 4)
    assert {some.sample(others=12) for _ in range(30)} == {4}
    assert some.sample(others=13) <= 4


def test_more_threads_than_cores_are_never_used(machine: Make) -> None:
    assert machine(2, 6).sample() == 2
    assert machine(1, 4).sample() == 1


def test_a_neighbour_that_stays_is_tried_ever_less_often(machine: Make) -> None:
    two = machine(2, 2)
    for _ in range(round(100 / SAMPLE)):
        two.sample(others=1)
    tries = sum(two.sample(others=1) == 2 for _ in range(round(160 / SAMPLE)))
    assert 8 <= tries <= 11  # every 16 s, one sample long


def test_a_neighbour_that_yields_is_found_out(machine: Make) -> None:
    """Of low priority: it uses what is free, and takes nearly nothing from who wants it too."""
    two = machine(2, 2)
    two.sample(others=1, waiting=True)
    assert two.threads == 1
    after = [two.sample(others=1, share=0.05) for _ in range(round(10 / SAMPLE))]
    assert after[-1] == 2 and after.index(2) * SAMPLE <= 2.1


def test_a_pause_says_nothing(machine: Make) -> None:
    two = machine(2, 2)
    assert two.decide(60, idle=60, own=0) == 2
    assert two.decide(5, idle=0, own=5) == 1  # no pause: a long pass on one core
    assert two.decide(60, idle=120, own=0) == 1
    assert two.sample() == 2


def test_the_number_of_threads_changes_no_bit() -> None:
    """A prompt of 700 tokens, tokens, batches of 2 to 8 rows, ranges of layers; also when it changes in the middle."""
    path = embedded.path()
    if path is None:
        pytest.skip("built without the embedded model")
    with closing(Model(path)) as model, closing(RowEngine(model, n_ctx=1024, n_threads=2)) as engine:
        expected = None
        for threads in ([1], [2], [3], [2, 1, 1, 3, 2]):
            found = decode(engine, threads)
            if expected is None:
                expected = found
            assert found[1] == expected[1], "K/V"
            np.testing.assert_array_equal(found[0], expected[0], f"logits with {threads} threads")


def decode(engine: RowEngine, threads: list[int]) -> tuple[Floats, bytes]:
    """Logits of all rows and the state, with these numbers of threads, one step each."""
    text = [int(t) for t in np.random.default_rng(3).integers(3, 4000, 800)]
    rows, at = [], 700
    engine.roll_back(0)
    engine.fix_threads(threads[0])
    engine.prefill(text[:at])
    for turn, n in enumerate((1, 1, 2, 1, 3, 4, 1, 6, 8, 1, 1, 12)):
        engine.fix_threads(threads[turn % len(threads)])
        assert engine.active_threads == threads[turn % len(threads)]
        cut = 7 + turn
        batch = append_all(engine, text[at : at + n])
        engine.advance(batch, cut)
        engine.fix_threads(threads[(turn + 1) % len(threads)])
        engine.advance(batch, engine.n_layer, logits=True)
        engine.commit(batch[-1])
        rows += [engine.logits(i) for i in range(n)]
        at += n
    engine.fix_threads(0)
    return np.array(rows), kv_bytes(engine)


def test_a_pass_that_is_begun_again_changes_no_bit() -> None:
    """A prompt, a token, rows at once, rows through a range of layers and of two slots: each stopped in its middle."""
    path = embedded.path()
    if path is None:
        pytest.skip("built without the embedded model")
    with closing(Model(path)) as model, closing(RowEngine(model, n_ctx=512, n_slots=2, n_threads=2)) as engine:
        other = engine.slots[1]
        stop = engine.lib.specee_rows_stop_next
        engine.fix_threads(2)  # a real neighbour must not stop another one
        found = []
        for stops in (True, False):
            rows = []
            engine.roll_back(0)
            before = stop(engine._handle) if stops else 0
            engine.prefill(list(range(100, 164)))
            rows.append(engine.logits(0))
            for n in (1, 4):
                batch = append_all(engine, list(range(200, 200 + n)))
                if stops:
                    stop(engine._handle)
                engine.advance(batch, 12)
                if stops:
                    stop(engine._handle)
                engine.advance(batch, engine.n_layer, logits=True)
                engine.commit(batch[-1])
                rows += [engine.logits(i) for i in range(n)]
            other.roll_back(0)
            other.prefill([100, 101])
            batches = [(other, append_all(other, [7])), (engine, append_all(engine, [8, 9]))]
            if stops:
                stop(engine._handle)
            advance_together(batches, engine.n_layer, logits=True)
            rows += [other.logits(0), engine.logits(1)]
            engine.commit(batches[1][1][-1])
            other.roll_back(0)
            found.append((np.array(rows), kv_bytes(engine)))
            if stops:
                assert stop(engine._handle) == before + 6
                engine.forward(5)
        np.testing.assert_array_equal(found[0][0], found[1][0])
        assert found[0][1] == found[1][1], "K/V"


def test_threads_are_those_asked_for_or_fewer(tmp_path: Path) -> None:
    path = embedded.path()
    if path is None:
        pytest.skip("built without the embedded model")
    with closing(Model(path)) as model:
        for asked in (1, 2, 64):
            with closing(RowEngine(model, n_ctx=256, n_threads=asked)) as engine:
                engine.prefill([5, 6, 7])
                assert 1 <= engine.active_threads <= min(asked, cpu.usable_cores())


class Memory:
    """Tokens take `work` seconds of computing, shared by the threads, and never less than `memory` seconds."""

    n_threads, n_ctx, length = 16, 100, 7

    def __init__(self, work: float, memory: float, waiting: float) -> None:
        self.work, self.memory, self.waiting = work, memory, waiting
        self.now, self.threads = 0.0, 0
        self.log: list[int] = []

    def forward(self, token: int) -> None:
        self.now += max(self.memory, self.work / self.threads) + self.waiting * self.threads

    def roll_back(self, length: int) -> None:
        assert length == 7

    def fix_threads(self, n: int) -> None:
        self.threads = n
        self.log.append(n)


def test_the_fewest_threads_that_are_as_fast() -> None:
    assert thread_tuning.counts(16) == [16, 12, 9, 6, 4, 3, 2, 1] and thread_tuning.counts(2) == [2, 1]
    for work, memory, waiting, fewest in ((16, 0, 0, 16), (16, 4, 0.001, 4), (16, 16, 0.0, 1), (16, 2.7, 0.001, 6)):
        machine = Memory(work, memory, waiting)
        assert thread_tuning.fewest_threads(machine, lambda machine=machine: machine.now) == fewest
        assert machine.log[-1] == 0 and set(machine.log) <= {0, *thread_tuning.counts(16)}


def test_trying_threads_and_a_limit_change_no_bit(engine: RowEngine) -> None:
    engine.prefill([5, 6, 7, 8])
    engine.forward(9)
    expected = engine.logits(0)
    engine.roll_back(4)
    fewest = thread_tuning.fewest_threads(engine)
    assert 1 <= fewest <= engine.n_threads and engine.length == 4
    for limit in (1, fewest):
        engine.limit_single_row(limit)
        engine.forward(9)
        assert np.array_equal(engine.logits(0), expected)
        engine.roll_back(4)
    engine.limit_single_row(engine.n_threads)

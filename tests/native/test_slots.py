"""Several slots in one context, and rows as a tree: each row of a principal chain gives what it gives alone.

Tolerance: none. `engine` is a context of one slot, in which the same tokens are decoded one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from helpers import ROUNDING, append_all, kv_numbers, random_tokens
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specee.native.engine import Cancelled, Floats, Model, RowEngine, Sampler, advance_together
from specee.native.errors import NativeError

N_SLOTS, N_ANSWER = 3, 12
N_PROMPTS = (12, 250, 30)  # the second one's rows stand on both sides of the padding of the KV cache

property_test = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture(scope="session")
def shared_slots(model: Model) -> Iterator[tuple[RowEngine, ...]]:
    engine = RowEngine(model, n_ctx=512, n_slots=N_SLOTS, n_threads=2)
    n = engine.n_embd
    zeros = np.zeros((n, n // 32 * 34), np.uint8)
    for layer in exit_layers(engine):  # lenses whose estimates mean nothing
        engine.set_lens(layer, zeros, None, np.ones(n, np.float32))
    engine.set_shortlist(np.arange(32, dtype=np.int32), zeros[:32])
    yield engine.slots
    engine.close()


@pytest.fixture
def slots(shared_slots: tuple[RowEngine, ...]) -> Iterator[tuple[RowEngine, ...]]:
    """Empty slots of one context, its graphs kept between tests."""
    for slot in shared_slots:
        slot.roll_back(0)
    yield shared_slots
    shared_slots[0].resume()


def exit_layers(engine: RowEngine) -> list[int]:
    return [engine.n_layer - 3, engine.n_layer - 2]


class Alone:
    """What a prompt's continuation gives in a context of its own."""

    def __init__(self, engine: RowEngine, n_prompt: int, seed: int) -> None:
        self.prompt = random_tokens(engine, n_prompt, seed=n_prompt)
        self.answer = random_tokens(engine, N_ANSWER, seed)
        self.logits: list[Floats] = []
        self.states: list[Floats] = []
        engine.roll_back(0)
        engine.prefill(self.prompt)
        self.kv = [kv_numbers(engine)]
        for token in self.answer:
            engine.forward(token)
            self.logits.append(engine.logits(0))
            self.states.append(engine.hidden(engine.tip))
            self.kv.append(kv_numbers(engine))


@cache
def alone_in(engine: RowEngine, n_prompt: int, seed: int) -> Alone:
    return Alone(engine, n_prompt, seed)


class Conversation:
    """A slot, and the rows that it must have: the chain's tokens are those of the answer, side rows' any others."""

    def __init__(self, engine: RowEngine, alone: Alone) -> None:
        self.engine, self.alone = engine, alone
        self.restart()

    def restart(self) -> None:
        self.engine.roll_back(0)
        self.engine.prefill(self.alone.prompt)
        self.n = 0  # committed tokens of the answer
        self.clear()

    def clear(self) -> None:
        self.chain: list[int] = []
        self.parents: dict[int, int] = {}
        self.depths: dict[int, int] = {}

    @property
    def side(self) -> list[int]:
        return [row for row in self.depths if row not in self.chain]

    @property
    def grows(self) -> bool:
        return not any(self.depths[row] for row in self.side)

    def append(self) -> None:
        most = min(N_ANSWER - self.n, self.engine.max_equal_rows)  # that complete at once, with equal bits
        if len(self.chain) < most and self.grows:
            row = self.engine.append(self.alone.answer[self.n + len(self.chain)], self.chain[-1] if self.chain else -1)
            self.parents[row] = self.chain[-1] if self.chain else -1
            self.chain.append(row)
            self.depths[row] = 0
            assert self.engine.in_chain(row)

    def append_side(self, data: st.DataObject) -> None:
        # not after the chain's last row, whose first child continues the chain
        parents = [-1, *(row for row in self.depths if row != self.chain[-1])] if self.chain else []
        if parents and self.grows and len(self.depths) < 16:
            parent = data.draw(st.sampled_from(parents))
            row = self.engine.append(data.draw(st.integers(3, 90)), parent)
            self.parents[row], self.depths[row] = parent, 0
            assert not self.engine.in_chain(row)

    def append_side_of_tip(self) -> None:
        row = self.engine.append(7)
        self.parents[row], self.depths[row] = -1, 0

    def run_of(self, depth: int, data: st.DataObject, most: int) -> tuple[list[int], int]:
        """Chain rows of this depth, one after the other, and how deep they may go."""
        same = [i for i, row in enumerate(self.chain) if self.depths[row] == depth]
        if not same or most < 1:
            return [], 0
        start = data.draw(st.integers(0, len(same) - 1))
        batch = same[start : data.draw(st.integers(start, len(same) - 1)) + 1][:most]
        before = [self.depths[row] for i, row in enumerate(self.chain[: batch[-1]]) if i not in batch]
        return [self.chain[i] for i in batch], min(before, default=self.engine.n_layer)

    def side_of(self, batch: list[int], data: st.DataObject, most: int) -> list[int]:
        """New side rows that can go through all layers with these."""
        found: list[int] = []
        for row in self.side:
            parent = self.parents[row]
            ready = parent in (-1, *batch, *found) or self.depths[parent] == self.engine.n_layer
            if self.depths[row] == 0 and ready and len(found) < most and data.draw(st.booleans()):
                found.append(row)
        return found

    def check(self, rows: list[int], logits: bool) -> None:
        for i, row in enumerate(rows):
            if row in self.chain:
                at = self.n + self.chain.index(row)
                if logits:
                    assert np.array_equal(self.engine.logits(i), self.alone.logits[at])
                if self.depths[row] == self.engine.n_layer:
                    assert np.array_equal(self.engine.hidden(row), self.alone.states[at])
        if logits:
            with pytest.raises(NativeError, match="no such row of logits"):
                self.engine.logits(len(rows))

    def complete(self, logits: bool) -> None:
        rows = [row for row in self.chain if self.depths[row] < self.engine.n_layer]
        self.engine.complete(logits)
        self.depths.update(dict.fromkeys(rows, self.engine.n_layer))
        if rows:
            self.check(rows, logits)

    def run_to_exit(self, data: st.DataObject) -> None:
        layers = [layer for layer in exit_layers(self.engine) if not self.chain or layer > self.depths[self.chain[-1]]]
        if self.chain and layers:
            threshold = data.draw(st.sampled_from([-1.0, 2.0]))  # at the first exit, or at none
            self.engine.run_to_exit(self.chain[-1], layers, 0, (), threshold)
            reached = layers[0] if threshold < 0 else layers[-1]
            for row in self.chain:
                self.depths[row] = max(self.depths[row], reached)

    def commit(self, data: st.DataObject) -> None:
        complete = [self.depths[row] == self.engine.n_layer for row in self.chain]
        n = complete.index(False) if False in complete else len(complete)
        if n > 0:
            n = data.draw(st.integers(1, n))
            self.engine.commit(self.chain[n - 1])
            assert self.engine.tip == self.chain[n - 1]
            self.n += n
            self.clear()

    def roll_back(self, data: st.DataObject) -> None:
        self.n = data.draw(st.integers(0, self.n))
        self.engine.roll_back(len(self.alone.prompt) + self.n)
        self.clear()

    def check_all(self) -> None:
        assert all(self.engine.depth(row) == depth for row, depth in self.depths.items())
        assert self.engine.n_in_flight == len(self.depths)
        assert self.engine.tokens == [*self.alone.prompt, *self.alone.answer[: self.n]]


def advance_some(talks: list[Conversation], data: st.DataObject) -> None:
    """Rows of some slots, of one depth, in one batch, in any order within a slot."""
    n_layer = talks[0].engine.n_layer
    depths = sorted({talk.depths[row] for talk in talks for row in talk.chain})
    if not depths:
        return
    depth = data.draw(st.sampled_from(depths))
    free, end, batches = talks[0].engine.max_equal_rows, n_layer, []
    for talk in data.draw(st.permutations(talks)):
        rows, limit = talk.run_of(depth, data, free)
        if limit > depth and data.draw(st.booleans()):
            free, end = free - len(rows), min(end, limit)
            batches.append((talk, rows))
    if not batches or end <= depth:
        return
    if end < n_layer or data.draw(st.booleans()):
        end = data.draw(st.integers(depth + 1, end))
    if depth == 0 and end == n_layer:
        for talk, rows in batches:
            side = talk.side_of(rows, data, free)
            free -= len(side)
            rows += side
    batches = [(talk, data.draw(st.permutations(rows))) for talk, rows in batches]
    logits = end == n_layer and data.draw(st.booleans())
    advance_together([(talk.engine, rows) for talk, rows in batches], end, logits)
    for talk, rows in batches:
        talk.depths.update(dict.fromkeys(rows, end))
        talk.check(rows, logits)


@property_test
@given(data=st.data())
def test_random_mixes(engine: RowEngine, slots: tuple[RowEngine, ...], data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 3))
    talks = [Conversation(slot, alone_in(engine, n, seed)) for slot, n in zip(slots, N_PROMPTS, strict=True)]
    actions = [*["append"] * 6, *["side"] * 3, *["advance"] * 8, "exit", "complete", "commit", "roll back", "restart"]
    for action in data.draw(st.lists(st.sampled_from(actions), min_size=20, max_size=60)):
        talk = data.draw(st.sampled_from(talks))
        if action == "append":
            talk.append()
        elif action == "side":
            talk.append_side(data)
        elif action == "advance":
            advance_some(talks, data)
        elif action == "exit":
            talk.run_to_exit(data)
        elif action == "complete":
            talk.complete(data.draw(st.booleans()))
        elif action == "commit":
            talk.commit(data)
        elif action == "roll back":
            talk.roll_back(data)
        else:
            talk.restart()
        for each in talks:
            each.check_all()
    for talk in talks:
        talk.complete(logits=True)
        if talk.chain:
            talk.engine.commit(talk.chain[-1])
            talk.n += len(talk.chain)
    for talk in talks:
        assert talk.alone.kv[talk.n] == kv_numbers(talk.engine)


# ---- trees ---------------------------------------------------------------------------------------------------------


def test_a_side_row_sees_its_own_ancestors(engine: RowEngine, slots: tuple[RowEngine, ...]) -> None:
    """Its logits are those of its path alone, but for the last bits."""
    prompt = random_tokens(engine, 12)
    paths = [(5, 6, 7), (5, 8), (5, 8, 9), (10,), (10, 11)]
    expected = []
    engine.prefill(prompt)
    for path in paths:
        for token in path:
            engine.forward(token)
        expected.append(engine.logits(0))
        engine.roll_back(len(prompt))
    tree = slots[1]
    tree.prefill(prompt)
    rows: dict[tuple[int, ...], int] = {}
    for path in paths:
        for n in range(1, len(path) + 1):
            if path[:n] not in rows:
                rows[path[:n]] = tree.append(path[n - 1], rows.get(path[: n - 1], -1))
    assert [tree.in_chain(row) for row in rows.values()] == [True] * 3 + [False] * 4
    tree.advance(list(rows.values()), tree.n_layer, logits=True)
    order = list(rows)
    for path, alone in zip(paths, expected, strict=True):
        found = tree.logits(order.index(path))
        assert np.allclose(found, alone, rtol=0, atol=ROUNDING * np.abs(alone).max())
        others = [np.abs(found - other).max() for other in expected if other is not alone]
        assert np.abs(found - alone).max() < 0.1 * min(others)
    assert np.array_equal(tree.logits(order.index(paths[0])), expected[0])


def test_what_a_tree_refuses_changes_nothing(engine: RowEngine, slots: tuple[RowEngine, ...]) -> None:
    talk = Conversation(slots[2], alone_in(engine, 12, 0))
    tree, n_layer = talk.engine, talk.engine.n_layer
    for _ in range(3):
        talk.append()
    side = tree.append(7)
    below = tree.append(8, side)
    late = tree.append(9, talk.chain[0])
    rows = [*talk.chain, side]
    for end in (2, n_layer - 1):
        with pytest.raises(NativeError, match="all layers at once"):
            tree.advance(rows, end)
    with pytest.raises(NativeError, match="an earlier row"):
        tree.advance([*talk.chain, below], n_layer)
    with pytest.raises(NativeError, match="the last row of the principal chain"):
        tree.run_to_exit(side, [2], 0, (), 1.0)
    assert tree.n_in_flight == 6 and all(tree.depth(row) == 0 for row in (*rows, below, late))
    tree.advance(rows, n_layer, logits=True)
    logits = [tree.logits(i) for i in range(4)]
    for call, reason in (
        (lambda: tree.append(5, talk.chain[-1]), "takes no more rows"),
        (lambda: tree.append(5, side), "takes no more rows"),
        (lambda: tree.commit(side), "a side row is not committed"),
        (lambda: tree.propagate_kv(below), "range of layers"),
        (lambda: tree.forward(5), "while rows are in flight"),
        (lambda: tree.advance([side], n_layer, logits=True), "all layers at once"),
    ):
        with pytest.raises(NativeError, match=reason):
            call()
        assert tree.n_in_flight == 6 and (tree.depth(side), tree.depth(below)) == (n_layer, 0)
    for i in range(4):
        assert np.array_equal(tree.logits(i), logits[i])
    tree.advance([below, late], n_layer)  # rows that were there before go on
    talk.depths = dict.fromkeys(talk.chain, n_layer)
    talk.check(talk.chain, logits=False)
    tree.commit(talk.chain[1])
    assert tree.n_in_flight == 0 and [tree.depth(row) for row in (side, below, late)] == [-1] * 3
    tree.forward(talk.alone.answer[2])
    assert np.array_equal(tree.logits(0), talk.alone.logits[2])


def test_each_row_of_a_tree_takes_a_cell(model: Model) -> None:
    engine = RowEngine(model, n_ctx=256, n_threads=1)
    try:
        engine.prefill(random_tokens(engine, 250))
        rows = append_all(engine, [5, 6, 7])
        side = [engine.append(8), engine.append(9, rows[0]), engine.append(10, rows[1])]
        for parent in (-1, rows[2], side[0]):
            with pytest.raises(NativeError, match="is full"):
                engine.append(5, parent)
        engine.advance([*rows, *side], engine.n_layer, logits=True)
        found = engine.logits(2)
        engine.roll_back(250)
        for token in (5, 6, 7):
            engine.forward(token)
        assert np.array_equal(engine.logits(0), found)
    finally:
        engine.close()


# ---- several slots -------------------------------------------------------------------------------------------------


def test_logits_belong_to_a_slot(slots: tuple[RowEngine, ...], greedy: Sampler) -> None:
    for slot in slots:
        slot.prefill(random_tokens(slot, 12))
    with pytest.raises(NativeError, match="no such row of logits"):
        slots[0].logits(0)  # the last call that made logits was another slot's
    batches = [(slot, append_all(slot, random_tokens(slot, n, seed=n))) for slot, n in ((slots[2], 1), (slots[0], 3))]
    advance_together(batches, slots[0].n_layer, logits=True)
    for slot, rows in batches:
        for i in range(len(rows)):
            assert slot.greedy(i, greedy) == slot.logits(i).argmax()
            assert slot.distribution(i, greedy)[0][0] == slot.logits(i).argmax()
    for call in (lambda: slots[1].logits(0), lambda: slots[2].greedy(1, greedy), lambda: slots[0].logits(-1)):
        with pytest.raises(NativeError, match="no such row of logits"):
            call()


def test_a_batch_of_several_slots_that_fails_changes_nothing(
    engine: RowEngine, slots: tuple[RowEngine, ...], model: Model
) -> None:
    talks = [Conversation(slot, alone_in(engine, n, 1)) for slot, n in zip(slots, N_PROMPTS, strict=True)]
    for talk in talks:
        for _ in range(3):
            talk.append()
        talk.append_side_of_tip()
    n_layer = engine.n_layer
    other = RowEngine(model, n_ctx=256, n_threads=1)
    other.prefill([5, 6])
    both = [(talk.engine, talk.chain) for talk in talks[:2]]
    everything = [(talk.engine, list(talk.depths)) for talk in talks]
    first, second = talks[0].chain, talks[1].chain
    try:
        for batches, reason in (
            (everything, "more rows of several slots"),
            ([*both, (slots[0], [1_000_000])], "no such row"),
            ([*both, (other, [other.append(5)])], "of one context"),
            ([(slots[0], first), (slots[1], second[1:])], "an earlier row"),
        ):
            with pytest.raises(NativeError, match=reason):
                advance_together(batches, n_layer)
        slots[1].cancel()
        for end in (2, n_layer):
            with pytest.raises(Cancelled):
                advance_together(both, end)
        slots[0].resume()
        for talk in talks:
            talk.check_all()
        advance_together(both, 2)
        slots[0].cancel()
        with pytest.raises(Cancelled):
            advance_together(both, n_layer)
        slots[1].resume()
        for talk in talks[:2]:
            talk.depths.update(dict.fromkeys(talk.chain, 2))
        for talk in talks:
            talk.check_all()
            talk.complete(logits=True)
            talk.check_all()
    finally:
        other.close()


def test_an_idle_slot_keeps_its_tip(slots: tuple[RowEngine, ...]) -> None:
    idle, busy = slots[:2]
    idle.prefill([5, 6, 7])
    busy.prefill([5, 6])
    tip, state = idle.tip, idle.hidden(idle.tip)
    for _ in range(3000):
        busy.append(6)
        busy.roll_back(2)
    assert idle.tip == tip and np.array_equal(idle.hidden(tip), state)


def test_slots_share_a_context_and_end_together(model: Model) -> None:
    first = RowEngine(model, n_ctx=256, n_slots=2, n_threads=1)
    second = first.slots[1]
    assert first.slots == second.slots == (first, second)
    for engine in first.slots:
        assert engine.n_ctx == 256
        engine.prefill(random_tokens(engine, 256))
        with pytest.raises(NativeError, match="window of 256 tokens is full"):
            engine.append(5)
    first.close()
    for engine in (first, second):
        with pytest.raises(NativeError, match="no open model"):
            engine.roll_back(0)
    second.close()

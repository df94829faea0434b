"""EAGLE-3 heads: the states that they are given, and what they make of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny_eagle
import tiny_gguf

from specee.models import embedded
from specee.native import abi
from specee.native.abi import int32_p
from specee.native.eagle_head import EagleHead
from specee.native.engine import Cancelled, Model, RowEngine, Sampler, advance_together
from specee.native.errors import NativeError
from specee.native.layer_states import LayerStatesEngine

LAYERS = (1, 3, 5)
TEXT = [1, 5, 9, 17, 30, 31, 7, 8, 9, 10]


def rms(x: Any) -> Any:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-5)


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayerStatesEngine]:
    path = tiny_gguf.write(tmp_path_factory.mktemp("target") / "target.gguf", request.param, seed=1)
    model = Model(path)
    engine = LayerStatesEngine(model, LAYERS, n_ctx=256, n_threads=2)
    yield engine
    engine.close()
    model.close()


@pytest.fixture
def head(target: LayerStatesEngine, tmp_path: Path) -> Iterator[EagleHead]:
    model = Model(tiny_eagle.write(tmp_path / "head.gguf", target.model.path, LAYERS))
    target.roll_back(0)
    head = EagleHead(model, target)
    yield head
    head.close()
    model.close()


def test_states_of_layers_are_kept_and_change_no_bit(target: LayerStatesEngine) -> None:
    plain = RowEngine(target.model, n_ctx=256, n_threads=2)
    target.roll_back(0)
    target.prefill(TEXT)
    plain.prefill(TEXT)
    assert target.tokens == plain.tokens == TEXT and target.n_known == len(TEXT)
    assert np.array_equal(target.logits(0), plain.logits(0))
    states = target.states(0, len(TEXT)).reshape(len(TEXT), len(LAYERS), -1)
    plain.roll_back(3)
    for at in (3, 4):  # the prompt's rows are another batch: nearly the same
        row = plain.append(TEXT[at])
        for i, layer in enumerate(LAYERS):
            plain.advance([row], layer)
            assert np.allclose(states[at, i], plain.hidden(row), rtol=2e-3, atol=2e-3)
        plain.advance([row], plain.n_layer)
        plain.commit(row)
    for engine in (target, plain):
        engine.roll_back(0)
        engine.prefill(TEXT)
        engine.forward(20)
    assert np.array_equal(target.logits(0), plain.logits(0)), "one that stops at layers, one that does not"
    plain.close()


def test_drafted_rows_keep_their_states_only_when_committed(target: LayerStatesEngine) -> None:
    target.roll_back(0)
    target.prefill(TEXT)
    before = target.states(0, len(TEXT))
    rows = [target.append(20)]
    rows.append(target.append(21, rows[-1]))
    rows.append(target.append(22, rows[-1]))
    target.advance(rows, target.n_layer, logits=True)
    target.commit(rows[1])
    assert target.tokens == [*TEXT, 20, 21] and target.n_known == len(TEXT) + 2
    both = target.states(0, target.n_known)
    assert np.array_equal(both[: len(TEXT)], before)
    target.prefill([*TEXT, 20, 21])
    assert np.allclose(target.states(0, target.n_known), both, rtol=1e-2, atol=1e-2)
    row = target.append(3)
    target.advance([row], 2)
    target.propagate_kv(row)
    target.commit(row)  # it never passed the other layers
    assert target.n_known == len(TEXT) + 2 < target.length
    target.forward(4)
    assert target.n_known == len(TEXT) + 2
    assert target.prefill([*TEXT, 20, 21, 3, 4, 5]) == len(TEXT) + 2
    assert target.n_known == target.length


def test_states_do_not_depend_on_how_rows_pass_the_layers(target: LayerStatesEngine) -> None:
    """Bit for bit: one by one, in ranges and completed later, in a tree, after others that were dropped."""
    new = [20, 21, 22]
    n = len(TEXT)

    def start() -> None:
        target.roll_back(0)
        target.prefill(TEXT)

    start()
    for token in new:
        target.forward(token)
    expected, logits = target.states(0, n + 3), target.logits(0)

    start()
    rows: list[int] = []
    for depth, token in zip((4, 2, 1), new, strict=True):  # later rows less deep
        rows.append(target.append(token, rows[-1] if rows else -1))
        target.advance([rows[-1]], depth)
    assert target.n_known == n
    target.complete(logits=True)
    assert np.array_equal(target.logits(2), logits)
    target.commit(rows[-1])
    assert np.array_equal(target.states(0, n + 3), expected)

    start()
    first = target.append(40)
    target.advance([first, target.append(41, first)], target.n_layer)
    target.roll_back(n)  # dropped: nothing of them is left
    rows = [target.append(new[0])]
    side = [target.append(50), target.append(51)]  # siblings of the first row
    rows.append(target.append(new[1], rows[0]))
    side.append(target.append(52, side[0]))
    target.advance([rows[0], side[0], side[1], rows[1], side[2]], target.n_layer, logits=True)
    target.commit(rows[0])
    assert target.n_known == n + 1
    target.forward(new[1])
    target.forward(new[2])
    assert np.array_equal(target.states(0, n + 3), expected)
    target.roll_back(n + 1)
    assert target.n_known == n + 1
    with pytest.raises(NativeError, match="not kept"):
        target.states(n, n + 2)
    target.forward(new[1])
    assert np.array_equal(target.states(0, n + 2), expected[: n + 2])


def test_logits_are_those_of_the_formula(target: LayerStatesEngine, head: EagleHead) -> None:
    """For the first pair, whose attention sees itself only."""
    target.prefill(TEXT[:1])
    assert head.settle(2)
    head.read(TEXT[:2])
    weights = {t.name: t.data.astype(np.float64) for t in gguf.GGUFReader(head._model.path).tensors}
    g = weights["fc.weight"] @ target.states(0, 1)[0]
    x = np.concatenate([rms(weights["token_embd.weight"][TEXT[1]]), rms(g)])
    v = weights["blk.0.attn_v.weight"] @ x
    heads = np.repeat(v.reshape(tiny_eagle.N_HEAD_KV, -1), tiny_eagle.N_HEAD // tiny_eagle.N_HEAD_KV, axis=0)
    h = g + weights["blk.0.attn_output.weight"] @ heads.ravel()
    y = rms(h)
    gate = weights["blk.0.ffn_gate.weight"] @ y
    h = h + weights["blk.0.ffn_down.weight"] @ (gate / (1 + np.exp(-gate)) * (weights["blk.0.ffn_up.weight"] @ y))
    logits = weights["output.weight"] @ rms(h)
    token, prob = head.best()
    assert token == int(np.argmax(logits))
    assert prob == pytest.approx(float(1 / np.exp(logits - logits.max()).sum()), rel=0.01)


def test_what_it_expects_does_not_depend_on_how_it_read(target: LayerStatesEngine, head: EagleHead) -> None:
    target.prefill(TEXT[:-1])
    assert head.settle(len(TEXT))
    head.read(TEXT)
    token, prob = head.best()
    for parts in ([3, 3, 4], [1] * len(TEXT), [9, 1]):
        head.roll_back(0)
        at = 0
        for n in parts:
            head.read(TEXT[at : at + n])
            at += n
        assert head.tokens == TEXT
        again, p = head.best()
        assert again == token and p == pytest.approx(prob, rel=1e-3)


def test_drafts_are_forgotten_and_read_again_with_the_targets_states(
    target: LayerStatesEngine, head: EagleHead
) -> None:
    target.prefill(TEXT[:4])
    head.settle(5)
    head.read(TEXT[:5])
    head.best()
    head.read(TEXT[5:6])
    head.read(TEXT[6:8])  # drafted, with the head's own states
    own = head.best()
    for token in TEXT[4:7]:
        target.forward(token)
    assert head.settle(8) and head.tokens == TEXT[:5]
    head.read(TEXT[5:8])
    true = head.best()
    head.roll_back(0)
    head.read(TEXT[:8])
    assert head.best()[0] == true[0] and head.best()[1] == pytest.approx(true[1], rel=1e-3)
    assert own[1] != pytest.approx(true[1], rel=1e-3)


def test_nothing_follows_what_was_forgotten(target: LayerStatesEngine, head: EagleHead) -> None:
    target.prefill(TEXT)
    with pytest.raises(NativeError, match="nothing is expected"):
        head.best()
    head.read(TEXT)
    best = head.best()
    head.roll_back(len(TEXT))
    assert head.best() == best
    head.roll_back(len(TEXT) - 1)
    with pytest.raises(NativeError, match="nothing is expected"):
        head.best()
    head.read(TEXT[-1:])
    assert head.best()[0] == best[0]


def test_states_of_a_prompt_that_was_stopped_are_not_known(target: LayerStatesEngine) -> None:
    target.roll_back(0)
    target.prefill(TEXT)
    assert target.states(0, len(TEXT)).shape == (len(TEXT), len(LAYERS) * target.n_embd)
    target.roll_back(0)
    target.cancel()
    with pytest.raises(Cancelled):
        target.prefill(TEXT)
    target.resume()
    assert target.n_known == 0
    with pytest.raises(NativeError, match="not kept"):
        target.states(0, 1)


def test_its_steps_are_timed_and_leave_nothing(target: LayerStatesEngine, head: EagleHead) -> None:
    times = head.step_times()
    assert list(times) == [1, 2, 4, 8] and min(times.values()) > 0
    target.prefill(TEXT[:-1])
    head.settle(len(TEXT))
    head.read(TEXT)
    expected = head.best()
    head.roll_back(0)
    head.read(TEXT)
    assert head.best() == expected


def test_long_texts_and_batches_of_every_size(target: LayerStatesEngine, tmp_path: Path) -> None:
    """More sizes than graphs are kept, and K/V beyond the first 256 cells."""
    text = [3 + 7 * i % 50 for i in range(300)]
    engine = LayerStatesEngine(target.model, LAYERS, n_ctx=512, n_threads=2)
    engine.prefill(text[:-1])
    model = Model(tiny_eagle.write(tmp_path / "head.gguf", target.model.path, LAYERS))
    head = EagleHead(model, engine)
    assert head.settle(len(text))
    expected = {}
    for at, token in enumerate(text):
        head.read([token])
        if at:
            expected[at + 1] = head.best()
    head.roll_back(0)
    head.read(text)  # in parts of 128
    assert head.best()[0] == expected[300][0] and head.best()[1] == pytest.approx(expected[300][1], rel=1e-2)
    head.roll_back(1)
    at = 1
    for n in [*range(1, 23), 3, 1, 2]:
        head.read(text[at : at + n])
        at += n
        token, prob = head.best()
        assert token == expected[at][0] and prob == pytest.approx(expected[at][1], rel=1e-2)
    for part in (head, model, engine):
        part.close()


def test_what_is_refused_changes_nothing(target: LayerStatesEngine, head: EagleHead) -> None:
    target.prefill(TEXT)
    assert head.settle(len(TEXT) + 1)
    head.read(TEXT)
    expected = head.best()
    for token in (-1, target.n_vocab):
        with pytest.raises(NativeError, match="no such token"):
            head.read([token])
        assert head.tokens == TEXT and head.best() == expected
    head.read([20])
    with pytest.raises(NativeError, match="no such token"):
        head.read([-1])  # after one that the target has not computed
    head.roll_back(len(TEXT))
    for token in range(target.n_ctx - len(TEXT)):
        head.read([token % 40])
    head.read([20])  # pairs begin with the second token
    with pytest.raises(NativeError, match="window is full"):
        head.read([20])


def test_it_cannot_follow_where_the_target_kept_no_states(target: LayerStatesEngine, head: EagleHead) -> None:
    target.prefill(TEXT[:4])
    row = target.append(TEXT[4])
    target.advance([row], 2)
    target.propagate_kv(row)
    target.commit(row)
    assert not head.settle(6)


@pytest.mark.parametrize(("n_known", "own_head"), [(40, True), (0, False)])
def test_a_short_vocabulary_and_the_targets_own_head(
    target: LayerStatesEngine, tmp_path: Path, n_known: int, own_head: bool
) -> None:
    path = tiny_eagle.write(tmp_path / "head.gguf", target.model.path, LAYERS, n_known=n_known, own_head=own_head)
    model = Model(path)
    target.roll_back(0)
    target.prefill(TEXT[:-1])
    head = EagleHead(model, target)
    head.settle(len(TEXT))
    head.read(TEXT)
    token, prob = head.best()
    assert 0 <= token < target.n_vocab and 0 < prob <= 1
    if n_known:
        tensors = {t.name: t.data for t in gguf.GGUFReader(path).tensors}
        assert token in tensors["d2t"].tolist()
    head.close()
    model.close()


def test_another_file_is_refused(target: LayerStatesEngine) -> None:
    with pytest.raises(NativeError, match="no EAGLE-3 head"):
        EagleHead(target.model, target)


def test_states_of_other_layers_are_refused(target: LayerStatesEngine, tmp_path: Path) -> None:
    two = LayerStatesEngine(target.model, LAYERS[:2], n_ctx=64, n_threads=2)
    model = Model(tiny_eagle.write(tmp_path / "head.gguf", target.model.path, LAYERS))
    with pytest.raises(NativeError, match="other layers"):
        EagleHead(model, two)
    for part in (model, two):
        part.close()


def test_next_to_the_embedded_model(tmp_path: Path) -> None:
    path = embedded.path()
    if path is None:
        pytest.skip("built without the embedded model")
    model = Model(path)
    layers = (2, 15, 27)
    target = LayerStatesEngine(model, layers, n_ctx=256, n_threads=2)
    head_model = Model(tiny_eagle.write(tmp_path / "head.gguf", path, layers, n_known=512, own_head=True))
    head = EagleHead(head_model, target)
    tokens = model.tokenize("The three longest rivers of the world are")
    target.prefill(tokens)
    token = target.greedy(0, Sampler(model))
    assert head.settle(len(tokens) + 1)
    head.read([*tokens, token])
    first = head.best()
    head.read([first[0]])
    assert head.best()[0] >= 0 and head.settle(len(tokens) + 1)
    for part in (head, head_model, target, model):
        part.close()


def test_a_prompt_is_read_again_only_where_its_states_are_needed(target: LayerStatesEngine) -> None:
    target.roll_back(0)
    target.prefill(TEXT)
    row = target.append(20)
    target.advance([row], 2)
    target.propagate_kv(row)
    target.commit(row)
    target.needs_states = False
    try:
        assert target.prefill([*TEXT, 20, 3, 4]) == len(TEXT) + 1
        assert target.n_known == len(TEXT)
    finally:
        target.needs_states = True
    assert target.prefill([*TEXT, 20, 3, 4]) == len(TEXT)
    assert target.n_known == target.length


def test_other_layers_can_be_kept_and_what_was_kept_is_forgotten(target: LayerStatesEngine) -> None:
    engine = LayerStatesEngine(target.model, LAYERS, n_ctx=64, n_threads=2)
    engine.prefill(TEXT)
    row = engine.append(20)
    engine.advance([row], 2)
    layers = np.asarray([3, 1], np.int32)
    assert engine.lib.specee_rows_keep_layers(engine._handle, 2, int32_p(layers)) == abi.OK
    engine.complete()
    engine.commit(row)
    assert engine.n_known == 0
    engine.prefill([*TEXT, 20])
    target.roll_back(0)
    target.prefill([*TEXT, 20])
    engine.layers = (3, 1)
    kept, all_kept = (e.states(0, e.length).reshape(e.length, len(e.layers), -1) for e in (engine, target))
    assert np.array_equal(kept, all_kept[:, [1, 0]])
    beyond = np.asarray([engine.n_layer], np.int32)
    assert engine.lib.specee_rows_keep_layers(engine._handle, 1, int32_p(beyond)) == abi.INVALID
    assert engine.n_known == engine.length, "what is refused changes nothing"
    engine.close()


@pytest.mark.parametrize("n_slots", [2, 3])
def test_each_slot_keeps_its_own_states(target: LayerStatesEngine, n_slots: int) -> None:
    several = LayerStatesEngine(target.model, LAYERS, n_ctx=64, n_slots=n_slots, n_threads=2)
    texts = [TEXT[i:] + TEXT[:i] for i in range(n_slots)]
    for slot, text in zip(several.slots, texts, strict=True):
        slot.prefill(text[:6])
    for at in range(6, len(TEXT)):
        rows = [(slot, (slot.append(text[at]),)) for slot, text in zip(several.slots, texts, strict=True)]
        advance_together(rows, several.n_layer, logits=True)
        for slot, (row,) in rows:
            slot.commit(row)
    for slot, text in zip(several.slots, texts, strict=True):
        target.roll_back(0)
        target.prefill(text[:6])
        for token in text[6:]:
            target.forward(token)
        assert slot.n_known == len(TEXT)
        assert np.array_equal(slot.states(0, len(TEXT)), target.states(0, len(TEXT)))
    several.close()

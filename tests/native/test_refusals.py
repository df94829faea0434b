"""What contradicts the state is refused with a status and a reason, and changes nothing; exceptions stay inside."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf
from helpers import append_all, kv_bytes, random_tokens

from specee.app.engine.step_times import measure_steps
from specee.models import gguf_header
from specee.native import abi, library
from specee.native.engine import Cancelled, Model, RowEngine, Sampler
from specee.native.errors import NativeError, UnusableModelError

N_PROMPT = 12


class Rows:
    """An engine with a complete row, one at layer 3, one at layer 2, and a new one."""

    def __init__(self, engine: RowEngine) -> None:
        self.engine = engine
        engine.prefill(random_tokens(engine, N_PROMPT))
        self.dropped = engine.append(9)
        engine.roll_back(N_PROMPT)
        self.tokens = random_tokens(engine, 4, seed=2)
        self.all = append_all(engine, self.tokens)
        self.complete, self.at_3, self.at_2, self.new = self.all
        engine.advance([self.complete], engine.n_layer, logits=True)
        engine.advance([self.at_3], 3)
        engine.advance([self.at_2], 2)

    def snapshot(self) -> list[object]:
        """Everything that a caller can see."""
        engine, lib = self.engine, self.engine.lib
        return [
            *(engine.depth(row) for row in self.all),
            *(engine.hidden(row).tobytes() for row in self.all[:3]),
            engine.logits(0).tobytes(),
            engine.tokens[:],
            engine.n_in_flight,
            lib.specee_rows_in_flight(engine._handle, 0),
            lib.specee_rows_length(engine._handle, 0),
            engine.tip,
        ]


@pytest.fixture
def rows(engine: RowEngine) -> Rows:
    return Rows(engine)


Call = Callable[[RowEngine, Rows], object]
REFUSED: dict[str, tuple[str, Call]] = {
    "advance an unknown row": ("no such row", lambda e, r: e.advance([10**6], 4)),
    "advance a negative row": ("no such row", lambda e, r: e.advance([-1], 4)),
    "advance a dropped row": ("no such row", lambda e, r: e.advance([r.dropped], 4)),
    "advance a committed row": ("no such row", lambda e, r: e.advance([e.tip], e.n_layer, logits=True)),
    "advance nothing": ("a batch must have", lambda e, r: e.advance([], 4)),
    "advance too many": ("a batch must have", lambda e, r: e.advance([r.new] * 65, 4)),
    "rows of two depths": ("of one depth", lambda e, r: e.advance([r.at_3, r.at_2], 4)),
    "a row twice": ("stands twice", lambda e, r: e.advance([r.at_3, r.at_3], 4)),
    "beyond the row before": ("an earlier row", lambda e, r: e.advance([r.at_2], 4)),
    "a new row beyond the row before": ("an earlier row", lambda e, r: e.advance([r.new], 3)),
    "back": ("deep already", lambda e, r: e.advance([r.at_3], 2)),
    "where it is": ("deep already", lambda e, r: e.advance([r.at_3], 3)),
    "beyond the last layer": ("range of layers", lambda e, r: e.advance([r.at_3], e.n_layer + 1)),
    "to no layer": ("range of layers", lambda e, r: e.advance([r.new], 0)),
    "logits below the last layer": ("range of layers", lambda e, r: e.advance([r.at_3], e.n_layer - 1, logits=True)),
    "propagate a new row": ("range of layers", lambda e, r: e.propagate_kv(r.new)),
    "propagate a complete row": ("deep already", lambda e, r: e.propagate_kv(r.complete)),
    "append to an unknown row": ("no row in flight", lambda e, r: e.append(5, 10**6)),
    "append to a dropped row": ("no row in flight", lambda e, r: e.append(5, r.dropped)),
    "append no token": ("no such token", lambda e, r: e.append(e.n_vocab, r.new)),
    "append a negative token": ("no such token", lambda e, r: e.append(-1, r.new)),
    "forward with rows in flight": ("while rows are in flight", lambda e, r: e.forward(5)),
    "commit an incomplete row": ("deferred layers", lambda e, r: e.commit(r.at_3)),
    "commit a new row": ("deferred layers", lambda e, r: e.commit(r.new)),
    "commit an unknown row": ("no such row", lambda e, r: e.commit(10**6)),
    "commit a dropped row": ("no such row", lambda e, r: e.commit(r.dropped)),
    "commit the tip again": ("no such row", lambda e, r: e.commit(e.tip)),
    "roll back beyond the end": ("beyond the end", lambda e, r: e.roll_back(N_PROMPT + 1)),
    "roll back before the beginning": ("beyond the end", lambda e, r: e.roll_back(-1)),
    "lens head without a lens": ("no lens", lambda e, r: e.lens_head(r.at_3)),
    "lens head of an unknown row": ("no such row", lambda e, r: e.lens_head(10**6)),
    "probe an unknown row": ("no such row", lambda e, r: e.probe(10**6, np.arange(4, dtype=np.int32))),
    "probe without a predictor": ("no predictor", lambda e, r: e.probe(r.at_3, np.arange(4, dtype=np.int32))),
    "probe a new row": ("no predictor", lambda e, r: e.probe(r.new, np.arange(4, dtype=np.int32))),
    "run another row to an exit": ("only the last", lambda e, r: e.run_to_exit(r.at_3, [4], 0, (), 1.0)),
    "run to an exit without weights": ("no such candidate|no lens", lambda e, r: e.run_to_exit(r.new, [4], 0, (), 1.0)),
    "draft without a head": ("no draft head", lambda e, r: e.draft(r.complete, 5, 4)),
    "hidden state of a new row": ("not kept", lambda e, r: e.hidden(r.new)),
    "hidden state of a dropped row": ("not kept", lambda e, r: e.hidden(r.dropped)),
    "no such logits": ("no such row of logits", lambda e, r: e.logits(1)),
}  # fmt: skip


def test_what_contradicts_the_state_changes_nothing(model: Model) -> None:
    with closing(RowEngine(model, n_ctx=512, n_threads=2)) as engine:  # without weights of other tests
        rows = Rows(engine)
        before = rows.snapshot()
        for name, (reason, call) in REFUSED.items():
            with pytest.raises(NativeError, match=reason):
                call(engine, rows)
                pytest.fail(f"not refused: {name}")
            assert rows.snapshot() == before, name
        engine.complete(logits=True)
        logits = [engine.logits(i) for i in range(3)]
        engine.commit(rows.new)
        found = kv_bytes(engine)
        engine.roll_back(N_PROMPT)
        for i, token in enumerate(rows.tokens):
            engine.forward(token)
            assert i == 0 or np.array_equal(engine.logits(0), logits[i - 1])
        assert kv_bytes(engine) == found


def test_wrong_flags_slots_and_prompts_have_a_status(rows: Rows) -> None:
    engine, lib = rows.engine, rows.engine.lib
    before = rows.snapshot()
    ids, token = (ctypes.c_int32 * 1)(rows.at_3), (ctypes.c_int32 * 1)(5)
    handle = engine._handle
    assert lib.specee_rows_advance(handle, 1, ids, 4, 4) == abi.INVALID
    assert lib.specee_rows_complete(handle, 0, abi.KV_ONLY) == abi.INVALID
    assert lib.specee_rows_prefill(handle, 0, 1, token, 1) == abi.INVALID  # rows are in flight
    assert b"in flight" in lib.specee_last_error()
    assert lib.specee_rows_append(None, 0, -1, 5) < 0 and lib.specee_architecture_level(None) < 0
    for slot in (-1, 1, 1000):
        assert lib.specee_rows_append(handle, slot, -1, 5) == abi.INVALID
        assert lib.specee_rows_prefill(handle, slot, 1, token, 1) == abi.INVALID
        assert lib.specee_rows_complete(handle, slot, 0) == abi.INVALID
        assert lib.specee_rows_roll_back(handle, slot, 0) == abi.INVALID
        assert lib.specee_rows_length(handle, slot) == abi.INVALID
        assert lib.specee_rows_in_flight(handle, slot) == abi.INVALID
        assert lib.specee_rows_tip(handle, slot) == -1
        assert b"no slot" in lib.specee_last_error()
    assert rows.snapshot() == before


def test_a_prompt_that_is_refused_changes_nothing(engine: RowEngine) -> None:
    prompt = random_tokens(engine, N_PROMPT)
    engine.prefill(prompt)
    logits = engine.logits(0)
    for tokens, status in (([5, engine.n_vocab], abi.INVALID), ([5, -1], abi.INVALID), ([], abi.INVALID)):
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        assert engine.lib.specee_rows_prefill(engine._handle, 0, len(tokens), array, 1) == status
    full = (ctypes.c_int32 * (engine.n_ctx - N_PROMPT + 1))(*[5] * (engine.n_ctx - N_PROMPT + 1))
    assert engine.lib.specee_rows_prefill(engine._handle, 0, len(full), full, 1) == abi.NO_SPACE
    assert engine.lib.specee_rows_length(engine._handle, 0) == N_PROMPT
    assert np.array_equal(engine.logits(0), logits)


def test_an_old_id_never_answers_for_the_row_in_its_place(engine: RowEngine) -> None:
    engine.prefill(random_tokens(engine, N_PROMPT))
    engine.forward(5)
    old, places = engine.tip, set()
    assert engine.depth(old) == engine.n_layer
    while engine.depth(old) >= 0:  # rows that nobody computes need places too
        places.add(engine.append(6))
        engine.roll_back(N_PROMPT + 1)
    assert 500 < len(places) < 1000
    new = engine.append(7)
    assert new > max(places) and engine.tip == -1
    for call in (engine.hidden, engine.lens_head, engine.commit, engine.propagate_kv):
        with pytest.raises(NativeError, match=r"no such row|not kept"):
            call(old)
    with pytest.raises(NativeError, match="no row in flight"):
        engine.append(8, old)
    assert engine.depth(old) == -1 and engine.n_in_flight == 1
    engine.complete(logits=True)
    engine.commit(new)
    logits = engine.logits(0)
    engine.roll_back(N_PROMPT)
    engine.forward(5)
    engine.forward(7)
    assert np.array_equal(engine.logits(0), logits)


def test_at_most_so_many_rows_are_in_flight(engine: RowEngine) -> None:
    engine.prefill(random_tokens(engine, N_PROMPT))
    rows = append_all(engine, [5] * 64)
    with pytest.raises(NativeError, match="too many rows"):
        engine.append(5, rows[-1])
    assert engine.n_in_flight == 64 and len(set(rows)) == 64


# ---- two conversations in one context ------------------------------------------------------------------------------


class TwoSlots:
    """The C ABI over a context of two slots."""

    def __init__(self, model: Model) -> None:
        self.llama, self.lib, self.n_vocab, self.n_layer = model.llama, model.lib, model.n_vocab, model.n_layer
        params = self.llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_seq_max, params.kv_unified = 1024, 512, 2, False
        params.n_threads = params.n_threads_batch = 2
        params.flash_attn_type = 0
        self.context = self.llama.llama_init_from_model(model.handle, params)
        self.handle = self.lib.specee_rows_init(self.context, str(model.path).encode(), 64, 64, -1, 0, None)
        assert self.handle, library.last_error()

    def prefill(self, slot: int, tokens: list[int]) -> int:
        return int(
            self.lib.specee_rows_prefill(self.handle, slot, len(tokens), (ctypes.c_int32 * len(tokens))(*tokens), 1)
        )

    def append(self, slot: int, token: int, parent: int = -1) -> int:
        return int(self.lib.specee_rows_append(self.handle, slot, parent, token))

    def advance(self, rows: list[int], end: int, flags: int = 0) -> int:
        return int(
            self.lib.specee_rows_advance(self.handle, len(rows), (ctypes.c_int32 * len(rows))(*rows), end, flags)
        )

    def logits(self, slot: int) -> np.ndarray:
        return np.array(np.ctypeslib.as_array(self.lib.specee_rows_logits(self.handle, slot, 0), (self.n_vocab,)))

    def close(self) -> None:
        self.lib.specee_rows_free(self.handle)
        self.llama.llama_free(self.context)


@pytest.fixture
def two(model: Model) -> Iterator[TwoSlots]:
    with closing(TwoSlots(model)) as both:
        yield both


def test_slots_do_not_see_each_other(two: TwoSlots, engine: RowEngine) -> None:
    prompts = [random_tokens(engine, N_PROMPT, seed) for seed in (1, 2)]
    expected = []
    for prompt in prompts:
        engine.prefill(prompt)
        engine.forward(5)
        expected.append(engine.logits(0))
    assert two.prefill(0, prompts[0]) == abi.OK
    first = two.append(0, 5)
    assert two.advance([first], 3) == abi.OK
    # the other one's prompt is read while this one has deferred layers
    assert two.prefill(1, prompts[1]) == abi.OK
    second = two.append(1, 5)
    assert second > first
    assert two.advance([first, second], 4) == abi.INVALID  # of two depths
    assert two.append(1, 6, first) == abi.INVALID
    assert two.append(0, 6, second) == abi.INVALID
    assert two.advance([second], two.n_layer, abi.LOGITS) == abi.OK
    found = [two.logits(1)]
    # dropping the rows of one leaves the other's
    assert two.lib.specee_rows_commit(two.handle, second) == abi.OK
    assert two.lib.specee_rows_roll_back(two.handle, 1, 0) == abi.OK
    assert [two.lib.specee_rows_length(two.handle, slot) for slot in (0, 1)] == [N_PROMPT, 0]
    assert two.lib.specee_rows_depth(two.handle, first) == 3 and two.lib.specee_rows_depth(two.handle, second) == -1
    assert two.lib.specee_rows_complete(two.handle, 0, abi.LOGITS) == abi.OK
    assert not two.lib.specee_rows_logits(two.handle, 1, 0)
    found.insert(0, two.logits(0))
    for mine, alone in zip(found, expected, strict=True):
        assert np.array_equal(mine, alone)


def test_a_busy_slot_leaves_the_rows_in_flight_of_an_idle_one(two: TwoSlots, engine: RowEngine) -> None:
    assert two.prefill(0, random_tokens(engine, N_PROMPT)) == abi.OK
    row = two.append(0, 5)
    assert two.advance([row], 3) == abi.OK
    newest = row
    for _ in range(2000):
        newer = two.append(1, 6)
        assert newer > newest
        newest = newer
        two.lib.specee_rows_roll_back(two.handle, 1, 0)
    assert two.lib.specee_rows_depth(two.handle, row) == 3
    assert two.lib.specee_rows_complete(two.handle, 0, 0) == abi.OK
    assert two.lib.specee_rows_commit(two.handle, row) == abi.OK


# ---- exceptions ----------------------------------------------------------------------------------------------------


def test_an_unreadable_file_is_an_error(model: Model) -> None:
    lib, llama = model.lib, model.llama
    params = llama.llama_context_default_params()
    params.n_ctx = 256
    context = llama.llama_init_from_model(model.handle, params)
    assert not lib.specee_rows_init(context, b"/nowhere/model.gguf", 64, 64, -1, 0, None)
    assert "/nowhere/model.gguf" in library.last_error()
    assert not lib.specee_rows_init(None, b"", 64, 64, -1, 0, None)
    llama.llama_free(context)


NUMBERS = (ctypes.c_int32, ctypes.c_uint32, ctypes.c_int64, ctypes.c_float, ctypes.c_double)
OF_ROWS = (
    *("specee_rows_", "specee_lens_", "specee_predictor_", "specee_shortlist_", "specee_draft_"),
    *("specee_embedding_", "specee_head_"),
)


def test_what_is_not_given_is_refused(engine: RowEngine) -> None:
    """Each function with nothing for its handle; then with the handle, but no arrays."""
    engine.prefill(random_tokens(engine, N_PROMPT))
    logits = engine.logits(0)
    for name, (result, arguments) in abi._SIGNATURES.items():
        if not arguments or arguments[0] in NUMBERS or name.endswith("_free"):  # may be given nothing
            continue
        numbers = [1 if each in NUMBERS else None for each in arguments]
        values = [getattr(engine.lib, name)(*numbers)]
        of_rows = name.startswith(OF_ROWS) and name != "specee_rows_init"
        if of_rows and any(each not in NUMBERS for each in arguments[1:]):
            values.append(getattr(engine.lib, name)(engine._handle, *numbers[1:]))
        for value in values if result is not None else []:
            assert not value or (isinstance(value, int) and value < 0), name
            assert library.last_error(), name
    assert engine.lib.specee_rows_prefill(engine._handle, 0, 1, None, 1) == abi.INVALID
    assert engine.lib.specee_rows_greedy(engine._handle, 0, 0, None, None) == abi.INVALID
    assert np.array_equal(engine.logits(0), logits) and engine.length == N_PROMPT


def test_a_model_that_gives_no_numbers_is_an_error(tmp_path: Path) -> None:
    """A token is never made up: one beyond the vocabulary would end the process."""
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    header = gguf_header.read(path)
    norm = next(tensor for tensor in header.tensors if tensor.name == "output_norm.weight")
    content = bytearray(path.read_bytes())
    content[norm.offset : norm.offset + norm.n_bytes] = np.full(norm.n_bytes // 4, np.nan, np.float32).tobytes()
    path.write_bytes(content)
    model = Model(path)
    with closing(model), closing(RowEngine(model, n_ctx=256, n_threads=1)) as engine:
        engine.prefill([5, 6, 7])
        plain, penalised = Sampler(model), Sampler(model, repeat_penalty=1.1)
        drawn = Sampler(model, temperature=0.8, top_k=40, top_p=0.9, min_p=0.05)
        for call in (
            lambda: engine.greedy(0, plain),
            lambda: engine.greedy(0, penalised),
            lambda: engine.distribution(0, drawn),
        ):
            with pytest.raises(UnusableModelError, match="no number") as told:
                call()
            assert told.value.exit_code == 3
        with pytest.raises(UnusableModelError, match="no number"):  # and not: tokens cannot be drafted
            measure_steps(engine)
        for token in (-1, model.n_vocab, 1 << 30):
            with pytest.raises(NativeError, match="no such token"):
                model.piece(token)
        for sampler in (plain, penalised, drawn):
            sampler.close()


def test_a_failed_call_leaves_no_old_logits(engine: RowEngine) -> None:
    engine.prefill(random_tokens(engine, N_PROMPT))
    engine.cancel()
    with pytest.raises(Cancelled):
        engine.forward(5)
    with pytest.raises(NativeError, match="no such row of logits"):
        engine.logits(0)
    engine.resume()
    engine.forward(5)
    assert np.isfinite(engine.logits(0)).all()


def test_a_closed_engine_refuses(model: Model) -> None:
    engine = RowEngine(model, n_ctx=256, n_threads=1)
    engine.close()
    for call in (lambda: engine.prefill([5]), lambda: engine.forward(5), lambda: engine.logits(0)):
        with pytest.raises(NativeError, match="no open model"):
            call()

"""Models that do less than all: what is left works, and the rest is refused with the reason.

gemma3n hands on several hidden states between layers: whole rows in graphs of ours. deepseek32 has a KV cache of
another kind: whole rows by llama_decode. mamba has a state that cannot go back: one token after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tiny_archs
import tiny_gguf
from helpers import append_all, run_rows

from specee.native import abi, library, proof
from specee.native.engine import Cancelled, Model, RowEngine, Sampler, advance_together
from specee.native.errors import NativeError
from specee.native.layer_states import LayerStatesEngine

PROMPT = [5, 6, 7, 8]
WHOLE_ROWS = {"gemma3n": "more than one hidden state", "deepseek32": "of another kind"}
RECURRENT = "cannot drop rejected tokens"


@pytest.fixture(scope="module", params=WHOLE_ROWS)
def whole_rows_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_archs.write(tmp_path_factory.mktemp("tiny") / f"{request.param}.gguf", request.param)


@pytest.fixture
def whole(whole_rows_path: Path) -> Iterator[RowEngine]:
    with closing(Model(whole_rows_path)) as model, closing(RowEngine(model, n_ctx=256, n_threads=1)) as engine:
        engine.prefill(PROMPT)
        yield engine


@pytest.fixture
def recurrent(tmp_path: Path) -> Iterator[RowEngine]:
    path = tiny_archs.write(tmp_path / "mamba.gguf", "mamba")
    with closing(Model(path)) as model, closing(RowEngine(model, n_ctx=256, n_threads=1)) as engine:
        engine.prefill(PROMPT)
        yield engine


def test_rows_at_once_are_single_ones(whole: RowEngine) -> None:
    assert whole.level == abi.DRAFTS and whole.no_drafts is None and whole.max_equal_rows == 8
    assert whole.no_ranges == whole.no_exits == whole.limit and WHOLE_ROWS[whole.model.arch] in whole.limit
    sampler = Sampler(whole.model)
    tokens, single = [], []
    for _ in range(6):
        tokens.append(whole.greedy(0, sampler))
        whole.forward(tokens[-1])
        single.append(whole.logits(0))
    whole.roll_back(len(PROMPT))
    run_rows(whole, tokens)
    assert whole.tokens == [*PROMPT, *tokens]
    assert all(np.array_equal(whole.logits(i), expected) for i, expected in enumerate(single))
    whole.roll_back(6)
    whole.prefill([*PROMPT, *tokens])
    assert np.corrcoef(whole.logits(0), single[-1])[0, 1] > 0.999
    sampler.close()


def test_rows_are_dropped_and_committed_in_part(whole: RowEngine) -> None:
    whole.forward(9)
    expected = whole.logits(0)
    whole.roll_back(len(PROMPT))
    rows = append_all(whole, [9, 10, 11])
    whole.advance(rows[:2], whole.n_layer)
    whole.roll_back(len(PROMPT))
    rows = append_all(whole, [9, 10, 11])
    whole.advance(rows[:2], whole.n_layer, logits=True)
    assert np.array_equal(whole.logits(0), expected)
    whole.commit(rows[0])
    assert (whole.tokens, whole.tip, whole.n_in_flight) == ([*PROMPT, 9], rows[0], 0)


def test_what_needs_ranges_of_layers_is_refused(whole: RowEngine) -> None:
    row = whole.append(5)
    vector = np.zeros(whole.n_embd, np.float32)
    for call in (
        lambda: whole.advance([row], 2),
        lambda: whole.run_to_exit(row, [2], 0, (), 1.0),
        lambda: whole.probe(row, np.arange(4, dtype=np.int32)),
        lambda: whole.lens_head(whole.tip),
        lambda: whole.draft(whole.tip, 5, 4),
        lambda: whole.embedding_rows([5]),
        lambda: whole.head_rows([5]),
        whole.head_shape,
        lambda: whole.set_lens(2, np.zeros((32, 68), np.uint8), np.zeros((64, 34), np.uint8), vector),
    ):
        with pytest.raises(NativeError, match=WHOLE_ROWS[whole.model.arch]):
            call()
    with pytest.raises(NativeError, match="not kept"):
        whole.hidden(whole.tip)
    whole.advance([row], whole.n_layer)
    whole.commit(row)
    assert whole.tokens == [*PROMPT, 5]
    with pytest.raises(NativeError, match=WHOLE_ROWS[whole.model.arch]):
        LayerStatesEngine(whole.model, (1, 2), n_ctx=64, n_threads=1)


def test_several_slots(whole: RowEngine) -> None:
    """Whole rows of several slots in one batch: each has the bits that it has alone."""
    answers = [[9, 10], [11, 12, 13], [14]]
    expected = []
    for tokens in answers:
        for token in tokens:
            whole.forward(token)
            expected.append(whole.logits(0))
        whole.roll_back(len(PROMPT))
    with closing(RowEngine(whole.model, n_ctx=256, n_slots=4, n_threads=1)) as engine:
        slots = [engine.slots[i] for i in (2, 0, 3)]
        for slot in slots:
            slot.prefill(PROMPT)
        batches = [(slot, append_all(slot, tokens)) for slot, tokens in zip(slots, answers, strict=True)]
        engine.cancel()
        with pytest.raises(Cancelled):
            advance_together(batches, engine.n_layer, logits=True)
        engine.resume()
        advance_together(batches, engine.n_layer, logits=True)
        found = [slot.logits(i) for slot, rows in batches for i in range(len(rows))]
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
        for slot, rows in batches:
            slot.commit(rows[-1])
        assert [slot.tokens[len(PROMPT) :] for slot in slots] == answers


def test_a_tree_needs_graphs_of_ours(whole: RowEngine) -> None:
    row = whole.append(5)
    if whole.model.arch == "deepseek32":
        with pytest.raises(NativeError, match="are no tree"):
            whole.append(6)
    else:
        side = whole.append(6)
        whole.advance([row, side], whole.n_layer, logits=True)
        whole.commit(row)
        assert whole.tokens == [*PROMPT, 5]


def test_a_running_state_goes_one_token_after_the_other(recurrent: RowEngine) -> None:
    assert (recurrent.level, recurrent.max_equal_rows) == (abi.DENSE, 1)
    assert recurrent.no_drafts is not None and RECURRENT in recurrent.no_drafts
    recurrent.forward(9)
    expected = recurrent.logits(0)
    recurrent.prefill([*PROMPT, 9, 10])  # from the start
    recurrent.prefill([*PROMPT, 9])
    assert np.allclose(recurrent.logits(0), expected, atol=1e-3)


def test_what_is_known_of_an_architecture_before() -> None:
    for arch in ("llama", "qwen3", "gemma3", "gpt-oss"):
        assert library.architecture_limit(arch) is None
    assert RECURRENT in (library.architecture_limit("mamba") or "")
    assert RECURRENT in (library.architecture_limit("jamba") or "")
    assert "one token after the other" in (library.architecture_limit("dream") or "")
    for unknown in ("no such architecture", ""):
        assert "does not know" in (library.architecture_limit(unknown) or "")


def test_a_verdict_is_kept_where_proof_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    with closing(Model(path)) as model:

        def verdict() -> tuple[int, str, int]:
            with closing(RowEngine(model, n_ctx=64, n_threads=1)) as engine:
                engine.prefill(PROMPT)
                row = engine.append(5)
                if engine.level == abi.EXITS:
                    engine.advance([row], 2)
                    engine.advance([row], engine.n_layer, logits=True)
                    assert engine.head_rows([5]).shape == (1, engine.n_embd)
                return engine.level, engine.limit, engine.max_equal_rows

        whole, dense = (abi.EXITS, "", 8), (abi.DENSE, "said before", 1)
        fewer = (abi.DRAFTS, "said before", 5)
        monkeypatch.setattr(proof, "LONG_S", 60)
        cache = tmp_path / "cache" / "specee-chat"
        assert verdict() == whole and not list(cache.glob("proof-*"))
        assert proof.read(proof.last_file(path)) == proof.Verdict(*whole), "to be shown"
        monkeypatch.setattr(proof, "LONG_S", 0)
        assert verdict() == whole
        (kept,) = (tmp_path / "cache" / "specee-chat").glob("proof-*")
        assert verdict() == whole
        for earlier in (fewer, dense):
            proof.keep(kept, proof.Verdict(*earlier))
            assert verdict() == earlier
            assert proof.read(proof.last_file(path)) == proof.Verdict(*earlier)
        damaged = ("", "7\n8\n", "x", "\n\n", f"{abi.DRAFTS}\n8\n", f"{abi.EXITS}\n8\nbut", f"{abi.EXITS}\n")
        for text in (*damaged, f"{abi.EXITS}\n1\n", f"{abi.DENSE}\n8\nwhy", f"{abi.DRAFTS}\nwhy"):
            kept.write_text(text)
            assert verdict() == whole, text
        proof.keep(kept, proof.Verdict(*fewer))
        kept.write_text(kept.read_text().replace("\n5\n", "\n8\n"))  # more rows than are equal
        assert proof.read(kept) is None and verdict() == whole
        monkeypatch.setattr(proof, "MOST", 2)
        for i in range(4):
            proof.keep(kept.with_name(f"proof-{i}"), proof.Verdict(*whole))
        assert len(list(kept.parent.glob("proof-*"))) == 2, "old ones go"
        path.touch()  # another file, maybe
        proof.keep(kept, proof.Verdict(*fewer))
        assert verdict() == whole

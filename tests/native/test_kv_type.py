"""Keys and values in q8_0: rows keep the bits of single ones, and the bits are those of ggml's own attention.

Prompts of more than 512 tokens: from there on ggml shares K and V of one row out between threads, if they are F16.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tiny_archs
import tiny_gguf
from helpers import append_all, random_tokens

from specee.app.settings import KVType
from specee.models import embedded, gguf_header, kv_cache
from specee.native import abi, context
from specee.native.engine import Floats, Model, RowEngine, advance_together
from specee.native.errors import NativeError

N_PROMPT = 530
PROGRAM = f"""
import sys
from specee.native.engine import Model, RowEngine
engine = RowEngine(Model(sys.argv[1]), n_ctx=1024, n_threads=2, kv_type="q8_0")
engine.prefill([3 + i * 7 % 60 for i in range({N_PROMPT})])
print(engine.logits(0).tobytes().hex())
engine.forward(5)
print(engine.logits(0).tobytes().hex())
"""


@pytest.fixture(scope="module", params=["embedded", "gemma2", "gpt-oss"])  # caps and windows; sinks
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param != "embedded":
        return tiny_archs.write(tmp_path_factory.mktemp("tiny") / f"{request.param}.gguf", request.param)
    found = embedded.path()
    if found is None:
        pytest.skip("built without the embedded model")
    return found


@pytest.fixture(scope="module")
def engine(path: Path) -> Iterator[RowEngine]:
    try:
        with closing(Model(path)) as model, closing(RowEngine(model, n_ctx=1024, n_slots=2, kv_type="q8_0")) as engine:
            yield engine
    except NativeError as error:
        pytest.skip(str(error))


def dense(engine: RowEngine, prompt: list[int], answer: list[int]) -> list[Floats]:
    engine.roll_back(0)
    engine.prefill(prompt)
    found = []
    for token in answer:
        engine.forward(token)
        found.append(engine.logits(0))
    engine.roll_back(len(prompt))
    return found


@pytest.mark.parametrize("n", [2, 4, 8])
def test_rows_at_once_have_the_bits_of_single_ones(engine: RowEngine, n: int) -> None:
    """Whole and in ranges of layers, so drafts and exits that are verified give the text of dense."""
    assert engine.level == abi.EXITS
    prompt, answer = random_tokens(engine, N_PROMPT), random_tokens(engine, n, seed=2)
    expected = dense(engine, prompt, answer)
    for cuts in ((engine.n_layer,), (1, engine.n_layer)):
        rows = append_all(engine, answer)
        for end in cuts:
            engine.advance(rows, end, logits=end == engine.n_layer)
        assert all(np.array_equal(engine.logits(i), logits) for i, logits in enumerate(expected))
        engine.roll_back(len(prompt))


def test_a_side_row_has_the_bits_of_its_path(engine: RowEngine) -> None:
    prompt = random_tokens(engine, N_PROMPT)
    expected = dense(engine, prompt, [5, 7, 9])
    rows = append_all(engine, [5, 6, 8])
    rows.append(engine.append(7, rows[0]))
    rows.append(engine.append(9, rows[3]))
    engine.advance(rows, engine.n_layer, logits=True)
    assert all(np.array_equal(engine.logits(i), logits) for i, logits in zip((0, 3, 4), expected, strict=True))


def test_what_was_rolled_back_leaves_nothing(engine: RowEngine) -> None:
    prompt, answer = random_tokens(engine, 40), random_tokens(engine, 3, seed=2)
    expected = dense(engine, prompt, answer)
    rows = append_all(engine, random_tokens(engine, 4, seed=3))
    engine.advance(rows, engine.n_layer, logits=True)
    engine.commit(rows[1])
    engine.roll_back(len(prompt))
    assert all(np.array_equal(a, b) for a, b in zip(dense(engine, prompt, answer), expected, strict=True))


def test_two_slots_do_not_touch_each_other(engine: RowEngine) -> None:
    answer = random_tokens(engine, 4, seed=2)
    prompts = random_tokens(engine, N_PROMPT), random_tokens(engine, 40, seed=3)
    expected = [dense(slot, prompt, answer) for slot, prompt in zip(engine.slots, prompts, strict=True)]
    batches = [(slot, append_all(slot, answer)) for slot in engine.slots]
    advance_together(batches, engine.n_layer, logits=True)
    for slot, logits in zip(engine.slots, expected, strict=True):
        assert all(np.array_equal(slot.logits(i), each) for i, each in enumerate(logits))
        slot.roll_back(0)


def test_the_kernel_has_the_bits_of_ggml(path: Path, engine: RowEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt, and a token after it."""
    found = []
    for kernels in (None, "none"):
        if kernels is not None:
            monkeypatch.setenv("SPECEE_KERNELS", kernels)
        found.append(subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, check=True).stdout)
    assert found[0] == found[1] and len(found[0]) > 1000


def test_it_is_half_of_the_memory(path: Path, engine: RowEngine) -> None:
    header = gguf_header.read_model(path)
    of_type = {kv_type: kv_cache.bytes_per_token(header, kv_type) for kv_type in get_args(KVType)}
    assert kv_cache.can_have(header, "q8_0")
    assert of_type["q8_0"] == of_type["f16"] * 17 // 32 == kv_cache.converted(of_type["f16"], "q8_0")


def test_the_types_are_the_same_everywhere() -> None:
    assert set(get_args(KVType)) == context.KV_TYPES.keys() == kv_cache.VALUE_BYTES.keys()


def test_a_model_that_cannot_have_it_is_refused(tmp_path: Path) -> None:
    """Heads that are no multiple of 32 numbers."""
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    header = gguf_header.read_model(path)
    assert [kv_cache.can_have(header, kv_type) for kv_type in ("f16", "q8_0")] == [True, False]
    with closing(Model(path)) as model:
        with pytest.raises(NativeError, match=r"no keys and values in q8_0: .*does not divide.*; take f16"):
            RowEngine(model, n_ctx=256, kv_type="q8_0")
        RowEngine(model, n_ctx=256).close()

"""Layers with a sliding window, in texts that are longer: cells that no row sees are left out, and no bit changes.

The windows are 16 tokens wide, and cells are left out in steps of 256.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
import tiny_archs
from helpers import append_all, random_tokens, run_rows

from specee.native import abi
from specee.native.engine import Floats, Model, RowEngine, advance_together

N_PROMPT, N_ANSWER = 290, 8


@pytest.fixture(scope="module", params=["gemma3", "gpt-oss", "llama4"])  # llama4's windows are chunks
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RowEngine]:
    path = tiny_archs.write(tmp_path_factory.mktemp("tiny") / f"{request.param}.gguf", request.param)
    with closing(Model(path)) as model, closing(RowEngine(model, n_ctx=512, n_slots=2, n_threads=1)) as engine:
        assert engine.level == abi.EXITS
        yield engine


def single(engine: RowEngine, prompt: list[int], answer: list[int]) -> list[Floats]:
    """Logits of each token by llama_decode, which attends to all cells."""
    engine.roll_back(0)
    engine.prefill(prompt)
    found = []
    for token in answer:
        engine.prefill([*engine.tokens, token])
        found.append(engine.logits(0))
    engine.roll_back(len(prompt))
    return found


@pytest.mark.parametrize("n_prompt", [N_PROMPT, 268, 255])
def test_rows_of_long_texts(engine: RowEngine, n_prompt: int) -> None:
    """From 272 tokens on cells are left out; a batch passes that, too."""
    prompt, answer = random_tokens(engine, n_prompt), random_tokens(engine, N_ANSWER, seed=2)
    expected = single(engine, prompt, answer)
    for token, logits in zip(answer, expected, strict=True):
        engine.forward(token)
        assert np.array_equal(engine.logits(0), logits)
    engine.roll_back(n_prompt)
    run_rows(engine, answer)
    assert all(np.array_equal(engine.logits(i), logits) for i, logits in enumerate(expected))
    engine.roll_back(n_prompt)
    rows = append_all(engine, answer)
    for end in (1, 3, engine.n_layer):
        engine.advance(rows, end, logits=end == engine.n_layer)
    assert all(np.array_equal(engine.logits(i), logits) for i, logits in enumerate(expected))
    engine.roll_back(n_prompt)
    rows = append_all(engine, answer[:3])
    side = engine.append(answer[-1], rows[0])
    engine.advance([*rows, side], engine.n_layer, logits=True)
    assert all(np.array_equal(engine.logits(i), expected[i]) for i in range(3))


def test_slots_of_other_lengths(engine: RowEngine) -> None:
    other = engine.slots[1]
    answer = random_tokens(engine, 4, seed=2)
    prompts = random_tokens(engine, N_PROMPT), random_tokens(engine, 40, seed=3)
    expected = [single(slot, prompt, answer) for slot, prompt in zip((engine, other), prompts, strict=True)]
    batches = [(slot, append_all(slot, answer)) for slot in (engine, other)]
    advance_together(batches, engine.n_layer, logits=True)
    for slot, logits in zip((engine, other), expected, strict=True):
        assert all(np.array_equal(slot.logits(i), each) for i, each in enumerate(logits))
        slot.roll_back(0)

"""A model in several files gives what the same model in one file gives, whichever part a tensor is in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import split_gguf
import tiny_gguf
from helpers import append_all, random_tokens

from specee.native import proof
from specee.native.engine import Model, RowEngine
from specee.native.errors import UnusableModelError


def outcome(path: Path) -> tuple[bytes, ...]:
    """Rows of the token matrices, and logits of rows that waited after some layers."""
    model = Model(path)
    engine = RowEngine(model, n_ctx=64, n_threads=1)
    tokens = random_tokens(engine, 6)
    rows = append_all(engine, tokens)
    engine.advance(rows, 3)
    engine.advance(rows, engine.n_layer, True)
    logits = [engine.logits(i).tobytes() for i in range(len(rows))]
    found = (engine.embedding_rows(tokens).tobytes(), engine.head_rows(tokens).tobytes(), *logits)
    engine.close()
    model.close()
    return found


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("n_parts", "first_is_empty"), [(1, False), (2, False), (5, False), (3, True)])
def test_it_is_the_same_model(tmp_path: Path, n_parts: int, first_is_empty: bool, tied: bool) -> None:
    whole = tiny_gguf.write(tmp_path / "whole.gguf", "qwen2", tied=tied)
    parts = split_gguf.split(whole, tmp_path, n_parts, first_is_empty=first_is_empty)
    assert outcome(parts[0]) == outcome(whole)


@pytest.mark.parametrize("lose", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-4000])])
def test_a_part_that_is_not_whole_is_an_error(tmp_path: Path, lose: Callable[[Path], object]) -> None:
    parts = split_gguf.split(tiny_gguf.write(tmp_path / "whole.gguf", "llama"), tmp_path, 3)
    lose(parts[2])
    with pytest.raises(UnusableModelError, match=r"whole-00003-of-00003|corrupted or incomplete"):
        Model(parts[0])


def test_a_kept_verdict_is_of_all_parts(tmp_path: Path) -> None:
    parts = split_gguf.split(tiny_gguf.write(tmp_path / "whole.gguf", "llama"), tmp_path, 3)
    verdict = proof.verdict_file(parts[0], (), tmp_path)
    assert proof.verdict_file(parts[0], (), tmp_path) == verdict
    for part in parts:
        before = proof.verdict_file(parts[0], (), tmp_path)
        os.utime(part, (1, 1))
        assert proof.verdict_file(parts[0], (), tmp_path) != before

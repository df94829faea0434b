"""Why llama.cpp refuses a model reaches the user, and not only its log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import changed_gguf
import pytest
import tiny_gguf
from gguf import GGUFValueType as Type

from specee.native import log
from specee.native.engine import Model
from specee.native.errors import UnusableModelError

BPE = {
    "tokenizer.ggml.model": (Type.STRING, "gpt2"),
    "tokenizer.ggml.merges": (Type.ARRAY, ["a b"], Type.STRING),
    "tokenizer.ggml.scores": None,
}


@pytest.mark.parametrize(
    ("values", "tensors", "says"),
    [
        ({}, changed_gguf.without("blk.3.attn_q"), "tensor 'blk.3.attn_q.weight' not found"),
        ({}, changed_gguf.cut("blk.0.attn_k.weight", 16), "tensor 'blk.0.attn_k.weight' has wrong shape"),
        ({".context_length": None}, None, "key not found in model: llama.context_length"),
        ({"tokenizer.ggml.model": (Type.STRING, "foo")}, None, "unknown tokenizer: 'foo'; a newer specee-chat may"),
        (
            {**BPE, "tokenizer.ggml.pre": (Type.STRING, "gpt-9")},
            None,
            "unknown pre-tokenizer type: 'gpt-9'; a newer specee-chat may know it",
        ),
        ({**BPE, "tokenizer.ggml.pre": (Type.STRING, "\x1b[2Jx")}, None, r"unknown pre-tokenizer type: '�\[2Jx'"),
        ({**BPE, "tokenizer.ggml.pre": (Type.STRING, "x\ny" * 500)}, None, "x�yx�y"),
    ],
)
def test_of_a_model(tmp_path: Path, values: dict[str, Any], tensors: changed_gguf.Tensors | None, says: str) -> None:
    tiny = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    path = changed_gguf.write(tiny, tmp_path / "changed.gguf", values, tensors)
    with pytest.raises(UnusableModelError, match=says) as told:
        Model(path)
    assert told.value.exit_code == 3 and told.value.message.isprintable() and len(told.value.message) < 600


@pytest.mark.parametrize(
    ("lines", "reason", "is_of_memory"),
    [
        ([], None, True),
        (["llama_model_load: error loading model: x is wrong\n", "f: failed to load model\n"], "x is wrong", False),
        (
            ["ggml_cuda_init: failed to initialize CUDA: no device\n", "load: error loading model: y\n", "\n"],
            "y",
            False,
        ),
        (
            ["buffer: failed to allocate buffer of size 9\n", "f: failed to initialize the context: no cache memory\n"],
            "no cache memory",
            True,
        ),
        (
            ["gguf: the key is twice\n", "load: error loading model: f: failed to load model from x.gguf\n"],
            "the key is twice",
            False,
        ),
        (["f: failed to load model\n"], "failed to load model", False),
    ],
)
def test_the_last_error_that_says_something(
    monkeypatch: pytest.MonkeyPatch, lines: list[str], reason: str | None, is_of_memory: bool
) -> None:
    monkeypatch.setattr(log, "_callback", None)
    said: list[Callable[[int, bytes, object], None]] = []

    class Llama:
        @staticmethod
        def llama_log_set(callback: Any, _: object) -> None:
            said.append(callback)

        llama_log_callback = staticmethod(lambda write: write)

    log.listen(Llama)
    for line in lines:
        said[-1](log.ERROR, line.encode(), None)
    found = log.reason()
    assert found == reason and log.is_of_memory(found) == is_of_memory

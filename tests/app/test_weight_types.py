"""`models show`: what a model's types of weights cost where a CPU has no kernel for several tokens at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from specee.app.cli import weight_types
from specee.models import gguf_types
from specee.models.gguf_header import Tensor
from specee.native import library
from specee.native.errors import NativeError

WITH_KERNEL = ("Q8_0", "Q4_K", "Q3_K", "Q2_K", "BF16", "IQ4_NL", "Q4_0")


@pytest.fixture(autouse=True)
def _kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {gguf_types.NUMBERS[name] for name in WITH_KERNEL}
    monkeypatch.setattr(library, "has_kernel", lambda type_id, n_in, n_out: type_id in numbers and n_out % 8 == 0)


def header(*tensors: tuple[str, str, tuple[int, ...]]) -> SimpleNamespace:
    def tensor(name: str, type_: str, shape: tuple[int, ...]) -> Tensor:
        _, per_block, n_bytes = gguf_types.TENSORS[gguf_types.NUMBERS[type_]]
        elements = 1
        for size in shape:
            elements *= size
        return Tensor(name, shape, type_, 0, elements // per_block * n_bytes)

    return SimpleNamespace(path=Path("m.gguf"), tensors=tuple(tensor(*one) for one in tensors))


NORM = ("output_norm.weight", "F32", (256,))
EMBEDDING = ("token_embd.weight", "IQ3_S", (256, 4096))
HEAD = ("output.weight", "Q8_0", (256, 4096))


def test_types_with_kernels_are_one_line() -> None:
    found = weight_types.slow(header(NORM, EMBEDDING, HEAD, ("blk.0.ffn_up.weight", "Q4_K", (256, 1024))))
    assert found == [] and weight_types.text(found) == "each has a kernel for several tokens at once"


def test_a_type_without_one_names_one_of_its_size_that_has() -> None:
    layers = [("blk.0.ffn_up.weight", "IQ3_S", (256, 8192)), ("blk.0.attn_k.weight", "IQ2_XS", (256, 4096))]
    (three, two) = weight_types.slow(header(NORM, EMBEDDING, HEAD, *layers)) or []
    assert (three.type, three.alternative) == ("IQ3_S", "Q3_K") and (two.type, two.alternative) == ("IQ2_XS", "Q2_K")
    line = weight_types.text([three, two])
    assert line.endswith(": IQ3_S (39%; Q3_K, about as large, has one), IQ2_XS (13%; Q2_K, about as large, has one)")


def test_an_embedding_counts_where_it_is_the_head() -> None:
    (found,) = weight_types.slow(header(NORM, EMBEDDING, ("blk.0.ffn_up.weight", "Q4_K", (256, 1024)))) or []
    assert found.type == "IQ3_S"


def test_little_is_not_worth_a_word() -> None:
    router = ("blk.0.ffn_gate_inp.weight", "F32", (256, 8))
    assert weight_types.slow(header(NORM, HEAD, router)) == []


def test_experts_take_tokens_one_by_one() -> None:
    (found,) = weight_types.slow(header(HEAD, ("blk.0.ffn_up_exps.weight", "Q4_K", (256, 1024, 32)))) or []
    assert found.experts and "experts in Q4_K" in weight_types.text([found])


def test_without_the_library_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(type_id: int, n_in: int, n_out: int) -> bool:
        raise NativeError("The native library is missing", "no libllama.so")

    monkeypatch.setattr(library, "has_kernel", missing)
    assert weight_types.text(weight_types.slow(header(HEAD))).startswith("unknown")

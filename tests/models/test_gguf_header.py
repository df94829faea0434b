"""Headers that lie."""

from __future__ import annotations

import struct
import sys
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGUFValueType as Type
from gguf.constants import GGML_QUANT_SIZES
from mutations import Mutations

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import changed_gguf
import tiny_gguf

from specee.models import embedded, gguf_header, model_structure
from specee.models.errors import ModelError
from specee.models.gguf_types import TENSORS

N_MUTATED = 1000


def test_the_sizes_of_types_are_ggmls() -> None:
    for kind, (block, n_bytes) in GGML_QUANT_SIZES.items():
        if kind.name != "Q8_1":  # never in a file; the gguf package has it from before it shrank
            assert TENSORS[int(kind)] == (kind.name, block, n_bytes)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_head_count_kv([2, 4])
    writer.add_custom_alignment(64)
    writer.add_tensor("token_embd.weight", np.ones((4, 32), np.float32))
    writer.add_tensor("output_norm.weight", np.ones(7, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_header_says_what_the_gguf_package_says(small: Path) -> None:
    header, reader = gguf_header.read(small), gguf.GGUFReader(small)
    assert [(t.name, t.offset, t.n_bytes) for t in header.tensors] == [
        (t.name, int(t.data_offset), int(t.n_bytes)) for t in reader.tensors
    ]
    assert header.of_architecture("attention.head_count_kv").items == (2, 4)
    assert model_structure.read(header).heads_kv == 3 and model_structure.read(header).head_tied


def patched(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert content.count(old) == 1, old
    path.write_bytes(content.replace(old, new))
    return path


U32, U64 = struct.Struct("<I"), struct.Struct("<Q")


@pytest.mark.parametrize(
    ("at", "form", "value", "says"),
    [
        (4, U32, 1, "version"),
        (4, U32, 3 << 24, "version"),
        (8, U64, 1 << 60, "no room"),
        (16, U64, (1 << 64) - 1, "no room"),
        (24, U64, 1 << 40, "a key has"),
        (24, U64, 0, "empty"),
    ],
)
def test_absurd_numbers_at_the_front(small: Path, at: int, form: struct.Struct, value: int, says: str) -> None:
    content = bytearray(small.read_bytes())
    form.pack_into(content, at, value)
    small.write_bytes(content)
    with pytest.raises(ModelError, match=says):
        gguf_header.read(small)


def test_a_header_of_millions_of_values_is_refused_at_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_header, "MAX_VALUES", 3)
    with pytest.raises(ModelError, match="values; a model's has less than 3"):
        gguf_header.read(small)


def entry(name: bytes, *numbers: int) -> bytes:
    """The start of a tensor's entry: its name, the number of dimensions and the first sizes."""
    return (
        U64.pack(len(name))
        + name
        + b"".join(n.to_bytes(size, "little") for n, size in zip(numbers, (4, 8, 8), strict=True))
    )


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((2, 1 << 62, 4), "reaches beyond"),
        ((2, 1 << 63, 1 << 63), "reaches beyond"),
        ((2, 0, 4), "cannot have the shape"),
        ((9, 32, 4), "dimensions"),
        ((2, 32, 2), "not where it must be"),
    ],
)
def test_absurd_tensors(small: Path, numbers: tuple[int, ...], says: str) -> None:
    name = b"token_embd.weight"
    with pytest.raises(ModelError, match=says):
        gguf_header.read(patched(small, entry(name, 2, 32, 4), entry(name, *numbers)))


@pytest.mark.parametrize(
    ("key", "old", "new", "says"),
    [
        ("llama.block_count", 2, 1 << 31, "block_count"),
        ("llama.block_count", 2, 0, "block_count"),
        ("general.alignment", 64, 48, "alignment"),
        ("general.alignment", 64, 0, "alignment"),
    ],
)
def test_absurd_values(small: Path, key: str, old: int, new: int, says: str) -> None:
    front = key.encode() + U32.pack(4)
    with pytest.raises(ModelError, match=says):
        gguf_header.read(patched(small, front + U32.pack(old), front + U32.pack(new)))


@pytest.mark.parametrize("value", [-1e-5, float("nan"), float("inf")])
def test_numbers_that_are_none(tmp_path: Path, value: float) -> None:
    path = tmp_path / "epsilon.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_layer_norm_rms_eps(value)
    writer.add_tensor("output_norm.weight", np.ones(7, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="layer_norm_rms_epsilon cannot be"):
        gguf_header.read(path)


def test_two_keys_and_two_tensors_of_one_name(small: Path) -> None:
    whole = small.read_bytes()
    with pytest.raises(ModelError, match="twice"):
        gguf_header.read(patched(small, b"general.alignment", b"llama.block_count"))
    small.write_bytes(whole)
    old = U64.pack(18) + b"output_norm.weight" + U32.pack(1)
    with pytest.raises(ModelError, match=r"same name|cut off"):
        gguf_header.read(patched(small, old, U64.pack(17) + b"token_embd.weight" + U32.pack(1) + b"\0"))


def test_a_split_model_is_read_whole(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "split.gguf", "llama", split_max_tensors=1)
    writer.add_block_count(1)
    for name in ("token_embd.weight", "blk.0.attn_q.weight"):
        writer.add_tensor(name, np.ones((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    first, second = sorted(tmp_path.iterdir())
    header = gguf_header.read_model(first)
    assert [t.name for t in header.tensors] == ["token_embd.weight", "blk.0.attn_q.weight"]
    assert model_structure.read(header).head_layers == 1.0
    second.unlink()
    with pytest.raises(ModelError, match="is missing"):
        gguf_header.read_model(first)


# ---- the tokenizer --------------------------------------------------------------------------------------------------

TEXTS, NUMBERS, FLOATS = Type.STRING, Type.INT32, Type.FLOAT32
N = tiny_gguf.N_VOCAB


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        *((f"{name}_token_id", (Type.UINT32, N), f"{name}_token_id cannot be") for name in ("bos", "eos", "padding")),
        ("eos_token_id", (Type.UINT32, 99999999), "eos_token_id cannot be '99999999': its tokens are 0 to 95"),
        ("bos_token_id", (Type.UINT32, 4000000000), "bos_token_id cannot be"),
        *((f"{name}_token_id", (Type.UINT32, 10**6), "cannot be") for name in ("unknown", "eot", "fim_pre", "mask")),
        ("eos_token_id", (Type.INT32, -1), "cannot be"),
        ("eos_token_id", (Type.FLOAT32, 2.0), "cannot be"),
        ("eos_token_id", (Type.BOOL, True), "cannot be"),
        ("eos_token_id", (Type.ARRAY, [2], Type.UINT32), "cannot be"),
        ("token_type", (Type.ARRAY, [1] * (N - 1), NUMBERS), "token_type has 95 items for 96 tokens"),
        ("token_type", (Type.ARRAY, [1.0] * N, FLOATS), "token_type is no list of numbers"),
        ("token_type", (Type.UINT32, 1), "token_type is no list of numbers"),
        ("scores", (Type.ARRAY, [0.0] * 3, FLOATS), "scores has 3 items"),
        ("scores", (Type.ARRAY, ["a"] * N, TEXTS), "scores is no list"),
        ("scores", (Type.ARRAY, [float("nan")] * N, FLOATS), "a score that is no number"),
        ("merges", (Type.ARRAY, ["a b", "ab"], TEXTS), "merge 1 does not have two pieces"),
        ("merges", (Type.ARRAY, ["a "], TEXTS), "merge 0"),
        ("merges", (Type.ARRAY, [" a"], TEXTS), "merge 0"),
        ("merges", (Type.ARRAY, [""], TEXTS), "merge 0"),
        ("merges", (Type.ARRAY, [1, 2], NUMBERS), "merges is no list"),
        ("merges", (Type.STRING, "a b"), "merges is no list"),
        ("tokens", (Type.ARRAY, [1] * N, NUMBERS), "tokens are no list of texts"),
        ("tokens", (Type.STRING, "a"), "tokens are no list of texts"),
    ],
)
def test_what_is_wrong_with_the_tokens(tmp_path: Path, key: str, value: Any, says: str) -> None:
    tiny = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    gguf_header.read(tiny)
    path = changed_gguf.write(tiny, tmp_path / "changed.gguf", {f"tokenizer.ggml.{key}": value})
    with pytest.raises(ModelError, match=says) as caught:
        gguf_header.read(path)
    assert caught.value.exit_code == 3 and caught.value.title == "damaged model"


@pytest.mark.parametrize("value", [(Type.UINT32, 5), (Type.ARRAY, ["a"], TEXTS), (Type.BOOL, True)])
@pytest.mark.parametrize("key", ["tokenizer.chat_template", "tokenizer.chat_template.tool_use"])
def test_a_chat_template_that_is_no_text(tmp_path: Path, key: str, value: Any) -> None:
    tiny = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    path = changed_gguf.write(tiny, tmp_path / "changed.gguf", {key: value})
    with pytest.raises(ModelError, match="is no text"):
        gguf_header.read(path)


def test_merges_may_begin_with_a_space_and_have_more(tmp_path: Path) -> None:
    tiny = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    values = {"tokenizer.ggml.merges": (Type.ARRAY, ["a b", "  b", "a  b"], TEXTS)}
    gguf_header.read(changed_gguf.write(tiny, tmp_path / "changed.gguf", values))


# ---- fuzz -----------------------------------------------------------------------------------------------------------


def the_model() -> Path:
    path = embedded.path()
    if path is None:
        pytest.skip("no embedded model in this build")
    return path


def test_mutated_headers_pass_or_give_a_line(tmp_path: Path) -> None:
    mutations = Mutations(the_model(), tmp_path / "mutated.gguf", seed=11)
    began, refused = time.monotonic(), 0
    for how in mutations(N_MUTATED):
        try:
            model_structure.read(gguf_header.read(mutations.path))
        except ModelError as error:
            assert error.exit_code == 3 and str(error).isprintable(), how
            refused += 1
        except Exception as error:
            pytest.fail(f"{how}: {type(error).__name__}: {error}")
    print(f"{refused} of {N_MUTATED} refused in {time.monotonic() - began:.1f} s")
    assert refused > N_MUTATED / 2
    gguf_header.read(mutations.path)  # all was taken back

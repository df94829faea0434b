"""Headers that lie."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES
from mutations import Mutations

from specee.models import embedded, gguf_header, model_structure
from specee.models.errors import ModelError
from specee.models.gguf_types import TENSORS

N_MUTATED = 2400


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

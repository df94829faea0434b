"""Copies in faster types."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize

from specee.models import gguf_header, requantize

Q4_1, Q6_K, Q8_0 = (getattr(gguf.GGMLQuantizationType, name) for name in ("Q4_1", "Q6_K", "Q8_0"))


def write(path: Path, *, tied: bool) -> Path:
    """An embedding, one layer's matrix in Q4_1, one norm; with or without a head of its own."""
    chance = np.random.default_rng(3)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_file_type(3)
    writer.add_token_list(["a", "ü", "c"])
    writer.add_array("some.numbers", [1.5, 2.5])
    writer.add_chat_template("{{ messages }}")
    weights = chance.standard_normal((8, 64)).astype(np.float32)
    writer.add_tensor("token_embd.weight", weights)
    writer.add_tensor("blk.0.ffn_up.weight", quantize(weights, Q4_1), raw_dtype=Q4_1)
    writer.add_tensor("blk.0.ffn_norm.weight", np.ones(64, np.float32))
    if not tied:
        writer.add_tensor("output.weight", np.zeros((8, 210), np.uint8), raw_dtype=Q6_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("tied", [True, False])
def test_a_copy_keeps_all_but_what_it_changes(tmp_path: Path, tied: bool) -> None:
    header = gguf_header.read(write(tmp_path / "model.gguf", tied=tied))
    changed = requantize.changes(header)
    assert [(c.name, c.added) for c in changed] == [("blk.0.ffn_up.weight", False), ("output.weight", tied)]
    assert "1 x layer weights: Q4_1 -> Q8_0" in requantize.describe(changed)
    shares: list[float] = []
    requantize.write(header, changed, tmp_path / "copy.gguf", shares.append)
    copy = gguf_header.read(tmp_path / "copy.gguf")
    assert requantize.changes(copy) == [] and shares[0] == 0
    assert abs(copy.file_bytes - requantize.size_of_copy(header, changed)) < 4096
    kept = {**header.values, "general.file_type": requantize.FILE_TYPE_Q8_0}
    assert copy.values == kept
    old, new = ({t.name: t for t in gguf.GGUFReader(p).tensors} for p in (header.path, copy.path))
    for name in ("token_embd.weight", "blk.0.ffn_norm.weight"):
        assert np.array_equal(old[name].data, new[name].data)
    before = dequantize(old["blk.0.ffn_up.weight"].data, Q4_1)
    after = dequantize(new["blk.0.ffn_up.weight"].data, Q8_0)
    assert np.abs(before - after).max() <= 0.005 * np.abs(before).max()
    assert new["output.weight"].tensor_type == Q8_0
    assert list(new["output.weight"].shape) == list((old["token_embd.weight"] if tied else old["output.weight"]).shape)


@pytest.mark.parametrize("kind", ["IQ3_S", "IQ2_XS", "TQ2_0"])
def test_types_without_a_batch_kernel_become_the_nearest_with_one(tmp_path: Path, kind: str) -> None:
    number = gguf.GGMLQuantizationType[kind]
    block, block_bytes = gguf.GGML_QUANT_SIZES[number]
    chance = np.random.default_rng(5)
    data = chance.integers(0, 256, (8, 256 // block * block_bytes), np.uint8)
    data[:, -2:] = data[:, :2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)  # the scale of a block
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_block_count(1)
    writer.add_token_list(["a", "b", "c"])
    writer.add_tensor("blk.0.ffn_up.weight", data, raw_dtype=number)
    writer.add_tensor("blk.0.ffn_norm.weight", np.ones(256, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = gguf_header.read(tmp_path / "model.gguf")
    changed = requantize.changes(header)
    assert [(c.name, c.target) for c in changed] == [("blk.0.ffn_up.weight", "Q4_0")]
    assert requantize.describe(changed) == [f"1 x layer weights: {kind} -> Q4_0"]
    requantize.write(header, changed, tmp_path / "copy.gguf")
    copy = {t.name: t for t in gguf.GGUFReader(tmp_path / "copy.gguf").tensors}["blk.0.ffn_up.weight"]
    before, after = dequantize(data, number), dequantize(copy.data, copy.tensor_type)
    assert copy.tensor_type.name == "Q4_0" and np.abs(before - after).max() <= 0.15 * np.abs(before).max()
    assert requantize.changes(gguf_header.read(tmp_path / "copy.gguf")) == []

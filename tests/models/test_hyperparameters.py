"""Headers of models that are not made of the same attention layers: what they may lack, and what no model can have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGUFValueType as Type

from specee.models import gguf_header, kv_cache, model_structure
from specee.models.errors import ModelError

COMMON = {"block_count": 4, "context_length": 512, "embedding_length": 64, "feed_forward_length": 128}
HEADS = {"attention.head_count": 4, "attention.head_count_kv": 2}
SSM = {"ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16, "ssm.time_step_rank": 4, "ssm.group_count": 1}
COMPRESSED = {
    **COMMON,
    "attention.head_count": 4,
    "attention.head_count_kv": 1,
    "attention.kv_lora_rank": 32,
    "attention.key_length": 48,
    "attention.value_length": 32,
    "attention.key_length_mla": 24,
    "rope.dimension_count": 16,
}
MAMBA = {**COMMON, **SSM, "attention.head_count": 0, "feed_forward_length": 0}


def write(path: Path, arch: str, values: dict[str, Any]) -> Path:
    writer = gguf.GGUFWriter(path, arch)
    for key, value in values.items():
        if isinstance(value, list):
            writer.add_key_value(f"{arch}.{key}", value, Type.ARRAY, Type.UINT32)
        else:
            writer.add_key_value(f"{arch}.{key}", value, Type.UINT32)
    writer.add_tensor("token_embd.weight", np.ones((4, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("arch", "values"),
    [
        ("mamba", MAMBA),
        ("mamba2", {**MAMBA, "context_length": 1 << 20}),
        ("rwkv7", {**COMMON, "attention.head_count": 0, "wkv.head_size": 64}),
        ("rwkv6qwen2", {**COMMON, "attention.head_count": 0, "attention.head_count_kv": 2, "wkv.head_size": 64}),
        ("jamba", {**COMMON, **SSM, "attention.head_count": 4, "attention.head_count_kv": [0, 2, 0, 0]}),
        ("falcon-h1", {**COMMON, **HEADS, **SSM, "context_length": 0}),
        ("granitehybrid", {**COMMON, **HEADS, **SSM, "attention.head_count_kv": [0] * 4, "feed_forward_length": 0}),
        ("nemotron_h", {**COMMON, **SSM, "attention.head_count": 4, "feed_forward_length": [0, 0, 128, 128]}),
        ("plamo2", {**COMMON, **SSM, "attention.head_count": [4, 0, 4, 0], "ssm.group_count": 0}),
        ("deci", {**COMMON, "attention.head_count": [4, 0, 4, 4], "attention.head_count_kv": [2, 0, 0, 2]}),
        ("qwen3moe", {**COMMON, **HEADS, "expert_count": 8, "feed_forward_length": 0}),
        ("glm5-next", {**COMMON, **HEADS, "rope.dimension_count": 0}),
        ("gpt2", {**COMMON, "attention.head_count": 4}),
        ("deepseek2", COMPRESSED),
    ],
)
def test_what_some_models_lack(tmp_path: Path, arch: str, values: dict[str, Any]) -> None:
    header = gguf_header.read_model(write(tmp_path / "model.gguf", arch, values))
    assert model_structure.read(header).arch == arch


@pytest.mark.parametrize(
    ("arch", "values", "says"),
    [
        ("llama", {**COMMON, **HEADS, "attention.head_count": 0}, "head_count cannot be '0'"),
        ("llama", {**COMMON, **HEADS, "attention.head_count_kv": 0}, "head_count_kv cannot be '0'"),
        ("llama", {**COMMON, **HEADS, "feed_forward_length": 0}, "feed_forward_length cannot be '0'"),
        ("jamba", {**COMMON, **SSM, "attention.head_count": 0}, "head_count cannot be '0'"),
        ("mamba", {**MAMBA, "block_count": 0}, "block_count"),
        ("mamba", {**MAMBA, "embedding_length": 0}, "embedding_length"),
        ("mamba2", {**MAMBA, "ssm.time_step_rank": 0}, "time_step_rank"),
        ("mamba", {**MAMBA, "ssm.conv_kernel": 0}, "conv_kernel"),
        ("rwkv7", {**COMMON, "attention.head_count": 0, "wkv.head_size": 0}, "wkv.head_size"),
        ("rwkv7", {**COMMON, "attention.head_count": 0, "wkv.head_size": 48}, "wkv.head_size"),
        ("gemma3", {**COMMON, **HEADS, "attention.head_count_kv": 3}, "head_count_kv"),
        ("deepseek2", {**COMPRESSED, "attention.key_length": 50}, "attention.key_length"),
        ("deepseek2", {k: v for k, v in COMPRESSED.items() if k != "attention.key_length"}, "attention.key_length"),
        ("qwen3next", {**COMMON, **HEADS, "full_attention_interval": 0}, "full_attention_interval"),
        ("qwen2", {**COMMON, **HEADS, "rope.dimension_count": 3}, "rope.dimension_count"),
        ("qwen2", {**COMMON, **HEADS, "rope.dimension_count": 32}, "rope.dimension_count"),
        ("qwen2", {**COMMON, **HEADS, "rope.dimension_count": 0}, "never finishes"),
        ("plamo2", {**COMMON, **SSM, "attention.head_count": [0, 4, 0, 4]}, "never finishes"),
    ],
)
def test_what_no_model_has(tmp_path: Path, arch: str, values: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        gguf_header.read_model(write(tmp_path / "model.gguf", arch, values))


@pytest.mark.parametrize(
    ("arch", "values", "heads_that_keep"),
    [
        ("llama", {**COMMON, **HEADS}, 4 * 2 * (16 + 16)),
        ("gpt2", {**COMMON, "attention.head_count": 4}, 4 * 4 * (16 + 16)),
        ("mamba", MAMBA, 0),
        ("rwkv6qwen2", {**COMMON, "attention.head_count": 0, "attention.head_count_kv": 2, "wkv.head_size": 64}, 0),
        ("jamba", {**COMMON, **SSM, "attention.head_count": 4, "attention.head_count_kv": [0, 2, 0, 0]}, 2 * (16 + 16)),
        ("qwen3next", {**COMMON, **HEADS, **SSM}, 2 * (16 + 16)),
        ("qwen35", {**COMMON, **HEADS, **SSM, "full_attention_interval": 2}, 2 * 2 * (16 + 16)),
        ("gemma4", {**COMMON, **HEADS, "attention.shared_kv_layers": 3}, 2 * (16 + 16)),
        ("glm4moe", {**COMMON, **HEADS, "nextn_predict_layers": 1}, 3 * 2 * (16 + 16)),
        ("deepseek2", COMPRESSED, 4 * 48),
    ],
)
def test_memory_of_a_token(tmp_path: Path, arch: str, values: dict[str, Any], heads_that_keep: int) -> None:
    header = gguf_header.read_model(write(tmp_path / "model.gguf", arch, values))
    assert kv_cache.bytes_per_token(header) == heads_that_keep * 2
    assert model_structure.read(header).kv_bytes_per_token == heads_that_keep * 2

"""Models of well-known shapes with random weights, of which only the speed says anything: no text.

`python tests/benchmarks/random_model.py SHAPE FILE.gguf`
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Shape:
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    n_ff: int
    n_vocab: int
    rope_base: float = 10000.0


SHAPES = {
    "tiny": Shape(8, 512, 8, 4, 1024, 16384),
    "qwen2.5-1.5b": Shape(28, 1536, 12, 2, 8960, 151936, 1e6),
    "llama2-7b": Shape(32, 4096, 32, 32, 11008, 32000),
    "llama3.1-8b": Shape(32, 4096, 32, 8, 14336, 128256, 500000.0),
}


class Blocks:
    """Random weights of one type, made once: each matrix is a view of the first bytes."""

    def __init__(self, kind: GGMLQuantizationType, n_bytes: int) -> None:
        self.kind = kind
        self.n_weights, self.n_block = gguf.GGML_QUANT_SIZES[kind]
        block = np.random.default_rng(int(kind)).integers(0, 256, (1 << 16, self.n_block), dtype=np.uint8)
        scale = np.array([2e-5], np.float16).view(np.uint8)
        if kind == GGMLQuantizationType.Q4_K:  # scale and least value of the block come first
            block[:, 0:2] = block[:, 2:4] = scale
        else:  # Q6_K: its scale comes last
            block[:, -2:] = scale
        self.data = np.resize(block, (n_bytes // self.n_block + 1, self.n_block)).reshape(-1)

    def matrix(self, rows: int, columns: int) -> NDArray[np.uint8]:
        width = columns // self.n_weights * self.n_block
        return self.data[: rows * width].reshape(rows, width)


def write(path: Path, name: str) -> Path:
    """A llama model like llama.cpp's Q4_K_M: LM head, half of V and half of the FFN's last matrix in Q6_K."""
    s = SHAPES[name]
    w = gguf.GGUFWriter(path, "llama")
    w.add_name(f"random {name}")
    w.add_context_length(8192)
    w.add_embedding_length(s.n_embd)
    w.add_block_count(s.n_layer)
    w.add_feed_forward_length(s.n_ff)
    w.add_head_count(s.n_head)
    w.add_head_count_kv(s.n_head_kv)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(s.n_embd // s.n_head)
    w.add_rope_freq_base(s.rope_base)
    w.add_tokenizer_model("llama")
    w.add_token_list(["<unk>", "<s>", "</s>", *(f"t{i}" for i in range(3, s.n_vocab))])
    w.add_token_scores([0.0] * s.n_vocab)
    w.add_token_types([2, 3, 3] + [1] * (s.n_vocab - 3))
    most = max(s.n_vocab, s.n_ff) * s.n_embd
    kinds = {kind: Blocks(kind, most) for kind in (GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K)}

    def matrix(tensor: str, rows: int, columns: int, *, fine: bool = False) -> None:
        kind = GGMLQuantizationType.Q6_K if fine else GGMLQuantizationType.Q4_K
        w.add_tensor(tensor, kinds[kind].matrix(rows, columns), raw_dtype=kind)

    one = np.ones(s.n_embd, np.float32)
    n_kv = s.n_embd // s.n_head * s.n_head_kv
    matrix("token_embd.weight", s.n_vocab, s.n_embd)
    w.add_tensor("output_norm.weight", one)
    matrix("output.weight", s.n_vocab, s.n_embd, fine=True)
    for i in range(s.n_layer):
        fine = i % 2 == 0
        w.add_tensor(f"blk.{i}.attn_norm.weight", one)
        w.add_tensor(f"blk.{i}.ffn_norm.weight", one)
        matrix(f"blk.{i}.attn_q.weight", s.n_embd, s.n_embd)
        matrix(f"blk.{i}.attn_k.weight", n_kv, s.n_embd)
        matrix(f"blk.{i}.attn_v.weight", n_kv, s.n_embd, fine=fine)
        matrix(f"blk.{i}.attn_output.weight", s.n_embd, s.n_embd)
        matrix(f"blk.{i}.ffn_gate.weight", s.n_ff, s.n_embd)
        matrix(f"blk.{i}.ffn_up.weight", s.n_ff, s.n_embd)
        matrix(f"blk.{i}.ffn_down.weight", s.n_embd, s.n_ff, fine=fine)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


if __name__ == "__main__":
    write(Path(sys.argv[2]), sys.argv[1])

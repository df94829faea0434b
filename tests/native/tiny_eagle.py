"""A random EAGLE-3 head for a model: its vocabulary is the model's, its one layer is small."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

N_HEAD, N_HEAD_KV, N_FF = 4, 2, 64
COPIED = ("tokenizer.ggml.", "tokenizer.chat_template")


def write(
    path: Path,
    target: Path,
    layers: Sequence[int],
    *,
    seed: int = 0,
    n_known: int = 0,
    hidden: int = 0,
    own_head: bool = True,
    first_known: int = 0,
) -> Path:
    """`layers`: of the target. `n_known`: tokens that the head can draft, 0: all; `first_known` is added
    to each. `hidden`: the target's width, if not
    the real one. Without `own_head` it shares the target's embeddings and LM head."""
    reader = gguf.GGUFReader(target)
    arch = reader.fields["general.architecture"].contents()
    n_embd = int(reader.fields[f"{arch}.embedding_length"].contents())
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    n_vocab = len(tokens)
    rng = np.random.default_rng(seed)
    w = gguf.GGUFWriter(path, "eagle3")
    w.add_name("tiny-eagle3")
    w.add_context_length(512)
    w.add_embedding_length(n_embd)
    w.add_block_count(1)
    w.add_feed_forward_length(N_FF)
    w.add_head_count(N_HEAD)
    w.add_head_count_kv(N_HEAD_KV)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(n_embd // N_HEAD)
    w.add_rope_freq_base(10000.0)
    w.add_array("eagle3.target_layers", [int(layer) for layer in layers])
    w.add_uint32("eagle3.target_hidden_size", hidden or n_embd)
    for name, field in reader.fields.items():
        if name.startswith(COPIED):
            kind = field.types[0]
            sub_type = field.types[1] if kind is gguf.GGUFValueType.ARRAY else None
            w.add_key_value(name, field.contents(), kind, sub_type)

    def normal(name: str, *shape: int) -> None:
        w.add_tensor(name, (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))

    def ones(name: str) -> None:
        w.add_tensor(name, np.ones(n_embd, np.float32))

    n_kv = n_embd // N_HEAD * N_HEAD_KV
    normal("fc.weight", n_embd, 3 * (hidden or n_embd))
    ones("output_norm.weight")
    if own_head:
        normal("token_embd.weight", n_vocab, n_embd)
        normal("output.weight", n_known or n_vocab, n_embd)
    if n_known:
        w.add_tensor("d2t", np.sort(rng.choice(n_vocab, n_known, replace=False)).astype(np.int64) + first_known)
    ones("blk.0.attn_norm.weight")
    ones("blk.0.attn_norm_2.weight")
    for name, n_out in (("q", n_embd), ("k", n_kv), ("v", n_kv)):
        normal(f"blk.0.attn_{name}.weight", n_out, 2 * n_embd)
    normal("blk.0.attn_output.weight", n_embd, n_embd)
    ones("blk.0.ffn_norm.weight")
    normal("blk.0.ffn_gate.weight", N_FF, n_embd)
    normal("blk.0.ffn_up.weight", N_FF, n_embd)
    normal("blk.0.ffn_down.weight", n_embd, N_FF)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path

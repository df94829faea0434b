"""A random EAGLE-3 head for a model: its vocabulary is the model's, its one layer is small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    own_embeddings: bool = True,
    own_head: bool = True,
    first_known: int = 0,
    head_dim: int = 0,
    value_dim: int = 0,
    norm_before_fc: bool | None = None,
    norm_before_residual: bool | None = None,
    rope_factors: bool = False,
    n_vocab: int = 0,
    n_embeddings: int = 0,
    width: int = 0,
    half: bool = False,
    values: Mapping[str, str] | None = None,
) -> Path:
    """`layers`: of the target. `n_known`: tokens that the head can draft, 0: all; `first_known` is added
    to each. `hidden`: the target's width, if not the real one; `width`: the head's own, if another.
    Without `own_embeddings` it shares the target's, without `own_head` its LM head.
    `head_dim` 0: the width over the heads; `value_dim` 0: `head_dim`. A norm that is None is not mentioned.
    `n_vocab`, `n_embeddings`: tokens of its vocabulary, and rows of its embeddings, if not the target's.
    `half`: matrices in 16 bits. `values`: further texts of the header."""
    reader = gguf.GGUFReader(target)
    arch = reader.fields["general.architecture"].contents()
    n_target = int(reader.fields[f"{arch}.embedding_length"].contents())
    n_embd = width or n_target
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    n_vocab = n_vocab or len(tokens)
    key_dim = head_dim or n_embd // N_HEAD
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
    w.add_rope_dimension_count(key_dim)
    w.add_rope_freq_base(10000.0)
    if head_dim:
        w.add_key_length(key_dim)
        w.add_value_length(value_dim or key_dim)
    w.add_array("eagle3.target_layers", [int(layer) for layer in layers])
    w.add_uint32("eagle3.target_hidden_size", hidden or n_target)
    for name, value in (("norm_before_fc", norm_before_fc), ("norm_before_residual", norm_before_residual)):
        if value is not None:
            w.add_bool(f"eagle3.{name}", value)
    for key, text in (values or {}).items():
        w.add_string(key, text)
    for name, field in reader.fields.items():
        if name.startswith(COPIED):
            kind = field.types[0]
            sub_type = field.types[1] if kind is gguf.GGUFValueType.ARRAY else None
            contents = field.contents()
            if kind is gguf.GGUFValueType.ARRAY and len(contents) == len(tokens) != n_vocab:
                more = [f"<{i}>" if sub_type is gguf.GGUFValueType.STRING else contents[-1] for i in range(n_vocab)]
                contents = [*contents, *more][:n_vocab]
            w.add_key_value(name, contents, kind, sub_type)

    def normal(name: str, *shape: int) -> None:
        made = rng.standard_normal(shape) / np.sqrt(shape[-1])
        w.add_tensor(name, made.astype(np.float16 if half else np.float32))

    def ones(name: str, n: int = n_embd) -> None:
        w.add_tensor(name, np.ones(n, np.float32))

    n_kv = key_dim * N_HEAD_KV
    normal("fc.weight", n_embd, 3 * (hidden or n_target))
    if norm_before_fc:
        ones("enc.output_norm.weight", 3 * (hidden or n_target))
    ones("output_norm.weight")
    if own_embeddings:
        normal("token_embd.weight", n_embeddings or n_vocab, n_embd)
    if own_head:
        normal("output.weight", n_known or n_vocab, n_embd)
    if n_known:
        w.add_tensor("d2t", np.sort(rng.choice(n_vocab, n_known, replace=False)).astype(np.int64) + first_known)
    if rope_factors:
        ones("rope_freqs.weight", key_dim // 2)
    ones("blk.0.attn_norm.weight")
    ones("blk.0.attn_norm_2.weight")
    for name, n_out in (("q", key_dim * N_HEAD), ("k", n_kv), ("v", (value_dim or key_dim) * N_HEAD_KV)):
        normal(f"blk.0.attn_{name}.weight", n_out, 2 * n_embd)
    normal("blk.0.attn_output.weight", n_embd, key_dim * N_HEAD)
    ones("blk.0.ffn_norm.weight")
    normal("blk.0.ffn_gate.weight", N_FF, n_embd)
    normal("blk.0.ffn_up.weight", N_FF, n_embd)
    normal("blk.0.ffn_down.weight", n_embd, N_FF)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path

"""Tiny random models, written with the gguf package: every supported architecture in a file of a few hundred KiB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

N_EMBD, N_HEAD, N_HEAD_KV, N_FF, N_VOCAB, N_LAYER = 64, 4, 2, 128, 96, 6
ARCHITECTURES = ("llama", "qwen2")


def quantize_q8(weights: np.ndarray) -> np.ndarray:
    return gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q8_0)


def write(
    path: Path,
    arch: str,
    *,
    n_layer: int = N_LAYER,
    seed: int = 0,
    tied: bool = False,
    width: int = 1,
    quantize: tuple[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    experts: int = 0,
    n_vocab: int = N_VOCAB,
) -> Path:
    """A model with normally distributed float32 weights, large enough that its layers matter.

    `width`: times as wide. `quantize`: a ggml type, and what turns a matrix into rows of its blocks.
    `experts`: so many in each layer (of llama), and a token uses all of them.
    """
    n_embd, n_ff = N_EMBD * width, N_FF * width
    rng = np.random.default_rng(seed)
    w = gguf.GGUFWriter(path, arch)
    w.add_name(f"tiny-{arch}")
    w.add_context_length(512)
    w.add_embedding_length(n_embd)
    w.add_block_count(n_layer)
    w.add_feed_forward_length(n_ff)
    w.add_head_count(N_HEAD)
    w.add_head_count_kv(N_HEAD_KV)
    if experts:
        w.add_expert_count(experts)
        w.add_expert_used_count(experts)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(n_embd // N_HEAD)
    w.add_rope_freq_base(10000.0)
    # a byte-like vocabulary: printable characters, then the control tokens
    tokens = [f"<{i}>" for i in range(n_vocab)]
    for i in range(3, n_vocab):
        tokens[i] = chr(ord("!") + i - 3) if i - 3 < 90 else f"x{i}"
    tokens[:3] = ["<unk>", "<s>", "</s>"]
    w.add_tokenizer_model("llama")
    w.add_token_list(tokens)
    w.add_token_scores([0.0] * n_vocab)
    w.add_token_types([2, 3, 3] + [1] * (n_vocab - 3))
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)

    def normal(name: str, *shape: int, scale: float = 1.0) -> None:
        fan_in = shape[-1]
        weights = (rng.standard_normal(shape) * scale / np.sqrt(fan_in)).astype(np.float32)
        if quantize is None:
            w.add_tensor(name, weights)
        elif len(shape) == 3:
            rows = quantize[1](weights.reshape(-1, fan_in)).reshape(*shape[:2], -1)
            w.add_tensor(name, rows, raw_dtype=gguf.GGMLQuantizationType[quantize[0]])
        else:
            w.add_tensor(name, quantize[1](weights), raw_dtype=gguf.GGMLQuantizationType[quantize[0]])

    def norm(name: str) -> None:
        w.add_tensor(name, (1 + 0.1 * rng.standard_normal(n_embd)).astype(np.float32))

    n_kv = n_embd // N_HEAD * N_HEAD_KV
    normal("token_embd.weight", n_vocab, n_embd, scale=4.0)
    norm("output_norm.weight")
    if not tied:
        normal("output.weight", n_vocab, n_embd, scale=4.0)
    for i in range(n_layer):
        norm(f"blk.{i}.attn_norm.weight")
        norm(f"blk.{i}.ffn_norm.weight")
        for name, n_out in (("q", n_embd), ("k", n_kv), ("v", n_kv)):
            normal(f"blk.{i}.attn_{name}.weight", n_out, n_embd, scale=2.0)
            if arch == "qwen2":
                w.add_tensor(f"blk.{i}.attn_{name}.bias", rng.standard_normal(n_out).astype(np.float32) * 0.1)
        if arch == "qwen3":
            for name in ("q_norm", "k_norm"):
                w.add_tensor(f"blk.{i}.attn_{name}.weight", np.ones(n_embd // N_HEAD, np.float32))
        normal(f"blk.{i}.attn_output.weight", n_embd, n_embd)
        if experts:
            w.add_tensor(f"blk.{i}.ffn_gate_inp.weight", rng.standard_normal((experts, n_embd)).astype(np.float32))
        end, many = ("_exps", (experts,)) if experts else ("", ())
        normal(f"blk.{i}.ffn_gate{end}.weight", *many, n_ff, n_embd)
        normal(f"blk.{i}.ffn_up{end}.weight", *many, n_ff, n_embd)
        normal(f"blk.{i}.ffn_down{end}.weight", *many, n_embd, n_ff)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path

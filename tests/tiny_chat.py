"""Tiny random models with vocabularies as chat models have them: every byte a token, and control tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,!?<>|/[]:"
N_EMBD, N_HEAD, N_FF = 64, 4, 64


def write(
    path: Path,
    kind: str,
    control: Sequence[str],
    template: str | Sequence[Mapping[str, str]] | None,
    *,
    user_defined: Sequence[str] = (),
    plain: Sequence[str] = (),
    name: str = "tiny",
    eos: str = "</s>",
    finetune: str | None = None,
    kinds: Mapping[str, int] | None = None,
    **settings: bool,
) -> Path:
    """`kind`: spm or bpe; `plain`: tokens that are text; `kinds`: other types of tokens; `settings`: as
    `add_bos_token`."""
    gguf: Any = __import__("gguf")
    w = gguf.GGUFWriter(path, "llama")
    w.add_name(name)
    if finetune is not None:
        w.add_finetune(finetune)
    w.add_context_length(4096)
    w.add_embedding_length(N_EMBD)
    w.add_block_count(1)
    w.add_feed_forward_length(N_FF)
    w.add_head_count(N_HEAD)
    w.add_head_count_kv(N_HEAD)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(N_EMBD // N_HEAD)
    tokens = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
    tokens += [(each, CONTROL) for each in control if each not in ("<unk>", "<s>", "</s>")]
    tokens += [(each, USER_DEFINED) for each in user_defined] + [(each, NORMAL) for each in plain]
    if kind == "spm":
        tokens += [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
        tokens += [(each, NORMAL) for each in ("\u2581", *LETTERS, "\u2581h", "hi")]
        w.add_tokenizer_model("llama")
        w.add_token_scores([-float(i) for i in range(len(tokens))])
    else:
        tokens += [(each, NORMAL) for each in (*byte_letters(), "hi")]
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("default")
        w.add_token_merges(["h i"])
    tokens = [(text, (kinds or {}).get(text, kind_of)) for text, kind_of in tokens]
    texts = [text for text, _ in tokens]
    w.add_token_list(texts)
    w.add_token_types([kind for _, kind in tokens])
    w.add_bos_token_id(1)
    w.add_eos_token_id(texts.index(eos))
    w.add_unk_token_id(0)
    for key, value in settings.items():
        w.add_bool(f"tokenizer.ggml.{key}", value)
    if template is not None:
        w.add_chat_template(template)
    rng = np.random.default_rng(0)
    shapes = {"token_embd.weight": (len(tokens), N_EMBD), "output.weight": (len(tokens), N_EMBD)}
    shapes |= {f"blk.0.attn_{part}.weight": (N_EMBD, N_EMBD) for part in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{part}.weight": (N_FF, N_EMBD) for part in ("gate", "up", "down")}
    for tensor, shape in shapes.items():
        w.add_tensor(tensor, rng.standard_normal(shape).astype(np.float32) / 8)
    for tensor in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"):
        w.add_tensor(tensor, np.ones(N_EMBD, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def byte_letters() -> list[str]:
    """The letters that stand for bytes in GPT-2's vocabulary, by byte."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) if byte in shown else chr(0x100 + hidden.index(byte)) for byte in range(256)]

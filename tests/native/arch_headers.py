"""The numbers in the headers of tiny models, for each architecture of the pinned llama.cpp.

A header is COMMON, what the architecture's family has, and what it alone has. Keys are written without the
architecture's name. Sizes are about the smallest that llama.cpp's graphs take.
"""

from __future__ import annotations

from typing import Any

Values = dict[str, Any]
"""None: without this key."""

N_EMBD, N_HEAD, N_HEAD_KV, N_FF, N_LAYER, N_CTX, N_VOCAB = 64, 2, 1, 128, 4, 512, 128
HEAD = N_EMBD // N_HEAD
WINDOW = 16  # of sliding attention: shorter than the prompts of the tests
EXPERTS_SUFFIX = "+experts"

COMMON: Values = {
    "vocab_size": N_VOCAB,
    "context_length": N_CTX,
    "embedding_length": N_EMBD,
    "block_count": N_LAYER,
    "feed_forward_length": N_FF,
    "attention.head_count": N_HEAD,
    "attention.head_count_kv": N_HEAD_KV,
    "attention.layer_norm_epsilon": 1e-5,
    "attention.layer_norm_rms_epsilon": 1e-5,
}
EXPERTS: Values = {
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_feed_forward_length": 64,
    "expert_shared_feed_forward_length": 64,
    "expert_shared_count": 1,
    "expert_gating_func": 2,
    "expert_weights_norm": True,
    "expert_weights_scale": 1.0,
    "leading_dense_block_count": 1,
}

# ---- families

ODD = [il % 2 for il in range(N_LAYER)]  # 1 for every second layer
SLIDING: Values = {"attention.sliding_window": WINDOW}
PATTERN: Values = {**SLIDING, "attention.sliding_window_pattern": ODD}
SECTIONS: Values = {"rope.dimension_sections": [HEAD // 8] * 4}
ALL_HEADS: Values = {"attention.head_count_kv": N_HEAD}  # no groups of heads with one K and V
TOKEN_TYPES: Values = {"tokenizer.ggml.token_type_count": 2}
GRANITE: Values = {"logit_scale": 4.0, "residual_scale": 0.5, "embedding_scale": 6.0, "attention.scale": 0.2}
# K and V from few compressed numbers (MLA), and a part of K that is rotated
_LORA, _ROTATED, _PLAIN = 32, 32, 32
_COMPRESSED: Values = {
    "attention.q_lora_rank": 64,
    "attention.kv_lora_rank": _LORA,
    "rope.dimension_count": _ROTATED,
}
WHOLE_MLA: Values = {  # the cache has K and V of each head
    **_COMPRESSED,
    **ALL_HEADS,
    "attention.key_length": _PLAIN + _ROTATED,
    "attention.value_length": _PLAIN,
}
MLA: Values = {  # the cache has the compressed numbers
    **_COMPRESSED,
    "attention.head_count_kv": 1,
    "attention.key_length": _LORA + _ROTATED,
    "attention.value_length": _LORA,
    "attention.key_length_mla": _PLAIN + _ROTATED,
    "attention.value_length_mla": _PLAIN,
}
INDEXER: Values = {
    "attention.indexer.head_count": 64,  # what the fused kernel takes
    "attention.indexer.key_length": 128,
    "attention.indexer.top_k": 1 << 17,
}
HYPER: Values = {
    "hyper_connection.count": 4,
    "hyper_connection.sinkhorn_iterations": 2,
    "hyper_connection.epsilon": 1e-6,
}
SSM: Values = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 2 * N_EMBD,
    "ssm.state_size": 16,
    "ssm.time_step_rank": 4,
    "ssm.group_count": 1,
}
NO_HEADS: Values = {"attention.head_count": 0, "attention.head_count_kv": None}
HALF_HEADS: Values = {"attention.head_count_kv": [N_HEAD_KV * odd for odd in ODD]}  # every second layer attends
DELTA_NET: Values = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": N_EMBD,
    "ssm.state_size": HEAD,
    "ssm.time_step_rank": N_HEAD,
    "ssm.group_count": N_HEAD,
    "full_attention_interval": 2,
}
KDA: Values = {**HALF_HEADS, "ssm.conv_kernel": 4, "kda.head_dim": HEAD, "kda.gate_lower_bound": -5.0}
SHORT_CONVOLUTION: Values = {**HALF_HEADS, "shortconv.l_cache": 3}
RWKV: Values = {**NO_HEADS, "wkv.head_size": 64}  # what a vector instruction takes
RWKV6: Values = {**RWKV, "time_mix_extra_dim": 32, "time_decay_extra_dim": 32}
RWKV7: Values = {
    **RWKV,
    "attention.decay_lora_rank": 32,
    "attention.iclr_lora_rank": 32,
    "attention.value_residual_mix_lora_rank": 32,
    "attention.gate_lora_rank": 32,
}
MAMBA: Values = {**NO_HEADS, **SSM, "feed_forward_length": 0}

# ---- architectures: what each has besides

DENSE: dict[str, tuple[Values, ...]] = {
    "apertus": ({f"xielu.{name}": 1.0 for name in ("alpha_n", "alpha_p", "beta", "eps")},),
    "arcee": (),
    "baichuan": (ALL_HEADS,),
    "bitnet": (),
    "bloom": (ALL_HEADS,),
    "chameleon": ({"vocab_size": 8256},),  # its image tokens stand at fixed places
    "chatglm": (),
    "codeshell": (),
    "cogvlm": (),
    "cohere2": (SLIDING, {"logit_scale": 0.25}),
    "command-r": ({"logit_scale": 0.25},),
    "deci": (  # a layer without attention, one with a matrix in its place, one without feed-forward
        {
            "attention.head_count": [N_HEAD, 0, N_HEAD, N_HEAD],
            "attention.head_count_kv": [N_HEAD_KV, 0, 0, N_HEAD_KV],
            "feed_forward_length": [N_FF, N_FF, 0, N_FF],
        },
    ),
    "ernie4_5": (),
    "exaone": (),
    "exaone4": (PATTERN,),
    "falcon": (),
    "gemma": (),
    "gemma2": (SLIDING, {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}),
    "gemma3": (SLIDING, {"block_count": 6}),  # one layer in six attends to everything
    "gemma3n": (SLIDING, {"block_count": 22}),  # the layers after 20 take K and V of others
    "gemma4": (  # the last layers take K and V of the ones before
        SLIDING,
        {
            "attention.sliding_window_pattern": [1 - odd for odd in ODD],
            "embedding_length_per_layer_input": 32,
            "attention.key_length": 64,
            "attention.value_length": 64,
            "attention.key_length_swa": HEAD,
            "attention.value_length_swa": HEAD,
            "attention.shared_kv_layers": 2,
            "rope.dimension_count_swa": HEAD,
            "final_logit_softcapping": 30.0,
        },
    ),
    "glm4": (),
    "gpt2": (ALL_HEADS,),
    "gptneox": (ALL_HEADS, {"use_parallel_residual": True}),
    "granite": (GRANITE,),
    "granite_swa": (GRANITE, PATTERN),
    "hrm_text": ({"block_count": 6, "hrm.layers_per_stack": 1, "hrm.h_cycles": 2, "hrm.l_cycles": 2},),
    "hunyuan-dense": (),
    "hunyuan_vl": (SECTIONS,),
    "internlm2": (),
    "jais": (ALL_HEADS, {"attention.max_alibi_bias": 8.0}),
    "jais2": (ALL_HEADS,),
    "llama": (),
    "maincoder": (),
    "minicpm": ({"logit_scale": 0.25, "embedding_scale": 6.0, "residual_scale": 0.5},),
    "minicpm3": (WHOLE_MLA,),
    "mistral3": (),
    "mpt": (ALL_HEADS, {"attention.clamp_kqv": 8.0, "attention.max_alibi_bias": 8.0}),
    "muse-glimmer": (PATTERN, {"logit_scale": 0.25}),
    "nanbeige": (),
    "nemotron": (),
    "olmo": (ALL_HEADS, {"attention.clamp_kqv": 8.0}),
    "olmo2": (PATTERN,),
    "openelm": (  # wider from layer to layer
        {
            "attention.head_count": [2, 2, 4, 4],
            "attention.head_count_kv": [1, 1, 2, 2],
            "feed_forward_length": [64, 96, 128, 160],
            "attention.key_length": 32,
            "attention.value_length": 32,
        },
    ),
    "orion": (),
    "pangu-embedded": (),
    "phi2": (ALL_HEADS,),
    "phi3": (),
    "plamo": (),
    "plamo3": (PATTERN,),
    "plm": (WHOLE_MLA,),
    "qwen": (ALL_HEADS,),
    "qwen2": (),
    "qwen2vl": (SECTIONS,),
    "qwen3": (),
    "qwen3vl": (SECTIONS,),
    "refact": (),
    "seed_oss": (),
    "smollm3": (),
    "spark2_5": (PATTERN,),
    "stablelm": (),
    "starcoder": (),
    "starcoder2": (),
    "talkie": ({"logit_scale": 0.25},),
    "xverse": (),
}
WITH_EXPERTS: dict[str, tuple[Values, ...]] = {
    "afmoe": (SLIDING,),
    "arctic": (),
    "bailingmoe": (),
    "bailingmoe2": (),
    "cohere2moe": (PATTERN, {"logit_scale": 0.25}),
    "dbrx": ({"attention.clamp_kqv": 8.0},),
    "deepseek": (),
    "deepseek2": (MLA,),
    "deepseek2-ocr": (ALL_HEADS,),
    "deepseek32": (MLA, INDEXER),
    "dots1": (ALL_HEADS,),
    "dots3note": (
        MLA,
        PATTERN,
        INDEXER,
        {
            "attention.kv_lora_rank_swa": _LORA,
            "attention.key_length_swa": _LORA + _ROTATED,
            "attention.value_length_swa": _LORA,
            "attention.key_length_mla_swa": _PLAIN + _ROTATED,
            "attention.value_length_mla_swa": _PLAIN,
            "rope.freq_base_swa": 10000.0,
            "attention.indexer.types": [1 - odd for odd in ODD],
        },
    ),
    "ernie4_5-moe": ({"interleave_moe_layer_step": 1},),
    "exaone-moe": (PATTERN,),
    "gemma4": (
        PATTERN,
        {
            "embedding_length_per_layer_input": 0,
            "attention.key_length_swa": HEAD,
            "attention.value_length_swa": HEAD,
        },
    ),
    "glm-dsa": (MLA, INDEXER),
    "glm4moe": (),
    "gpt-oss": (SLIDING,),
    "granite": (GRANITE,),
    "granitemoe": (GRANITE,),
    "graniteswitch": (
        GRANITE,
        {
            "adapters.count": 2,
            "adapters.lora_rank": 8,
            "adapters.router_gain": 1.0,
            "adapters.token_ids_activate": [5, 6],
            "adapters.token_ids_substitute": [7, 8],
        },
    ),
    "grok": (),
    "grovemoe": ({"expert_group_scale": 1.0, "experts_per_group": 2},),
    "hunyuan-moe": (),
    "hy_v3": (),
    "hy_v4": (
        MLA,
        INDEXER,
        HYPER,
        {
            "hyper_connection.magnitude": 2.0,
            "swiglu_clamp_exp": 10.0,
            "attention.indexer.types": [1 - odd for odd in ODD],
        },
    ),
    "laguna": (SLIDING,),
    "llama": (),
    "llama4": (SLIDING, {"interleave_moe_layer_step": 2}),
    "maple": (PATTERN, {"swiglu_clamp_exp": 7.0}),
    "mellum": (PATTERN,),
    "mimo2": (PATTERN,),
    "minicpm": (),
    "minimax-m2": (),
    "minimax-m3": (
        INDEXER,
        {
            "attention.indexer.head_count": N_HEAD_KV,
            "attention.indexer.block_size": 4,
            "attention.indexer.local_blocks": 1,
        },
    ),
    "mistral3": (),
    "mistral4": (MLA,),
    "olmoe": (ALL_HEADS,),
    "paddleocr": (SECTIONS,),
    "phimoe": (),
    "qwen2moe": (),
    "qwen3moe": (),
    "qwen3vlmoe": (SECTIONS,),
    "refact": (),
    "smallthinker": (SLIDING,),
    "step35": (PATTERN,),
}
# Memories that are overwritten by each token, in all layers or in some.
RECURRENT: dict[str, tuple[Values, ...]] = {
    "arwkv7": (RWKV7, {"token_shift_count": 1}),
    "mamba": (MAMBA,),
    "mamba2": (MAMBA,),
    "rwkv6": (RWKV6,),
    "rwkv6qwen2": (RWKV6, {"token_shift_count": 1, "attention.head_count_kv": 1}),
    "rwkv7": (RWKV7,),
}
HYBRID: dict[str, tuple[Values, ...]] = {
    "falcon-h1": (SSM,),
    "granitehybrid": (HALF_HEADS, SSM, GRANITE),
    "jamba": (HALF_HEADS, SSM),
    "lfm2": (SHORT_CONVOLUTION,),
    "nemotron_h": (  # each layer is one thing: recurrent, attention or feed-forward
        SSM,
        {"attention.head_count_kv": [0, N_HEAD_KV, 0, 0], "feed_forward_length": [0, 0, N_FF, N_FF]},
    ),
    "plamo2": (
        SSM,
        {
            # where the first layer has no heads, llama.cpp's rotation never ends
            "attention.head_count": [N_HEAD * (1 - odd) for odd in ODD],
            "attention.head_count_kv": [N_HEAD_KV * (1 - odd) for odd in ODD],
            "attention.key_length": HEAD,
            "attention.value_length": HEAD,
            "ssm.group_count": 0,
        },
    ),
    "qwen35": (DELTA_NET, SECTIONS),
}
HYBRID_WITH_EXPERTS: dict[str, tuple[Values, ...]] = {
    "bailingmoe3": (MLA, KDA),
    "deepseek4": (  # its cache compresses older tokens
        SLIDING,
        INDEXER,
        HYPER,
        {
            "attention.head_count": 8,
            "attention.key_length": 64,
            "attention.value_length": 64,
            "rope.dimension_count": 32,
            "attention.q_lora_rank": 64,
            "attention.output_group_count": 8,
            "attention.output_lora_rank": 32,
            "attention.compress_ratios": [0, 0, 4, 128],
            "attention.compress_rope_freq_base": 160000.0,
            "hash_layer_count": 0,
            "swiglu_clamp_exp": 10.0,
            "expert_gating_func": 4,
        },
    ),
    "glm5-next": (
        MLA,
        KDA,
        HYPER,
        INDEXER,
        {
            "attention.indexer.kpool": 4,
            "attention.indexer.kpool_select_tail": True,
            "attention.compress_ratios": [4] * N_LAYER,
            "attention.key_length": _LORA,
            "rope.dimension_count": 0,
        },
    ),
    "granitehybrid": (HALF_HEADS, SSM, GRANITE),
    "jamba": (HALF_HEADS, SSM),
    "kimi-k3": (
        MLA,
        KDA,
        {"attn_res.block_size": 12, "activation.situ_beta": 4.0, "activation.situ_linear_beta": 25.0},
    ),
    "kimi-linear": (MLA, KDA),
    "lfm2moe": (SHORT_CONVOLUTION,),
    "minimax-01": ({"residual_scale": 1.0, "full_attention_interval": 2},),
    "nemotron_h_moe": (
        SSM,
        {"attention.head_count_kv": [0, N_HEAD_KV, 0, 0], "feed_forward_length": [0, 0, N_FF, N_FF]},
    ),
    "qwen35moe": (DELTA_NET, SECTIONS),
    "qwen3next": (DELTA_NET,),
    "qwen4exp": (
        DELTA_NET,
        SECTIONS,
        HYPER,
        INDEXER,
        {
            "hyper_connection.low_rank": 8,
            "attention.indexer.key_length": HEAD,
            "attention.compress_ratios": [4] * N_LAYER,
        },
    ),
}
# What does not write one token after the other, or no text.
NO_CHAT: dict[str, tuple[Values, ...]] = {
    "bert": (ALL_HEADS, TOKEN_TYPES),
    "dream": (),
    "eurobert": (ALL_HEADS,),
    "gemma-embedding": (SLIDING,),
    "jina-bert-v2": (ALL_HEADS, TOKEN_TYPES),
    "jina-bert-v3": (ALL_HEADS, TOKEN_TYPES),
    "llada": (),
    "llama-embed": (),
    "modern-bert": (ALL_HEADS, SLIDING),
    "neo-bert": (ALL_HEADS,),
    "nomic-bert": (ALL_HEADS, TOKEN_TYPES),
    "pockettts": (),
    "qwen3tts": (SECTIONS, {"vocab_size": 3072}),
    "t5": (ALL_HEADS, {"attention.relative_buckets_count": 8}),
    "t5encoder": (ALL_HEADS, {"attention.relative_buckets_count": 8}),
}
NO_CHAT_WITH_EXPERTS: dict[str, tuple[Values, ...]] = {
    "llada-moe": (),
    "nomic-bert-moe": (ALL_HEADS, TOKEN_TYPES, {"moe_every_n_layers": 2}),
    "rnd1": (),
}
TIED = (  # the embeddings are the LM head as well
    *("bloom", "command-r", "cohere2", "falcon-h1", "gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "gpt2"),
    *("granite", "lfm2", "mamba", "mpt", "phi3", "plm", "qwen2", "qwen3", "smollm3", "starcoder2", "bitnet"),
)
LEFT_OUT = {"rwkv6qwen2": (".time_mix_first.weight",)}
"""Tensors that llama.cpp takes for a sign of another model."""
NOT_MADE = {
    "clip": "a vision projector",
    "dflash": "a drafter",
    "eagle3": "a drafter",
    "gemma4-assistant": "a drafter",
    "gptj": "llama.cpp has no graph for it",
    "wavtokenizer-dec": "a decoder of sound",
}
"""The other architectures that llama.cpp knows."""


def header(name: str) -> tuple[str, Values]:
    """The architecture and the values of a model in `names()`."""
    arch = name.removesuffix(EXPERTS_SUFFIX)
    experts = _WITH_EXPERTS.get(arch)
    only_experts = experts is not None and arch not in _WITHOUT
    values = dict(COMMON)
    if name != arch or only_experts:
        values |= EXPERTS
        extras = _WITH_EXPERTS[arch]
    else:
        extras = _WITHOUT[arch]
    for extra in extras:
        values |= extra
    return arch, values


def names() -> list[str]:
    """All models; with `+experts` those of architectures that have both forms."""
    both = [f"{arch}{EXPERTS_SUFFIX}" if arch in _WITHOUT else arch for arch in _WITH_EXPERTS]
    return sorted([*_WITHOUT, *both])


_WITHOUT = DENSE | RECURRENT | HYBRID | NO_CHAT
_WITH_EXPERTS = WITH_EXPERTS | HYBRID_WITH_EXPERTS | NO_CHAT_WITH_EXPERTS

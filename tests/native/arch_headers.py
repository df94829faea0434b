"""The numbers in the headers of tiny models, one for each architecture of the pinned llama.cpp.

A header has COMMON, what the architecture's family needs, and what it alone needs. Keys are written without the
architecture's name. Sizes are the smallest that llama.cpp's graphs take.
"""

from __future__ import annotations

from typing import Any

Values = dict[str, Any]

N_EMBD, N_HEAD, N_HEAD_KV, N_FF, N_LAYER, N_CTX = 64, 2, 1, 128, 4, 512
HEAD_DIM = N_EMBD // N_HEAD
WINDOW = 16  # of sliding attention: shorter than the prompts of the tests

COMMON: Values = {
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
_EVEN = [0, 1] * (N_LAYER // 2)  # every second layer
SLIDING: Values = {"attention.sliding_window": WINDOW}
PATTERN: Values = {**SLIDING, "attention.sliding_window_pattern": _EVEN}
SECTIONS: Values = {"rope.dimension_sections": [HEAD_DIM // 8] * 4}
ALL_HEADS: Values = {"attention.head_count_kv": N_HEAD}
# attention of few compressed numbers (MLA): K has the compressed ones and the rotated ones
_LORA, _ROTATED, _PLAIN = 32, 32, 32
MLA: Values = {
    "attention.head_count_kv": 1,
    "attention.q_lora_rank": 64,
    "attention.kv_lora_rank": _LORA,
    "attention.key_length": _LORA + _ROTATED,
    "attention.value_length": _LORA,
    "attention.key_length_mla": _PLAIN + _ROTATED,
    "attention.value_length_mla": _PLAIN,
    "rope.dimension_count": _ROTATED,
}
INDEXER: Values = {
    "attention.indexer.head_count": 64,  # what the fused kernel takes
    "attention.indexer.key_length": 128,
    "attention.indexer.top_k": 1 << 17,
}
SSM: Values = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 2 * N_EMBD,
    "ssm.state_size": 16,
    "ssm.time_step_rank": 4,
    "ssm.group_count": 1,
}
DELTA_NET: Values = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": N_EMBD,
    "ssm.state_size": HEAD_DIM,
    "ssm.time_step_rank": N_HEAD,
    "ssm.group_count": N_HEAD,
    "full_attention_interval": 2,
}
NO_HEADS: Values = {"attention.head_count": 0, "attention.head_count_kv": None}
_MIXED_HEADS: Values = {  # every second layer attends, the others are recurrent
    "attention.head_count": [0 if even else N_HEAD for even in _EVEN],
    "attention.head_count_kv": [0 if even else N_HEAD_KV for even in _EVEN],
}
_MIXED_KV: Values = {"attention.head_count_kv": [0 if even else N_HEAD_KV for even in _EVEN]}
RWKV: Values = {**NO_HEADS, "wkv.head_size": 32}
RWKV6: Values = {**RWKV, "time_mix_extra_dim": 32, "time_decay_extra_dim": 32}
RWKV7: Values = {
    **RWKV,
    "attention.decay_lora_rank": 32,
    "attention.iclr_lora_rank": 32,
    "attention.value_residual_mix_lora_rank": 32,
    "attention.gate_lora_rank": 32,
}
KDA: Values = {"ssm.conv_kernel": 4, "kda.head_dim": HEAD_DIM, "kda.gate_lower_bound": -5.0}
HYPER: Values = {
    "hyper_connection.count": 4,
    "hyper_connection.sinkhorn_iterations": 2,
    "hyper_connection.epsilon": 1e-6,
}
GRANITE: Values = {"logit_scale": 4.0, "residual_scale": 0.5, "embedding_scale": 6.0, "attention.scale": 0.2}


def _arch(name: str, *extras: Values) -> tuple[str, Values]:
    values = dict(COMMON)
    for extra in extras:
        values |= extra
    return name, values


MOE: Values = EXPERTS
_DENSE: dict[str, tuple[Values, ...]] = {
    "llama": (),
    "deci": (),
    "falcon": (),
    "baichuan": (ALL_HEADS,),
    "gpt2": (ALL_HEADS,),
    "gptneox": (ALL_HEADS, {"use_parallel_residual": True}),
    "mpt": (ALL_HEADS, {"attention.clamp_kqv": 8.0, "attention.max_alibi_bias": 8.0}),
    "starcoder": (),
    "refact": (),
    "bloom": (ALL_HEADS,),
    "stablelm": (),
    "qwen": (ALL_HEADS,),
    "qwen2": (),
    "qwen2vl": (SECTIONS,),
    "qwen3": (),
    "qwen3vl": (SECTIONS,),
    "phi2": (ALL_HEADS,),
    "phi3": (),
    "plamo": (),
    "plamo3": (PATTERN,),
    "codeshell": (),
    "orion": (),
    "internlm2": (),
    "minicpm": (),
    "minicpm3": (MLA,),
    "gemma": (),
    "gemma2": (SLIDING, {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}),
    "gemma3": (SLIDING, {"block_count": 6}),
    "gemma3n": (SLIDING, {"block_count": 22}),
    "gemma4": (
        PATTERN,
        {
            "embedding_length_per_layer_input": 32,
            "attention.key_length_swa": 32,
            "attention.value_length_swa": 32,
            "attention.shared_kv_layers": 0,
        },
    ),
    "starcoder2": (),
    "xverse": (),
    "command-r": ({"logit_scale": 0.25},),
    "cohere2": (SLIDING, {"logit_scale": 0.25}),
    "olmo": (ALL_HEADS, {"attention.clamp_kqv": 8.0}),
    "olmo2": (PATTERN,),
    "muse-glimmer": (PATTERN, {"logit_scale": 0.25}),
    "openelm": (),
    "chatglm": (),
    "glm4": (),
    "bitnet": (),
    "t5": ({"attention.relative_buckets_count": 8}, ALL_HEADS),
    "t5encoder": ({"attention.relative_buckets_count": 8}, ALL_HEADS),
    "jais": (ALL_HEADS, {"attention.max_alibi_bias": 8.0}),
    "jais2": (ALL_HEADS,),
    "nemotron": (),
    "exaone": (),
    "exaone4": (PATTERN,),
    "granite": (GRANITE,),
    "granite_swa": (GRANITE, PATTERN),
    "chameleon": (),
    "plm": (MLA,),
    "arcee": (),
    "ernie4_5": (),
    "hunyuan-dense": (),
    "hunyuan_vl": (SECTIONS,),
    "smollm3": (),
    "dream": (),
    "llada": (),
    "seed_oss": (),
    "apertus": ({"xielu.alpha_n": 1.0, "xielu.alpha_p": 1.0, "xielu.beta": 1.0, "xielu.eps": 1e-7},),
    "cogvlm": (),
    "pangu-embedded": (),
    "mistral3": (),
    "spark2_5": (PATTERN,),
    "llama-embed": (),
    "maincoder": (),
    "talkie": ({"logit_scale": 0.25},),
    "nanbeige": (),
    "qwen3tts": (),
    "pockettts": (),
    "hrm_text": ({"block_count": 6, "hrm.layers_per_stack": 1, "hrm.h_cycles": 2, "hrm.l_cycles": 2},),
    "bert": (ALL_HEADS,),
    "modern-bert": (ALL_HEADS, SLIDING),
    "nomic-bert": (ALL_HEADS,),
    "neo-bert": (ALL_HEADS,),
    "jina-bert-v2": (ALL_HEADS,),
    "jina-bert-v3": (ALL_HEADS,),
    "eurobert": (ALL_HEADS,),
    "gemma-embedding": (SLIDING,),
    # recurrent
    "mamba": (NO_HEADS, SSM),
    "mamba2": (NO_HEADS, SSM),
    "rwkv6": (RWKV6,),
    "rwkv6qwen2": (RWKV6,),
    "rwkv7": (RWKV7,),
    "arwkv7": (RWKV7,),
    # hybrid
    "falcon-h1": (SSM,),
    "plamo2": (_MIXED_HEADS, SSM),
    "jamba": (_MIXED_KV, SSM),
    "granitehybrid": (_MIXED_KV, SSM, GRANITE),
    "lfm2": (_MIXED_KV, {"shortconv.l_cache": 3}),
    "nemotron_h": (_MIXED_KV, SSM, {"feed_forward_length": [0, 0, 128, 128]}),
    "qwen35": (DELTA_NET, SECTIONS),
    "minimax-01": ({"residual_scale": 1.0}, DELTA_NET),
}
_EXPERTS: dict[str, tuple[Values, ...]] = {
    "llama": (),
    "refact": (),
    "minicpm": (),
    "granite": (GRANITE,),
    "granitemoe": (GRANITE,),
    "mistral3": (),
    "llama-embed": (),
    "llama4": ({"interleave_moe_layer_step": 2}, SLIDING),
    "cohere2moe": (PATTERN, {"logit_scale": 0.25}),
    "grok": (),
    "qwen2moe": (),
    "qwen3moe": (),
    "qwen3vlmoe": (SECTIONS,),
    "phimoe": (),
    "dbrx": ({"attention.clamp_kqv": 8.0},),
    "olmoe": (),
    "arctic": (),
    "deepseek": (),
    "deepseek2": (MLA,),
    "deepseek32": (MLA, INDEXER),
    "dots3note": (MLA, PATTERN, INDEXER),
    "deepseek4": (SLIDING, INDEXER, HYPER),
    "glm4moe": (),
    "glm-dsa": (MLA, INDEXER),
    "exaone-moe": (PATTERN,),
    "bailingmoe": (),
    "bailingmoe2": (),
    "dots1": (),
    "afmoe": (SLIDING,),
    "ernie4_5-moe": ({"interleave_moe_layer_step": 1},),
    "hunyuan-moe": (),
    "hy_v3": (),
    "hy_v4": (MLA, INDEXER, HYPER),
    "gpt-oss": (SLIDING,),
    "smallthinker": (SLIDING,),
    "llada-moe": (),
    "grovemoe": (),
    "minimax-m2": (),
    "minimax-m3": (INDEXER,),
    "rnd1": (),
    "paddleocr": (SECTIONS,),
    "mimo2": (PATTERN,),
    "step35": (PATTERN,),
    "mistral4": (MLA,),
    "mellum": (PATTERN,),
    "laguna": (SLIDING,),
    "maple": (PATTERN,),
    "deepseek2-ocr": (),
    "nomic-bert-moe": (),
    "graniteswitch": (GRANITE,),
    "gemma4": (),
    # hybrid
    "qwen3next": (DELTA_NET,),
    "qwen35moe": (DELTA_NET, SECTIONS),
    "qwen4exp": (DELTA_NET, SECTIONS),
    "kimi-linear": (MLA, KDA),
    "kimi-k3": (MLA, KDA),
    "bailingmoe3": (MLA, KDA),
    "glm5-next": (MLA, KDA, HYPER, INDEXER),
    "lfm2moe": (_MIXED_KV, {"shortconv.l_cache": 3}),
    "nemotron_h_moe": (_MIXED_KV, SSM),
    "jamba": (_MIXED_KV, SSM),
    "granitehybrid": (_MIXED_KV, SSM, GRANITE),
}
MODELS = {name: _arch(name, *extras) for name, extras in _DENSE.items()} | {
    f"{name}-moe": _arch(name, EXPERTS, *extras) for name, extras in _EXPERTS.items()
}
TIED = {"gemma"}

"""What the architecture of a GGUF file says of its kind: which ones llama.cpp knows, and which of them do not chat."""

from __future__ import annotations

EMBEDS = "an embedding model: it turns texts into numbers and cannot answer"
RANKS = "a reranker: it rates texts and cannot answer"
SEES = "a projector (mmproj), the part that looks at pictures or hears sound for a model: it cannot answer by itself"
DIFFUSES = "a diffusion language model, which does not write one token after the other as specee-chat does"
TRANSLATES = "an encoder-decoder model (T5), which specee-chat does not run"
SPEAKS = "a speech model: it makes sound, not text"
HEARS = "a speech recognition model: it writes down what it hears, and cannot answer"
PAINTS = "a part of an image or video generator"
STEERS = "a control vector: it changes how its model answers, and is no model"
CALIBRATES = "a calibration of specee-chat, which is found by itself when its model is used"

NO_CHAT = {
    **dict.fromkeys(
        (
            *("bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3"),
            *("eurobert", "gemma-embedding", "llama-embed"),
        ),
        EMBEDS,
    ),
    **dict.fromkeys(("clip", "siglip", "mmproj"), SEES),
    **dict.fromkeys(("dream", "llada", "llada-moe", "rnd1"), DIFFUSES),
    **dict.fromkeys(("t5", "t5encoder", "umt5"), TRANSLATES),
    **dict.fromkeys(
        ("wavtokenizer-dec", "qwen3tts", "pockettts", "parler-tts", "kokoro", "dia", "bark", "vits", "snac", "csm"),
        SPEAKS,
    ),
    **dict.fromkeys(("whisper", "parakeet", "moonshine"), HEARS),
    **dict.fromkeys(
        (
            *("sd1", "sd2", "sd3", "sdxl", "flux", "flux2", "aura", "chroma", "hidream", "lumina2", "qwen_image"),
            *("z_image", "cosmos", "hyvid", "ltxv", "mochi", "wan", "pig", "vae"),
        ),
        PAINTS,
    ),
    "controlvector": STEERS,
    "specee": CALIBRATES,
}
"""Kinds that are no chat models, by architecture; also architectures of other programs that write GGUF files."""

HEADS = {"eagle3": "an EAGLE-3 head", "dflash": "a DFlash head", "gemma4-assistant": "a Gemma 4 draft head"}
"""Files that only draft."""
RUNS = "eagle3"
"""The one of them that runs here."""

_KNOWN = """
afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bailingmoe2 bailingmoe3 bert bitnet bloom chameleon chatglm
clip codeshell cogvlm cohere2 cohere2moe command-r dbrx deci deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4
dflash dots1 dots3note dream eagle3 ernie4_5 ernie4_5-moe eurobert exaone exaone-moe exaone4 falcon falcon-h1 gemma
gemma-embedding gemma2 gemma3 gemma3n gemma4 gemma4-assistant glm-dsa glm4 glm4moe glm5-next gpt-oss gpt2 gptj
gptneox granite granite_swa granitehybrid granitemoe graniteswitch grok grovemoe hrm_text hunyuan-dense hunyuan-moe
hunyuan_vl hy_v3 hy_v4 internlm2 jais jais2 jamba jina-bert-v2 jina-bert-v3 kimi-k3 kimi-linear laguna lfm2 lfm2moe
llada llada-moe llama llama-embed llama4 maincoder mamba mamba2 maple mellum mimo2 minicpm minicpm3 minimax-01
minimax-m2 minimax-m3 mistral3 mistral4 modern-bert mpt muse-glimmer nanbeige nemotron nemotron_h nemotron_h_moe
neo-bert nomic-bert nomic-bert-moe olmo olmo2 olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo
plamo2 plamo3 plm pockettts qwen qwen2 qwen2moe qwen2vl qwen3 qwen35 qwen35moe qwen3moe qwen3next qwen3tts qwen3vl
qwen3vlmoe qwen4exp refact rnd1 rwkv6 rwkv6qwen2 rwkv7 seed_oss smallthinker smollm3 spark2_5 stablelm starcoder
starcoder2 step35 t5 t5encoder talkie wavtokenizer-dec xverse
"""
KNOWN = frozenset(_KNOWN.split())
"""What the pinned llama.cpp has a name for (LLM_ARCH_NAMES in src/llama-arch.cpp)."""

RECURRENT = frozenset(("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"))
"""Their memory is a state that each token overwrites, in all layers."""
HYBRID = frozenset(
    (
        *("bailingmoe3", "deepseek4", "falcon-h1", "glm5-next", "granitehybrid", "jamba", "kimi-k3", "kimi-linear"),
        *("lfm2", "lfm2moe", "minimax-01", "nemotron_h", "nemotron_h_moe", "plamo2", "qwen35", "qwen35moe"),
        *("qwen3next", "qwen4exp"),
    )
)
"""In some layers only."""

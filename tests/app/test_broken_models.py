"""Models whose header passes our check, and that llama.cpp has to refuse: in the engine process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import changed_gguf
import tiny_gguf
from gguf import GGUFValueType as Type
from mutations import Mutations

from specee.app.engine.process import EngineProcess
from specee.app.engine.protocol import Failed, Load, ModelLoaded
from specee.app.errors import MODEL_MISSING, AppError
from specee.app.options import LoadOptions
from specee.models import gguf_header
from specee.models.errors import ModelError
from specee.native import library
from specee.native.errors import NativeError

N_LOADED = 60


def missing() -> str | None:
    try:
        library.directory()
    except NativeError as error:
        return str(error)
    return None


@pytest.mark.skipif(missing() is not None, reason="no native library")
def test_each_ends_loaded_or_as_one_line(tmp_path: Path) -> None:
    """A load that crashes the engine process is a line too, and the next one starts another."""
    mutations = Mutations(tiny_gguf.write(tmp_path / "tiny.gguf", "llama"), tmp_path / "mutated.gguf", seed=5)
    engine = EngineProcess(tmp_path / "logs")
    outcomes: list[ModelLoaded | Failed] = []
    for how in mutations(2000):
        try:
            gguf_header.read(mutations.path)
        except ModelError:
            continue
        if not engine.alive:
            engine.close()
            engine = EngineProcess(tmp_path / "logs")
        engine.send(Load(LoadOptions(model=str(mutations.path), n_ctx=64, data_dir=str(tmp_path))))
        while not isinstance(received := engine.receive(60), (ModelLoaded, Failed)):
            pass
        if isinstance(received, Failed):
            line = AppError(received.title, received.message).line
            assert received.title and received.message and line.isprintable(), how
        outcomes.append(received)
        if len(outcomes) == N_LOADED:
            break
    engine.close()
    assert all(outcome.exit_code == MODEL_MISSING for outcome in outcomes if isinstance(outcome, Failed))
    assert len(outcomes) == N_LOADED
    assert {type(outcome) for outcome in outcomes} == {ModelLoaded, Failed}
    refused = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    print(f"{len(refused)} refused, {sum('crashed' in r.title for r in refused)} of them by a crash")


U32, F32, F64, TEXT, LIST, I32, BOOL = (
    Type.UINT32,
    Type.FLOAT32,
    Type.FLOAT64,
    Type.STRING,
    Type.ARRAY,
    Type.INT32,
    Type.BOOL,
)
EPSILON, TOKENS = ".attention.layer_norm_rms_epsilon", "tokenizer.ggml.tokens"
NAN, INF = float("nan"), float("inf")
REFUSED: dict[str, dict[str, Any]] = {
    **{f"epsilon {n}": {"values": {EPSILON: (F32, n)}} for n in (-1.0, NAN, INF)},
    "epsilon missing": {"values": {EPSILON: None}},
    "epsilon a text": {"values": {EPSILON: (TEXT, "x")}},
    "epsilon a whole number": {"values": {EPSILON: (U32, 1)}},
    "epsilon nan in 64 bits": {"values": {EPSILON: (F64, NAN)}},
    "rope base nan": {"values": {".rope.freq_base": (F32, NAN)}},
    "rope base a text": {"values": {".rope.freq_base": (TEXT, "x")}},
    **{f"rope dimensions {n}": {"values": {".rope.dimension_count": (U32, n)}} for n in (0, 15, 10**9)},
    "rope scaling unknown": {"values": {".rope.scaling.type": (TEXT, "nonsense")}},
    **{f"heads {n}": {"values": {".attention.head_count": (U32, n)}} for n in (0, 3, 7, 10**9)},
    "heads a text": {"values": {".attention.head_count": (TEXT, "4")}},
    "heads missing": {"values": {".attention.head_count": None}},
    "heads all 0": {"values": {".attention.head_count": (LIST, [0] * tiny_gguf.N_LAYER, U32)}},
    "K/V heads 0": {"values": {".attention.head_count_kv": (U32, 0)}},
    "K/V heads 3": {"values": {".attention.head_count_kv": (U32, 3)}},
    "K/V heads of too few layers": {"values": {".attention.head_count_kv": (LIST, [2, 2], U32)}},
    "K/V heads all 0": {"values": {".attention.head_count_kv": (LIST, [0] * tiny_gguf.N_LAYER, U32)}},
    "key length": {"values": {".attention.key_length": (U32, 8)}},
    "window a text": {"values": {".attention.sliding_window": (TEXT, "x")}},
    **{f"layers {n}": {"values": {".block_count": (U32, n)}} for n in (0, 5, 7, 10**6)},
    "layers a text": {"values": {".block_count": (TEXT, "6")}},
    "layers missing": {"values": {".block_count": None}},
    "window missing": {"values": {".context_length": None}},
    **{f"width {n}": {"values": {".embedding_length": (U32, n)}} for n in (0, 96, 1 << 31)},
    "feed forward 0": {"values": {".feed_forward_length": (U32, 0)}},
    "feed forward of some layers": {"values": {".feed_forward_length": (LIST, [128] * 3, U32)}},
    "experts without tensors": {"values": {".expert_count": (U32, 8), ".expert_used_count": (U32, 2)}},
    "more experts used than there are": {"values": {".expert_count": (U32, 2), ".expert_used_count": (U32, 8)}},
    "a billion experts": {"values": {".expert_count": (U32, 10**9)}},
    **{
        f"architecture {name}": {"values": {}, "arch": name}
        for name in ("foo", "clip", "bert", "nomic-bert", "mamba", "t5", "t5encoder", "gemma2", "phi3", "llama4")
    },
    "no tokenizer": {"values": {"tokenizer.ggml.model": None}},
    **{f"tokenizer {name}": {"values": {"tokenizer.ggml.model": (TEXT, name)}} for name in ("foo", "no_vocab", "none")},
    "no tokens": {"values": {TOKENS: None}},
    "few tokens": {"values": {TOKENS: (LIST, ["a", "b"], TEXT)}},
    "tokens that are numbers": {"values": {TOKENS: (LIST, [1, 2, 3], I32)}},
    "no token is text": {"values": {"tokenizer.ggml.token_type": (LIST, [3] * tiny_gguf.N_VOCAB, I32)}},
    "types of few tokens": {"values": {"tokenizer.ggml.token_type": (LIST, [1, 1], I32)}},
    "the first token a text": {"values": {"tokenizer.ggml.bos_token_id": (TEXT, "x")}},
    "a switch that is a text": {"values": {"tokenizer.ggml.add_bos_token": (TEXT, "yes")}},
    "name a number": {"values": {"general.name": (U32, 5)}},
    "no embedding": {"values": {}, "tensors": changed_gguf.without("token_embd")},
    "no last norm": {"values": {}, "tensors": changed_gguf.without("output_norm")},
    "a layer missing": {"values": {}, "tensors": changed_gguf.without("blk.3.")},
    "a matrix missing": {"values": {}, "tensors": changed_gguf.without("blk.3.attn_q")},
    "a short norm": {"values": {}, "tensors": changed_gguf.cut("output_norm.weight", 32)},
    "a short matrix": {"values": {}, "tensors": changed_gguf.cut("blk.0.attn_k.weight", 16)},
    "a short embedding": {"values": {}, "tensors": changed_gguf.cut("token_embd.weight", 90)},
}


@pytest.mark.skipif(missing() is not None, reason="no native library")
def test_what_llama_cpp_refuses_is_an_unusable_model(tmp_path: Path) -> None:
    """One engine process for all of them: none ends it."""
    tiny = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    engine = EngineProcess(tmp_path / "logs")
    wrong = {}
    for name, change in REFUSED.items():
        path = changed_gguf.write(tiny, tmp_path / "changed.gguf", **change)
        engine.send(Load(LoadOptions(model=str(path), n_ctx=64, data_dir=str(tmp_path))))
        while not isinstance(received := engine.receive(60), (ModelLoaded, Failed)):
            pass
        if not isinstance(received, Failed) or received.exit_code != MODEL_MISSING or "crashed" in received.title:
            wrong[name] = received
    assert engine.alive
    engine.close()
    assert wrong == {}

"""GGUF files that are sound and hold no chat model: each is told by its kind."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGUFValueType as Type

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import changed_gguf
import tiny_gguf

from specee.models import architectures, gguf_header, model_kind
from specee.models.errors import MISSING, ModelError

U32, TEXT, BOOL = Type.UINT32, Type.STRING, Type.BOOL


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_gguf.write(tmp_path / "tiny.gguf", "llama")


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as told:
        model_kind.check_answers(gguf_header.read_model(path))
    assert told.value.exit_code == MISSING and str(told.value).isprintable()
    assert str(path) in told.value.message
    return str(told.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({".pooling_type": (U32, 1)}, "an embedding model"),
        ({".pooling_type": (U32, 2)}, "an embedding model"),
        ({".pooling_type": (U32, 3)}, "an embedding model"),
        ({".pooling_type": (U32, 4)}, "a reranker"),
        ({".attention.causal": (BOOL, False)}, "reads texts in both directions"),
        ({"general.type": (TEXT, "adapter")}, "a LoRA adapter, a change to llama"),
        (
            {"general.type": (TEXT, "adapter"), "general.base_model.0.name": (TEXT, "Qwen\x1b[2J 9")},
            r"a LoRA adapter, a change to Qwen�\[2J 9",
        ),
        ({"adapter.type": (TEXT, "lora")}, "a LoRA adapter"),
        ({"general.type": (TEXT, "mmproj")}, "a projector"),
        ({"general.type": (TEXT, "imatrix")}, "an importance matrix"),
        ({"tokenizer.ggml.model": None}, "without a tokenizer"),
        ({"tokenizer.ggml.model": (TEXT, "none")}, "without a tokenizer"),
        ({"tokenizer.ggml.model": (TEXT, "no_vocab")}, "without a tokenizer"),
        ({"tokenizer.ggml.tokens": None}, "without a tokenizer"),
    ],
)
def test_what_the_values_say(tiny: Path, tmp_path: Path, values: dict[str, Any], says: str) -> None:
    assert re.search(says, refusal(changed_gguf.write(tiny, tmp_path / "x.gguf", values)))


@pytest.mark.parametrize("values", [{".pooling_type": (U32, 0)}, {".attention.causal": (BOOL, True)}])
def test_what_chats(tiny: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    path = changed_gguf.write(tiny, tmp_path / "x.gguf", {**values, "general.type": (TEXT, "model")})
    model_kind.check_answers(gguf_header.read_model(path))


@pytest.mark.parametrize("arch", sorted(architectures.NO_CHAT))
def test_architectures_that_do_not_chat(tiny: Path, tmp_path: Path, arch: str) -> None:
    line = refusal(changed_gguf.write(tiny, tmp_path / "x.gguf", {}, arch=arch))
    assert line.startswith("not a chat model: ") and architectures.NO_CHAT[arch] in line


@pytest.mark.parametrize("arch", sorted(architectures.HEADS))
def test_heads_alone(tiny: Path, tmp_path: Path, arch: str) -> None:
    line = refusal(changed_gguf.write(tiny, tmp_path / "x.gguf", {}, arch=arch))
    assert line.startswith("not a whole model: ") and "cannot answer alone" in line
    assert ("give it as --drafter" in line) == (arch == "eagle3")


@pytest.mark.parametrize("arch", ["llama9", "qwen5", "foo", "bitnet-b1.58", "gpt-oss-2"])
def test_architectures_to_come(tiny: Path, tmp_path: Path, arch: str) -> None:
    line = refusal(changed_gguf.write(tiny, tmp_path / "x.gguf", {}, arch=arch))
    assert f"architecture '{arch}'" in line and "needs a newer specee-chat" in line


@pytest.mark.parametrize("arch", sorted(architectures.KNOWN - set(architectures.NO_CHAT) - set(architectures.HEADS)))
def test_architectures_that_may_chat(tiny: Path, tmp_path: Path, arch: str) -> None:
    """Whether they do, llama.cpp says."""
    model_kind.check_answers(gguf_header.read_model(changed_gguf.write(tiny, tmp_path / "x.gguf", {}, arch=arch)))


def test_layers_for_multi_token_prediction_alone(tiny: Path, tmp_path: Path) -> None:
    values = {".nextn_predict_layers": (U32, 1)}
    path = changed_gguf.write(tiny, tmp_path / "x.gguf", values)
    model_kind.check_answers(gguf_header.read_model(path))  # a model that has such layers besides
    path = changed_gguf.write(tiny, tmp_path / "x.gguf", values, changed_gguf.without(*(f"blk.{i}." for i in range(5))))
    assert "multi-token prediction" in refusal(path)


def test_a_vocabulary_alone(tiny: Path, tmp_path: Path) -> None:
    line = refusal(changed_gguf.write(tiny, tmp_path / "x.gguf", {}, lambda name, data, kind: None))
    assert "a vocabulary without weights" in line


def write(path: Path, values: dict[str, Any], *names: str) -> Path:
    """A file without an architecture, as some programs write them."""
    writer = gguf.GGUFWriter(path, "x")
    writer.kv_data[0].clear()
    for key, (kind, value) in values.items():
        writer.add_key_value(key, value, kind)
    for name in names:
        writer.add_tensor(name, np.ones((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_files_without_an_architecture(tmp_path: Path) -> None:
    values = {"general.type": (TEXT, "imatrix"), "imatrix.chunk_count": (U32, 3)}
    assert "an importance matrix" in refusal(write(tmp_path / "i.gguf", values, "blk.0.attn_q.weight.in_sum2"))
    long = "model.diffusion_model." + "x" * 30
    assert "names no architecture" in refusal(write(tmp_path / "sd.gguf", {}, long))
    assert "names no architecture" in refusal(write(tmp_path / "sd.gguf", {"general.name": (TEXT, "sd")}))


# ---- files that llama.cpp does not read, or not yet ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (struct.pack("<I", 1), "version 1 .August 2023.*take a newer file"),
        (struct.pack("<I", 4), "version 4, which needs a newer specee-chat"),
        (struct.pack("<I", 17), "version 17, which needs a newer specee-chat"),
        (struct.pack(">I", 3), "big-endian computers"),
        (struct.pack(">I", 2), "big-endian computers"),
        (struct.pack("<I", 0xDEADBEEF), "damaged model"),
        (struct.pack("<I", 0), "damaged model"),
    ],
)
def test_versions(tiny: Path, version: bytes, says: str) -> None:
    content = tiny.read_bytes()
    tiny.write_bytes(content[:4] + version + content[8:])
    assert re.search(says, refusal(tiny))


def of_type(kind: int) -> Callable[[bytes], bytes]:
    """The type of the last norm becomes this one."""
    name = b"output_norm.weight" + struct.pack("<I", 1) + struct.pack("<Q", tiny_gguf.N_EMBD)
    return lambda content: content.replace(name + struct.pack("<I", 0), name + struct.pack("<I", kind))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (4, "Q4_2, which llama.cpp dropped"),
        (31, "Q4_0_4_4, which llama.cpp dropped"),
        (38, "IQ4_NL_8_8, which llama.cpp dropped"),
        (43, "newer than this specee-chat"),
        (96, "newer than this specee-chat"),
        (139, "ik_llama.cpp"),
        (337, "ik_llama.cpp"),
        (1 << 30, "damaged model"),
    ],
)
def test_types_of_weights(tiny: Path, kind: int, says: str) -> None:
    content = tiny.read_bytes()
    tiny.write_bytes(of_type(kind)(content))
    assert tiny.read_bytes() != content
    assert says in refusal(tiny)


def test_what_is_cut_off_says_how_much_is_here(tiny: Path) -> None:
    size = tiny.stat().st_size
    tiny.write_bytes(tiny.read_bytes()[: size // 2])
    assert f"{size // 2} of {size} bytes are here" in refusal(tiny)


def test_bytes_after_the_end_do_not_matter(tiny: Path) -> None:
    tiny.write_bytes(tiny.read_bytes() + b"garbage" * 100)
    model_kind.check_answers(gguf_header.read_model(tiny))

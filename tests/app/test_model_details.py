"""`models show`: what it says of exits and memory."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from specee.app import memory
from specee.app.cli import model_details


def test_layer_ranges_are_what_the_native_code_says() -> None:
    source = Path(__file__).parents[2] / "native" / "src" / "abi.cpp"
    body = re.search(r"bool is_supported\(llm_arch arch\) \{(.*?)\n\}", source.read_text("utf-8"), re.DOTALL)
    assert body is not None
    assert {name.lower() for name in re.findall(r"LLM_ARCH_(\w+)", body[1])} == set(model_details.LAYER_RANGES)


@pytest.mark.parametrize(
    ("arch", "sliding_window", "width", "says"),
    [("llama", 0, 576, None), ("gemma3", 0, 576, "gemma3"), ("llama", 512, 576, "sliding"), ("qwen2", 0, 100, "width")],
)
def test_the_reason_for_dense_only(arch: str, sliding_window: int, width: int, says: str | None) -> None:
    reason = model_details.dense_only(SimpleNamespace(arch=arch, sliding_window=sliding_window, width=width))
    assert reason is None if says is None else reason is not None and says in reason


def test_free_memory() -> None:
    free = memory.free_ram()
    assert free is None or free > 1 << 20
    vram = memory.free_vram()
    assert vram is None or vram >= 0

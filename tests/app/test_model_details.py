"""`models show`: what it says of skipping layers, and of memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from specee.app import memory
from specee.app.cli import model_details
from specee.native import library
from specee.native.errors import NativeError

GEMMA = SimpleNamespace(arch="gemma3", sliding_window=512, width=640)


def test_the_library_knows_what_can_skip_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "architecture_limit", lambda arch: f"not {arch}")
    assert model_details.dense_only(GEMMA) == "not gemma3"
    monkeypatch.setattr(library, "architecture_limit", lambda arch: None)
    assert model_details.dense_only(GEMMA) is None


def test_without_the_library_the_reason_is_its_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(arch: str) -> str | None:
        raise NativeError("The native library is missing", "no libllama.so")

    monkeypatch.setattr(library, "architecture_limit", missing)
    reason = model_details.dense_only(GEMMA)
    assert reason is not None and "no libllama.so" in reason


def test_free_memory() -> None:
    free = memory.free_ram()
    assert free is None or free > 1 << 20
    vram = memory.free_vram()
    assert vram is None or vram >= 0

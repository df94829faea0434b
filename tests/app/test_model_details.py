"""`models show`: what it says of skipping layers, and of memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from specee.app import memory
from specee.app.cli import model_details
from specee.native import library
from specee.native.errors import NativeError


@pytest.mark.parametrize(
    ("sliding_window", "width", "says"), [(0, 576, None), (512, 576, "sliding window"), (0, 100, "width")]
)
def test_the_reason_for_dense_only(
    sliding_window: int, width: int, says: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "architecture_unsupported", lambda arch: None)
    reason = model_details.dense_only(SimpleNamespace(arch="llama", sliding_window=sliding_window, width=width))
    assert reason is None if says is None else reason is not None and says in reason


def test_the_library_knows_the_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "architecture_unsupported", lambda arch: f"not {arch}")
    assert model_details.dense_only(SimpleNamespace(arch="gemma3", sliding_window=0, width=576)) == "not gemma3"


def test_without_the_library_the_reason_is_its_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(arch: str) -> str | None:
        raise NativeError("The native library is missing", "no libllama.so")

    monkeypatch.setattr(library, "architecture_unsupported", missing)
    reason = model_details.dense_only(SimpleNamespace(arch="llama", sliding_window=0, width=576))
    assert reason is not None and "no libllama.so" in reason


def test_free_memory() -> None:
    free = memory.free_ram()
    assert free is None or free > 1 << 20
    vram = memory.free_vram()
    assert vram is None or vram >= 0

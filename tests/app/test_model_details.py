"""`models show`: what it says of skipping layers, and of memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import tiny_gguf
from real_engine import missing_library

from specee.app import memory, paths
from specee.app.cli import model_details
from specee.native import abi, library, proof
from specee.native.errors import NativeError


def rows_of_tiny(folder: Path) -> dict[str, str]:
    path = tiny_gguf.write(folder / "tiny.gguf", "llama")
    return model_details.rows(model_details.facts(str(path), paths.find(str(folder / "data")), None))


def test_the_library_knows_what_can_skip_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "architecture_limit", lambda arch: f"not {arch}")
    shown = rows_of_tiny(tmp_path)
    assert shown["skips layers"] == "no: not llama" and shown["drafter"] == "none: its tokens cannot be drafted"
    monkeypatch.setattr(library, "architecture_limit", lambda arch: None)
    assert rows_of_tiny(tmp_path)["skips layers"] == "probably; found out at its first start"


def test_a_broken_library_is_no_fault_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> str | None:
        raise NativeError("The native library is missing", "no libllama.so")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "architecture_limit", missing)
    monkeypatch.setattr(proof, "last_file", missing)
    shown = rows_of_tiny(tmp_path)
    assert "unknown: " in shown["skips layers"] and "no libllama.so" in shown["skips layers"]
    assert shown["drafter"].startswith("none is known; --drafter takes")
    assert shown["calibration"] == "none: run specee-chat calibrate"


def test_free_memory() -> None:
    free = memory.free_ram()
    assert free is None or free > 1 << 20
    vram = memory.free_vram()
    assert vram is None or vram >= 0


@pytest.mark.skipif(missing_library() is not None, reason="no native library")
def test_what_the_last_start_found_out_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nothing is promised: the architecture does not tell all."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama")
    folders = paths.find(str(tmp_path / "data"))

    def shown() -> str:
        return model_details.rows(model_details.facts(str(path), folders, None))["skips layers"]

    assert shown() == "probably; found out at its first start"
    for verdict, words in (
        (proof.Verdict(abi.EXITS, "", 8), "yes"),
        (proof.Verdict(abi.DRAFTS, "layers share", 8), "no: layers share; its tokens can be drafted"),
        (proof.Verdict(abi.DENSE, "no cells", 1), "no: no cells"),
    ):
        proof.keep(proof.last_file(path), verdict)
        assert shown() == words

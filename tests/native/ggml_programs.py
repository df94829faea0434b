"""Test programs of C++ that are built from this checkout's kernels and ggml's sources."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "native/src/small_batch"


def ggml_source() -> Path | None:
    """ggml with our patches: $SPECEE_LLAMA_SOURCE, or what the newest build of this checkout has unpacked."""
    given = os.environ.get("SPECEE_LLAMA_SOURCE")
    found = [Path(given)] if given else [*ROOT.glob("build/*/llama.cpp"), *ROOT.glob("build/llama.cpp")]
    found = [path / "ggml" for path in found if (path / "ggml/src/ggml-cpu/arch/arm/repack.cpp").is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def includes(ggml: Path) -> list[str]:
    """Compiler options that find the headers of ggml and of our kernels."""
    cpu = ggml / "src/ggml-cpu"
    return [f"-I{path}" for path in (ggml / "include", ggml / "src", cpu, cpu / "amx", ROOT / "native/src")]


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]

"""AVX-VNNI's kernels on a CPU that has AVX512-VNNI instead: a library to be loaded before ggml's.

It holds the same sources, with the instructions in the other encoding (simd_x86.h), and takes the place of those in
libggml-cpu: `LD_PRELOAD=OUT.so SPECEE_KERNELS=avx_vnni ...`. For tests, and to measure by hand:
`python tests/native/vnni_stand_in.py OUT.so`
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ggml_programs import KERNELS, ggml_source, includes, run

from specee.native import cpu, library


def reason_against() -> str | None:
    """Why it cannot be built or does not run here; None: it can."""
    available = cpu.features()
    if platform.system() != "Linux" or platform.machine() != "x86_64" or available is None:
        return "for Linux on x86-64"
    if absent := cpu.missing("avx512vl avx512_vnni", available):
        return f"this CPU lacks {', '.join(absent)}"
    if ggml_source() is None:
        return "no unpacked llama.cpp in build/ and none in SPECEE_LLAMA_SOURCE"
    return None if _compiler() else "no compiler"


def build(out: Path) -> None:
    """Needs the llama.cpp that a build of this checkout has unpacked, and links against the library in use."""
    ggml, libraries = ggml_source(), library.directory()
    assert ggml is not None, reason_against()
    options = ["-std=gnu++17", "-O3", "-w", "-DNDEBUG", "-fPIC", "-march=x86-64-v3"]
    options += ["-DSPECEE_AVX2", "-DSPECEE_AVX_VNNI", "-DSPECEE_VNNI_STAND_IN", *includes(ggml)]

    def compiled(name: str) -> str:
        made = out.with_name(f"{name}.o")
        run([str(_compiler()), *options, "-c", str(KERNELS / f"{name}.cpp"), "-o", str(made)])
        return str(made)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, ["small_batch", *(path.stem for path in KERNELS.glob("x86_avx_vnni*.cpp"))]))
    linked = [f"-L{libraries}", "-lggml-cpu", "-lggml-base", f"-Wl,-rpath,{libraries}"]
    run([str(_compiler()), "-shared", *objects, *linked, "-o", str(out)])


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


if __name__ == "__main__":
    build(Path(sys.argv[1]))

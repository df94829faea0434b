"""Our kernels for the layout of AMX's weights, without AMX: the bits of ggml's kernel for one row, for 1 to 8 rows.

ggml's code for AMX takes no AMX instruction for so few rows, so it is compiled here for any CPU with AVX512-VNNI. Needs
a compiler that knows AMX, and the llama.cpp that a build of this checkout has unpacked and patched.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ggml_programs import KERNELS, ggml_source, includes, run

from specee.native import cpu, library

COMPILER = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
NEEDED = "avx512f avx512bw avx512dq avx512vl avx512_vnni"
LIKE_AMX = ["-march=native", "-mamx-tile", "-mamx-int8"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    available, ggml = cpu.features(), ggml_source()
    if platform.system() != "Linux" or platform.machine() != "x86_64" or available is None:
        pytest.skip("for Linux on x86-64")
    if absent := cpu.missing(NEEDED, available):
        pytest.skip(f"this CPU lacks {', '.join(absent)}")
    if (
        COMPILER is None
        or subprocess.run([COMPILER, *LIKE_AMX, "-E", "-xc++", os.devnull], capture_output=True).returncode
    ):
        pytest.skip("no compiler that knows AMX")
    if ggml is None:
        pytest.skip("no unpacked llama.cpp in build/ and none in SPECEE_LLAMA_SOURCE")
    folder, libraries = tmp_path_factory.mktemp("amx"), library.directory()
    mmq = ggml / "src/ggml-cpu/amx/mmq.cpp"
    sources = {mmq: [*LIKE_AMX, "-Dspecee_small_batch=small_batch_under_test"]}
    sources |= {KERNELS / f"{name}.cpp": LIKE_AMX for name in ("x86_amx_layout", "bf16", "f16", "small_batch")}
    sources |= {
        KERNELS / "x86_avx2.cpp": ["-march=x86-64-v3"],
        Path(__file__).with_name("small_batch_amx.cpp"): LIKE_AMX,
    }
    common = ["-std=gnu++17", "-O3", "-w", "-DNDEBUG", "-DSPECEE_AVX2", *includes(ggml)]

    def build(source: Path, options: list[str]) -> Path:
        out = folder / f"{source.stem}.o"
        run([str(COMPILER), *common, *options, "-c", str(source), "-o", str(out)])
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(build, sources.keys(), sources.values()))
    linked = [f"-L{libraries}", "-lggml-cpu", "-lggml-base", f"-Wl,-rpath,{libraries}", "-lpthread"]
    run([str(COMPILER), *map(str, objects), *linked, "-o", str(folder / "program")])
    return folder / "program"


def test_rows_have_the_bits_of_single_rows(program: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SPECEE_KERNELS"}
    done = subprocess.run([str(program)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    ours = ["q4_0", "q4_1", "q8_0", "q4_K", "q5_K", "q6_K"]
    assert done.stdout.splitlines() == [*(f"{name} ours" for name in ours), "iq4_xs ggml"]

"""The NEON kernels under emulation: the bits of ggml's kernels for one row, for 1 to 8 rows, each type and layout.

Needs a cross compiler and qemu's user mode (Debian: g++-aarch64-linux-gnu, qemu-user), and the llama.cpp that a build
of this checkout has unpacked and patched. It says nothing about time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ggml_programs import KERNELS, ggml_source, includes, run

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
VARIANTS = {"neon_dotprod": "armv8.2-a+dotprod", "neon_i8mm": "armv8.2-a+dotprod+i8mm"}
HALVES = {"neon_dotprod": "armv8.2-a", "neon_i8mm": "armv8.2-a+fp16"}  # with arithmetic of half floats ggml adds in it


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    ggml = ggml_source()
    for tool in (COMPILER, EMULATOR):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    if ggml is None:
        pytest.skip("no unpacked llama.cpp in build/ and none in SPECEE_LLAMA_SOURCE")
    folder = tmp_path_factory.mktemp("arm")
    cpu, whole = ggml / "src/ggml-cpu", VARIANTS["neon_i8mm"]
    sources: dict[Path, str] = {
        cpu / "arch/arm/quants.c": whole,
        cpu / "arch/arm/repack.cpp": whole,
        KERNELS / "small_batch.cpp": whole,
        KERNELS / "columns_layout.cpp": whole,
        KERNELS / "bf16.cpp": whole,
        KERNELS / "neon_bf16.cpp": whole,
        KERNELS / "f16.cpp": whole,
        KERNELS / "x86_amx_layout.cpp": whole,
        Path(__file__).with_name("small_batch_arm.cpp"): whole,
    }
    sources |= {KERNELS / f"{name}.cpp": march for name, march in VARIANTS.items()}
    common = ["-O3", "-w", "-DNDEBUG", "-ffunction-sections", "-DSPECEE_NEON_DOTPROD", "-DSPECEE_NEON_I8MM"]
    common += includes(ggml)

    def build(source: Path, march: str) -> Path:
        out = folder / f"{source.parent.name}-{source.stem}-{march}.o"
        c = source.suffix == ".c"
        compiler = COMPILER.replace("g++", "gcc") if c else COMPILER
        # GCC 12 at -O3 vectorizes the loop that ends ggml's Q5_0 kernel (odd numbers of blocks) to a wrong sum.
        language = ["-fno-tree-vectorize"] if c else ["-std=gnu++17"]
        run([compiler, *language, *common, f"-march={march}", "-c", str(source), "-o", str(out)])
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(build, sources.keys(), sources.values()))
    programs = {}
    for variant, march in HALVES.items():
        halves = [build(source, march) for source in (cpu / "vec.cpp", KERNELS / "neon_f16.cpp")]
        programs[variant] = folder / variant
        command = [COMPILER, "-static", "-Wl,--gc-sections", *map(str, objects + halves)]
        run([*command, "-o", str(programs[variant])])
    return programs


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_have_the_bits_of_single_rows(variant: str, programs: dict[str, Path]) -> None:
    environment = os.environ | {"SPECEE_KERNELS": variant}
    command = [EMULATOR, "-cpu", "max", str(programs[variant])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 30, done.stdout  # types and layouts

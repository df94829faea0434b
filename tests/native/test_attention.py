"""Attention in one operation has the bits of ggml's operations."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ggml_programs import KERNELS, ggml_source, includes, run

from specee.native import cpu

SOURCE = Path(__file__).with_name("attention.cpp")


def build(to: Path, *sources: Path, options: tuple[str, ...] = ()) -> Path:
    ggml, compiler = ggml_source(), shutil.which("g++") or shutil.which("clang++")
    libraries = Path(os.environ.get("SPECEE_LIB_DIR", ""))
    if ggml is None or compiler is None or not (libraries / "libggml-cpu.so").is_file():
        pytest.skip("needs a build folder with ggml's source, and a C++ compiler")
    run([compiler, "-std=c++17", "-O1", *options, *includes(ggml), *map(str, sources), "-o", str(to), f"-L{libraries}",
         f"-Wl,-rpath,{libraries}", "-lggml", "-lggml-cpu", "-lggml-base"])  # fmt: skip
    return to


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("attention") / "attention", SOURCE)


def test_attention_has_the_bits_of_ggml(program: Path) -> None:
    """A few rows and prompts of several lengths; several slots, windows and trees; heads of many sizes, alone and in
    groups of up to 16."""
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    if {"avx2", "avx512_fp16"} & set(cpu.features() or ()) == {"avx2"}:
        assert int(done.stdout.split()[-1]) > 200


def test_a_few_rows_have_the_bits_of_one_with_avx2(tmp_path: Path) -> None:
    """Also where the library is compiled for more."""
    if not {"avx2", "fma", "f16c"} <= set(cpu.features() or ()):
        pytest.skip("needs a CPU with AVX2")
    source = ggml_source()
    sources = [KERNELS / "attention.cpp", *([source / "src/ggml-cpu/vec.cpp"] if source else [])]
    program = build(tmp_path / "avx2", SOURCE.with_name("attention_avx2.cpp"), *sources,
                    options=("-mavx2", "-mfma", "-mf16c"))  # fmt: skip
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "equal 42\n"), done.stdout


def test_no_memory_is_got_while_threads_compute(program: Path) -> None:
    """They may not fail: nothing could be told of it. What they need is part of the graph."""
    done = subprocess.run([str(program), "memory"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "computed\n"), done.stderr

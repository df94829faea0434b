"""Attention of prompts in one operation has the bits of ggml's operations."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ggml_programs import KERNELS, ggml_source, run

from specee.native import cpu

SOURCE = Path(__file__).with_name("attention.cpp")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ggml, compiler = ggml_source(), shutil.which("g++") or shutil.which("clang++")
    libraries = Path(os.environ.get("SPECEE_LIB_DIR", ""))
    if ggml is None or compiler is None or not (libraries / "libggml-cpu.so").is_file():
        pytest.skip("needs a build folder with ggml's source, and a C++ compiler")
    to = tmp_path_factory.mktemp("attention") / "attention"
    includes = [f"-I{ggml / 'include'}", f"-I{KERNELS.parent}"]
    run([compiler, "-std=c++17", "-O1", *includes, str(SOURCE), "-o", str(to), f"-L{libraries}",
         f"-Wl,-rpath,{libraries}", "-lggml", "-lggml-cpu", "-lggml-base"])  # fmt: skip
    return to


def test_attention_has_the_bits_of_ggml(program: Path) -> None:
    """Prompts of several lengths; several slots, windows and trees; heads of many sizes, alone and in groups of up to
    16."""
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    if "avx512dq" in (cpu.features() or ()):
        assert int(done.stdout.split()[-1]) > 100


def test_no_memory_is_got_while_threads_compute(program: Path) -> None:
    """They may not fail: nothing could be told of it. What they need is part of the graph."""
    done = subprocess.run([str(program), "memory"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "computed\n"), done.stderr

"""The compiler keeps the whole AMX tile configuration: read off its assembly, so that any x86 machine can check it."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from specee.native import library

BUILDS = Path(__file__).parents[2] / "build"


@pytest.mark.slow
def test_tile_configuration_is_stored(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    sources = sorted(BUILDS.glob("*/llama.cpp/ggml"))
    if platform.machine() != "x86_64" or compiler is None or not sources:
        pytest.skip("needs g++ for x86-64 and a build folder")
    ggml = sources[0]
    flags = ["-std=c++17", "-O3", "-DNDEBUG", "-march=sapphirerapids", "-S"]
    includes = [f"-I{ggml / folder}" for folder in ("include", "src", "src/ggml-cpu")]
    includes.append(f"-I{Path(__file__).parents[2] / 'native/src'}")
    assembly = tmp_path / "mmq.s"
    source = ggml / "src/ggml-cpu/amx/mmq.cpp"
    subprocess.run([compiler, *flags, *includes, "-o", assembly, source], check=True, capture_output=True)
    before, _, _ = assembly.read_text().partition("ldtilecfg")
    # after the 64 bytes are zeroed come the palette, 16 bytes of row widths and 8 of row counts
    stores = re.findall(r"\(%rsp\)|\(%rbp\)", before[before.rindex("zmm") :])
    assert len(stores) >= 4, f"{library.read_record(library.directory()).compiler} drops part of the tile configuration"

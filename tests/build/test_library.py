"""Loading: another CPU, another binding, a kernel that kills the process; each is one clear line or a fallback."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from specee.native import cpu, library, selftest
from specee.native.errors import NativeError
from specee.native.selftest import Kernels

CPUINFO = """processor\t: 0
model name\t: Some CPU
flags\t\t: fpu sse4_2 avx avx2

processor\t: 1
flags\t\t: fpu
"""
RECORD = library.BuildRecord(pin="1.2.3", commit="abc", compiler="c", machine="x86_64", cpu="avx2 avx512f")


@pytest.fixture
def built() -> Path:
    """The library that this environment uses."""
    return library.directory() / library.library_name()


def test_features_of_a_cpu(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    assert cpu.features(tmp_path / "cpuinfo") == {"fpu", "sse4_2", "avx", "avx2"}
    assert "Some CPU" in cpu.identity(tmp_path / "cpuinfo")
    assert cpu.features(tmp_path / "missing") is None


def test_a_weaker_cpu_is_told_so() -> None:
    library.check_cpu(RECORD, frozenset({"avx2", "avx512f", "more"}))
    library.check_cpu(RECORD, None)  # unknown: the self-test decides
    with pytest.raises(NativeError, match="lacks avx512f; reinstall") as error:
        library.check_cpu(RECORD, frozenset({"avx2"}))
    assert "\n" not in str(error.value)


def test_a_weaker_cpu_is_told_so_before_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is never opened: here it is not even one."""
    (tmp_path / library.library_name()).write_text("not a library")
    (tmp_path / "build.json").write_text(json.dumps(dataclasses.asdict(RECORD)))
    monkeypatch.setenv("SPECEE_LIB_DIR", str(tmp_path))
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"avx2"}))
    with pytest.raises(NativeError, match="stronger CPU"):
        library._load()


def test_this_build_fits_this_cpu(built: Path) -> None:
    record = library.read_record(built.parent)
    assert cpu.missing(record.cpu, cpu.features()) == []
    info = dict(pair.split("=", 1) for pair in library.load().specee_build_info().decode().split(";"))
    assert info == {"pin": record.pin, "commit": record.commit, "compiler": record.compiler, "cpu": record.cpu}


def test_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECEE_LIB_DIR", str(tmp_path))
    with pytest.raises(NativeError, match="missing"):
        library.directory()
    with pytest.raises(NativeError, match="incomplete"):
        library.read_record(tmp_path)


def test_other_bindings() -> None:
    with pytest.raises(NativeError, match=r"built from 1\.2\.3, the bindings are"):
        library.check_pin(RECORD)


@pytest.mark.parametrize("version", ["1.2.3", "1.2.3+specee"])
def test_these_bindings(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    library.check_pin(RECORD)


@pytest.mark.parametrize("kernels", list(Kernels))
def test_selftest_passes(built: Path, kernels: Kernels) -> None:
    assert selftest.run(built, kernels) is None


def test_amx_is_in_use_where_it_was_compiled_in(built: Path) -> None:
    """Where the CPU has AMX and the self-test passed, weights may use it: the patches keep it alive."""
    if "amx_int8" not in (cpu.features() or ()) or "avx512_vnni" not in library.read_record(built.parent).cpu:
        pytest.skip("no AMX here")
    assert "AMX" in library.cpu_buffers()


def test_a_deadly_kernel_is_avoided(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dies = f"import os\nif 'SPECEE_NO_AMX' not in os.environ: os.kill(os.getpid(), {int(signal.SIGILL)})"
    monkeypatch.setattr(selftest, "_CHILD", dies)
    monkeypatch.delenv("SPECEE_NO_AMX", raising=False)
    assert selftest.run(built, Kernels.ALL) == f"killed by signal {int(signal.SIGILL)}"
    assert selftest.choose(built, tmp_path) is Kernels.NO_AMX


def test_the_answer_is_cached(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = selftest.choose(built, tmp_path)
    monkeypatch.setattr(selftest, "run", lambda *_: pytest.fail("the self-test ran again"))
    assert selftest.choose(built, tmp_path) is first


def test_nothing_works(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "_CHILD", "import sys; sys.exit('q4_0 weights: wrong')")
    with pytest.raises(NativeError, match="q4_0 weights: wrong"):
        selftest.choose(built, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_driver_that_is_not_here(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a build for a GPU says on a machine without one: not that the CPU is the cause."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    (tmp_path / "empty.c").touch()
    shutil.copy(built.parent / "build.json", tmp_path)
    driver = tmp_path / "libcuda.so.1"
    shared = [compiler, "-shared", "-fPIC", tmp_path / "empty.c", "-Wl,--no-as-needed"]
    subprocess.run([*shared, "-Wl,-soname,libcuda.so.1", "-o", driver], check=True)
    subprocess.run([*shared, driver, "-o", tmp_path / built.name], check=True)
    driver.unlink()
    monkeypatch.setenv("SPECEE_LIB_DIR", str(tmp_path))
    with pytest.raises(NativeError) as told:
        library._load()
    assert "cannot be loaded: libcuda.so.1" in str(told.value) and "whose driver is not here" in told.value.message

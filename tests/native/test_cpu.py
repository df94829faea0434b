"""What is read of the CPU, and how many of its cores this process may use, from files as systems write them."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

from specee.native import cpu

X86 = """processor\t: {0}
model name\t: Some CPU @ 3 GHz
physical id\t: {1}
core id\t\t: {2}
flags\t\t: fpu avx2 fma f16c avx512f avx512_vnni{3}

"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp sve\n\nprocessor\t: 1\nFeatures\t: fp\n\nHardware\t: Board\n"


def cpuinfo(folder: Path, text: str) -> Path:
    (folder / "cpuinfo").write_text(text)
    return folder / "cpuinfo"


def test_an_x86_processor(tmp_path: Path) -> None:
    threads = [(0, 0), (0, 1), (0, 0), (0, 1), (1, 0), (1, 1), (1, 0), (1, 1)]  # two sockets, two cores, two threads
    file = cpuinfo(tmp_path, "".join(X86.format(i, *at, " amx_tile amx_int8") for i, at in enumerate(threads)))
    assert cpu.processor_name(file) == "Some CPU @ 3 GHz"
    assert cpu.physical_cores(file) == 4
    assert cpu.has_amx(file)
    assert cpu.matrix_flags(file) == ["avx2", "fma", "f16c", "avx512f", "avx512_vnni", "amx_int8"]
    assert cpu.features(file) >= {"fpu", "amx_tile"}
    assert not cpu.has_amx(cpuinfo(tmp_path, X86.format(0, 0, 0, "")))


def test_an_arm_processor(tmp_path: Path) -> None:
    file = cpuinfo(tmp_path, ARM)
    assert cpu.matrix_flags(file) == ["asimddp", "sve"]
    assert cpu.physical_cores(file) == 0
    assert not cpu.has_amx(file)
    assert cpu.processor_name(file) == (platform.processor() or platform.machine())


@pytest.mark.parametrize("text", [None, "", "\n\n", "no colon\n"])
def test_a_system_that_does_not_tell(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "missing" if text is None else cpuinfo(tmp_path, text)
    assert cpu.features(file) is None
    assert (cpu.matrix_flags(file), cpu.has_amx(file), cpu.physical_cores(file)) == ([], False, 0)
    assert cpu.processor_name(file) == (platform.processor() or platform.machine())


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1.5),
        ("0::/elsewhere\n", {"cpu.max": "100000 100000\n"}, 1.0),
        ("3:cpu,x:/g\n0::/\n", {"cpu,x/g/cpu.cfs_quota_us": "50000", "cpu,x/g/cpu.cfs_period_us": "100000"}, 0.5),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, float("inf")),
        ("3:cpuset:/\n", {}, float("inf")),
        ("", {}, float("inf")),
    ],
)  # fmt: skip
def test_the_quota_of_control_groups(tmp_path: Path, own: str, files: dict[str, str], quota: float) -> None:
    for name, content in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (tmp_path / "own").write_text(own)
    assert cpu._quota(tmp_path / "own", tmp_path / "groups") == quota
    assert 1 <= cpu.usable_cores(tmp_path / "own", tmp_path / "groups") <= max(1, np.ceil(quota))

"""This machine's CPU: its name, its cores, how many of them this process may use, and what they can do.

Instruction set extensions have the names that native/cmake/cpu-record.cmake wrote down at the build.
"""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

from specee.native import control_groups
from specee.native.control_groups import lines

CPUINFO = Path("/proc/cpuinfo")


# the extensions that matter to matrix products
MATRIX_FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimddp",
    "sve",
)


def _processors(cpuinfo: Path) -> list[dict[str, str]]:
    """The fields of each logical processor; none where the system does not list them (macOS, Windows)."""
    found = [dict(map(_field, block.splitlines())) for block in "\n".join(lines(cpuinfo)).split("\n\n")]
    return [fields for fields in found if fields]


def _field(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def features(cpuinfo: Path = CPUINFO) -> frozenset[str] | None:
    """Names of the instruction set extensions; None where the system does not list them."""
    for fields in _processors(cpuinfo)[:1]:
        if names := fields.get("flags") or fields.get("Features"):
            return frozenset(names.split())
    return None


def matrix_flags(cpuinfo: Path = CPUINFO) -> list[str]:
    """The extensions that matter to matrix products, of those that the CPU has."""
    available = features(cpuinfo) or frozenset()
    return [name for name in MATRIX_FLAGS if name in available]


def has_amx(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the CPU has AMX; only the library knows whether it is used."""
    return "amx_tile" in (features(cpuinfo) or ())


def processor_name(cpuinfo: Path = CPUINFO) -> str:
    """What the maker calls the processor, or its architecture where that is unknown."""
    names = (fields.get("model name") for fields in _processors(cpuinfo))
    return next(filter(None, names), "") or platform.processor() or platform.machine()


def physical_cores(cpuinfo: Path = CPUINFO) -> int:
    """Cores of all processors, however many threads each runs; 0 when unknown."""
    return len({(f.get("physical id"), f["core id"]) for f in _processors(cpuinfo) if "core id" in f})


def identity(cpuinfo: Path = CPUINFO) -> str:
    """A text that differs where results of the self-test may differ: model, extensions and kernel."""
    return f"{processor_name(cpuinfo)}|{' '.join(sorted(features(cpuinfo) or ()))}|{platform.release()}"


def missing(needed: str, available: frozenset[str] | None) -> list[str]:
    """Extensions in `needed` (blank-separated) that the CPU lacks; empty when it is unknown what it has."""
    return [] if available is None else [name for name in needed.split() if name not in available]


def usable_cores(own_groups: Path = control_groups.OWN, groups: Path = control_groups.ROOT) -> int:
    """Logical cores whose time this process may use: its affinity, and the quota of its control groups, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _quota(own_groups, groups))))


def _quota(own_groups: Path, groups: Path) -> float:
    """Cores that the control groups allow, the outer ones too; infinity where there is no limit."""
    least = math.inf
    for folder, version in control_groups.folders("cpu", own_groups, groups):
        if version == 1:
            quota = [*lines(folder / "cpu.cfs_quota_us"), *lines(folder / "cpu.cfs_period_us")]
        else:
            quota = " ".join(lines(folder / "cpu.max")).split()
        if len(quota) == 2 and all(number.isdigit() for number in quota) and int(quota[1]) > 0:
            least = min(least, int(quota[0]) / int(quota[1]))
    return least

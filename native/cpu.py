"""What this machine's CPU can do, under the names that native/cmake/cpu-record.cmake wrote down at the build."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def _first_processor(cpuinfo: Path) -> dict[str, str]:
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return {}
    fields = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    return fields


def features(cpuinfo: Path = CPUINFO) -> frozenset[str] | None:
    """Names of the instruction set extensions; None where the system does not list them (macOS, Windows)."""
    fields = _first_processor(cpuinfo)
    names = fields.get("flags") or fields.get("Features")
    return frozenset(names.split()) if names else None


def identity(cpuinfo: Path = CPUINFO) -> str:
    """A text that differs where results of the self-test may differ: model, extensions and kernel."""
    fields = _first_processor(cpuinfo)
    name = fields.get("model name") or platform.processor() or platform.machine()
    return f"{name}|{' '.join(sorted(features(cpuinfo) or ()))}|{platform.release()}"


def missing(needed: str, available: frozenset[str] | None) -> list[str]:
    """Extensions in `needed` (blank-separated) that the CPU lacks; empty when it is unknown what it has."""
    return [] if available is None else [name for name in needed.split() if name not in available]

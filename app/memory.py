"""Memory that is free on this machine now."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specee.native import control_groups

MEMINFO = Path("/proc/meminfo")


def free_ram(
    meminfo: Path = MEMINFO, own_groups: Path = control_groups.OWN, groups: Path = control_groups.ROOT
) -> int | None:
    """Bytes that a new process can use without swapping: what the system has, as far as this process may have it. None
    when the system does not say."""
    known = [_of_system(meminfo), *_of_groups(own_groups, groups), _of_shell()]
    return min((n_bytes for n_bytes in known if n_bytes is not None), default=None)


def _of_system(meminfo: Path) -> int | None:
    for line in control_groups.lines(meminfo):
        found = re.match(r"MemAvailable:\s+(\d+) kB", line)
        if found:
            return int(found[1]) << 10
    if sys.platform == "darwin":
        return _of_macos()
    if sys.platform == "win32":
        return _of_windows()
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _of_macos() -> int | None:
    """Pages that are free, and those that hold copies of files only."""
    try:
        told = subprocess.run(["vm_stat"], capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return read_vm_stat(told)


def read_vm_stat(told: str) -> int | None:
    """Free bytes, by what macOS's vm_stat prints."""
    page = re.search(r"page size of (\d+) bytes", told)
    pages = re.findall(r"^Pages (?:free|inactive|speculative|purgeable):\s+(\d+)", told, re.MULTILINE)
    return int(page[1]) * sum(map(int, pages)) if page and pages else None


def _of_windows() -> int | None:
    class Status(ctypes.Structure):
        """MEMORYSTATUSEX; its fourth field is what matters."""

        _fields_ = (
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            ("total", ctypes.c_uint64),
            ("available", ctypes.c_uint64),
            ("rest", ctypes.c_uint64 * 5),
        )

    status = Status(length=ctypes.sizeof(Status))
    kernel: Any = getattr(ctypes, "windll", None)
    if kernel is None or not kernel.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.available)


def _of_groups(own_groups: Path, groups: Path) -> Iterator[int]:
    """What control groups leave; what they hold of files' contents can be given up."""
    for folder, version in control_groups.folders("memory", own_groups, groups):
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
        limit, used = ("".join(control_groups.lines(folder / name)) for name in names)
        if limit.isdigit() and used.isdigit():
            given_up = re.search(r"^(?:total_)?inactive_file (\d+)$", "\n".join(_statistics(folder)), re.MULTILINE)
            yield max(0, int(limit) - int(used) + (int(given_up[1]) if given_up else 0))


def _statistics(folder: Path) -> list[str]:
    """The lines of memory.stat; those of a whole tree, which version 1 has beside a group's own, first."""
    return sorted(control_groups.lines(folder / "memory.stat"), key=lambda line: not line.startswith("total_"))


def _of_shell() -> int | None:
    """What `ulimit -v` allows a process; None without a limit."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    except (ImportError, OSError, ValueError):
        return None
    return None if limit == resource.RLIM_INFINITY else limit


def used_by_this_process() -> int | None:
    """Bytes of this process in memory; None when the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def free_vram() -> int | None:
    """Bytes on the NVIDIA GPUs together, as nvidia-smi says; None without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        done = subprocess.run(
            [tool, "--query-gpu=memory.free", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
        return sum(int(line) for line in done.stdout.split()) << 20
    except (OSError, ValueError, subprocess.SubprocessError):
        return None

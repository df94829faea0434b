"""Facts about this machine that a measurement depends on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path

from specee.native import cpu


def default_threads() -> int:
    """Threads for decoding: the physical cores that we may use; more of them only wait for memory."""
    usable = cpu.usable_cores()
    return min(usable, _physical_cores() or usable)


def _cpu_records() -> list[dict[str, str]]:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return []
    records = [dict(_pair(line) for line in block.splitlines() if ":" in line) for block in text.split("\n\n")]
    return [record for record in records if record]


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _physical_cores() -> int:
    """0 when unknown."""
    cores = {(r.get("physical id"), r["core id"]) for r in _cpu_records() if "core id" in r}
    return len(cores)


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """The processor's name."""
    for record in _cpu_records():
        if name := record.get("model name"):
            return name
    return platform.processor() or platform.machine()


def cpu_has_amx() -> bool:
    """Whether the CPU has AMX; whether it is used is the library's to say."""
    return any("amx_tile" in r.get("flags", "").split() for r in _cpu_records())


def cpu_flags() -> list[str]:
    """The extensions that matter to matrix products."""
    wanted = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "sve")
    records = _cpu_records()
    flags = (records[0].get("flags") or records[0].get("Features") or "").split() if records else []
    return [name for name in wanted if name in flags]


def identity() -> str:
    """Short text that changes when measurements from elsewhere no longer hold."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{platform.system()} {platform.machine()} {cpu_name()} x{cores}"


def library_build() -> str:
    """What the native library says of itself; changes with each build that may run at another speed."""
    from specee.native import library

    loaded = library.loaded()
    text = loaded.handle.specee_build_info()
    return f"{loaded.kernels.value};{text.decode('utf-8', 'replace') if text else ''}"


def package_version() -> str:
    """The version, and the commit when it runs from a checkout."""
    try:
        version = importlib.metadata.version("specee-chat")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    commit = _commit()
    return f"{version} ({commit})" if commit else version


def _commit() -> str:
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here.parent, capture_output=True, text=True, timeout=5)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", here.name):  # an installed file in somebody else's checkout
            return ""
        return git("describe", "--always", "--dirty", "--abbrev=10")
    except (OSError, subprocess.SubprocessError):
        return ""


def report(threads: int) -> dict[str, object]:
    """For the head of a table of measurements."""
    from specee.native import library

    loaded = library.loaded()
    import llama_cpp  # only now: the library comes first

    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "amx_cpu": cpu_has_amx(),
        "kernels": loaded.kernels.value,
        "gpu": bool(llama_cpp.llama_supports_gpu_offload()),
        "build": library_build(),
        "threads": threads,
        "python": platform.python_version(),
    }

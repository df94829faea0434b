"""Tries the CPU kernels in a child process, because a wrong one does not fail: it kills the process (SIGILL).

The first kernels that survive are used: all of them, all but AMX, or only the plain ones. The answer is cached for this
library on this CPU, so that later starts do not pay for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from enum import Enum
from pathlib import Path

import platformdirs

from specee.native import cpu
from specee.native.errors import NativeError

NO_AMX = "SPECEE_NO_AMX"  # read by native/patches/0003-amx-switch.patch
TIMEOUT_S = 120
NOT_LOADED = "OSError: "  # how the child's last line begins where the library, or one that it needs, is no such file

# Without any import of ours: the child must not depend on how this process found its packages.
_CHILD = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.specee_last_error.restype = ctypes.c_char_p
if library.specee_selftest(int(sys.argv[2])) != 0:
    sys.exit(library.specee_last_error().decode(errors="replace"))
"""


class Kernels(str, Enum):
    """Which matrix kernels may be used."""

    ALL = "all"
    NO_AMX = "no-amx"  # SPECEE_NO_AMX must be set before the library is used
    PLAIN = "plain"  # no extra buffer types: the model's parameter use_extra_bufts must be false


def run(library: Path, kernels: Kernels) -> str | None:
    """Runs the self-test in a child process. None when it passed, else what happened, in one line."""
    env = {**os.environ, **({} if kernels is Kernels.ALL else {NO_AMX: "1"})}
    command = [sys.executable, "-c", _CHILD, str(library), str(int(kernels is not Kernels.PLAIN))]
    try:
        child = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"no result within {TIMEOUT_S} s"
    if child.returncode == 0:
        return None
    if child.returncode < 0:
        return f"killed by signal {-child.returncode}"
    lines = child.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {child.returncode}"


def cache_file(library: Path, cache_dir: Path | None = None) -> Path:
    """Where the answer for this library on this CPU is kept."""
    digest = hashlib.blake2b(cpu.identity().encode(), digest_size=12)
    for part in sorted(library.parent.glob("*ggml-*")):  # the kernels live in these
        if part.is_file():
            digest.update(part.read_bytes())
    return (cache_dir or platformdirs.user_cache_path("specee-chat")) / f"selftest-{digest.hexdigest()}"


def choose(library: Path, cache_dir: Path | None = None) -> Kernels:
    """The kernels to use with this library on this CPU.

    Raises OSError when it cannot be loaded, NativeError when even the plain ones fail.
    """
    cache = cache_file(library, cache_dir)
    with contextlib.suppress(OSError, ValueError):
        return Kernels(cache.read_text())
    reason: str | None = None
    for kernels in Kernels:
        reason = run(library, kernels)
        if reason is None:
            with contextlib.suppress(OSError):  # a read-only home only costs the next start the same test
                cache.parent.mkdir(parents=True, exist_ok=True)
                cache.write_text(kernels.value)
            return kernels
        if reason.startswith(NOT_LOADED):
            raise OSError(reason.removeprefix(NOT_LOADED))
    raise NativeError(
        "The native library does not work on this CPU",
        f"its self-test failed ({reason}); reinstall on this machine: pip install --force-reinstall --no-deps .",
    )

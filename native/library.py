"""Finds, checks and loads our build of llama.cpp, and points llama-cpp-python's bindings at it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from specee.native import abi, cpu, selftest
from specee.native.errors import NativeError
from specee.native.selftest import Kernels

ABI_VERSION = 11  # SPECEE_ABI_VERSION of src/specee.h
BACKEND = "SPECEE_BACKEND"
KERNELS = ("avx2", "avx_vnni", "avx512_vnni", "neon_dotprod", "neon_i8mm", "none")  # of src/small_batch
START_BYTES = 64 << 20  # what llama.cpp takes without a look when it opens a model or a context
GPU_DRIVERS = ("libcuda.so", "nvcuda.dll", "libvulkan.so", "vulkan-1.dll", "libamdhip64.so")
REINSTALL = "reinstall specee-chat on this machine: pip install --force-reinstall --no-deps ."

_lock = threading.Lock()
_loaded: Loaded | None = None


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """build.json, which the build writes next to the libraries: what can be known before they are loaded."""

    pin: str  # version of llama-cpp-python whose llama.cpp was built
    commit: str
    compiler: str
    machine: str
    cpu: str  # instruction set extensions that the code needs, separated by blanks


@dataclass(frozen=True, slots=True)
class Loaded:
    handle: ctypes.CDLL
    directory: Path
    record: BuildRecord
    kernels: Kernels


def library_name() -> str:
    if sys.platform == "win32":
        return "llama.dll"
    return "libllama.dylib" if sys.platform == "darwin" else "libllama.so"


def directory() -> Path:
    """The folder with the built libraries; SPECEE_LIB_DIR overrides it for developers.

    Raises NativeError when there is none.
    """
    override = os.environ.get("SPECEE_LIB_DIR")
    candidates = [Path(override)] if override else [Path(__file__).with_name("lib"), *_installed()]
    for candidate in candidates:
        if (candidate / library_name()).is_file():
            return candidate.resolve()
    what_to_do = "correct SPECEE_LIB_DIR" if override else REINSTALL
    raise NativeError("The native library is missing", f"no {library_name()} in {candidates[0]}; {what_to_do}")


def _installed() -> list[Path]:
    """An editable install runs this file from the source tree, while the libraries are with the installed files."""
    try:
        distribution = importlib.metadata.distribution("specee-chat")
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(distribution.locate_file("specee/native/lib")))]


def read_record(folder: Path) -> BuildRecord:
    """Reads build.json. Raises NativeError when it is not there or not ours."""
    try:
        return BuildRecord(**json.loads((folder / "build.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise NativeError("The native library is incomplete", f"build.json in {folder}: {error}; {REINSTALL}") from None


def check_cpu(record: BuildRecord, available: frozenset[str] | None) -> None:
    """Raises NativeError when the libraries use instructions that the CPU does not have (they would die of SIGILL)."""
    if absent := cpu.missing(record.cpu, available):
        raise NativeError(
            "The native library was built for a stronger CPU", f"this one lacks {', '.join(absent)}; {REINSTALL}"
        )


def check_pin(record: BuildRecord) -> None:
    """Raises NativeError when the installed bindings belong to another llama.cpp."""
    try:
        found = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        found = "not installed"
    if found.partition("+")[0] != record.pin:  # +specee: without their own library, from native/bindings
        raise NativeError(
            "llama-cpp-python does not fit",
            f"the library was built from {record.pin}, the bindings are {found}; "
            f"pip install llama-cpp-python=={record.pin}",
        )


def check_variables() -> None:
    """Raises NativeError for a variable whose value would choose nothing, in silence."""
    wanted = os.environ.get("SPECEE_KERNELS")
    if wanted not in (None, *KERNELS):
        raise NativeError("bad environment variable", f"SPECEE_KERNELS: {wanted!r} is not one of {', '.join(KERNELS)}")


def _load_backend(handle: ctypes.CDLL) -> None:
    """Another back end of ggml's, built with GGML_BACKEND_DL: the file that SPECEE_BACKEND names."""
    if path := os.environ.get(BACKEND):
        load = handle.ggml_backend_load
        load.argtypes, load.restype = (ctypes.c_char_p,), ctypes.c_void_p
        if not load(os.fsencode(path)):
            raise NativeError("bad environment variable", f"{BACKEND}: {path!r} is no back end for this library")


def _point_bindings_at(folder: Path) -> None:
    bindings = sys.modules.get("llama_cpp.llama_cpp")
    if bindings is not None and Path(bindings._base_path).resolve() != folder:
        raise NativeError(
            "llama-cpp-python was loaded too early",
            "it uses another library in this process; import specee.native.library and call load() first",
        )
    os.environ["LLAMA_CPP_LIB_PATH"] = str(folder)


def _load() -> Loaded:
    folder = directory()
    record = read_record(folder)
    check_variables()
    check_cpu(record, cpu.features())
    check_pin(record)
    path = folder / library_name()
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an assertion of ggml's would start a debugger
    try:
        kernels = selftest.choose(path)
        if kernels is not Kernels.ALL:
            os.environ[selftest.NO_AMX] = "1"
        _point_bindings_at(folder)
        handle = ctypes.CDLL(str(path))
        version = handle.specee_abi_version()
    except (OSError, AttributeError) as error:
        told = f"{error}; {REINSTALL}"
        if any(name in str(error) for name in GPU_DRIVERS):
            told = f"{error}; it was built for a GPU, whose driver is not here or too old: install that, or {REINSTALL}"
        raise NativeError("The native library cannot be loaded", told) from None
    if version != ABI_VERSION:
        raise NativeError(
            "The native library does not fit", f"its ABI is {version}, this program needs {ABI_VERSION}; {REINSTALL}"
        )
    _load_backend(handle)
    return Loaded(abi.declare(handle), folder, record, kernels)


def loaded() -> Loaded:
    """The library with what is known about it; loads it at the first call. Raises NativeError."""
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = _load()
        return _loaded


def load() -> ctypes.CDLL:
    """The library, its specee_* functions declared. Import llama_cpp only after this. Raises NativeError."""
    return loaded().handle


def use_extra_buffers() -> bool:
    """False when models must be opened with use_extra_bufts = false, because the self-test failed with them."""
    return loaded().kernels is not Kernels.PLAIN


def cpu_buffers() -> list[str]:
    """Names of the weight layouts that the CPU kernels may use besides the plain one, such as AMX or CPU_REPACK."""
    names = loaded().handle.specee_cpu_buffers
    names.restype = ctypes.c_char_p
    return [name for name in names().decode().split(",") if name] if use_extra_buffers() else []


def architecture_limit(arch: str) -> str | None:
    """Why tokens of an architecture (as GGUF files name it) can neither be drafted nor skip layers; None: they may.

    What an opened model can do is proven (see RowContext.level). Raises NativeError.
    """
    level = load().specee_architecture_level(arch.encode())
    return last_error() if level < abi.EXITS else None


def has_kernel(type_id: int, n_in: int, n_out: int) -> bool:
    """Whether several tokens at once pass a weight matrix in little more time than one, on this CPU.

    `type_id`: its type's number in a GGUF file. Raises NativeError.
    """
    return bool(load().specee_has_kernel(type_id, n_in, n_out))


def need_memory(what: str, n_bytes: int = START_BYTES) -> None:
    """Raises NativeError unless there is memory for a beginning: without it llama.cpp ends the process."""
    if load().specee_memory_left(n_bytes) != abi.OK:
        why = f"too little is left for {what}; close other programs, or raise the limit of this one (ulimit -v)"
        raise NativeError("There is no memory", why)


def last_error() -> str:
    """Why the last call of this thread failed; empty when none did."""
    text: bytes = load().specee_last_error()
    return text.decode(errors="replace")

"""ggml's tensors and devices, as far as measurements need them: the loaded library's functions with their types."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from specee.native import library

CPU, GPU, INTEGRATED_GPU = 0, 1, 2  # enum ggml_backend_dev_type
F32, F16 = 0, 1  # enum ggml_type
_ROOM = 1 << 16  # bytes of a context beside its tensors

_pointer, _size, _int, _long, _text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int64, ctypes.c_char_p
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "ggml_tensor_overhead": (_size,),
    "ggml_graph_overhead_custom": (_size, _size, ctypes.c_bool),
    "ggml_row_size": (_size, _int, _long),
    "ggml_free": (None, _pointer),
    "ggml_new_tensor_2d": (_pointer, _pointer, _int, _long, _long),
    "ggml_new_tensor_3d": (_pointer, _pointer, _int, _long, _long, _long),
    "ggml_mul_mat": (_pointer, _pointer, _pointer, _pointer),
    "ggml_add": (_pointer, _pointer, _pointer, _pointer),
    "ggml_new_graph_custom": (_pointer, _pointer, _size, ctypes.c_bool),
    "ggml_build_forward_expand": (None, _pointer, _pointer),
    "ggml_backend_dev_count": (_size,),
    "ggml_backend_dev_get": (_pointer, _size),
    "ggml_backend_dev_by_type": (_pointer, _int),
    "ggml_backend_dev_by_name": (_pointer, _text),
    "ggml_backend_dev_type": (_int, _pointer),
    "ggml_backend_dev_name": (_text, _pointer),
    "ggml_backend_dev_description": (_text, _pointer),
    "ggml_backend_dev_memory": (None, _pointer, ctypes.POINTER(_size), ctypes.POINTER(_size)),
    "ggml_backend_dev_init": (_pointer, _pointer, _text),
    "ggml_backend_dev_backend_reg": (_pointer, _pointer),
    "ggml_backend_dev_buffer_type": (_pointer, _pointer),
    "ggml_backend_dev_supports_op": (ctypes.c_bool, _pointer, _pointer),
    "ggml_backend_reg_by_name": (_pointer, _text),
    "ggml_backend_reg_dev_count": (_size, _pointer),
    "ggml_backend_reg_dev_get": (_pointer, _pointer, _size),
    "ggml_backend_reg_get_proc_address": (_pointer, _pointer, _text),
    "ggml_backend_alloc_ctx_tensors_from_buft": (_pointer, _pointer, _pointer),
    "ggml_backend_buffer_clear": (None, _pointer, ctypes.c_uint8),
    "ggml_backend_buffer_free": (None, _pointer),
    "ggml_backend_graph_compute": (_int, _pointer, _pointer),
    "ggml_backend_free": (None, _pointer),
}
"""The result's type, then those of the arguments."""


class _InitParams(ctypes.Structure):
    """ggml_init_params."""

    _fields_ = (("mem_size", _size), ("mem_buffer", _pointer), ("no_alloc", ctypes.c_bool))


class Ggml:
    """The functions, by their names without `ggml_`. Raises AttributeError where the library does not show them."""

    def __init__(self) -> None:
        handle = library.load()
        for name, (result, *arguments) in _SIGNATURES.items():
            function = getattr(handle, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name.removeprefix("ggml_"), function)
        self._init = handle.ggml_init
        self._init.restype, self._init.argtypes = _pointer, (_InitParams,)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(name)  # for the type checker: those above are found without it

    @contextmanager
    def context(self, n_tensors: int, n_nodes: int = 0) -> Iterator[Any]:
        """A context for descriptions of tensors and a graph; their data lies in buffers."""
        graph = self.graph_overhead_custom(n_nodes, False) if n_nodes else 0
        made = self._init(_InitParams(self.tensor_overhead() * n_tensors + graph + _ROOM, None, True))
        try:
            yield made
        finally:
            self.free(made)

    @contextmanager
    def buffer(self, context: Any, kind: Any) -> Iterator[Any]:
        """Memory for all tensors of a context, filled; None where there is none of this kind."""
        made = self.backend_alloc_ctx_tensors_from_buft(context, kind)
        try:
            if made:
                self.backend_buffer_clear(made, 1)  # pages that nobody has written to are none
            yield made
        finally:
            self.backend_buffer_free(made)

    def devices(self, *kinds: int) -> list[Any]:
        """All devices of these kinds that the build knows and the machine has."""
        every = [self.backend_dev_get(i) for i in range(self.backend_dev_count())]
        return [device for device in every if self.backend_dev_type(device) in kinds]

    def weight_layouts(self, device: Any) -> list[Any]:
        """Kinds of buffers that weights on this device may have, in the order in which llama.cpp tries them."""
        plain = [self.backend_dev_buffer_type(device)]
        registry = self.backend_dev_backend_reg(device)
        address = self.backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
        if not address or not library.use_extra_buffers():
            return plain
        extra = ctypes.CFUNCTYPE(ctypes.POINTER(_pointer), _pointer)(address)(device)
        found: list[Any] = []
        while extra and extra[len(found)]:
            found.append(extra[len(found)])
        return found + plain

    def set_threads(self, device: Any, backend: Any, n: int) -> None:
        """So many threads compute, where the device has threads."""
        registry = self.backend_dev_backend_reg(device)
        address = self.backend_reg_get_proc_address(registry, b"ggml_backend_set_n_threads")
        if address:
            ctypes.CFUNCTYPE(None, _pointer, _int)(address)(backend, n)


@lru_cache(maxsize=1)
def load() -> Ggml:
    """The functions of the loaded library. Raises NativeError."""
    return Ggml()

"""ctypes declarations of the C ABI in src/specee.h."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

OK, INVALID, UNSUPPORTED, NO_SPACE, FAILED, CANCELLED = 0, -1, -2, -3, -4, -5
LOGITS, KV_ONLY = 1, 2
LEVELS = DENSE, DRAFTS, RANGES, EXITS = 0, 1, 2, 3
K_MAX = 16  # SPECEE_K_MAX

_int32, _uint32, _float, _double, _void = ctypes.c_int32, ctypes.c_uint32, ctypes.c_float, ctypes.c_double, None
_text, _pointer = ctypes.c_char_p, ctypes.c_void_p
_int32_p, _float_p = ctypes.POINTER(_int32), ctypes.POINTER(_float)
_rows, _slot, _id, _n, _token = ctypes.c_void_p, _int32, _int32, _int32, _int32


class Shaping(ctypes.Structure):
    """specee_shaping."""

    _fields_ = (
        ("logits", _pointer),
        ("grammar", _pointer),
        ("filters", _pointer),
        ("preselect", _int32),
        ("n_wanted", _int32),
        ("min_p", _float),
    )


class Transfers(ctypes.Structure):
    """specee_transfers."""

    _fields_ = (
        ("n_to_device", ctypes.c_int64),
        ("bytes_to_device", ctypes.c_int64),
        ("n_to_host", ctypes.c_int64),
        ("bytes_to_host", ctypes.c_int64),
        ("n_between", ctypes.c_int64),
        ("bytes_between", ctypes.c_int64),
        ("n_waits", ctypes.c_int64),
    )


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "specee_abi_version": (_int32, []),
    "specee_build_info": (_text, []),
    "specee_last_error": (_text, []),
    "specee_memory_left": (_int32, [ctypes.c_int64]),
    "specee_architecture_level": (_int32, [_text]),
    "specee_tokenize": (_int32, [_pointer, _n, _text, _int32, _int32, _int32, _int32_p, _int32_p]),
    "specee_token_piece": (_int32, [_pointer, _token, _int32, _int32, _text, _int32_p]),
    "specee_layer_device": (_text, [_pointer, _int32]),
    "specee_max_equal_rows": (_int32, []),
    "specee_has_kernel": (_int32, [_int32, ctypes.c_int64, ctypes.c_int64]),
    "specee_rows_init": (_rows, [_pointer, _text, _int32, _int32, _int32, _int32, _text]),
    "specee_rows_free": (_void, [_rows]),
    "specee_rows_level": (_int32, [_rows]),
    "specee_rows_limit": (_text, [_rows]),
    "specee_rows_max_equal": (_int32, [_rows]),
    "specee_rows_prefill": (_int32, [_rows, _slot, _n, _int32_p, _int32]),
    "specee_rows_keep_layers": (_int32, [_rows, _n, _int32_p]),
    "specee_rows_n_layer_states": (_int32, [_rows, _slot]),
    "specee_rows_layer_states": (_int32, [_rows, _slot, _int32, _n, _float_p]),
    "specee_rows_append": (_int32, [_rows, _slot, _id, _token]),
    "specee_rows_commit": (_int32, [_rows, _id]),
    "specee_rows_commit_first": (_int32, [_rows, _id]),
    "specee_rows_forward": (_int32, [_rows, _slot, _token]),
    "specee_rows_roll_back": (_int32, [_rows, _slot, _int32]),
    "specee_rows_length": (_int32, [_rows, _slot]),
    "specee_rows_in_flight": (_int32, [_rows, _slot]),
    "specee_rows_tip": (_int32, [_rows, _slot]),
    "specee_rows_advance": (_int32, [_rows, _n, _int32_p, _int32, _uint32]),
    "specee_rows_advance_stages": (_int32, [_rows, _n, _int32_p, _int32_p, _int32_p, _uint32]),
    "specee_rows_complete": (_int32, [_rows, _slot, _uint32]),
    "specee_rows_run_to_exit": (
        _int32,
        [_rows, _id, _n, _int32_p, _int32, _int32_p, _float, _float_p, _int32_p],
    ),
    "specee_rows_probe": (_int32, [_rows, _n, _int32_p, _int32, _int32_p, _float_p, _float_p]),
    "specee_rows_lens_head": (_int32, [_rows, _id]),
    "specee_rows_draft": (_int32, [_rows, _id, _token, _int32, _int32_p]),
    "specee_rows_depth": (_int32, [_rows, _id]),
    "specee_rows_hidden": (_float_p, [_rows, _id]),
    "specee_rows_logits": (_float_p, [_rows, _slot, _int32]),
    "specee_rows_cancel": (_void, [_rows]),
    "specee_rows_resume": (_void, [_rows]),
    "specee_rows_threads": (_int32, [_rows]),
    "specee_rows_fix_threads": (_void, [_rows, _int32]),
    "specee_rows_limit_single_row": (_void, [_rows, _int32]),
    "specee_lens_set": (_int32, [_rows, _int32, _int32, _pointer, _pointer, _float_p]),
    "specee_predictor_set": (
        _int32,
        [_rows, _int32, _int32, _int32, _float_p, _float_p, _float_p, _float],
    ),
    "specee_shortlist_set": (_int32, [_rows, _n, _int32_p, _pointer]),
    "specee_draft_set": (_int32, [_rows, _int32, _pointer, _n, _int32_p, _pointer, _float_p]),
    "specee_embedding_rows": (_int32, [_rows, _n, _int32_p, _float_p]),
    "specee_head_rows": (_int32, [_rows, _n, _int32_p, _float_p, _float_p]),
    "specee_head_shape": (_int32, [_rows, _int32_p, _float_p]),
    "specee_eagle_head_init": (_pointer, [_pointer, _rows, _slot]),
    "specee_eagle_head_free": (_void, [_pointer]),
    "specee_eagle_head_read": (_int32, [_pointer, _n, _int32_p, _float_p]),
    "specee_eagle_head_extend": (_int32, [_pointer, _token]),
    "specee_eagle_head_roll_back": (_int32, [_pointer, _int32]),
    "specee_eagle_head_best": (_int32, [_pointer, _int32_p, _float_p]),
    "specee_grammar_init": (_pointer, [_pointer, _text]),
    "specee_grammar_free": (_void, [_pointer]),
    "specee_grammar_allows": (_int32, [_pointer, _token]),
    "specee_grammar_accept": (_int32, [_pointer, _token]),
    "specee_grammar_rewind": (_int32, [_pointer, _n]),
    "specee_sampler_accept": (_int32, [_pointer, _token]),
    "specee_sampler_reset": (_int32, [_pointer]),
    "specee_rows_greedy": (_int32, [_rows, _slot, _int32, ctypes.POINTER(Shaping), _int32_p]),
    "specee_rows_distribution": (
        _int32,
        [_rows, _slot, _int32, ctypes.POINTER(Shaping), _int32, _int32_p, _float_p],
    ),
    # for tests only
    "specee_rows_stop_next": (_int32, [_rows]),
    "specee_rows_select_on_devices": (_int32, [_rows, _int32]),
    "specee_rows_transfers": (_int32, [_rows, ctypes.POINTER(Transfers)]),
    "specee_thread_rule_init": (_pointer, [_int32, _int32]),
    "specee_thread_rule_decide": (_int32, [_pointer, _double, _double, _double]),
    "specee_thread_rule_free": (_void, [_pointer]),
}


def int32_p(array: NDArray[np.int32]) -> Any:
    """Where a C function finds the numbers of a contiguous array, which must outlive the call."""
    return array.ctypes.data_as(_int32_p)


def float_p(array: NDArray[np.float32]) -> Any:
    """The same for float32."""
    return array.ctypes.data_as(_float_p)


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Give the library's specee_* functions their types."""
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library

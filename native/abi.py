"""ctypes declarations of the C ABI in src/specee.h."""

from __future__ import annotations

import ctypes
from typing import Any

OK, INVALID, UNSUPPORTED, NO_SPACE, FAILED, CANCELLED = 0, -1, -2, -3, -4, -5
LOGITS, KV_ONLY = 1, 2
K_MAX = 16

_int32_p = ctypes.POINTER(ctypes.c_int32)
_float_p = ctypes.POINTER(ctypes.c_float)
_rows = ctypes.c_void_p
_seq, _pos, _n = ctypes.c_int32, ctypes.c_int32, ctypes.c_int32

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "specee_abi_version": (ctypes.c_int32, []),
    "specee_build_info": (ctypes.c_char_p, []),
    "specee_last_error": (ctypes.c_char_p, []),
    "specee_model_supported": (ctypes.c_int32, [ctypes.c_void_p]),
    "specee_rows_init": (_rows, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32]),
    "specee_rows_free": (None, [_rows]),
    "specee_rows_prefill": (ctypes.c_int32, [_rows, _seq, _pos, _n, _int32_p, ctypes.c_int32]),
    "specee_rows_advance": (ctypes.c_int32, [_rows, _seq, _n, _int32_p, _int32_p, ctypes.c_int32, ctypes.c_uint32]),
    "specee_rows_lens_head": (ctypes.c_int32, [_rows, _seq, _pos]),
    "specee_rows_logits": (_float_p, [_rows, ctypes.c_int32]),
    "specee_rows_depth": (ctypes.c_int32, [_rows, _seq, _pos]),
    "specee_rows_hidden": (_float_p, [_rows, _seq, _pos]),
    "specee_rows_roll_back": (ctypes.c_int32, [_rows, _seq, _pos]),
    "specee_rows_length": (ctypes.c_int32, [_rows, _seq]),
    "specee_rows_cancel": (None, [_rows]),
    "specee_rows_resume": (None, [_rows]),
    "specee_rows_threads": (ctypes.c_int32, [_rows]),
    "specee_rows_fix_threads": (None, [_rows, ctypes.c_int32]),
    "specee_rows_limit_single": (None, [_rows, ctypes.c_int32]),
    "specee_rows_stop_next": (ctypes.c_int32, [_rows]),
    "specee_thread_rule_init": (ctypes.c_void_p, [ctypes.c_int32, ctypes.c_int32]),
    "specee_thread_rule_decide": (
        ctypes.c_int32,
        [ctypes.c_void_p, ctypes.c_double, ctypes.c_double, ctypes.c_double],
    ),
    "specee_thread_rule_free": (None, [ctypes.c_void_p]),
    "specee_lens_set": (
        ctypes.c_int32,
        [_rows, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, _float_p],
    ),
    "specee_predictor_set": (
        ctypes.c_int32,
        [_rows, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32, _float_p, _float_p, _float_p, ctypes.c_float],
    ),
    "specee_rows_probe": (ctypes.c_int32, [_rows, _seq, _pos, ctypes.c_int32, _int32_p, _float_p, _float_p]),
    "specee_shortlist_set": (ctypes.c_int32, [_rows, ctypes.c_int32, _int32_p, ctypes.c_void_p]),
    "specee_rows_rise": (
        ctypes.c_int32,
        [
            _rows,
            _seq,
            ctypes.c_int32,
            ctypes.c_int32,
            _int32_p,
            ctypes.c_int32,
            _int32_p,
            ctypes.c_float,
            _float_p,
            _int32_p,
        ],
    ),
    "specee_draft_set": (
        ctypes.c_int32,
        [_rows, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, _int32_p, ctypes.c_void_p, _float_p],
    ),
    "specee_rows_draft": (ctypes.c_int32, [_rows, _seq, _pos, ctypes.c_int32, ctypes.c_int32, _int32_p]),
    "specee_embedding_rows": (ctypes.c_int32, [_rows, _n, _int32_p, _float_p]),
    "specee_head_rows": (ctypes.c_int32, [_rows, _n, _int32_p, _float_p]),
    "specee_rows_greedy": (ctypes.c_int32, [_rows, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, _int32_p]),
    "specee_rows_distribution": (
        ctypes.c_int32,
        [_rows, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, _int32_p, _float_p],
    ),
}


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Give the library's specee_* functions their types."""
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library

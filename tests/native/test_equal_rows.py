"""On another device each number of rows at once is tried; one that fails lowers how many there are.

The device is a worker on the loopback, and llama.cpp's callback changes logits of some batches there, as a device would
whose kernels depend on the number of rows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import tiny_gguf
from helpers import GPU_LAYERS
from workers import workers

from specee.native import abi, devices, library
from specee.native.context import GRAPH_CACHE_MAX, N_ROWS_MAX
from specee.native.engine import Model

pytestmark = pytest.mark.skipif(bool(GPU_LAYERS), reason="these choose their own device")

ALL = 99  # layers
UNEQUAL = "several of its tokens at once do not get the bits of single ones"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tiny_gguf.write(tmp_path_factory.mktemp("equal") / "tiny.gguf", "llama")
    with workers(1) as endpoints, closing(Model(path, gpu_layers=ALL, devices=devices.choose(endpoints))) as model:
        yield model


def proven(model: Model, changes: Callable[[int], bool], n_slots: int = 1) -> tuple[int, str, int]:
    """Level, its reason, and the rows at once, where `changes` says for each batch of n rows whether it gets others."""
    ggml, llama = library.loaded().handle, model.llama
    ggml.ggml_get_name.argtypes, ggml.ggml_get_name.restype = (ctypes.c_void_p,), ctypes.c_char_p
    ggml.ggml_nrows.argtypes, ggml.ggml_nrows.restype = (ctypes.c_void_p,), ctypes.c_int64
    ggml.ggml_backend_tensor_set.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
    ggml.ggml_backend_tensor_set.restype = None
    other = ctypes.c_float(1000)

    def changed(tensor: int, asks: bool, _: object) -> bool:
        if asks:
            return bool(ggml.ggml_get_name(tensor) == b"result_output")
        if changes(ggml.ggml_nrows(tensor)):
            ggml.ggml_backend_tensor_set(tensor, ctypes.byref(other), 0, ctypes.sizeof(other))
        return True

    params = llama.llama_context_default_params()
    params.n_ctx, params.n_seq_max, params.kv_unified = 256 * n_slots, n_slots, False
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type = 0
    params.cb_eval = llama.ggml_backend_sched_eval_callback(changed)
    context = llama.llama_init_from_model(model.handle, params)
    lib, path = model.lib, str(model.path).encode()
    rows = lib.specee_rows_init(context, path, N_ROWS_MAX, GRAPH_CACHE_MAX, -1, 0, None)
    assert rows, library.last_error()
    found = lib.specee_rows_level(rows), lib.specee_rows_limit(rows).decode(), lib.specee_rows_max_equal(rows)
    lib.specee_rows_free(rows)
    llama.llama_free(context)
    return found


def test_each_number_of_rows_is_tried(model: Model) -> None:
    tried: list[int] = []
    assert proven(model, lambda n: bool(tried.append(n))) == (abi.EXITS, "", 8)
    at_once = [n for n in tried if n > 1]
    assert [at_once.count(n) for n in range(2, 9)] == [1] * 6 + [3], "the most twice, and in ranges"


@pytest.mark.parametrize(
    ("which", "most"), [({8}, 7), ({5}, 4), ({3, 7}, 2), ({4, 5, 6, 7, 8}, 3)], ids=lambda which: str(which)
)
def test_a_number_that_fails_lowers_how_many_there_are(model: Model, which: set[int], most: int) -> None:
    assert proven(model, lambda n: n in which) == (abi.EXITS, "", most)


@pytest.mark.parametrize("which", [1, 2, 3], ids=["in the first trial", "in the second one", "in ranges"])
def test_one_trial_that_fails_is_enough(model: Model, which: int) -> None:
    seen = []

    def changes(n: int) -> bool:
        seen.extend([n] * (n == 8))
        return n == 8 and len(seen) == which

    assert proven(model, changes) == (abi.EXITS, "", 7)


def test_rows_of_several_slots_count(model: Model) -> None:
    """6 of one slot are equal, and 6 of two are not: after those of one come those of two."""
    seen = []

    def changes(n: int) -> bool:
        seen.extend([n] * (n == 6))
        return n == 6 and len(seen) == 2

    assert proven(model, changes, n_slots=2) == (abi.EXITS, "", 5)


def test_without_two_equal_rows_nothing_is_drafted(model: Model) -> None:
    assert proven(model, lambda n: n == 2) == (abi.DENSE, UNEQUAL, 1)

"""A llama.cpp context for some conversations, with the library's rows on top: opening, control, closing."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

from specee.native import abi, cpu, library, log, proof
from specee.native.errors import DeviceError, NativeError, UnusableModelError
from specee.native.model import Model

N_ROWS_MAX = 64  # rows in flight of a slot
GRAPH_CACHE_MAX = 64
NO_MEMORY = "out of memory"  # of src/error.h
NO_ROOM = ("failed to allocate compute", "no memory for the compute graph")  # of llama.cpp, of src/range_graphs.cpp
NO_NUMBERS = "the model gives no numbers: its file is damaged"  # of src/sampling.cpp
FLASH_ATTENTION_OFF, FLASH_ATTENTION_ON = 0, 1
KV_TYPES: dict[str, int] = {"f16": 1, "q8_0": 8}  # of ggml.h
NO_SUCH_CACHE = ("cache type", "quantized V cache")  # how llama.cpp's reasons name them


class Cancelled(Exception):  # noqa: N818 - a request that was met, not an error
    """`RowEngine.cancel` was called: nothing of the interrupted call counts."""


def cannot_start(what: str, window: str, to_do: str) -> NativeError:
    """Why llama.cpp gave no context for a model or a head; `window` and `to_do`: what memory was for, if there was none
    of it, and how to need less."""
    title, broken, reason = f"{what} cannot start", library.last_error(), log.reason()
    if broken:  # an assertion
        return UnusableModelError(title, f"its file contradicts itself: {broken}; take another one")
    if log.is_of_memory(reason):
        return NativeError(title, f"no memory for {window}{f' ({reason})' if reason else ''}; {to_do}")
    return UnusableModelError(title, f"llama.cpp refuses its file: {reason}; take another one")


class RowContext:
    """A context over a model, its KV cache for n_slots conversations of n_ctx tokens each.

    Flash attention where all layers are on a GPU: there it is faster, and rows at once keep their bits. On a CPU it is
    slower, and taken only for keys and values in q8_0: llama.cpp has no other one for such values, and of this type it
    computes each row alone. Raises NativeError when there is no memory for it, or the model cannot have `kv_type`.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int = 4096,
        n_slots: int = 1,
        n_threads: int | None = None,
        n_batch: int = 512,
        kv_type: str = "f16",
    ) -> None:
        self.model, self.slot, self.kv_type = model, 0, kv_type
        self.lib, llama = model.lib, model.llama
        self.n_layer, self.n_embd, self.n_vocab = model.n_layer, model.n_embd, model.n_vocab
        self.n_threads = n_threads or cpu.usable_cores()
        self._handle: int | None = None
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = n_ctx * n_slots, n_slots, False
        params.n_batch = params.n_ubatch = n_batch
        params.n_threads = params.n_threads_batch = self.n_threads
        params.type_k = params.type_v = KV_TYPES[kv_type]
        # on Vulkan bits would depend on the number of rows
        flash = (model.all_on_gpu and not model.on_vulkan) or kv_type != "f16"
        params.flash_attn_type = FLASH_ATTENTION_ON if flash else FLASH_ATTENTION_OFF
        params.swa_full = True  # a row's cell is its position, in layers with a sliding window too
        params.no_perf = True
        library.need_memory("the model's window")
        log.listen(llama)
        self._context: Any = llama.llama_init_from_model(model.handle, params)
        if not self._context:
            windows = f"a window of {n_ctx} tokens" if n_slots == 1 else f"{n_slots} windows of {n_ctx} tokens"
            reason = log.reason() or ""
            if kv_type != "f16" and any(words in reason for words in NO_SUCH_CACHE):
                raise NativeError(
                    f"no keys and values in {kv_type}", f"this model cannot have them: {reason}; take f16"
                )
            fewer = "" if n_slots == 1 else ", or fewer of them"
            error = cannot_start("The model", windows, f"try a smaller --ctx{fewer}")
            if model.devices and not isinstance(error, UnusableModelError):
                raise DeviceError(error.title, f"{error.message}, or fewer --gpu-layers")
            raise error
        self.n_ctx: int = min(n_ctx, llama.llama_n_ctx_seq(self._context))  # llama.cpp rounds up
        self.n_batch: int = llama.llama_n_batch(self._context)
        kinds = (params.flash_attn_type, n_slots > 1, *(() if kv_type == "f16" else (kv_type,)))
        self._prove((*model.computed_by, *kinds))

    def _prove(self, parameters: tuple[object, ...]) -> None:
        """What can be done with the model, or what an earlier start proved."""
        file = proof.verdict_file(self.model.path, parameters)
        known = None if self.model.on_workers else proof.read(file)  # another program may answer there next time
        level, n_rows, limit = (-1, 0, None) if known is None else (known.level, known.n_rows, known.limit.encode())
        began = time.monotonic()
        path = os.fsencode(self.model.path)
        self._handle = self.lib.specee_rows_init(self._context, path, N_ROWS_MAX, GRAPH_CACHE_MAX, level, n_rows, limit)
        if not self._handle:
            message = library.last_error()
            self.close()
            kind = NativeError if message == NO_MEMORY else UnusableModelError
            raise kind("The model cannot start", message)
        self.level: int = self.lib.specee_rows_level(self._handle)
        self.limit: str = self.lib.specee_rows_limit(self._handle).decode()
        # as many at once get the bits that each has alone
        self.max_equal_rows: int = self.lib.specee_rows_max_equal(self._handle)
        found = proof.Verdict(self.level, self.limit, self.max_equal_rows)
        if known is None and not self.model.on_workers and time.monotonic() - began > proof.LONG_S:
            proof.keep(file, found)
        last = proof.last_file(self.model.path)
        if self.model.gpu_layers == 0 and proof.read(last) != found:
            proof.keep(last, found)

    @property
    def no_drafts(self) -> str | None:
        """Why tokens cannot be drafted: several at once would get other bits, or cannot be dropped. None: they can."""
        return None if self.level >= abi.DRAFTS else self.limit

    @property
    def no_ranges(self) -> str | None:
        """Why rows run whole only; None where they run in ranges of layers, and their hidden states can be read."""
        return None if self.level >= abi.RANGES else self.limit

    @property
    def no_exits(self) -> str | None:
        """Why rows cannot exit; None where they can."""
        return None if self.level >= abi.EXITS else self.limit

    def _check(self, status: int) -> int:
        """The status where it is no error."""
        if status >= abi.OK:
            return status
        if status == abi.CANCELLED:
            raise Cancelled
        why = library.last_error()
        if why == NO_NUMBERS:
            raise UnusableModelError("damaged model", f"{self.model.path}: what it computes is no number; get it again")
        if self.model.devices and any(words in why for words in NO_ROOM):
            raise DeviceError("no memory on a device", f"{why}; take fewer --gpu-layers, or a smaller --ctx")
        raise NativeError("The window is full" if status == abi.NO_SPACE else "The engine refused a call", why)

    # ---- control

    @property
    def active_threads(self) -> int:
        """Threads that the next computation takes: fewer than `n_threads` while other processes keep cores busy."""
        return int(self.lib.specee_rows_threads(self._handle))

    def fix_threads(self, n: int) -> None:
        """Compute with exactly n threads from now on; 0: as the machine allows (for measurements and tests)."""
        self.lib.specee_rows_fix_threads(self._handle, n)

    def limit_single_row(self, n: int) -> None:
        """At most n threads for one row, whose time is that of reading memory; more rows at once take all."""
        self.lib.specee_rows_limit_single_row(self._handle, n)

    def transfers(self) -> dict[str, int]:
        """What crossed between the host and other devices so far: specee_transfers, for tests and benchmarks."""
        found = abi.Transfers()
        self._check(self.lib.specee_rows_transfers(self._handle, ctypes.byref(found)))
        return {name: getattr(found, name) for name, *_ in abi.Transfers._fields_}

    def cancel(self) -> None:
        """Stop a computation under way in another thread; later calls raise Cancelled too, until `resume`."""
        self.lib.specee_rows_cancel(self._handle)

    def resume(self) -> None:
        """Take back `cancel`."""
        self.lib.specee_rows_resume(self._handle)

    def close(self) -> None:
        """Free the rows and the context."""
        if self._handle:
            self.lib.specee_rows_free(self._handle)
            self._handle = None
        if self._context:
            self.model.llama.llama_free(self._context)
            self._context = None

"""Decodes with an unpatched llama-cpp-python, in a process of its own: the whole program of that process.

It runs in the other interpreter, where specee is not installed. JSON lines on standard input and output: it says what
llama_cpp it found, is told the model, and then answers prompts. It sleeps while it is not asked, and ends with the
process that started it.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path[:1] = []  # this folder: no file in it shall be imported by mistake

import ctypes
import json
import os
import queue
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TextIO

KV_TYPES = {"f16": 1, "q8_0": 8}  # of ggml.h


class Stock:
    """A model and its context, set up as ours are."""

    def __init__(self, llama: Any, job: dict[str, Any]) -> None:
        self._llama = llama
        self._job = job
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        params.n_gpu_layers = job["gpu_layers"]
        self._model = llama.llama_model_load_from_file(job["model"].encode(), params)
        if not self._model:
            raise RuntimeError("it cannot load the model")
        self._vocab = llama.llama_model_get_vocab(self._model)
        params = llama.llama_context_default_params()
        params.n_ctx = job["n_ctx"]
        params.n_batch = params.n_ubatch = job["n_batch"]
        params.n_threads = params.n_threads_batch = job["threads"]
        params.type_k = params.type_v = KV_TYPES[job["kv_type"]]
        params.flash_attn_type = int(job["kv_type"] != "f16")  # off as llama-cpp-python has it; other types need it
        params.no_perf = True
        self._context = llama.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError("it has no memory for the context window")
        self._token = (ctypes.c_int32 * 1)()

    def answer(self, prompt: list[int], max_tokens: int) -> dict[str, Any]:
        """Tokens, the stop token too, and the seconds from the first one to each."""
        llama, job = self._llama, self._job
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        sampler = self._sampler(prompt)
        for at in range(0, len(prompt), job["n_batch"]):
            chunk = prompt[at : at + job["n_batch"]]
            self._decode((ctypes.c_int32 * len(chunk))(*chunk), len(chunk))
        tokens: list[int] = []
        times: list[float] = []
        while True:
            token = int(llama.llama_sampler_sample(sampler, self._context, -1))
            times.append(time.perf_counter())
            tokens.append(token)
            if len(tokens) >= max_tokens or llama.llama_vocab_is_eog(self._vocab, token):
                break
            self._token[0] = token
            self._decode(self._token, 1)
        llama.llama_sampler_free(sampler)
        return {"tokens": tokens, "times": [at - times[0] for at in times]}

    def _decode(self, tokens: Any, n: int) -> None:
        if self._llama.llama_decode(self._context, self._llama.llama_batch_get_one(tokens, n)) != 0:
            raise RuntimeError("it cannot decode")

    def _sampler(self, prompt: list[int]) -> Any:
        """llama.cpp's samplers, in the order in which ours are."""
        llama, job = self._llama, self._job
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        if job["repeat_penalty"] != 1.0 and job["repeat_last_n"] > 0:
            last_n = job["repeat_last_n"]
            n_vocab = llama.llama_vocab_n_tokens(self._vocab)
            penalties = llama.llama_sampler_init_penalties(n_vocab, last_n, job["repeat_penalty"], 0.0, 0.0)
            llama.llama_sampler_chain_add(chain, penalties)
            counted = [token for token in prompt if not llama.llama_vocab_is_eog(self._vocab, token)]  # as ours does
            for token in counted[-last_n:]:
                llama.llama_sampler_accept(chain, token)
        if job["temperature"] <= 0:
            llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_greedy())
            return chain
        if job["top_k"] > 0:
            llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_top_k(job["top_k"]))
        if job["top_p"] < 1.0:
            llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_top_p(job["top_p"], 1))
        if job["min_p"] > 0.0:
            llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_min_p(job["min_p"], 1))
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_temp(job["temperature"]))
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_dist(job["seed"]))
        return chain


def find_library() -> tuple[Any, dict[str, Any]]:
    """The bindings, and what to say of them; None where there are none that work."""
    try:
        installed = version("llama-cpp-python")
    except PackageNotFoundError:
        return None, {"error": "not installed"}
    if installed.endswith("+specee"):  # without a library: it uses the one that we build
        return None, {"version": installed, "patched": True}
    try:
        import llama_cpp
    except Exception as error:
        return None, {"error": f"{type(error).__name__}: {error}"}
    library = getattr(llama_cpp.llama_cpp, "_lib", None)
    return llama_cpp, {"version": llama_cpp.__version__, "patched": hasattr(library, "specee_abi_version")}


def _exit_at_the_end(stream: TextIO, lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    os._exit(0)  # whoever asked has gone


def main() -> None:
    """Entry point of the process."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever the library prints

    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    llama, found = find_library()
    say(found)
    if llama is None:
        return
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_exit_at_the_end, args=(sys.stdin, lines), daemon=True).start()
    try:
        stock = Stock(llama, json.loads(lines.get()))
        say({})
        while True:
            asked = json.loads(lines.get())
            say(stock.answer(asked["prompt"], asked["max_tokens"]))
    except Exception as error:
        say({"error": str(error)})


if __name__ == "__main__":
    main()

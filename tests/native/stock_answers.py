"""Greedy answers of an unpatched llama-cpp-python: a program for its interpreter, where specee is not installed.

`PYTHON tests/native/stock_answers.py PROMPT N FILE...`: the prompt's tokens with commas between them, and how many are
to be generated. It prints each file's name, then a JSON line with the tokens and a digest of the logits that each was
chosen from.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
from typing import Any

N_CTX, N_BATCH = 512, 512  # as in arch_checks.py


def answer(llama: Any, model: Any, prompt: list[int], n: int) -> dict[str, Any]:
    params = llama.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = N_CTX, N_BATCH, N_BATCH
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type = 0
    context = llama.llama_init_from_model(model, params)
    n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    tokens: list[int] = []
    digests: list[str] = []
    batch = prompt
    for _ in range(n):
        array = (ctypes.c_int32 * len(batch))(*batch)
        if llama.llama_decode(context, llama.llama_batch_get_one(array, len(batch))) != 0:
            raise RuntimeError("llama_decode failed")
        logits = llama.llama_get_logits_ith(context, -1)[:n_vocab]
        digests.append(hashlib.blake2b(bytes((ctypes.c_float * n_vocab)(*logits)), digest_size=8).hexdigest())
        tokens.append(max(range(n_vocab), key=logits.__getitem__))
        batch = tokens[-1:]
    llama.llama_free(context)
    return {"tokens": tokens, "digests": digests}


def main() -> None:
    import llama_cpp.llama_cpp as llama

    llama.llama_backend_init()
    prompt, n = [int(token) for token in sys.argv[1].split(",")], int(sys.argv[2])
    for path in sys.argv[3:]:
        print(path, flush=True)
        params = llama.llama_model_default_params()
        params.n_gpu_layers = 0
        model = llama.llama_model_load_from_file(path.encode(), params)
        print(json.dumps(answer(llama, model, prompt, n)), flush=True)
        llama.llama_model_free(model)


if __name__ == "__main__":
    main()

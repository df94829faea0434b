"""Greedy text through our rows equals the text of llama-cpp-python's own `Llama`, on the embedded model."""

from __future__ import annotations

import llama_cpp
import numpy as np
import pytest

from specee.models import embedded
from specee.native.engine import Model, RowEngine, Sampler

PROMPTS = (
    "Why is the sky blue?",
    "Write a limerick about a lighthouse keeper who is afraid of the dark.",
    "List four uses of baking soda and say in one sentence each why it works.",
)
N_TOKENS = 48


def test_dense_equals_stock() -> None:
    path = embedded.path()
    if path is None:
        pytest.skip("built without the embedded model")
    stock = llama_cpp.Llama(str(path), n_ctx=1024, verbose=False)
    model = Model(path)
    engine = RowEngine(model, n_ctx=1024)
    greedy = Sampler(model)
    for text in PROMPTS:
        prompt = model.tokenize(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")
        stock.reset()
        generated = stock.generate(prompt, temp=0.0, repeat_penalty=1.0)
        theirs = [int(next(generated)) for _ in range(N_TOKENS)]
        engine.prefill(prompt)
        ours = []
        for _ in range(N_TOKENS):
            ours.append(engine.greedy(0, greedy))
            cuts = [
                *sorted(np.random.default_rng(len(ours)).choice(np.arange(1, 30), 3, replace=False)),
                engine.n_layer,
            ]
            row = engine.append(ours[-1])
            for end in cuts:
                engine.advance([row], int(end), logits=end == engine.n_layer)
            engine.commit(row)
        assert ours == theirs, text
    engine.close()
    model.close()
    stock.close()

"""The policies with layers on another device than the CPU: .ci/vulkan sets SPECEE_TEST_GPU_LAYERS and runs this.

Tolerance: none between policies on one device. Between devices a text may be another one after a near tie: two tokens
whose logits differ by less than devices round.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import decoded
import pytest

from specee.app.engine.loading import open_backend
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import Message
from specee.app.options import LoadOptions, PolicyChoice
from specee.models import embedded
from specee.predictors.cost_model import CostModel

GPU_LAYERS = int(os.environ.get("SPECEE_TEST_GPU_LAYERS", "0"))
QUESTION = "Repeat this line three times: the cat sat on the mat."
N_TOKENS = 20
NEAR = 0.02  # of the largest logit
FREE = {1: 1.0, 8: 1.01}  # rows cost nothing: many are drafted
LOSSLESS = [
    PolicyChoice("chain", draft_length=3),
    PolicyChoice("tree"),
    PolicyChoice("exact", threshold=0.2),
    PolicyChoice("exact", threshold=0.2, draft_length=3),
    PolicyChoice("pipelined"),
]
SOME = [choice for choice in LOSSLESS if choice.draft_length or choice.name == "pipelined"]


def opened(gpu_layers: int, data: Path) -> Any:
    load = LoadOptions(n_ctx=512, data_dir=str(data), gpu_layers=gpu_layers)
    return closing(open_backend(load, lambda what, share: None))


def run(backend: Any, choice: PolicyChoice) -> tuple[list[int], Any]:
    policy = backend.policy(choice, CostModel(FREE) if choice.drafts else None)
    return decoded.go_on(backend, policy, QUESTION, n_tokens=N_TOKENS)


@pytest.mark.skipif(not GPU_LAYERS, reason="no layers on another device")
@pytest.mark.skipif(embedded.path() is None, reason="built without the embedded model")
@pytest.mark.parametrize(("gpu_layers", "choices"), [(99, LOSSLESS), (15, SOME)], ids=["all layers", "half of them"])
def test_policies_generate_the_tokens_of_dense(tmp_path: Path, gpu_layers: int, choices: list[PolicyChoice]) -> None:
    with opened(gpu_layers, tmp_path) as backend:
        assert backend.info.gpu_layers
        dense, _ = run(backend, PolicyChoice("dense"))
        if backend.engine.no_drafts is not None:  # rows get other bits there: it says so, and nothing is drafted
            assert "do not get the bits of single ones" in backend.engine.no_drafts
            assert backend.engine.max_equal_rows == 1
        else:
            accepted = exits = 0
            for choice in choices:
                tokens, stats = run(backend, choice)
                assert tokens == dense, choice.label
                accepted, exits = accepted + stats.accepted, exits + stats.exits
            assert accepted and exits
            tokens, stats = run(backend, PolicyChoice("specee", threshold=0.2))
            assert tokens and stats.tokens == len(tokens)  # lossy
    with opened(0, tmp_path) as backend:
        on_cpu, _ = run(backend, PolicyChoice("dense"))
        n = next((i for i, pair in enumerate(zip(on_cpu, dense, strict=True)) if pair[0] != pair[1]), None)
        if n is not None:
            engine = backend.engine
            engine.prefill([*make_prompt(backend, (Message("user", QUESTION),)).tokens, *on_cpu[:n]])
            logits = engine.logits(0)
            assert logits[on_cpu[n]] - logits[dense[n]] < NEAR * abs(logits).max()

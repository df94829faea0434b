"""Another device beside the CPU computes what the CPU does, whole or with only the first layers on it.

Run where SPECEE_TEST_GPU_LAYERS is set, as by .ci/vulkan; what several rows, ranges and slots give there is tested by
the other files. Tolerance, of a vector's length: each back end adds in an order of its own (NEAR, with weights in F32;
measured on Mesa's software device: 0.006); and the CPU rounds what it multiplies with quantized weights to 8 bits,
which others need not (ROUGH; measured: 0.07, as random weights carry it far).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tiny_gguf
from helpers import GPU_LAYERS, random_tokens

from specee.native.engine import Cancelled, Model, RowEngine

NEAR, ROUGH = 0.01, 0.1
pytestmark = pytest.mark.skipif(not GPU_LAYERS, reason="no layers on another device")
N_PROMPT = 12


@pytest.fixture(scope="module", params=["floats", "quantized"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("device") / f"{request.param}.gguf"
    quantize = ("Q8_0", tiny_gguf.quantize_q8) if request.param == "quantized" else None
    return tiny_gguf.write(to, "llama", width=4, quantize=quantize)


def opened(path: Path, gpu_layers: int) -> Iterator[RowEngine]:
    with closing(Model(path, gpu_layers=gpu_layers)) as model:
        assert model.gpu_layers == gpu_layers, "the library has no such device"
        with closing(RowEngine(model, n_ctx=256, n_threads=2)) as engine:
            yield engine


@pytest.fixture(scope="module")
def on_cpu(path: Path) -> Iterator[RowEngine]:
    yield from opened(path, 0)


@pytest.fixture(scope="module", params=["all", "half"])
def on_device(request: pytest.FixtureRequest, on_cpu: RowEngine, path: Path) -> Iterator[RowEngine]:
    n = on_cpu.n_layer
    yield from opened(path, n + 1 if request.param == "all" else n // 2)


def test_logits_and_states_are_those_of_the_cpu(on_cpu: RowEngine, on_device: RowEngine) -> None:
    prompt, answer = random_tokens(on_cpu, N_PROMPT), random_tokens(on_cpu, 2, seed=2)
    found = []
    for engine in (on_cpu, on_device):
        engine.roll_back(0)
        engine.prefill(prompt)
        values = [engine.logits(0), engine.hidden(engine.tip)]
        for token in answer:
            row = engine.append(token)
            for end in (engine.n_layer // 2, engine.n_layer - 1, engine.n_layer):  # on both sides of the border
                engine.advance([row], end, logits=end == engine.n_layer)
                values.append(engine.hidden(row))
            engine.commit(row)
            values.append(engine.logits(0))
        found.append(values)
    worst = max(float(np.linalg.norm(a - b) / np.linalg.norm(a)) for a, b in zip(*found, strict=True))
    print(f"{on_cpu.model.path.name}: {worst:.6f} from the CPU")
    assert worst < (NEAR if on_cpu.model.path.name == "floats.gguf" else ROUGH)
    if on_cpu.model.path.name != "floats.gguf":  # its rows get no equal bits
        assert on_device.no_exits is None and on_device.max_equal_rows == on_cpu.max_equal_rows


def test_a_cancelled_call_leaves_no_trace(on_device: RowEngine) -> None:
    engine = on_device
    prompt = random_tokens(engine, N_PROMPT, seed=3)
    engine.roll_back(0)
    engine.prefill(prompt)
    expected = engine.logits(0)
    engine.roll_back(0)
    timer = threading.Timer(0.01, engine.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        while True:
            engine.prefill(prompt)
            engine.roll_back(0)
    timer.join()
    engine.resume()
    assert engine.n_in_flight == 0
    engine.prefill(prompt)
    assert np.array_equal(engine.logits(0), expected)

"""Layers on another device: what crosses to the host and back, and that states there are those of a row's own depth.

The device is a worker of llama.cpp's RPC back end on the loopback, which computes with the same CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tiny_eagle
import tiny_gguf
from helpers import GPU_LAYERS, append_all, random_tokens
from rpc_worker import worker
from test_probe import K, Twin

from specee.native import devices
from specee.native.eagle_head import EagleHead
from specee.native.engine import Cancelled, Floats, Model, RowEngine
from specee.native.layer_states import LayerStatesEngine

LAYERS = (1, 3, 5)  # that an EAGLE-3 head reads
PROMPT = list(range(3, 15))
MASK = 256 * 4  # bytes of a row's mask: cells are padded to 256
BEYOND = 2.0  # no score is
INPUTS = 5  # that every step has: embeddings, positions, places of K and V, mask

pytestmark = pytest.mark.skipif(bool(GPU_LAYERS), reason="these choose their own device")


@pytest.fixture(scope="module")
def device() -> Iterator[devices.Device]:
    with worker() as endpoint:
        yield devices.of_worker(endpoint)[0]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "llama")


@pytest.fixture(scope="module", params=[99, 4], ids=["all layers", "the first four"])
def opened(request: pytest.FixtureRequest, path: Path, device: devices.Device) -> Iterator[LayerStatesEngine]:
    with (
        closing(Model(path, gpu_layers=request.param, devices=[device])) as model,
        closing(LayerStatesEngine(model, LAYERS, n_ctx=256, n_threads=2)) as engine,
    ):
        assert engine.no_exits is None
        yield engine


@pytest.fixture
def engine(opened: LayerStatesEngine) -> Iterator[LayerStatesEngine]:
    opened.resume()
    opened.roll_back(0)
    opened.prefill(PROMPT)
    yield opened
    opened.resume()


def crossed(engine: RowEngine, run: Callable[[], object]) -> dict[str, int]:
    """What crosses when this runs for the second time: graphs are built in the first."""
    run()
    before = engine.transfers()
    run()
    return {name: n - before[name] for name, n in engine.transfers().items()}

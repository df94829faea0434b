"""The models that the runtime's tests run on: the embedded one, and tiny random ones of several architectures.

With SPECEE_TEST_GPU_LAYERS that many of their layers are on the GPU of the library that is tested. There rows keep
their bits where weights are quantized and heads are 64 wide or more: the tiny models are wider, in Q8_0. With
SPECEE_TEST_WORKERS they are on so many workers instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from workers import workers

from specee.models import embedded
from specee.native import devices, library
from specee.native.engine import Model, RowEngine, Sampler

library.load()  # before the bindings are imported
import llama_cpp  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))

import tiny_archs  # noqa: E402
import tiny_gguf  # noqa: E402
from helpers import GPU_LAYERS, N_WORKERS  # noqa: E402

# hundreds of lines a model, into the report of every failed test
_quiet = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(_quiet, None)

OTHERS = ("gemma2", "gpt-oss", "bloom")
"""Sliding windows, caps and scales; experts and sinks; ALiBi, LayerNorm and biases: see tiny_archs.py."""
MODELS = [*tiny_gguf.ARCHITECTURES, *OTHERS, "embedded"]


@pytest.fixture(scope="session")
def model_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "embedded":
        path = embedded.path()
        if path is None:
            pytest.skip("built without the embedded model")
        return path
    path = tmp_path_factory.mktemp("tiny") / f"{request.param}.gguf"
    if request.param in OTHERS:
        if GPU_LAYERS:
            pytest.skip("its weights are not quantized")
        return tiny_archs.write(path, request.param)
    if GPU_LAYERS:
        return tiny_gguf.write(path, request.param, width=4, quantize=("Q8_0", tiny_gguf.quantize_q8))
    return tiny_gguf.write(path, request.param)


@pytest.fixture(scope="session")
def model(model_path: Path) -> Iterator[Model]:
    with workers(N_WORKERS) as endpoints:
        model = Model(model_path, gpu_layers=GPU_LAYERS, devices=devices.choose(endpoints) if endpoints else ())
        yield model
        model.close()


@pytest.fixture(scope="session")
def shared_engine(model: Model) -> Iterator[RowEngine]:
    engine = RowEngine(model, n_ctx=512, n_threads=2)
    yield engine
    engine.close()


@pytest.fixture
def engine(shared_engine: RowEngine) -> Iterator[RowEngine]:
    """An empty engine, its graphs kept between tests."""
    shared_engine.roll_back(0)
    yield shared_engine
    shared_engine.resume()
    shared_engine.roll_back(0)


@pytest.fixture(scope="session")
def greedy(model: Model) -> Iterator[Sampler]:
    sampler = Sampler(model)
    yield sampler
    sampler.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "model_path" in metafunc.fixturenames:
        metafunc.parametrize("model_path", MODELS, indirect=True, scope="session")

"""The host gets the greatest logits of a row on a worker, and chooses as if it had all of them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import changed_gguf
import numpy as np
import pytest
import tiny_gguf
from helpers import GPU_LAYERS, append_all
from workers import workers

from specee.native import devices
from specee.native.engine import Model, RowEngine, Sampler
from specee.native.errors import NativeError

N_VOCAB = 600
N_SELECTED = 128
N_DIFFERENT = 3  # logits of a model in which many tokens have the same one
ROW = 2 * N_SELECTED + 1  # numbers
PROMPT = list(range(3, 15))
ROOT = 'root ::= "!" | "#"'
NOWHERE = -1
EVERYWHERE = 1
SAMPLERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "penalty": {"repeat_penalty": 1.3},
    "top-k": {"temperature": 0.8, "top_k": 40, "repeat_penalty": 1.1},
    "top-k 1": {"temperature": 0.8, "top_k": 1},
    "top-p": {"temperature": 0.8, "top_p": 0.9},
    "beyond the selection": {"temperature": 0.8, "top_k": N_SELECTED},
    "bias": {"logit_bias": ((7, 100.0),)},
    "grammar": {"grammar": ROOT},
}
OF_SELECTED = ("plain", "penalty", "top-k", "top-k 1")


@pytest.fixture(scope="module")
def device() -> Iterator[list[devices.Device]]:
    """A worker, or the GPU of this build."""
    if GPU_LAYERS:
        yield []
        return
    with workers(1) as endpoints:
        yield devices.choose(endpoints)


@pytest.fixture(scope="module", params=["different logits", "equal logits"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, device: list[devices.Device]
) -> Iterator[RowEngine]:
    path = tiny_gguf.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "llama", n_vocab=N_VOCAB)
    if request.param == "equal logits":

        def few(name: str, data: np.ndarray[Any, Any], kind: Any) -> tuple[str, np.ndarray[Any, Any], Any]:
            rows = np.arange(N_VOCAB) % N_DIFFERENT
            return name, data[rows] if name == "output.weight" else data, kind

        path = changed_gguf.write(path, path.with_name("equal.gguf"), {}, few)
    with (
        closing(Model(path, gpu_layers=99, devices=device)) as model,
        closing(RowEngine(model, n_ctx=256, n_threads=1)) as engine,
    ):
        engine.prefill(PROMPT)
        yield engine


def is_tied(request: pytest.FixtureRequest) -> bool:
    return "equal" in request.node.name


def select(engine: RowEngine, which: int) -> None:
    assert engine.lib.specee_rows_select_on_devices(engine._handle, which) == 0


def choose(engine: RowEngine, sampler: Sampler, n: int = 1) -> list[Any]:
    """What is chosen in each of n rows after the prompt."""
    rows = append_all(engine, list(range(20, 20 + n)))
    engine.advance(rows, engine.n_layer, logits=True)
    if sampler.is_greedy:
        found: list[Any] = [engine.greedy(i, sampler) for i in range(n)]
    else:
        found = [[part.tolist() for part in engine.distribution(i, sampler)] for i in range(n)]
    engine.roll_back(len(PROMPT))
    return found


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_chosen_is_that_of_whole_rows(engine: RowEngine, name: str) -> None:
    """Tokens and probabilities, bit for bit; where logits are equal, the first tokens."""
    with closing(Sampler(engine.model, **SAMPLERS[name])) as sampler:
        sampler.rewind(PROMPT)
        found = {}
        for which in (NOWHERE, EVERYWHERE):
            select(engine, which)
            found[which] = [choose(engine, sampler, 4) for _ in range(2)]  # the second time as the first one taught
    assert found[EVERYWHERE] == found[NOWHERE]


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_crosses(engine: RowEngine, name: str, request: pytest.FixtureRequest) -> None:
    """Two numbers for each selected logit, with one wait; and whole rows, with the same wait, where they are needed."""
    n = 4
    with closing(Sampler(engine.model, **SAMPLERS[name])) as sampler:
        select(engine, EVERYWHERE)
        choose(engine, sampler, n)
        before = engine.transfers()
        choose(engine, sampler, n)
    crossed = {what: number - before[what] for what, number in engine.transfers().items()}
    needs_all = is_tied(request) or name not in OF_SELECTED
    assert crossed["n_waits"] == 1
    assert crossed["n_to_host"] == 1 + needs_all
    assert crossed["bytes_to_host"] == 4 * n * (ROW + N_VOCAB * needs_all)


def test_a_whole_row_can_be_asked_for_at_any_time(engine: RowEngine) -> None:
    with closing(Sampler(engine.model)) as sampler:
        select(engine, EVERYWHERE)
        choose(engine, sampler)
        (row,) = append_all(engine, [20])
        engine.advance([row], engine.n_layer, logits=True)
        best, logits = engine.greedy(0, sampler), engine.logits(0)
        engine.roll_back(len(PROMPT))
    assert best == logits.argmax() and logits.shape == (N_VOCAB,)


@contextmanager
def slow_line(endpoint: str) -> Iterator[str]:
    """A network of some 50 MB/s to a worker: what it answers waits on the way."""

    def carry(source: socket.socket, target: socket.socket, seconds: float) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                time.sleep(seconds * len(data))
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                near = listener.accept()[0]
                far = socket.create_connection((host, int(port)))
                ends.extend((near, far))
                for source, target, seconds in ((near, far, 0.0), (far, near, 1 / 50e6)):
                    threading.Thread(target=carry, args=(source, target, seconds), daemon=True).start()

    host, port = endpoint.split(":")
    ends: list[socket.socket] = []
    with socket.create_server((host, 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"{host}:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    for end in ends:
        end.close()


@pytest.mark.skipif(bool(GPU_LAYERS), reason="of a worker")
def test_a_device_behind_a_slow_line_selects(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama", n_vocab=N_VOCAB)
    with ExitStack() as stack:
        endpoint = stack.enter_context(slow_line(stack.enter_context(workers(1))[0]))
        model = stack.enter_context(closing(Model(path, gpu_layers=99, devices=devices.choose([endpoint]))))
        engine = stack.enter_context(closing(RowEngine(model, n_ctx=256, n_threads=1)))
        sampler = stack.enter_context(closing(Sampler(model)))
        engine.prefill(PROMPT)
        choose(engine, sampler)
        before = engine.transfers()["bytes_to_host"]
        choose(engine, sampler)
        assert engine.transfers()["bytes_to_host"] - before == 4 * ROW


def test_logits_that_are_no_numbers_are_told(tmp_path: Path, device: list[devices.Device]) -> None:
    path = tiny_gguf.write(tmp_path / "tiny.gguf", "llama", n_vocab=N_VOCAB)
    broken = changed_gguf.write(path, tmp_path / "broken.gguf", {}, changed_gguf.filled("output_norm.weight", np.nan))
    with (
        closing(Model(broken, gpu_layers=99, devices=device)) as model,
        closing(RowEngine(model, n_ctx=256, n_threads=1)) as engine,
        closing(Sampler(model)) as greedy,
        closing(Sampler(model, temperature=1.0, top_k=40)) as sampled,
    ):
        engine.prefill(PROMPT)
        select(engine, EVERYWHERE)
        for sampler in (greedy, sampled):
            with pytest.raises(NativeError, match="damaged model"):
                choose(engine, sampler)
            engine.roll_back(len(PROMPT))

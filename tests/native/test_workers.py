"""Layers on workers, over the loopback: the same bits as on this CPU, wherever the layers are cut.

A worker is a process of our own library. Weights have no layouts of their own there (columns, AMX, repacked). These
models have none that adds in another order on a CPU without AMX, so the bits are the same. Tolerance: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tiny_archs
import tiny_gguf
from helpers import GPU_LAYERS, append_all, random_tokens
from workers import workers

from specee.models import embedded
from specee.native import abi, devices, library
from specee.native.devices import Device
from specee.native.engine import Cancelled, Model, RowEngine, Sampler, advance_together

pytestmark = pytest.mark.skipif(bool(GPU_LAYERS), reason="what is compared is a CPU")

MODELS = ("llama", "gemma2", "embedded")
N_SLOTS, N_CTX = 2, 256


@pytest.fixture(scope="module")
def found() -> Iterator[list[Device]]:
    """The devices of two workers."""
    with workers(2) as endpoints:
        yield devices.choose(endpoints)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    folder = tmp_path_factory.mktemp("tiny")
    return {
        "llama": tiny_gguf.write(folder / "llama.gguf", "llama"),
        "gemma2": tiny_archs.write(folder / "gemma2.gguf", "gemma2"),
        "embedded": embedded.path(),
    }


def play(engine: RowEngine) -> list[bytes]:
    """The logits, and some hidden states, of all that rows do: a prompt, single rows, drafts that are rejected, exits
    whose layers run later, a tree, two slots in one pass, what comes after a cancelled call."""
    heard: list[bytes] = []
    first, second = engine.slots
    n_layer, half = engine.n_layer, engine.n_layer // 2

    def hear(slot: RowEngine, n: int = 1) -> None:
        heard.extend(slot.logits(i).tobytes() for i in range(n))

    first.prefill(random_tokens(engine, 40))
    hear(first)
    for token in random_tokens(engine, 2, seed=2):
        first.forward(token)
        hear(first)
    drafts = append_all(first, random_tokens(engine, 4, seed=3))
    first.advance(drafts, n_layer, logits=True)
    hear(first, 4)
    first.commit(drafts[1])
    rows = append_all(first, random_tokens(engine, 3, seed=4))
    for row, exit_layer in zip(rows, (half + 1, half, 1), strict=True):  # of both devices
        first.advance([row], exit_layer)
        heard.append(first.hidden(row).tobytes())
    first.complete(logits=True)
    hear(first, 3)
    first.roll_back(41)
    first.forward(7)
    hear(first)
    trunk = first.append(8)
    leaves = [first.append(token, trunk) for token in (9, 10)]
    first.advance([trunk, *leaves], n_layer, logits=True)
    hear(first, 2)  # the principal chain: side rows may have other last bits
    first.roll_back(first.length)
    second.prefill(random_tokens(engine, 11, seed=5))
    pair = [first.append(11), second.append(12)]
    advance_together([(first, pair[:1]), (second, pair[1:])], half)
    advance_together([(first, pair[:1]), (second, pair[1:])], n_layer, logits=True)
    hear(first)
    hear(second)
    for slot, row in zip(engine.slots, pair, strict=True):
        slot.commit(row)
    first.cancel()
    with pytest.raises(Cancelled):
        first.forward(13)
    first.resume()
    first.roll_back(first.length)
    first.forward(13)
    hear(first)
    return heard


def placements(name: str, n_layer: int) -> list[tuple[int, int]]:
    """How many layers are on how many workers."""
    some = [(n_layer + 1, 2), (n_layer // 2, 1)]
    return some if name == "embedded" else [*some, (n_layer + 1, 1), (n_layer // 2, 2)]


@pytest.mark.parametrize("name", MODELS)
def test_the_bits_are_those_of_the_cpu(name: str, paths: dict[str, Path | None], found: list[Device]) -> None:
    path = paths[name]
    if path is None:
        pytest.skip("built without the embedded model")
    if name == "embedded" and "AMX" in library.cpu_buffers():
        pytest.skip("AMX adds in another order, and a worker has none")
    with closing(Model(path)) as model, closing(RowEngine(model, n_ctx=N_CTX, n_slots=N_SLOTS, n_threads=1)) as engine:
        n_layer, level, expected = model.n_layer, engine.level, play(engine)
        assert model.places == ("CPU",) * (n_layer + 1) and level == abi.EXITS
    for n, n_devices in placements(name, n_layer):
        with (
            closing(Model(path, gpu_layers=n, devices=found[:n_devices], tensor_split=[1] * n_devices)) as model,
            closing(RowEngine(model, n_ctx=N_CTX, n_slots=N_SLOTS, n_threads=1)) as engine,
        ):
            assert len(set(model.places[:n])) == n_devices and set(model.places[n:]) <= {"CPU"}
            assert (engine.level, engine.limit) == (level, ""), "drafts and exits are proven there too"
            assert play(engine) == expected, (n, n_devices)


def test_lens_and_probe_are_those_of_the_cpu(paths: dict[str, Path | None], found: list[Device]) -> None:
    path = paths["llama"]
    assert path is not None
    heard = []
    for n in (0, tiny_gguf.N_LAYER // 2, tiny_gguf.N_LAYER + 1):
        with (
            closing(Model(path, gpu_layers=n, devices=found if n else ())) as model,
            closing(RowEngine(model, n_ctx=N_CTX, n_threads=1)) as engine,
            closing(Sampler(model)) as greedy,
        ):
            width = engine.n_embd
            weights = np.random.default_rng(1).integers(0, 40, (width, width // 32 * 34)).astype(np.uint8)
            layers = [1, engine.n_layer - 2]
            for layer in layers:
                engine.set_lens(layer, weights, None, np.ones(width, np.float32))
            engine.prefill(random_tokens(engine, 9))
            row = engine.append(engine.greedy(0, greedy))
            for layer in layers:
                engine.advance([row], layer)
                engine.lens_head(row)
                heard.append((layer, engine.logits(0).tobytes()))
    assert heard[:2] == heard[2:4] == heard[4:]


def test_graphs_are_kept_while_others_are_given_up(paths: dict[str, Path | None], found: list[Device]) -> None:
    """A worker forgets the last graph when any buffer is freed; the client must not ask for it again."""
    path = paths["llama"]
    assert path is not None
    with (
        closing(Model(path, gpu_layers=tiny_gguf.N_LAYER + 1, devices=found)) as model,
        closing(RowEngine(model, n_ctx=N_CTX, n_threads=1)) as engine,
    ):
        other = RowEngine(model, n_ctx=N_CTX, n_threads=1)
        engine.prefill(random_tokens(engine, 9))
        engine.forward(5)
        expected = engine.logits(0).tobytes()
        engine.roll_back(9)
        other.close()
        engine.forward(5)
        assert engine.logits(0).tobytes() == expected

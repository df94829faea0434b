"""Layers on another device: what crosses between it and the host, and that rows are what they are on the CPU.

The device is a worker on the loopback, which computes on the CPU. Times and tensors are the same for every device, so
nobody needs a GPU to see that more crosses than before; of bytes only those of masks are fewer with flash attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_eagle
import tiny_gguf
from helpers import GPU_LAYERS, append_all
from test_probe import N_SHORT, K, Twin, final_norm, rms_normalised
from workers import workers

from specee.native import devices, library
from specee.native.abi import int32_p
from specee.native.eagle_head import EagleHead
from specee.native.engine import Cancelled, Model, RowEngine
from specee.native.layer_states import LayerStatesEngine

pytestmark = pytest.mark.skipif(bool(GPU_LAYERS), reason="these choose their own device")

PROMPT = list(range(3, 15))
BEYOND = 2.0  # no score is
EXITS = (1, 2, 4)
HEAD_LAYERS = (1, 3, 5)  # that the EAGLE-3 head reads
FLOAT = 4
TOLERANCE = 0.05  # of logits: other kernels
ALL, SOME = 99, 3  # of 6 layers; with the LM head, or not
BORDER = 4  # of two devices that share these equally


def crossed(engine: RowEngine, run: Callable[[], object]) -> dict[str, int]:
    """What crosses the second time: the first one builds graphs."""
    run()
    before = engine.transfers()
    run()
    return {name: n - before[name] for name, n in engine.transfers().items()}


class Rows:
    """New rows after the prompt, dropped again."""

    def __init__(self, engine: RowEngine) -> None:
        self.engine, self.length = engine, len(PROMPT)
        engine.prefill(PROMPT)

    def run(self, n: int, *stops: int) -> list[Any]:
        """The logits of n rows that stop at these layers."""
        rows = append_all(self.engine, list(range(20, 20 + n)))
        for end in (*stops, self.engine.n_layer):
            self.engine.advance(rows, end, logits=end == self.engine.n_layer)
        return self.drop([self.engine.logits(i) for i in range(n)])

    def drop(self, found: Any) -> Any:
        self.engine.roll_back(self.length)
        return found

    def probes(self, layers: list[int], candidates: Any, threshold: float = BEYOND) -> tuple[float, ...]:
        """The scores of a row that exits where one is above the threshold, or at the end."""
        row = self.engine.append(20)
        found = self.engine.run_to_exit(row, layers, len(candidates), candidates, threshold)
        if threshold < BEYOND:
            self.engine.lens_head(row)
        self.engine.complete(logits=True)
        return self.drop(found.scores)

    def probes_apart(self, layers: list[int], candidates: Any) -> tuple[float, ...]:
        """The same scores, of a row that is advanced, then probed."""
        row, scores = self.engine.append(20), []
        for layer in layers:
            self.engine.advance([row], layer)
            scores.append(self.engine.probe(row, candidates))
        return self.drop(tuple(scores))

    def states(self, stops: list[int], cancel: bool = False) -> list[Any]:
        """A row's hidden states where it stops; `cancel`: on the way to each of them for the first time."""
        row, found = self.engine.append(20), []
        for end in stops:
            if cancel:
                self.engine.cancel()
                with suppress(Cancelled):
                    self.engine.advance([row], end)
                self.engine.resume()
            self.engine.advance([row], end)
            found.append(self.engine.hidden(row))
        return self.drop(found)

    def drafts(self, lens: Twin, twin: Twin, layer: int) -> tuple[list[float], dict[str, int]]:
        """By how much the twin's scores of the guesses after a row at this depth miss the best; and what crosses."""
        engine, row = self.engine, self.engine.append(20)
        engine.advance([row], layer)
        guesses: list[int] = []
        numbers = crossed(engine, lambda: guesses.extend(engine.draft(row, 6, K).tolist()))
        state = engine.hidden(row)
        if layer < engine.n_layer:
            state = lens.lens(state)[1]
        x = np.concatenate([final_norm(engine, state), rms_normalised(engine.embedding_rows([6])[0])])
        logits = twin.short_up @ (twin.draft_down @ x) + twin.short_bias
        assert guesses[:K] == guesses[K:] and len(set(guesses)) == K
        best = np.sort(logits)[::-1][:K]
        found = logits[[list(twin.tokens).index(token) for token in guesses[:K]]]
        return self.drop((((found - best) / np.ptp(logits)).tolist(), numbers))

    def exit_logits(self, layer: int) -> Any:
        """Of a row that exits there."""
        row = self.engine.append(20)
        self.engine.advance([row], layer)
        self.engine.lens_head(row)
        return self.drop(self.engine.logits(0))


def measure(path: Path, layers: int, on: list[devices.Device]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with (
        closing(Model(path, gpu_layers=layers, devices=on)) as model,
        closing(RowEngine(model, n_ctx=256, n_threads=1)) as engine,
    ):
        found |= {"n_embd": engine.n_embd, "n_vocab": engine.n_vocab, "no_exits": engine.no_exits}
        rows, n = Rows(engine), engine.n_layer
        found["dense"] = crossed(engine, lambda: rows.run(1))
        found["four rows"] = crossed(engine, lambda: rows.run(4))
        found["three ranges"] = crossed(engine, lambda: rows.run(4, 1, 2))
        twins = [Twin(engine, layer, seed=layer) for layer in EXITS]
        stops = [twin.layer for twin in twins]
        candidates = twins[0].tokens[:K]
        found["three probes"] = crossed(engine, lambda: rows.probes(stops, candidates))
        found["three margins"] = crossed(engine, lambda: rows.probes(stops, candidates[:0]))
        found["exit at the first"] = crossed(engine, lambda: rows.probes(stops, candidates, -1.0))
        whole, cut = rows.run(4), rows.run(4, *range(1, n))
        found["equal logits"] = all(map(np.array_equal, whole, cut))
        states = [rows.states([end])[0] for end in range(1, n)]
        found["equal states"] = all(map(np.array_equal, states, rows.states(list(range(1, n)))))
        found["equal after a cancel"] = all(map(np.array_equal, states, rows.states(list(range(1, n)), cancel=True)))
        found["drafts"] = [(layer, *rows.drafts(twins[0], twins[-1], layer)) for layer in (n, twins[0].layer)]
        found["equal scores"] = rows.probes(stops, candidates) == rows.probes_apart(stops, candidates)
        found["scores"] = rows.probes(stops, candidates)
        found["exit logits"] = [rows.exit_logits(stop).tolist() for stop in stops]
    return found


def measure_head(path: Path, on: list[devices.Device]) -> dict[str, Any]:
    """The same of an EAGLE-3 head, on the device where all of the model is; without one on the CPU."""
    n_layers = ALL if on else 0
    file = tiny_eagle.write(path.with_name("head.gguf"), path, HEAD_LAYERS)
    with (
        closing(Model(path, gpu_layers=n_layers, devices=on)) as model,
        closing(LayerStatesEngine(model, HEAD_LAYERS, n_ctx=256, n_threads=1)) as engine,
        closing(Model(file, gpu_layers=n_layers, devices=on)) as drafter,
        closing(EagleHead(drafter, engine)) as head,
    ):
        rows, lib, handle = Rows(engine), head._lib, head._handle
        found: dict[str, Any] = {"dense with a head": crossed(engine, lambda: rows.run(1))}
        texts = np.array([*PROMPT[1:], 20], np.int32)
        lib.specee_eagle_head_read(handle, len(texts) - 1, int32_p(texts[:-1]), None)

        def read(*drafted: int) -> None:
            statuses = [lib.specee_eagle_head_read(handle, 1, int32_p(texts[-1:]), None)]
            statuses += [lib.specee_eagle_head_extend(handle, token) for token in drafted]
            statuses.append(lib.specee_eagle_head_roll_back(handle, len(texts) - 1))
            assert not any(statuses), library.last_error()

        lib.specee_eagle_head_read(handle, 1, int32_p(texts[-1:]), None)
        found["best"] = head.best()
        lib.specee_eagle_head_roll_back(handle, len(texts) - 1)
        found["a head reads"] = crossed(engine, read)
        found["a head reads and drafts"] = crossed(engine, lambda: read(30))
    return found


@pytest.fixture(scope="module", params=[ALL, SOME], ids=["all layers", "three of six"])
def layers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def two() -> Iterator[list[devices.Device]]:
    with workers(2) as endpoints:
        yield devices.choose(endpoints)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "llama")


@pytest.fixture(scope="module")
def found(path: Path, layers: int, two: list[devices.Device]) -> dict[str, Any]:
    heads = [measure_head(path, on) if layers == ALL else {} for on in (two[:1], [])]
    return {"device": measure(path, layers, two[:1]) | heads[0], "cpu": measure(path, 0, []) | heads[1]}


def to_host(found: dict[str, Any], what: str) -> tuple[int, int, int]:
    """Times that the host waits; what it gets, and how many numbers."""
    crossed = found["device"][what]
    return crossed["n_waits"], crossed["n_to_host"], crossed["bytes_to_host"] // FLOAT


def test_on_a_cpu_nothing_crosses(found: dict[str, Any]) -> None:
    crossed = [numbers for numbers in found["cpu"].values() if isinstance(numbers, dict)]
    assert len(crossed) > 4 and not any(n for numbers in crossed for n in numbers.values())


def test_what_the_host_gets_and_when_it_waits(found: dict[str, Any], layers: int) -> None:
    """One wait for each range that ends on the device: for logits, the estimate of a row that is probed, or nothing."""
    n_embd, n_vocab = found["device"]["n_embd"], found["device"]["n_vocab"]
    if layers == ALL:
        assert to_host(found, "dense") == (1, 1, n_vocab)
        assert to_host(found, "four rows") == (1, 1, 4 * n_vocab)
        assert to_host(found, "three ranges") == (3, 1, 4 * n_vocab)
        assert to_host(found, "three probes") == (1 + 3, 1 + 3, n_vocab + 3 * n_embd)
        assert to_host(found, "three margins") == (1 + 3, 1 + 3, n_vocab + 3 * N_SHORT)
        # the LM head through the lens, then the deferred layers
        assert to_host(found, "exit at the first") == (1 + 1 + 1, 1 + 2, n_embd + 2 * n_vocab)
        # the states that the head reads come with the logits; it drafts from its own, one wait each
        assert to_host(found, "dense with a head") == (1, 1 + 3, n_vocab + 3 * n_embd)
        # and what the likeliest token is, with its probability
        assert to_host(found, "a head reads") == (2, 3, 2 + 2 * n_embd)
        assert to_host(found, "a head reads and drafts") == (3, 5, 2 * 2 + 3 * n_embd)
    else:  # the CPU goes on with the states at the border, and has the logits
        assert to_host(found, "dense") == (1, 1, n_embd)
        assert to_host(found, "four rows") == (1, 1, 4 * n_embd)
        assert to_host(found, "three ranges") == (3, 1, 4 * n_embd)
        assert to_host(found, "three probes") == (1 + 2, 1 + 2, 3 * n_embd)


def test_what_the_device_gets(found: dict[str, Any], layers: int) -> None:
    """No state but where one is, and what each computation needs: embeddings, positions, places of K and V, a mask."""
    n_embd = found["device"]["n_embd"]
    logits = 1 if layers == ALL else 0  # which rows have them
    first = 5 + logits
    dense, four, ranges = (found["device"][what] for what in ("dense", "four rows", "three ranges"))
    assert dense["n_to_device"] == first + (1 if layers == ALL else 0)
    parts = 3  # of a mask, one for each row, more than a single row has
    assert four["n_to_device"] == dense["n_to_device"] + parts
    assert four["bytes_to_device"] == 4 * dense["bytes_to_device"], "the mask goes there once, not for each layer"
    n_ranges = 3  # two with states to read there, and two or three with states to leave there
    assert ranges["n_to_device"] == first + 4 * (n_ranges - 1) + (5 if layers == ALL else 4) + n_ranges * parts
    without_embeddings = 4 * (dense["bytes_to_device"] - n_embd * FLOAT)
    assert ranges["bytes_to_device"] <= n_ranges * without_embeddings + 4 * n_embd * FLOAT + 5 * 4 * FLOAT


@pytest.mark.parametrize("what", ["logits", "states", "after a cancel", "scores"])
def test_rows_in_ranges_are_equal(found: dict[str, Any], what: str) -> None:
    """Bit for bit: logits of rows that stop everywhere; states of one that stopped before, or was cancelled on the way;
    scores of probes on the way, and of rows that are advanced, then probed."""
    assert found["device"]["no_exits"] is None
    assert found["device"][f"equal {what}"] is True


def test_states_cross_from_device_to_device(path: Path, two: list[devices.Device]) -> None:
    """Only the host takes them there where a range ends between two; the numbers are those of one device, else."""
    found = measure(path, ALL, two)
    n_embd, n_vocab = found["n_embd"], found["n_vocab"]
    assert found["dense"]["n_between"] == 1 and found["dense"]["bytes_between"] == n_embd * FLOAT
    for what, n_logits, n_probes, n_ranges in (("dense", 1, 0, 1), ("four rows", 4, 0, 1), ("three probes", 1, 3, 4)):
        waits, times, numbers = to_host({"device": found}, what)
        at_border = what == "three probes" and BORDER in EXITS
        assert (waits, times) == (n_ranges, 1 + n_probes + at_border)
        assert numbers == n_logits * n_vocab + (n_probes + at_border) * n_embd
    assert all(found[name] for name in found if name.startswith("equal"))


def test_the_linear_head_drafts_where_the_state_is(found: dict[str, Any], layers: int) -> None:
    """The host gives a place and an embedding, and gets 16 guesses with their scores, instead of the state."""
    for place, numbers in (("cpu", (0, 0, 0)), ("device", (1, 1, 2 * 16))):
        for depth, differences, crossed in found[place]["drafts"]:
            assert np.allclose(differences, 0, atol=TOLERANCE)
            is_on_device = place == "device" and (layers == ALL or depth < layers)
            expected = numbers if is_on_device else (0, 0, 0)
            assert (crossed["n_waits"], crossed["n_to_host"], crossed["bytes_to_host"] // FLOAT) == expected
            assert crossed["n_to_device"] == (2 if is_on_device else 0)


def test_a_head_drafts_what_it_does_on_the_cpu(found: dict[str, Any], layers: int) -> None:
    if layers == ALL:
        (token, prob), (expected, its_prob) = found["device"]["best"], found["cpu"]["best"]
        assert token == expected and prob == pytest.approx(its_prob, abs=TOLERANCE)


def test_exits_are_those_of_the_cpu(found: dict[str, Any]) -> None:
    """Lens, probe and LM head on the device, within its rounding."""
    ours, theirs = found["device"], found["cpu"]
    assert np.allclose(ours["scores"], theirs["scores"], atol=TOLERANCE)
    for mine, other in zip(ours["exit logits"], theirs["exit logits"], strict=True):
        assert np.abs(np.subtract(mine, other)).max() < TOLERANCE * np.ptp(other)
    assert len(ours["scores"]) == len(EXITS)

"""Calibration from the first prompt to the file, on a toy model whose layers approach the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEngine, FakeSampler

from specee.predictors.calibration import Base, Settings, calibrate
from specee.predictors.calibration import file as files
from specee.predictors.calibration.recording import normalise, record, without_loop
from specee.predictors.calibration.settings import bundled_prompts, candidate_boundaries
from specee.predictors.errors import CalibrationError
from specee.predictors.types import Floats

WIDTH, VOCAB, LAYERS = 32, 64, 8


@dataclass
class ToyEngine(FakeEngine):
    """The final state depends on the last two tokens; each layer below adds noise. Tied embeddings."""

    n_layer: int = LAYERS
    n_embd: int = WIDTH
    n_vocab: int = VOCAB
    stop_tokens: tuple[int, ...] = (0,)
    n_calls_left: int = -1
    table: Floats = field(default_factory=lambda: np.random.default_rng(0).normal(size=(VOCAB, WIDTH)).astype("f4"))

    def embedding_rows(self, tokens: Sequence[int]) -> Floats:
        return self.table[np.asarray(tokens)]

    head_rows = embedding_rows

    def prefill(self, tokens: Sequence[int], on_chunk: object = None) -> int:
        if self.n_calls_left == 0:
            raise KeyboardInterrupt
        self.n_calls_left -= 1
        return super().prefill(tokens)

    def hidden(self, pos: int) -> Floats:
        return self._state(pos, self.depths[pos])

    def _state(self, pos: int, depth: int) -> Floats:
        last, before = self.tokens[pos], self.tokens[max(pos - 1, 0)]
        state = self.table[(last * 7 + 1) % VOCAB] + 0.4 * self.table[(before * 3 + 2) % VOCAB]
        noise = self._rng(pos, depth, "noise").normal(size=WIDTH) * 0.25 * (self.n_layer - depth)
        return np.asarray(3.0 * (state + noise), np.float32)

    def _logits(self, pos: int, depth: int) -> Floats:
        return self.table @ normalise(self._state(pos, depth))


def base() -> Base:
    def encode(text: str) -> list[int]:
        return [1 + ord(c) % (VOCAB - 1) for c in text][:12]

    return Base("toy.gguf", "12" * 32, encode, lambda temperature, penalty: FakeSampler(temperature, penalty))


SETTINGS = Settings(tokens=2500, answer_tokens=40, n_hidden=32, draft_rank=32, shortlist=48, tune_epochs=1)


def test_from_prompts_to_file(tmp_path: Path) -> None:
    seen: list[str] = []
    out = tmp_path / "out" / "toy.gguf"
    made = calibrate(ToyEngine(), base(), out, tmp_path / "work", SETTINGS, lambda what, share: seen.append(what))
    assert seen[0] == "recording answers"
    assert seen[-1] == "done"
    assert not (tmp_path / "work").exists()
    back = files.read(out)
    assert back.boundaries == made.boundaries
    assert set(back.offline) <= set(back.boundaries) <= set(candidate_boundaries(LAYERS))
    assert back.base_sha256 == "12" * 32
    metrics = back.metrics
    assert {"calibrated", "paper", "margin", "boundaries", "draft", "rows"} <= set(metrics)
    found = metrics["on_calibration_split"]["calibrated"]
    assert found["agreement"] >= 0.97
    assert found["mean_exit_layer"] < LAYERS
    assert back.rules().k == 4


def test_interrupted_recording_goes_on(tmp_path: Path) -> None:
    settings = Settings(tokens=600, answer_tokens=40)
    whole = record(ToyEngine(), base(), settings, tmp_path / "whole", lambda what, share: None)
    with pytest.raises(KeyboardInterrupt):
        record(ToyEngine(n_calls_left=6), base(), settings, tmp_path / "cut", lambda what, share: None)
    assert len(list((tmp_path / "cut").glob("*.npz"))) == 6
    (tmp_path / "cut" / "00002.npz").write_bytes(b"broken")
    engine = ToyEngine()
    again = record(engine, base(), settings, tmp_path / "cut", lambda what, share: None)
    assert [r.row_tokens.tolist() for r in again] == [r.row_tokens.tolist() for r in whole]
    np.testing.assert_array_equal(again[2].states, whole[2].states)


def test_states_are_the_engine_s(tmp_path: Path) -> None:
    engine = ToyEngine()
    first = record(engine, base(), Settings(tokens=600, answer_tokens=100), tmp_path, lambda what, share: None)[0]
    engine.prefill([*first.prompt.tolist(), *first.row_tokens[1:].tolist()])
    at = len(first.prompt) - 1
    for i in range(len(first.row_tokens)):
        true = normalise(engine._state(at + i, LAYERS))
        np.testing.assert_allclose(first.states[-1, i], true, atol=2e-3)
        assert first.best[i] == int(np.argmax(engine._logits(at + i, LAYERS)))


def test_a_silent_model(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="too few"):
        engine = ToyEngine(stop_tokens=tuple(range(VOCAB)))
        record(engine, base(), Settings(tokens=600), tmp_path, lambda what, share: None)


def test_without_loop() -> None:
    assert without_loop([1, 2, 3, 4, 1, 2, 5], 2) == [1, 2, 3, 4, 1, 2]
    assert without_loop([1, 2, 3], 2) == [1, 2, 3]


def test_bundled_prompts_are_many_and_different() -> None:
    prompts = bundled_prompts()
    assert len(prompts) == len(set(prompts)) >= 120


@pytest.mark.parametrize("n_layer", [2, 6, 12, 28, 30, 80])
def test_candidate_boundaries(n_layer: int) -> None:
    found = candidate_boundaries(n_layer)
    assert all(0 < b < n_layer for b in found)
    assert 1 <= len(found) <= 10
    if n_layer >= 28:
        assert len(found) >= 7

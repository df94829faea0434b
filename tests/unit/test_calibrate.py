"""Calibration from the first prompt to the file, on a toy model whose layers approach the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEngine, FakeSampler

from specee.predictors.calibration import calibration_file, recorded_rows
from specee.predictors.calibration.calibrate import calibrate
from specee.predictors.calibration.recorded_rows import candidates, gather
from specee.predictors.calibration.recording import Recording, normalise, record, without_loop
from specee.predictors.calibration.settings import (
    CalibratedModel,
    Settings,
    bundled_prompts,
    candidate_exit_layers,
)
from specee.predictors.drafters.base import Budget, DraftState, DraftTree
from specee.predictors.drafters.linear_head import LinearHeadDrafter
from specee.predictors.errors import CalibrationError
from specee.predictors.exits.rules import ExitRules
from specee.predictors.repetition import NGRAM
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

    def head_constants(self, tokens: Sequence[int]) -> Floats:
        return np.zeros(len(tokens), np.float32)

    def head_shape(self) -> tuple[bool, float]:
        return False, 0.0

    def prefill(self, tokens: Sequence[int], on_chunk: object = None) -> int:
        if self.n_calls_left == 0:
            raise KeyboardInterrupt
        self.n_calls_left -= 1
        return super().prefill(tokens)

    def hidden(self, row: int) -> Floats:
        return self._state(self._text(row), self.in_flight[row].depth)

    def _state(self, text: list[tuple[int, int]], depth: int) -> Floats:
        last, before = text[-1][0], text[max(len(text) - 2, 0)][0]
        state = self.table[(last * 7 + 1) % VOCAB] + 0.4 * self.table[(before * 3 + 2) % VOCAB]
        noise = self._rng(text, depth, "noise").normal(size=WIDTH) * 0.25 * (self.n_layer - depth)
        return np.asarray(3.0 * (state + noise), np.float32)

    def _logits(self, text: list[tuple[int, int]], depth: int) -> Floats:
        return self.table @ normalise(self._state(text, depth))


def model() -> CalibratedModel:
    def encode(text: str) -> list[int]:
        return [1 + ord(c) % (VOCAB - 1) for c in text][:12]

    return CalibratedModel(
        "toy.gguf", "12" * 32, encode, lambda temperature, penalty: FakeSampler(temperature, penalty)
    )


SETTINGS = Settings(tokens=2500, answer_tokens=40, n_hidden=32, draft_rank=32, shortlist=48, tune_epochs=1)


def test_from_prompts_to_file(tmp_path: Path) -> None:
    seen: list[str] = []
    out = tmp_path / "out" / "toy.gguf"
    made = calibrate(ToyEngine(), model(), out, tmp_path / "work", SETTINGS, lambda what, share: seen.append(what))
    assert seen[0] == "recording answers"
    assert seen[-1] == "done"
    assert not (tmp_path / "work").exists()
    back = calibration_file.read(out)
    assert back.exit_layers == made.exit_layers
    assert set(back.offline) <= set(back.exit_layers) <= set(candidate_exit_layers(LAYERS))
    assert back.base_sha256 == "12" * 32
    metrics = back.metrics
    assert {"calibrated", "paper", "margin", "exit_layers", "draft", "rows"} <= set(metrics)
    found = metrics["on_calibration_split"]["calibrated"]
    assert found["agreement"] >= 0.97
    assert found["mean_exit_layer"] < LAYERS
    assert back.exit_rules().k == 4


def test_interrupted_recording_goes_on(tmp_path: Path) -> None:
    settings = Settings(tokens=600, answer_tokens=40)
    whole = record(ToyEngine(), model(), settings, tmp_path / "whole", lambda what, share: None)
    with pytest.raises(KeyboardInterrupt):
        record(ToyEngine(n_calls_left=6), model(), settings, tmp_path / "cut", lambda what, share: None)
    assert len(list((tmp_path / "cut").glob("*.npz"))) == 6
    (tmp_path / "cut" / "00002.npz").write_bytes(b"broken")
    engine = ToyEngine()
    again = record(engine, model(), settings, tmp_path / "cut", lambda what, share: None)
    assert [r.row_tokens.tolist() for r in again] == [r.row_tokens.tolist() for r in whole]
    np.testing.assert_array_equal(again[2].states, whole[2].states)


def test_states_are_the_engine_s(tmp_path: Path) -> None:
    engine = ToyEngine()
    first = record(engine, model(), Settings(tokens=600, answer_tokens=100), tmp_path, lambda what, share: None)[0]
    text = [(token, 0) for token in [*first.prompt.tolist(), *first.row_tokens[1:].tolist()]]
    n_prompt = len(first.prompt)
    for i in range(len(first.row_tokens)):
        true = normalise(engine._state(text[: n_prompt + i], LAYERS))
        np.testing.assert_allclose(first.states[-1, i], true, atol=2e-3)
        assert first.best[i] == int(np.argmax(engine._logits(text[: n_prompt + i], LAYERS)))


def test_a_silent_model(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="too few"):
        engine = ToyEngine(stop_tokens=tuple(range(VOCAB)))
        record(engine, model(), Settings(tokens=600), tmp_path, lambda what, share: None)


def replayed(recordings: list[Recording], rules: ExitRules) -> np.ndarray:
    data = gather(recordings, LAYERS)
    rows = data.rows("abc", probed=True)
    linear = np.tile(np.arange(rules.k, dtype=np.int32), (len(rows), 1))
    return candidates(data, rows, linear, rules)


def recordings(prompts: int = 2, length: int = 5) -> list[Recording]:
    """Answers 10, 11, ... to the prompt 1, 2, 3."""
    states = np.ones((len(candidate_exit_layers(LAYERS)) + 1, length, WIDTH), np.float16)
    row_tokens = np.array([3, *range(10, 9 + length)], np.int32)
    prompt = np.array([1, 2, 3], np.int32)
    return [Recording(i, prompt, row_tokens, states, row_tokens) for i in range(prompts)]


def test_drafters_see_the_answer_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []

    class Witness(LinearHeadDrafter):
        def propose(self, state: DraftState, budget: Budget) -> DraftTree:
            seen.append(list(state.tokens))
            return super().propose(state, budget)

    monkeypatch.setattr(recorded_rows, "make_drafter", lambda rules, draft: Witness(draft))
    assert replayed(recordings(), ExitRules()).tolist() == [[0, 1, 2, 3]] * 8
    assert seen == [[10], [10, 11], [10, 11, 12], [10, 11, 12, 13]] * 2


def test_too_few_candidates_are_an_error() -> None:
    with pytest.raises(CalibrationError, match=r"\(ngram\) gave 0 of 4"):
        replayed(recordings(), ExitRules(drafters=("ngram",)))


def test_the_drafters_are_kept(tmp_path: Path) -> None:
    settings = replace(SETTINGS, drafters=("linear",))
    calibrate(ToyEngine(), model(), tmp_path / "a.gguf", tmp_path / "work", settings)
    assert calibration_file.read(tmp_path / "a.gguf").exit_rules().drafters == ("linear",)


def test_an_answer_ends_at_its_first_loop() -> None:
    gram = list(range(NGRAM))
    assert without_loop([99, *gram, 77, *gram, 1]) == [99, *gram, 77, *gram]
    assert without_loop(gram) == gram


def test_bundled_prompts_are_many_and_different() -> None:
    prompts = bundled_prompts()
    assert len(prompts) == len(set(prompts)) >= 120


@pytest.mark.parametrize("n_layer", [2, 6, 12, 28, 30, 80])
def test_candidate_exit_layers(n_layer: int) -> None:
    found = candidate_exit_layers(n_layer)
    assert all(0 < layer < n_layer for layer in found)
    assert 1 <= len(found) <= 10
    if n_layer >= 28:
        assert len(found) >= 7

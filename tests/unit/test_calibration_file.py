"""Reading and writing calibrations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import make_calibration
from gguf import GGUFWriter

from specee.predictors.calibration import calibration_file
from specee.predictors.calibration.calibration_file import Calibration
from specee.predictors.errors import CalibrationFileError
from specee.predictors.q8 import from_q8, to_q8


class Recorder:
    """Counts what is installed, with the shapes of the contract."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def head_rows(self, tokens: np.ndarray) -> np.ndarray:
        return np.ones((len(tokens), 32), np.float32)

    def head_constants(self, tokens: np.ndarray) -> np.ndarray:
        return np.zeros(len(tokens), np.float32)

    def head_shape(self) -> tuple[bool, float]:
        return False, 0.0

    def set_lens(self, layer: int, down: np.ndarray, up: np.ndarray | None, bias: np.ndarray) -> None:
        assert down.dtype == np.uint8 and bias.dtype == np.float32
        assert down.shape == (32, 34) and (up is None) == (layer == 10)
        self.calls.append(("lens", layer))

    def set_predictor(self, layer: int, w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: float) -> None:
        assert w1.shape == (512, 12) and isinstance(b2, float)
        self.calls.append(("predictor", layer))

    def set_shortlist(self, tokens: np.ndarray, up: np.ndarray) -> None:
        assert tokens.dtype == np.int32 and up.shape == (len(tokens), 34)
        self.calls.append(("margin", 0))

    def set_draft(self, down: np.ndarray, tokens: np.ndarray, up: np.ndarray, bias: np.ndarray) -> None:
        assert down.shape == (32, 68)
        self.calls.append(("draft", 0))


def test_round_trip(tmp_path: Path) -> None:
    made = make_calibration()
    calibration_file.write(made, tmp_path / "a.gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["a.gguf"]
    back = calibration_file.read(tmp_path / "a.gguf")
    for name in Calibration.__dataclass_fields__:
        if name not in ("lenses", "predictors", "draft"):
            assert getattr(back, name) == getattr(made, name), name
    np.testing.assert_array_equal(back.lenses[6].down, made.lenses[6].down)
    np.testing.assert_array_equal(back.predictors[8].w1, made.predictors[8].w1)
    np.testing.assert_array_equal(back.draft.up, made.draft.up)
    assert back.lenses[10].up is None
    recorder = Recorder()
    back.install(recorder)
    assert len(recorder.calls) == 4 + 4 + 1 + 1


def test_no_margin(tmp_path: Path) -> None:
    made = replace(make_calibration(), margin_layers=())
    calibration_file.write(made, tmp_path / "a.gguf")
    assert calibration_file.read(tmp_path / "a.gguf").margin_layers == ()
    with pytest.raises(CalibrationFileError, match="margin"):
        made.check_rules(made.exit_rules("margin"))


def test_calibrated_rules() -> None:
    made = make_calibration()
    assert made.exit_rules().threshold == 0.75
    assert made.exit_rules("margin").threshold == 0.5
    assert made.exit_rules("margin").rule == "margin"


def test_base_check() -> None:
    made = make_calibration()
    made.check_base("ab" * 32, 12, 32, 24)
    with pytest.raises(CalibrationFileError, match=r"made for tiny\.gguf"):
        made.check_base("cd" * 32, 12, 32, 24)
    with pytest.raises(CalibrationFileError, match="12 layers"):
        made.check_base("ab" * 32, 13, 32, 24)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(CalibrationFileError, match="not there"):
        calibration_file.read(tmp_path / "none.gguf")
    (tmp_path / "text.gguf").write_text("not a model at all, but long enough to be read as one")
    with pytest.raises(CalibrationFileError, match="not a readable GGUF"):
        calibration_file.read(tmp_path / "text.gguf")
    for arch, fmt, reason in (
        ("llama", 1, "not a calibration"),
        ("specee", 9, "format 9"),
        ("specee", calibration_file.FORMAT, "lacks"),
    ):
        writer = GGUFWriter(tmp_path / "other.gguf", arch)
        writer.add_uint32("specee.format", fmt)
        writer.add_tensor("x", np.zeros(4, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(CalibrationFileError, match=reason) as caught:
            calibration_file.read(tmp_path / "other.gguf")
        assert "\n" not in caught.value.message


def test_wrong_shapes() -> None:
    made = make_calibration()
    with pytest.raises(CalibrationFileError, match="outside"):
        replace(made, exit_layers=(4, 6, 8, 10, 12))
    with pytest.raises(CalibrationFileError, match="no lens for exit layer 6"):
        replace(made, lenses={b: w for b, w in made.lenses.items() if b != 6})
    with pytest.raises(CalibrationFileError, match="does not fit a width"):
        replace(made, n_embd=64)
    with pytest.raises(CalibrationFileError, match="shortlist"):
        replace(made, n_vocab=8)
    with pytest.raises(CalibrationFileError, match="misshapen"):
        replace(made, k=5)


def test_a_drafter_of_another_version() -> None:
    with pytest.raises(CalibrationFileError, match="'tea'"):
        replace(make_calibration(), drafters=("ngram", "tea"))


def test_q8_is_close() -> None:
    values = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    assert to_q8(values).shape == (5, 68)
    assert np.abs(from_q8(to_q8(values)) - values).max() < 0.03

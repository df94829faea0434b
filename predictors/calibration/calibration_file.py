"""The calibration of one model: lenses, predictors, draft head, schedule and what was measured, in one GGUF file.

The names and shapes of its metadata and tensors are listed at `write`; the arithmetic is defined in
native/src/specee.h.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from specee.predictors.errors import CalibrationFileError
from specee.predictors.exits.exit_predictor import ExitPredictor
from specee.predictors.exits.lm_head import HeadEngine, LMHead
from specee.predictors.exits.rules import DRAFTERS, ExitRules, RuleKind
from specee.predictors.q8 import Blocks, columns_of, from_q8, to_q8
from specee.predictors.types import Floats, Tokens

FORMAT = 3
ARCH = "specee"
CANNOT_WRITE = "Cannot write the calibration"


class Installable(HeadEngine, Protocol):
    """The engine's setters, which copy the data, and its LM head."""

    def set_lens(self, layer: int, down: Blocks, up: Blocks | None, bias: Floats) -> None: ...

    def set_predictor(self, layer: int, w1: Floats, b1: Floats, w2: Floats, b2: float) -> None: ...

    def set_shortlist(self, tokens: Tokens, up: Blocks) -> None: ...

    def set_draft(self, down: Blocks, tokens: Tokens, up: Blocks, bias: Floats) -> None: ...


@dataclass(frozen=True, slots=True)
class LensWeights:
    """h' = up (down x) + bias; down Q8_0 [rank, n_embd], up Q8_0 [n_embd, rank] (None: identity), bias [n_embd]."""

    down: Blocks
    up: Blocks | None
    bias: Floats


@dataclass(frozen=True, slots=True)
class DraftWeights:
    """down Q8_0 [rank, 2 n_embd], up Q8_0 [n_embd, rank], bias [n_embd]: the next final state; tokens [n_short].

    The shortlist's scorer, head rows times `up`, is made at installation: the file stays small.
    """

    down: Blocks
    tokens: Tokens
    up: Blocks
    bias: Floats


@dataclass(frozen=True, slots=True)
class Calibration:
    """One model's calibration. Exit layers count layers done."""

    base_sha256: str
    base_name: str
    n_layer: int
    n_embd: int
    n_vocab: int
    k: int
    exit_layers: tuple[int, ...]
    offline: tuple[int, ...]
    threshold: float
    target_agreement: float
    margin_layers: tuple[int, ...]
    margin_threshold: float
    lenses: dict[int, LensWeights]
    predictors: dict[int, ExitPredictor]
    draft: DraftWeights
    drafters: tuple[str, ...]
    """What drafted the candidates that the predictors were trained on."""
    metrics: dict[str, Any] = field(default_factory=dict)
    created_by: str = ""

    def __post_init__(self) -> None:
        _check_shapes(self)

    def exit_rules(self, rule: RuleKind = "predictor", base: ExitRules | None = None) -> ExitRules:
        """`base` (the default rules) with this model's calibrated threshold and number of candidates."""
        threshold = self.margin_threshold if rule == "margin" else self.threshold
        rules = base or ExitRules()
        return rules.with_(rule=rule, threshold=threshold, k=self.k, n_hidden=self.n_hidden, drafters=self.drafters)

    @property
    def n_hidden(self) -> int:
        """Hidden units of the predictors."""
        return next((len(p.b1) for p in self.predictors.values()), ExitRules().n_hidden)

    def check_rules(self, rules: ExitRules) -> None:
        """Raises CalibrationFileError when the rules ask for what was not calibrated."""
        if rules.rule == "margin":
            if not self.margin_layers:
                raise CalibrationFileError("it has no margin rule: calibrate again, or use rule 'predictor'")
        elif rules.k != self.k or rules.n_hidden != self.n_hidden:
            raise CalibrationFileError(
                f"its predictors take k = {self.k} and {self.n_hidden} hidden units, "
                f"the rules ask for {rules.k} and {rules.n_hidden}"
            )

    def check_base(self, sha256: str, n_layer: int, n_embd: int, n_vocab: int) -> None:
        """Raises CalibrationFileError when the calibration belongs to another model."""
        if sha256 != self.base_sha256:
            raise CalibrationFileError(
                f"it was made for {self.base_name}, another file (sha256 {self.base_sha256[:12]}...)"
            )
        if (n_layer, n_embd, n_vocab) != (self.n_layer, self.n_embd, self.n_vocab):
            raise CalibrationFileError(
                f"it was made for {self.n_layer} layers, width {self.n_embd}, vocabulary {self.n_vocab}; "
                f"the model has {n_layer}, {n_embd}, {n_vocab}"
            )

    def install(self, engine: Installable) -> None:
        """Hand the weights to an engine."""
        for layer, lens in self.lenses.items():
            engine.set_lens(layer, lens.down, lens.up, lens.bias)
        for layer, predictor in self.predictors.items():
            engine.set_predictor(layer, predictor.w1, predictor.b1, predictor.w2, predictor.b2)
        tokens = self.draft.tokens
        head = LMHead.of(engine, tokens)
        engine.set_shortlist(tokens, to_q8(head.rows))
        bias = head.rows @ self.draft.bias + head.constants
        engine.set_draft(self.draft.down, tokens, to_q8(head.rows @ from_q8(self.draft.up)), bias)


def write(calibration: Calibration, path: Path) -> None:
    """Write the file, replacing an old one in a single step. Raises CalibrationFileError."""
    with _part(path) as part:
        _write(calibration, part)
        part.replace(path)


def check_writable(path: Path) -> None:
    """Raises CalibrationFileError where `write` would: before what takes minutes."""
    with _part(path) as part:
        part.touch()
    if path.is_dir():
        raise CalibrationFileError(f"{path} is a folder; give another --output", CANNOT_WRITE)


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """Where the file is while it is written; gone afterwards, whatever happens."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
    except OSError as error:
        why = f"{path}: {error.strerror or error}; make room, or give another --output"
        raise CalibrationFileError(why, CANNOT_WRITE) from error
    finally:
        with suppress(OSError):
            part.unlink()


def _write(calibration: Calibration, path: Path) -> None:
    w = GGUFWriter(path, ARCH)
    w.add_uint32("specee.format", FORMAT)
    w.add_string("specee.base.sha256", calibration.base_sha256)
    w.add_string("specee.base.name", calibration.base_name)
    for name in ("n_layer", "n_embd", "n_vocab", "k"):
        w.add_uint32(f"specee.{name}", getattr(calibration, name))
    w.add_float64("specee.threshold", calibration.threshold)
    w.add_float64("specee.target_agreement", calibration.target_agreement)
    w.add_float64("specee.margin.threshold", calibration.margin_threshold)
    w.add_string("specee.metrics", json.dumps(calibration.metrics))
    w.add_string("specee.created.by", calibration.created_by)
    w.add_string("specee.drafters", ",".join(calibration.drafters))
    layers = {
        "exit_layers": calibration.exit_layers,
        "offline": calibration.offline,
        "margin.layers": calibration.margin_layers,
    }
    for name, values in layers.items():
        w.add_tensor(f"schedule.{name}", np.array(values or (-1,), np.int32))
    for layer, lens in calibration.lenses.items():
        _add_q8(w, f"lens.{layer}.down", lens.down)
        if lens.up is not None:
            _add_q8(w, f"lens.{layer}.up", lens.up)
        w.add_tensor(f"lens.{layer}.bias", lens.bias)
    for layer, predictor in calibration.predictors.items():
        w.add_tensor(f"predictor.{layer}.w1", predictor.w1)
        w.add_tensor(f"predictor.{layer}.b1", predictor.b1)
        w.add_tensor(f"predictor.{layer}.w2", predictor.w2)
        w.add_tensor(f"predictor.{layer}.b2", np.array([predictor.b2], np.float32))
    _add_q8(w, "draft.down", calibration.draft.down)
    _add_q8(w, "draft.up", calibration.draft.up)
    w.add_tensor("draft.tokens", calibration.draft.tokens.astype(np.int32))
    w.add_tensor("draft.bias", calibration.draft.bias)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def read(path: Path) -> Calibration:
    """Read a calibration file. Raises CalibrationFileError when it cannot be used."""
    try:
        reader = GGUFReader(path)
        tensors = {t.name: np.array(t.data) for t in reader.tensors}
        meta = {name: f.contents() for name, f in reader.fields.items()}
    except FileNotFoundError:
        raise CalibrationFileError(f"{path} is not there", "No calibration") from None
    except Exception as error:
        raise CalibrationFileError(f"{path.name} is not a readable GGUF file ({error})") from None
    if meta.get("general.architecture") != ARCH:
        raise CalibrationFileError(f"{path.name} is a GGUF file, but not a calibration")
    if meta.get("specee.format") != FORMAT:
        found = meta.get("specee.format")
        raise CalibrationFileError(
            f"{path.name} has format {found}, this version reads format {FORMAT}: calibrate again"
        )
    try:
        return _assemble(meta, tensors)
    except KeyError as error:
        raise CalibrationFileError(f"{path.name} lacks {error.args[0]}: calibrate again") from None


def _assemble(meta: dict[str, Any], tensors: dict[str, Any]) -> Calibration:
    layers = {
        name: tuple(int(layer) for layer in tensors[f"schedule.{name}"] if layer >= 0)
        for name in ("exit_layers", "offline", "margin.layers")
    }
    lens_layers = sorted({*layers["exit_layers"], *layers["margin.layers"]})
    lenses = {
        layer: LensWeights(
            tensors[f"lens.{layer}.down"], tensors.get(f"lens.{layer}.up"), tensors[f"lens.{layer}.bias"]
        )
        for layer in lens_layers
    }
    predictors = {}
    for layer in layers["exit_layers"]:
        w1, b1, w2, b2 = (tensors[f"predictor.{layer}.{part}"] for part in ("w1", "b1", "w2", "b2"))
        predictors[layer] = ExitPredictor(w1, b1, w2, float(b2[0]))
    try:
        metrics = json.loads(meta["specee.metrics"])
    except ValueError:
        metrics = {}
    return Calibration(
        base_sha256=str(meta["specee.base.sha256"]),
        base_name=str(meta["specee.base.name"]),
        n_layer=int(meta["specee.n_layer"]),
        n_embd=int(meta["specee.n_embd"]),
        n_vocab=int(meta["specee.n_vocab"]),
        k=int(meta["specee.k"]),
        exit_layers=layers["exit_layers"],
        offline=layers["offline"],
        threshold=float(meta["specee.threshold"]),
        target_agreement=float(meta["specee.target_agreement"]),
        margin_layers=layers["margin.layers"],
        margin_threshold=float(meta["specee.margin.threshold"]),
        lenses=lenses,
        predictors=predictors,
        draft=DraftWeights(*(tensors[f"draft.{part}"] for part in ("down", "tokens", "up", "bias"))),
        drafters=tuple(str(meta["specee.drafters"]).split(",")),
        metrics=metrics,
        created_by=str(meta["specee.created.by"]),
    )


def _add_q8(w: GGUFWriter, name: str, blocks: Blocks) -> None:
    w.add_tensor(name, blocks, raw_dtype=GGMLQuantizationType.Q8_0)


def _check_shapes(a: Calibration) -> None:
    """Raises CalibrationFileError unless the layers make sense and all weights fit together."""
    for layer in (*a.exit_layers, *a.offline, *a.margin_layers):
        _expect(0 < layer < a.n_layer, f"exit layer {layer} is outside of the model's {a.n_layer} layers")
    for name in a.drafters:
        _expect(name in DRAFTERS, f"its candidates came from {name!r}, which this version cannot draft with")
    _expect(set(a.offline) <= set(a.exit_layers), "its offline schedule names a layer that is no exit layer")
    _expect(0.0 <= a.threshold <= 1.0 and 0.0 <= a.margin_threshold <= 1.0, "a threshold is not between 0 and 1")
    for layer in {*a.exit_layers, *a.margin_layers}:
        _expect(layer in a.lenses, f"no lens for exit layer {layer}")
    for layer in a.exit_layers:
        _expect(layer in a.predictors, f"no predictor for exit layer {layer}")
    for layer, lens in a.lenses.items():
        rank = lens.down.shape[0]
        fits = columns_of(lens.down) == a.n_embd == len(lens.bias)
        if lens.up is None:
            fits = fits and rank == a.n_embd
        else:
            fits = fits and lens.up.shape[0] == a.n_embd and columns_of(lens.up) == rank
        _expect(fits, f"the lens of exit layer {layer} does not fit a width of {a.n_embd}")
    for layer, predictor in a.predictors.items():
        n = len(predictor.b1)
        _expect(
            predictor.w1.shape == (n, 3 * a.k) and predictor.w2.shape == (n,),
            f"the predictor of exit layer {layer} is misshapen",
        )
    rank = a.draft.down.shape[0]
    fits = columns_of(a.draft.down) == 2 * a.n_embd and a.draft.up.shape[0] == len(a.draft.bias) == a.n_embd
    _expect(fits and columns_of(a.draft.up) == rank, "the draft head is misshapen")
    _expect(bool(np.all((a.draft.tokens >= 0) & (a.draft.tokens < a.n_vocab))), "the shortlist leaves the vocabulary")


def _expect(ok: bool, message: str) -> None:
    if not ok:
        raise CalibrationFileError(message)

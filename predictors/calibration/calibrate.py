"""Calibration: any supported model, on the user's machine, in minutes, without a data set."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from specee.predictors.calibration import calibration_file
from specee.predictors.calibration.calibration_file import Calibration, DraftWeights, LensWeights
from specee.predictors.calibration.fitting import Fitted, fit
from specee.predictors.calibration.recorded_rows import gather
from specee.predictors.calibration.recording import record
from specee.predictors.calibration.settings import CalibratedModel, CalibrationEngine, ProgressCallback, Settings
from specee.predictors.exits.low_rank import LowRank
from specee.predictors.q8 import to_q8

__all__ = ["CalibratedModel", "CalibrationEngine", "Settings", "calibrate"]


def calibrate(
    engine: CalibrationEngine,
    base: CalibratedModel,
    out_path: Path,
    work_dir: Path,
    settings: Settings | None = None,
    progress: ProgressCallback | None = None,
) -> Calibration:
    """Record answers, fit everything, write the file. Started again after an interruption, it goes on.

    `work_dir` must belong to this model; it is removed when all is done. Raises CalibrationError when the model
    generates too few tokens, and whatever the engine raises.
    """
    settings = settings or Settings()
    report = progress or (lambda what, share: None)
    begin = time.monotonic()
    calibration_file.check_writable(out_path)
    recordings = record(engine, base, settings, work_dir, report)
    recorded = time.monotonic()
    data = gather(recordings, engine.n_layer)
    recordings.clear()
    fitted = fit(data, engine, settings, report)
    fitted.metrics["tokens"] = data.n
    fitted.metrics["seconds"] = {
        "recording": round(recorded - begin, 1),
        "fitting": round(time.monotonic() - recorded, 1),
    }
    made = _as_stored(fitted, base, engine, settings)
    calibration_file.write(made, out_path)
    shutil.rmtree(work_dir, ignore_errors=True)
    report("done", 1.0)
    return made


def _as_stored(fitted: Fitted, base: CalibratedModel, engine: CalibrationEngine, settings: Settings) -> Calibration:
    """The fitted parts as they are stored."""
    seconds = sum(fitted.metrics.get("seconds", {}).values())
    tokens = fitted.metrics.get("tokens", 0)
    return Calibration(
        base_sha256=base.sha256,
        base_name=base.name,
        n_layer=engine.n_layer,
        n_embd=engine.n_embd,
        n_vocab=engine.n_vocab,
        k=settings.k,
        exit_layers=fitted.exit_layers,
        offline=fitted.offline,
        threshold=fitted.threshold,
        target_agreement=settings.target_agreement,
        margin_layers=fitted.margin_layers,
        margin_threshold=fitted.margin_threshold,
        lenses={layer: _lens(lens) for layer, lens in fitted.lenses.items()},
        predictors=fitted.predictors,
        draft=DraftWeights(to_q8(fitted.draft.down), fitted.shortlist, to_q8(fitted.draft.up), fitted.draft.bias),
        drafters=settings.drafters,
        metrics=fitted.metrics,
        created_by=f"specee-chat calibrate, {tokens} tokens, {seconds:.0f} s, seed {settings.seed}",
    )


def _lens(lens: LowRank) -> LensWeights:
    return LensWeights(to_q8(lens.down), None if lens.is_square else to_q8(lens.up), lens.bias)

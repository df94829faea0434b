"""`specee-chat calibrate` in the engine process: the model and the files around predictors.calibration."""

from __future__ import annotations

from typing import Any

from specee.app import paths
from specee.app.engine.loading import NativeBackend, open_backend
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import Emit, Message, Progress
from specee.app.errors import FAILURE, AppError
from specee.app.options import LoadOptions, Sampling


def run_calibration(
    load: LoadOptions, emit: Emit, tokens: int | None = None, seed: int = 0, output: str | None = None
) -> dict[str, Any]:
    """Calibrates the model and writes the file where it is found again, or to `output`.

    Returns the file's path and what was measured. Started again after an interruption, it continues.
    """
    from specee.models import calibrations
    from specee.predictors.calibration.calibrate import calibrate
    from specee.predictors.calibration.settings import Settings

    backend = open_backend(load, lambda what, share: emit(Progress(what, share)), with_calibration=False)
    if backend.info.dense_only:
        why = f"layers of this model cannot be skipped: {backend.info.dense_only}"
        raise AppError("cannot calibrate", why, FAILURE)
    where = paths.find(load.data_dir)
    target = paths.expand(output) if output else calibrations.own_path(where.calibrations, backend.sha256)
    settings = Settings(seed=seed) if tokens is None else Settings(tokens=tokens, seed=seed)
    work = where.cache / "calibration" / backend.sha256[:16]
    calibration = calibrate(
        backend.engine,
        _calibrated_model(backend),
        target,
        work,
        settings,
        lambda what, share: emit(Progress(what, share)),
    )
    return {
        "path": str(target),
        "exit_layers": list(calibration.exit_layers),
        "offline": list(calibration.offline),
        "threshold": calibration.threshold,
        "margin_layers": list(calibration.margin_layers),
        "margin_threshold": calibration.margin_threshold,
        "target_agreement": calibration.target_agreement,
        "metrics": calibration.metrics,
    }


def _calibrated_model(backend: NativeBackend) -> Any:
    from specee.predictors.calibration.settings import CalibratedModel

    def encode(text: str) -> list[int]:
        return make_prompt(backend, (Message("user", text),)).tokens

    def sampler(temperature: float, repeat_penalty: float) -> Any:
        return backend.sampler(Sampling(temperature=temperature, repeat_penalty=repeat_penalty))

    return CalibratedModel(backend.info.name, backend.sha256, encode, sampler)

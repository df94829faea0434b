"""`specee-chat calibrate` in the engine process: the model and the files around predictors.calibrate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from specee.app import paths
from specee.app.engine.loading import NativeBackend, open_backend
from specee.app.engine.protocol import Message, Progress
from specee.app.errors import FAILURE, AppError
from specee.app.options import LoadOptions, Sampling

Emit = Callable[[object], None]


def run_calibration(
    load: LoadOptions, emit: Emit, tokens: int | None = None, seed: int = 0, output: str | None = None
) -> dict[str, Any]:
    """Calibrates the model and writes the file where it is found again, or to `output`.

    Returns the file's path and what was measured. Started again after an interruption, it goes on.
    """
    from specee.models import calibrations
    from specee.predictors.calibration import Settings, calibrate

    backend = open_backend(load, lambda what, share: emit(Progress(what, share)), calibration=False)
    if backend.info.dense_only:
        raise AppError("cannot calibrate", f"this model is dense only: {backend.info.dense_only}", FAILURE)
    where = paths.find(load.data_dir)
    target = Path(output).expanduser() if output else calibrations.own_path(where.calibrations, backend.sha256)
    settings = Settings(seed=seed) if tokens is None else Settings(tokens=tokens, seed=seed)
    work = where.cache / "calibration" / backend.sha256[:16]
    artifact = calibrate(
        backend.engine, _base(backend), target, work, settings, lambda what, share: emit(Progress(what, share))
    )
    return {
        "path": str(target),
        "exit_layers": list(artifact.boundaries),
        "offline": list(artifact.offline),
        "threshold": artifact.threshold,
        "margin_layers": list(artifact.margin_layers),
        "margin_threshold": artifact.margin_threshold,
        "target_agreement": artifact.target_agreement,
        "metrics": artifact.metrics,
    }


def _base(backend: NativeBackend) -> Any:
    from specee.predictors.calibration import Base

    def encode(text: str) -> list[int]:
        prompt = backend.format((Message("user", text),))
        return backend.tokenize(prompt, bos=not (backend.bos_text and prompt.startswith(backend.bos_text)))

    def sampler(temperature: float, repeat_penalty: float) -> Any:
        return backend.sampler(Sampling(temperature=temperature, repeat_penalty=repeat_penalty))

    return Base(backend.info.name, backend.sha256, encode, sampler)

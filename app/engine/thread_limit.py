"""A single row gets the fewest threads that it is as fast with: the others are left to other programs."""

from __future__ import annotations

from specee.app.engine.backend import Backend
from specee.app.engine.measurements import Measurements
from specee.native.thread_tuning import fewest_threads


def limit_threads(backend: Backend, measurements: Measurements, *, measure: bool) -> None:
    """Sets the limit that is known for this model and machine. `measure`: find it out first, if it is not known."""
    engine, key = backend.engine, measurements.key(backend)
    if engine.n_threads <= 2 or engine.no_drafts:  # with so few, each counts; and what is tried must be dropped again
        return
    if key not in measurements.threads and measure and engine.active_threads == engine.n_threads:
        measurements.threads[key] = fewest_threads(engine)
        measurements.save()
    if key in measurements.threads:
        engine.limit_single_row(measurements.threads[key])

"""What decoding runs at, measured with ggml's kernels."""

from __future__ import annotations

import time

import pytest

from specee.native import decoding_speed, ggml, library
from specee.native.errors import NativeError


@pytest.fixture(scope="module", autouse=True)
def _library() -> None:
    library.load()


def test_a_measurement_of_the_cpu() -> None:
    found = decoding_speed.measure(threads=1)
    assert set(found.rates) == set(decoding_speed.TYPES), "the CPU multiplies all of them"
    assert all(1e7 < rate < 1e13 for rate in found.rates.values())
    assert found.rows[1] == 1.0 and set(found.rows) == set(decoding_speed.ROWS)
    assert all(ratio > 0.3 for ratio in found.rows.values())
    assert found.attention > 0 and 0 < found.layer < 0.01
    assert found.threads == 1


def test_no_more_threads_than_get_their_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "process_time", lambda: 0.0)
    found = decoding_speed.measure(threads=3)
    assert found.threads == 1 and found.busy


def test_no_memory_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ggml.load()
    monkeypatch.setattr(found, "backend_alloc_ctx_tensors_from_buft", lambda context, kind: None)
    with pytest.raises(NativeError, match="memory"):
        decoding_speed.measure()


def test_types_that_a_device_cannot_multiply_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = decoding_speed._Bench.layout
    monkeypatch.setattr(
        decoding_speed._Bench,
        "layout",
        lambda self, kind, n_in: None if kind == decoding_speed.TYPES["MXFP4"] else bench(self, kind, n_in),
    )
    assert "MXFP4" not in decoding_speed.measure().rates


def test_devices_have_names_and_memory() -> None:
    (cpu,) = ggml.load().devices(ggml.CPU)
    name, free, total = decoding_speed.describe(cpu)
    assert name and 0 < free <= total

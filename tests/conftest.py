"""Fixtures for all tests; `fakes` can be imported from anywhere below."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fakes import FakeEngine

# What runs in a shell's background ignores Ctrl+C, what nohup starts a lost terminal; so would all that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("SIGHUP", "SIGQUIT"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


@pytest.fixture
def engine() -> FakeEngine:
    """A fake engine with a prefilled prompt of five tokens."""
    fake = FakeEngine()
    fake.prefill([1, 2, 3, 1, 2])
    return fake

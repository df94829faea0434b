"""Fixtures for all tests; `fakes` can be imported from anywhere below."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fakes import FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    """A fake engine with a prefilled prompt of five tokens."""
    fake = FakeEngine()
    fake.prefill([1, 2, 3, 1, 2])
    return fake

"""Tests here import their helpers (fake_session, picture) and the scripts of tests/benchmarks by name."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "benchmarks")]

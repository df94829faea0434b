"""The ranges in pyproject.toml, and the versions that CI runs: the lock file's, and the lowest ones (.ci/run)."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
WANTED = [Requirement(line) for line in importlib.metadata.requires("specee-chat") or ()]
LOCKED = [
    Requirement(line) for line in (ROOT / "requirements-lock.txt").read_text().splitlines() if not line.startswith("#")
]


def _locked(name: str) -> list[Version]:
    """More than one where the newest one depends on Python's version."""
    found = (lock for lock in LOCKED if canonicalize_name(lock.name) == canonicalize_name(name))
    return [Version(bound.version) for lock in found for bound in lock.specifier]


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_the_lock_file_is_up_to_date(wanted: Requirement) -> None:
    assert _locked(wanted.name)
    assert all(wanted.specifier.contains(version) for version in _locked(wanted.name))


@pytest.mark.parametrize("name", ["textual", "huggingface-hub", "uvicorn"])
def test_both_ends_run_in_ci(name: str) -> None:
    """What we reach into has no version that is newer than the newest one with which CI ran, but for its fixes."""
    (wanted,) = (wanted for wanted in WANTED if wanted.name == name)
    ends = {bound.operator: Version(bound.version) for bound in wanted.specifier}
    (newest,) = _locked(name)
    assert ends.keys() == {">=", "<"}
    assert ends["<"].release == (newest.major, newest.minor + 1)


def test_the_lock_file_names_no_index() -> None:
    assert all(re.match(r"(#|[\w.-]+==)", line) for line in (ROOT / "requirements-lock.txt").read_text().splitlines())
    assert "://" not in (ROOT / "requirements-lock.txt").read_text()

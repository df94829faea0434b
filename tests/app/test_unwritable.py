"""Caches that cannot be written: nothing is raised, and no half of a file is left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from specee.app.engine import datastore
from specee.app.engine.measurements import Drafting, Measurements
from specee.models import file_hash
from specee.predictors.calibration import calibration_file, recording
from specee.predictors.errors import CalibrationFileError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and limits")


def save_measurements(folder: Path) -> None:
    measurements = Measurements(folder / "cache" / "file")
    measurements.drafting["model"] = Drafting({1: 0.1})
    measurements.save()


def open_datastore(folder: Path) -> None:
    found = datastore.open_datastore(lambda text: [5, 6, 7, 8, 9], "0" * 64, folder / "cache")
    assert found.arrays()[0].size


def remember_hash(folder: Path) -> None:
    model = folder / "model.gguf"
    model.touch()
    file_hash.remember(model, "0" * 64, folder / "cache")


WRITERS: tuple[Callable[[Path], None], ...] = (save_measurements, open_datastore, remember_hash)
NAMES = ("file", "datastores", "hashes.json")  # of what each of them writes


@contextmanager
def folder(place: Path) -> Iterator[None]:
    (place / "x").mkdir(parents=True)
    yield


@contextmanager
def file(place: Path) -> Iterator[None]:
    place.parent.mkdir(exist_ok=True)
    place.write_text("x")
    yield


@contextmanager
def dead_link(place: Path) -> Iterator[None]:
    place.parent.mkdir(exist_ok=True)
    place.symlink_to("/no/such/place")
    yield


@contextmanager
def circle(place: Path) -> Iterator[None]:
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(place)
    yield


@contextmanager
def full_disk(_: Path) -> Iterator[None]:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


OBSTACLES = (folder, file, dead_link, circle, full_disk)


@pytest.mark.parametrize("obstacle", OBSTACLES)
@pytest.mark.parametrize("index", range(len(WRITERS)))
@pytest.mark.parametrize("inside", [False, True])
def test_a_cache_that_cannot_be_written(tmp_path: Path, index: int, obstacle: object, inside: bool) -> None:
    """Something else lies where the cache's folder is, or where the file in it is."""
    place = tmp_path / "cache" / NAMES[index] if inside else tmp_path / "cache"
    with obstacle(place):  # type: ignore[operator]
        WRITERS[index](tmp_path)
    own = {"x", "file", "datastores", "hashes.json"}
    left = [path.name for path in tmp_path.rglob("cache/**/*") if path.name not in own and path.suffix != ".npz"]
    assert left == []


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_a_calibration_says_so_before_it_begins(tmp_path: Path, obstacle: object) -> None:
    place = tmp_path / "calibrations" / "x.gguf"
    if obstacle is folder:
        with folder(place), pytest.raises(CalibrationFileError, match="is a folder"):
            calibration_file.check_writable(place)
    elif obstacle is not full_disk:
        with obstacle(place.parent), pytest.raises(CalibrationFileError, match="make room, or give another --output"):  # type: ignore[operator]
            calibration_file.check_writable(place)
    assert not list(tmp_path.rglob("*.gguf.*"))


def test_a_recording_that_cannot_be_kept_leaves_nothing(tmp_path: Path) -> None:
    kept = recording.Recording(0, np.zeros(4, np.int32), np.zeros(4, np.int32), np.zeros((2, 4, 8)), np.zeros(4))
    with full_disk(tmp_path), pytest.raises(OSError, match=r".+"):
        recording._save(tmp_path / "00001.npz", kept)
    assert list(tmp_path.iterdir()) == []

"""A hub on this machine, and a cache of its own for each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hub_server import FILE, REPO, Hub, serving

SIZE = 5_300_000


@pytest.fixture(scope="session")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some megabytes that look like nothing in particular."""
    import random

    path = tmp_path_factory.mktemp("payload") / "payload"
    path.write_bytes(random.Random(7).randbytes(SIZE))
    return path


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty shared cache, for this process too."""
    from huggingface_hub import constants

    folder = tmp_path / "hf" / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def hub(payload: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub that this process talks to."""
    from huggingface_hub import close_session, constants, file_download

    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    with serving(Hub({REPO: {FILE: payload, "README.md": payload}})) as running:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        yield running
        close_session()

"""Names and files of models."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from specee.models import calibrations, embedded, file_hash, gguf_header, model_structure, resolve
from specee.models.errors import ModelError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_block_count(3)
    writer.add_embedding_length(8)
    writer.add_context_length(64)
    writer.add_chat_template("{{ messages }}")
    writer.add_tensor("output.weight", np.ones((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_header_is_read(model: Path) -> None:
    found = model_structure.read(gguf_header.read_model(model))
    assert (found.name, found.arch, found.layers, found.width, found.context) == ("Tiny", "llama", 3, 8, 64)
    assert found.chat_template


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_is_cut_off(model: Path, share: float) -> None:
    whole = model.read_bytes()
    model.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match="cut off"):
        gguf_header.read_model(model)


def test_a_hash_is_remembered_until_the_file_changes(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = file_hash.sha256(model, cache)
    (store,) = cache.iterdir()
    store.write_text(store.read_text().replace(first, "f" * 64))
    assert file_hash.sha256(model, cache) == "f" * 64  # it was not computed again
    model.write_bytes(model.read_bytes() + b"x")
    changed = file_hash.sha256(model, cache)
    assert changed not in (first, "f" * 64)
    store.write_text("[broken")
    assert file_hash.sha256(model, cache) == changed


def test_names_and_paths(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve.resolve(str(model)).path == model.resolve()
    assert resolve.resolve(str(tmp_path)).name == "tiny"  # the only model of a folder
    monkeypatch.setattr(embedded, "path", lambda: model)
    for name in (None, "default", "SmolLM2-135M"):
        assert resolve.resolve(name).embedded
    with pytest.raises(ModelError, match="did you mean smollm2-135m"):
        resolve.resolve("smolm2-135m")
    with pytest.raises(ModelError, match="no file"):
        resolve.resolve("folder/none.gguf")
    monkeypatch.setattr(embedded, "path", lambda: None)
    with pytest.raises(ModelError, match="made without it"):
        resolve.resolve(None)


def test_the_users_calibration_comes_before_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "shipped.gguf"
    monkeypatch.setattr(embedded, "calibration", lambda: shipped)
    assert calibrations.find(tmp_path, "abc") is None
    assert calibrations.find(tmp_path, "abc", embedded=True) == shipped
    own = calibrations.own_path(tmp_path, "abc")
    own.write_bytes(b"")
    assert calibrations.find(tmp_path, "abc", embedded=True) == own

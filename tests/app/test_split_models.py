"""Models, draft models and draft heads in several files, from the command line down to the engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import split_gguf
import tiny_eagle
import tiny_gguf
from hub_server import Hub, serving
from real_engine import missing_library, missing_model

from specee.app import paths
from specee.app.cli import model_details
from specee.app.engine.loading import open_backend
from specee.app.options import LoadOptions, PolicyChoice
from specee.models import embedded

pytestmark = pytest.mark.skipif(missing_library() is not None, reason="no native library")

REPO = "owner/big-GGUF"
PROGRAM = [sys.executable, "-c", "from specee.app.cli.main import main; main()"]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return tiny_gguf.write(tmp_path / "whole.gguf", "llama", seed=1)


def logits(options: LoadOptions) -> bytes:
    """After some tokens, of which the last ones waited after two layers."""
    with closing(open_backend(options, lambda what, share: None)) as backend:
        backend.engine.prefill([5, 6, 7])
        row = backend.engine.append(9, -1)
        backend.engine.advance([row], 2)
        backend.engine.advance([row], backend.engine.n_layer, True)
        assert backend.info.dense_only is None
        return bytes(np.ascontiguousarray(backend.engine.logits(0)))


def test_it_answers_as_the_whole_model_does(whole: Path, tmp_path: Path) -> None:
    load = LoadOptions(model=str(whole), n_ctx=64, data_dir=str(tmp_path / "data"))
    wanted = logits(load)
    parts = split_gguf.split(whole, tmp_path, 4)
    for given in (parts[0], parts[3]):
        assert logits(LoadOptions(model=str(given), n_ctx=64, data_dir=str(tmp_path / "data"))) == wanted


@pytest.mark.parametrize("kind", ["model", "head"])
def test_what_drafts_may_be_split(whole: Path, tmp_path: Path, kind: str) -> None:
    small = tmp_path / "small.gguf"
    if kind == "model":
        tiny_gguf.write(small, "llama", seed=2, n_layer=2)
    else:
        tiny_eagle.write(small, whole, (1, 3, 5), n_known=40)
    folder = tmp_path / "parts"
    folder.mkdir()
    model, drafter = split_gguf.split(whole, folder, 3), split_gguf.split(small, folder, 3)
    load = LoadOptions(model=str(model[1]), drafter=str(drafter[2]), n_ctx=64, data_dir=str(tmp_path / "data"))
    with closing(open_backend(load, lambda what, share: None)) as backend:
        assert backend.info.drafter == "small" and backend.draft_model is not None
        assert backend.draft_model.guesser() is not None
        assert backend.policy(PolicyChoice("chain")) is not None


def test_what_is_shown_counts_all_parts(whole: Path, tmp_path: Path) -> None:
    parts = split_gguf.split(whole, tmp_path, 3, name="big")
    folders = paths.find(str(tmp_path / "data"))
    one, several = (model_details.facts(str(path), folders, None) for path in (whole, parts[2]))
    same = ("parameters", "weight_bytes", "memory_bytes", "groups", "head_type", "head_tied", "layers", "vocabulary")
    assert {key: one[key] for key in same} == {key: several[key] for key in same}
    assert several["file_bytes"] == sum(path.stat().st_size for path in parts)
    assert several["files"] == [str(path) for path in parts] and several["name"] == "big"
    assert one["sha256"] == several["sha256"]
    assert "(the first of 3 parts)" in model_details.text(several) and "parts" not in model_details.text(one)


# ---- from a hub ------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    model, folder = embedded.path(), tmp_path / "hub"
    assert model is not None
    folder.mkdir()
    with serving(Hub({REPO: {p.name: p for p in split_gguf.split(model, folder, 3, name="big-Q8_0")}})) as running:
        yield running


def call(hub: Hub, tmp_path: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    ours = {"SPECEE_DATA_DIR": str(tmp_path / "data"), "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url}
    env = {**{name: value for name, value in os.environ.items() if not name.startswith("HF_")}, **ours}
    done = subprocess.run([*PROGRAM, *arguments], env=env, input="", capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.skipif(missing_model() is not None, reason="no embedded model")
def test_pull_list_path_show_doctor_rm(hub: Hub, tmp_path: Path) -> None:
    size = sum(path.stat().st_size for path in hub.repos[REPO].values())
    pulled = json.loads(call(hub, tmp_path, "models", "pull", f"hf:{REPO}", "--json").stdout)
    assert pulled["bytes"] == size and len(pulled["sha256"]) == 3
    found = json.loads(call(hub, tmp_path, "models", "path", f"{REPO}:q8_0", "--json").stdout)
    assert [Path(path).name for path in found["files"]] == list(hub.repos[REPO]) and found["path"] == pulled["path"]
    rows = json.loads(call(hub, tmp_path, "models", "list", "--json").stdout)
    (row,) = [row for row in rows if row["name"].startswith(f"hf:{REPO}")]
    assert row["bytes"] == size and row["where"] == "cache" and row["calibrated"] is None, "before it was read"
    last = found["files"][2]  # behind a link whose target has no number
    assert json.loads(call(hub, tmp_path, "models", "show", last, "--json").stdout)["file_bytes"] == size
    answer = call(hub, tmp_path, "--model", last, "-p", "Hi", "--max-tokens", "3", "--ctx", "256")
    assert answer.stdout.strip() and answer.stderr == ""
    checks = json.loads(call(hub, tmp_path, "doctor", "--quick", "--model", row["name"], "--json").stdout)
    assert any(path in json.dumps(checks) for path in found["files"][:1])
    Path(found["files"][1]).unlink()
    line = call(hub, tmp_path, "--model", last, "-p", "Hi", code=3).stderr
    assert "big-Q8_0-00002-of-00003.gguf is not beside it" in line and f"specee-chat models pull hf:{REPO}:" in line
    rows = json.loads(call(hub, tmp_path, "models", "list", "--json").stdout)
    assert not any(row["name"].startswith(f"hf:{REPO}") and row["where"] == "cache" for row in rows)
    call(hub, tmp_path, "models", "pull", f"hf:{REPO}:big-Q8_0-00001-of-00003.gguf")
    freed = json.loads(call(hub, tmp_path, "models", "rm", row["name"], "--yes", "--json").stdout)
    assert freed["bytes"] == size and not any(Path(tmp_path / "hf").rglob("*.gguf"))

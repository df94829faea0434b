"""Which draft head a model has: its user's own or a shipped one."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import tiny_eagle
import tiny_gguf
from head_drafts import drafts
from real_engine import missing_model

from specee.app import paths
from specee.app.cli import model_details
from specee.app.engine.draft_file import OWN_HEAD
from specee.app.engine.loading import open_backend
from specee.app.engine.protocol import Message
from specee.app.options import PLAIN_GREEDY, LoadOptions
from specee.models import embedded, file_hash, gguf_header, heads
from specee.predictors.training import head_file
from specee.predictors.training.conversations import Conversation
from specee.predictors.training.head_file import HeadInfo

NO_MODEL = missing_model()
needs_model = pytest.mark.skipif(NO_MODEL is not None, reason=str(NO_MODEL))
NO_STATES = (np.zeros((0, 0), np.float16), np.zeros((0, 0), np.float16))


@needs_model
def test_a_models_own_head_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "SHIPPED", {})
    target = embedded.path()
    assert target is not None
    load = LoadOptions(data_dir=str(tmp_path), n_ctx=256)
    sha256 = file_hash.sha256(target, tmp_path / "cache")
    path = heads.own_path(tmp_path / "heads", sha256)
    path.parent.mkdir()
    tiny_eagle.write(path, target, (2, 15, 27), n_known=512)

    def drafter(options: LoadOptions) -> str | None:
        backend = open_backend(options, lambda what, share: None)
        backend.close()
        return backend.info.drafter

    assert drafter(load) == OWN_HEAD
    assert drafter(replace(load, drafter="none")) is None
    assert drafter(replace(load, n_slots=2)) is None, "it follows one chat"
    facts = model_details.facts(None, paths.find(str(tmp_path)), None)
    assert facts["head"] == str(path) and facts["head_acceptance"] == []
    assert f"{path}" in model_details.text(facts)
    path.write_bytes(b"GGUF nonsense")
    assert drafter(load) is None, "nobody asked for it"
    assert "unusable" in model_details.text(model_details.facts(None, paths.find(str(tmp_path)), None))


def test_of_the_users_head_and_a_shipped_one_the_better_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tiny_gguf.write(tmp_path / "target.gguf", "llama", seed=1)
    header = gguf_header.read_model(target)

    def write(path: Path, first: float, token: int = 0) -> Path:
        path.parent.mkdir(exist_ok=True)
        info = HeadInfo("a head", "a", (1, 3, 5), 64, 1, 1, 64, 256, 1e-5, 1e4, (first, 0.25), 7, "a test")
        weights = {"fc": np.zeros((64, 192), np.float32), "output": np.zeros((32, 64), np.float32)}
        head_file.write(path, info, weights, token + np.arange(32, dtype=np.int32), "q8_0", target)
        return path

    def find(sha256: str) -> Path | None:
        return heads.find(folder, sha256, header)

    shipped = write(tmp_path / "data" / "shipped.gguf", 0.45)
    monkeypatch.setattr(heads, "SHIPPED", {"a": "shipped.gguf"})
    monkeypatch.setenv("SPECEE_EMBEDDED_DIR", str(tmp_path / "data"))
    folder = tmp_path / "heads"
    own = heads.own_path(folder, "a")
    assert find("a") == shipped and find("b") is None
    write(own, 0.3)
    assert find("a") == shipped
    write(own, 0.5, token=10_000)
    assert find("a") == shipped, "for tokens that there are not"
    told = heads.unusable_own(folder, "a", header)
    assert told is not None and "tokens that there are not; specee-chat train makes it again" in told
    assert not heads.is_better(own, (0.4,), header), "training would leave it there"
    write(own, 0.5)
    assert find("a") == own and heads.unusable_own(folder, "a", header) is None
    assert [heads.is_better(own, (rate,), header) for rate in (0.45, 0.55)] == [True, False]
    assert not heads.is_better(shipped, (0.5,), header)
    monkeypatch.setattr(heads, "SHIPPED", {"b": "shipped.gguf"})
    own.rename(heads.own_path(folder, "b"))
    assert find("b") == shipped, "the user's is another model's"
    damaged = heads.own_path(folder, "b")
    damaged.write_bytes(b"GGUF nonsense")
    assert find("b") == shipped
    digest = "b" * 64
    damaged.rename(heads.own_path(folder, digest))
    assert "specee-chat train makes it again" in (heads.unusable_own(folder, digest, header) or "")


@needs_model
def test_the_shipped_heads_are_those_of_their_models() -> None:
    for sha256, name in heads.SHIPPED.items():
        path = embedded.data_file(name)
        assert path is not None, f"{name} is not installed"
        header = gguf_header.read_model(path)
        assert heads.trained_for(header) == sha256
        assert heads.is_worth_using(header) and path.stat().st_size < 24_000_000


@needs_model
def test_the_embedded_models_head_drafts(tmp_path: Path) -> None:
    """In the runtime its first drafts are right as often as training said, on other prompts."""
    target = embedded.path()
    assert target is not None
    path = heads.find(tmp_path, file_hash.sha256(target, tmp_path / "cache"), gguf_header.read_model(target))
    assert path is not None
    backend = open_backend(LoadOptions(n_ctx=512, data_dir=str(tmp_path)), lambda what, share: None)
    assert backend.info.drafter == OWN_HEAD
    right = tried = 0
    for question in ("Why do rivers bend?", "Write a function that adds two numbers.", "List three kinds of bread."):
        text = backend.format((Message("user", question),), None)
        tokens = backend.tokenize(text, bos=False)
        backend.engine.prefill(tokens)
        answer: list[int] = []
        with closing(backend.sampler(PLAIN_GREEDY)) as sampler:
            while len(answer) < 80 and not backend.engine.is_stop(token := backend.engine.greedy(0, sampler)):
                answer.append(token)
                backend.engine.forward(token)
        found = drafts(path, backend, Conversation([*tokens, *answer], len(tokens), answer, *NO_STATES), before=[])
        right, tried = right + found[0], tried + found[1]
    backend.close()
    assert tried > 100 and right / tried > 0.3, (right, tried)

"""A second model drafts for the first, on the real engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

import changed_gguf
import tiny_eagle
import tiny_gguf
from real_engine import missing_library, missing_model

from specee.app import paths
from specee.app.cli import model_details
from specee.app.engine import draft_file
from specee.app.engine.loading import open_backend
from specee.app.errors import AppError
from specee.app.options import LoadOptions, PolicyChoice
from specee.models import cache, embedded, file_hash, gguf_header, heads, registry
from specee.models.errors import ModelError
from specee.native.engine import Model, RowEngine, Sampler
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding import driver
from specee.predictors.decoding.chain import Chain
from specee.predictors.decoding.dense import Dense
from specee.predictors.decoding.state import begin_decoding
from specee.predictors.drafters.chain import ChainDrafter
from specee.predictors.drafters.draft_engine import RowDraftEngine
from specee.predictors.drafters.small_model import SmallModelGuesser

pytestmark = pytest.mark.skipif(missing_library() is not None, reason="no native library")
needs_model = pytest.mark.skipif(missing_model() is not None, reason="no embedded model")
SLOW_STEPS = {1: 1e3, 8: 1e3 + 1}  # of the large model: whatever the small one takes, it is asked
N_TOKENS = 40


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    path = embedded.path()
    assert path is not None
    return Path(shutil.copy(path, tmp_path / "copy.gguf"))


def decode(engine: RowEngine, policy: Any, prompt: list[int], sampler: Sampler) -> tuple[list[int], Any]:
    engine.prefill(prompt)
    state = begin_decoding(engine, prompt, sampler, np.random.default_rng(3), N_TOKENS)
    return [event.token for event in driver.run(policy, engine, state)], state.stats


class Pair:
    """Two open models: the large one's engine, and what the small one drafts."""

    def __init__(self, large: Path, small: Path, n_ctx: int = 256, small_ctx: int = 256) -> None:
        self.models = Model(large), Model(small)
        self.engine = RowEngine(self.models[0], n_ctx=n_ctx, n_threads=2)
        self.small = RowEngine(self.models[1], n_ctx=small_ctx, n_threads=2)
        self.sampler = Sampler(self.models[1], temperature=1.0, top_k=8)

    def chain(self) -> Any:
        guesser = SmallModelGuesser(
            RowDraftEngine(self.small, self.sampler), {1: 1e-3}, self.engine.n_vocab, lambda: 0.0
        )
        return Chain(ChainDrafter([], CostModel(SLOW_STEPS, self.engine.max_equal_rows), guesser), 7)

    def samplers(self) -> list[Sampler]:
        """Greedy, with penalties, and drawn with a seed."""
        model = self.models[0]
        settings: list[dict[str, Any]] = [{}, {"repeat_penalty": 1.2}, {"temperature": 0.7, "top_k": 20}]
        return [Sampler(model, **each) for each in settings]

    def close(self) -> None:
        for part in (self.sampler, self.small, self.engine, *self.models):
            part.close()


@pytest.fixture(params=["llama", "qwen2", "qwen3"])
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Random models; the architecture that cannot skip layers too, as small model and as large one."""
    large = tiny_gguf.write(tmp_path / "large.gguf", request.param, seed=1)
    small = tiny_gguf.write(tmp_path / "small.gguf", "qwen3" if request.param == "llama" else "llama", n_layer=2)
    pair = Pair(large, small, small_ctx=64)
    yield pair
    pair.close()


def test_random_models_generate_what_dense_generates(tiny: Pair) -> None:
    """Also where the small model's window is shorter than the conversation."""
    chain = tiny.chain()
    tested = 0
    for prompt in ([1, 5, 9, 17], [1, 5, 9, 17, 30, 31], [4, 3], [1] * 50):
        for sampler in tiny.samplers():
            expected, _ = decode(tiny.engine, Dense(), prompt, sampler)
            tokens, stats = decode(tiny.engine, chain, prompt, sampler)
            assert tokens == expected
            tested += stats.tested
            sampler.close()
    assert tested > 40


@needs_model
def test_the_same_model_drafts_what_it_generates(copy: Path) -> None:
    path = embedded.path()
    assert path is not None
    pair = Pair(path, copy)
    chain = pair.chain()
    for text in ("Name three rivers.", "Bread rises because the yeast"):
        prompt = pair.models[0].tokenize(text)
        for sampler in pair.samplers():
            expected, _ = decode(pair.engine, Dense(), prompt, sampler)
            tokens, stats = decode(pair.engine, chain, prompt, sampler)
            assert tokens == expected
            if sampler.is_plain:
                assert stats.tested and stats.accepted == stats.tested, "equal bits: it knows the answer"
            sampler.close()
    pair.close()


@needs_model
def test_a_backend_drafts_with_the_model_that_was_named(copy: Path, tmp_path: Path) -> None:
    load = LoadOptions(n_ctx=256, drafter=str(copy), data_dir=str(tmp_path))
    backend = open_backend(load, lambda what, share: None)
    assert backend.info.drafter == "copy" and backend.draft_model is not None
    chain = backend.policy(PolicyChoice("chain"))
    prompt = backend.tokenize("Name three rivers.", bos=False)
    expected, _ = decode(backend.engine, Dense(), prompt, Sampler(backend.model))
    assert decode(backend.engine, chain, prompt, Sampler(backend.model))[0] == expected
    backend.close()


BROKEN = {
    "no numbers": {"values": {}, "tensors": changed_gguf.filled("output_norm.weight", float("nan"))},
    "refused": {"values": {"llama.attention.layer_norm_rms_epsilon": None}},
}


@needs_model
@pytest.mark.parametrize("how", BROKEN)
def test_a_drafter_that_fails_is_missed_only_where_it_was_named(
    copy: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = changed_gguf.write(copy, tmp_path / "broken.gguf", **BROKEN[how])
    load = LoadOptions(n_ctx=256, drafter=str(broken), data_dir=str(tmp_path))
    backend = open_backend(load, lambda what, share: None)
    for _ in range(2):
        with pytest.raises(AppError, match=r"the drafter fails: .*broken\.gguf: .*--drafter none does without") as told:
            backend.policy(PolicyChoice("chain"))
        assert told.value.exit_code == 3
    backend.close()
    pair = draft_file.draft_model.Pair("broken", broken)
    monkeypatch.setattr(draft_file.draft_model, "paired", lambda model: pair)
    monkeypatch.setattr(heads, "find", lambda *_, **__: None)  # the model's own head would come first
    backend = open_backend(replace(load, drafter=None), lambda what, share: None)
    assert backend.info.drafter == "broken"
    prompt = backend.tokenize("Name three rivers.", bos=False)
    assert len(decode(backend.engine, backend.policy(PolicyChoice("chain")), prompt, Sampler(backend.model))[0]) > 2
    backend.close()


def open_with_head(tmp_path: Path, target: Path, layers: tuple[int, ...], n_known: int, **shape: Any) -> Any:
    head = tiny_eagle.write(tmp_path / "head.gguf", target, layers, n_known=n_known, **shape)
    load = LoadOptions(model=str(target), n_ctx=256, drafter=str(head), data_dir=str(tmp_path))
    return open_backend(load, lambda what, share: None)


@pytest.mark.parametrize("arch", tiny_gguf.ARCHITECTURES)
def test_an_eagle3_head_drafts_and_the_text_is_that_of_dense(tmp_path: Path, arch: str) -> None:
    backend = open_with_head(tmp_path, tiny_gguf.write(tmp_path / "large.gguf", arch, seed=1), (1, 3, 5), 40)
    assert backend.draft_model is not None and backend.info.drafter == "head"
    guesser = backend.draft_model.guesser()
    chain = Chain(ChainDrafter([], CostModel(SLOW_STEPS, 8), guesser), 7)
    tested = 0
    for prompt in ([1, 5, 9, 17], [1, 5, 9, 17, 30, 31]):
        for settings in ({}, {"repeat_penalty": 1.2}, {"temperature": 0.7, "top_k": 20}):
            sampler = Sampler(backend.model, **settings)  # type: ignore[arg-type]
            expected, _ = decode(backend.engine, Dense(), prompt, sampler)
            tokens, stats = decode(backend.engine, chain, prompt, sampler)
            assert tokens == expected
            tested += stats.tested
            sampler.close()
    assert tested > 20
    backend.close()


PUBLISHED: dict[str, dict[str, Any]] = {
    "all tokens": {},
    "of the model": {"own_embeddings": False, "own_head": False, "norm_before_fc": True},
    "its embeddings": {"own_embeddings": False, "n_known": 40, "norm_before_residual": True},
    "its LM head": {"own_head": False, "rope_factors": True},
    "longer heads": {"head_dim": 32, "half": True},
    "another width": {"width": 96, "n_known": 40},
    "more tokens": {"n_vocab": 100},
    "fewer tokens": {"n_vocab": 92},
}


@pytest.mark.parametrize("how", PUBLISHED)
def test_heads_as_others_publish_them(tmp_path: Path, how: str) -> None:
    """Also for a text with a token that the head lacks."""
    target = tiny_gguf.write(tmp_path / "large.gguf", "llama", seed=1)
    backend = open_with_head(tmp_path, target, (1, 3, 5), **{"n_known": 0, **PUBLISHED[how]})
    assert backend.draft_model is not None and not backend.info.drafter_is_for_others
    chain = Chain(ChainDrafter([], CostModel(SLOW_STEPS, 8), backend.draft_model.guesser()), 7)
    for prompt in ([1, 5, 9, 17], [1, 5, 95, 17]):
        sampler = Sampler(backend.model)
        expected, _ = decode(backend.engine, Dense(), prompt, sampler)
        tokens, stats = decode(backend.engine, chain, prompt, sampler)
        assert tokens == expected
        lacks = max(prompt) >= PUBLISHED[how].get("n_vocab", 96)
        assert lacks or stats.tested > 10
        sampler.close()
    backend.close()


@pytest.mark.parametrize(("made_for", "is_for_others"), [("own", False), ("0" * 64, True), (None, False)])
def test_a_head_of_another_file_works_and_says_so(tmp_path: Path, made_for: str | None, is_for_others: bool) -> None:
    target = tiny_gguf.write(tmp_path / "large.gguf", "llama", seed=1)
    sha256 = file_hash.sha256(target, tmp_path / "cache")
    values = {} if made_for is None else {"specee.target_sha256": sha256 if made_for == "own" else made_for}
    backend = open_with_head(tmp_path, target, (1, 3, 5), 40, values=values)
    assert backend.info.drafter == "head" and backend.info.drafter_is_for_others == is_for_others
    backend.close()
    own = heads.own_path(tmp_path / "heads", sha256)
    own.parent.mkdir()
    shutil.copy(tmp_path / "head.gguf", own)
    shown = model_details.text(model_details.facts(str(target), paths.find(str(tmp_path)), None))
    assert ("trained for another model file" in shown) == is_for_others
    shown = model_details.text(model_details.facts(str(own), paths.find(str(tmp_path)), None))
    assert "it reads layers 1, 3, 5 of its model" in shown
    assert all(value in shown for value in values.values())


def test_a_head_that_the_registry_pairs_with_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tiny_gguf.write(tmp_path / "large.gguf", "llama", seed=1)
    files = {"head": tiny_eagle.write(tmp_path / "head.gguf", target, (1, 3, 5)), "large": target}
    known = registry.entries()["llama3.2-1b"]
    entries = {
        name: replace(known, name=name, repo=f"o/{name}", file=f"{name}.gguf", drafter=drafter)
        for name, drafter in (("large", "head"), ("head", ""))
    }
    monkeypatch.setattr(registry, "_by_any_name", lambda: entries)
    monkeypatch.setattr(cache, "find", lambda source: (files[source.repo[2:]],))
    for drafter in (None, "head"):
        found = draft_file.find(LoadOptions(model="large", drafter=drafter), gguf_header.read_model(target), 512)
        assert found is not None and found.name == "head" and found.layers == (1, 3, 5)


@needs_model
def test_an_eagle3_head_next_to_the_embedded_model(tmp_path: Path) -> None:
    path = embedded.path()
    assert path is not None
    plain = Model(path)
    engine = RowEngine(plain, n_ctx=256, n_threads=2)
    prompt = plain.tokenize("The three longest rivers of the world are")
    expected, _ = decode(engine, Dense(), prompt, Sampler(plain))
    engine.close()
    plain.close()
    backend = open_with_head(tmp_path, path, (2, 15, 27), 512)
    chain = backend.policy(PolicyChoice("chain"))
    assert decode(backend.engine, chain, prompt, Sampler(backend.model))[0] == expected
    assert decode(backend.engine, Dense(), prompt, Sampler(backend.model))[0] == expected
    for choice, needs in ((PolicyChoice("chain"), True), (PolicyChoice("dense"), False), (PolicyChoice("tree"), True)):
        backend.prepare(choice)
        assert backend.engine.needs_states is needs, "for a policy that drafts, whichever was made last"
    backend.close()


def write(tmp_path: Path, name: str, **shape: Any) -> Path:
    return tiny_gguf.write(tmp_path / name, "llama", **shape)


def test_an_eagle3_head_needs_a_model_that_can_drop_rejected_tokens(tmp_path: Path) -> None:
    large = tiny_gguf.write(tmp_path / "large.gguf", "mamba")
    head = tiny_eagle.write(tmp_path / "head.gguf", large, (1, 3, 5))
    with pytest.raises(ModelError, match="the model keeps a running state"):
        draft_file.find(LoadOptions(drafter=str(head)), gguf_header.read_model(large), 512)


def test_which_model_drafts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = write(tmp_path, "large.gguf"), write(tmp_path, "small.gguf", n_layer=1)
    header = gguf_header.read_model(large)

    def find(drafter: str | None) -> Any:
        return draft_file.find(LoadOptions(model=str(large), drafter=drafter), header, 512)

    assert find("none") is None and find(None) is None
    assert find(str(small)).name == "small"
    with pytest.raises(ModelError, match="no model is called"):
        find("nonsense")
    with pytest.raises(ModelError, match="it is the model itself"):
        find(str(large))
    pair = draft_file.draft_model.Pair("small", small)
    monkeypatch.setattr(draft_file.draft_model, "paired", lambda model: pair)
    assert find(None).path == str(small) and find("none") is None
    monkeypatch.setattr(draft_file.memory, "free_ram", lambda: 1000)
    assert find(None) is None, "nobody asked for it"
    with pytest.raises(AppError, match=r"too little memory for the drafter: .* --drafter none"):
        find(str(small))


@needs_model
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"text", "not a model: .* is not a GGUF file"),
        (None, "the drafter does not fit: .*its tokenizer is llama, the model's is gpt2; take a small model"),
    ],
)
def test_the_command_line_says_what_is_wrong(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "small.gguf"
    if content is None:
        write(tmp_path, "small.gguf")
    else:
        path.write_bytes(content)
    program = [sys.executable, "-c", "from specee.app.cli.main import main; main()"]
    env = {**os.environ, "SPECEE_DATA_DIR": str(tmp_path / "data")}
    line = [*program, "-p", "Hi", "--max-tokens", "2", "--drafter", str(path)]
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3 and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert re.search(says, done.stderr)

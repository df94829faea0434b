"""A draft head in llama.cpp's own llama-server, built from the pinned source without our patch.

SPECEE_TEST_LLAMA_SERVER names the program (CONTRIBUTING.md says how to build it; CI does not), SPECEE_TEST_HEAD a head
of the embedded model, if not the shipped one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from head_alone import head_alone
from llama_server import ONE_BY_ONE, Completion, LlamaServer
from real_engine import missing_model

from specee.app.bench.prompts import DEFAULT
from specee.app.engine.decode import decode
from specee.app.engine.loading import NativeBackend, open_backend
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import Message
from specee.app.options import PLAIN_GREEDY, LoadOptions
from specee.models import embedded, file_hash, gguf_header, heads
from specee.predictors.decoding.stats import DecodingStats

PROGRAM = os.environ.get("SPECEE_TEST_LLAMA_SERVER")
MISSING = missing_model() if PROGRAM else "SPECEE_TEST_LLAMA_SERVER names no llama-server"
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"no llama-server to try: {MISSING}")

N_DRAFTS, N_TOKENS, N_CTX = 3, 64, 512


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("SPECEE_TEST_HEAD")
    if named:
        return Path(named)
    model = embedded.path()
    assert model is not None
    sha256 = file_hash.sha256(model, tmp_path_factory.mktemp("cache"))
    path = heads.find(tmp_path_factory.mktemp("heads"), sha256, gguf_header.read_model(model))
    assert path is not None
    return path


@pytest.fixture(scope="module")
def backend(head: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeBackend]:
    load = LoadOptions(drafter=str(head), n_ctx=N_CTX, data_dir=str(tmp_path_factory.mktemp("data")))
    with closing(open_backend(load, lambda what, share: None)) as opened:
        yield opened


@pytest.fixture(scope="module")
def prompts(backend: NativeBackend) -> list[list[int]]:
    return [make_prompt(backend, (Message("user", prompt.text),)).tokens for prompt in DEFAULT]


def answers(prompts: Sequence[list[int]], log: Path, **options: Any) -> tuple[list[Completion], tuple[int, list[int]]]:
    """Of a llama-server with these options, and what it says of all drafts."""
    path = embedded.path()
    assert PROGRAM is not None and path is not None
    with closing(LlamaServer(Path(PROGRAM), path, n_ctx=N_CTX, threads=1, log=log, **options)) as server:
        return [server.complete(prompt, N_TOKENS) for prompt in prompts], server.drafts()


def test_llama_server_drafts_with_the_head_as_we_do(
    head: Path, backend: NativeBackend, prompts: list[list[int]], tmp_path: Path
) -> None:
    plain, _ = answers(prompts, tmp_path / "plain.log", options=ONE_BY_ONE)
    drafted, (n_drafts, by_position) = answers(
        prompts, tmp_path / "head.log", head=head, n_drafts=N_DRAFTS, options=ONE_BY_ONE
    )
    assert [each.tokens for each in drafted] == [each.tokens for each in plain]
    assert sum(each.accepted for each in plain) == 0 < sum(each.accepted for each in drafted) == sum(by_position)
    assert n_drafts > N_TOKENS

    backend.engine.n_batch = 1  # tokens of a prompt, as there
    policy, ours = head_alone(backend, N_DRAFTS), DecodingStats()
    for prompt, their in zip(prompts, drafted, strict=True):
        backend.engine.roll_back(0)
        backend.engine.prefill(prompt)
        state, steps = decode(backend, policy, prompt, PLAIN_GREEDY, 0, N_TOKENS)
        assert [event.token for event in steps] == their.tokens
        ours += state.stats
    theirs = sum(each.accepted for each in drafted), sum(each.drafted for each in drafted)
    assert theirs[0] / theirs[1] == pytest.approx(ours.accepted / ours.tested, abs=0.02)


def test_the_command_of_the_readme(head: Path, prompts: list[list[int]], tmp_path: Path) -> None:
    """Without further options it verifies drafts in batches."""
    with_head, _ = answers(prompts[:2], tmp_path / "head.log", head=head)
    assert all(len(each.tokens) > 8 and each.accepted > 0 for each in with_head)

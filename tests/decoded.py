"""Tokens that a policy generates on a real backend."""

from __future__ import annotations

from typing import Any

from specee.app.engine.decode import decode
from specee.app.engine.prompt import make_prompt
from specee.app.engine.protocol import Message
from specee.app.options import PLAIN_GREEDY, PolicyChoice, Sampling
from specee.predictors.decoding.policy import Policy
from specee.predictors.types import TokenState

N_TOKENS = 48


def run(
    backend: Any,
    wanted: PolicyChoice | Policy,
    text: str,
    sampling: Sampling = PLAIN_GREEDY,
) -> tuple[list[int], Any]:
    policy = backend.policy(wanted) if isinstance(wanted, PolicyChoice) else wanted
    backend.engine.roll_back(0)
    return go_on(backend, policy, text, sampling)


def go_on(
    backend: Any, policy: Policy, text: str, sampling: Sampling = PLAIN_GREEDY, n_tokens: int = N_TOKENS
) -> tuple[list[int], Any]:
    """The same, but what is there of the prompt stays."""
    prompt = make_prompt(backend, (Message("user", text),)).tokens
    engine = backend.engine
    engine.prefill(prompt)
    tokens: list[int] = []
    state, events = decode(backend, policy, prompt, sampling, 1, n_tokens)
    for event in events:
        if event.state is TokenState.ROLLED_BACK:
            del tokens[event.index :]
        elif event.index == len(tokens):
            tokens.append(event.token)
    assert engine.n_in_flight == 0
    assert engine.tokens[len(prompt) :] == tokens[:-1], "every row but the last token's is committed"
    return tokens, state.stats

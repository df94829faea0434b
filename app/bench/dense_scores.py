"""What the dense model thinks of a text: how likely each token is, and which one it would have chosen itself."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from specee.app.bench import metrics
from specee.app.bench.answer import DenseScores, PolicyAnswer
from specee.app.engine.backend import Backend, ChatEngine
from specee.app.first_difference import first_difference
from specee.app.options import Sampling
from specee.native.errors import NativeError


def score_all(
    backend: Backend, prompt: list[int], answers: dict[str, PolicyAnswer], dense: str, sampling: Sampling
) -> dict[str, DenseScores]:
    """The scores of all answers to a prompt; `dense` is the label of the dense one."""
    expected = answers[dense].tokens
    own = score(backend, prompt, expected, sampling)
    scores = {}
    for label, answer in answers.items():
        # up to the first difference the text is dense's own, and so are the scores
        same = first_difference(answer.tokens, expected)
        same = len(expected) if same is None else same
        rest = score(backend, prompt, answer.tokens, sampling, same)
        scores[label] = DenseScores(own.nll[:same] + rest.nll, own.choices[:same] + rest.choices)
    return scores


def score(backend: Backend, prompt: list[int], text: list[int], sampling: Sampling, begin: int = 0) -> DenseScores:
    """Runs the answer `text` through the dense model, one row at a time as dense decodes, from token `begin` on."""
    scores = DenseScores([], [])
    if begin >= len(text):
        return scores
    engine = backend.engine
    _read(engine, prompt, text[:begin])
    with closing(backend.sampler(replace(sampling, temperature=0.0))) as sampler:
        sampler.rewind(prompt, text[:begin])
        for index in range(begin, len(text)):
            token = text[index]
            scores.choices.append(int(engine.greedy(0, sampler)))
            scores.nll.append(metrics.nll(engine.logits(0), token))
            sampler.accept(token)
            if index + 1 < len(text):
                engine.forward(token)
    return scores


def _read(engine: ChatEngine, prompt: list[int], text: list[int]) -> None:
    """Brings prompt and text into the cache as dense decoding does: the prompt at once, then a row for each token."""
    wanted = prompt + text[:-1]
    keep = first_difference(engine.tokens, wanted)
    keep = len(wanted) if keep is None else keep
    if not text or keep < len(prompt):
        engine.roll_back(0)
        engine.prefill(prompt)
        keep = len(prompt)
    try:
        engine.roll_back(keep)
    except NativeError:  # a memory that cannot go back
        _read(engine, prompt, [])
        keep = len(prompt)
    for token in text[keep - len(prompt) :]:
        engine.forward(token)

"""Samplers on rows of logits of a real engine: against what their formulas say."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from specee.models import embedded
from specee.native.engine import Model, RowEngine, Sampler
from specee.native.errors import NativeError

JSON = r"""
root ::= "{" ws "\"" [a-z ]+ "\"" ws ":" ws value ws "}"
value ::= [0-9]+ | "\"" [^"\\]* "\"" | "[" value ("," ws value)* "]"
ws ::= " "?
"""


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    path = embedded.path()
    if path is None:
        pytest.skip("built without the embedded model")
    model = Model(path)
    yield model
    model.close()


@pytest.fixture(scope="module")
def shared_engine(model: Model) -> Iterator[RowEngine]:
    engine = RowEngine(model, n_ctx=512, n_threads=2)
    yield engine
    engine.close()


@pytest.fixture
def make(model: Model) -> Iterator[Any]:
    made: list[Sampler] = []

    def make(**options: Any) -> Sampler:
        made.append(Sampler(model, **options))
        return made[-1]

    yield make
    for sampler in made:
        sampler.close()


@pytest.fixture
def row(engine: RowEngine) -> np.ndarray[Any, Any]:
    engine.prefill(engine.model.tokenize("A list of colours: red, green and"))
    return engine.logits(0).astype(np.float64)


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    p = np.exp(logits - logits.max())
    return np.asarray(p / p.sum())


def whole(engine: RowEngine, sampler: Sampler) -> np.ndarray[Any, Any]:
    out = np.zeros(engine.n_vocab)
    tokens, probs = engine.distribution(0, sampler)
    out[tokens] = probs
    return out


def stops(model: Model) -> list[int]:
    return [token for token in range(model.n_vocab) if model.is_stop(token)]


def test_a_bias_is_added(engine: RowEngine, make: Any, row: np.ndarray[Any, Any]) -> None:
    """Also where many tokens are better without it."""
    last, first = int(row.argmin()), int(row.argmax())
    assert engine.greedy(0, make(logit_bias=[(last, 1000.0)])) == last
    assert engine.greedy(0, make(logit_bias=[(first, -100.0)])) != first
    expected = row.copy()
    expected[[last, first]] += [3.0, -2.0]
    shaped = whole(engine, make(temperature=1.0, logit_bias=[(last, 3.0), (first, -2.0)]))
    assert np.allclose(shaped, softmax(expected), atol=1e-5)
    assert engine.greedy(0, make(temperature=0.0, top_k=4, logit_bias=[(last, 1000.0)])) == last


@pytest.mark.parametrize("presence", [0.0, 1.5, -1.0])
@pytest.mark.parametrize("frequency", [0.0, 0.7, -0.5])
def test_presence_and_frequency_penalties_count_the_answer(
    engine: RowEngine, make: Any, row: np.ndarray[Any, Any], presence: float, frequency: float
) -> None:
    best = row.argsort()[-4:].tolist()
    sampler = make(temperature=1.0, presence_penalty=presence, frequency_penalty=frequency)
    sampler.rewind(prompt=[best[3]] * 9)
    for token in [best[0], best[0], best[1]]:
        sampler.accept(token)
    expected = row.copy()
    expected[best[0]] -= presence + 2 * frequency
    expected[best[1]] -= presence + frequency
    assert np.allclose(whole(engine, sampler), softmax(expected), atol=1e-5)


def test_stop_tokens_are_exempt_from_penalties(
    engine: RowEngine, make: Any, model: Model, row: np.ndarray[Any, Any]
) -> None:
    """Each turn of a chat ends with one; they also leave the place in the window to others."""
    stop, others = stops(model), row.argsort()[-3:].tolist()
    with_stops = make(temperature=1.0, repeat_penalty=2.0, repeat_last_n=4, presence_penalty=2.0, frequency_penalty=2.0)
    without = make(temperature=1.0, repeat_penalty=2.0, repeat_last_n=4, presence_penalty=2.0, frequency_penalty=2.0)
    with_stops.rewind([others[0], *stop * 5, others[1]], [*stop, others[2]])
    without.rewind(others[:2], others[2:])
    for token in stop:
        with_stops.accept(token)
    assert np.array_equal(whole(engine, with_stops), whole(engine, without))
    shaped = whole(engine, with_stops)
    counted = [token for token in range(engine.n_vocab) if token not in others]
    assert np.allclose(shaped[counted] / shaped[counted].sum(), softmax(row[counted]), atol=1e-5)


def test_rewinding_is_as_if_the_rest_had_never_been(engine: RowEngine, make: Any, row: np.ndarray[Any, Any]) -> None:
    options = {"temperature": 1.0, "repeat_penalty": 1.5, "repeat_last_n": 5, "presence_penalty": 1.0, "grammar": JSON}
    rng, prompt = np.random.default_rng(0), row.argsort()[-8:].tolist()
    sampler = make(**options)
    sampler.rewind(prompt)
    text: list[int] = []
    for _ in range(40):
        n = int(rng.integers(0, len(text) + 1))
        sampler.rewind(prompt, text[:n])
        del text[n:]
        for _ in range(int(rng.integers(1, 8))):
            p = whole(engine, sampler)
            text.append(int(rng.choice(engine.n_vocab, p=p / p.sum())))
            sampler.accept(text[-1])
        fresh = make(**options)
        fresh.rewind(prompt)
        for token in text:
            fresh.accept(token)
        assert np.array_equal(whole(engine, sampler), whole(engine, fresh))


@pytest.mark.parametrize("options", [
    {}, {"repeat_penalty": 1.3}, {"temperature": 0.8}, {"temperature": 0.8, "top_k": 3},
    {"temperature": 1.0, "top_k": 40, "min_p": 0.05, "repeat_penalty": 1.1}, {"temperature": 1.0, "min_p": 0.2},
])  # fmt: skip
def test_a_grammar_looks_at_as_many_tokens_as_it_must(
    engine: RowEngine, model: Model, make: Any, row: np.ndarray[Any, Any], options: dict[str, Any]
) -> None:
    """Against a mask of the whole vocabulary, as biases of a sampler without a grammar."""
    sampler, text = make(grammar=JSON, **options), []
    for _ in range(3):
        allowed = np.array([sampler.allows(token) for token in range(engine.n_vocab)])
        banned = [(int(token), -1e6) for token in np.flatnonzero(~allowed)]
        masked = make(logit_bias=banned, **options)
        masked.rewind([], text)
        assert engine.greedy(0, sampler) == engine.greedy(0, masked)
        if not sampler.is_greedy:
            p, q = whole(engine, sampler), whole(engine, masked)
            assert np.allclose(p, q, atol=1e-5)
        text.append(engine.greedy(0, sampler))
        sampler.accept(text[-1])


def test_what_a_grammar_forbids_is_refused(engine: RowEngine, make: Any, model: Model, row: Any) -> None:
    sampler = make(grammar='root ::= "a"')
    (a, *_), stop = model.tokenize("a", special=False), stops(model)[0]
    for token in (stop, *model.tokenize("b", special=False), -1, engine.n_vocab, 10**6):
        assert not sampler.allows(token)
        with pytest.raises(NativeError, match="refused a token"):
            sampler.accept(token)
    assert engine.greedy(0, sampler) == a
    sampler.accept(a)
    assert engine.greedy(0, sampler) in stops(model) and sampler.allows(stop)
    sampler.accept(stop)
    for n in (-1, 3):
        assert sampler._lib.specee_grammar_rewind(sampler._grammar, n) < 0


def test_a_text_that_the_vocabulary_cannot_write(engine: RowEngine, make: Any, row: Any) -> None:
    sampler = make(grammar=f"root ::= <[{engine.n_vocab}]>")
    for choose in (engine.greedy, engine.distribution):
        with pytest.raises(NativeError, match="this vocabulary cannot write"):
            choose(0, sampler)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "top_k": 2}, {"repeat_penalty": 1.5}, {"grammar": JSON}])
@pytest.mark.parametrize("n", [0, 1, 20])
def test_logprobs_are_the_models_own(
    engine: RowEngine, make: Any, row: np.ndarray[Any, Any], options: dict[str, Any], n: int
) -> None:
    sampler = make(top_logprobs=n, **options)
    assert sampler.logprobs(3) == () and not sampler.is_plain
    sampler.rewind(row.argsort()[-9:].tolist())
    token = engine.greedy(0, sampler) if sampler.is_greedy else int(engine.distribution(0, sampler)[0][-1])
    expected = np.log(softmax(row))
    (chosen, logprob), *top = sampler.logprobs(token)
    assert chosen == token and np.isclose(logprob, expected[token])
    assert np.allclose([p for _, p in top], np.sort(expected)[::-1][:n])
    assert all(np.isclose(p, expected[each]) for each, p in top)


def test_samplers_give_their_memory_back(model: Model) -> None:
    def size() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def many(n: int) -> None:
        for _ in range(n):
            sampler = Sampler(
                model, temperature=1.0, top_k=5, repeat_penalty=1.1, repeat_last_n=8192, presence_penalty=1.0,
                logit_bias=[(1, 1.0)], grammar=JSON,
            )  # fmt: skip
            sampler.close()
            sampler.close()

    many(50)
    before = size()
    many(500)
    assert size() - before < 20_000, "KiB; 500 of them hold 150 MB"

"""Stand-ins for the tests: an engine with scripted logits that checks the rules of the real one, small artifacts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from specee.predictors.calibration.file import Artifact, DraftWeights, LensWeights, PredictorWeights
from specee.predictors.calibration.q8 import to_q8
from specee.predictors.types import Distribution, Floats, Sampler, State, TokenEvent, Tokens


@dataclass
class FakeSampler:
    """Temperature and repetition penalty; counts what was accepted as the real one does."""

    temperature: float = 0.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 16
    top_k: int = 0
    said: list[int] = field(default_factory=list)

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def is_plain(self) -> bool:
        return self.is_greedy and self.repeat_penalty == 1.0

    def accept(self, token: int) -> None:
        self.said.append(token)

    def rewind(self, tokens: Sequence[int]) -> None:
        self.said = list(tokens)

    def shape(self, logits: Floats) -> Floats:
        shaped = logits.astype(np.float64)
        for token in set(self.said[-self.repeat_last_n :]):
            shaped[token] = (
                shaped[token] / self.repeat_penalty if shaped[token] > 0 else shaped[token] * self.repeat_penalty
            )
        return shaped.astype(np.float32)


@dataclass(frozen=True)
class FakeRise:
    stopped: int
    scores: tuple[float, ...]
    best: int


@dataclass
class FakeEngine:
    """A model whose logits are a hash of the text so far; its early layers agree with its last with a given chance.

    A row computed on top of rows that were propagated or are not deep enough would be wrong in the real engine; here
    the first changes its logits, the second is an error.
    """

    seed: int = 0
    n_layer: int = 12
    n_embd: int = 8
    n_vocab: int = 24
    n_ctx: int = 256
    early_agreement: float = 0.7
    score_range: tuple[float, float] = (0.0, 1.0)
    stop_tokens: tuple[int, ...] = ()
    words: dict[int, str] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)  # 0: exact K/V, else the depth it was propagated from
    calls: list[tuple[str, int, int, int]] = field(default_factory=list)
    rows: list[Floats] = field(default_factory=list)
    fail_at: int = -1

    @property
    def length(self) -> int:
        return len(self.tokens)

    def prefill(self, tokens: Sequence[int]) -> int:
        self.tokens, self.depths, self.marks = list(tokens), [self.n_layer] * len(tokens), [0] * len(tokens)
        self.rows = [self._logits(len(tokens) - 1, self.n_layer)]
        return 0

    def advance(self, pos: int, n: int, end: int, tokens: Sequence[int] | None = None, logits: bool = False) -> None:
        self.calls.append(("advance", pos, n, end))
        if 0 <= self.fail_at <= len(self.calls):
            raise RuntimeError("scripted failure")
        if tokens is not None:
            assert pos == self.length and len(tokens) == n
            assert self.length + n <= self.n_ctx, "no cells left"
            self.tokens += [int(t) for t in tokens]
            self.depths += [0] * n
            self.marks += [0] * n
        assert n >= 1 and pos + n <= self.length
        assert len(set(self.depths[pos : pos + n])) == 1, "rows of one batch start at one depth"
        assert self.depths[pos] < end <= self.n_layer
        assert all(d >= end for d in self.depths[:pos]), "an earlier row is not deep enough"
        self.depths[pos : pos + n] = [end] * n
        assert not logits or end == self.n_layer
        if logits:
            self.rows = [self._logits(p, end) for p in range(pos, pos + n)]

    def rise(
        self, token: int | None, layers: Sequence[int], k: int, candidates: Sequence[int], threshold: float
    ) -> FakeRise:
        scores: list[float] = []
        best = -1
        if token is not None:
            self.advance(self.length, 1, min([layers[0], *self.depths]), tokens=[token])
        for layer in layers:
            while (depth := self.depths[-1]) < layer:
                first = self.depths.index(depth)
                stop = min(layer, self.depths[first - 1]) if first else layer
                self.advance(first, self.length - first, stop)
            if k == 0:
                best, score = self.margin(self.length - 1)
            else:
                score = self.probe(self.length - 1, np.array(candidates, np.int32))
            scores.append(score)
            if score > threshold:
                return FakeRise(len(scores) - 1, tuple(scores), best)
        return FakeRise(len(layers), tuple(scores), best)

    def propagate(self, pos: int, n: int) -> None:
        assert n == 1 and all(d == self.n_layer for d in self.depths[:pos])
        self.calls.append(("propagate", pos, n, self.depths[pos]))
        self.marks[pos] = self.depths[pos]
        self.depths[pos] = self.n_layer

    def lens_head(self, pos: int) -> None:
        self.calls.append(("lens_head", pos, 1, self.depths[pos]))
        self.rows = [self._logits(pos, self.depths[pos])]

    def probe(self, pos: int, candidates: Tokens) -> float:
        assert len(set(candidates.tolist())) == len(candidates) == 4
        assert 0 < self.depths[pos] < self.n_layer
        low, high = self.score_range
        return low + (high - low) * float(self._rng(pos, self.depths[pos], "probe").random())

    def margin(self, pos: int) -> tuple[int, float]:
        best = int(np.argmax(self._logits(pos, self.depths[pos])))
        return best, self.probe(pos, np.arange(4, dtype=np.int32))

    def draft(self, pos: int, token: int, k: int) -> Tokens:
        assert pos > 0
        true = np.argsort(-self._logits(pos, self.n_layer))[:2]
        others = self._rng(pos, 0, "draft").permutation(self.n_vocab)
        return np.array(list(dict.fromkeys([*true.tolist(), *others.tolist()]))[:k], np.int32)

    def roll_back(self, length: int) -> None:
        assert 0 <= length <= self.length
        self.calls.append(("roll_back", length, 0, 0))
        del self.tokens[length:], self.depths[length:], self.marks[length:]

    def greedy(self, row: int, sampler: Sampler) -> int:
        assert isinstance(sampler, FakeSampler)
        return int(np.argmax(sampler.shape(self.rows[row])))

    def distribution(self, row: int, sampler: Sampler) -> Distribution:
        assert isinstance(sampler, FakeSampler)
        shaped = sampler.shape(self.rows[row]).astype(np.float64) / sampler.temperature
        order = np.argsort(-shaped)[: sampler.top_k or None]
        probs = np.exp(shaped[order] - shaped[order[0]])
        return Distribution(order.astype(np.int32), (probs / probs.sum()).astype(np.float32))

    def is_stop(self, token: int) -> bool:
        return token in self.stop_tokens

    def word(self, token: int) -> str:
        return self.words.get(token, "")

    def _rng(self, pos: int, depth: int, what: str) -> np.random.Generator:
        text = repr((self.seed, self.tokens[: pos + 1], self.marks[: pos + 1], depth, what))
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))

    def _logits(self, pos: int, depth: int) -> Floats:
        true = self._rng(pos, self.n_layer, "logits").normal(size=self.n_vocab) * 2
        rng = self._rng(pos, depth, "lens")
        if depth < self.n_layer and rng.random() > self.early_agreement:
            true = rng.normal(size=self.n_vocab) * 2
        return true.astype(np.float32)


def make_artifact(
    boundaries: tuple[int, ...] = (4, 6, 8, 10),
    offline: tuple[int, ...] = (6, 10),
    n_layer: int = 12,
    n_embd: int = 32,
    n_vocab: int = 24,
    n_hidden: int = 512,
    seed: int = 0,
) -> Artifact:
    """An artifact with random weights: rank 32, k = 4, margin rule at the last boundary."""
    rng = np.random.default_rng(seed)

    def floats(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    lenses = {b: LensWeights(to_q8(floats(32, n_embd)), to_q8(floats(n_embd, 32)), floats(n_embd)) for b in boundaries}
    lenses[boundaries[-1]] = LensWeights(to_q8(floats(n_embd, n_embd)), None, floats(n_embd))
    mlps = {b: PredictorWeights(floats(n_hidden, 12), floats(n_hidden), floats(n_hidden), 0.25) for b in boundaries}
    shortlist = np.arange(0, n_vocab, 2, dtype=np.int32)
    return Artifact(
        base_sha256="ab" * 32,
        base_name="tiny.gguf",
        n_layer=n_layer,
        n_embd=n_embd,
        n_vocab=n_vocab,
        k=4,
        boundaries=boundaries,
        offline=offline,
        threshold=0.75,
        target_agreement=0.97,
        margin_layers=boundaries[-1:],
        margin_threshold=0.5,
        lenses=lenses,
        predictors=mlps,
        draft=DraftWeights(to_q8(floats(32, 2 * n_embd)), shortlist, to_q8(floats(n_embd, 32)), floats(n_embd)),
        metrics={"held_out": {"agreement": 0.5}},
        created_by="test",
    )


def replay(events: Iterable[TokenEvent]) -> list[int]:
    """The text that the events leave; checks the life of every token."""
    words: list[int] = []
    verified = 0
    for event in events:
        if event.state is State.ROLLED_BACK:
            assert verified <= event.index < len(words)
            assert words[event.index] == event.token
            del words[event.index :]
        elif event.index == len(words):
            words.append(event.token)
            if event.state is State.VERIFIED:
                assert verified == event.index, "a token is final only after all before it"
                verified += 1
        else:
            assert event.state is State.VERIFIED and event.index == verified < len(words)
            assert words[event.index] == event.token
            verified += 1
    assert verified == len(words), "every token is final in the end"
    return words

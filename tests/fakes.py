"""Stand-ins for the tests: an engine with scripted logits that checks the rules of the real one, small calibrations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from specee.predictors.calibration.calibration_file import Calibration, DraftWeights, LensWeights
from specee.predictors.exits.exit_predictor import ExitPredictor
from specee.predictors.q8 import to_q8
from specee.predictors.types import Floats, Logprobs, Sampler, TokenEvent, Tokens, TokenState


@dataclass
class FakeSampler:
    """Temperature and repetition penalty; counts what was accepted as the real one does."""

    temperature: float = 0.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 16
    top_k: int = 0
    forbidden: int | None = None
    """Its grammar: after a token t of the answer every token x is forbidden for which (x + t) % `forbidden` is 0."""
    top_logprobs: int | None = None
    accepted: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    seen: Floats | None = None
    closed: bool = False

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def is_plain(self) -> bool:
        return self.is_greedy and not self.remembers and self.top_logprobs is None

    @property
    def remembers(self) -> bool:
        return self.repeat_penalty != 1.0 or self.forbidden is not None

    def allows(self, token: int) -> bool:
        last = self.answer[-1] if self.answer else 0
        return self.forbidden is None or (token + last) % self.forbidden != 0

    def accept(self, token: int) -> None:
        assert self.allows(token), "a forbidden token was accepted"
        self.accepted.append(token)
        self.answer.append(token)

    def rewind(self, prompt: Sequence[int], answer: Sequence[int] = ()) -> None:
        assert self.forbidden is None or self.answer[: len(answer)] == list(answer), "no way back to this answer"
        self.accepted, self.answer = [*prompt, *answer], list(answer)

    def logprobs(self, token: int) -> Logprobs:
        if self.seen is None or self.top_logprobs is None:
            return ()
        row = self.seen - np.log(np.exp(self.seen).sum())
        return tuple((int(each), float(row[each])) for each in (token, *np.argsort(-row)[: self.top_logprobs]))

    def close(self) -> None:
        self.closed = True

    def shape(self, logits: Floats) -> Floats:
        self.seen = logits
        shaped = logits.astype(np.float64)
        for token in set(self.accepted[-self.repeat_last_n :]):
            shaped[token] = (
                shaped[token] / self.repeat_penalty if shaped[token] > 0 else shaped[token] * self.repeat_penalty
            )
        for token in range(len(shaped)):
            if not self.allows(token):
                shaped[token] = -np.inf
        return shaped.astype(np.float32)


@dataclass(frozen=True)
class FakeExitResult:
    stop_index: int
    scores: tuple[float, ...]
    best: int


@dataclass
class FakeRow:
    token: int
    depth: int = 0
    propagated: int = 0  # 0: exact K/V, else the depth it was propagated from
    parent: int = -1  # in flight too, or -1: the committed tip
    is_side: bool = False


@dataclass
class FakeContext:
    """What the slots of one engine share: its logits, which the next computation overwrites."""

    computations: int = 0
    batches: list[list[int]] = field(default_factory=list)
    """Rows of each slot in the batches over several."""


@dataclass
class FakeEngine:
    """A model whose logits are a hash of the text so far; its early layers agree with its last with a given chance.

    A row computed on top of rows that were propagated or are not deep enough would be wrong in the real engine; here
    the first changes its logits, the second is an error. Ids of rows are ascending; the first child of each row
    continues the principal chain, the others are side rows, whose logits are a little wrong.
    """

    seed: int = 0
    n_layer: int = 12
    n_embd: int = 8
    n_vocab: int = 24
    n_ctx: int = 256
    max_equal_rows: int = 8
    no_drafts: str | None = None
    early_agreement: float = 0.7
    score_range: tuple[float, float] = (0.0, 1.0)
    stop_tokens: tuple[int, ...] = ()
    spelled: dict[int, str] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)  # of the committed rows: `FakeRow.propagated`
    in_flight: dict[int, FakeRow] = field(default_factory=dict)
    tip: int = -1
    next_id: int = 0
    calls: list[tuple[str, int, int]] = field(default_factory=list)  # name, rows, depth
    logits: list[Floats] = field(default_factory=list)
    fail_at: int = -1
    context: FakeContext = field(default_factory=FakeContext)
    computation: int = 0  # that made its logits

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def n_in_flight(self) -> int:
        return len(self.in_flight)

    def prefill(self, tokens: Sequence[int]) -> int:
        assert not self.in_flight
        self.tokens, self.marks = list(tokens), [0] * len(tokens)
        self.tip, self.next_id = self.next_id, self.next_id + 1
        self.compute()
        self.logits = [self._logits(self._text(), self.n_layer)]
        return 0

    def compute(self) -> None:
        self.context.computations += 1
        self.computation = self.context.computations

    def append(self, token: int, parent: int = -1) -> int:
        parent = -1 if parent == self.tip else parent
        assert parent == -1 or parent in self.in_flight
        assert self.length + len(self.in_flight) < self.n_ctx, "no cells left"
        assert not any(row.is_side and row.depth for row in self.in_flight.values()), "side rows are in the way"
        is_side = parent != -1 and self.in_flight[parent].is_side
        is_side |= any(row.parent == parent for row in self.in_flight.values())
        row, self.next_id = self.next_id, self.next_id + 1
        self.in_flight[row] = FakeRow(token, parent=parent, is_side=is_side)
        return row

    def _path(self, row: int) -> list[int]:
        """The rows in flight from the tip to this one."""
        path: list[int] = []
        while row != -1:
            path.insert(0, row)
            row = self.in_flight[row].parent
        return path

    @property
    def _chain(self) -> list[int]:
        return [row for row in self.in_flight if not self.in_flight[row].is_side]

    def advance(self, rows: Sequence[int], end: int, logits: bool = False) -> None:
        self.compute()
        self.advance_rows(rows, end, logits)

    def advance_stages(self, batches: Sequence[tuple[Sequence[int], int]], logits: bool = False) -> None:
        self.compute()
        ranges = [(self.in_flight[rows[0]].depth, end) for rows, end in batches]
        assert all(end <= begin for (begin, _), (_, end) in pairwise(ranges)), "ranges overlap"
        for rows, end in batches:
            before = {a for row in rows for a in self._path(row)} - set(rows)
            assert all(self.in_flight[row].depth >= end for row in before), "an earlier row is not deep enough"
        for rows, end in batches:
            self.advance_rows(rows, end, logits and end == self.n_layer)

    def depth(self, row: int) -> int:
        return self.in_flight[row].depth

    def advance_rows(self, rows: Sequence[int], end: int, logits: bool) -> None:
        self.calls.append(("advance", len(rows), end))
        if 0 <= self.fail_at <= len(self.calls):
            raise RuntimeError("scripted failure")
        assert rows and list(rows) == sorted(set(rows))
        assert len({self.in_flight[row].depth for row in rows}) == 1, "rows of one batch start at one depth"
        assert self.in_flight[rows[0]].depth < end <= self.n_layer
        before = {a for row in rows for a in self._path(row)} - set(rows)
        assert all(self.in_flight[row].depth >= end for row in before), "an earlier row is not deep enough"
        assert all(end == self.n_layer for row in rows if self.in_flight[row].is_side), "side rows go up at once"
        for row in rows:
            self.in_flight[row].depth = end
        assert not logits or end == self.n_layer
        if logits:
            self.logits = [self._logits(self._text(row), end) + self._side_error(row) for row in rows]

    def complete(self, logits: bool = False) -> None:
        self._bring_up([row for row in self._chain if self.in_flight[row].depth < self.n_layer], self.n_layer, logits)

    def _bring_up(self, rows: Sequence[int], end: int, logits: bool = False) -> None:
        """Rows of falling depth to `end` at least; they join as their depths meet."""
        while rows and self.in_flight[rows[-1]].depth < end:
            depth = self.in_flight[rows[-1]].depth
            low = [row for row in rows if self.in_flight[row].depth == depth]
            others = [self.in_flight[row].depth for row in rows if row < low[0]]
            stop = min([end, *others])
            self.advance(low, stop, logits and stop == self.n_layer)

    def run_to_exit(
        self, row: int, layers: Sequence[int], k: int, candidates: Sequence[int], threshold: float
    ) -> FakeExitResult:
        assert row == self._chain[-1]
        scores: list[float] = []
        best = -1
        for layer in layers:
            self._bring_up(self._chain, layer)
            if k == 0:
                best, score = self.margin(row)
            else:
                score = self.probe(row, np.array(candidates, np.int32))
            scores.append(score)
            if score > threshold:
                return FakeExitResult(len(scores) - 1, tuple(scores), best)
        return FakeExitResult(len(layers), tuple(scores), best)

    def propagate_kv(self, row: int) -> None:
        assert list(self.in_flight) == [row]
        self.compute()
        self.calls.append(("propagate_kv", 1, self.in_flight[row].depth))
        self.in_flight[row].propagated, self.in_flight[row].depth = self.in_flight[row].depth, self.n_layer

    def lens_head(self, row: int) -> None:
        self.compute()
        self.calls.append(("lens_head", 1, self.in_flight[row].depth))
        self.logits = [self._logits(self._text(row), self.in_flight[row].depth)]

    def probe(self, row: int, candidates: Tokens) -> float:
        assert len(set(candidates.tolist())) == len(candidates) == 4
        depth = self.in_flight[row].depth
        assert 0 < depth < self.n_layer
        low, high = self.score_range
        return low + (high - low) * float(self._rng(self._text(row), depth, "probe").random())

    def margin(self, row: int) -> tuple[int, float]:
        best = int(np.argmax(self._logits(self._text(row), self.in_flight[row].depth)))
        return best, self.probe(row, np.arange(4, dtype=np.int32))

    def draft(self, row: int, token: int, k: int) -> Tokens:
        text = [*(self._text(row) if row in self.in_flight else self._text()), (token, 0)]
        true = np.argsort(-self._logits(text, self.n_layer))[:2]
        others = self._rng(text, 0, "draft").permutation(self.n_vocab)
        return np.array(list(dict.fromkeys([*true.tolist(), *others.tolist()]))[:k], np.int32)

    def forward(self, token: int) -> int:
        row = self.append(token)
        self.advance((row,), self.n_layer, logits=True)
        self.commit(row)
        return row

    def commit(self, row: int, *, keep_rest: bool = False) -> None:
        path = self._path(row)
        assert not self.in_flight[row].is_side and all(self.in_flight[r].depth == self.n_layer for r in path), (
            "rows must be complete"
        )
        self.tokens += [self.in_flight[r].token for r in path]
        self.marks += [self.in_flight[r].propagated for r in path]
        self.tip = row
        rest = {r: kept for r, kept in self.in_flight.items() if keep_rest and r not in path}
        for kept in rest.values():
            assert not kept.is_side
            kept.parent = -1 if kept.parent == row else kept.parent
        self.in_flight = rest

    def roll_back(self, length: int) -> None:
        assert 0 <= length <= self.length
        self.calls.append(("roll_back", length, 0))
        del self.tokens[length:], self.marks[length:]
        self.in_flight = {}

    def greedy(self, i: int, sampler: Sampler) -> int:
        assert isinstance(sampler, FakeSampler)
        self._check_logits()
        return int(np.argmax(sampler.shape(self.logits[i])))

    def distribution(self, i: int, sampler: Sampler) -> tuple[Tokens, Floats]:
        assert isinstance(sampler, FakeSampler)
        self._check_logits()
        shaped = sampler.shape(self.logits[i]).astype(np.float64) / sampler.temperature
        order = np.argsort(-shaped)[: sampler.top_k or None]
        probs = np.exp(shaped[order] - shaped[order[0]])
        return order.astype(np.int32), (probs / probs.sum()).astype(np.float32)

    def _check_logits(self) -> None:
        assert self.computation == self.context.computations, "these logits were overwritten"

    def is_stop(self, token: int) -> bool:
        return token in self.stop_tokens

    def letters(self, token: int) -> str:
        return self.spelled.get(token, "")

    def _text(self, row: int | None = None) -> list[tuple[int, int]]:
        """(token, mark) of every row up to this one; of the committed ones alone without it."""
        rows = [self.in_flight[r] for r in self._path(-1 if row is None else row)]
        return [*zip(self.tokens, self.marks, strict=True), *((r.token, r.propagated) for r in rows)]

    def _rng(self, text: list[tuple[int, int]], depth: int, what: str) -> np.random.Generator:
        seed = repr((self.seed, [t for t, _ in text], [m for _, m in text], depth, what))
        return np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little"))

    def _side_error(self, row: int) -> Floats:
        if not self.in_flight[row].is_side:
            return np.zeros(self.n_vocab, np.float32)
        return (self._rng(self._text(row), self.n_layer, "side").normal(size=self.n_vocab) * 0.2).astype(np.float32)

    def _logits(self, text: list[tuple[int, int]], depth: int) -> Floats:
        true = self._rng(text, self.n_layer, "logits").normal(size=self.n_vocab) * 2
        rng = self._rng(text, depth, "lens")
        if depth < self.n_layer and rng.random() > self.early_agreement:
            true = rng.normal(size=self.n_vocab) * 2
        return true.astype(np.float32)


def advance_together(batches: Sequence[tuple[FakeEngine, Sequence[int]]], end: int, logits: bool = False) -> None:
    """Rows of several slots in one batch; checks the rules of the real one."""
    first = batches[0][0]
    assert len(batches) > 1 and len({id(engine) for engine, _ in batches}) == len(batches)
    assert sum(len(rows) for _, rows in batches) <= first.max_equal_rows
    assert len({engine.in_flight[rows[0]].depth for engine, rows in batches}) == 1
    first.compute()
    first.context.batches.append([len(rows) for _, rows in batches])
    for engine, rows in batches:
        assert engine.context is first.context
        engine.computation = first.computation
        engine.advance_rows(rows, end, logits)


def make_calibration(
    exit_layers: tuple[int, ...] = (4, 6, 8, 10),
    offline: tuple[int, ...] = (6, 10),
    n_layer: int = 12,
    n_embd: int = 32,
    n_vocab: int = 24,
    n_hidden: int = 512,
    seed: int = 0,
) -> Calibration:
    """A calibration with random weights: rank 32, k = 4, margin rule at the last exit layer."""
    rng = np.random.default_rng(seed)

    def floats(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def lens() -> LensWeights:
        return LensWeights(to_q8(floats(32, n_embd)), to_q8(floats(n_embd, 32)), floats(n_embd))

    def predictor() -> ExitPredictor:
        return ExitPredictor(floats(n_hidden, 12), floats(n_hidden), floats(n_hidden), 0.25)

    lenses = {layer: lens() for layer in exit_layers}
    lenses[exit_layers[-1]] = LensWeights(to_q8(floats(n_embd, n_embd)), None, floats(n_embd))
    shortlist = np.arange(0, n_vocab, 2, dtype=np.int32)
    return Calibration(
        base_sha256="ab" * 32,
        base_name="tiny.gguf",
        n_layer=n_layer,
        n_embd=n_embd,
        n_vocab=n_vocab,
        k=4,
        exit_layers=exit_layers,
        offline=offline,
        threshold=0.75,
        target_agreement=0.97,
        margin_layers=exit_layers[-1:],
        margin_threshold=0.5,
        lenses=lenses,
        predictors={layer: predictor() for layer in exit_layers},
        draft=DraftWeights(to_q8(floats(32, 2 * n_embd)), shortlist, to_q8(floats(n_embd, 32)), floats(n_embd)),
        drafters=("ngram", "linear"),
        metrics={"held_out": {"agreement": 0.5}},
        created_by="test",
    )


def replay(events: Iterable[TokenEvent]) -> list[int]:
    """The text that the events leave; checks the life of every token."""
    tokens: list[int] = []
    verified = 0
    for event in events:
        if event.state is TokenState.ROLLED_BACK:
            assert verified <= event.index < len(tokens)
            assert tokens[event.index] == event.token
            del tokens[event.index :]
        elif event.index == len(tokens):
            tokens.append(event.token)
            if event.state is TokenState.VERIFIED:
                assert verified == event.index, "a token is final only after all before it"
                verified += 1
        else:
            assert event.state is TokenState.VERIFIED and event.index == verified < len(tokens)
            assert tokens[event.index] == event.token
            verified += 1
    assert verified == len(tokens), "every token is final in the end"
    return tokens

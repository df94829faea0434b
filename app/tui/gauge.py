"""Depth, drafts and speed of the answers, kept apart from the widgets that show them."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from specee.app.chat.history.records import Turn
from specee.app.engine.protocol import ChatEvent, Stats
from specee.app.options import DRAFTING

RATE_SECONDS = 2.0  # the running rate is that of so many last seconds
MAX_COLUMNS = 512


@dataclass
class Step:
    """One pass over the model: drafted tokens that were accepted, then one that the model itself chose."""

    tokens: int = 0


@dataclass
class TokenColumn:
    """One token of an answer. `layer`: its exit layer; 0 is the gap between two answers.

    `drafter`: what drafted it, None for a token that the model itself chose.
    """

    layer: int
    verified: bool = True
    text: str = ""
    token: int = -1
    scores: tuple[tuple[int, float], ...] = ()
    candidate_texts: tuple[str, ...] = ()
    drafter: str | None = None
    step: Step = field(default_factory=Step)


@dataclass(frozen=True)
class Point:
    """One answer in the view `threshold`: its mean exit layer and its tokens per second."""

    threshold: float | None
    mean_layer: float
    rate: float


@dataclass
class Gauge:
    """Depth, drafts and speed of the answers so far: the state that all views and the status line show."""

    columns: deque[TokenColumn] = field(default_factory=lambda: deque(maxlen=MAX_COLUMNS))
    answer: list[TokenColumn] = field(default_factory=list)
    """The tokens of the last answer."""
    policy: str = ""
    reason: str = ""
    dense_rate: float | None = None
    stock_rate: float | None = None
    """Of the unpatched library, where a benchmark has measured it here."""
    rate: float = 0.0
    mean_layer: float = 0.0
    rolled_back: int = 0
    drafted: Counter[str] = field(default_factory=Counter)
    """Tokens of the last answer that were drafted and accepted, by drafter."""
    tokens_per_step: float = 0.0
    last: Stats | None = None
    points: list[Point] = field(default_factory=list)
    layers_saved: int = 0
    seconds_saved: float = 0.0
    drafted_so_far: int = 0
    """In all answers since the program started."""
    cursor: int = -1
    """The token that the user chose, counted from the end (-1 is the last one)."""
    _times: deque[float] = field(default_factory=deque)
    """When the last verified tokens came."""
    _layer_sum: int = 0
    _n_steps: int = 0

    @property
    def drafts(self) -> bool:
        """Whether the policy of the last answer drafts tokens."""
        return self.policy in DRAFTING

    def begin(self, policy: str, reason: str, dense_rate: float | None, stock_rate: float | None = None) -> None:
        """A new answer."""
        self.stock_rate = stock_rate if stock_rate is not None else self.stock_rate
        if self.columns:
            self.columns.append(TokenColumn(0))
        self.policy, self.reason = policy, reason
        self.dense_rate = dense_rate if dense_rate is not None else self.dense_rate
        self.answer = []
        self._times.clear()
        self.drafted.clear()
        self.tokens_per_step = 0.0
        self._layer_sum = self._n_steps = self.rolled_back = 0
        self.cursor = -1

    def restore(self, turn: Turn | None) -> None:
        """Shows a stored answer, or none; what was saved since the program started stays."""
        self.columns.clear()
        stats = turn.stats if turn is not None and turn.stats else {}
        self.begin(stats.get("policy", ""), stats.get("policy_reason", ""), stats.get("dense_rate"))
        self.last = None  # its costs belong to another answer
        self.rate, self.mean_layer = stats.get("tokens_per_second", 0.0), stats.get("mean_exit_layer", 0.0)
        at = 0
        if turn is not None:
            for token in turn.tokens:
                text = (turn.thought + turn.content)[at : at + token.characters]
                self._append(TokenColumn(token.layer, text=text, drafter=token.drafter))
                at += token.characters
        if self.drafts:
            self._end_steps(stats.get("policy_stats", {}), stats.get("stop_reason", ""))

    def n_skipping(self, n_layers: int) -> int:
        """How many tokens of the last answer skipped layers."""
        return sum(column.layer < n_layers for column in self.answer)

    def add(self, event: ChatEvent) -> None:
        """One token event."""
        if event.stop and event.state == "verified" and event.index >= len(self.answer):
            return  # the stop token is not part of the answer
        if event.state == "rolled_back":
            self._roll_back(event.index)
        elif event.index < len(self.answer):
            column = self.answer[event.index]
            self._layer_sum += event.exit_layer - column.layer
            column.layer, column.verified = event.exit_layer, event.state == "verified"
            column.scores = event.scores or column.scores
            column.candidate_texts = event.candidate_texts or column.candidate_texts
        else:
            column = TokenColumn(event.exit_layer, event.state == "verified", event.text, event.token)
            column.scores, column.drafter = event.scores, event.drafter
            column.candidate_texts = event.candidate_texts
            self._append(column)
        self._update_rates(event)

    def _append(self, column: TokenColumn) -> None:
        """One more token: of the same step if the one before it was drafted."""
        if self.answer and self.answer[-1].drafter is not None:
            column.step = self.answer[-1].step
        else:
            self._n_steps += 1
        column.step.tokens += 1
        if column.drafter is not None:
            self.drafted[column.drafter] += 1
        self._layer_sum += column.layer
        if self.answer and self.cursor < -1:
            self.cursor -= 1  # the same token
        self.answer.append(column)
        self.columns.append(column)
        if self._n_steps > 1:  # the first token comes from the prompt
            self.tokens_per_step = (len(self.answer) - 1) / (self._n_steps - 1)

    def _roll_back(self, index: int) -> None:
        rolled_back = self.answer[index:]
        self.rolled_back += len(rolled_back)
        for column in rolled_back:
            self._layer_sum -= column.layer
            column.step.tokens -= 1
            self._n_steps -= not column.step.tokens
            if column.drafter is not None:
                self.drafted[column.drafter] -= 1
        for _ in range(min(len(rolled_back), len(self.columns))):
            self.columns.pop()
        del self.answer[index:]
        self.cursor = min(-1, self.cursor + len(rolled_back))

    def _update_rates(self, event: ChatEvent) -> None:
        if event.state == "verified":
            self._times.append(event.t)
            while len(self._times) > 2 and self._times[-1] - self._times[0] > RATE_SECONDS:
                self._times.popleft()
            span = self._times[-1] - self._times[0]
            self.rate = (len(self._times) - 1) / span if span > 0 else 0.0
        if self.answer:
            self.mean_layer = self._layer_sum / len(self.answer)

    def finish(self, stats: Stats, threshold: float | None = None) -> None:
        """The answer is over: its own figures take the place of the running ones."""
        self.last = stats
        self.rate, self.mean_layer = stats.tokens_per_second, stats.mean_exit_layer
        if stats.dense_rate is not None:
            self.dense_rate = stats.dense_rate
        elif stats.policy == "dense":
            self.dense_rate = stats.tokens_per_second or self.dense_rate
        if self.drafts:
            self._end_steps(stats.policy_stats, stats.stop_reason)
            self.drafted_so_far += self.drafted.total()
        if stats.tokens > 1:
            self.points.append(Point(threshold, stats.mean_exit_layer, stats.tokens_per_second))
        if stats.policy != "dense":
            self.layers_saved += round(stats.tokens * (stats.n_layers - stats.mean_exit_layer))
            if self.dense_rate and stats.tokens_per_second:
                # the measured rate includes the cost of drafts and exit predictors
                self.seconds_saved += stats.tokens / self.dense_rate - stats.tokens / stats.tokens_per_second

    def _end_steps(self, counted: dict[str, Any], stop_reason: str) -> None:
        """An answer with drafts is over; `counted` is what the engine counted."""
        if stop_reason == "stop" and self.answer and self.answer[-1].drafter is not None:
            self.answer[-1].step.tokens += 1  # the stop token
        if not counted.get("steps"):
            return
        later = counted["tokens"] - 1  # than the first one, which comes from the prompt
        self.tokens_per_step = later / counted["steps"]
        if self.rate and later and (dense := counted.get("dense_seconds")):
            # the dense rate during this answer: what is not spent on steps and drafts is spent either way
            others = later / self.rate - counted["step_seconds"] - counted["draft_seconds"]
            self.dense_rate = later / (dense + max(0.0, others))

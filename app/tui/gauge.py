"""Depth and speed of the answers, kept apart from the widgets that show them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from specee.app.chat.history.records import Turn
from specee.app.engine.protocol import ChatEvent, Stats
from specee.app.options import DRAFTING

RATE_SECONDS = 2.0  # the running rate is that of so many last seconds
MAX_COLUMNS = 512


@dataclass
class TokenColumn:
    """One token of an answer. `layer`: its exit layer; 0 is the gap between two answers."""

    layer: int
    verified: bool = True
    text: str = ""
    token: int = -1
    scores: tuple[tuple[int, float], ...] = ()
    candidates: tuple[int, ...] = ()


@dataclass(frozen=True)
class Point:
    """One answer in the view `dial`: its mean exit layer and its tokens per second."""

    threshold: float | None
    mean_layer: float
    rate: float


@dataclass
class Gauge:
    """Depth and speed of the answers so far: the state that all views and the status line show."""

    columns: deque[TokenColumn] = field(default_factory=lambda: deque(maxlen=MAX_COLUMNS))
    answer: list[TokenColumn] = field(default_factory=list)
    """The tokens of the last answer."""
    policy: str = ""
    reason: str = ""
    dense_rate: float | None = None
    rate: float = 0.0
    mean_layer: float = 0.0
    rolled_back: int = 0
    n_drafted: int = 0
    """Tokens of the last answer that were drafted and accepted."""
    last: Stats | None = None
    points: list[Point] = field(default_factory=list)
    layers_saved: int = 0
    seconds_saved: float = 0.0
    cursor: int = -1
    """The token under the inspector, counted from the end (-1 is the last one)."""
    _times: deque[float] = field(default_factory=deque)
    """When the last verified tokens came."""
    _layer_sum: int = 0

    def begin(self, policy: str, reason: str, dense_rate: float | None) -> None:
        """A new answer."""
        if self.columns:
            self.columns.append(TokenColumn(0))
        self.policy, self.reason = policy, reason
        self.dense_rate = dense_rate if dense_rate is not None else self.dense_rate
        self.answer = []
        self._times.clear()
        self._layer_sum = self.rolled_back = self.n_drafted = 0
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
                self.answer.append(TokenColumn(token.layer, text=turn.content[at : at + token.characters]))
                at += token.characters
        if self.policy in DRAFTING:
            self.n_drafted = stats.get("policy_stats", {}).get("accepted", 0)
        self.columns.extend(self.answer)
        self._layer_sum = sum(column.layer for column in self.answer)

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
            column.scores, column.candidates = event.scores or column.scores, event.candidates or column.candidates
        else:
            column = TokenColumn(event.exit_layer, event.state == "verified", event.text, event.token)
            column.scores, column.candidates = event.scores, event.candidates
            self._layer_sum += event.exit_layer
            self.answer.append(column)
            self.columns.append(column)
            self.n_drafted += event.drafter is not None
        self._update_rates(event)

    def _roll_back(self, index: int) -> None:
        rolled_back = self.answer[index:]
        self.rolled_back += len(rolled_back)
        self._layer_sum -= sum(column.layer for column in rolled_back)
        for _ in range(min(len(rolled_back), len(self.columns))):
            self.columns.pop()
        del self.answer[index:]

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
        if stats.tokens > 1:
            self.points.append(Point(threshold, stats.mean_exit_layer, stats.tokens_per_second))
        if stats.policy != "dense":
            self.layers_saved += round(stats.tokens * (stats.n_layers - stats.mean_exit_layer))
            if self.dense_rate and stats.tokens_per_second:
                # the measured rate includes the cost of drafts and exit predictors
                self.seconds_saved += stats.tokens / self.dense_rate - stats.tokens / stats.tokens_per_second

"""What the screen shows of an answer, kept apart from the widgets that show it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from specee.app.chat.history.records import Turn
from specee.app.engine.protocol import ChatEvent, ModelInfo, Stats

RATE_SECONDS = 2.0  # "now" in tokens per second now
MAX_COLUMNS = 512


@dataclass
class Column:
    """One token. `layer` 0 is the gap between two answers."""

    layer: int
    verified: bool = True
    text: str = ""
    token: int = -1
    scores: tuple[tuple[int, float], ...] = ()
    candidates: tuple[int, ...] = ()


@dataclass(frozen=True)
class Point:
    """One answer on the dial: the depth it had and the speed it ran at."""

    threshold: float | None
    mean_layer: float
    rate: float


@dataclass
class Gauge:
    """Depth and speed of the answers so far: the one state that all views of the depth show."""

    columns: deque[Column] = field(default_factory=lambda: deque(maxlen=MAX_COLUMNS))
    answer: list[Column] = field(default_factory=list)
    """The tokens of the last answer."""
    policy: str = ""
    reason: str = ""
    dense_rate: float | None = None
    rate: float = 0.0
    mean_layer: float = 0.0
    rolled_back: int = 0
    last: Stats | None = None
    points: list[Point] = field(default_factory=list)
    layers_saved: int = 0
    seconds_saved: float = 0.0
    cursor: int = -1
    """The token under the inspector, from the end."""
    _times: deque[float] = field(default_factory=deque)
    _layer_sum: int = 0

    def begin(self, policy: str, reason: str, dense_rate: float | None) -> None:
        """A new answer."""
        if self.columns:
            self.columns.append(Column(0))
        self.policy, self.reason = policy, reason
        self.dense_rate = dense_rate if dense_rate is not None else self.dense_rate
        self.answer = []
        self._times.clear()
        self._layer_sum = self.rolled_back = 0
        self.cursor = -1

    def restore(self, turn: Turn | None) -> None:
        """Shows a kept answer, or none; what was saved in this sitting stays."""
        self.columns.clear()
        stats = turn.stats if turn is not None and turn.stats else {}
        self.begin(stats.get("policy", ""), stats.get("policy_reason", ""), stats.get("dense_rate"))
        self.rate, self.mean_layer = stats.get("tokens_per_second", 0.0), stats.get("mean_exit_layer", 0.0)
        at = 0
        if turn is not None:
            for depth in turn.depths:
                self.answer.append(Column(depth.layer, text=turn.content[at : at + depth.characters]))
                at += depth.characters
        self.columns.extend(self.answer)
        self._layer_sum = sum(column.layer for column in self.answer)

    def add(self, event: ChatEvent) -> None:
        """One token event."""
        if event.stop and event.state == "verified" and event.index >= len(self.answer):
            return  # the end of the answer is no word
        if event.state == "rolled_back":
            self._withdraw(event.index)
        elif event.index < len(self.answer):
            column = self.answer[event.index]
            self._layer_sum += event.exit_layer - column.layer
            column.layer, column.verified = event.exit_layer, event.state == "verified"
            column.scores, column.candidates = event.scores or column.scores, event.candidates or column.candidates
        else:
            column = Column(event.exit_layer, event.state == "verified", event.text, event.token)
            column.scores, column.candidates = event.scores, event.candidates
            self._layer_sum += event.exit_layer
            self.answer.append(column)
            self.columns.append(column)
        self._tick(event)

    def _withdraw(self, index: int) -> None:
        withdrawn = self.answer[index:]
        self.rolled_back += len(withdrawn)
        self._layer_sum -= sum(column.layer for column in withdrawn)
        for _ in range(min(len(withdrawn), len(self.columns))):
            self.columns.pop()
        del self.answer[index:]

    def _tick(self, event: ChatEvent) -> None:
        if event.state == "verified":
            self._times.append(event.t)
            while len(self._times) > 2 and self._times[-1] - self._times[0] > RATE_SECONDS:
                self._times.popleft()
            span = self._times[-1] - self._times[0]
            self.rate = (len(self._times) - 1) / span if span > 0 else 0.0
        if self.answer:
            self.mean_layer = self._layer_sum / len(self.answer)

    def finish(self, stats: Stats, threshold: float | None = None) -> None:
        """The answer's own figures in place of the running ones."""
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
                # what was measured has the cost of drafts and predictors in it
                self.seconds_saved += stats.tokens / self.dense_rate - stats.tokens / stats.tokens_per_second


def status_lines(
    gauge: Gauge, info: ModelInfo | None, activity: str, used: int = 0, policy: str = "auto"
) -> tuple[str, str]:
    """Figures, and why exits are on or off; `policy` is what the next answer is asked with.

    The most important things stand first: narrow screens cut the rest.
    """
    if info is None:
        return activity or "starting", ""
    figures = []
    if activity:
        figures.append(activity)
    if gauge.rate:
        dense = f" (dense {_short(gauge.dense_rate)})" if gauge.dense_rate else ""
        figures.append(f"{_short(gauge.rate)} tokens/s{dense}")
    if used:
        figures.append(f"window {used}/{info.n_ctx}")
    if gauge.mean_layer:
        figures.append(f"layer {gauge.mean_layer:.1f}/{info.n_layers}")
    if gauge.last is not None and gauge.last.reused:
        figures.append(f"reused {gauge.last.reused}/{gauge.last.prompt_tokens}")
    if gauge.rolled_back:
        figures.append(f"{gauge.rolled_back} withdrawn")
    figures.append(info.name)
    return " · ".join(figures), _switch(gauge, info, policy)


def _short(rate: float) -> str:
    return f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"


def _switch(gauge: Gauge, info: ModelInfo, policy: str) -> str:
    """Whether words may leave early, and why."""
    if gauge.policy:
        switch = "OFF" if gauge.policy == "dense" else f"ON ({gauge.policy})"
        return f"exits {switch}: {gauge.reason}"
    if info.dense_only:
        return f"exits OFF: {info.dense_only}"
    if policy == "dense":
        return "exits OFF: policy dense was asked for"
    return f"exits OFF yet: policy {policy} decides at the first answer"

"""What the screen shows of an answer, kept apart from the widgets that show it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from specee.app.protocol import ChatEvent, ModelInfo, Stats

RATE_SECONDS = 2.0  # "now" in tokens per second now
MAX_COLUMNS = 512


@dataclass
class Column:
    """One token of the skyline. `layer` 0 is the gap between two answers."""

    layer: int
    verified: bool = True


@dataclass
class Gauge:
    """Depth and speed of the answers so far."""

    columns: deque[Column] = field(default_factory=lambda: deque(maxlen=MAX_COLUMNS))
    policy: str = ""
    reason: str = ""
    dense_rate: float | None = None
    rate: float = 0.0
    mean_layer: float = 0.0
    rolled_back: int = 0
    _answer: list[Column] = field(default_factory=list)
    _times: deque[float] = field(default_factory=deque)

    def begin(self, policy: str, reason: str, dense_rate: float | None) -> None:
        """A new answer."""
        if self.columns:
            self.columns.append(Column(0))
        self.policy, self.reason = policy, reason
        self.dense_rate = dense_rate if dense_rate is not None else self.dense_rate
        self._answer = []
        self._times.clear()
        self.rolled_back = 0

    def add(self, event: ChatEvent) -> None:
        """One token event."""
        if event.stop and event.state == "verified" and event.index >= len(self._answer):
            return  # the end of the answer is no word
        if event.state == "rolled_back":
            withdrawn = len(self._answer) - event.index
            self.rolled_back += max(0, withdrawn)
            for _ in range(min(withdrawn, len(self.columns))):
                self.columns.pop()
            del self._answer[event.index :]
        elif event.index < len(self._answer):
            column = self._answer[event.index]
            column.layer, column.verified = event.exit_layer, event.state == "verified"
        else:
            column = Column(event.exit_layer, event.state == "verified")
            self._answer.append(column)
            self.columns.append(column)
        self._tick(event)

    def _tick(self, event: ChatEvent) -> None:
        if event.state == "verified":
            self._times.append(event.t)
            while len(self._times) > 2 and self._times[-1] - self._times[0] > RATE_SECONDS:
                self._times.popleft()
            span = self._times[-1] - self._times[0]
            self.rate = (len(self._times) - 1) / span if span > 0 else 0.0
        if self._answer:
            self.mean_layer = sum(c.layer for c in self._answer) / len(self._answer)

    def finish(self, stats: Stats) -> None:
        """The answer's own figures in place of the running ones."""
        self.rate, self.mean_layer = stats.tokens_per_second, stats.mean_exit_layer
        if stats.dense_rate is not None:
            self.dense_rate = stats.dense_rate
        elif stats.policy == "dense":
            self.dense_rate = stats.tokens_per_second or self.dense_rate


def status_lines(gauge: Gauge, info: ModelInfo | None, activity: str) -> tuple[str, str]:
    """Figures, and why exits are on or off. The most important things stand first: narrow screens cut the rest."""
    if info is None:
        return activity or "starting", ""
    figures = []
    if activity:
        figures.append(activity)
    if gauge.rate:
        dense = f" (dense {gauge.dense_rate:.1f})" if gauge.dense_rate else ""
        figures.append(f"{gauge.rate:.1f} tokens/s{dense}")
    if gauge.mean_layer:
        figures.append(f"layer {gauge.mean_layer:.1f} of {info.n_layers}")
    if gauge.rolled_back:
        figures.append(f"{gauge.rolled_back} withdrawn")
    figures.append(info.name)
    if not gauge.policy:
        return " · ".join(figures), info.dense_only or ""
    switch = "OFF" if gauge.policy == "dense" else f"ON ({gauge.policy})"
    return " · ".join(figures), f"exits {switch}: {gauge.reason}"

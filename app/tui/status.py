"""The status line: speed, context, model, and whether tokens skip layers."""

from __future__ import annotations

from textual.content import Content
from textual.geometry import Size
from textual.widgets import Static

from specee.app.engine.protocol import ModelInfo
from specee.app.options import DRAFTING
from specee.app.tui.gauge import Gauge
from specee.app.tui.wrapping import Block, wrap


class Status(Static):
    """Figures in one line, as many as fit; below, in one or two lines, whether tokens skip layers, and why."""

    DEFAULT_CSS = """
    Status { height: 2; padding: 0 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    Status.-tall { height: 3; }
    """

    def __init__(self) -> None:
        super().__init__("", markup=False)
        self._lines = ("", "")
        self._shown = ""

    def show(self, lines: tuple[str, str]) -> None:
        self._lines = lines
        figures, skipping = lines
        rows = [line.text.plain for line in wrap(Block(Content(skipping)), max(8, self.content_size.width))]
        text = "\n".join([_fitting(figures, self.content_size), *rows[:2]])
        if text != self._shown:
            self._shown = text
            self.update(text, layout=False)
            self.set_class(len(rows) > 1, "-tall")

    def on_resize(self) -> None:
        self.show(self._lines)


def status_lines(
    gauge: Gauge, info: ModelInfo | None, activity: str, used: int = 0, policy: str = "auto"
) -> tuple[str, str]:
    """The two lines; `used`: tokens in the context window, `policy`: what the next answer is asked with.

    The most important figures stand first: narrow screens cut the rest.
    """
    if info is None:
        return activity or "starting", ""
    figures = []
    if activity:
        figures.append(activity)
    if gauge.rate:
        dense_rate = gauge.dense_rate if gauge.policy != "dense" else None  # of dense itself it would be the same
        without = "without drafts" if gauge.policy in DRAFTING else "with all layers"
        dense = f" ({_short(dense_rate)} {without})" if dense_rate else ""
        figures.append(f"{_short(gauge.rate)} tokens/s{dense}")
    if used:
        figures.append(f"context {used}/{info.n_ctx}")
    figures.append(info.name)
    if 0 < gauge.mean_layer < info.n_layers:
        figures.append(f"{gauge.mean_layer:.1f} of {info.n_layers} layers per token")
    return " · ".join(figures), _skipping(gauge, info, policy)


def _skipping(gauge: Gauge, info: ModelInfo, policy: str) -> str:
    """Whether tokens skip layers, how many do, and why."""
    if gauge.policy:
        why = f"policy {gauge.policy}: {gauge.reason}" if gauge.reason else f"policy {gauge.policy}"
        if gauge.policy == "dense":
            return f"no token skips layers ({why})"
        if gauge.policy in DRAFTING:
            return f"{gauge.n_drafted} of {len(gauge.answer)} tokens were drafted ({why})"
        return f"{gauge.n_skipping(info.n_layers)} of {len(gauge.answer)} tokens skipped layers ({why})"
    if info.dense_only:
        return f"no token skips layers: {info.dense_only}"
    if policy == "dense":
        return "no token skips layers (policy dense)"
    if policy == "auto":
        return "policy auto: the first answers show whether skipping layers is faster here"
    if policy in DRAFTING:
        return f"policy {policy}: tokens are drafted where that pays"
    return f"policy {policy}: tokens may skip layers"


def _short(rate: float) -> str:
    return f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"


def _fitting(figures: str, size: Size) -> str:
    """Those figures that fit whole; a narrow screen leaves out the last ones."""
    while len(figures) > size.width > 0 and " · " in figures:
        figures = figures.rpartition(" · ")[0]
    return figures

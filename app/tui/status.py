"""The status line: speed, context, model, and whether tokens are drafted or skip layers."""

from __future__ import annotations

import re

from textual.content import Content
from textual.geometry import Size
from textual.widgets import Static

from specee.app.engine.protocol import ModelInfo
from specee.app.formatting import visible
from specee.app.options import DEFAULT_KV_TYPE, DRAFTING
from specee.app.tui.drafters import counts
from specee.app.tui.gauge import Gauge
from specee.app.tui.wrapping import Block, wrap

_SEPARATOR = re.compile(r"( · |, )")


class Status(Static):
    """Figures in one line, as many as fit; below, in one or two lines, how the policy decodes."""

    DEFAULT_CSS = """
    Status { height: 2; padding: 0 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    Status.-tall { height: 3; }
    """

    def __init__(self) -> None:
        super().__init__("", markup=False)
        self._lines = ("", "")
        self._shown = ""

    def show(self, lines: tuple[str, str]) -> None:
        self._lines = lines = visible(lines[0]), visible(lines[1])
        figures, decoding = lines
        rows = [line.text.plain for line in wrap(Block(Content(decoding)), max(8, self.content_size.width))]
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
        figures.append(f"{_short(gauge.rate)} tokens/s{_comparison(gauge)}")
    if used:
        kept_as = "" if info.kv_type == DEFAULT_KV_TYPE else f" in {info.kv_type}"
        figures.append(f"context {used}/{info.n_ctx}{kept_as}")
    figures.append(info.name)
    if 0 < gauge.mean_layer < info.n_layers:
        figures.append(f"{gauge.mean_layer:.1f} of {info.n_layers} layers per token")
    if info.places:
        figures.append(info.places)
    return " · ".join(figures), _decoding(gauge, info) if gauge.policy else _outlook(info, policy)


def _comparison(gauge: Gauge) -> str:
    """The rate without what the policy does (nothing for dense itself, of which it would be the same), and that of the
    unpatched library where it was measured here."""
    dense = f", dense here {_short(gauge.dense_rate)}" if gauge.dense_rate and gauge.policy != "dense" else ""
    return dense + (f", stock llama.cpp about {gauge.stock_rate:.0f}" if gauge.stock_rate else "")


def _decoding(gauge: Gauge, info: ModelInfo) -> str:
    """What the policy did for the last answer, and why."""
    why = f"policy {gauge.policy}: {gauge.reason}" if gauge.reason else f"policy {gauge.policy}"
    count = len(gauge.answer)
    if gauge.policy == "dense":
        return f"no drafts, no token skips layers ({why})"
    if not gauge.drafts:
        return f"{gauge.n_skipping(info.n_layers)} of {count} tokens skipped layers ({why})"
    if not gauge.tokens_per_step:
        return why
    drafted = f"{gauge.drafted.total()} of {count} tokens were drafted"
    where = f": {counts(gauge.drafted)}" if gauge.drafted.total() else ""
    return f"{gauge.tokens_per_step:.2f} tokens a step; {drafted}{where} (policy {gauge.policy})"


def _outlook(info: ModelInfo, policy: str) -> str:
    """What the policy will do; `policy` is its label, with parameters."""
    name, _, variant = policy.partition("@")[0].partition(":")
    if name == "dense":
        return "policy dense: no drafts, and no token skips layers"
    if name == "auto" or name in DRAFTING:
        return f"policy {policy}: easy tokens are guessed ahead (drafted){'' if variant else '; same text'}"
    if info.dense_only:
        return f"no token skips layers: {info.dense_only}"
    return f"policy {policy}: tokens may skip layers"


def _short(rate: float) -> str:
    return f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"


def _fitting(figures: str, size: Size) -> str:
    """Those figures that fit whole; a narrow screen leaves out the last ones."""
    parts = _SEPARATOR.split(figures)  # figures and what separates them, in turn
    while len("".join(parts)) > size.width > 0 and len(parts) > 1:
        del parts[-2:]
    return "".join(parts)

"""A report as a bar plot: plain SVG that is readable on a light and on a dark page."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

WIDTH, RIGHT, LETTER = 760, 200, 7.5  # pixels; the bars are between names and figures
ROW, BAR, TOP, BOTTOM = 34, 20, 44, 30

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px }
.small { font-size: 11px; fill: #59636e }
.dense { fill: #8c959f } .policy { fill: #0969da } .stock { fill: #bc4c00 }
.spread { stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1 } .spread { stroke: #f0f6fc }
  .dense { fill: #656c76 } .policy { fill: #4493f8 } .stock { fill: #db6d28 }
}
"""


def svg(report: dict[str, Any]) -> str:
    """Tokens per second of each policy, and of the unpatched library; the lines span the prompts' speed-ups."""
    bars = list(report["policies"].items())
    if report["stock"] is not None:
        bars.append(("stock llama.cpp", report["stock"]))
    bars = [(name, figures) for name, figures in bars if figures["tokens_per_second"]]
    dense = report["policies"]["dense"]["tokens_per_second"] or 0.0
    most = max((max(f["tokens_per_second"], dense * (f["speedup_max"] or 0.0)) for _, f in bars), default=1.0)
    left = 24 + LETTER * max((len(name) for name, _ in bars), default=0)
    height = TOP + ROW * len(bars) + BOTTOM
    machine = report["machine"]
    title = f"{report['model']}: tokens per second"
    below = (
        f"{machine['cpu']}, {report['threads']} threads; {report['prompts']} prompts, at most {report['max_tokens']} "
        f"tokens, temperature {report['temperature']:g}; lines: from the least to the greatest prompt"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{_attribute(title)}">',
        f"<style>{STYLE}</style>",
        _text(8, 22, title if report["complete"] else f"{title} (incomplete)", "title"),
    ]
    for index, (name, figures) in enumerate(bars):
        parts += _bar(name, figures, left, TOP + ROW * index, (WIDTH - left - RIGHT) / most, dense)
    return "\n".join([*parts, _text(8, height - 10, below, "small"), "</svg>", ""])


def _bar(name: str, figures: dict[str, Any], left: float, y: float, scale: float, dense: float) -> list[str]:
    kind = name if name == "dense" else "stock" if name.startswith("stock") else "policy"
    middle = y + BAR / 2
    rate, least, most = figures["tokens_per_second"], figures["speedup_min"], figures["speedup_max"]
    parts = [
        _text(left - 10, middle + 5, name, anchor="end"),
        f'<rect class="{kind}" x="{left}" y="{y}" width="{rate * scale:.1f}" height="{BAR}" rx="3"/>',
    ]
    end = rate
    said = f"{rate:.1f}"
    if kind != "dense" and figures["speedup"] is not None:
        said += f"  {figures['speedup']:.2f}x ({least:.2f}-{most:.2f})"
        low, end = dense * least, max(rate, dense * most)
        x1, x2 = left + low * scale, left + dense * most * scale
        parts.append(f'<line class="spread" x1="{x1:.1f}" y1="{middle}" x2="{x2:.1f}" y2="{middle}"/>')
    return [*parts, _text(left + end * scale + 8, middle + 5, said)]


def _text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def _attribute(content: str) -> str:
    return escape(content, {'"': "&quot;"})

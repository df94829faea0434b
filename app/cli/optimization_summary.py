"""What `models optimize` changed and measured, as text."""

from __future__ import annotations

from typing import Any

from specee.app.cli import tables
from specee.app.formatting import size

_TITLES = ("", "prompt tokens/s", "ms for 1 token", "ms for 4 at once", "perplexity", "size")


def text(result: dict[str, Any]) -> str:
    """The changes, both models side by side, and whether the copy is worth it."""
    rows = []
    for name, n_bytes in (("before", "bytes_before"), ("after", "bytes")):
        found = result[name]
        rows.append(
            (
                name,
                f"{found['prefill']:.0f}",
                f"{found['t1'] * 1e3:.2f}",
                "-" if found["t4"] is None else f"{found['t4'] * 1e3:.2f}",
                f"{found['perplexity']:.4f}",
                size(result[n_bytes]),
            )
        )
    return "\n".join(
        [
            *result["changes"],
            "",
            tables.table([tables.Column(title, right=bool(title)) for title in _TITLES], rows),
            "",
            f"{result['verdict']}; perplexity {result['perplexity_ratio'] - 1:+.2%}",
            f"written to {result['path']}: use it with --model, and calibrate it, as each file needs it",
        ]
    )

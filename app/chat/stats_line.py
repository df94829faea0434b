"""The figures of one answer as one line."""

from __future__ import annotations

from specee.app.engine.protocol import Stats

ENDS = {
    "stop": "complete",
    "length": "cut off by --max-tokens",
    "window": "cut off: the context window is full",
    "cancelled": "cancelled",
}


def stats_line(stats: Stats) -> str:
    """How fast an answer came, how it was decoded, and how it ended."""
    return (
        f"{stats.tokens} tokens at {stats.tokens_per_second:.1f} tokens/s, the first after {stats.ttft_s:.2f} s; "
        f"prompt of {stats.prompt_tokens} tokens, {stats.reused} of them from the cache; "
        f"{stats.mean_exit_layer:.1f} of {stats.n_layers} layers per token on average; "
        f"policy {stats.policy}: {stats.policy_reason}; {ENDS[stats.stop_reason]}"
    )
